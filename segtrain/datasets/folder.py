"""Your own images and index masks in folders, with a class file."""

import colorsys
import csv
import io
import re
from pathlib import Path

from segtrain.datasets.base import Sample
from segtrain.datasets.pictures import pair_files, read_pair, to_train_ids
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label

COLUMNS = ("name", "label_id", "color", "has_instances")


class Folder:
    """Images and index masks of one split, matched by their relative names without suffix.

    A mask without an image is left alone; an image without a mask is an error.

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
        base = Path(root).expanduser()
        if not base.is_dir():
            raise UserError(f"{base} is not a folder: check dataset.root.")
        self.labels = read_classes(base / classes)
        self.names, self._images, self._masks = pair_files(
            base / images.replace("{split}", split), base / masks.replace("{split}", split),
            "dataset.root, dataset.images, dataset.masks and dataset.split")

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
    rows = csv.reader(io.StringIO(text, newline=""))
    columns: list[str] = []
    labels: list[Label] = []
    try:
        for row in rows:
            values = [value.strip() for value in row]
            where = f"{path}, line {rows.line_num}"
            if not any(values):
                continue
            if not columns:
                columns = values
                _check_header(path, columns)
            elif len(values) != len(columns):
                raise UserError(f"{where}: it must have {len(columns)} values, as the header: {', '.join(columns)}.")
            else:
                labels.append(_read_class(dict(zip(columns, values, strict=True)), len(labels), where))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not valid CSV ({error}): correct it.") from error
    if not labels:
        raise UserError(f"{path} lists no class: write one a row, under the header: {','.join(COLUMNS)}")
    for kind in ("name", "label_id"):
        values = [getattr(label, kind) for label in labels]
        doubled = sorted({str(value) for value in values if values.count(value) > 1})
        if doubled:
            raise UserError(f"{path}: the {kind} {doubled[0]} stands there twice: give every class its own.")
    return tuple(labels)


def _check_header(path: Path, columns: list[str]) -> None:
    if "name" not in columns or set(columns) - set(COLUMNS) or len(set(columns)) < len(columns):
        raise UserError(f"{path} starts with {', '.join(columns)}: its header must be name and, optionally, "
                        "label_id, color, has_instances, each once, separated by commas.")


def _read_class(row: dict[str, str], train_id: int, where: str) -> Label:
    name, label_id = row["name"], row.get("label_id") or str(train_id)
    color, has_instances = row.get("color") or _default_color(train_id), row.get("has_instances") or "false"
    if not name:
        raise UserError(f"{where}: the class has no name, give it one.")
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
