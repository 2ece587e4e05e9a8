"""COCO's panoptic annotations: a PNG of segment numbers for each image, and a JSON that says what the segments are."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segtrain.data.class_files import read_color
from segtrain.data.color_masks import pack
from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.coco import find_image_folder
from segtrain.data.formats.files import (
    as_list,
    check_mapping,
    clean_name,
    load_json,
    name_split,
    pick_split,
    refuse_malformed,
)
from segtrain.data.formats.regions import Region
from segtrain.data.images import decode
from segtrain.errors import UserError, list_first
from segtrain.labels import IGNORE_INDEX

WHAT = "a panoptic file of COCO"


class CocoPanoptic(Annotated):
    """annotations/panoptic_<split>.json with panoptic_<split>/*.png beside it, and images as dataset=coco has them.

    A pixel without a segment is void; crowds count as their class. Train ids follow the categories' ids, after a
    background that stays empty (dataset.background=void leaves it out), so that they are those of dataset=coco.

    Source: Kirillov et al., "Panoptic segmentation" (CVPR 2019).
    """

    what = "panoptic files of COCO"
    unused = ("attribute", "overlap", "polygons", "line_width")

    def find(self, split: str | None) -> Found:
        path = _find_file(self.base, self.annotations_at, split)
        content = check_mapping(load_json(path), path, WHAT, ("images", "annotations", "categories"))
        names: dict[Any, str] = {}
        kinds = []
        try:
            for item in sorted(content["categories"], key=lambda item: item["id"]):
                names[item["id"]] = str(item["name"])
                kinds.append(Kind(str(item["name"]), read_color(item.get("color")), bool(item.get("isthing", 1))))
            images = {item["id"]: item for item in content["images"]}
            masks = path.with_suffix("")
            records = [Record(clean_name(images[item["image_id"]]["file_name"]), path,
                              (images[item["image_id"]]["width"], images[item["image_id"]]["height"]),
                              (masks / clean_name(item["file_name"]), as_list(item["segments_info"])))
                       for item in content["annotations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is not {WHAT} (an image, annotation or category lacks {error}): export it again."
                            ) from error
        outside = next((mask for record in records for mask in [record.content[0]] if ".." in mask.parts), None)
        if outside is not None:
            raise UserError(f"{path} names the mask {outside}, which leads out of {masks}: correct it.")
        self._names = names
        has_splits = split is not None and (name_split(path.stem) is not None or split in path.stem)
        return Found(kinds, records, find_image_folder(self.base, self.images_at, split, path), has_splits)

    def list_sources(self, index: int) -> list[Path]:
        return [*super().list_sources(index), self.records[index].content[0]]

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        return []  # segments do not overlap: `_draw` reads them at once

    def _draw(self, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        record = self.records[index]
        with refuse_malformed(f"{record.source}, {record.image},", self.what):
            target, objects = self._read_segments(record, size)
        return target, objects if self._with_instances else None

    def _read_segments(self, record: Record, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        path, segments = record.content
        numbers = decode(path, _read_numbers)
        if numbers.shape != size[::-1]:
            raise UserError(f"{path} is {numbers.shape[1]}x{numbers.shape[0]}, but its image {size[0]}x{size[1]}: they "
                            "must have one size.")
        known = {0: (IGNORE_INDEX, 0)}
        for place, segment in enumerate(segments, 1):
            where = f"{record.source}, image {record.image}, segment {segment.get('id')}"
            category = segment.get("category_id")
            if category not in self._names:
                raise UserError(f"{where}: category_id {category} is not among the categories' ids, "
                                f"{list_first([str(number) for number in self._names], 20)}: correct it.")
            region = Region(where, self._names[category], None, is_crowd=segment.get("iscrowd") == 1)
            train_id = self._train_id_of(region)
            is_object = not region.is_crowd and train_id not in (IGNORE_INDEX, *self._without_instances)
            known[segment.get("id")] = train_id, place if is_object else 0
        found, places = np.unique(numbers, return_inverse=True)
        unknown = [int(number) for number in found if int(number) not in known]
        if unknown:
            pixels = int(np.count_nonzero(numbers == unknown[0]))
            raise UserError(f"{path} holds the segment {unknown[0]} ({pixels} pixels), which {record.source} does not "
                            "list: export both together.")
        table = np.array([known[int(number)] for number in found])
        target, objects = (table[:, column][places.reshape(numbers.shape)] for column in (0, 1))
        return target.astype(np.uint8), objects.astype(np.int32)


def _find_file(base: Path, pattern: str | None, split: str | None) -> Path:
    if pattern is not None:
        path = base / pattern.replace("{split}", split or "")
        if not path.is_file():
            raise UserError(f"{path} is not a file: check dataset.annotations and dataset.split.")
        return path
    found = {path.stem.removeprefix("panoptic_"): path for path in list_candidates(base)}
    picked = next(iter(found), None) if split is None or (len(found) == 1 and name_split(next(iter(found))) is None) \
        else pick_split(found, split)
    if picked is None:
        raise UserError(f"dataset.split={split}: {base} has the panoptic files "
                        f"{list_first([path.name for path in found.values()]) or '(none)'}: check dataset.root, or "
                        "name it with dataset.annotations.")
    return found[picked]


def list_candidates(base: Path) -> list[Path]:
    """List the panoptic files of a folder, which have a folder of PNG files each."""
    return [path for folder in (base / "annotations", base) for path in sorted(folder.glob("panoptic_*.json"))
            if path.with_suffix("").is_dir()]


def _read_numbers(image: Image.Image) -> np.ndarray:
    if image.mode not in ("RGB", "RGBA", "P", "L"):
        raise ValueError(f"it is of mode {image.mode}, not a colour image of numbers")
    red_high = pack(np.array(image.convert("RGB")))
    return (red_high >> 16) | (red_high & 0xff00) | (red_high & 0xff) << 16  # R + 256 G + 65536 B
