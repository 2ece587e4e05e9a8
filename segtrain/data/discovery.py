"""Find the images of a dataset in folders, by wildcards, or from lists, and match them with their masks."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.errors import UserError
from segtrain.files import read_text

LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
MAX_LIST_BYTES = 100_000_000  # about a million lines
HEADER_WORDS = {"image", "images", "img", "mask", "masks", "label", "labels", "path", "file", "filename",
                "image_path", "mask_path"}


def match_files(
    images: Path, masks: Path, key: str, *, targets_only: bool = False
) -> tuple[list[str], list[Path], list[Path]]:
    """Match the images below one folder with the masks below another by their relative names without suffix.

    Files of other kinds, hidden files and folders, and masks without an image are left alone: an image that is to be
    left out of a split may go without its mask being hunted down.

    Args:
        images: Folder of images, searched through all its subfolders.
        masks: Folder of masks.
        key: The configuration key to name where a folder is missing.
        targets_only: Whether every mask counts where there are no images.

    Returns:
        Names (sorted), image paths, mask paths.

    Raises:
        UserError: If a folder is missing or empty, or an image has no mask or two.
    """
    found_masks = find_by_name(masks, key)
    if targets_only and not has_images(images):
        found_images = {name: images / path.name for name, path in found_masks.items()}
    else:
        found_images = find_by_name(images, key)
    if not found_images:
        raise UserError(f"{images} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}): "
                        f"the split is empty; check {key}.")
    names = sorted(found_images)
    return names, [found_images[name] for name in names], find_partners(found_images, found_masks, masks)


def find_partners(images: dict[str, Path], others: dict[str, Path], where: Path, what: str = "mask") -> list[Path]:
    """Return what belongs to each image, in the order of the images' sorted names.

    Raises:
        UserError: If an image has none; it names the first, and holds them all.
    """
    alone = sorted(images.keys() - others.keys())
    if alone:
        raise UserError(f"{len(alone)} of {len(images)} images have no {what} below {where}, the first is "
                        f"{images[alone[0]]}: add its {what}, {alone[0]}.png, or remove the image.",
                        [str(images[name]) for name in alone])
    return [others[name] for name in sorted(images)]


def find_by_name(folder: Path, key: str) -> dict[str, Path]:
    """Find the images below a folder by their relative names without suffix.

    Raises:
        UserError: If the folder is missing, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in images_below(folder, key):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name: keep one of them.")
        found[name] = path
    return found


def has_images(folder: Path) -> bool:
    """Return whether a folder is there and holds an image, in whatever subfolder."""
    return folder.is_dir() and next(images_below(folder, str(folder)), None) is not None


def images_below(folder: Path, key: str) -> Iterator[Path]:
    """Yield the images below a folder; see `files_below`."""
    yield from (path for path in files_below(folder, key) if path.suffix.lower() in IMAGE_SUFFIXES)


def files_below(folder: Path, key: str) -> Iterator[Path]:
    """Yield the files below a folder, sorted; links to folders are followed, hidden files and folders left alone.

    Raises:
        UserError: If the folder is missing, or one in it cannot be listed.
    """
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
    yield from sorted(found)




def is_list(pattern: str) -> bool:
    """Return whether a setting names a list file."""
    return not is_glob(pattern) and pattern.lower().endswith(LIST_SUFFIXES)


def is_glob(pattern: str) -> bool:
    """Return whether a setting has wildcards; brackets are none, folders have them in their names."""
    return "*" in pattern or "?" in pattern


def find_images(root: Path, pattern: str, key: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Find images below a folder, or by a pattern: * within a name, ** through folders, ? for a letter.

    Args:
        root: What the pattern is relative to.
        pattern: A folder, or a path with wildcards.
        key: The configuration key, for messages.

    Returns:
        The paths, and their names (relative paths without suffix), both by what identifies an image: in a folder its
        name, under a pattern what its wildcards stand for, so that day/1_rgb.jpg and day/1_mask.png belong together.

    Raises:
        UserError: If the folder is missing, or two images have one name.
    """
    if not is_glob(pattern):
        found = find_by_name(root / pattern, key)
        return found, {name: name for name in found}
    folder = first_folder(root, pattern)
    wanted, any_suffix = _translate("/".join((root / pattern).parts[len(folder.parts):]))
    paths: dict[str, Path] = {}
    names: dict[str, str] = {}
    for path in images_below(folder, key):
        inner = path.relative_to(folder)
        name = inner.with_suffix("").as_posix()
        match = wanted.fullmatch(name if any_suffix else inner.as_posix())
        if match is None:
            continue
        identity = "/".join(part for part in match.groups() if part)
        if identity in paths:
            raise UserError(f"{paths[identity]} and {path} have the same name for {key}={pattern}: keep one of them, "
                            "or choose wildcards that tell them apart.")
        paths[identity], names[identity] = path, name
    return paths, names


def first_folder(root: Path, pattern: str) -> Path:
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


def read_list(path: Path, root: Path, key: str) -> list[tuple[Path, Path | None]]:
    """Read a list file: an image path a line, or image and mask separated by tab, comma or blank.

    Paths are relative to root. Of absolute paths that do not lie below root, the leading folders are left out, the same
    on every line: those of its author's machine, as in the lists published with CamVid. Empty lines, lines that start
    with # and a header (image,mask) are skipped.

    Raises:
        UserError: If the list cannot be read, is empty, or a path leads out of root; it names file and line.
    """
    rows: list[list[PurePosixPath]] = []
    width = 0
    for where, line in read_lines(path, key):
        fields = _fields(line, root)
        if not rows and {field.lower() for field in fields} <= HEADER_WORDS:
            continue
        width = width or len(fields)
        if len(fields) > 2 or len(fields) != width or not all(fields):
            raise UserError(f"{where} has {len(fields)} values: a list has an image a line, or an image and its mask, "
                            "separated by a tab, a comma or a blank; the same on every line.")
        rows.append([_below(root, field, where) for field in fields])
    if not rows:
        raise UserError(f"{path} lists no image: the split is empty; check {key} and dataset.split.")
    foreign = _foreign(root, [given for row in rows for given in row])
    entries = [[root.joinpath(*given.parts[foreign if given.is_absolute() else 0:]) for given in row] for row in rows]
    return [(files[0], files[1] if len(files) == 2 else None) for files in entries]


def read_lines(path: Path, key: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that say something, and where they stand."""
    text = read_text(path, MAX_LIST_BYTES, f"it must list an image a line, as UTF-8; check {key}")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line


def read_names(path: Path, key: str) -> list[str]:
    """Read a list of names, one a line; empty lines and those that start with # are skipped.

    Raises:
        UserError: If the list cannot be read, is empty, or holds a name twice; it names file and line.
    """
    names: dict[str, str] = {}
    for where, line in read_lines(path, key):
        name = line.strip().replace("\\", "/").removeprefix("./")
        if name in names:
            raise UserError(f"{where}: {name} stands in {names[name]}, too: keep one of them.")
        names[name] = where
    if not names:
        raise UserError(f"{path} lists no name: the split is empty; check {key} and dataset.split.")
    return list(names)


def pick_names(images: dict[str, Path], names: dict[str, str], wanted: list[str], path: Path) -> dict[str, Path]:
    """Pick images by their names, with or without suffix, or by the ends of those: a/b/x, b/x, or x.

    Args:
        images: The paths by what identifies an image.
        names: The names by the same.
        wanted: The names that the list gives.
        path: The list, for messages.

    Raises:
        UserError: If a name is no image's, or those of several; it names the first, and holds all.
    """
    owners: dict[str, list[str]] = {}
    for identity in images:
        for end in {*_ends(names[identity]), *_ends(identity)}:
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
        raise UserError(f"{len(missing)} of the {len(wanted)} names in {path} are no image, the first is {missing[0]}: "
                        "correct the list, add the image, or check dataset.images.", missing)
    return picked


def _fields(line: str, root: Path) -> list[str]:
    for separator in ("\t", ","):
        if separator in line:
            return [field.strip() for field in line.split(separator)]
    one = line.strip()
    # A blank may be part of the name of a file.
    return [one] if Path(one).suffix.lower() in IMAGE_SUFFIXES and _lies_there(root, one) else one.split()


def _lies_there(root: Path, text: str) -> bool:
    try:
        return (root / text).is_file()
    except (OSError, ValueError):
        return False


def _below(root: Path, text: str, where: str) -> PurePosixPath:
    """Check a path of a list and make it relative to root where it lies below; links are the user's own."""
    if not text.isprintable():
        raise UserError(f"{where} is not plain text: correct the list.")
    given = PurePosixPath(text.replace("\\", "/"))
    if ".." in given.parts:
        raise UserError(f"{where}: {text} leads out of {root}: paths of a list stay below dataset.root.")
    absolute = root.absolute().as_posix()
    return given.relative_to(absolute) if given.is_relative_to(absolute) else given


def _foreign(root: Path, paths: list[PurePosixPath]) -> int:
    """Return how many leading parts of the first absolute path are to be left out, so that it lies below root."""
    parts = next((path.parts for path in paths if path.is_absolute()), ())
    return next((number for number in range(1, len(parts)) if _lies_there(root, "/".join(parts[number:]))), 1)


def check_list(entries: list[tuple[Path, Path | None]], root: Path, path: Path, *,
           masks_only: bool = False) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images of a list by name, and the masks that it gives; names are paths below root without suffix.

    Raises:
        UserError: If an image stands there twice, or a file is missing; with masks_only an image may be.
    """
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for image, mask in entries:
        name = image.relative_to(root).with_suffix("").as_posix()
        if name in images:
            both = "twice" if image == images[name] else f"and {images[name]}, which have the same name"
            raise UserError(f"{path} lists {image} {both}: keep one of them.")
        images[name] = image
        if mask is not None:
            masks[name] = mask
    needed = [*(() if masks_only else images.values()), *masks.values()]
    missing = [str(file) for file in needed if not _lies_there(Path(), str(file))]
    if missing:
        more = f", nor are {len(missing) - 1} others of the list" if len(missing) > 1 else ""
        bare = "" if Path(missing[0]).suffix.lower() in IMAGE_SUFFIXES else (
            " A list of names without folder and suffix is dataset.names, next to dataset.images and dataset.masks.")
        raise UserError(f"{path} lists {missing[0]}, which is not a file{more}: correct the list, or add it.{bare}",
                        missing)
    return images, masks


def match_by_tail(images: dict[str, Path], others: dict[str, Path], key: str) -> dict[str, Path]:
    """Match listed images with what was found elsewhere by the longest end of their names: a/b/x, b/x, or x.

    Raises:
        UserError: If two images would share a file.
    """
    matched: dict[str, Path] = {}
    owners: dict[Path, Path] = {}
    for name, image in images.items():
        for end in _ends(name):
            if end in others:
                owner = owners.setdefault(others[end], image)
                if owner != image:
                    raise UserError(f"{owner} and {image} would both get {others[end]} from {key}: put the masks in "
                                    "the list, behind their images.")
                matched[name] = others[end]
                break
    return matched


def _ends(name: str) -> Iterator[str]:
    parts = name.split("/")
    yield from ("/".join(parts[start:]) for start in range(len(parts)))
