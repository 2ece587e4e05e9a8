"""Read pictures and masks from files, with errors that name the file."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def read_image(path: Path) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) RGB, turned upright as its EXIF orientation says: masks are drawn on that view.

    Raises:
        UserError: If the file cannot be decoded, or has more than 8 bits a channel, which RGB would cut off.
    """
    return _decode(path, _to_rgb)


def read_mask(path: Path) -> np.ndarray:
    """Read an index mask as uint8 (H, W): the grey value, the palette's index, or 0 and 1 of a 1-bit mask.

    Raises:
        UserError: If the file cannot be decoded, or does not hold one 8-bit class number a pixel.
    """
    return _decode(path, _to_index)


def read_pair(image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with its mask, uint8 (H, W, 3) and uint8 (H, W).

    Raises:
        UserError: If one cannot be read, or their sizes differ.
    """
    image, mask = read_image(image_path), read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        raise UserError(f"{image_path} is {width}x{height} but its mask {mask_path} is {mask_width}x{mask_height}: "
                        "save the mask at the image's size.")
    return image, mask


def to_train_ids(mask: np.ndarray, labels: Sequence[Label], void: Sequence[int], path: Path) -> np.ndarray:
    """Turn the values of a mask into train ids.

    Args:
        mask: uint8 (H, W), values as in the file.
        labels: The classes.
        void: Values that mean void.
        path: The mask's file, for the message.

    Returns:
        uint8 (H, W), 0..K-1 or 255.

    Raises:
        UserError: If a value is neither a class nor void; it names the file, the values and their pixel counts.
    """
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    known = np.zeros(256, dtype=bool)
    known[list(void)] = True
    for label in labels:
        table[label.label_id] = label.train_id
        known[label.label_id] = True
    counts = np.bincount(mask.ravel(), minlength=256)
    unknown = np.flatnonzero((counts > 0) & ~known)
    if len(unknown):
        found = ", ".join(f"{value} ({counts[value]} pixels)" for value in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(f"{path} holds the label {found}{more}, which is no class: the classes are "
                        f"{_ranges([label.label_id for label in labels])}, void is {_ranges(void)}. "
                        "Correct the mask or the class table.")
    return table[mask]


def _ranges(values: Sequence[int]) -> str:
    """Write whole numbers shortly: [0, 1, 2, 5] as "0..2, 5"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1][1:] = [value]
        else:
            parts.append([value])
    return ", ".join("..".join(str(value) for value in part) for part in parts)


def pair_files(images: Path, masks: Path, key: str) -> tuple[list[str], list[Path], list[Path]]:
    """Match the pictures below one folder with the masks below another by their relative names without suffix.

    Files of other kinds, hidden files and folders, and masks without an image are left alone: an image that is to be
    left out of a split may go without its mask being hunted down.

    Args:
        images: Folder of pictures, searched through all its subfolders.
        masks: Folder of masks.
        key: The configuration key to name where a folder is missing.

    Returns:
        Names (sorted), image paths, mask paths.

    Raises:
        UserError: If a folder is missing or empty, or an image has no mask or two.
    """
    found_images, found_masks = _pictures_below(images, key), _pictures_below(masks, key)
    if not found_images:
        raise UserError(f"{images} holds no picture ({', '.join(sorted(PICTURE_SUFFIXES))}): "
                        f"the split is empty; check {key}.")
    alone = sorted(found_images.keys() - found_masks.keys())
    if alone:
        raise UserError(f"{len(alone)} of {len(found_images)} images have no mask below {masks}, "
                        f"the first is {found_images[alone[0]]}: add its mask, {alone[0]}.png, or remove the image.")
    names = sorted(found_images)
    return names, [found_images[name] for name in names], [found_masks[name] for name in names]


def _pictures_below(folder: Path, key: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: check {key}.")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.suffix.lower() not in PICTURE_SUFFIXES or path.is_dir():
            continue
        if any(part.startswith(".") for part in inner.parts):  # what macOS and Jupyter leave behind: ._x.png
            continue
        name = inner.with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{found[name]} and {path} have the same name: keep one of them.")
        found[name] = path
    return found


def _decode(path: Path, convert: Callable[[Image.Image, Path], np.ndarray]) -> np.ndarray:
    """Open and decode a picture; whatever goes wrong is the file's fault, and the message names it."""
    try:
        with Image.open(path) as picture:
            return convert(picture, path)  # PIL reads the pixels only now
    except (UserError, MemoryError):
        raise
    except Exception as error:  # broken files bring forth OSError, SyntaxError, struct.error, zlib.error, ...
        reason = "the file is empty" if path.is_file() and not path.stat().st_size else error
        raise UserError(f"{path} cannot be read as a picture ({reason}): replace or remove it.") from error


def _to_rgb(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.mode == "F" or picture.mode.startswith("I"):
        raise UserError(f"{path} is an image of mode {picture.mode}, of more than 8 bits a pixel: "
                        "save it with 8 bits a channel.")
    picture.load()
    with suppress(Exception):  # EXIF data that cannot be read are no reason to refuse the picture
        picture = ImageOps.exif_transpose(picture)
    return np.asarray(picture.convert("RGB"))


def _to_index(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.mode not in ("L", "P", "1"):
        raise UserError(f"{path} is a mask of mode {picture.mode}: save it as one 8-bit class number "
                        "per pixel (grey or palette PNG).")
    return np.array(picture, dtype=np.uint8)
