"""Find pictures in folders, and match images with what belongs to them by their names."""

import os
from collections.abc import Iterator
from pathlib import Path

from segtrain.datasets.pictures import PICTURE_SUFFIXES
from segtrain.errors import UserError


def pair_files(
    images: Path, masks: Path, key: str, *, targets_only: bool = False
) -> tuple[list[str], list[Path], list[Path]]:
    """Match the pictures below one folder with the masks below another by their relative names without suffix.

    Files of other kinds, hidden files and folders, and masks without an image are left alone: an image that is to be
    left out of a split may go without its mask being hunted down.

    Args:
        images: Folder of pictures, searched through all its subfolders.
        masks: Folder of masks.
        key: The configuration key to name where a folder is missing.
        targets_only: Whether every mask counts where there are no images.

    Returns:
        Names (sorted), image paths, mask paths.

    Raises:
        UserError: If a folder is missing or empty, or an image has no mask or two.
    """
    found_masks = by_name(masks, key)
    alone = targets_only and not has_pictures(images)
    found_images = {name: images / path.name for name, path in found_masks.items()} if alone else by_name(images, key)
    if not found_images:
        raise UserError(f"{images} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}): "
                        f"the split is empty; check {key}.")
    names = sorted(found_images)
    return names, [found_images[name] for name in names], partners(found_images, found_masks, masks)


def partners(images: dict[str, Path], others: dict[str, Path], where: Path, what: str = "mask") -> list[Path]:
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


def by_name(folder: Path, key: str) -> dict[str, Path]:
    """Find the pictures below a folder by their relative names without suffix.

    Raises:
        UserError: If the folder is missing, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in pictures_below(folder, key):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name: keep one of them.")
        found[name] = path
    return found


def has_pictures(folder: Path) -> bool:
    """Say whether a folder is there and holds a picture, in whatever subfolder."""
    return folder.is_dir() and next(pictures_below(folder, str(folder)), None) is not None


def pictures_below(folder: Path, key: str) -> Iterator[Path]:
    """Yield the pictures below a folder; see `files_below`."""
    yield from (path for path in files_below(folder, key) if path.suffix.lower() in PICTURE_SUFFIXES)


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
