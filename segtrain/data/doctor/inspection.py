"""Look at every sample of a split, past all its faults, and at what its files tell of what happened to them before."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from segtrain.data.base import Dataset, Sample
from segtrain.data.color_masks import pack
from segtrain.data.image_form import ImageForm, check_image, describe_file
from segtrain.data.images import decode, is_deep
from segtrain.data.statistics import check_content, find_instances
from segtrain.data.survey import Content, Seen, Split, measure
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX

MOST_VALUES = 64  # different values kept of one file; a JPEG mask has thousands
GREY = 128  # the brightness that decoders give to what is missing of a JPEG
T = TypeVar("T")


def read_split(dataset: Dataset, instances: str | None) -> Iterator[Seen]:
    """Look at every sample, on all cores, in their order; no image is kept. `instances` is dataset.instances."""
    return map_in_order(lambda index: _look(dataset, index, instances), len(dataset.names))


def _look(dataset: Dataset, index: int, instances: str | None) -> Seen:
    image, mask = dataset.paths(index)
    file = dataset.locate(index)
    content, fault = None, None
    try:
        sample = dataset.read(index)
        check_image(sample.image, dataset.form, file)
        content = _measure_all(sample, dataset.form)
        check_content(content, dataset.labels, file)
        if instances == "maps":
            find_instances(sample.target, sample.instances, dataset.labels, instances, file)
    except UserError as error:
        content, fault = None, str(error)
    turn = 1 if content is None else dataset.orientation(index)
    return Seen(file, str(image or file), turn, content, fault, _describe(image, dataset.form),
                _try(mask, describe_image, None), _try(mask, count_file_values, {}))


def _describe(path: Path | None, form: ImageForm) -> str | None:
    """Return what an image file is; what cannot be opened is reported by whoever reads the sample."""
    with suppress(UserError):
        return None if path is None else describe_file(path, form) or decode(path, describe_image)
    return None


def _try(path: Path | None, convert: Callable[[Image.Image], T], default: T) -> T:
    """Decode a file, before anything is made of it; what cannot be opened is reported by whoever reads the sample."""
    try:
        return default if path is None else decode(path, convert)
    except UserError:
        return default


def _measure_all(sample: Sample, form: ImageForm) -> Content:
    levels, is_rgb = np.arange(256), form.channels is None  # other channels are measured by themselves
    channels = [np.bincount(sample.image[..., channel].ravel(), minlength=256) for channel in range(3 * is_rgb)]
    mixed, objects = (0, 0) if sample.instances is None else count_mixed_objects(sample.target, sample.instances)
    return replace(
        measure(sample, form), sums=tuple(int(channel @ levels) for channel in channels),
        squares=tuple(int(channel @ levels**2) for channel in channels), is_plain=is_plain(sample.target),
        grey_rows=count_grey_rows(sample.image) if is_rgb else 0, blended=measure_blending(sample.target),
        mixed_objects=mixed, num_objects=objects)


def describe_image(image: Image.Image) -> str:
    """Return what an image file is, as "PNG, RGB, 8 bits"."""
    bits = 1 if image.mode == "1" else 16 if is_deep(image) else 32 if image.mode == "F" else 8
    return f"{image.format}, {image.mode}, {bits} bit{'s' * (bits > 1)}"


def count_file_values(image: Image.Image) -> dict[str, int]:
    """Count the values of a mask: numbers of grey and palette images, "#rrggbb" of others; the commonest 64."""
    is_index = image.mode in ("1", "L", "P") or image.mode.startswith("I")
    found = np.array(image if is_index else image.convert("RGB"))
    if found.dtype in (np.uint8, bool) and is_index:
        all_counts = np.bincount(found.ravel())  # much faster than np.unique
        numbers = np.flatnonzero(all_counts)
        counts = all_counts[numbers]
    else:
        numbers, counts = np.unique(found if is_index else pack(found), return_counts=True)
    names = [str(number) if is_index else f"#{number:06x}" for number in numbers.tolist()]
    return dict(Counter(dict(zip(names, counts.tolist(), strict=True))).most_common(MOST_VALUES))


# ---- what pixels tell of what happened to a file before: it was cut off, resized, or mixed up with another


def count_grey_rows(image: np.ndarray) -> int:
    """Count the rows at the bottom of an image, uint8 (H, W, 3), that are of the grey of missing JPEG data."""
    other = np.flatnonzero((image != GREY).any((1, 2)))
    return len(image) - (int(other[-1]) + 1 if len(other) else 0)


def measure_blending(target: np.ndarray) -> float | None:
    """Return the share of class boundaries, between classes that are not neighbours, with a class in between.

    Interpolation writes 4 where 2 meets 6, all along. Masks as people draw them have hardly any such pixels. None for a
    target, uint8 (H, W) train ids, with fewer than 100 boundary pixels to judge from.
    """
    total = between = 0
    for lines in (target, target.T):
        left, middle, right = (lines[:, start:lines.shape[1] - 2 + start].astype(np.int16) for start in range(3))
        apart = (np.abs(left - right) > 1) & (left != IGNORE_INDEX) & (middle != IGNORE_INDEX) & (right != IGNORE_INDEX)
        total += int(np.count_nonzero(apart))
        between += int(np.count_nonzero(apart & ((left < middle) == (middle < right)) & (left != middle)
                                        & (middle != right)))
    return between / total if total >= 100 else None


def is_plain(target: np.ndarray) -> bool:
    """Return whether all rows or all columns of a target are the same, as of images that show one or two classes."""
    return bool((target == target[:1]).all() or (target == target[:, :1]).all())


def count_mixed_objects(target: np.ndarray, instances: np.ndarray) -> tuple[int, int]:
    """Count the objects of an instance map of which a tenth or more is not of their commonest class; and all objects.

    Void pixels of the target, uint8 (H, W), are left out.
    """
    inside = (instances > 0) & (target != IGNORE_INDEX)
    pairs, counts = np.unique(instances[inside].astype(np.int64) * 256 + target[inside], return_counts=True)
    objects, places = np.unique(pairs // 256, return_inverse=True)
    totals, most = np.zeros(len(objects), np.int64), np.zeros(len(objects), np.int64)
    np.add.at(totals, places, counts)
    np.maximum.at(most, places, counts)
    return int(np.count_nonzero(10 * most <= 9 * totals)), len(objects)


# ---- a split in numbers


def summarize(split: Split) -> dict[str, Any]:
    """Return what was found in a split as plain values."""
    sizes = Counter(f"{content.size[1]}x{content.size[0]}" for content in split.contents)
    pixels = dict(zip([label.name for label in split.labels], split.class_pixels, strict=True))
    return {
        "num_images": len(split.seen),
        "num_usable": len(split.contents),
        "sizes": dict(sizes.most_common()),
        "image_files": dict(Counter(seen.image_kind for seen in split.seen if seen.image_kind).most_common()),
        "mask_files": dict(Counter(seen.mask_kind for seen in split.seen if seen.mask_kind).most_common()),
        "class_pixels": pixels,
        "class_images": {label.name: sum(label.train_id in content.pixels for content in split.contents)
                         for label in split.labels},
        "absent_classes": [name for name, count in pixels.items() if not count],
        "void_pixels": sum(content.pixels.get(IGNORE_INDEX, 0) for content in split.contents),
        "mask_values": collect_mask_values(split.seen),
    }


def collect_mask_values(samples: list[Seen]) -> dict[str, dict[str, Any]]:
    """Return the values of mask files with their pixels, images and first file, the commonest first."""
    found: dict[str, dict[str, Any]] = {}
    for seen in samples:
        for value, count in seen.values.items():
            entry = found.setdefault(value, {"pixels": 0, "images": 0, "first": seen.file})
            entry["pixels"] += count
            entry["images"] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]["pixels"])[:256])  # a JPEG in colours has thousands
