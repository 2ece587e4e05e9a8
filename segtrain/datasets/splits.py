"""Share the images of one folder out over train and val, the same way wherever and whenever it is done."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from segtrain.errors import UserError


def split_off(names: Sequence[str], split: str, fraction: float, *, group: str | None, seed: int) -> list[str]:
    """Return the names of one split.

    The groups are put in an order that only their own names and the seed decide, and the first of them are val: as many
    as come nearest to the fraction of all images. The order of the files plays no part.

    Args:
        names: All of them.
        split: "train" or "val".
        fraction: The share of val, between 0 and 1.
        group: A regular expression with one group, searched in each name: images for which it gives the same text (the
            frames of a video) stay together. None: each image is a group of its own.
        seed: Another seed, another split.

    Raises:
        UserError: Names the key at fault and the remedy.
    """
    if split not in ("train", "val"):
        raise UserError(f"dataset.split={split}: dataset.val_fraction makes the splits train and val.")
    of = {name: _group_of(name, pattern) for pattern in [_compile(group)] for name in names}
    sizes = Counter(of.values())
    if len(sizes) < 2:
        raise UserError(f"dataset.val_fraction needs two groups of images at least, but all {len(names)} are one"
                        + (f": check dataset.group={group}." if group else ": add images."))
    order = sorted(sizes, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), name))
    wanted, taken, best = fraction * len(names), 0, 1
    distance = float("inf")
    for number, name in enumerate(order[:-1], 1):
        taken += sizes[name]
        if abs(taken - wanted) < distance:
            distance, best = abs(taken - wanted), number
    val = set(order[:best])
    return [name for name in names if (of[name] in val) == (split == "val")]


def _compile(group: str | None) -> re.Pattern[str] | None:
    if group is None:
        return None
    try:
        pattern = re.compile(group)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"dataset.group={group} is no regular expression ({error}).") from error
    if pattern.groups != 1:
        raise UserError(f"dataset.group={group} must have one group in brackets, as in \"(.+)_[0-9]+\"; it has "
                        f"{pattern.groups}.")
    return pattern


def _group_of(name: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return name
    found = pattern.search(name)
    if found is None or found[1] is None:
        raise UserError(f"dataset.group={pattern.pattern} is not found in the name {name}: every image needs its "
                        "group; names are paths without suffix.")
    return found[1]
