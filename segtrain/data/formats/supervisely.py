"""Supervisely: meta.json with the classes, and folders of img/ and ann/, a JSON for each image."""

from pathlib import Path
from typing import Any

from segtrain.data.class_files import read_color
from segtrain.data.discovery import list_images
from segtrain.data.formats.base import Annotated, Found, Kind, Record, WrongSizeError
from segtrain.data.formats.files import as_list, check_mapping, load_json, pick_split
from segtrain.data.formats.regions import Encoded, Pixels, Polygon, Region, Shape, read_numbers, read_ring
from segtrain.errors import UserError, list_first

WHAT = "an annotation file of Supervisely"


class Supervisely(Annotated):
    """meta.json, <dataset>/img/x.jpg and <dataset>/ann/x.jpg.json, where the datasets may be the splits.

    Coordinates are whole pixels that belong to the object, as the tool downloads them; interiors are holes.
    """

    what = "project of Supervisely"
    pixels = True
    unused = ("attribute", "crowd", "annotations", "images")

    def find(self, split: str | None) -> Found:
        meta = self.base / "meta.json"
        content = check_mapping(load_json(meta), meta, "the meta.json of a project of Supervisely", ("classes",))
        kinds = [Kind(str(item.get("title")), read_color(item.get("color")))
                 for item in as_list(content["classes"]) if isinstance(item, dict)]
        folders = {path.parent.relative_to(self.base).as_posix(): path.parent
                   for path in sorted(self.base.glob("**/ann")) if path.is_dir() and (path.parent / "img").is_dir()}
        if not folders:
            raise UserError(f"{self.base} holds no folder with img/ and ann/: check dataset.root.")
        has_splits = split is not None and any(pick_split(folders, name) for name in {"train", "val", split})
        chosen = pick_split(folders, split) if has_splits and split is not None else None
        if has_splits and chosen is None:
            raise UserError(f"dataset.split={split}: {self.base} has the datasets {list_first(list(folders))}.")
        base = self.base if chosen is None else folders[chosen] / "img"
        records = []
        without = 0
        for folder in folders.values() if chosen is None else [folders[chosen]]:
            for image in list_images(folder / "img", "dataset.root"):
                inner = image.relative_to(folder / "img")
                file = folder / "ann" / f"{inner}.json"
                if file.is_file():
                    records.append(Record(image.relative_to(base).as_posix(), file, None, file))
                else:
                    without += 1
        remarks = [f"{without} images have no file in ann/ and are left out."] if without else []
        return Found(kinds, records, base, has_splits=has_splits, remarks=remarks)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        content = check_mapping(load_json(record.content), record.content, WHAT, ("objects", "size"))
        said = check_mapping(content["size"], record.content, WHAT, ("width", "height"))
        if (said["width"], said["height"]) != size:
            raise WrongSizeError((said["width"], said["height"]))
        found = []
        for number, item in enumerate(as_list(content["objects"]), 1):
            item = check_mapping(item, record.content, WHAT, ("classTitle", "geometryType"))
            where = f"{record.content}, object {number} ({item['classTitle']})"
            found.append(Region(where, str(item["classTitle"]), self._read_shape(item, where, record)))
        return found

    def _read_shape(self, item: dict[str, Any], where: str, record: Record) -> Shape | None:
        kind = item["geometryType"]
        if kind in ("bitmap", "alpha_mask"):
            bitmap = check_mapping(item.get(kind) or item.get("bitmap"), record.content, WHAT, ("data", "origin"))
            left, top = read_numbers(as_list(bitmap["origin"])[:2] or [None], where)
            return Encoded(str(bitmap["data"]), int(left), int(top))
        points = check_mapping(item.get("points"), record.content, WHAT, ("exterior",))
        if kind == "polygon":
            exterior = read_ring(points["exterior"], where)
            holes = tuple(read_ring(ring, where) for ring in as_list(points.get("interior")))
            return Pixels((exterior,), holes) if self._pixels else Polygon((exterior, *holes), even_odd=True)
        if kind == "rectangle":
            (left, top), (right, bottom) = read_ring(points["exterior"], where, least=2)[:2]
            corners = read_ring([[left, top], [right, top], [right, bottom], [left, bottom]], where)
            return Pixels((corners,))  # whose corners are both inside, whatever dataset.polygons says
        if kind in ("line", "point"):
            return self.make_line(read_ring(points["exterior"], where, least=1), record, where, kind,
                                  is_points=kind == "point")
        self.note("kind", record, f"{where} is of the type {kind}, which has no area and is not drawn.")
        return None


def is_project(base: Path) -> bool:
    """Return whether a folder is laid out as a project."""
    return (base / "meta.json").is_file() and any(path.is_dir() for path in base.glob("*/ann"))
