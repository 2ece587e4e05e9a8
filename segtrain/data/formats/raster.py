"""From shapes to pixels: the polygon rule of COCO, discs and ellipses, lines, and outlines of whole pixels.

Everything is computed in float64 and whole numbers, so no version of Pillow or OpenCV changes a pixel.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

FINE = 5  # steps of COCO's grid a pixel
FARTHEST = 1e9  # a coordinate beyond is not one


class Patch(NamedTuple):
    """The part of an image that a shape covers: its rows from `top` and columns from `left`, bool (h, w)."""

    top: int
    left: int
    mask: np.ndarray

    @property
    def place(self) -> tuple[slice, slice]:
        """Where the patch lies in its image."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


EMPTY = Patch(0, 0, np.zeros((0, 0), bool))


def fill_rings(rings: Sequence[np.ndarray], width: int, height: int) -> list[Patch]:
    """Fill closed rings, float64 (N, 2) x and y each, all of one image at once, by the COCO rule.

    Vertices are rounded to a grid five times as fine as the pixels, edges walked over their longer axis; a column of
    pixels is crossed where the walk passes its centre. What lies between an odd and the next even crossing is inside.

    Source: rleFrPoly in cocoapi/common/maskApi.c, whose pixels these are, one by one.
    """
    if not rings:
        return []
    owners, columns, rows = _find_crossings(rings, width, height)
    ends = np.searchsorted(owners, np.arange(len(rings) + 1)).tolist()
    return [_fill_between(columns[start:end], rows[start:end]) for start, end in pairwise(ends)]


def _find_crossings(rings: Sequence[np.ndarray], width: int,
                    height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each crossing the number of its ring, ascending, its column and its first row below."""
    sizes = np.array([len(ring) for ring in rings])
    points = (FINE * np.concatenate(rings) + 0.5).astype(np.int64)  # towards zero
    following = np.arange(1, len(points) + 1)
    following[np.cumsum(sizes) - 1] = np.cumsum(sizes) - sizes
    x, y = points.T
    dx, dy = x[following] - x, y[following] - y
    ring = np.repeat(np.arange(len(rings)), sizes)
    low, high = np.minimum(x, x + dx), np.maximum(x, x + dx)
    first = np.maximum(-((2 - low) // FINE), 0)  # of the columns whose centre, 5 k + 2, the edge passes
    counts = np.maximum(np.minimum((high - 3) // FINE, width - 1) - first + 1, 0)
    edge = np.repeat(np.arange(len(points)), counts)
    column = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    fine_row = np.empty(len(edge), np.int64)
    is_flat = (np.abs(dx) >= np.abs(dy))[edge]
    for chosen, walk in ((is_flat, _walk_columns), (~is_flat, _walk_rows)):
        some = edge[chosen]
        flip = (dx if walk is _walk_columns else dy)[some] < 0  # an edge is walked towards larger numbers
        start = np.where(flip, following[some], some)
        sign = np.where(flip, -1, 1)
        fine_row[chosen] = walk(x[start], y[start], sign * dx[some], sign * dy[some], FINE * column[chosen] + 2)
    row = np.ceil(np.clip((fine_row + 0.5) / FINE - 0.5, 0, height)).astype(np.int64)
    return ring[edge], column, row


def _walk_columns(x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray, passed: np.ndarray) -> np.ndarray:
    """Return the smaller fine row before and after the fine column `passed`, of edges wider than high."""
    slope, step = dy / dx, passed - x
    return np.minimum((y + slope * step + 0.5).astype(np.int64), (y + slope * (step + 1) + 0.5).astype(np.int64))


def _walk_rows(x: np.ndarray, y: np.ndarray, dx: np.ndarray, dy: np.ndarray, passed: np.ndarray) -> np.ndarray:
    """Return the last fine row before the fine column `passed` is left, of edges higher than wide."""
    slope = dx / dy
    step = np.maximum(np.floor((passed + 0.5 - x) / slope).astype(np.int64) - 1, 0)
    for _ in range(3):  # the division may be off by one
        beyond = (x + slope * step + 0.5).astype(np.int64) > passed
        step += beyond != (dx > 0)
    return y + step - 1


def _fill_between(columns: np.ndarray, rows: np.ndarray) -> Patch:
    if not len(columns):
        return EMPTY
    top, bottom, left, right = int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max()) + 1
    width, height = right - left, bottom - top
    if not height:
        return EMPTY
    order = np.sort((columns - left) * height + (rows - top))  # an even number in every column
    runs = np.diff(order, prepend=0, append=width * height)
    inside = np.zeros(len(runs), bool)
    inside[1::2] = True
    return Patch(top, left, np.repeat(inside, runs).reshape(width, height).T)


def fill_pixels(rings: Sequence[np.ndarray], holes: Sequence[np.ndarray], width: int, height: int) -> Patch:
    """Fill rings of whole pixels, all of which are inside, and clear holes with theirs; rings are float64 (N, 2)."""
    points = np.concatenate([*rings, *holes])
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0).tolist()
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 2, (width, height)).tolist()
    if right <= left or bottom <= top:
        return EMPTY
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for value, some in ((1, rings), (0, holes)):
        for ring in some:
            cv2.fillPoly(mask, [np.rint(ring).astype(np.int32) - (left, top)], value)
    return Patch(top, left, mask.view(bool))


def fill_ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float, width: int,
                 height: int) -> Patch:
    """Fill an ellipse turned clockwise: the pixels whose centre is inside or on it."""
    reach = max(radii)
    top, left, x, y = _list_centers(center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach, width,
                                    height)
    if min(radii) <= 0:
        return EMPTY
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    dx, dy = x - center[0], y - center[1]
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    return Patch(top, left, (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1)


def fill_line(points: np.ndarray, line_width: float, width: int, height: int) -> Patch:
    """Draw a line through points, float64 (N, 2): the pixels whose centre is at most half its width from it."""
    reach = line_width / 2
    low, high = points.min(0) - reach, points.max(0) + reach
    top, left, x, y = _list_centers(low[0], low[1], high[0], high[1], width, height)
    mask = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x0, y0), (x1, y1) in pairwise(points if len(points) > 1 else [*points, *points]):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        share = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1) if length else 0.0
        mask |= (x - x0 - share * (x1 - x0)) ** 2 + (y - y0 - share * (y1 - y0)) ** 2 <= reach**2
    return Patch(top, left, mask)


def _list_centers(left: float, top: float, right: float, bottom: float, width: int,
                  height: int) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Return the first row and column of a box in an image, and the centres of its columns (1, w) and rows (h, 1)."""
    columns = np.arange(max(0, int(np.floor(left))), min(width, int(np.ceil(right)) + 1))
    rows = np.arange(max(0, int(np.floor(top))), min(height, int(np.ceil(bottom)) + 1))
    first_row, first_column = (int(rows[0]) if len(rows) else 0), (int(columns[0]) if len(columns) else 0)
    return first_row, first_column, columns[None] + 0.5, rows[:, None] + 0.5


def clip_patch(patch: Patch, width: int, height: int) -> Patch:
    """Cut what lies outside an image from a patch."""
    top, left = max(-patch.top, 0), max(-patch.left, 0)
    mask = patch.mask[top:max(height - patch.top, 0), left:max(width - patch.left, 0)]
    return Patch(patch.top + top, patch.left + left, mask) if mask.size else EMPTY


def join_patches(patches: Sequence[Patch], *, even_odd: bool = False) -> Patch:
    """Unite patches, or with `even_odd` keep what an odd number of them covers."""
    patches = [patch for patch in patches if patch.mask.size]
    if len(patches) < 2:
        return patches[0] if patches else EMPTY
    top, left = min(patch.top for patch in patches), min(patch.left for patch in patches)
    mask = np.zeros((max(patch.place[0].stop for patch in patches) - top,
                     max(patch.place[1].stop for patch in patches) - left), bool)
    for patch in patches:
        part = mask[Patch(patch.top - top, patch.left - left, patch.mask).place]
        (np.logical_xor if even_odd else np.logical_or)(part, patch.mask, out=part)
    return Patch(top, left, mask)
