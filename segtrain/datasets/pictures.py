"""Read pictures and masks from files, with errors that name the file."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps

from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.confusion import count_values

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# What is opened, whatever a file calls itself. Others are left out on purpose: Pillow hands EPS to a program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000")
ORIENTATION = 0x0112  # the EXIF tag
T = TypeVar("T")


def read_image(path: Path, bits: int | None = None) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) RGB, turned upright as its EXIF orientation says: masks are drawn on that view.

    Grey becomes three equal channels, alpha is dropped, CMYK and palettes are converted, 16 bits are scaled to 8.

    Args:
        path: The file.
        bits: How many of 16 bits are used: 12 scales 0..4095 to 0..255. None takes all 16, and refuses a picture that
            uses at most 12 of them.

    Raises:
        UserError: If the file cannot be decoded, holds several pictures, or has values outside its bits.
    """
    return decode(path, lambda picture: _to_rgb(picture, path, bits))


def read_mask(path: Path) -> np.ndarray:
    """Read an index mask as uint8 (H, W): the grey value, the palette's index, or 0 and 1 of a 1-bit mask.

    Raises:
        UserError: If the file cannot be decoded, or does not hold one 8-bit class number a pixel.
    """
    return decode(path, lambda picture: _to_index(picture, path))


def read_pair(image_path: Path, mask_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with its mask, uint8 (H, W, 3) and uint8 (H, W).

    Raises:
        UserError: If one cannot be read, or their sizes differ.
    """
    image, mask = read_image(image_path), read_mask(mask_path)
    check_sizes(image, image_path, mask, mask_path)
    return image, mask


def check_sizes(image: np.ndarray, image_path: Path, mask: np.ndarray, mask_path: Path, what: str = "mask") -> None:
    """Raise UserError if an image (H, W, 3) and what belongs to it (H, W) differ in size."""
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        raise UserError(f"{image_path} is {width}x{height} but its {what} {mask_path} is {mask_width}x{mask_height}: "
                        f"save the {what} at the image's size.")


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
    counts = count_values(mask)
    unknown = np.flatnonzero((counts > 0) & ~known)
    if len(unknown):
        found = ", ".join(f"{value} ({counts[value]} pixels)" for value in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise UserError(f"{path} holds the label {found}{more}, which is no class: the classes are "
                        f"{_ranges([label.label_id for label in labels])}, void is {_ranges(void)}. "
                        "Correct the mask or the class table.")
    return cv2.LUT(mask, table)


def _ranges(values: Sequence[int]) -> str:
    """Write whole numbers shortly: [0, 1, 2, 5] as "0..2, 5"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1][1:] = [value]
        else:
            parts.append([value])
    return ", ".join("..".join(str(value) for value in part) for part in parts)


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
    """Yield the pictures below a folder, sorted; links to folders are followed, hidden files and folders left alone.

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
        found += [Path(inner, name) for name in files
                  if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES]
    yield from sorted(found)


def decode(path: Path, convert: Callable[[Image.Image], T]) -> T:
    """Open a picture and return what `convert` makes of it.

    Raises:
        UserError: Names the file, whatever goes wrong: it is the file's fault.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.format != "MPO" and getattr(picture, "is_animated", False):  # an MPO's first is the photo
                raise UserError(f"{path} holds {getattr(picture, 'n_frames', 'several')} pictures (frames or pages): "
                                "save each as a file of its own.")
            return convert(picture)  # PIL reads the pixels only now
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is refused, for its size may be an attack ({_line(error)}): "
                        "cut it into tiles, or remove it.") from error
    except Exception as error:  # broken files bring forth OSError, SyntaxError, struct.error, zlib.error, ...
        reason = "the file is empty" if _is_empty(path) else _line(error)
        raise UserError(f"{path} cannot be read as a picture ({reason}): replace or remove it.") from error


def is_deep(picture: Image.Image) -> bool:
    """Say whether a picture that was opened and not yet read has more than 8 bits a channel."""
    # The mode of 16-bit colours is RGB; only how the file is to be unpacked tells them apart.
    unpacked = str(getattr(picture, "tile", "")) if picture.format in ("PNG", "TIFF") else ""
    return picture.mode.startswith("I") or ";16" in unpacked


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_empty(path: Path) -> bool:
    with suppress(OSError, ValueError):  # a name too long, or with a zero byte
        return path.is_file() and not path.stat().st_size
    return False


def _to_rgb(picture: Image.Image, path: Path, bits: int | None) -> np.ndarray:
    if picture.mode == "F":
        raise UserError(f"{path} is an image of mode F, of real numbers: save it with 8 or 16 bits a channel.")
    if is_deep(picture):
        orientation = picture.getexif().get(ORIENTATION, 1)
        picture = Image.fromarray(_to_8_bits(_deep_values(picture, path), path, bits))
        picture.getexif()[ORIENTATION] = orientation
    picture.load()
    with suppress(Exception):  # EXIF data that cannot be read are no reason to refuse the picture
        picture = ImageOps.exif_transpose(picture)
    return np.asarray(picture.convert("RGB"))


def _deep_values(picture: Image.Image, path: Path) -> np.ndarray:
    """Read a picture of 16 bits a channel whole: of colours, Pillow keeps 8 bits only."""
    if picture.mode.startswith("I"):
        return np.asarray(picture)
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise UserError(f"{path} cannot be read with its 16 bits a channel: save it with 8.")
    return values if values.ndim == 2 else values[..., 2::-1]  # OpenCV's order is blue, green, red, alpha


def _to_8_bits(values: np.ndarray, path: Path, bits: int | None) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    top = 2 ** (bits or 16) - 1
    if lowest < 0 or highest > top:
        raise UserError(f"{path} holds values from {lowest} to {highest}, but {bits or 16} bits hold 0 to {top}: "
                        + ("correct dataset.image_bits." if bits else "save it with 8 or 16 bits a channel."))
    if bits is None and 0 < highest < 2**12:
        raise UserError(f"{path} has 16 bits a channel, but its highest value is {highest}, as of "
                        f"{max(8, highest.bit_length())}-bit data: say how many bits the camera uses, "
                        "dataset.image_bits=12, or 16 if the picture is just dark.")
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


def _to_index(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.mode not in ("L", "P", "1"):
        raise UserError(f"{path} is a mask of mode {picture.mode}: save it as one 8-bit class number "
                        "per pixel (grey or palette PNG).")
    return np.array(picture, dtype=np.uint8)
