"""Share the images of one folder out over train, val and test, the same way wherever and whenever it is done."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from segtrain.data.checks import LISTED, SETTINGS, check
from segtrain.errors import UserError


@check(SETTINGS, "splits that dataset.val_fraction does not make, and too few groups for them")
def split_off(names: Sequence[str], split: str, val_fraction: float, test_fraction: float | None = None, *,
              group: str | None, seed: int) -> list[str]:
    """Return the names of one split.

    The groups are put in an order that only their own names and the seed decide. The first of them are val: as many as
    come nearest to the fraction of all images; the next are test, by the same rule. The order of files does not matter.

    `group` is a regular expression with one group, searched in each name: images for which it gives the same text (the
    frames of a video) stay together. None: each image is a group of its own. Without test_fraction there is no test.
    """
    fractions = [val_fraction] if test_fraction is None else [val_fraction, test_fraction]
    splits = ["train", "val", "test"][:len(fractions) + 1]
    if split not in splits:
        raise UserError(f"dataset.split={split}: dataset.val_fraction makes the splits train and val, "
                        "dataset.test_fraction makes test.")
    of = dict(zip(names, find_groups(names, group), strict=True))
    sizes = Counter(of.values())
    if len(sizes) < len(splits):
        raise UserError(f"{len(splits)} splits need {len(splits)} groups of images at least, but all {len(names)} are "
                        f"in {len(sizes)}" + (f": check dataset.group={group}." if group else ": add images."))
    order = sorted(sizes, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), name))
    taken: dict[str, str] = {}
    for number, (name, fraction) in enumerate(zip(splits[1:], fractions, strict=True), 1):
        spare = len(splits) - 1 - number  # groups that the splits after this one need, besides train's one
        free = order[len(taken):len(order) - 1 - spare]
        taken |= dict.fromkeys(take_groups(free, sizes, fraction * len(names)), name)
    return [name for name in names if taken.get(of[name], "train") == split]


def take_groups(order: Sequence[str], sizes: Mapping[str, int], wanted: float) -> Sequence[str]:
    """Return as many of the first groups, at least one, as come nearest to a number of images."""
    taken, best, distance = 0, 1, float("inf")
    for number, name in enumerate(order, 1):
        taken += sizes[name]
        if abs(taken - wanted) < distance:
            distance, best = abs(taken - wanted), number
    return order[:best]


@check(LISTED, "names without the group of dataset.group or dataset.folds.group")
def find_groups(names: Sequence[str], group: str | None, key: str = "dataset.group") -> list[str]:
    """Return the group of each name: what a regular expression with one group finds there; None: the name itself."""
    pattern = _compile(group, key)
    if pattern is None:
        return list(names)
    found = [(name, pattern.search(name)) for name in names]
    alone = next((name for name, match in found if match is None or match[1] is None), None)
    if alone is not None:
        raise UserError(f"{key}={group} is not found in the name {alone}: every image needs its group; names are paths "
                        "without suffix.")
    return [match[1] for _, match in found if match is not None]


@check(SETTINGS, "dataset.group or dataset.folds.group that is not a regular expression with one group")
def _compile(group: str | None, key: str) -> re.Pattern[str] | None:
    if group is None:
        return None
    try:
        pattern = re.compile(group)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{key}={group} is not a regular expression ({error}).") from error
    if pattern.groups != 1:
        raise UserError(f"{key}={group} must have one group in brackets, as in \"(.+)_[0-9]+\"; it has "
                        f"{pattern.groups}.")
    return pattern
