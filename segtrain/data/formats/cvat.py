"""CVAT for images 1.1: one annotations.xml with the images and their shapes in the order of z_order."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from segtrain.data.class_files import read_color
from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.coco import find_image_folder
from segtrain.data.formats.files import clean_name, load_xml, pick_split
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
from segtrain.errors import UserError, list_first

NAME = "annotations.xml"
Content = tuple[str, list[tuple[str, dict[str, str]]]]  # the image's name, and tag and attributes of each shape


class Cvat(Annotated):
    """annotations.xml with images/, or images/<subset>/; an image's subset is its split."""

    what = "annotations.xml of CVAT"

    def find(self, split: str | None) -> Found:
        path = self.base / (self.annotations_at or NAME)
        tree = load_xml(path)
        if tree.tag != "annotations":
            raise UserError(f"{path} is not an XML file of CVAT, which begins with annotations"
                            f"{', but of MIT LabelMe' if tree.tag == 'annotation' else ''}: export it again as CVAT "
                            "for images.")
        if tree.find("track") is not None:
            raise UserError(f"{path} holds tracks, as CVAT for video, with shapes between key frames: export it again "
                            "as CVAT for images.")
        kinds = [Kind(label.findtext("name") or "", read_color(label.findtext("color")))
                 for label in tree.iterfind("meta//labels/label") if not label.findtext("parent")]
        kinds = list({kind.name: kind for kind in kinds}.values())
        images = tree.findall("image")
        subsets = list(dict.fromkeys(image.get("subset") or "" for image in images))
        has_splits = split is not None and any(pick_split(subsets, name) for name in ("train", "val", split))
        chosen = pick_split(subsets, split) if has_splits and split is not None else None
        if has_splits and chosen is None:
            raise UserError(f"dataset.split={split}: {path} has the subsets {list_first(subsets)}.")
        records = [_make_record(image, path) for image in images if chosen is None or image.get("subset") == chosen]
        folder = find_image_folder(self.base, self.images_at, None, path)
        if chosen is not None and (folder / chosen).is_dir() and self.images_at is None:
            folder = folder / chosen
        elif chosen is None:  # names of several subsets may be the same
            records = [Record(_add_folder(record.image, image.get("subset"), folder), record.source, record.size,
                              record.content)
                       for record, image in zip(records, images, strict=True)]
        return Found(kinds, records, folder, has_splits=has_splits)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        name, shapes = record.content
        order = sorted(range(len(shapes)), key=lambda place: _read_z(shapes[place][1]))
        found = []
        for place in order:
            tag, values = shapes[place]
            where = f"{record.source}, image {name}, {tag} {place + 1} ({values.get('label')})"
            shape = None if tag == "tag" else self._read_shape(tag, values, where, record)
            found.append(Region(where, values.get("label", ""), shape))
        return found

    def _read_shape(self, tag: str, values: dict[str, str], where: str, record: Record) -> Shape | None:
        if tag in ("polygon", "polyline", "points"):
            pairs = [pair.split(",") for pair in values.get("points", "").split(";") if pair.strip()]
            ring = read_ring([read_numbers(pair, where) for pair in pairs], where, least=3 if tag == "polygon" else 1)
            return Polygon((ring,)) if tag == "polygon" else self.make_line(ring, record, where, tag,
                                                                            is_points=tag == "points")
        read = _READERS.get(tag)
        if read is not None:
            return read(values, where, record)
        self.note("cuboid", record, f"{where} has no area and is not drawn.")
        return None


def _read_box(values: dict[str, str], where: str, record: Record) -> Shape:
    left, top, right, bottom, degrees = read_numbers(
        [*(values.get(key) for key in ("xtl", "ytl", "xbr", "ybr")), values.get("rotation", 0)], where)
    return make_box(left, top, right, bottom, degrees)


def _read_ellipse(values: dict[str, str], where: str, record: Record) -> Shape:
    x, y, across, down, degrees = read_numbers(
        [*(values.get(key) for key in ("cx", "cy", "rx", "ry")), values.get("rotation", 0)], where)
    return Ellipse((x, y), (across, down), degrees)


def _read_mask(values: dict[str, str], where: str, record: Record) -> Runs:
    left, top, width, height = (int(number) for number in read_numbers(
        [values.get(key) for key in ("left", "top", "width", "height")], where))
    size = record.size
    if size is not None and (min(left, top) < 0 or min(width, height) < 1 or left + width > size[0]
                             or top + height > size[1]):
        raise UserError(f"{where}: a mask of {width}x{height} at ({left}, {top}) reaches out of the image of "
                        f"{size[0]}x{size[1]}: export it again.")
    try:
        counts = [int(number) for number in values.get("rle", "").replace(",", " ").split()]
    except ValueError as error:
        raise UserError(f"{where}: its rle is not whole numbers ({error}): export it again.") from error
    return read_runs(counts, where, width, height, left, top, by_columns=False, of=f"its box of {width}x{height}")


_READERS: dict[str, Callable[[dict[str, str], str, Record], Shape]] = {
    "box": _read_box, "ellipse": _read_ellipse, "mask": _read_mask}


def _make_record(image: ET.Element, path: Any) -> Record:
    name = image.get("name") or ""
    try:
        size = int(image.get("width") or ""), int(image.get("height") or "")
    except ValueError as error:
        raise UserError(f"{path}, image {name}: its width and height are not whole numbers: export it "
                        "again.") from error
    shapes = [(str(shape.tag), dict(shape.attrib)) for shape in image]
    return Record(clean_name(name), path, size, (name, shapes))


def _add_folder(name: str, subset: str | None, folder: Any) -> str:
    return f"{subset}/{name}" if subset and (folder / subset).is_dir() else name


def _read_z(values: dict[str, str]) -> float:
    try:
        return float(values.get("z_order") or 0)
    except ValueError:
        return 0.0
