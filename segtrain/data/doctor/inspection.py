"""Read a split once, past all its faults, and keep of each sample what fits in a few hundred bytes."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segtrain.data.base import Dataset, Sample
from segtrain.data.doctor import raw
from segtrain.data.doctor.hashes import difference_hash, digest
from segtrain.data.doctor.symptoms import blended, grey_rows, is_plain, mixed_objects
from segtrain.data.statistics import check_sample, find_instances
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label


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
        return [content for _, content in used_of(self)]


def used_of(split: Split) -> list[tuple[Seen, Content]]:
    """Return the samples without a fault, with what they hold."""
    return [(each, each.content) for each in split.seen if each.content is not None]


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
    return Seen(file, file if image is None else str(image), None if image is None else raw.kind(image),
                1 if image is None else raw.turn(image), None if mask is None else raw.kind(mask),
                {} if mask is None else raw.values(mask), content, fault)


def _content(sample: Sample, counts: np.ndarray) -> Content:
    levels = np.arange(256)
    channels = [np.bincount(sample.image[..., channel].ravel(), minlength=256) for channel in range(3)]
    mixed = (0, 0) if sample.instances is None else mixed_objects(sample.target, sample.instances)
    return Content(
        (sample.target.shape[0], sample.target.shape[1]),
        {int(train_id): int(counts[train_id]) for train_id in np.flatnonzero(counts)},
        tuple(int(channel @ levels) for channel in channels), tuple(int(channel @ levels**2) for channel in channels),
        digest(sample.image), digest(sample.target), difference_hash(sample.image),
        is_plain(sample.target), grey_rows(sample.image), blended(sample.target), *mixed)


# ---- sums over a split


def class_pixels(split: Split) -> list[int]:
    """Return the pixels of each class."""
    return [sum(each.pixels.get(label.train_id, 0) for each in split.usable) for label in split.labels]


def image_pixels(split: Split) -> list[int]:
    """Return, for each class, the labelled pixels of the images that show it."""
    return [sum(each.labelled for each in split.usable if label.train_id in each.pixels) for label in split.labels]


def summary(split: Split) -> dict[str, Any]:
    """Return what was found in a split as plain values."""
    sizes = Counter(f"{each.size[1]}x{each.size[0]}" for each in split.usable)
    pixels = dict(zip([label.name for label in split.labels], class_pixels(split), strict=True))
    return {
        "num_images": len(split.seen),
        "num_usable": len(split.usable),
        "sizes": dict(sizes.most_common()),
        "image_files": dict(Counter(each.image_kind for each in split.seen if each.image_kind).most_common()),
        "mask_files": dict(Counter(each.mask_kind for each in split.seen if each.mask_kind).most_common()),
        "class_pixels": pixels,
        "class_images": {label.name: sum(label.train_id in each.pixels for each in split.usable)
                         for label in split.labels},
        "absent_classes": [name for name, count in pixels.items() if not count],
        "void_pixels": sum(each.pixels.get(IGNORE_INDEX, 0) for each in split.usable),
        "mask_values": mask_values(split.seen),
    }


def mask_values(seen: list[Seen]) -> dict[str, dict[str, Any]]:
    """Return the values of mask files with their pixels, images and first file, the commonest first."""
    found: dict[str, dict[str, Any]] = {}
    for each in seen:
        for value, count in each.values.items():
            entry = found.setdefault(value, {"pixels": 0, "images": 0, "first": each.file})
            entry["pixels"] += count
            entry["images"] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]["pixels"])[:256])  # a JPEG in colours has thousands
