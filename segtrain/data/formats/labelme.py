"""labelme: a JSON beside each image, its shapes drawn in their order."""

from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.class_files import read_class_file
from segtrain.data.discovery import list_files
from segtrain.data.formats.base import Annotated, Found, Kind, Record, WrongSizeError
from segtrain.data.formats.files import as_list, check_mapping, clean_name, find_split_folder, has_suffix, load_json
from segtrain.data.formats.regions import (
    Ellipse,
    Encoded,
    Polygon,
    Region,
    Shape,
    make_box,
    read_numbers,
    read_ring,
)
from segtrain.errors import UserError

IGNORED = "__ignore__"  # the label of void
POINTS = {"rectangle": 2, "circle": 2, "mask": 2, "line": 2, "oriented_rectangle": 4}  # other types have any number


class Labelme(Annotated):
    """x.json beside x.jpg, in train/ and val/ or any folders; the classes are those of labels.txt, or the labels met.

    An image without a JSON is not labelled and left out.
    """

    what = "JSON files of labelme"
    unused = ("attribute", "crowd", "images")

    def find(self, split: str | None) -> Found:
        folder = None if split is None else find_split_folder(self.base, split)
        where = folder or (self.base / self.annotations_at if self.annotations_at else self.base)
        files = [path for path in list_files(where, "dataset.root") if path.suffix.lower() == ".json"]
        if not files:
            raise UserError(f"{where} holds no JSON file of labelme: check dataset.root.")
        listed = self.base / "labels.txt"
        remarks = []
        if listed.is_file():
            kinds = [Kind(label.name) for label in read_class_file(listed).labels]
        else:
            everywhere = [path for path in list_files(self.base, "dataset.root") if path.suffix.lower() == ".json"]
            met = {str(shape.get("label")) for path in everywhere for shape in _list_shapes(path)[1]}
            kinds = [Kind(name) for name in sorted(met - {IGNORED})]
            remarks.append(f"there is no labels.txt in {self.base}, so the classes are the labels met, by alphabet: "
                           "list them in it, one a line, to keep their order.")
        images = {path.with_suffix(""): path for path in list_files(where, "dataset.root") if has_suffix(path)}
        found = [(path, images.get(path.with_suffix("")) or _find_named(path, where)) for path in files]
        without = len(images.keys() - {path.with_suffix("") for path in files})
        if without:
            remarks.append(f"{without} images below {where} have no JSON beside them and are left out.")
        records = [Record(image.relative_to(where).as_posix(), path, None, path) for path, image in found]
        return Found(kinds, records, where, has_splits=folder is not None, remarks=remarks, void=(IGNORED,))

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        content, shapes = _list_shapes(record.source)
        said = content.get("imageWidth"), content.get("imageHeight")
        if isinstance(said[0], int) and isinstance(said[1], int) and said != size:
            raise WrongSizeError((said[0], said[1]))
        found = []
        for number, shape in enumerate(shapes, 1):
            where = f"{record.source}, shape {number} ({shape.get('label')})"
            group = None if shape.get("group_id") is None else str(shape["group_id"])
            found.append(Region(where, str(shape.get("label")), self._read_shape(shape, where, record), group))
        return found

    def _read_shape(self, shape: dict[str, Any], where: str, record: Record) -> Shape | None:
        kind = str(shape.get("shape_type") or "polygon")
        if kind == "mask" and not isinstance(shape.get("mask"), str):
            raise UserError(f"{where} is of the type mask but has no mask: draw it again, or remove it.")
        points = read_ring(shape.get("points"), where, least=3 if kind == "polygon" else 1)
        if len(points) != POINTS.get(kind, len(points)):
            raise UserError(f"{where}: a {kind} of {len(points)} points, which needs {POINTS[kind]}: correct or remove "
                            "it.")
        if kind == "polygon" or kind == "oriented_rectangle":
            return Polygon((points,))
        if kind == "rectangle":
            return make_box(*points.min(0), *points.max(0))
        if kind == "circle":
            radius = float(np.hypot(*(points[1] - points[0])))
            return Ellipse((float(points[0][0]), float(points[0][1])), (radius, radius))
        if kind == "mask":
            left, top, right, bottom = read_numbers([*points.min(0), *points.max(0)], where)
            whole = all(number == int(number) for number in (left, top, right, bottom))
            return Encoded(shape["mask"], round(left), round(top),
                           (int(right - left) + 1, int(bottom - top) + 1) if whole else None)
        if kind in ("line", "linestrip", "point", "points"):
            return self.make_line(points, record, where, kind, is_points=kind in ("point", "points"))
        raise UserError(f"{where} is of the type {kind}, which has no pixels: draw it as a polygon, or remove it.")


def _list_shapes(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    content = check_mapping(load_json(path), path, "a JSON file of labelme", ("shapes",))
    shapes = as_list(content["shapes"])
    if not all(isinstance(shape, dict) for shape in shapes):
        raise UserError(f"{path} is not a JSON file of labelme: shapes must be a list of mappings.")
    return content, shapes


def _find_named(path: Path, base: Path) -> Path:
    """Return the image that a JSON names, where none of its own name lies beside it."""
    named = clean_name(str(load_json(path).get("imagePath") or ""))
    for image in (path.parent / named, path.parent / named.rpartition("/")[2]):
        if named and ".." not in image.parts and image.is_file():
            return image
    return path.with_name(named.rpartition("/")[2] or f"{path.stem}.jpg")
