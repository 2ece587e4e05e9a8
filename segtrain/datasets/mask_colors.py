"""From a colour mask to train ids, and what to say about colours that are in no table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.datasets.colours import NO_ROW, Color, counted, pack, spelled, to_rows
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label


def from_colors(values: np.ndarray, labels: Sequence[Label], void: Sequence[Color], path: Path, *,
                nearest: bool | int, remark: str) -> np.ndarray:
    """Turn the colours of a mask into train ids.

    Args:
        values: uint8 (H, W, 3) RGB.
        labels: The classes.
        void: Colours that mean void.
        path: The mask's file, for messages.
        nearest: Whether a colour that is not in the table becomes the nearest one that is; a number does so up to that
            Euclidean distance in RGB.
        remark: What to add to a message about such colours.

    Returns:
        uint8 (H, W), 0..K-1 or 255.

    Raises:
        UserError: If a colour is in no table and may not be replaced; it names the colours with their pixels and the
            nearest classes. Or if two classes share a colour.
    """
    table = _table(labels, void)
    train_ids = np.full(256, IGNORE_INDEX, np.uint8)
    train_ids[:len(labels)] = [label.train_id for label in labels]
    rows, unknown = to_rows(values, table)
    if unknown:
        found = sorted(unknown, key=lambda color: (-unknown[color], color))
        near, distances = _nearest(np.array(found), np.array(table))
        beyond = [i for i in range(len(found)) if nearest is False or (nearest is not True and distances[i] > nearest)]
        if beyond:
            names = [*(label.name for label in labels), *("void" for _ in void)]
            shown = "; ".join(
                f"{spelled(found[i])} ({unknown[found[i]]} pixels), nearest {names[near[i]]} "
                f"{spelled(table[near[i]])}, distance {distances[i]:.0f}" for i in beyond[:5])
            more = f"; and {len(beyond) - 5} more colours" if len(beyond) > 5 else ""
            apart = "" if nearest is False else f", farther than dataset.nearest_colors={nearest} from any"
            raise UserError(f"{path} holds colours that are no class{apart}: {shown}{more}. {remark}Add them to the "
                            "class file, name those that are void (dataset.void=['#000000']), or take the nearest "
                            "colours with dataset.nearest_colors=true, or a number for the largest distance.")
        place = {int(pack(np.array(color))): row for color, row in zip(found, near.tolist(), strict=True)}
        packed, where = np.unique(pack(values[rows == NO_ROW]), return_inverse=True)
        rows[rows == NO_ROW] = np.array([place[color] for color in packed.tolist()], np.uint8)[where]
    return train_ids[rows]


def commonest(values: np.ndarray) -> str:
    """Write the commonest colours of a mask, uint8 (H, W, 3), with their pixels."""
    packed, counts = np.unique(pack(values), return_counts=True)
    return counted({(color >> 16, color >> 8 & 255, color & 255): count
                    for color, count in zip(packed.tolist(), counts.tolist(), strict=True)})


def _table(labels: Sequence[Label], void: Sequence[Color]) -> list[Color]:
    table = [label.color for label in labels]
    for number, label in enumerate(labels):
        if label.color in table[:number]:
            raise UserError(f"the class file gives {labels[table.index(label.color)].name} and {label.name} the same "
                            f"colour {spelled(label.color)}, and the masks are read by colour: give each its own, or "
                            "leave one out (dataset.classes, dataset.void).")
    table += sorted(set(void))
    if len(table) >= NO_ROW:
        raise UserError(f"there are {len(table)} colours of classes and void, but a colour mask is read with "
                        f"{NO_ROW - 1} at most: leave some out of dataset.classes and dataset.void.")
    return table


def _nearest(found: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each colour (N, 3) the row of the nearest of a table (K, 3), the first of equals, and its distance."""
    best, shortest = np.zeros(len(found), np.int64), np.full(len(found), np.inf)
    for row, color in enumerate(table):  # one at a time: a JPEG has a hundred thousand colours
        distances = np.sqrt(((found.astype(np.float64) - color) ** 2).sum(1))
        best[distances < shortest] = row
        shortest = np.minimum(shortest, distances)
    return best, shortest
