"""Share the samples of a split out over folds, for cross-validation, or as lists say, whatever the dataset."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.data.base import Dataset, Picked
from segtrain.data.checks import LISTED, SETTINGS, check
from segtrain.data.class_identity import match_splits
from segtrain.data.lists import pick_names, read_names
from segtrain.data.splits import find_groups, take_groups
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError

SPLITS = ("train", "val")  # what folds are; other splits are the dataset's own
LEAKY = ("folds of single images (dataset.folds.by={}) without dataset.folds.group: where several images show one "
         "place, as the frames of a video do, near-duplicates stand in train and val, and the scores are too good.")


@check(SETTINGS, "dataset.fold beyond the folds, or without the lists that need it")
def pick_fold(datasets: dict[str, Dataset], split: str, fold: int | None, base: Path, *, k: int, by: str | None,
              group: str | None, seed: int, lists: str | None) -> Picked:
    """Return train or val of a fold: val are the samples of that fold, train are the others.

    The keyword arguments are those of the section dataset.folds of the schema; see also `assign_folds`.

    Args:
        datasets: The splits that are shared out, by their names.
        split: "train" or "val".
        fold: Its number, from 0; None where lists have no {fold}.
        base: The folder that lists are relative to.
    """
    first, *others = datasets
    data = [datasets[first], *(match_splits(datasets[name], datasets[first].labels, name, first) for name in others)]
    samples = [(part, index) for part in data for index in range(len(part.names))]
    names = [part.names[index] for part, index in samples]
    if lists is not None:
        return Picked([samples[place] for place in _pick_listed(names, lists, fold, split, base)])
    if fold is None or not fold < k:
        raise UserError(f"dataset.fold={fold}: with dataset.folds.k={k} the folds are 0..{k - 1}.")
    if by is None:
        by = "sequence" if data[0].is_sequence else "random"
    counts = _count_classes(samples) if by == "stratified" else None
    places = assign_folds(names, k, by=by, group=group, seed=seed, counts=counts)
    remarks = [LEAKY.format(by)] if by != "sequence" and group is None else []
    kept = [sample for sample, place in zip(samples, places, strict=True) if (place == fold) == (split == "val")]
    return Picked(kept, remarks)


@check(SETTINGS, "more folds than groups of images")
def assign_folds(names: Sequence[str], k: int, *, by: str, group: str | None, seed: int,
                 counts: np.ndarray | None = None) -> list[int]:
    """Return the fold of each sample, 0..k-1; the names decide, not their order.

    Args:
        names: The names of the samples.
        k: The number of folds.
        by: "random": in an order that the names and the seed decide; "sequence": in the order of the names, as frames
            of videos have it, so that each fold is a stretch; "stratified": so that the pixels of each class are spread
            evenly, the rarest first (after Sechidis et al., "On the stratification of multi-label data", 2011).
        group: A regular expression with one group, searched in each name: samples for which it gives the same text are
            in one fold; None: each sample is a group of its own.
        seed: Of the order.
        counts: With "stratified", the pixels of each class, int64 (samples, classes).
    """
    groups = find_groups(names, group, "dataset.folds.group")
    sizes: dict[str, int] = {}
    for found in groups:
        sizes[found] = sizes.get(found, 0) + 1
    if len(sizes) < k:
        raise UserError(f"dataset.folds.k={k} needs {k} groups of images at least, but all {len(names)} are in "
                        f"{len(sizes)}" + (f": lower it, or check dataset.folds.group={group}." if group
                                           else ": lower it, or add images."))
    order = sorted(sizes, key=_natural if by == "sequence" else lambda name: (
        hashlib.sha256(f"{seed}:{name}".encode()).digest(), name))
    if counts is None:
        of = _cut(order, sizes, k)
    else:
        places = {name: place for place, name in enumerate(order)}
        sums = np.zeros((len(order), counts.shape[1] + 1))
        np.add.at(sums, [places[found] for found in groups], np.column_stack([counts, np.ones(len(names))]))
        of = dict(zip(order, _stratify(sums, k), strict=True))
    return [of[found] for found in groups]


def _cut(order: Sequence[str], sizes: dict[str, int], k: int) -> dict[str, int]:
    """Cut groups in their order into k parts, none empty, that come near to equal numbers of images."""
    of: dict[str, int] = {}
    left = sum(sizes.values())
    for fold in range(k):
        spare = k - 1 - fold
        free = order[len(of):len(order) - spare]
        taken = take_groups(free, sizes, left / (spare + 1)) if spare else free
        of |= dict.fromkeys(taken, fold)
        left -= sum(sizes[name] for name in taken)
    return of


def _stratify(sums: np.ndarray, k: int) -> list[int]:
    """Return the fold of each group, given its pixels of each class and its number of images, (groups, classes + 1).

    Class by class, the rarest of what is left first, the groups that show most of it go where most of it is missing.
    """
    wanted = np.tile(sums.sum(0) / k, (k, 1))
    of = np.full(len(sums), -1)
    while (of < 0).any():
        open_groups = np.flatnonzero(of < 0)
        left = sums[open_groups, :-1].sum(0)
        found = np.flatnonzero(left)
        column = int(found[np.argmin(left[found])]) if len(found) else sums.shape[1] - 1
        showing = open_groups[sums[open_groups, column] > 0]
        for place in showing[np.argsort(-sums[showing, column], kind="stable")]:
            empty = [fold for fold in range(k) if not (of == fold).any()]
            choice = empty if len(empty) == int((of < 0).sum()) else range(k)  # no fold may end without a group
            fold = max(choice, key=lambda fold: (wanted[fold, column], wanted[fold, -1], -fold))
            of[place] = fold
            wanted[fold] -= sums[place]
    return [int(fold) for fold in of]


def _count_classes(samples: Sequence[tuple[Dataset, int]]) -> np.ndarray:
    """Return the pixels of each class in each sample, int64 (samples, classes)."""
    num_classes = len(samples[0][0].labels)

    def count(place: int) -> np.ndarray:
        dataset, index = samples[place]
        return np.bincount(dataset.read_target(index)[0].ravel(), minlength=256)[:num_classes]

    return np.stack(list(map_in_order(count, len(samples))))


def _natural(name: str) -> list[tuple[int, str | int]]:
    """Order numbers in names by their value: frame9 before frame10."""
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split("([0-9]+)", name)]


@check(LISTED, "lists of a split with names that are of no sample, or of several; an empty train or val")
def _pick_listed(names: Sequence[str], lists: str, fold: int | None, split: str, base: Path) -> list[int]:
    """Return the places of the samples that a list names; of a list without {split}, it is val that is named."""
    if ("{fold}" in lists) != (fold is not None):
        number = "null" if fold is None else fold
        raise UserError(f"dataset.folds.lists={lists} and dataset.fold={number}: write {{fold}} in the name of the "
                        "lists for each fold, and set dataset.fold, or do neither.")
    path = base / lists.replace("{fold}", str(fold)).replace("{split}", split)
    doubled = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
    if doubled is not None:
        raise UserError(f"the name {doubled} is in two of the splits dataset.folds.of, so no list can tell them apart: "
                        "rename one, or leave out one of the splits.")
    known = {name: Path(name) for name in names}
    listed = pick_names(known, {name: name for name in names}, read_names(path, "dataset.folds.lists"), path,
                        "dataset.folds.of, the splits whose images are listed")
    places = [place for place, name in enumerate(names) if (name in listed) == ("{split}" in lists or split == "val")]
    if not places:
        raise UserError(f"{path} lists every image, so that nothing is left for train: correct it, or write {{split}} "
                        "in dataset.folds.lists for a list of each split.")
    return places
