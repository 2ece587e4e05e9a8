"""What picture files hold before anything is made of them: their format, bits and values."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.data.color_masks import pack, spelled
from segtrain.data.images import decode, is_deep, orientation
from segtrain.errors import UserError

MOST = 64  # different values kept of one file; a JPEG mask has thousands


def kind(path: Path) -> str | None:
    """Name what a picture is, as "PNG, RGB, 8 bits"; None for what cannot be opened."""
    try:
        return decode(path, _kind)
    except UserError:
        return None  # whoever reads the sample reports it


def turn(path: Path) -> int:
    """Return how a picture is turned to stand upright, 1..8 as in EXIF; 1 for what cannot be opened."""
    try:
        return decode(path, orientation)
    except UserError:
        return 1


def values(path: Path) -> dict[str, int]:
    """Count the values of a mask: numbers of grey and palette pictures, "#rrggbb" of others; the commonest 64."""
    try:
        found = decode(path, lambda picture: np.array(
            picture if picture.mode in ("1", "L", "P") or picture.mode.startswith("I") else picture.convert("RGB")))
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
    return dict(Counter(dict(zip(names, counts.tolist(), strict=True))).most_common(MOST))


def _kind(picture: Image.Image) -> str:
    bits = 1 if picture.mode == "1" else 16 if is_deep(picture) else 32 if picture.mode == "F" else 8
    return f"{picture.format}, {picture.mode}, {bits} bit{'s' * (bits > 1)}"
