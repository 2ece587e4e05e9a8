"""What to set for a dataset, from what was found in it."""

import math
from typing import Any

from segtrain.data.color_masks import spelled
from segtrain.data.doctor.inspection import Split, class_pixels, image_pixels, mask_values
from segtrain.labels import IGNORE_INDEX
from segtrain.losses import compute_class_weights

STEP = 32  # every network here halves a crop at most five times
MOST_PIXELS = 512 * 1024  # what a training crop of Cityscapes has


def advise(train: Split) -> dict[str, Any]:
    """Return what to set, from the training split: crop, mean, std, class weights by class name, and what is void.

    What there is nothing to compute from is None.
    """
    names = [label.name for label in train.labels]
    pixels, around = class_pixels(train), image_pixels(train)
    weights = {}
    for kind in ("enet", "median_frequency"):
        found = compute_class_weights(kind, pixels, around) if any(pixels) else None
        weights[kind] = None if found is None else dict(zip(names, found.tolist(), strict=True))
    mean, std = _mean_std(train)
    return {"crop": _crop(train), "mean": mean, "std": std, "class_weights": weights, "void": _void(train)}


def _crop(train: Split) -> list[int] | None:
    """Return the largest crop (height, width) that fits into every image, its sides multiples of 32."""
    if not train.usable:
        return None
    sides = [min(each.size[axis] for each in train.usable) for axis in (0, 1)]
    scale = min(1.0, math.sqrt(MOST_PIXELS / math.prod(sides)))
    return [max(STEP, int(side * scale) // STEP * STEP) for side in sides]


def _mean_std(train: Split) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and standard deviation of x/255 over all pixels, for red, green and blue."""
    count = sum(math.prod(each.size) for each in train.usable)
    if not count:
        return None, None
    mean, std = [], []
    for channel in range(3):
        total = sum(each.sums[channel] for each in train.usable)
        squares = sum(each.squares[channel] for each in train.usable)
        mean.append(round(total / count / 255, 4))
        std.append(round(math.sqrt(squares * count - total * total) / count / 255, 4))  # whole numbers: no cancellation
    return mean, std


def _void(train: Split) -> dict[str, Any]:
    """Return the share of void, the values of mask files that became void, and those that may have to.

    The latter stand in refused masks only and are no class: they belong into dataset.void or the table of classes.
    """
    total = sum(math.prod(each.size) for each in train.usable)
    void = sum(each.pixels.get(IGNORE_INDEX, 0) for each in train.usable)
    classes = {value for label in train.labels for value in (str(label.label_id), spelled(label.color))}
    known = set(mask_values([each for each in train.seen if each.content is not None]))
    refused = mask_values([each for each in train.seen if each.content is None])
    return {
        "index": IGNORE_INDEX, "share": void / total if total else None,
        # without void, values that are no class have been given a meaning: the 255 of a black and white mask
        "values": sorted(int(value) for value in known - classes if value.isdigit()) if void else [],
        "only_in_refused": {value: entry for value, entry in refused.items() if value not in known | classes},
    }
