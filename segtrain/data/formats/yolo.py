"""YOLO segmentation: data.yaml, and for each image a text file with a class and a ring of shares of its size a row."""

import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from segtrain.data.discovery import list_images
from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.regions import Polygon, Region
from segtrain.data.lists import read_lines
from segtrain.errors import UserError
from segtrain.files import read_text, read_yaml_text

NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
SPLIT_KEYS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
BEYOND = 0.01  # how far a share may lie outside of 0..1, from rounding; it is clipped
MAX_BYTES = 50_000_000  # of a label file


class Yolo(Annotated):
    """data.yaml with names and the folders or lists of its splits; labels/ beside images/, with .txt for each image.

    An image without a label file is background, as in Ultralytics. Coordinates are multiplied in float64.
    """

    what = "label files of YOLO"
    overlap = "area"
    unused = ("attribute", "crowd", "images", "line_width")

    def find(self, split: str | None) -> Found:
        path = self.base / self.annotations_at if self.annotations_at is not None else find_yaml(self.base)
        try:
            content = yaml.load(read_yaml_text(path), Loader=yaml.BaseLoader)  # text alone: no and on are names
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} is not a data.yaml of YOLO: it must be a mapping with names, train and val.")
        self._kinds = [Kind(name) for name in _read_names(content, path)]
        self._data = path
        told = {key: value for key, words in SPLIT_KEYS.items() for word in words
                for value in [content.get(word)] if value}
        if split is not None and split not in told:
            raise UserError(f"dataset.split={split}: {path} has the splits {', '.join(told) or '(none)'}: add {split}: "
                            "images/... to it.")
        places = [Path(_find_place(str(place), str(content.get("path") or "."), self.base, path))
                  for name in (told if split is None else [split])
                  for place in (told[name] if isinstance(told[name], list) else [told[name]])]
        images = list(dict.fromkeys(image for place in places for image in _list_split(place, self.base)))
        labels = [find_label_file(image, self.base) for image in images]
        remarks = _check_labels(labels, self.base)
        folder = places[0] if len(places) == 1 and places[0].is_dir() else self.base
        records = [Record(image.relative_to(folder).as_posix(), label, None, label)
                   for image, label in zip(images, labels, strict=True)]
        return Found(self._kinds, records, folder, remarks=remarks)

    def list_sources(self, index: int) -> list[Path]:
        return [*super().list_sources(index), self._data]

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        if not record.content.is_file():
            return []
        text = read_text(record.content, MAX_BYTES, "it must hold a class and a ring a line")
        rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if rows and all(len(row) == 5 for _, row in rows):
            raise UserError(f"{record.content}, line {rows[0][0]}: all rows have 5 numbers, which are boxes, class cx "
                            "cy w h, or a class with 2 points; a region needs at least 3 points. A dataset of boxes is "
                            "for detection: export it with polygons.")
        return [self._read_row(row, f"{record.content}, line {number}", size) for number, row in rows]

    def _read_row(self, row: list[str], where: str, size: tuple[int, int]) -> Region:
        try:
            values = [float(value) for value in row]
        except ValueError:
            word = next(value for value in row if not _is_number(value))
            raise UserError(f"{where} holds {word[:50]!r}, which is not a number: a row is a class and x y in turn."
                            ) from None
        number, ring = values[0], values[1:]
        if number != number or number != math.floor(number) or not 0 <= number < len(self._kinds):
            raise UserError(f"{where}: the class {row[0]} is not one of 0..{len(self._kinds) - 1}, which {self._data} "
                            "names: correct it, or add the class.")
        if len(ring) == 4:
            raise UserError(f"{where} has 5 numbers: a box, class cx cy w h, or a class with 2 points; a region needs "
                            "at least 3 points: draw its outline, or remove the row.")
        if len(ring) % 2 or len(ring) < 6:
            raise UserError(f"{where} has {len(ring)} numbers behind the class, not pairs of x and y of at least 3 "
                            "points: remove a confidence or track id at the end, or correct it.")
        if not all(-BEYOND <= value <= 1 + BEYOND for value in ring):
            raise UserError(f"{where} has coordinates from {min(ring):g} to {max(ring):g}, but they are shares of the "
                            "image's width and height, 0..1: divide pixels by them.")
        points = np.clip(np.array(ring).reshape(-1, 2), 0, 1) * size
        return Region(where, self._kinds[int(number)].name, Polygon((points,)))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def find_yaml(base: Path) -> Path:
    """Return the YAML file of a folder."""
    found = next((base / name for name in NAMES if (base / name).is_file()), None)
    if found is None:
        raise UserError(f"{base} holds no data.yaml: check dataset.root, or name the file with dataset.annotations.")
    return found


def _read_names(content: dict[Any, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        missing = next((number for number in range(len(names)) if str(number) not in names), None)
        if missing is not None:
            raise UserError(f"{path}: names has {len(names)} entries but none for {missing}: number them from 0 "
                            "without a gap.")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no names: add the classes, names: [road, house].")
    if content.get("nc") is not None and str(content["nc"]) != str(len(names)):
        raise UserError(f"{path} says nc: {content['nc']}, but names has {len(names)} classes: correct one of them.")
    return [str(name) for name in names]


def _find_place(place: str, inner: str, base: Path, path: Path) -> str:
    """Return the folder or list that data.yaml names, which must lie below the dataset's root; links are the user's."""
    root = os.path.normpath(base)
    parts = [part for part in PurePosixPath(place.replace("\\", "/")).parts if part not in ("..", "/")]
    for candidate in (base / inner / place, base / place, base.joinpath(*parts)):
        found = os.path.normpath(candidate)
        if Path(found).is_relative_to(root) and Path(found).exists():
            return found
    raise UserError(f"{path} names {place}, which is not below {base}: correct the path, or move data.yaml beside its "
                    "images.")


def _list_split(place: Path, base: Path) -> list[Path]:
    """List the images of a folder or a list."""
    if place.is_dir():
        return list_images(place, "dataset.root")
    return [Path(_find_place(line.strip(), str(place.parent.relative_to(os.path.normpath(base))), base, place))
            for _, line in read_lines(place, "dataset.root")]


def find_label_file(image: Path, base: Path) -> Path:
    """Return where the labels of an image belong: the last folder images of its path becomes labels."""
    parts = list(image.relative_to(base).with_suffix(".txt").parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return base.joinpath(*parts)


def _check_labels(labels: list[Path], base: Path) -> list[str]:
    """Return what to remark of images without a label file, and of label files without an image."""
    remarks = []
    there = [label for label in labels if label.is_file()]
    if labels and not there and not any("labels" in path.relative_to(base).parts
                                        for path in base.glob("**/*.txt")):
        raise UserError(f"none of the {len(labels)} images has a label file, {labels[0].parent} has none: put labels/ "
                        f"beside images/, the first would be {labels[0]}, or check dataset.root.")
    if len(there) < len(labels):
        first = next(label for label in labels if not label.is_file())
        remarks.append(f"{len(labels) - len(there)} of {len(labels)} images have no label file and are background, the "
                       f"first would be {first}.")
    known = set(labels)
    alone = sorted(file for folder in {label.parent for label in labels} for file in folder.glob("*.txt")
                   if file not in known and file.name != "classes.txt")
    if alone:
        remarks.append(f"{len(alone)} label files have no image and are left out, the first is {alone[0]}.")
    return remarks
