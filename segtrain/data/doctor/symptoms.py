"""What pixels tell of what happened to a file before: it was cut off, resized, or mixed up with another."""

import numpy as np

from segtrain.labels import IGNORE_INDEX

GREY = 128  # the brightness that decoders give to what is missing of a JPEG


def count_grey_rows(image: np.ndarray) -> int:
    """Count the rows at the bottom of an image, uint8 (H, W, 3), that are of the grey of missing JPEG data."""
    other = np.flatnonzero((image != GREY).any((1, 2)))
    return len(image) - (int(other[-1]) + 1 if len(other) else 0)


def blended_share(target: np.ndarray) -> float | None:
    """Return the share of class boundaries, between classes that are no neighbours, with a class in between.

    Interpolation writes 4 where 2 meets 6, all along. Masks as people draw them have hardly any such pixels.

    Args:
        target: uint8 (H, W) train ids.

    Returns:
        0..1; None for a target with fewer than 100 boundary pixels to judge from.
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
    """Count the objects of an instance map of which a tenth or more is not of their commonest class.

    Args:
        target: uint8 (H, W) train ids; void is left out.
        instances: int32 (H, W), a number above 0 for each object.

    Returns:
        The objects at fault, and all objects.
    """
    inside = (instances > 0) & (target != IGNORE_INDEX)
    pairs, counts = np.unique(instances[inside].astype(np.int64) * 256 + target[inside], return_counts=True)
    objects, places = np.unique(pairs // 256, return_inverse=True)
    totals, most = np.zeros(len(objects), np.int64), np.zeros(len(objects), np.int64)
    np.add.at(totals, places, counts)
    np.maximum.at(most, places, counts)
    return int(np.count_nonzero(10 * most <= 9 * totals)), len(objects)
