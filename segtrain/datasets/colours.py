"""Masks that show their classes by colours instead of numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.datasets.pictures import read_image, read_mask
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label

Color = tuple[int, int, int]

NO_ROW = 255  # what to_rows gives for a colour that is not in the table


def read_either(path: Path) -> np.ndarray:
    """Read a mask of either kind: uint8 (H, W, 3) RGB where it is saved in colours, uint8 (H, W) numbers else.

    A palette picture counts as numbers: its index is the class.

    Raises:
        UserError: If the file cannot be read.
    """
    return read_image(path) if _is_rgb(path) else read_mask(path)


def pack(colours: np.ndarray) -> np.ndarray:
    """Turn colours, uint8 (H, W, 3), into one number a pixel, int32 (H, W): 0xrrggbb."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def to_rows(colours: np.ndarray, table: Sequence[Color]) -> tuple[np.ndarray, dict[Color, int]]:
    """Find colours in a table.

    Args:
        colours: uint8 (H, W, 3) RGB.
        table: Fewer than 255 different colours.

    Returns:
        The rows of the table, uint8 (H, W), 255 for a colour that is not there; and the pixels of each such colour.
    """
    numbers = np.array([red << 16 | green << 8 | blue for red, green, blue in table], dtype=np.int32)
    order = np.argsort(numbers)
    packed = pack(colours)
    places = np.minimum(np.searchsorted(numbers[order], packed), len(numbers) - 1)
    known = numbers[order][places] == packed
    rows = np.where(known, order[places], NO_ROW).astype(np.uint8)
    unknown = {} if known.all() else {
        (int(number) >> 16, int(number) >> 8 & 255, int(number) & 255): int(count)
        for number, count in zip(*np.unique(packed[~known], return_counts=True), strict=True)}
    return rows, unknown


def colours_to_train_ids(colours: np.ndarray, labels: Sequence[Label], void: Sequence[Color], path: Path) -> np.ndarray:
    """Turn the colours of a mask into train ids.

    Args:
        colours: uint8 (H, W, 3) RGB.
        labels: The classes.
        void: Colours that mean void.
        path: The mask's file, for the message.

    Returns:
        uint8 (H, W), 0..K-1 or 255.

    Raises:
        UserError: If a colour is neither a class's nor void, or two classes share one.
    """
    table = [*(label.color for label in labels), *void]
    doubled = next((color for color in table if table.count(color) > 1), None)
    if doubled is not None:
        raise UserError(f"{path} shows its classes by colours, but {spelled(doubled)} stands for two: "
                        "give every class its own colour in the class file.")
    rows, unknown = to_rows(colours, table)
    if unknown:
        raise UserError(f"{path} holds the colour {counted(unknown)}, which is no class: "
                        "correct the mask or the class table.")
    train_ids = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    train_ids[:len(labels)] = [label.train_id for label in labels]
    return train_ids[rows]


def counted(colors: dict[Color, int]) -> str:
    """Write colours with their pixels for a message: "#404040 (12 pixels) and 3 more"."""
    most = sorted(colors, key=lambda color: (-colors[color], color))
    more = f" and {len(most) - 3} more" if len(most) > 3 else ""
    return ", ".join(f"{spelled(color)} ({colors[color]} pixels)" for color in most[:3]) + more


def spelled(color: Color) -> str:
    """Write a colour as #rrggbb."""
    return "#" + bytes(color).hex()


def _is_rgb(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.mode in ("RGB", "RGBA")
    except Exception:  # reading it afterwards says what is wrong
        return False
