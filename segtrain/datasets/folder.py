"""Your own images and index masks in folders, with a class file."""

import colorsys
import csv
import re
from pathlib import Path

from segtrain.datasets.base import Sample
from segtrain.datasets.pictures import pair_files, read_pair, to_train_ids
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label

COLUMNS = ("name", "label_id", "color", "has_instances")


class Folder:
    """Images and index masks of one split, matched by their relative names without suffix.

    Args:
        split: Any name; it fills {split} in images and masks.
        root: The folder that the other paths are relative to.
        classes: CSV file with the column name, and optionally label_id (the class's value in a mask; default: the
            row's number from 0), color (#rrggbb) and has_instances (true or false).
        images: Folder of the images.
        masks: Folder of the masks; the mask value 255 is void.
    """

    def __init__(self, split: str, root: str | None = None, classes: str = "classes.csv",
                 images: str = "{split}/images", masks: str = "{split}/masks") -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds your images and masks, dataset.root=/data/x")
        base = Path(root)
        if not base.is_dir():
            raise UserError(f"{base} is not a folder: check dataset.root.")
        self.labels = read_classes(base / classes)
        self.names, self._images, self._masks = pair_files(
            base / images.format(split=split), base / masks.format(split=split), "dataset.root and dataset.split")

    def read(self, index: int) -> Sample:
        image, mask = read_pair(self._images[index], self._masks[index])
        return Sample(image, to_train_ids(mask, self.labels, [IGNORE_INDEX], self._masks[index]))

    def files(self, index: int) -> str:
        return str(self._masks[index])


def read_classes(path: Path) -> tuple[Label, ...]:
    """Read a class file; train ids follow the order of its rows.

    Raises:
        UserError: If the file is missing or not as Folder describes it; the message names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): it must list the classes, one a row, "
                        "under the header: name,label_id,color,has_instances") from error
    rows = csv.DictReader(text.splitlines())
    columns = [column.strip() for column in rows.fieldnames or ()]
    rows.fieldnames = columns
    if "name" not in columns or set(columns) - set(COLUMNS):
        raise UserError(f"{path} has the columns {', '.join(columns) or '(none)'}: its header must be name and, "
                        "optionally, label_id, color, has_instances.")
    labels: list[Label] = []
    for train_id, row in enumerate(rows):
        where = f"{path}, line {train_id + 2}"
        if None in row or None in row.values():
            raise UserError(f"{where}: it must have {len(columns)} values, as the header.")
        labels.append(_read_class({key: value.strip() for key, value in row.items()}, train_id, where))
    for kind in ("name", "label_id"):
        values = [getattr(label, kind) for label in labels]
        doubled = sorted({str(value) for value in values if values.count(value) > 1})
        if doubled:
            raise UserError(f"{path}: the {kind} {doubled[0]} stands there twice.")
    if not labels:
        raise UserError(f"{path} lists no class.")
    if len(labels) > 254:
        raise UserError(f"{path} lists {len(labels)} classes: 8-bit masks can tell 254 apart.")
    return tuple(labels)


def _read_class(row: dict[str, str], train_id: int, where: str) -> Label:
    name, label_id = row["name"], row.get("label_id") or str(train_id)
    color, has_instances = row.get("color") or _default_color(train_id), row.get("has_instances") or "false"
    if not name:
        raise UserError(f"{where}: the class has no name.")
    if not re.fullmatch(r"\d+", label_id) or not 0 <= int(label_id) < IGNORE_INDEX:
        raise UserError(f"{where}: label_id {label_id} must be a whole number from 0 to 254 (255 is void).")
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise UserError(f"{where}: color {color} must look like #ff8000.")
    if has_instances.lower() not in ("true", "false"):
        raise UserError(f"{where}: has_instances {has_instances} must be true or false.")
    red, green, blue = bytes.fromhex(color[1:])
    return Label(name, int(label_id), train_id, (red, green, blue), has_instances.lower() == "true")


def _default_color(train_id: int) -> str:
    """Spread hues by the golden ratio, so that neighbouring classes differ."""
    rgb = colorsys.hsv_to_rgb((train_id * 0.618034) % 1, 0.75, 0.9 - 0.3 * (train_id % 2))
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)
