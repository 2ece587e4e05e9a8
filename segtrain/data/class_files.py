"""Read class files as people and label tools write them: CSV, JSON, YAML, and the label maps of CVAT and labelme."""

import csv
import io
import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from segtrain.data.checks import SETTINGS, check
from segtrain.errors import UserError
from segtrain.files import MAX_BYTES, read_text
from segtrain.labels import IGNORE_INDEX, Label, make_up_color

COLUMNS = ("name", "label_id", "color", "has_instances")
# What the tools call the same thing: COCO, CVAT, Mapillary, Label Studio, Roboflow.
SYNONYMS = {
    "name": ("name", "label", "title", "class"),
    "label_id": ("label_id", "id", "value", "pixel value", "label_ids"),
    "color": ("color", "colour", "color_rgb", "colors", "colours"),
    "has_instances": ("has_instances", "isthing", "instances"),
}
_COLUMN = {synonym: column for column, synonyms in SYNONYMS.items() for synonym in synonyms}
LISTS = ("classes", "categories", "names", "labels", "label_map")  # under which a file may hold its classes
# Lines of text files with several values, as all lines of a file have them: CamVid's, RUGD's, and value and name.
LINES = tuple(re.compile(pattern) for pattern in (
    r"(?P<color>\d{1,3}\s+\d{1,3}\s+\d{1,3})\s+(?P<name>\S.*)",
    r"(?P<label_id>\d{1,5})\s+(?P<name>\D.*?)\s+(?P<color>\d{1,3}\s+\d{1,3}\s+\d{1,3})",
    r"(?P<label_id>\d{1,5})(?:\s*[:,;]\s*|\s+)(?P<name>\D.*)"))
LONGEST_LINE = 1000  # that is compared with them, for they take long on longer ones
T = TypeVar("T")


@dataclass(frozen=True)
class Classes:
    """What a class file says.

    Attributes:
        labels: The classes; train ids follow their order in the file.
        has_colors: Whether the file gives every class its colour; where it does not, colours are made up.
    """

    labels: tuple[Label, ...]
    has_colors: bool


@dataclass(frozen=True)
class _Row:
    """One class as it stands in the file, and where: `values` has some of COLUMNS."""

    where: str
    values: dict[str, Any]


@check(SETTINGS, "a class file that lists no class or too many, or a name or value twice")
def read_class_file(path: Path) -> Classes:
    """Read a class file, by its suffix.

    - .csv: the column name (or class), and optionally label_id, color (#rrggbb) or r, g, b, and has_instances;
    - .json, .yaml: a list of names, or of mappings with these keys (or id, isthing: COCO); a mapping from names to
      colours, values or such mappings, or from values to names; all of it may stand under classes, categories, names
      or labels. Other keys are left alone: label tools write many;
    - in both, a class may have several values (label_ids: [1, 2], in CSV 1 2) and several colours;
    - .txt: CVAT's labelmap.txt (label:color_rgb:parts:actions); a name a line (labelme's labels.txt); or, on every
      line, colour and name (64 128 64 Animal), value, name and colour (3 tree 0 102 0), or value and name (3 tree).

    Raises:
        UserError: If the file is missing or not of this kind; the message names file, place and remedy.
    """
    text = read_text(path, MAX_BYTES, "it must list the classes as UTF-8, one a row, under the header: "
                     "name,label_id,color,has_instances; or be JSON or YAML (dataset.classes)")
    kind = path.suffix.lower()
    if kind == ".json":
        rows = _read_tree(_parse(path, text, _parse_json), path)
    elif kind in (".yaml", ".yml"):
        rows = _read_tree(_parse(path, text, _parse_yaml), path)
    elif kind == ".txt":
        rows = _read_lines(path, text)
    else:
        rows = _read_csv(path, text)
    labels = tuple(_make_label(row, number) for number, row in enumerate(rows))
    if not labels:
        raise UserError(f"{path} lists no class: write one a row, under the header: {','.join(COLUMNS)}")
    if len(labels) > IGNORE_INDEX:
        raise UserError(f"{path} lists {len(labels)} classes: a network is trained for at most {IGNORE_INDEX}.")
    for column, values in (("name", [label.name for label in labels]),
                           ("label_id", [value for label in labels for value in label.ids])):
        doubled = _find_doubled(values)
        if doubled:
            raise UserError(f"{path}: the {column} {doubled[0]} occurs twice: give every class its own; a class of "
                            "several values has them in one row, label_ids: 1 2 (in JSON and YAML [1, 2]).")
    return Classes(labels, all(row.values.get("color") for row in rows))


def read_color(value: Any) -> tuple[int, int, int] | None:
    """Read a colour: "#ff8000", "255,128,0", "(255 128 0)" or [255, 128, 0]; None if it is none."""
    parts: Any = value
    if isinstance(value, str):
        if re.fullmatch(r"#[0-9a-fA-F]{6}", value.strip()):
            red, green, blue = bytes.fromhex(value.strip()[1:])
            return red, green, blue
        parts = re.findall(r"[^\s,;]+", re.sub(r"^\s*(rgb)?[(\[]|[)\]]\s*$", "", value))
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        return None
    numbers = [_parse_number(part) for part in parts]
    if any(number is None or number > 255 for number in numbers):
        return None
    red, green, blue = (number or 0 for number in numbers)
    return red, green, blue


# ---- from the kinds of file to rows


@check(SETTINGS, "rows of a class file with another number of values than its header, and invalid CSV")
def _read_csv(path: Path, text: str) -> list[_Row]:
    lines = csv.reader(io.StringIO(text, newline=""))
    columns: list[str] = []
    rows: list[_Row] = []
    try:
        for line in lines:
            values = [value.strip() for value in line]
            where = f"{path}, line {lines.line_num}"
            if not any(values):
                continue
            if not columns:
                columns = [_COLUMN.get(value.lower(), value.lower()) for value in values]
                _check_header(path, columns)
            elif len(values) != len(columns):
                raise UserError(f"{where}: it must have {len(columns)} values, as the header: {', '.join(columns)}.")
            else:
                rows.append(_Row(where, _join_color(dict(zip(columns, values, strict=True)))))
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num} is not valid CSV ({error}): correct it.") from error
    return rows


@check(SETTINGS, "unknown columns of a class file")
def _check_header(path: Path, columns: list[str]) -> None:
    allowed: Iterable[str] = COLUMNS
    if {"r", "g", "b"} <= set(columns):
        allowed = {*COLUMNS, "r", "g", "b"} - {"color"}
    if "name" not in columns or set(columns) - set(allowed) or len(set(columns)) < len(columns):
        raise UserError(f"{path} starts with {_show(', '.join(columns))}: its header must be name and, optionally, "
                        "label_id, color (or r, g, b), has_instances, each once, separated by commas.")


def _read_lines(path: Path, text: str) -> list[_Row]:
    """Read the kinds of text file that `read_class_file` names; __ignore__ is labelme's void."""
    lines = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(text.splitlines(), 1)
             if line.strip() and not line.lstrip().startswith("#")]
    for pattern in LINES:
        found = [pattern.fullmatch(line) if len(line) <= LONGEST_LINE else None for _, line in lines]
        if found and all(found):
            return [_Row(where, match.groupdict()) for (where, _), match in zip(lines, found, strict=True) if match]
    rows = []
    for where, line in lines:
        name, *more = (part.strip() for part in line.split(":"))
        if name != "__ignore__":
            rows.append(_Row(where, {"name": name, "color": more[0] if more else None}))
    return rows


@check(SETTINGS, "class files that are not valid JSON or YAML")
def _parse(path: Path, text: str, parser: Any) -> Any:
    try:
        return parser(text)
    except Exception as error:  # ValueError, YAMLError, RecursionError for a thousand brackets, ...
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} is not valid {path.suffix[1:].upper()} ({reason}): correct it.") from error


def _parse_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_doubled([key for key, _ in pairs])
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def _parse_yaml(text: str) -> Any:
    # safe_load executes nothing: a tag such as !!python/object is an error. It keeps the last of two equal keys.
    # Merge keys are left out: a few, each of two others, stand for more values than memory holds.
    nodes = [yaml.compose(text, Loader=yaml.SafeLoader)]
    nodes += [value for _, value in nodes[0].value] if isinstance(nodes[0], yaml.MappingNode) else []
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            _refuse_doubled([str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
    if re.search(r"<<[\"']?\s*:", text) or "tag:yaml.org,2002:merge" in text or "!!merge" in text:
        raise ValueError("merge keys (<<) are not read: write the values out")
    return yaml.safe_load(text)


def _refuse_doubled(keys: list[str]) -> None:
    for key in _find_doubled(keys):
        raise ValueError(f"the key {_show(key)} occurs twice")


def _find_doubled(values: Iterable[T]) -> list[T]:
    return [value for value, number in Counter(values).items() if number > 1]


@check(SETTINGS, "class files that hold neither a list nor a mapping")
def _read_tree(tree: Any, path: Path) -> list[_Row]:
    if isinstance(tree, dict):
        inner = [tree[key] for key in LISTS if isinstance(tree.get(key), list | dict) and read_color(tree[key]) is None]
        tree = inner[0] if inner else tree
    if isinstance(tree, dict):
        return [_Row(f"{path}, class {_show(name)}", _read_entry(name, value)) for name, value in tree.items()]
    if isinstance(tree, list):
        return [_Row(f"{path}, class number {number}", _read_fields(item) if isinstance(item, dict) else {"name": item})
                for number, item in enumerate(tree, 1)]
    raise UserError(f"{path} must hold a list of classes, or a mapping from names to colours or values.")


def _read_entry(key: Any, value: Any) -> dict[str, Any]:
    """Read one entry of a mapping: name -> colour, value or mapping; or value -> name."""
    if isinstance(value, dict):
        fields = _read_fields(value)
        return {"label_id": key, **fields} if "name" in fields else {**fields, "name": key}
    if value is None:
        return {"name": key}
    if _parse_number(value) is not None:
        return {"name": key, "label_id": value}
    if _parse_number(key) is not None and isinstance(value, str) and read_color(value) is None:
        return {"name": value, "label_id": key}
    return {"name": key, "color": value}


def _read_fields(item: dict[Any, Any]) -> dict[str, Any]:
    values = {name: item[word] for name, words in SYNONYMS.items() for word in reversed(words) if word in item}
    return _join_color(values | {channel: item[channel] for channel in "rgb" if channel in item})


def _join_color(values: dict[str, Any]) -> dict[str, Any]:
    """Put the values of r, g and b together."""
    if all(channel in values for channel in "rgb"):
        values["color"] = [values.pop(channel) for channel in "rgb"]
    return values


# ---- from rows to classes


@check(SETTINGS, "names, values, colors and has_instances of a class that cannot be meant")
def _make_label(row: _Row, train_id: int) -> Label:
    where, name = row.where, row.values.get("name")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name) if -10**9 < name < 10**9 else ""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UserError(f"{where}: the class has no name of plain text ({_show(name)}), give it one; "
                        "YAML reads yes, no, on and off as truth values unless they are in quotes.")
    given = _get_or(row.values.get("label_id"), train_id)
    label_ids = [value for value in map(_parse_number, _split_values(given)) if value is not None and value <= 65535]
    if not label_ids or len(label_ids) < len(_split_values(given)):
        raise UserError(f"{where}: label_id {_show(given)} must be a whole number from 0 to 65535, or several of them: "
                        "1 2, in JSON and YAML [1, 2].")
    colors = _read_colors(_get_or(row.values.get("color"), [*make_up_color(train_id, name.strip())]))
    if not colors:
        raise UserError(f"{where}: color {_show(row.values['color'])} must look like #ff8000 or 255,128,0, or be "
                        "several of them: #ff8000 #ffa000, in JSON and YAML a list.")
    has_instances = {"true": True, "1": True, "false": False, "0": False}.get(
        _show(_get_or(row.values.get("has_instances"), False)).lower())
    if has_instances is None:
        raise UserError(f"{where}: has_instances {_show(row.values['has_instances'])} must be true or false.")
    return Label(name.strip(), label_ids[0], train_id, colors[0], has_instances, other_ids=tuple(label_ids[1:]),
                 other_colors=tuple(colors[1:]))


def _split_values(value: Any) -> list[Any]:
    """Return the values of a list, or of a text of several with blanks, commas or semicolons between them."""
    if isinstance(value, str):
        return re.split(r"[\s,;]+", value.strip())
    return value if isinstance(value, list) else [value]


def _read_colors(value: Any) -> list[tuple[int, int, int]]:
    """Read a colour or several; an empty list if one of them is none."""
    one = read_color(value)
    if one is not None:
        return [one]
    found = [read_color(item) for item in (re.split(r"[\s,;]+", value.strip()) if isinstance(value, str)
                                           else value if isinstance(value, list) else [])]
    return [color for color in found if color is not None] if all(found) else []


def _get_or(value: Any, default: Any) -> Any:
    """Return a value, or the default where it is missing or empty."""
    return default if value is None or value == "" else value


def _parse_number(value: Any) -> int | None:
    """Return a whole number of at most five digits, from a number or its text; else None."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,5}\s*", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 99_999 else None


def _show(value: Any) -> str:
    """Write a value in one short line, however large or deep it is."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= 100 else f"{text[:100]}..."
