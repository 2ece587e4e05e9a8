"""Read a split once, past all its faults, and keep of each sample what fits in a few hundred bytes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segtrain.data.base import Dataset, Sample
from segtrain.data.color_masks import pack, spelled
from segtrain.data.doctor.hashes import difference_hash, hash_array
from segtrain.data.doctor.symptoms import blended_share, count_grey_rows, count_mixed_objects, is_plain
from segtrain.data.images import decode, is_deep, orientation
from segtrain.data.statistics import check_sample, find_instances
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label

MOST_VALUES = 64  # different values kept of one file; a JPEG mask has thousands


@dataclass(frozen=True)
class Content:
    """What a sample that can be trained on holds.

    Attributes:
        size: (height, width).
        pixels: The pixels of each train id that occurs.
        sums: Of each channel's values 0..255, (red, green, blue).
        squares: Of their squares.
        image_digest: The same for images that are the same, pixel by pixel.
        target_digest: Likewise for targets.
        near_hash: The image's difference_hash.
        is_plain: Whether the target is so simple that others may be the same.
        grey_rows: Rows at the bottom of the image that look as if its file were cut off.
        blended: The share of the target's boundaries that look interpolated; None where that cannot be said.
        mixed_objects: Objects of the instance map that lie on several classes.
        num_objects: All its objects.
    """

    size: tuple[int, int]
    pixels: dict[int, int]
    sums: tuple[int, ...]
    squares: tuple[int, ...]
    image_digest: bytes
    target_digest: bytes
    near_hash: int | None
    is_plain: bool
    grey_rows: int
    blended: float | None
    mixed_objects: int
    num_objects: int

    @property
    def labelled(self) -> int:
        """How many pixels have a class."""
        return sum(self.pixels.values()) - self.pixels.get(IGNORE_INDEX, 0)


@dataclass(frozen=True)
class Seen:
    """One sample.

    Attributes:
        file: The name that its dataset gives it in messages.
        image: The image's file, or `file` where the dataset does not tell.
        image_kind: As "PNG, RGB, 8 bits"; None where the dataset does not tell its files.
        orientation: How the image is turned to stand upright, 1..8 as in EXIF; 1 is not at all.
        mask_kind: Likewise.
        values: Pixels by the values of the mask's file, before any table; empty where the dataset does not tell.
        content: None where the sample cannot be used.
        fault: Why it cannot be used.
    """

    file: str
    image: str
    image_kind: str | None
    orientation: int
    mask_kind: str | None
    values: dict[str, int]
    content: Content | None
    fault: str | None = None


@dataclass
class Split:
    """One split, as far as it was read."""

    name: str
    labels: tuple[Label, ...]
    seen: list[Seen] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def usable(self) -> list[Content]:
        """The samples without a fault."""
        return [content for _, content in usable_samples(self)]


def usable_samples(split: Split) -> list[tuple[Seen, Content]]:
    """Return the samples without a fault, with what they hold."""
    return [(seen, seen.content) for seen in split.seen if seen.content is not None]


def read_split(dataset: Dataset, instances: str | None) -> Iterator[Seen]:
    """Look at every sample, on all cores, in their order; no image is kept.

    Args:
        dataset: The split.
        instances: The setting dataset.instances.
    """
    yield from map_in_order(lambda index: _look(dataset, index, instances), len(dataset.names))


def _look(dataset: Dataset, index: int, instances: str | None) -> Seen:
    image, mask = dataset.paths(index)
    file = dataset.locate(index)
    content, fault = None, None
    try:
        sample = dataset.read(index)
        counts = check_sample(sample, dataset.labels, file)
        if instances == "maps":
            find_instances(sample.target, sample.instances, dataset.labels, instances, file)
        content = _content(sample, counts)
    except UserError as error:
        fault = str(error)
    return Seen(file, file if image is None else str(image), None if image is None else describe_file(image),
                1 if image is None else read_orientation(image), None if mask is None else describe_file(mask),
                {} if mask is None else count_file_values(mask), content, fault)


def _content(sample: Sample, counts: np.ndarray) -> Content:
    levels = np.arange(256)
    channels = [np.bincount(sample.image[..., channel].ravel(), minlength=256) for channel in range(3)]
    mixed = (0, 0) if sample.instances is None else count_mixed_objects(sample.target, sample.instances)
    return Content(
        (sample.target.shape[0], sample.target.shape[1]),
        {int(train_id): int(counts[train_id]) for train_id in np.flatnonzero(counts)},
        tuple(int(channel @ levels) for channel in channels), tuple(int(channel @ levels**2) for channel in channels),
        hash_array(sample.image), hash_array(sample.target), difference_hash(sample.image),
        is_plain(sample.target), count_grey_rows(sample.image), blended_share(sample.target), *mixed)


# ---- files, before anything is made of them




def describe_file(path: Path) -> str | None:
    """Return what an image file is, as "PNG, RGB, 8 bits"; None for what cannot be opened."""
    try:
        return decode(path, _describe)
    except UserError:
        return None  # whoever reads the sample reports it


def read_orientation(path: Path) -> int:
    """Return how an image is turned to stand upright, 1..8 as in EXIF; 1 for what cannot be opened."""
    try:
        return decode(path, orientation)
    except UserError:
        return 1


def count_file_values(path: Path) -> dict[str, int]:
    """Count the values of a mask: numbers of grey and palette images, "#rrggbb" of others; the commonest 64."""
    try:
        found = decode(path, lambda image: np.array(
            image if image.mode in ("1", "L", "P") or image.mode.startswith("I") else image.convert("RGB")))
    except UserError:
        return {}
    if found.ndim == 3:
        numbers, counts = np.unique(pack(found), return_counts=True)
        names = [spelled((number >> 16, number >> 8 & 255, number & 255)) for number in numbers.tolist()]
    elif found.dtype in (np.uint8, bool):
        every = np.bincount(found.ravel())
        numbers = np.flatnonzero(every)
        counts, names = every[numbers], [str(number) for number in numbers.tolist()]
    else:
        numbers, counts = np.unique(found, return_counts=True)
        names = [str(number) for number in numbers.tolist()]
    return dict(Counter(dict(zip(names, counts.tolist(), strict=True))).most_common(MOST_VALUES))


def _describe(image: Image.Image) -> str:
    bits = 1 if image.mode == "1" else 16 if is_deep(image) else 32 if image.mode == "F" else 8
    return f"{image.format}, {image.mode}, {bits} bit{'s' * (bits > 1)}"


# ---- sums over a split


def class_pixels(split: Split) -> list[int]:
    """Return the pixels of each class."""
    return [sum(content.pixels.get(label.train_id, 0) for content in split.usable) for label in split.labels]


def image_pixels(split: Split) -> list[int]:
    """Return, for each class, the labelled pixels of the images that show it."""
    return [sum(content.labelled for content in split.usable if label.train_id in content.pixels)
            for label in split.labels]


def summarize(split: Split) -> dict[str, Any]:
    """Return what was found in a split as plain values."""
    sizes = Counter(f"{content.size[1]}x{content.size[0]}" for content in split.usable)
    pixels = dict(zip([label.name for label in split.labels], class_pixels(split), strict=True))
    return {
        "num_images": len(split.seen),
        "num_usable": len(split.usable),
        "sizes": dict(sizes.most_common()),
        "image_files": dict(Counter(seen.image_kind for seen in split.seen if seen.image_kind).most_common()),
        "mask_files": dict(Counter(seen.mask_kind for seen in split.seen if seen.mask_kind).most_common()),
        "class_pixels": pixels,
        "class_images": {label.name: sum(label.train_id in content.pixels for content in split.usable)
                         for label in split.labels},
        "absent_classes": [name for name, count in pixels.items() if not count],
        "void_pixels": sum(content.pixels.get(IGNORE_INDEX, 0) for content in split.usable),
        "mask_values": mask_values(split.seen),
    }


def mask_values(samples: list[Seen]) -> dict[str, dict[str, Any]]:
    """Return the values of mask files with their pixels, images and first file, the commonest first."""
    found: dict[str, dict[str, Any]] = {}
    for seen in samples:
        for value, count in seen.values.items():
            entry = found.setdefault(value, {"pixels": 0, "images": 0, "first": seen.file})
            entry["pixels"] += count
            entry["images"] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]["pixels"])[:256])  # a JPEG in colours has thousands
