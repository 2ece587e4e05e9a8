"""Read lists of images: paths with or without their masks, or names, and match them with what was found."""

import csv
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

from segtrain.data.checks import LISTED, check
from segtrain.data.discovery import is_glob, name_of
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.errors import UserError
from segtrain.files import read_text

T = TypeVar("T")
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
MAX_LIST_BYTES = 100_000_000  # about a million lines
# What the columns of a header are called; others, such as id and split, are left alone.
IMAGE_COLUMNS = ("image", "images", "img", "image_path", "img_path", "path", "file", "filename", "file_name",
                 "file_path", "filepath", "name", "image_name", "image_id", "id")
MASK_COLUMNS = ("mask", "masks", "mask_path", "label", "labels", "label_path", "annotation", "annotation_path",
                "segmentation", "target")


def is_list(pattern: str) -> bool:
    """Return whether a setting names a list file."""
    return not is_glob(pattern) and pattern.lower().endswith(LIST_SUFFIXES)


@check(LISTED, "lists that are empty, name an image twice or a missing file, or have other columns on some lines")
def read_list(path: Path, root: Path, key: str, *, masks_only: bool = False) -> tuple[dict[str, Path], dict[str, Path]]:
    """Read a list file: an image path a line, or image and mask; see `read_rows`.

    Paths are relative to root. Of absolute paths that do not lie below root, the leading folders are left out, the same
    on every line: those of its author's machine, as in the lists published with CamVid; Windows paths likewise.

    Returns:
        The images, and the masks that the list gives, by the images' names: paths below root without suffix.

    Raises:
        UserError: If the list cannot be read or is empty, names an image twice, a path leads out of root, or a file is
            missing; with masks_only an image may be. It names file and line.
    """
    rows: list[list[PurePosixPath]] = []
    width = 0
    for where, fields in read_rows(path, key, root):
        width = width or len(fields)
        if len(fields) > 2 or len(fields) != width or not all(fields):
            raise UserError(f"{where} has {len(fields)} values: a list has an image a line, or an image and its mask, "
                            "separated by a tab, a comma or a blank, the same on every line; with more columns it "
                            "starts with their names: id,image,mask.")
        rows.append([_check_below(root, field, where) for field in fields])
    if not rows:
        raise UserError(f"{path} lists no image: the split is empty; check {key} and dataset.split.")
    foreign = _count_foreign(root, [given for row in rows for given in row])
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for row in rows:
        image, *mask = (root.joinpath(*given.parts[foreign if given.is_absolute() else 0:]) for given in row)
        name = name_of(image.relative_to(root))
        if name in images:
            both = "twice" if image == images[name] else f"and {images[name]}, which have the same name"
            raise UserError(f"{path} lists {image} {both}: list each image once, and a mask behind its image, on the "
                            "same line.")
        images[name] = image
        if mask:
            masks[name] = mask[0]
    needed = [*(() if masks_only else images.values()), *masks.values()]
    missing = [str(file) for file in needed if not _is_file(file)]
    if missing:
        more = f", nor are {len(missing) - 1} others of the list" if len(missing) > 1 else ""
        bare = "" if Path(missing[0]).suffix.lower() in IMAGE_SUFFIXES else (
            " A list of names without folder and suffix is dataset.names, next to dataset.images and dataset.masks.")
        raise UserError(f"{path} lists {missing[0]}, which is not a file{more}: correct the list, or add it.{bare}",
                        missing)
    return images, masks


@check(LISTED, "rows of a list with fewer values than its header")
def read_rows(path: Path, key: str, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the values of each line of a list, and where it stands: a path, or an image's and its mask's.

    They are separated by a tab, a comma, a semicolon or blanks, as the first line has them, and may be in double
    quotes; a line that is an image below root is one. A header that names columns picks those of images and masks.
    Empty lines and those that start with # are skipped.
    """
    columns: list[int] | None = None
    separator: str | None = None
    for number, (where, line) in enumerate(read_lines(path, key)):
        if number == 0:
            separator = next((sign for sign in "\t,;" if sign in re.sub('"[^"]*"', "", line)), None)
        fields = _split_line(line, separator, root, where)
        if number == 0:
            columns = _find_columns(fields)
        elif columns is not None and len(fields) <= max(columns):
            raise UserError(f"{where} has {len(fields)} values, fewer than its header: correct the list.")
        if number or columns is None:
            yield where, fields if columns is None else [fields[column] for column in columns]


def _find_columns(header: list[str]) -> list[int] | None:
    """Return where a header has images, and masks if it has; None if it is none."""
    words = [field.lower() for field in header]
    found = [next((words.index(name) for name in names if name in words), None)
             for names in (IMAGE_COLUMNS, MASK_COLUMNS)]
    return None if found[0] is None else [column for column in found if column is not None]


def read_lines(path: Path, key: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that say something, and where they stand."""
    text = read_text(path, MAX_LIST_BYTES, f"it must list an image a line, as UTF-8; check {key}")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line


@check(LISTED, "lists of names that are empty, or have a name twice")
def read_names(path: Path, key: str) -> list[str]:
    """Read a list of names, one a line, or in the column of images of a .csv or .tsv file, none twice.

    Empty lines and those that start with # are skipped.
    """
    names: dict[str, str] = {}
    is_table = path.suffix.lower() in (".csv", ".tsv")
    rows = ((where, fields[0]) for where, fields in read_rows(path, key, path.parent)) if is_table else (
        (where, line.strip().strip('"')) for where, line in read_lines(path, key))
    for where, given in rows:
        name = unicodedata.normalize("NFC", given.replace("\\", "/").removeprefix("./"))
        if name in names:
            raise UserError(f"{where}: {name} stands in {names[name]}, too: keep one of them.")
        names[name] = where
    if not names:
        raise UserError(f"{path} lists no name: the split is empty; check {key} and dataset.split.")
    return list(names)


@check(LISTED, "names that are of no image, or of several")
def pick_names(images: dict[str, Path], names: dict[str, str], wanted: list[str], path: Path,
               key: str = "dataset.images") -> dict[str, Path]:
    """Pick the images of a list of names, with or without suffix, or of the ends of those: a/b/x, b/x, or x.

    `images` and `names` are those of `find_images`; `key` is the setting that says where the images are.
    """
    owners: dict[str, list[str]] = {}
    for identity in images:
        for end in {*_list_ends(names[identity]), *_list_ends(identity)}:
            owners.setdefault(end, []).append(identity)
    picked: dict[str, Path] = {}
    missing = []
    for name in wanted:
        given = PurePosixPath(name)
        is_file = given.suffix.lower() in IMAGE_SUFFIXES
        found = owners.get(name) or (owners.get(given.with_suffix("").as_posix()) if is_file else None) or []
        if len(found) > 1:
            raise UserError(f"{path} lists {name}, which is {images[found[0]]} and {images[found[1]]}: list it with "
                            "its folder.")
        if found:
            picked[found[0]] = images[found[0]]
        else:
            missing.append(name)
    if missing:
        raise UserError(f"{len(missing)} of the {len(wanted)} names in {path} are not images, the first is "
                        f"{missing[0]}: correct the list, add the image, or check {key}.", missing)
    return picked


@check(LISTED, "invalid CSV in a list")
def _split_line(line: str, separator: str | None, root: Path, where: str) -> list[str]:
    one = line.strip()
    # A blank or a comma may be part of the name of a file.
    if Path(one).suffix.lower() in IMAGE_SUFFIXES and _is_file(root / one):
        return [one]
    if '"' in one:
        try:
            values = next(csv.reader([line if separator else one], delimiter=separator or " ", skipinitialspace=True))
            return [value.strip() for value in values]
        except csv.Error as error:
            raise UserError(f"{where} is not valid CSV ({error}): correct the list.") from error
    return [field.strip() for field in line.split(separator)] if separator else one.split()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


@check(LISTED, "paths of a list that lead out of dataset.root")
def _check_below(root: Path, text: str, where: str) -> PurePosixPath:
    """Check a path of a list and make it relative to root where it lies below; links are the user's own."""
    if not text.isprintable():
        raise UserError(f"{where} is not plain text: correct the list.")
    given = PurePosixPath(re.sub(r"^[A-Za-z]:(?=/)", "", text.replace("\\", "/")))  # C:\\data is /data
    if ".." in given.parts:
        raise UserError(f"{where}: {text} leads out of {root}: paths of a list stay below dataset.root.")
    absolute = root.absolute().as_posix()
    below = given.relative_to(absolute) if given.is_relative_to(absolute) else given
    if not below.name:
        raise UserError(f"{where}: {text} is a folder: a list has an image a line, or an image and its mask.")
    return below


def _count_foreign(root: Path, paths: list[PurePosixPath]) -> int:
    """Return how many leading parts of the first absolute path to leave out, so that it lies below root."""
    parts = next((path.parts for path in paths if path.is_absolute()), ())
    return next((number for number in range(1, len(parts)) if _is_file(root.joinpath(*parts[number:]))), 1)


@check(LISTED, "one mask for two listed images")
def match_by_tail(images: dict[str, Path], others: dict[str, T], key: str) -> dict[str, T]:
    """Match listed images with what was found elsewhere by the longest end of their names: a/b/x, b/x, or x."""
    matched: dict[str, T] = {}
    owners: dict[str, Path] = {}
    for name, image in images.items():
        for end in _list_ends(name):
            if end in others:
                owner = owners.setdefault(end, image)
                if owner != image:
                    raise UserError(f"{owner} and {image} would both get what is called {end} in {key}: put the masks "
                                    "in the list, behind their images.")
                matched[name] = others[end]
                break
    return matched


def _list_ends(name: str) -> Iterator[str]:
    parts = name.split("/")
    yield from ("/".join(parts[start:]) for start in range(len(parts)))
