"""Masks that show their classes by colours: from colours to train ids, and what to say about those in no table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.data.checks import READ, check
from segtrain.errors import UserError, list_first
from segtrain.labels import IGNORE_INDEX, Label

Color = tuple[int, int, int]

NO_ROW = 255  # what find_rows gives for a colour that is not in the table


def pack(colors: np.ndarray) -> np.ndarray:
    """Turn colours, uint8 (H, W, 3), into one number a pixel, int32 (H, W): 0xrrggbb."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def find_rows(colors: np.ndarray, table: Sequence[Color]) -> tuple[np.ndarray, dict[Color, int]]:
    """Find colours, uint8 (H, W, 3) RGB, in a table of fewer than 255.

    Returns:
        The rows of the table, uint8 (H, W), 255 for a colour that is not there; and the pixels of each such colour.
    """
    numbers = np.array([red << 16 | green << 8 | blue for red, green, blue in table], dtype=np.int32)
    order = np.argsort(numbers)
    packed = pack(colors)
    places = np.minimum(np.searchsorted(numbers[order], packed), len(numbers) - 1)
    known = numbers[order][places] == packed
    rows = np.where(known, order[places], NO_ROW).astype(np.uint8)
    return rows, {} if known.all() else _count_packed(packed[~known])


@check(READ, "colors of no class, unless dataset.void=rest or dataset.nearest_colors take them")
def convert_colors(values: np.ndarray, labels: Sequence[Label], void: Sequence[Color], path: Path, *,
                   nearest: bool | int, remark: str, rest: dict[Color, int] | None = None) -> np.ndarray:
    """Turn the colours of a mask, uint8 (H, W, 3) RGB, into train ids, uint8 (H, W), 0..K-1 or 255.

    Args:
        values: The mask.
        labels: The classes.
        void: Colours that mean void.
        path: The mask's file, for messages.
        nearest: Whether a colour that is not in the table becomes the nearest one that is; a number does so up to that
            Euclidean distance in RGB.
        remark: What to add to a message about such colours.
        rest: None refuses the colours that are then left; else they are void, and their pixels are put in here.
    """
    table, owners = _make_table(labels, void, path)
    train_ids = np.full(256, IGNORE_INDEX, np.uint8)
    train_ids[:len(owners)] = [label.train_id for label in owners]
    rows, unknown = find_rows(values, table)
    if unknown and rest is not None and nearest is False:
        rest.update(unknown)
    elif unknown:
        found = sorted(unknown, key=lambda color: (-unknown[color], color))
        near, distances = _find_nearest(np.array(found), np.array(table))
        beyond = [i for i in range(len(found)) if nearest is False or (nearest is not True and distances[i] > nearest)]
        if beyond and rest is not None:
            rest.update({found[i]: unknown[found[i]] for i in beyond})
            near[beyond] = NO_ROW
        elif beyond:
            names = [*(label.name for label in owners), *("void" for _ in void)]
            shown = "; ".join(
                f"{to_hex(found[i])} ({unknown[found[i]]} pixels), nearest {names[near[i]]} "
                f"{to_hex(table[near[i]])}, distance {distances[i]:.0f}" for i in beyond[:5])
            more = f"; and {len(beyond) - 5} more colours" if len(beyond) > 5 else ""
            apart = "" if nearest is False else f", farther than dataset.nearest_colors={nearest} from any"
            raise UserError(f"{path} holds colours that are not classes{apart}: {shown}{more}. {remark}Add them to the "
                            f"class file, name those that are void ('dataset.void=[\"{to_hex(found[beyond[0]])}\"]'), "
                            "or take the nearest colours with dataset.nearest_colors=true, or a number for the "
                            "largest distance.")
        place = {int(pack(np.array(color))): row for color, row in zip(found, near.tolist(), strict=True)}
        packed, where = np.unique(pack(values[rows == NO_ROW]), return_inverse=True)
        rows[rows == NO_ROW] = np.array([place[color] for color in packed.tolist()], np.uint8)[where]
    return train_ids[rows]


def list_commonest(values: np.ndarray) -> str:
    """Write the commonest colours of a mask, uint8 (H, W, 3), with their pixels."""
    return list_colors(_count_packed(pack(values)))


def _count_packed(packed: np.ndarray) -> dict[Color, int]:
    numbers, counts = np.unique(packed, return_counts=True)
    return {(number >> 16, number >> 8 & 255, number & 255): count
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}


def find_palette_fault(values: np.ndarray, palette: np.ndarray, labels: Sequence[Label]) -> str | None:
    """Return which index a palette image paints in the colour of another class than the one that it stands for.

    `values` are the index, uint8 (H, W), `palette` the colours, uint8 (256, 3) RGB. A colour that several classes share
    says nothing. What is returned is to be followed by the remedy; None if nothing is wrong.
    """
    names = {value: label.name for label in labels for value in label.ids}
    colors, owners = [color for label in labels for color in label.colors], [
        label.name for label in labels for _ in label.colors]
    for index in np.flatnonzero(np.bincount(values.ravel())).tolist():
        color = (int(palette[index, 0]), int(palette[index, 1]), int(palette[index, 2]))
        if colors.count(color) == 1 and names.get(index) != owners[colors.index(color)]:
            return (f"is a palette image that paints its index {index} in {to_hex(color)}, which is "
                    f"{owners[colors.index(color)]} in the class table, but the value {index} is "
                    f"{names.get(index, 'no class')}")
    return None


def list_colors(colors: dict[Color, int]) -> str:
    """Write colours with their pixels for a message: "#404040 (12 pixels) and 3 more"."""
    most = sorted(colors, key=lambda color: (-colors[color], color))
    return list_first([f"{to_hex(color)} ({colors[color]} pixels)" for color in most], 3)


def to_hex(color: Color) -> str:
    """Write a colour as #rrggbb."""
    return "#" + bytes(color).hex()


@check(READ, "color masks of classes that share a color")
def _make_table(labels: Sequence[Label], void: Sequence[Color], path: Path) -> tuple[list[Color], list[Label]]:
    """Return the colours of the classes and, behind them, of void; and the class of each of the former."""
    table = [color for label in labels for color in label.colors]
    owners = [label for label in labels for _ in label.colors]
    for number, (color, label) in enumerate(zip(table, owners, strict=True)):
        if color in table[:number]:
            raise UserError(f"{path} shows its classes by colours, but the class file gives "
                            f"{owners[table.index(color)].name} and {label.name} the same colour "
                            f"{to_hex(color)}: give each its own, or leave one out (dataset.classes, "
                            "dataset.void).")
    table += sorted(set(void))
    if len(table) >= NO_ROW:
        raise UserError(f"there are {len(table)} colours of classes and void, but a colour mask is read with "
                        f"{NO_ROW - 1} at most: leave some out of dataset.classes and dataset.void.")
    return table, owners


def _find_nearest(found: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each colour (N, 3) the row of the nearest of a table (K, 3), the first of equals, and its distance."""
    best, shortest = np.zeros(len(found), np.int64), np.full(len(found), np.inf)
    for row, color in enumerate(table):  # one at a time: a JPEG has a hundred thousand colours
        distances = np.sqrt(((found.astype(np.float64) - color) ** 2).sum(1))
        best[distances < shortest] = row
        shortest = np.minimum(shortest, distances)
    return best, shortest
