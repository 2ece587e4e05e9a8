"""COCO's instance annotations: one JSON for each split, or for all images; also as Roboflow and CVAT export them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.discovery import has_images
from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.files import (
    check_mapping,
    clean_name,
    find_split_folder,
    list_folders,
    load_json,
    name_split,
    pick_split,
)
from segtrain.data.formats.regions import Polygon, Region, Runs, Shape, read_ring, read_runs
from segtrain.errors import UserError, list_first

WHAT = "an annotation file of COCO"
OTHER_KINDS = ("captions_", "person_keypoints_", "panoptic_", "image_info_", "stuff_")  # files of the official set
ROBOFLOW = "_annotations.coco.json"


class Coco(Annotated):
    """annotations/instances_<split>.json with <split>/ or images/<split>/; <split>/_annotations.coco.json; or one JSON.

    Train ids follow the categories' ids. Source: Lin et al., "Microsoft COCO: common objects in context" (ECCV 2014).
    """

    what = "COCO annotation files"
    overlap = "area"
    unused = ("attribute", "line_width")

    def find(self, split: str | None) -> Found:
        files = find_files(self.base, self.annotations_at, split)
        kinds: list[Kind] = []
        names: dict[Any, str] = {}
        records: list[Record] = []
        has_splits = split is not None and _tells_split(files, self.annotations_at, split, self.base)
        for path in files:
            found_kinds, names, found = _read_file(path)
            kinds = kinds or found_kinds
            if found_kinds != kinds:
                raise UserError(f"{files[0]} and {path} list different categories: give all files the same.")
            records += found
        folder = find_image_folder(self.base, self.images_at, split if has_splits else None, files[0])
        self._names = names
        return Found(kinds, records, folder, has_splits=has_splits)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        return [region for content in record.content
                for region in [_read_annotation(content, record, size, self._names)] if region is not None]


# ---- the files


def find_files(base: Path, pattern: str | None, split: str | None) -> list[Path]:
    """Find the annotation files of a split, all of them with None."""
    if pattern is not None:
        words = [split] if split is not None else [None]
        paths = [base / (pattern if word is None else pattern.replace("{split}", word)) for word in words]
        if split is None and "{split}" in pattern:
            paths = sorted(base.glob(pattern.replace("{split}", "*")))
        if not paths or not all(path.is_file() for path in paths):
            raise UserError(f"{paths[0] if paths else base / pattern} is not a file: check dataset.annotations and "
                            "dataset.split.")
        return paths
    found = list_candidates(base)
    if not found:
        raise UserError(f"{base} holds no annotation file of COCO (annotations/instances_train.json, "
                        f"train/{ROBOFLOW}, annotations.json): check dataset.root, or name it with "
                        "dataset.annotations.")
    if split is None or (len(found) == 1 and name_split(_label(found[0], base)) is None):
        return found
    labels = {_label(path, base): path for path in found}
    picked = pick_split(labels, split)
    if picked is None:
        raise UserError(f"dataset.split={split}: the annotation files in {base} are {list_first(list(labels))}: name "
                        "it with dataset.annotations, as \"annotations/instances_{split}.json\".")
    return [labels[picked]]


def list_candidates(base: Path) -> list[Path]:
    """List the files that may be annotation files of COCO by their places and names."""
    exports = [path for folder in list_folders(base) for path in [folder / ROBOFLOW] if path.is_file()]
    if exports:
        return exports
    for folder in (base / "annotations", base):
        found = sorted(folder.glob("*.json")) if folder.is_dir() else []
        found = [path for path in found if not path.name.startswith((".", *OTHER_KINDS))]
        instances = [path for path in found if path.name.startswith("instances")]
        if instances or found:
            return instances or found
    return []


def _label(path: Path, base: Path) -> str:
    return path.parent.name if path.name == ROBOFLOW else path.relative_to(base).stem.removeprefix("instances_")


def _tells_split(files: list[Path], pattern: str | None, split: str, base: Path) -> bool:
    if pattern is not None:
        return "{split}" in pattern
    label = _label(files[0], base)
    return label == split or name_split(label) == split


def find_image_folder(base: Path, images: str | None, split: str | None, source: Path) -> Path:
    """Return where the images of a split are: where dataset.images says, or in one of the usual folders."""
    if images is not None:
        folder = base / images.replace("{split}", split or "")
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: check dataset.images.")
        return folder
    own = [source.parent] if source.name == ROBOFLOW and split is not None else []
    of_split = [] if split is None else [find_split_folder(base / "images", split), find_split_folder(base, split)]
    usual = [*own, *of_split, base / "images", base]
    return next((folder for folder in usual if folder is not None and has_images(folder)), base)


def _read_file(path: Path) -> tuple[list[Kind], dict[Any, str], list[Record]]:
    """Read the categories, their names by id, and the images with their annotations."""
    content = load_json(path, _compact)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "category_id" in content[0]:
        raise UserError(f"{path} is a list, as a results file of COCO, which holds predictions: name the annotation "
                        "file that has images and categories.")
    check_mapping(content, path, WHAT, ("images", "annotations", "categories"))
    images, annotations = _check_list(content, "images", path), _check_list(content, "annotations", path)
    categories = sorted(_check_list(content, "categories", path), key=lambda item: _number(item.get("id"), path))
    used = {item.get("category_id") for item in annotations}
    categories = [item for item in categories
                  if not (item.get("supercategory") == "none" and item["id"] == 0 and 0 not in used)]
    names = {_number(item["id"], path): str(item.get("name")) for item in categories}
    _refuse_twice([str(item.get("name")) for item in categories], path, "the category")
    _refuse_twice([item["id"] for item in categories], path, "the category id")
    by_id: dict[Any, dict[str, Any]] = {}
    for item in images:
        if "id" not in item or not isinstance(item.get("file_name"), str):
            raise UserError(f"{path}: an image has no id or no file_name ({str(item)[:100]}): export it again.")
        if item["id"] in by_id:
            raise UserError(f"{path}: two images have the id {item['id']}, {by_id[item['id']]['file_name']} and "
                            f"{item['file_name']}: give each its own.")
        by_id[item["id"]] = item
    contents: dict[Any, list[Any]] = {number: [] for number in by_id}
    has_shapes = not annotations
    for place, item in enumerate(annotations):
        number = item.get("image_id")
        if number not in contents:
            raise UserError(f"{path}, annotation {item.get('id', place)}: image_id {number} is no image of the file: "
                            "add the image, or remove the annotation.")
        shape = item.get("segmentation")
        has_shapes = has_shapes or shape is not None
        contents[number].append((item.get("id", place), item.get("category_id"), shape, item.get("iscrowd") == 1))
    if not has_shapes:
        raise UserError(f"{path} has no segmentation in any of its {len(annotations)} annotations, only boxes: it is "
                        "for detection; export it with polygons or masks.")
    kinds = [Kind(name) for name in names.values()]
    return kinds, names, [Record(clean_name(item["file_name"]), path, _read_size(item), contents[number])
                          for number, item in by_id.items()]


def _check_list(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = content[key]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{path}: {key} must be a list of mappings: export it again.")
    return found


def _number(value: Any, path: Path) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return int(value)
    raise UserError(f"{path}: the category id {str(value)[:50]} is not a whole number: export it again.")


def _refuse_twice(values: list[Any], path: Path, what: str) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise UserError(f"{path} lists {what} {value} twice: join them, or rename one.")
        seen.add(value)


def _read_size(item: dict[str, Any]) -> tuple[int, int] | None:
    width, height = item.get("width"), item.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float) and min(width, height) > 0:
        return int(width), int(height)
    return None


def _compact(item: dict[str, Any]) -> dict[str, Any]:
    """Turn the numbers of an annotation's polygons into arrays, which take a fourth of the memory of lists."""
    segmentation = item.get("segmentation")
    if isinstance(segmentation, list):
        rings = [segmentation] if segmentation and isinstance(segmentation[0], int | float) else segmentation
        with suppress(ValueError, TypeError, OverflowError):  # which `read_ring` reports with its place
            item["segmentation"] = [np.array(ring, np.float64) for ring in rings] or None
    return item


# ---- the annotations of an image


def _read_annotation(content: tuple[Any, Any, Any, bool], record: Record, size: tuple[int, int],
                     names: dict[Any, str]) -> Region | None:
    number, category, segmentation, is_crowd = content
    where = f"{record.source}, annotation {number}"
    if category not in names:
        raise UserError(f"{where}: category_id {category} is not among the categories' ids, {_join(names)}: correct "
                        "it, or add the category.")
    if segmentation is None:
        return None
    return Region(where, names[category], read_segmentation(segmentation, where, size), is_crowd=is_crowd)


def read_segmentation(segmentation: Any, where: str, size: tuple[int, int]) -> Shape:
    """Return the shape of a segmentation: polygons, or an RLE in numbers or text of an image of a width and height."""
    if isinstance(segmentation, list):
        return Polygon(tuple(read_ring(ring, where) for ring in segmentation))
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise UserError(f"{where}: its segmentation is neither polygons nor an RLE: export it again.")
    return read_sized_runs(segmentation, where, size)


def read_sized_runs(rle: dict[str, Any], where: str, size: tuple[int, int]) -> Runs:
    """Return the run lengths of an RLE of COCO, whose size must be that of the image."""
    if rle.get("size") != [size[1], size[0]]:
        raise UserError(f"{where}: its RLE has the size {rle.get('size')}, but the image is {size[0]}x{size[1]}, which "
                        f"is [height {size[1]}, width {size[0]}]: export it again.")
    return read_runs(rle["counts"], where, *size, by_columns=True, of=f"the image of {size[0]}x{size[1]}")


def _join(names: dict[Any, str]) -> str:
    return list_first([f"{number} ({name})" for number, name in names.items()], 20)

