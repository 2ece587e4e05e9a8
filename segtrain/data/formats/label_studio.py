"""Label Studio: JSON and JSON-MIN exports, with polygons, brush strokes, rectangles and ellipses."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.coco import find_image_folder
from segtrain.data.formats.files import as_list, clean_name, load_json, load_xml
from segtrain.data.formats.regions import (
    Brush,
    Ellipse,
    Polygon,
    Region,
    Shape,
    make_box,
    read_numbers,
    read_ring,
)
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.errors import UserError, list_first

AREAS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
POINTS = ("keypointlabels",)


class LabelStudio(Annotated):
    """An export beside the images, in images/ or anywhere below root; coordinates are percents of the image's sides.

    The newest annotation of a task that is not cancelled counts. The classes are those of label_config.xml, or the
    labels met, by alphabet. A task without an annotation is not labelled and left out.
    """

    what = "JSON export of Label Studio"

    def find(self, split: str | None) -> Found:
        path = self.base / self.annotations_at if self.annotations_at is not None else find_export(self.base)
        content = load_json(path)
        tasks = [task for task in as_list(content) if isinstance(task, dict)]
        if not tasks:
            raise UserError(f"{path} holds no task of Label Studio: export the project as JSON or JSON-MIN.")
        met: dict[str, None] = {}
        listed: list[tuple[str, Any]] = []
        kinds_met: set[str] = set()
        remarks: list[str] = []
        for place, task in enumerate(tasks, 1):
            where = f"{path}, task {task.get('id', place)}"
            is_full = any(key in task for key in ("data", "annotations", "completions"))
            results = _list_results(task) if is_full else list(_list_flat(task))
            if results is None:
                continue
            kinds_met |= {str(result.get("type")) for result in results}
            met |= {label: None for result in results for label in _list_labels(result)}
            name, others = _find_image(task, results, where)
            if others:
                remarks.append(f"{where} has several images, and its regions are for one of them, as to_name says: "
                               f"{list_first(others)} is left out.")
            listed.append((name, (where, results)))
        if not listed:
            raise UserError(f"{path}: none of its {len(tasks)} tasks has an annotation that is not cancelled: finish "
                            "some, and export it again.")
        if not kinds_met & {*AREAS, "labels"} and kinds_met:
            raise UserError(f"{path} has no region, but {list_first(sorted(kinds_met))}: the labelling config needs "
                            "polygons or brushes to give masks.")
        if not met and kinds_met:
            where, results = next(content for _, content in listed if content[1])
            raise UserError(f"{where}, region {results[0].get('id', '')} has no label, and no other region has one: "
                            "label them, and export again.")
        records = [Record(clean_name(name), path, None, each) for name, each in listed]
        config = next(iter(sorted(self.base.glob("*config*.xml"))), None)
        kinds = sorted(met) if config is None else _read_config(config)
        if len(listed) < len(tasks):
            remarks.append(f"{len(tasks) - len(listed)} of {len(tasks)} tasks in {path} have no annotation and are "
                           "left out.")
        if config is None:
            remarks.append(f"there is no label_config.xml in {self.base}, so the classes are the labels met, by "
                           "alphabet: save the labelling config there, or list them with dataset.classes.")
        return Found([Kind(name) for name in kinds], records, find_image_folder(self.base, self.images_at, None, path),
                     has_splits=False, remarks=remarks)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        task, results = record.content
        found = []
        for result in results:
            kind = str(result.get("type"))
            if kind not in (*AREAS, *POINTS, "labels"):
                continue  # choices, ratings and relations are no regions
            where = f"{task}, region {result.get('id', '')}".rstrip(" ")
            value = result.get("value") if isinstance(result.get("value"), dict) else {}
            labels = _list_labels(result)
            if not labels:
                self.note("unlabelled", record, f"{where} has no label and is left out: give it one, or delete it.")
                continue
            if result.get("image_rotation"):
                raise UserError(f"{where} was drawn on a view with image_rotation {result['image_rotation']}: turn the "
                                "view back in the editor, and draw it again.")
            said = (result.get("original_width"), result.get("original_height"))
            if said != size and None not in said:
                text = (f"{where} was drawn on an image of {said[0]}x{said[1]}, but {record.image} is {size[0]}x"
                        f"{size[1]}")
                if "rle" in value:
                    raise UserError(f"{text}: brush strokes hold for that size alone; use the image that was "
                                    "annotated.")
                self.note("size", record, f"{text}: percents hold for any size, but look whether it is the same image.")
            found.append(Region(where, labels[0], self._read_shape(value, where, size, record)))
        return found

    def _read_shape(self, value: dict[str, Any], where: str, size: tuple[int, int], record: Record) -> Shape | None:
        width, height = size
        if "points" in value:
            return Polygon((read_ring(value["points"], where) / 100 * size,))
        if "rle" in value:
            data = value["rle"]
            if not isinstance(data, list) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
                raise UserError(f"{where}: its rle is not the bytes of a brush stroke (0..255), as Label Studio writes "
                                "them; run lengths of COCO must be converted: export it again.")
            return Brush(bytes(data))
        if "radiusX" in value:
            x, y, across, down, turn = read_numbers([value.get(key) or 0 for key in ("x", "y", "radiusX", "radiusY",
                                                                                    "rotation")], where)
            return Ellipse((x / 100 * width, y / 100 * height), (across / 100 * width, down / 100 * height), turn)
        if "height" in value:
            left, top, wide, high, turn = read_numbers([value.get(key) or 0 for key in ("x", "y", "width", "height",
                                                                                       "rotation")], where)
            corner = left / 100 * width, top / 100 * height
            return make_box(*corner, corner[0] + wide / 100 * width, corner[1] + high / 100 * height, turn, corner)
        x, y = read_numbers([value.get("x"), value.get("y")], where)
        point = np.array([[x / 100 * width, y / 100 * height]])
        return self.make_line(point, record, where, "key point", is_points=True)


def find_export(base: Path) -> Path:
    """Return the JSON export in a folder."""
    found = [path for path in sorted(base.glob("*.json")) if not path.name.startswith(".")]
    if len(found) > 1:  # the same project in two forms
        full = [path for path in found if path.name.startswith("project-")]
        found = full if len(full) == 1 else found
    if len(found) != 1:
        raise UserError(f"{base} holds {len(found)} JSON files, {list_first([path.name for path in found])}: name the "
                        "export of Label Studio with dataset.annotations." if found else
                        f"{base} holds no JSON export of Label Studio: check dataset.root, or name it with "
                        "dataset.annotations.")
    return found[0]


def _list_results(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the regions of the newest annotation of a task; None if it has none that counts."""
    done = [each for each in as_list(task.get("annotations", task.get("completions"))) if isinstance(each, dict)
            and not each.get("was_cancelled")]
    if not done:
        return None
    newest = max(done, key=lambda each: str(each.get("created_at")))
    return [result for result in as_list(newest.get("result")) if isinstance(result, dict)]


def _list_flat(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the regions of a task of JSON-MIN, which stand tag by tag, in the form of JSON."""
    for tag, values in task.items():
        for number, value in enumerate(as_list(values), 1):
            if isinstance(value, dict):
                kind = next((key for key in value if key in (*AREAS, *POINTS, "labels")), None)
                if kind is not None:
                    yield {"type": kind, "value": value, "id": f"{tag} {number}",
                           **{key: value.get(key) for key in ("original_width", "original_height", "image_rotation")}}


def _list_labels(result: dict[str, Any]) -> list[str]:
    value, kind = result.get("value"), str(result.get("type"))
    found = value.get(kind, value.get("labels")) if isinstance(value, dict) else None
    return [str(label) for label in as_list(found)] if kind in (*AREAS, *POINTS, "labels") else []


def _find_image(task: dict[str, Any], results: list[dict[str, Any]], where: str) -> tuple[str, list[str]]:
    """Return the image of a task, that which its regions are for, and which others it has."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    paths = {key: value for key, value in data.items() if isinstance(value, str) and _is_image(value)}
    used = {str(result.get("to_name")) for result in results}
    chosen = paths if len(paths) == 1 else {key: value for key, value in paths.items() if key in used}
    chosen = chosen or ({"image": paths["image"]} if "image" in paths else {})
    if len(chosen) != 1:
        raise UserError(f"{where} has {len(paths)} images, {list_first(list(paths))}: its regions must be for one of "
                        "them.")
    name = next(iter(chosen.values()))
    if name.startswith("data:"):
        raise UserError(f"{where}: its image stands in the export itself (data:): export it with files.")
    return name, [key for key in paths if key not in chosen]


def _is_image(value: str) -> bool:
    suffixes = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
    return value.startswith("data:image") or bool(re.search(f"({suffixes})($|[?&#])", value, re.IGNORECASE))


def _read_config(path: Path) -> list[str]:
    """Return the labels of a labelling config, in their order."""
    tree: ET.Element = load_xml(path)
    return list(dict.fromkeys(label.get("value") or "" for parent in tree.iter() for label in parent
                              if label.tag in ("Label", "Brush") and label.get("value")))
