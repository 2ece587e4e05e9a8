"""Datumaro: annotations/<subset>.json with the images in images/<subset>/."""

from typing import Any

from segtrain.data.formats.base import Annotated, Found, Kind, Record
from segtrain.data.formats.coco import find_image_folder, read_sized_runs
from segtrain.data.formats.files import as_list, check_mapping, clean_name, list_folders, load_json, pick_split
from segtrain.data.formats.regions import Ellipse, Polygon, Region, Shape, make_box, read_numbers, read_ring
from segtrain.errors import UserError, list_first

WHAT = "an annotation file of Datumaro"


class Datumaro(Annotated):
    """annotations/<subset>.json and images/<subset>/; regions are drawn in the order of z_order."""

    what = "JSON files of Datumaro"

    def find(self, split: str | None) -> Found:
        files = {path.stem: path for path in sorted((self.base / "annotations").glob("*.json"))}
        if self.annotations_at is not None:
            path = self.base / self.annotations_at.replace("{split}", split or "")
            files = {split or path.stem: path}
        if not files:
            raise UserError(f"{self.base / 'annotations'} holds no JSON file: check dataset.root.")
        has_splits = split is not None and any(pick_split(files, name) for name in ("train", "val", split))
        chosen = pick_split(files, split) if has_splits and split is not None else None
        if has_splits and chosen is None:
            raise UserError(f"dataset.split={split}: {self.base / 'annotations'} has the subsets "
                            f"{list_first(list(files))}.")
        kinds: list[Kind] = []
        records: list[Record] = []
        for path in files.values() if chosen is None else [files[chosen]]:
            content = check_mapping(load_json(path), path, WHAT, ("categories", "items"))
            labels = ((content["categories"] or {}).get("label") or {}).get("labels") or []
            names = [str(item.get("name")) for item in as_list(labels) if isinstance(item, dict)]
            if kinds and names != [kind.name for kind in kinds]:
                raise UserError(f"{path} lists other labels than the files before it: give all subsets the same.")
            kinds = [Kind(name) for name in names]
            for item in as_list(content["items"]):
                item = check_mapping(item, path, WHAT, ("id", "annotations"))
                image = check_mapping(item.get("image") or item.get("media"), path, WHAT, ("path",))
                said = as_list(image.get("size"))
                size = (int(said[1]), int(said[0])) if len(said) == 2 else None
                records.append(Record(clean_name(str(image["path"]) or f"{item['id']}.jpg"), path, size,
                                      (str(item["id"]), as_list(item["annotations"]))))
        self._names = [kind.name for kind in kinds]
        folder = find_image_folder(self.base, self.images_at, chosen if chosen in
                                   {path.name for path in list_folders(self.base / "images")} else None,
                                   self.base / "annotations" / "x.json")
        return Found(kinds, records, folder, has_splits=has_splits)

    def list_regions(self, record: Record, size: tuple[int, int]) -> list[Region]:
        name, annotations = record.content
        order = sorted(range(len(annotations)), key=lambda place: annotations[place].get("z_order") or 0)
        found = []
        for place in order:
            item = annotations[place]
            where = f"{record.source}, item {name}, annotation {place + 1}"
            label = item.get("label_id")
            if not isinstance(label, int) or not 0 <= label < len(self._names):
                raise UserError(f"{where}: label_id {label} is not one of 0..{len(self._names) - 1}: correct it.")
            group = item.get("group") or None
            found.append(Region(where, self._names[label], self._read_shape(item, where, record, size), group))
        return found

    def _read_shape(self, item: dict[str, Any], where: str, record: Record, size: tuple[int, int]) -> Shape | None:
        kind = item.get("type")
        if kind == "polygon":
            return Polygon((read_ring(item.get("points"), where),))
        if kind == "bbox":
            left, top, width, height = read_numbers(as_list(item.get("bbox"))[:4] or [None], where)
            return make_box(left, top, left + width, top + height)
        if kind == "ellipse":
            left, top, right, bottom = read_numbers(as_list(item.get("points"))[:4] or [None], where)
            return Ellipse(((left + right) / 2, (top + bottom) / 2), ((right - left) / 2, (bottom - top) / 2))
        if kind == "mask":
            return read_sized_runs(check_mapping(item.get("rle"), record.source, WHAT, ("counts", "size")), where, size)
        if kind in ("polyline", "points"):
            return self.make_line(read_ring(item.get("points"), where, least=1), record, where, kind,
                                  is_points=kind == "points")
        if kind != "label":
            self.note("kind", record, f"{where} is of the type {kind}, which has no area and is not drawn.")
        return None
