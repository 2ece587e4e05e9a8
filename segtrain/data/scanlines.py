"""Fill polygons as the official tool of Cityscapes does: by the scanlines of Pillow, without Pillow.

Pillow's own polygons changed between versions 11.0 and 11.3 by a pixel here and there. These are those of 11.3 to 13.0.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

F = np.float32  # Pillow computes in single precision


def fill_polygon(points: Sequence[tuple[float, float]], width: int, height: int) -> tuple[int, int, np.ndarray]:
    """Fill a polygon of whole pixels, which are cut from its numbers; its outline belongs to it.

    Returns:
        The first row and column, and which pixels from there on are inside, bool (h, w).

    Raises:
        ValueError: If there are fewer than 2 points.
    """
    whole = [(int(x), int(y)) for x, y in points]
    if len(whole) < 2:
        raise ValueError("a polygon needs at least 2 points")
    edges = [(*one, *other) for one, other in pairwise([*whole, whole[0]])]
    if whole[-1] == whole[0] and len(edges) > 1:
        edges.pop()
    flat = [edge for edge in edges if edge[1] == edge[3]]
    rows, starts, ends = _find_spans([edge for edge in edges if edge[1] != edge[3]], height)
    if flat:
        rows = np.concatenate([rows, [edge[1] for edge in flat]])
        starts = np.concatenate([starts, [min(edge[0], edge[2]) for edge in flat]])
        ends = np.concatenate([ends, [max(edge[0], edge[2]) for edge in flat]])
    seen = (rows >= 0) & (rows < height) & (starts <= ends) & (starts < width) & (ends >= 0)
    if not seen.any():
        return 0, 0, np.zeros((0, 0), bool)
    rows, starts, ends = rows[seen], np.maximum(starts[seen], 0), np.minimum(ends[seen], width - 1) + 1
    top, left = int(rows.min()), int(starts.min())
    mask = np.zeros((int(rows.max()) - top + 1, int(ends.max()) - left), bool)
    for row, start, end in zip((rows - top).tolist(), (starts - left).tolist(), (ends - left).tolist(), strict=True):
        mask[row, start:end] = True
    return top, left, mask


def _find_spans(edges: list[tuple[int, int, int, int]], height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the row, the first and the last column of every span between an odd and the next even crossing."""
    empty = np.zeros(0, np.int64)
    if not edges:
        return empty, empty, empty
    x0, y0, x1, y1 = np.array(edges, np.int64).T
    slopes = (x1 - x0).astype(F) / (y1 - y0).astype(F)
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    last = min(int(high.max()), height)
    first_rows = np.maximum(low, 0)
    counts = np.maximum(np.minimum(high, last) - first_rows + 1, 0)
    edge = np.repeat(np.arange(len(edges)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first_rows, counts)
    crossing = (row - y0[edge]).astype(F) * slopes[edge] + x0[edge].astype(F)
    place = np.cumsum(counts) - counts - first_rows  # of an edge's crossing with the row 0
    for number, at, x in _join_corners(x0, y0, slopes, low, high, last):
        if 0 <= at <= last:
            crossing[place[number] + at] = x
    twice = (row == high[edge]) & (row < last)  # where an edge ends and another goes on, both count
    row, crossing = np.concatenate([row, row[twice]]), np.concatenate([crossing, crossing[twice]])
    order = np.lexsort((crossing, row))
    row, crossing = row[order], crossing[order]
    position = np.arange(len(row)) - np.searchsorted(row, row)
    left = np.flatnonzero((position % 2 == 0) & (np.append(row[1:], -1) == row))
    return row[left], _round_up(crossing[left]), _round_down(crossing[left + 1])


def _join_corners(x0: np.ndarray, y0: np.ndarray, slopes: np.ndarray, low: np.ndarray, high: np.ndarray,
                  last: int) -> Iterator[tuple[int, int, float]]:
    """Yield an edge, a row and where the edge's end there moves to, so that a flat corner of two edges has no gap."""
    for ends, step, chosen in ((low, 1, slopes != 0), (high, -1, (slopes != 0) & (high == last))):
        at_end, beside = ((rows - y0).astype(F) * slopes + x0.astype(F) for rows in (ends, ends + step))
        rounded = _round_half_away(at_end).tolist()
        first: dict[tuple[int, float], int] = {}
        for number in np.flatnonzero(chosen).tolist():
            row = int(ends[number])
            other = first.setdefault((row, rounded[number]), number)
            if other == number:
                continue
            x, own, its = at_end[number], beside[number], beside[other]
            if x > own + F(1) and x > its + F(1):
                yield number, row, float(_round_half_away(max(own, its)) + F(1))
            elif x < own - F(1) and x < its - F(1):
                yield number, row, float(_round_half_away(min(own, its)) - F(1))


def _round_half_away(x: np.ndarray) -> np.ndarray:
    return np.copysign(np.floor(np.abs(x.astype(np.float64)) + 0.5), x).astype(F)


def _round_up(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, np.floor(x + F(0.5)), -np.floor(np.abs(x) + F(0.5))).astype(np.int64)


def _round_down(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, np.ceil(x - F(0.5)), -np.ceil(np.abs(x) - F(0.5))).astype(np.int64)
