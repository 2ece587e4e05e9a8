"""Find the images of a dataset in folders, by wildcards, or from lists, and match them with their masks."""

import errno
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.errors import UserError, list_first
from segtrain.files import read_text

T = TypeVar("T")
log = logging.getLogger(__name__)
OTHER_SUFFIXES = {".heic", ".heif", ".avif", ".jxl", ".npy", ".mat", ".dng", ".cr2", ".nef", ".arw", ".exr", ".svg",
                  ".pdf"}
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
MAX_LIST_BYTES = 100_000_000  # about a million lines
HEADER_WORDS = {"image", "images", "img", "mask", "masks", "label", "labels", "path", "file", "filename",
                "image_path", "mask_path"}


def find_partners(images: dict[str, Path], others: dict[str, T], where: Path, what: str = "mask",
                  ending: str = "") -> list[T]:
    """Return what belongs to each image, in the order of the images' sorted names; others are left alone.

    Raises:
        UserError: If an image has none; it names the first and the missing file, with its `ending`, and holds them all.
    """
    alone = sorted(images.keys() - others.keys())
    if alone:
        longer = next((name for name in sorted(others) if name.startswith(alone[0])), None)
        hint = "" if longer is None else (f" {others[longer]} is there: if it is the {what}, set dataset.mask_suffix="
                                          f"{longer.removeprefix(alone[0])}{ending}.")
        raise UserError(f"{len(alone)} of {len(images)} images have no {what} below {where}, the first is "
                        f"{images[alone[0]]}: add its {what}, {alone[0]}{ending}.png, or remove the image.{hint}",
                        [str(images[name]) for name in alone])
    return [others[name] for name in sorted(images)]


def leave_out(images: dict[str, Path], others: Mapping[str, object]) -> tuple[dict[str, Path], list[Path]]:
    """Return the images to which something belongs, and those to which nothing does; all of them if that is none."""
    kept = {name: path for name, path in images.items() if name in others}
    return (kept, [images[name] for name in sorted(images.keys() - kept)]) if kept else (images, [])


def find_by_name(folder: Path, key: str) -> dict[str, Path]:
    """Find the images below a folder by their relative names without suffix, of which no two may be the same."""
    found: dict[str, Path] = {}
    for path in list_images(folder, key):
        name = _name_of(path.relative_to(folder))
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name: if one is the mask of the other, tell them "
                            "apart by dataset.images and dataset.masks, as *.jpg and *.png; else keep one of them.")
        found[name] = path
    return found


def _name_of(path: Path) -> str:
    """Return a path without suffix; an accent is the same whether or not it is written as a character of its own."""
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())


def refuse_empty(images: Collection[str], where: Path, keys: str) -> None:
    """Raise UserError if a split has no images."""
    if not images:
        raise UserError(f"{where} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}): the split is empty; check "
                        f"{keys}.")


def has_images(folder: Path) -> bool:
    """Return whether a folder exists and holds an image, in any subfolder."""
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in list_files(folder, str(folder)))


def list_images(folder: Path, key: str) -> list[Path]:
    """List the images below a folder; see `list_files`. Images of other kinds are named in a warning."""
    files = list_files(folder, key)
    strange = [str(path) for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not _may_be_read(path)]
    if strange:
        log.warning("warning: left out, as not regular files but pipes, sockets, devices or loops of links: %s",
                    list_first(strange))
        files = [path for path in files if str(path) not in strange]
    left_out = Counter(path.suffix.lower() for path in files if path.suffix.lower() in OTHER_SUFFIXES)
    if left_out:
        log.warning("warning: %s below %s are left out: convert them to PNG or JPEG",
                    ", ".join(f"{count} {suffix} files" for suffix, count in sorted(left_out.items())), folder)
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def _may_be_read(path: Path) -> bool:
    """Return whether a path is a regular file, or a link to a file that is missing, which is an error of its own."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno != errno.ELOOP


def list_files(folder: Path, key: str) -> list[Path]:
    """List the files below a folder, sorted; links to folders are followed, hidden files and folders left alone."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: check {key}.")

    def give_up(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}): make it readable.") from error

    found: list[Path] = []
    for inner, folders, files in os.walk(folder, onerror=give_up, followlinks=True):
        # A link that leads back to a folder above would be followed for ever.
        above = {os.path.realpath(inner), *map(str, Path(os.path.realpath(inner)).parents)}
        folders[:] = [name for name in folders
                      if not name.startswith(".") and os.path.realpath(Path(inner, name)) not in above]
        # what macOS and Jupyter leave behind is hidden: ._x.png
        found += [Path(inner, name) for name in files if not name.startswith(".")]
    return sorted(found)


def is_list(pattern: str) -> bool:
    """Return whether a setting names a list file."""
    return not is_glob(pattern) and pattern.lower().endswith(LIST_SUFFIXES)


def is_glob(pattern: str) -> bool:
    """Return whether a setting has wildcards; brackets are not, as folders have them in their names."""
    return "*" in pattern or "?" in pattern


def find_images(root: Path, pattern: str, key: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Find images in a folder below root, or by a pattern: * within a name, ** through folders, ? for a letter.

    Returns:
        The paths, and their names (relative paths without suffix), both by what identifies an image: in a folder its
        name, under a pattern what its wildcards stand for, so that day/1_rgb.jpg and day/1_mask.png belong together.
    """
    if not is_glob(pattern):
        found = find_by_name(root / pattern, key)
        return found, {name: name for name in found}
    folder = find_first_folder(root, pattern)
    wanted, any_suffix = _translate("/".join((root / pattern).parts[len(folder.parts):]))
    paths: dict[str, Path] = {}
    names: dict[str, str] = {}
    for path in list_images(folder, key):
        inner = path.relative_to(folder)
        name = _name_of(inner)
        match = wanted.fullmatch(name if any_suffix else unicodedata.normalize("NFC", inner.as_posix()))
        if match is None:
            continue
        identity = "/".join(part for part in match.groups() if part)
        if identity in paths:
            raise UserError(f"{paths[identity]} and {path} have the same name for {key}={pattern}: keep one of them, "
                            "or choose wildcards that tell them apart.")
        paths[identity], names[identity] = path, name
    return paths, names


def find_first_folder(root: Path, pattern: str) -> Path:
    """Return the folder that a folder or a pattern starts in: all that comes before the first wildcard."""
    parts = PurePosixPath(pattern).parts
    return root.joinpath(*parts[:next((number for number, part in enumerate(parts) if is_glob(part)), None)])


def _translate(pattern: str) -> tuple[re.Pattern[str], bool]:
    """Make a regular expression of a pattern, a group for each wildcard; return also whether it ends in any suffix."""
    any_suffix = pattern.endswith("*") and not pattern.endswith("**")
    if pattern.endswith("/**") or pattern == "**":
        pattern, any_suffix = f"{pattern}/*", True
    pattern = pattern.removesuffix(".*")
    pieces = {"**/": "(?:(.+)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    text = re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda found: pieces.get(found[0]) or re.escape(found[0]), pattern)
    return re.compile(text), any_suffix


def read_list(path: Path, root: Path, key: str, *, masks_only: bool = False) -> tuple[dict[str, Path], dict[str, Path]]:
    """Read a list file: an image path a line, or image and mask separated by tab, comma or blank.

    Paths are relative to root. Of absolute paths that do not lie below root, the leading folders are left out, the same
    on every line: those of its author's machine, as in the lists published with CamVid. Empty lines, lines that start
    with # and a header (image,mask) are skipped.

    Returns:
        The images, and the masks that the list gives, by the images' names: paths below root without suffix.

    Raises:
        UserError: If the list cannot be read or is empty, names an image twice, a path leads out of root, or a file is
            missing; with masks_only an image may be. It names file and line.
    """
    rows: list[list[PurePosixPath]] = []
    width = 0
    for where, line in read_lines(path, key):
        fields = _split_line(line, root)
        if not rows and {field.lower() for field in fields} <= HEADER_WORDS:
            continue
        width = width or len(fields)
        if len(fields) > 2 or len(fields) != width or not all(fields):
            raise UserError(f"{where} has {len(fields)} values: a list has an image a line, or an image and its mask, "
                            "separated by a tab, a comma or a blank; the same on every line.")
        rows.append([_check_below(root, field, where) for field in fields])
    if not rows:
        raise UserError(f"{path} lists no image: the split is empty; check {key} and dataset.split.")
    foreign = _count_foreign(root, [given for row in rows for given in row])
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for row in rows:
        image, *mask = (root.joinpath(*given.parts[foreign if given.is_absolute() else 0:]) for given in row)
        name = _name_of(image.relative_to(root))
        if name in images:
            both = "twice" if image == images[name] else f"and {images[name]}, which have the same name"
            raise UserError(f"{path} lists {image} {both}: keep one of them.")
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


def read_lines(path: Path, key: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that say something, and where they stand."""
    text = read_text(path, MAX_LIST_BYTES, f"it must list an image a line, as UTF-8; check {key}")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line


def read_names(path: Path, key: str) -> list[str]:
    """Read a list of names, one a line, none twice; empty lines and those that start with # are skipped."""
    names: dict[str, str] = {}
    for where, line in read_lines(path, key):
        name = unicodedata.normalize("NFC", line.strip().replace("\\", "/").removeprefix("./"))
        if name in names:
            raise UserError(f"{where}: {name} stands in {names[name]}, too: keep one of them.")
        names[name] = where
    if not names:
        raise UserError(f"{path} lists no name: the split is empty; check {key} and dataset.split.")
    return list(names)


def pick_names(images: dict[str, Path], names: dict[str, str], wanted: list[str], path: Path) -> dict[str, Path]:
    """Pick the images of a list of names, with or without suffix, or of the ends of those: a/b/x, b/x, or x.

    `images` and `names` are those of `find_images`.
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
                        f"{missing[0]}: correct the list, add the image, or check dataset.images.", missing)
    return picked


def _split_line(line: str, root: Path) -> list[str]:
    for separator in ("\t", ","):
        if separator in line:
            return [field.strip() for field in line.split(separator)]
    one = line.strip()
    # A blank may be part of the name of a file.
    return [one] if Path(one).suffix.lower() in IMAGE_SUFFIXES and _is_file(root / one) else one.split()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _check_below(root: Path, text: str, where: str) -> PurePosixPath:
    """Check a path of a list and make it relative to root where it lies below; links are the user's own."""
    if not text.isprintable():
        raise UserError(f"{where} is not plain text: correct the list.")
    given = PurePosixPath(text.replace("\\", "/"))
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
