"""Untrusted annotation files, and the images that they name."""

import json
import re
import unicodedata
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from segtrain.data.checks import LISTED, READ, check
from segtrain.data.discovery import list_images
from segtrain.data.file_kinds import explain_file
from segtrain.data.images import IMAGE_SUFFIXES, decode, read_orientation
from segtrain.errors import UserError
from segtrain.files import read_text

MAX_BYTES = 2_000_000_000  # of an annotation file; that of all training images of COCO has a quarter
UPLOADED = re.compile(r"(^|/)[0-9a-f]{8}-(?=[^/]+$)")  # what Label Studio puts before the names of uploaded files
LOCAL = ("/data/upload/", "/data/local-files/")  # addresses of a Label Studio server: uploads of a project, and files
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
               "test": "test", "testing": "test"}


@check(LISTED, "annotation files that are not valid JSON or XML, or of another kind")
def load_json(path: Path, shrink: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file; UserError if it cannot be read, or is something else.

    `shrink` is called with each mapping as soon as it is read, and returns what takes its place.
    """
    text = _read(path)
    try:
        return json.loads(text, object_hook=shrink)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): export it again.") from error


def load_xml(path: Path) -> ET.Element:
    """Read an XML file, without any entity of its own: those may expand to more than memory holds."""
    text = _read(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path} declares a document type or an entity, which may expand to more than memory holds, "
                        "and no labelling tool writes: export it again.")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid XML ({error}): export it again.") from error


def _read(path: Path) -> str:
    text = read_text(path, MAX_BYTES, "export it again, as UTF-8, or check dataset.annotations")
    if text.startswith("version https://git-lfs"):
        reason, remedy = explain_file(path) or ("", "")
        raise UserError(f"{path} cannot be read ({reason}): {remedy}.")
    return text


@contextmanager
def refuse_malformed(where: object, what: str) -> Iterator[None]:
    """Turn what the code stumbles over, where a file has a list or a text in place of a number, into a UserError."""
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError, OverflowError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UserError(f"{where} is not as {what} are ({reason}): export it again.") from error


def check_mapping(value: Any, path: Path, what: str, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Return a value that must be a mapping with some keys; UserError names the file and what it should be."""
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if not isinstance(value, dict) or missing:
        lacks = f"it has no {', '.join(missing)}" if isinstance(value, dict) else "it is not a mapping"
        raise UserError(f"{path} is not {what}: {lacks}; check dataset.root and dataset.annotations.")
    return value


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as none."""
    return value if isinstance(value, list) else []


# ---- splits


def name_split(text: str) -> str | None:
    """Return the split that a name is of, as train2017, "ds train" and instances_val2017; None if it tells none."""
    found = {SPLIT_WORDS[word] for word in re.findall("[a-z]+", text.lower()) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def pick_split(names: Iterable[str], split: str) -> str | None:
    """Return which of some names is a split: the very name, else the only one that means it."""
    found = list(names)
    if split in found:
        return split
    meant = [name for name in found if name_split(name) == split]
    return meant[0] if len(meant) == 1 else None


def list_folders(folder: Path) -> list[Path]:
    """List the folders in a folder, hidden ones left out."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_split_folder(base: Path, split: str) -> Path | None:
    """Return the folder of a split in a folder."""
    name = pick_split([path.name for path in list_folders(base)], split)
    return None if name is None else base / name


# ---- the images of an annotation file


def clean_name(name: str) -> str:
    """Return the path that a file name, a path of another machine or an address stands for."""
    text = name.replace("\\", "/")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) or text.startswith(LOCAL):
        parts = urllib.parse.urlsplit(text.removeprefix(LOCAL[0]) if text.startswith(LOCAL[0]) else text)
        inner = urllib.parse.parse_qs(parts.query).get("d")
        text = inner[0] if inner and text.startswith(LOCAL[1]) else urllib.parse.unquote(f"{parts.netloc}{parts.path}")
        text = re.sub(r"^[0-9]+/", "", text) if name.startswith(LOCAL[0]) else text
    return unicodedata.normalize("NFC", text)


@check(LISTED, "annotated images that are missing, fit two files, are named twice, or lead out of the folder")
def match_images(names: Sequence[str], folder: Path, source: Path, *, key: str = "dataset.images",
                 may_be_missing: bool = False) -> tuple[list[Path], int]:
    """Find the image files of names by the longest common end of their paths: a/b/x.png, b/x.png, or x.png.

    Args:
        names: As an annotation file has them, cleaned.
        folder: Where the images are.
        source: The annotation file, for messages.
        key: The setting that says where the images are.
        may_be_missing: Whether only their names are needed.

    Returns:
        The file of each name; how many other images the folder holds.

    Raises:
        UserError: If an image is not there, a name fits two files or two names fit one, or a name leads out of the
            folder.
    """
    outside = next((name for name in names if ".." in PurePosixPath(name).parts or not name.isprintable()
                    or not PurePosixPath(name).name), None)
    if outside is not None:
        raise UserError(f"{source} names the image {outside!r}, which leads out of {folder} or is not plain text: "
                        "write its path below the folder.")
    paths = list_images(folder, key) if folder.is_dir() or not may_be_missing else []
    known = {unicodedata.normalize("NFC", path.relative_to(folder).as_posix()): path for path in paths}
    by_last: dict[str, list[str]] = {}
    for inner in known:
        by_last.setdefault(inner.rpartition("/")[2], []).append(inner)
    found: list[Path] = []
    owners: dict[Path, str] = {}
    missing: list[str] = []
    for name in names:
        place = next((match for end in dict.fromkeys((name, UPLOADED.sub(r"\1", name)))
                      for match in [_find_by_end(end, by_last.get(end.rpartition("/")[2], []), source, known)]
                      if match is not None), None)
        if place is None:
            missing.append(name)
            found.append(folder / name.lstrip("/"))
            continue
        path = known[place]
        if path in owners:
            other = owners[path]
            twice = f"twice: {name}" if other == name else f"twice, as {other} and as {name}"
            raise UserError(f"{source} lists the image {path} {twice}; join its entries, or write each image with its "
                            "folder.")
        owners[path] = name
        found.append(path)
    if missing and not may_be_missing:
        stem = str(PurePosixPath(missing[0]).with_suffix("").name)
        alike = next((inner for inner in known if PurePosixPath(inner).stem == stem), None)
        hint = "" if alike is None else f" {alike} is there: if it is the one, correct the name in {source.name}."
        raise UserError(f"{len(missing)} of {len(names)} images that {source} lists are not below {folder}, the first "
                        f"is {missing[0]}: add it, or check {key}.{hint}", missing)
    return found, len(known) - len(owners)


def _find_by_end(name: str, candidates: list[str], source: Path, known: dict[str, Path]) -> str | None:
    if name in known:
        return name
    parts = name.split("/")
    best, most = [], 0
    for inner in candidates:
        pairs = zip(reversed(parts), reversed(inner.split("/")), strict=False)
        common = next((number for number, (one, other) in enumerate(pairs) if one != other), len(inner.split("/")))
        common = min(common, len(parts), len(inner.split("/")))
        if common > most:
            best, most = [inner], common
        elif common == most:
            best.append(inner)
    if len(best) > 1:
        raise UserError(f"{source} names the image {name}, which may be {known[best[0]]} or {known[best[1]]}: write it "
                        "with its folder.")
    return best[0] if best else None


def name_images(paths: Sequence[Path], folder: Path) -> list[str]:
    """Return the names of samples, their relative paths without suffix, of which no two may be the same."""
    names: dict[str, Path] = {}
    for path in paths:
        inner = path.relative_to(folder) if path.is_relative_to(folder) else path
        name = unicodedata.normalize("NFC", inner.with_suffix("").as_posix())
        if name in names:
            raise UserError(f"{names[name]} and {path} have the same name: rename one of them.")
        names[name] = path
    return list(names)


@check(READ, "images of another size than their annotation says, as of an EXIF orientation")
def check_size(path: Path, found: tuple[int, int], said: tuple[int, int], where: str) -> None:
    """Raise UserError if an image, upright, has another size than its annotation says; sizes are width and height."""
    if found == said:
        return
    if not all(type(side) is int and side > 0 for side in said):
        raise UserError(f"{where} says that {path} is {said[0]}x{said[1]}, which is no size: export it again.")
    shown, expected = f"{found[0]}x{found[1]}", f"{said[0]}x{said[1]}"
    turn = decode(path, read_orientation)
    if found == said[::-1] and turn != 1:
        remedy = (f"the image is shown upright by its EXIF orientation, {turn}, and the annotation is for the stored "
                  "pixels; take the orientation out of the image, or annotate it again.")
    elif abs(found[0] * said[1] - found[1] * said[0]) <= max(*found, *said):
        remedy = "the image was scaled; annotations must be for this very file, so export both together."
    else:
        remedy = "use the image that was annotated."
    raise UserError(f"{path} is {shown}, but {where} says {expected}: {remedy}")


def has_suffix(path: Path) -> bool:
    """Return whether a file is named as an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES
