"""Measure what dataset.channels leaves open, on the training images: type, range, mean and standard deviation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segtrain.data.base import Dataset, Sample
from segtrain.data.checks import START, check
from segtrain.data.probe import reads_files
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError

MOST_IMAGES = 256  # spread evenly over the split
MOST_PIXELS = 4096  # of an image, spread evenly
PERCENTILES = (0.1, 99.9)
Ranges = Sequence[Sequence[float]]


@dataclass(frozen=True)
class ChannelStatistics:
    """What was measured: the type of the files' values, and of each channel range, mean and standard deviation.

    The range is None for images that are taken as they are. Mean and standard deviation are those of x / 255, after
    the range became 0..255.
    """

    dtype: str
    range: list[list[float]] | None
    mean: list[float]
    std: list[float]


@check(START, "with dataset.channels: training images of several types, or without any data")
def measure_channels(data: Dataset, given: Ranges | str | None) -> ChannelStatistics:
    """Measure the channels of a training split; pixels without data are left out.

    The same images give the same numbers: no pixel is drawn at random.

    Args:
        data: The split.
        given: The range if it is known, None for values that are taken as they are, "auto" to measure it; a class of
            the user has made 0..255 of its values itself.

    Raises:
        UserError: If the images have several types, hold no data, or do not fit the range.
    """
    if not reads_files(data):
        given = None
    form = data.form
    data.form = replace(form, range=None)
    try:
        places = np.unique(np.linspace(0, len(data.names) - 1, MOST_IMAGES).round().astype(int)).tolist()
        samples = map_in_order(lambda number: _pick(data.read(places[number])), len(places))
        values: list[np.ndarray] = []
        for place, found in zip(places, samples, strict=True):
            if values and found.dtype != values[0].dtype:
                raise UserError(f"{data.locate(place)} has an image of type {found.dtype}, but {data.locate(0)} one of "
                                f"{values[0].dtype}: save all images alike.")
            values.append(found)
    finally:
        data.form = form
    dtype = values[0].dtype.name
    if given is None and dtype != "uint8" and reads_files(data):
        raise UserError(f"dataset.range=null is for images of 8 bits, but {data.locate(0)} has one of {dtype}: say "
                        "which values become 0 and 255, dataset.range=[low, high], or measure them, auto.")
    pixels = np.concatenate(values).astype(np.float64)
    if not len(pixels):
        raise UserError(f"no image of train holds any data, the first is {data.locate(0)}: check dataset.nodata="
                        f"{form.nodata}.")
    ranges = _measure_range(pixels) if given == "auto" and dtype != "uint8" else None
    if given is not None and not isinstance(given, str):
        ranges = [[float(low), float(high)] for low, high in given]
    low, high = np.array(ranges or [[0, 255]]).T
    scaled = np.clip((pixels - low) / (high - low), 0, 1)
    return ChannelStatistics(dtype, ranges, *(_shorten(part) for part in (
        scaled.mean(0), np.maximum(scaled.std(0), 1e-3))))


def _pick(sample: Sample) -> np.ndarray:
    """Return some of an image's pixels that have data, (N, C)."""
    image = sample.image
    pixels = image.reshape(-1, image.shape[2])
    if sample.nodata is not None:
        pixels = pixels[~sample.nodata.ravel()]
    return pixels[::max(1, len(pixels) // MOST_PIXELS)].copy()


def _measure_range(pixels: np.ndarray) -> list[list[float]]:
    """Return the percentiles of each channel; those of a channel of one value are that and the next."""
    low, high = np.percentile(pixels, PERCENTILES, axis=0)
    return [[first, last if last > first else first + 1]
            for first, last in zip(_shorten(low), _shorten(high), strict=True)]


def _shorten(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
