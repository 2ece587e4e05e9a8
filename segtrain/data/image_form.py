"""What the images of a dataset are read as: how many channels, of which type and range, and where they have no data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from segtrain.data.checks import READ, SETTINGS, check
from segtrain.data.images import (
    decode,
    is_deep,
    read_deep,
    read_image_and_turn,
    read_orientation,
    read_size,
    turn_array,
    turn_upright,
)
from segtrain.data.rasters import (
    ARRAY_SUFFIXES,
    TIFF_SUFFIXES,
    Window,
    describe_tiff,
    is_tiff,
    read_band_shape,
    read_bands,
    read_nodata,
)
from segtrain.errors import UserError, show_value

BAND = "{band}"  # in dataset.images, the name of each of dataset.band_files
LEAST_SIDE = 32  # pixels, of a window
STRETCHED, SAMPLED = (1, 99), 2**18  # percentiles of an image that are drawn black and white, and of how many pixels
DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True)
class ImageForm:
    """What every image of a dataset is read as, uint8 or float32 (H, W, C) in 0..255.

    Attributes:
        channels: How many; None: red, green and blue of 8 bits, as `read_image` makes them of other images.
        bands: The bands of a file that become the channels, from 1; None: all.
        dtype: The type of the files' values; None: any.
        range: The values of each channel that become 0 and 255; those beyond are cut off, and the image is float32.
            None: the values are taken as they are.
        nodata: The value of pixels without data; "auto": that which a file states. NaN is always one.
        rgb: The channels, from 1, that are drawn as red, green and blue, or one as grey; None: the first.
        bits: How many bits a channel RGB images of 16 bits use; None: see `read_image`.
        band_files: The names of the bands, if each has a file of its own.
        band_pattern: The part of a path that holds such a name, with {band} for it.
    """

    channels: int | None = None
    bands: tuple[int, ...] | None = None
    dtype: str | None = None
    range: tuple[tuple[float, float], ...] | None = None
    nodata: float | Literal["auto"] | None = "auto"
    rgb: tuple[int, ...] | None = None
    bits: int | None = None
    band_files: tuple[str, ...] = ()
    band_pattern: str | None = None

    @property
    def num_channels(self) -> int:
        """The number of channels."""
        return 3 if self.channels is None else self.channels

    @check(READ, "images of several files without the name of the first band")
    def list_files(self, path: Path) -> list[Path]:
        """Return the files of an image, given that of its first band; one, unless each band has a file of its own."""
        if not self.band_files or self.band_pattern is None:
            return [path]
        place, start, end = self._find_band(path, self.band_files[0])
        if place is None:
            raise UserError(f"{path} is not the band {self.band_files[0]} of an image: dataset.images has "
                            f"{self.band_pattern} for it; correct it, or dataset.band_files.")
        part = path.parts[place]
        return [Path(*path.parts[:place], part[:start] + name + part[end:], *path.parts[place + 1:])
                for name in self.band_files]

    def is_first_band(self, path: Path) -> bool:
        """Return whether a file is the one that stands for its image: that of the first band, if they are several."""
        return not self.band_files or self._find_band(path, self.band_files[0])[0] is not None

    def _find_band(self, path: Path, name: str) -> tuple[int | None, int, int]:
        """Return which part of a path holds the name of a band, and where; the part is None if none does."""
        text = "".join("[^/]*" if piece == "*" else "[^/]" if piece == "?" else
                       f"(?P<band>{re.escape(name)})" if piece == BAND else re.escape(piece)
                       for piece in re.split(r"(\*|\?|\{band\})", self.band_pattern or ""))
        wanted = re.compile(text if re.search(r"[*.]", self.band_pattern or "") else rf"{text}(\.[^.]+)?")
        for place in reversed(range(len(path.parts))):
            found = wanted.fullmatch(path.parts[place])
            if found is not None:
                return place, *found.span("band")
        return None, 0, 0

    def draw(self, image: np.ndarray) -> np.ndarray:
        """Return an image, (H, W, C), as uint8 (H, W, 3) to look at; contrast is stretched where it is not of 8 bits.

        The channels are those of `rgb`, else the first three, or the first as grey. Pixels of 0, as those without data,
        stay black.
        """
        if self.rgb is None and image.dtype == np.uint8 and image.shape[2] == 3:
            return image
        numbers = self.rgb or ((1, 2, 3) if image.shape[2] >= 3 else (1,))
        shown = np.empty((*image.shape[:2], 3), np.uint8)
        for place, number in enumerate(numbers if len(numbers) == 3 else 3 * numbers):
            values = image[..., number - 1]
            if values.dtype != np.uint8:
                step = max(1, int((values.size / SAMPLED) ** 0.5))
                known = values[::step, ::step]
                known = known[known > 0]
                low, high = np.percentile(known, STRETCHED) if known.size else (0, 1)
                values = np.clip((values - low) * (255 / max(high - low, 1e-6)), 0, 255) * (values > 0)
            shown[..., place] = values
        return shown

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Return values of files, (H, W, C), as float32 0..255; unchanged without a range."""
        if self.range is None:
            return values
        low, high = np.asarray(self.range, np.float32).T
        scaled = (values.astype(np.float32) - low) * (255 / (high - low))
        return np.clip(scaled, 0, 255, out=scaled)

    def unscale(self, images: np.ndarray) -> np.ndarray:
        """Return the values of files, float32, that `scale` makes images of; unchanged without a range."""
        if self.range is None:
            return images
        low, high = np.asarray(self.range, np.float32).T
        return images * ((high - low) / np.float32(255)) + low


RGB = ImageForm()


class Pixels(NamedTuple):
    """An image as it was read.

    Attributes:
        image: uint8 or float32 (H, W, C); in the dtype of the file where neither fits, which only measuring takes.
        nodata: bool (H, W), where it has no data and is 0; None if it has data everywhere.
        turn: How it was turned to stand upright, 1..8 as in EXIF; 1 is not at all.
    """

    image: np.ndarray
    nodata: np.ndarray | None
    turn: int


@check(READ, "bands of an image of different sizes")
def read_pixels(path: Path, form: ImageForm = RGB, window: Window | None = None) -> Pixels:
    """Read an image, or a window of it, as a form says; `path` is that of the first band.

    Raises:
        UserError: If a file cannot be read, or is of another form; it names the file and the setting.
    """
    if form.channels is None:
        image, turn = read_image_and_turn(path, form.bits, window)
        return Pixels(image, None, turn)
    files = form.list_files(path)
    parts = [_read_values(file, window) for file in files]
    for file, (values, _) in zip(files, parts, strict=True):
        if values.shape[:2] != parts[0][0].shape[:2]:
            (height, width), (other_height, other_width) = parts[0][0].shape[:2], values.shape[:2]
            raise UserError(f"{file} is {other_width}x{other_height}, but {files[0]}, another band of the image, is "
                            f"{width}x{height}: save all bands at one size, as with gdalwarp -tr.")
    values = parts[0][0] if len(parts) == 1 else np.concatenate([values for values, _ in parts], axis=2)
    value = read_nodata(path) if form.nodata == "auto" and is_tiff(path) else form.nodata
    return to_pixels(values, form, str(path), value, parts[0][1])


def to_pixels(values: np.ndarray, form: ImageForm, what: str, nodata: float | str | None = None,
              turn: int = 1) -> Pixels:
    """Make the image of a form with dataset.channels of the values that files hold, (H, W, bands).

    `what` names them in messages; `nodata` is the value of pixels without data, as NaN always is.
    """
    values = _select(values, what, form)
    image, empty = form.scale(values), np.zeros(0, bool)
    nan = np.isnan(values) if values.dtype.kind == "f" else np.zeros((1, 1, 1), bool)
    missing = nan | (values == nodata) if isinstance(nodata, float | int) else nan
    if missing.any():
        empty = np.asarray(np.broadcast_to(missing, values.shape).all(-1))
        image = np.where(nan | empty[..., None], np.zeros(1, image.dtype), image)
    return Pixels(np.ascontiguousarray(image), empty if empty.any() else None, turn)


@check(READ, "images of other channels or types than the others of their dataset")
def check_image(image: np.ndarray, form: ImageForm, file: str) -> None:
    """Raise UserError unless an image, which a dataset gives for a file, is of its form."""
    if image.ndim != 3 or image.shape[2] != form.num_channels:
        raise UserError(f"{file} has an image of shape {image.shape}, but dataset.channels="
                        f"{show_value(form.channels)}: images have {form.num_channels} channels.")
    if image.dtype not in (np.uint8, np.float32) or (form.range is None and form.dtype not in (None, image.dtype)):
        raise UserError(f"{file} has an image of type {image.dtype}, but dataset.dtype={show_value(form.dtype)} and "
                        f"dataset.range={show_value(form.range)}: give uint8, or with dataset.channels float32, both "
                        "in 0..255.")


def read_shape(path: Path) -> tuple[int, int]:
    """Return height and width of an image as it stands upright, without reading its pixels where that is possible."""
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return read_bands(path).shape[:2]
    try:
        return read_size(path)[::-1]
    except UserError:  # TIFFs of many bands or pages, and what Pillow takes for an attack
        if not is_tiff(path):
            raise
        return read_band_shape(path)[:2]


def describe_file(path: Path, form: ImageForm) -> str | None:
    """Return what a file is whose bands are read, as "TIFF, 5 bands, uint16"; None if Pillow is to say it."""
    if form.channels is None or path.suffix.lower() not in TIFF_SUFFIXES | ARRAY_SUFFIXES:
        return None
    if is_tiff(path):
        return describe_tiff(path)
    values = read_bands(path)
    return f"NumPy, {values.shape[2]} bands, {values.dtype}"


def _read_values(path: Path, window: Window | None) -> tuple[np.ndarray, int]:
    """Read a file's own values, (H, W, bands), and how it was turned."""
    if is_tiff(path) or path.suffix.lower() in ARRAY_SUFFIXES:
        return read_bands(path, window), 1
    return decode(path, lambda image: (_to_values(image, path), read_orientation(image)), window)


@check(READ, "printing inks (CMYK) with dataset.channels")
def _to_values(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode == "CMYK":
        raise UserError(f"{path} is an image of printing inks (CMYK): convert it to RGB with its colour profile.")
    if is_deep(image):
        values = turn_array(read_deep(image, path), read_orientation(image))
    else:
        image = turn_upright(image)
        mode = {"1": "L", "P": "RGB", "PA": "RGBA", "YCbCr": "RGB"}.get(image.mode, image.mode)
        values = np.asarray(image.convert(mode))
    return values if values.ndim == 3 else values[..., None]


@check(READ, "other numbers or types of bands than dataset.channels, dataset.bands and dataset.dtype say")
def _select(values: np.ndarray, path: str, form: ImageForm) -> np.ndarray:
    """Return the channels of a file's bands."""
    num_bands = values.shape[2]
    if form.bands is not None:
        if max(form.bands) > num_bands:
            raise UserError(f"{path} has {num_bands} bands, but dataset.bands={list(form.bands)} names the band "
                            f"{max(form.bands)}: they are counted from 1; correct it.")
        values = values[..., [band - 1 for band in form.bands]]
    elif num_bands != form.channels:
        first = f"dataset.channels={form.channels} with dataset.bands={list(range(1, (form.channels or 0) + 1))}"
        fewer = f", or take the first {form.channels}, {first}" if num_bands > (form.channels or 0) else ""
        raise UserError(f"{path} has {num_bands} bands, but dataset.channels={form.channels}: set dataset.channels="
                        f"{num_bands}{fewer}.")
    if values.dtype.name not in DTYPES:
        raise UserError(f"{path} holds values of type {values.dtype}: save it as one of {', '.join(DTYPES)}.")
    if form.dtype is not None and values.dtype.name != form.dtype:
        raise UserError(f"{path} holds values of type {values.dtype}, but dataset.dtype={form.dtype}: the same number "
                        "means something else there; save all images alike.")
    return values


@check(SETTINGS, "dataset.band_files and a {band} in dataset.images, one without the other")
def find_band_pattern(images: str, band_files: Sequence[str] | None) -> str | None:
    """Return the part of dataset.images that holds {band}; UserError if there is one without the other."""
    part = next((part for part in reversed(images.split("/")) if BAND in part), None)
    if bool(band_files) != (part is not None):
        raise UserError(f"dataset.band_files={list(band_files or ())} and dataset.images={images}: {{band}} stands "
                        "there for each of the names, as in '{split}/images/*_{band}.tif'; set both, or none.")
    return part


def cut_into_windows(name: str, path: Path, size: tuple[int, int]) -> list[tuple[str, Window]]:
    """Return the names and places of windows that an image falls into: of at most (height, width), nearly equal.

    They do not overlap, so that each pixel is scored once.
    """
    edges = [np.linspace(0, side, min(-(-side // most), max(1, side // LEAST_SIDE)) + 1).round().astype(int).tolist()
             for side, most in zip(read_shape(path), size, strict=True)]
    rows, columns = (list(pairwise(starts)) for starts in edges)
    return [(f"{name}_y{top}_x{left}", (slice(top, bottom), slice(left, right)))
            for top, bottom in rows for left, right in columns]
