"""Read images and masks from image files, with errors that name the file."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from segtrain.data.checks import READ, check
from segtrain.data.color_masks import find_palette_fault
from segtrain.data.file_kinds import SAMPLES, count_extra_bands, explain_bands, explain_file
from segtrain.data.rasters import Window, is_tiff, read_bands, read_tiff_palette
from segtrain.errors import UserError, list_first
from segtrain.files import open_regular
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.confusion import count_values

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
                  ".tga", ".jp2"}
# What is opened, regardless of the suffix. Others are left out on purpose: Pillow passes EPS to a program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000")
ORIENTATION = 0x0112  # the EXIF tag
LOSSY = ("JPEG is lossy, and so are some files of other kinds: the values at every edge change. Save masks as PNG, "
         "drawn again and not converted from this file")
T = TypeVar("T")


def read_image(path: Path, bits: int | None = None, window: Window | None = None) -> np.ndarray:
    """Read an image as uint8 (H, W, 3) RGB, turned upright as its EXIF orientation says: masks are drawn on that view.

    Grey becomes three equal channels, a palette its colours; transparency is dropped, a colour profile is not applied.
    16 bits are scaled to 8: `bits` are those that are used, 12 scales 0..4095 to 0..255. None takes all 16, and refuses
    an image that does not use the highest. CMYK, real numbers and bands beyond three are refused.

    `window` is the part to return; see `decode`.
    """
    return read_image_and_turn(path, bits, window)[0]


def read_image_and_turn(path: Path, bits: int | None = None, window: Window | None = None) -> tuple[np.ndarray, int]:
    """Read an image as `read_image` does; return also how it was turned, 1..8 as in EXIF, 1 is not at all."""
    return decode(path, lambda image: (_to_rgb(image, path, bits), read_orientation(image)), window)


def read_mask(path: Path, labels: Sequence[Label] = ()) -> np.ndarray:
    """Read an index mask as uint8 (H, W): the grey value, the palette's index, or 0 and 1 of a 1-bit mask.

    A palette must not contradict the colours of `labels`.
    """
    return decode(path, lambda image: _to_index(image, path, labels))


def read_pair(image_path: Path, mask_path: Path, labels: Sequence[Label] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with its mask, uint8 (H, W, 3) and uint8 (H, W), which must have one size."""
    image, mask = read_image(image_path), read_mask(mask_path, labels)
    check_sizes(image, image_path, mask, mask_path)
    return image, mask


def read_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image as it is shown upright, without reading its pixels."""
    return decode(path, lambda image: image.size if read_orientation(image) < 5 else image.size[::-1])


@check(READ, "an image and its mask or instance map of different sizes")
def check_sizes(image: np.ndarray, image_path: Path, mask: np.ndarray, mask_path: Path, what: str = "mask") -> None:
    """Raise UserError if an image (H, W, 3) and what belongs to it (H, W) differ in size."""
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        remedy = f"save the {what} at the image's size."
        if (height, width) == (mask_width, mask_height):
            turn = decode(image_path, read_orientation)
            remedy = f"turn the {what} by 90 degrees." if turn == 1 else (
                f"the image is shown upright by its EXIF orientation, {turn}, and the {what} is not; turn the {what} "
                "the same way, or take the orientation out of the image.")
        raise UserError(f"{image_path} is {width}x{height} but its {what} {mask_path} is {mask_width}x{mask_height}: "
                        f"{remedy}")


@check(READ, "mask values that are neither a class nor void")
def to_train_ids(mask: np.ndarray, labels: Sequence[Label], void: Sequence[int], path: Path,
                 remedy: str = "Correct the mask or the class table.") -> np.ndarray:
    """Turn the values of a mask, 0..255 in uint8 or 0..65535 (H, W), into train ids, uint8 (H, W), 0..K-1 or 255.

    Args:
        mask: Values as in the file.
        labels: The classes.
        void: Values that mean void.
        path: The mask's file, for the message.
        remedy: The message's last sentence.

    Raises:
        UserError: If a value is neither a class nor void; it names the file, the values and their pixel counts.
    """
    size = 256 if mask.dtype == np.uint8 else 2**16
    table = np.full(size, IGNORE_INDEX, dtype=np.uint8)
    known = np.zeros(size, dtype=bool)
    known[[value for value in void if value < size]] = True
    for label in labels:
        ids = [value for value in label.ids if value < size]
        table[ids], known[ids] = label.train_id, True
    counts = count_values(mask) if size == 256 else np.bincount(mask.ravel(), minlength=size)
    unknown = np.flatnonzero((counts > 0) & ~known)
    if len(unknown):
        classes = _format_ranges([value for label in labels for value in label.ids])
        raise UserError(f"{path} holds the label {list_counts(unknown, counts)}, which is not a class: the classes are "
                        f"{classes}, void is {_format_ranges(void) or 'none'}. {remedy}")
    return cv2.LUT(mask, table) if size == 256 else table[mask]


def _format_ranges(values: Sequence[int]) -> str:
    """Write whole numbers shortly: [0, 1, 2, 5] as "0..2, 5"."""
    parts: list[list[int]] = []
    for value in sorted(values):
        if parts and value == parts[-1][-1] + 1:
            parts[-1][1:] = [value]
        else:
            parts.append([value])
    return ", ".join("..".join(str(value) for value in part) for part in parts)


def list_counts(values: Iterable[int], counts: np.ndarray) -> str:
    """Write the first of some values with their pixels for a message: "4 (12 pixels), 7 (1 pixels)"."""
    return list_first([f"{value} ({counts[value]} pixels)" for value in values])


@check(READ,
       "files that cannot be decoded, are something else than images (Git LFS pointers, web pages, HEIC, archives), "
       "hold several images, or are so large that they may be an attack")
def decode(path: Path, convert: Callable[[Image.Image], T], window: Window | None = None) -> T:
    """Open an image and return what `convert` makes of it; every error becomes a UserError: it is the file's fault.

    With a window it is given that part of the image alone: of a tiled TIFF, no more is read.
    """
    try:
        if window is not None and is_tiff(path):
            return convert(_read_tiff_window(path, window))
        # From a path, Pillow 13 maps uncompressed files, and so reads grey TIFFs wrongly that are to be turned.
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO's first is the photo
                raise UserError(f"{path} holds {getattr(image, 'n_frames', 'several')} images (frames or pages): "
                                "save each as a file of its own.")
            return convert(image if window is None else _cut_out(image, window))  # PIL reads the pixels only now
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is refused, for its size may be an attack ({_join_lines(error)}): "
                        "cut it into tiles, or remove it.") from error
    except Exception as error:  # broken files raise OSError, SyntaxError, struct.error, zlib.error, ...
        # Pillow's own words name the open file object, not the file.
        known = not isinstance(error, UnidentifiedImageError)
        words = _join_lines(error) if known else f"it is none of {', '.join(FORMATS)}"
        reason, remedy = explain_file(path) or explain_bands(path) or (words, "replace it, or remove the sample")
        raise UserError(f"{path} cannot be read as an image ({reason}): {remedy}.") from error


@check(READ, "bands and types that a window of a file cannot be read with")
def _read_tiff_window(path: Path, window: Window) -> Image.Image:
    """Read a window of a TIFF, as the image that Pillow would make of the whole."""
    values = read_bands(path, window)
    if values.dtype not in (np.uint8, np.uint16, np.bool_) or values.shape[2] > (3 if values.dtype == np.uint8 else 1):
        raise UserError(f"{path} has {values.shape[2]} bands of type {values.dtype}: a window of such a file can be "
                        f"read with dataset.channels={values.shape[2]}, or dataset.channels=3 with dataset.bands="
                        "[1, 2, 3].")
    image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    palette = read_tiff_palette(path)
    if palette is not None:
        image.putpalette(palette.tobytes())
    return image


def _cut_out(image: Image.Image, window: Window) -> Image.Image:
    """Return a window of an opened image, which is decoded as a whole."""
    # In this order: to find the orientation, Pillow may read the pixels.
    if (is_deep(image) and not image.mode.startswith("I")) or read_orientation(image) != 1:
        raise ValueError("windows are read of upright images of 8 bits a channel, or grey: save it as TIFF")
    (top, bottom, _), (left, right, _) = (
        part.indices(side) for part, side in zip(window, image.size[::-1], strict=True))
    kind = image.format
    image = image.crop((left, top, right, bottom))
    image.format = kind
    return image


def turn_upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF orientation says: the one rule for images, masks and instance maps."""
    image.load()
    with suppress(Exception):  # unreadable EXIF data is not a reason to refuse the image
        return ImageOps.exif_transpose(image)
    return image


def turn_array(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image that is an array, (H, W) or (H, W, C), as an orientation of EXIF, 1..8, says."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    rows, columns = (-1 if orientation in (3, 4, 7, 8) else 1), (-1 if orientation in (2, 3, 6, 7) else 1)
    return values[::rows, ::columns]


def is_deep(image: Image.Image) -> bool:
    """Return whether an image that was opened and not yet read has more than 8 bits a channel."""
    # The mode of 16-bit colours is RGB; only how the file is to be unpacked tells them apart.
    unpacked = str(getattr(image, "tile", "")) if image.format in ("PNG", "TIFF") else ""
    return image.mode.startswith("I") or ";16" in unpacked


def is_lossy(image: Image.Image) -> bool:
    """Return whether an image that was opened is of a kind that does not keep the values as they were saved."""
    if image.format == "WEBP":  # its lossless pixels are a chunk of that name
        file = image.fp  # type: ignore[attr-defined]
        file.seek(0)
        return b"VP8L" not in file.read()
    return image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg"  # the latter is a TIFF's


def read_orientation(image: Image.Image) -> int:
    """Return how an image is to be turned to stand upright, 1..8 as in EXIF; 1 is not at all."""
    with suppress(Exception):  # unreadable EXIF data is not a reason to refuse the image
        found = image.getexif().get(ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    return 1


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@check(READ, "images of real numbers, of printing inks (CMYK), or with bands beyond red, green and blue")
def _to_rgb(image: Image.Image, path: Path, bits: int | None) -> np.ndarray:
    if image.mode == "F":
        raise UserError(f"{path} is an image of mode F, of real numbers: read it as such with dataset.channels=1, or "
                        "save it with 8 or 16 bits a channel.")
    if image.mode == "CMYK":
        raise UserError(f"{path} is an image of printing inks (CMYK): convert it to RGB with its colour profile.")
    extra = count_extra_bands(image)
    if extra > 0:
        bands = image.tag_v2[SAMPLES]  # type: ignore[attr-defined]
        raise UserError(f"{path} has {extra} more bands than its colours, and without dataset.channels segtrain reads "
                        f"three: read all with dataset.channels={bands}, or some, as dataset.channels=3 with "
                        "dataset.bands=[1, 2, 3].")
    if is_deep(image):
        turn = read_orientation(image)
        values = read_deep(image, path)
        image = Image.fromarray(_to_8_bits(values[..., :3] if values.ndim == 3 else values, path, bits))
        image.getexif()[ORIENTATION] = turn
    return np.asarray(turn_upright(image).convert("RGB"))


def _read_all(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


@check(READ, "16-bit images that cannot be read with all their bits")
def read_deep(image: Image.Image, path: Path) -> np.ndarray:
    """Read an image of 16 bits a channel whole: of colours, Pillow keeps 8 bits only."""
    if image.mode.startswith("I"):
        return np.asarray(image)
    values = cv2.imdecode(np.frombuffer(_read_all(path), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise UserError(f"{path} cannot be read with its 16 bits a channel: save it with 8.")
    if values.ndim == 2:
        return values
    return np.concatenate([values[..., 2::-1], values[..., 3:]], axis=2)  # OpenCV's order is blue, green, red, alpha


@check(READ, "16-bit images that never use the highest bit, unless dataset.image_bits is set; values beyond it")
def _to_8_bits(values: np.ndarray, path: Path, bits: int | None) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    top = 2 ** (bits or 16) - 1
    if lowest < 0 or highest > top:
        raise UserError(f"{path} holds values from {lowest} to {highest}, but {bits or 16} bits hold 0 to {top}: "
                        + ("correct dataset.image_bits." if bits else "save it with 8 or 16 bits a channel."))
    if bits is None and 0 < highest < 2**15:
        used = max(8, highest.bit_length())
        raise UserError(f"{path} has 16 bits a channel, but its highest value is {highest}, as of {used}-bit data: "
                        "save it with 8, or, with dataset=folder, say how many bits the camera uses, "
                        f"dataset.image_bits={used} or more, up to 16 if the image is just dark. To keep all values, "
                        "read it with dataset.channels.")
    return ((values.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)


@check(READ, "index masks saved as RGB or lossily, or with a palette of another order")
def _to_index(image: Image.Image, path: Path, labels: Sequence[Label]) -> np.ndarray:
    if image.mode not in ("L", "P", "1"):
        raise UserError(f"{path} is a mask of mode {image.mode}: save it as one 8-bit class number "
                        "per pixel (grey or palette PNG).")
    lossy, image = is_lossy(image), turn_upright(image)
    values = np.array(image, dtype=np.uint8)
    if image.mode == "P" and labels:
        fault = find_palette_fault(values, read_palette(image), labels)
        if fault is not None:
            raise UserError(f"{path} {fault}: save it in the order of the classes, or as grey values.")
    if lossy and values.min() != values.max():
        raise UserError(f"{path} is saved lossily. {LOSSY}.")
    return values


def read_palette(image: Image.Image) -> np.ndarray:
    """Return the colours of a palette image by their index, uint8 (256, 3); black where it has none."""
    table = np.zeros(768, np.uint8)
    colors = image.getpalette() or []
    table[:len(colors)] = colors
    return table.reshape(256, 3)
