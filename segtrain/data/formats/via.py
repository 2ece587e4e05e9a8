"""VIA, the VGG Image Annotator: projects and exports of version 1 and 2 as JSON, and exports as CSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.coco import find_image_folder
from segtrain.data.formats.files import MAX_BYTES, as_list, check_mapping, clean_name, find_split_folder, load_json
from segtrain.data.formats.regions import Ellipse, Polygon, Region, Shape, make_box, read_numbers, read_ring
from segtrain.errors import UserError, did_you_mean, list_first
from segtrain.files import read_text

WHAT = "a file of VIA"
PROJECT = "_via_img_metadata"


class Via(Annotated):
    """A project or an export beside the images or in images/; or one in each of train/ and val/.

    The class of a region is its attribute dataset.attribute, by default the only one. Classes follow the options of a
    project, else they are the values met, by alphabet.
    """

    what = "VIA project or export"
    unused = ("crowd",)

    def find(self, split: str | None) -> Found:
        folder = None if split is None else find_split_folder(self.base, split)
        own = [] if folder is None else list_candidates(folder)
        where, candidates = (folder, own) if folder is not None and own else (self.base, list_candidates(self.base))
        if self.annotations_at is not None:
            where, candidates = self.base, [self.base / self.annotations_at.replace("{split}", split or "")]
        if not candidates:
            raise UserError(f"{where} holds no project or export of VIA (JSON or CSV): check dataset.root, or name it "
                            "with dataset.annotations.")
        path = candidates[0]
        images, attributes = _read_file(path)
        regions = [region for _, found in images for region in found]
        attribute = _pick_attribute(regions, attributes, self.attribute, path)
        options = attributes.get(attribute, {}).get("options") if isinstance(attributes.get(attribute), dict) else None
        met = {name for region in regions for name in [_read_class(region, attribute)] if name}
        names = list(options) if isinstance(options, dict) and options else sorted(met)
        remarks = [] if options else [f"{path} has no list of classes, so they are the values of {attribute} met, by "
                                      "alphabet: save the project, or list them with dataset.classes."]
        self.attribute = attribute
        records = [Record(clean_name(name), path, None, found) for name, found in images]
        return Found([Kind(str(name)) for name in names], records,
                     where if where != self.base else find_image_folder(self.base, self.images_at, None, path),
                     has_splits=where != self.base, remarks=remarks)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        found = []
        for number, region in enumerate(record.content, 1):
            where = f"{record.source}, {record.image}, region {number}"
            name = _read_class(region, self.attribute)
            if not name:
                self.note("unlabelled", record, f"{where} has no {self.attribute} and is left out: give it one, or "
                          "delete it.")
                continue
            found.append(Region(f"{where} ({name})", name, self._read_shape(region, where, record)))
        return found

    def _read_shape(self, region: dict[str, Any], where: str, record: Record) -> Shape | None:
        shape = check_mapping(region.get("shape_attributes"), record.source, WHAT, ("name",))
        kind = shape["name"]
        if kind in ("polygon", "polyline"):
            all_x, all_y = (read_numbers(as_list(shape.get(f"all_points_{axis}")), where) for axis in "xy")
            if len(all_x) != len(all_y):
                raise UserError(f"{where}: {len(all_x)} x and {len(all_y)} y are not points: correct it.")
            ring = read_ring(np.array([all_x, all_y]).T, where,
                             least=3 if kind == "polygon" else 1)
            return Polygon((ring,)) if kind == "polygon" else self.make_line(ring, record, where, kind)
        if kind == "rect":
            left, top, width, height = read_numbers([shape.get(key) for key in ("x", "y", "width", "height")], where)
            return make_box(left, top, left + width, top + height)
        if kind == "circle":
            x, y, radius = read_numbers([shape.get(key) for key in ("cx", "cy", "r")], where)
            return Ellipse((x, y), (radius, radius))
        if kind == "ellipse":
            x, y, across, down, theta = read_numbers(
                [*(shape.get(key) for key in ("cx", "cy", "rx", "ry")), shape.get("theta", 0)], where)
            return Ellipse((x, y), (across, down), float(np.degrees(theta)))
        if kind == "point":
            x, y = read_numbers([shape.get(key) for key in ("cx", "cy")], where)
            return self.make_line(np.array([[x, y]]), record, where, kind, is_points=True)
        raise UserError(f"{where} is of the type {kind}, which VIA does not have: correct it.")


def list_candidates(folder: Path) -> list[Path]:
    """List the files of a folder that may be VIA's, a project before exports."""
    found = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in (".json", ".csv")
             and "via" in path.name.lower() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: ("project" not in path.name, "via1" in path.name, path.suffix != ".json"))


def _read_file(path: Path) -> tuple[list[tuple[str, list[dict[str, Any]]]], dict[str, Any]]:
    """Return the name and the regions of each image, and what the file says of the regions' attributes."""
    attributes: dict[str, Any] = {}
    if path.suffix.lower() == ".csv":
        return _read_csv(path), attributes
    content = check_mapping(load_json(path), path, WHAT)
    if PROJECT in content:
        attributes = (content.get("_via_attributes") or {}).get("region") or {}
        content = check_mapping(content[PROJECT], path, WHAT)
    images = []
    for key, image in content.items():
        image = check_mapping(image, path, WHAT, ("filename", "regions"))
        regions = image["regions"]
        regions = list(regions.values()) if isinstance(regions, dict) else as_list(regions)
        if not all(isinstance(region, dict) for region in regions):
            raise UserError(f"{path}, {key}: its regions are not mappings: export it again.")
        images.append((str(image["filename"]), regions))
    return images, attributes


def _read_csv(path: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    text = read_text(path, MAX_BYTES, "export it again")
    images: dict[str, list[dict[str, Any]]] = {}
    try:
        rows = csv.DictReader(io.StringIO(text.replace("\0", ""), newline=""))
        for row in rows:
            name = row.get("filename") or row.get("#filename")
            if not name or "region_shape_attributes" not in row:
                raise UserError(f"{path}, line {rows.line_num} is not a row of VIA, with filename, "
                                "region_shape_attributes and region_attributes: export it again.")
            regions = images.setdefault(name, [])
            shape = json.loads(row["region_shape_attributes"] or "{}")
            if shape:
                regions.append({"shape_attributes": shape,
                                "region_attributes": json.loads(row.get("region_attributes") or "{}")})
    except (csv.Error, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a CSV file of VIA ({error}): export it again.") from error
    return list(images.items())


def _pick_attribute(regions: list[dict[str, Any]], attributes: dict[str, Any], wanted: str | None, path: Path) -> str:
    met = {str(key) for region in regions for key in region.get("region_attributes") or {}}
    known = list(dict.fromkeys([*attributes, *sorted(met)]))
    if wanted is not None and wanted not in known:
        raise UserError(f"dataset.attribute={wanted} is not an attribute of the regions in {path}: they have "
                        f"{list_first(known) or '(none)'}.{did_you_mean(wanted, known)}")
    if wanted is None and len(known) != 1:
        raise UserError(f"the regions in {path} have the attributes {list_first(known) or '(none)'}: say which is the "
                        f"class, dataset.attribute={known[0] if known else 'class'}.")
    return wanted or known[0]


def _read_class(region: dict[str, Any], attribute: str | None) -> str:
    """Return the value of an attribute; of check boxes the first that is checked."""
    value = (region.get("region_attributes") or {}).get(attribute)
    if isinstance(value, dict):
        return next((str(name) for name, checked in value.items() if checked), "")
    return "" if value is None else str(value).strip()
