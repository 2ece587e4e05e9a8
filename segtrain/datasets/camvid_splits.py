"""Which frames of CamVid belong to which split."""

from collections.abc import Sequence

import numpy as np

from segtrain.errors import UserError

SPLITS = ("train", "val", "test")

# The split of SegNet's authors: name of the sequence up to the number, digits of the number, and the frames.
# The labelled frames of 0016E5 have a gap, one is a frame late (901), and val is a stretch at 15 frames a second.
OFFICIAL: dict[str, tuple[tuple[str, int, Sequence[int]], ...]] = {
    "train": (
        ("0001TP_", 6, range(6690, 8521, 30)),
        ("0006R0_f", 5, range(930, 3931, 30)),
        ("0016E5_", 5, (*range(390, 871, 30), 901, *range(930, 2401, 30), *range(4350, 7921, 30),
                        *range(8190, 8641, 30))),
    ),
    "val": (("0016E5_", 5, range(7959, 8160, 2)),),
    "test": (
        ("0001TP_", 6, range(8550, 10381, 30)),
        ("Seq05VD_f", 5, range(0, 5101, 30)),
    ),
}
SHARES = {split: sum(len(frames) for _, _, frames in parts) / 701 for split, parts in OFFICIAL.items()}


def official(split: str) -> list[str]:
    """Return the names of the frames of SegNet's split: 367 train, 101 val, 233 test."""
    return sorted(f"{sequence}{number:0{digits}}" for sequence, digits, frames in OFFICIAL[split] for number in frames)


def shuffled(names: Sequence[str], split: str, seed: int, num_train: int | None, num_val: int | None) -> list[str]:
    """Return the names of a random split, the same for the same names and seed.

    Args:
        names: All labelled frames.
        split: "train", "val" or "test"; test is what the others leave.
        seed: Of the shuffling.
        num_train: Frames for training; None: the share that they have in SegNet's split.
        num_val: Frames for validation; likewise, as far as num_train leaves them.

    Raises:
        UserError: If there are not as many frames, or the split has none.
    """
    for key, number in (("num_train", num_train), ("num_val", num_val)):
        if number is not None and number < 1:
            raise UserError(f"dataset.{key}={number} must be at least 1.")
    train = round(len(names) * SHARES["train"]) if num_train is None else num_train
    val = min(round(len(names) * SHARES["val"]), len(names) - train) if num_val is None else num_val
    if train > len(names) or train + val > len(names):
        raise UserError(f"dataset.num_train={train} and dataset.num_val={max(val, 0)}, but there are {len(names)} "
                        "labelled frames: lower them.")
    order = np.random.default_rng(seed).permutation(len(names))
    parts = {"train": order[:train], "val": order[train:train + val], "test": order[train + val:]}
    if not len(parts[split]):
        raise UserError(f"dataset.splits=random leaves no frame for the split {split}, with {train} of {len(names)} "
                        f"for train and {val} for val: lower dataset.num_train or dataset.num_val.")
    return sorted(names[place] for place in parts[split])
