"""Darwin, the JSON of V7: a file for each image, version 2.0 and 1.0."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.discovery import list_files
from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.coco import find_image_folder
from segtrain.data.formats.files import as_list, check_mapping, clean_name, load_json
from segtrain.data.formats.regions import (
    Ellipse,
    Polygon,
    Region,
    Runs,
    Shape,
    make_box,
    read_numbers,
    read_ring,
    read_runs,
)
from segtrain.errors import UserError

WHAT = "a JSON file of Darwin"
LATEST = ("releases/latest/annotations", "annotations", ".")


class Darwin(Annotated):
    """releases/latest/annotations/**.json, annotations/ or any folder of such files, with the images in images/.

    The classes are the names met, by alphabet; list them with dataset.classes to keep an order. The paths of a polygon
    cut holes into each other; annotations are drawn in their order.
    """

    what = "JSON files of Darwin"

    def find(self, split: str | None) -> Found:
        places = [self.annotations_at] if self.annotations_at is not None else LATEST
        folder = next((self.base / place for place in places if (self.base / place).is_dir()), self.base)
        files = [path for path in list_files(folder, "dataset.annotations") if path.suffix.lower() == ".json"]
        met: set[str] = set()
        records = []
        for path in files:
            content = check_mapping(load_json(path), path, WHAT, ("annotations",))
            annotations = as_list(content["annotations"])
            if not all(isinstance(item, dict) for item in annotations):
                raise UserError(f"{path} is not {WHAT}: annotations must be a list of mappings.")
            met |= {str(item.get("name")) for item in annotations if _has_area(item)}
            name, size = _read_image(content, path)
            records.append(Record(name, path, size, annotations))
        kinds = [Kind(name) for name in sorted(met)]
        remarks = [f"files of Darwin have no list of classes, so they are the names met below {folder}, by alphabet: "
                   "list them with dataset.classes to keep an order."]
        return Found(kinds, records, find_image_folder(self.base, self.images_at, None, folder / "x.json"),
                     has_splits=False, remarks=remarks)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        layers = [item["raster_layer"] for item in record.content if isinstance(item.get("raster_layer"), dict)]
        found = []
        for number, item in enumerate(record.content, 1):
            if "raster_layer" in item:
                continue
            where = f"{record.source}, annotation {number} ({item.get('name')})"
            shape = _read_mask(item, layers, where, size) if "mask" in item else self._read_shape(item, where, record)
            if shape is not None or _has_area(item):
                found.append(Region(where, str(item.get("name")), shape))
        return found

    def _read_shape(self, item: dict[str, Any], where: str, record: Record) -> Shape | None:
        for key in ("polygon", "complex_polygon"):
            if key in item:
                value = check_mapping(item[key], record.source, WHAT)
                paths = as_list(value.get("paths", value.get("path")))
                paths = paths if paths and isinstance(paths[0], list) else [paths]
                paths += as_list(value.get("additional_paths"))
                return Polygon(tuple(_read_path(path, where) for path in paths), even_odd=True)
        if "ellipse" in item:
            ellipse = check_mapping(item["ellipse"], record.source, WHAT, ("center", "radius"))
            numbers = read_numbers([*_xy(ellipse["center"]), *_xy(ellipse["radius"]), ellipse.get("angle", 0)], where)
            return Ellipse((numbers[0], numbers[1]), (numbers[2], numbers[3]), math.degrees(numbers[4]))
        if "line" in item:
            return self.make_line(_read_path(as_list((item["line"] or {}).get("path")), where, least=1), record, where,
                                  "line")
        if "keypoint" in item:
            return self.make_line(_read_path([item["keypoint"]], where, least=1), record, where, "key point",
                                  is_points=True)
        if "bounding_box" in item and not {"skeleton", "cuboid"} & item.keys():
            box = check_mapping(item["bounding_box"], record.source, WHAT)
            left, top, width, height = read_numbers([box.get(key) for key in "xywh"], where)
            return make_box(left, top, left + width, top + height)
        return None


def _has_area(item: dict[str, Any]) -> bool:
    return any(key in item for key in ("polygon", "complex_polygon", "ellipse", "mask", "bounding_box", "line",
                                       "keypoint"))


def _xy(point: Any) -> list[Any]:
    return [point.get("x"), point.get("y")] if isinstance(point, dict) else [None, None]


def _read_path(path: Any, where: str, *, least: int = 3) -> np.ndarray:
    return read_ring([read_numbers(_xy(point), where) for point in as_list(path)], where, least=least)


def _read_image(content: dict[str, Any], path: Path) -> tuple[str, tuple[int, int] | None]:
    """Return the image of a file with its folder, and its size if it says one."""
    item = content.get("item")
    if isinstance(item, dict):
        slots = as_list(item.get("slots"))
        slot = slots[0] if slots and isinstance(slots[0], dict) else {}
        folder, name = str(item.get("path") or "/").strip("/"), str(item.get("name"))
        sides = slot.get("width"), slot.get("height")
    else:
        image = check_mapping(content.get("image"), path, WHAT)
        folder, name = str(image.get("path") or "/").strip("/"), str(image.get("original_filename")
                                                                     or image.get("filename"))
        sides = image.get("width"), image.get("height")
    size = (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None
    return clean_name(f"{folder}/{name}" if folder else name), size  # type: ignore[return-value]


def _read_mask(item: dict[str, Any], layers: list[dict[str, Any]], where: str, size: tuple[int, int]) -> Runs:
    """Return the part of a raster layer that is an annotation's: value and length in turn, row by row."""
    for layer in layers:
        values = layer.get("mask_annotation_ids_mapping") or {}
        runs = as_list(layer.get("dense_rle"))
        if item.get("id") not in values:
            continue
        if len(runs) % 2 or not all(isinstance(number, int) for number in runs):
            raise UserError(f"{where}: its dense_rle is not value and length in turn: export it again.")
        counts = [0]  # zeros first
        inside = False
        for value, length in zip(runs[::2], runs[1::2], strict=True):
            if (value == values[item["id"]]) != inside:
                inside = not inside
                counts.append(0)
            counts[-1] += length
        return read_runs(counts, where, *size, by_columns=False, of=f"the image of {size[0]}x{size[1]}")
    raise UserError(f"{where}: no raster layer holds its mask: export it again.")
