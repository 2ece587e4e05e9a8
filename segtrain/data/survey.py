"""What is kept of a split that was read once, a few hundred bytes a sample, for training's start and for the doctor."""

import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from segtrain.data.base import Dataset, Sample
from segtrain.data.hashes import compute_difference_hash
from segtrain.data.image_form import RGB, ImageForm
from segtrain.labels import IGNORE_INDEX, Label


@dataclass(frozen=True)
class Content:
    """What a sample that can be trained on holds; the doctor alone finds out what has a default."""

    size: tuple[int, int]  # (height, width)
    pixels: dict[int, int]  # of each train id that occurs
    checksum: int  # of image, target and instances
    image_digest: tuple[int, int | None]  # the same for images that are the same, pixel by pixel
    target_digest: int  # likewise
    near_hash: int | None  # the image's compute_difference_hash
    sums: tuple[int, ...] = ()  # of each channel's values 0..255, (red, green, blue)
    squares: tuple[int, ...] = ()  # the sums of their squares
    is_plain: bool = True  # whether the target is so simple that others may be the same, or may be so
    grey_rows: int = 0  # at the bottom of the image, as if its file were cut off
    blended: float | None = None  # the share of the target's boundaries that look interpolated
    mixed_objects: int = 0  # objects of the instance map that lie on several classes
    num_objects: int = 0

    @property
    def labelled(self) -> int:
        """How many pixels have a class."""
        return sum(self.pixels.values()) - self.pixels.get(IGNORE_INDEX, 0)


@dataclass(frozen=True)
class Seen:
    """One sample. What its dataset does not tell of its files, or nobody asked for, is None, 1 or empty."""

    file: str  # the name that its dataset gives it in messages
    image: str  # the image's file, or `file`
    orientation: int  # how the image is turned to stand upright, 1..8 as in EXIF; 1 is not at all
    content: Content | None  # None where the sample cannot be used
    fault: str | None = None  # why not
    image_kind: str | None = None  # as "PNG, RGB, 8 bits"
    mask_kind: str | None = None
    values: dict[str, int] = field(default_factory=dict)  # pixels by the values of the mask's file, before any table


@dataclass
class Split:
    """One split, as far as it was read."""

    name: str
    labels: tuple[Label, ...]
    seen: list[Seen] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @cached_property
    def usable(self) -> list[tuple[Seen, Content]]:
        """The samples without a fault, with what they hold."""
        return [(seen, seen.content) for seen in self.seen if seen.content is not None]

    @property
    def contents(self) -> list[Content]:
        """What the samples without a fault hold."""
        return [content for _, content in self.usable]

    @cached_property
    def class_pixels(self) -> list[int]:
        """The pixels of each class."""
        return [sum(content.pixels.get(label.train_id, 0) for content in self.contents) for label in self.labels]

    @cached_property
    def image_pixels(self) -> list[int]:
        """For each class, the labelled pixels of the images that show it."""
        return [sum(content.labelled for content in self.contents if label.train_id in content.pixels)
                for label in self.labels]

    @property
    def shown_classes(self) -> list[str]:
        """The names of the classes that occur."""
        return [label.name for label, pixels in zip(self.labels, self.class_pixels, strict=True) if pixels]


def measure(sample: Sample, form: ImageForm = RGB) -> Content:
    """Return what is to be known of a sample, whose image is of a form."""
    counts = np.bincount(sample.target.ravel())
    image, target = (zlib.crc32(np.ascontiguousarray(array).data) for array in (sample.image, sample.target))
    checksum = image
    for array in (sample.target, sample.instances):
        if array is not None:
            checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    near_hash = compute_difference_hash(form.draw(sample.image))
    return Content(
        (sample.target.shape[0], sample.target.shape[1]),
        {int(train_id): int(counts[train_id]) for train_id in np.flatnonzero(counts)},
        checksum, (hash((sample.image.shape, image)), near_hash), hash((sample.target.shape, target)), near_hash)


def describe(dataset: Dataset, index: int, content: Content, orientation: int) -> Seen:
    """Return what is known of a sample that has been read."""
    image, file = dataset.paths(index)[0], dataset.locate(index)
    return Seen(file, str(image or file), orientation, content)
