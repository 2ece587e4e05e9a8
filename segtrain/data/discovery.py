"""Find the images of a dataset in folders and by wildcards, and match them with their masks."""

import errno
import logging
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from segtrain.data.checks import LISTED, WARNED, check
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.data.rasters import ARRAY_SUFFIXES
from segtrain.errors import UserError, list_first

T = TypeVar("T")
log = logging.getLogger(__name__)
OTHER_SUFFIXES = {*ARRAY_SUFFIXES, ".heic", ".heif", ".avif", ".jxl", ".mat", ".dng", ".cr2", ".nef", ".arw", ".exr",
                  ".svg", ".pdf"}


@check(LISTED, "images without a mask or an instance map")
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
        skip = " or leave such images out with dataset.skip_without_mask=true." if what == "mask" else "."
        raise UserError(f"{len(alone)} of {len(images)} images have no {what} below {where}, the first is "
                        f"{images[alone[0]]}: add its {what}, {alone[0]}{ending}.png, or remove the image"
                        f"{',' * (what == 'mask')}{skip}{hint}", [str(images[name]) for name in alone])
    return [others[name] for name in sorted(images)]


def leave_out(images: dict[str, Path], others: Mapping[str, object]) -> tuple[dict[str, Path], list[Path]]:
    """Return the images to which something belongs, and those to which nothing does; all of them if that is none."""
    kept = {name: path for name, path in images.items() if name in others}
    return (kept, [images[name] for name in sorted(images.keys() - kept)]) if kept else (images, [])


@check(LISTED, "two files of one name")
def find_by_name(folder: Path, key: str) -> dict[str, Path]:
    """Find the images below a folder by their relative names without suffix, of which no two may be the same."""
    found: dict[str, Path] = {}
    for path in list_images(folder, key):
        name = name_of(path.relative_to(folder))
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name: if one is the mask of the other, tell them "
                            "apart by dataset.images and dataset.masks, as *.jpg and *.png; else keep one of them.")
        found[name] = path
    return found


def name_of(path: Path) -> str:
    """Return a path without suffix; an accent is the same whether or not it is written as a character of its own."""
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())


@check(LISTED, "splits without images")
def refuse_empty(images: Collection[str], where: Path, keys: str) -> None:
    """Raise UserError if a split has no images."""
    if not images:
        raise UserError(f"{where} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}): the split is empty; check "
                        f"{keys}.")


def has_images(folder: Path) -> bool:
    """Return whether a folder exists and holds an image, in any subfolder."""
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in list_files(folder, str(folder)))


@check(LISTED, "images of kinds that are not read, pipes and loops of links, which are left out", then=WARNED)
def list_images(folder: Path, key: str, suffix: str | None = None) -> list[Path]:
    """List the images below a folder; see `list_files`. Images of other kinds are named in a warning.

    With a suffix, list files of that kind alone.
    """
    files = list_files(folder, key)
    if suffix is not None:
        return [path for path in files if path.suffix.lower() == suffix]
    strange = [str(path) for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not _may_be_read(path)]
    if strange:
        log.warning("warning: left out, as not regular files but pipes, sockets, devices or loops of links: %s",
                    list_first(strange))
        files = [path for path in files if str(path) not in strange]
    left_out = Counter(path.suffix.lower() for path in files if path.suffix.lower() in OTHER_SUFFIXES)
    if left_out:
        log.warning("warning: %s below %s are left out: convert them to PNG or JPEG%s",
                    ", ".join(f"{count} {suffix} files" for suffix, count in sorted(left_out.items())), folder,
                    "; NumPy files are read with dataset.channels and a pattern, as dataset.images='{split}/*.npy'"
                    * (not ARRAY_SUFFIXES.isdisjoint(left_out)))
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def _may_be_read(path: Path) -> bool:
    """Return whether a path is a regular file, or a link to a file that is missing, which is an error of its own."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno != errno.ELOOP


@check(LISTED, "folders that are missing or cannot be listed")
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
    return sorted(found, key=lambda path: path.parts)  # several times as fast as comparing paths


def is_glob(pattern: str) -> bool:
    """Return whether a setting has wildcards; brackets are not, as folders have them in their names."""
    return "*" in pattern or "?" in pattern


@check(LISTED, "two files that a pattern does not tell apart")
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
    suffix = PurePosixPath(pattern).suffix.lower()
    for path in list_images(folder, key, suffix if suffix in ARRAY_SUFFIXES else None):
        inner = path.relative_to(folder)
        name = name_of(inner)
        match = wanted.fullmatch(name if any_suffix else unicodedata.normalize("NFC", inner.as_posix()))
        if match is None:
            continue
        identity = "/".join(part for part in match.groups() if part)
        if identity in paths:
            raise UserError(f"{paths[identity]} and {path} have the same name for {key}={pattern}: if one is the mask "
                            "of the other, tell them apart by dataset.images and dataset.masks, as *.jpg and *.png; "
                            "else keep one of them, or choose wildcards that tell them apart.")
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
