"""Predictions laid over their pictures or beside them, with a legend: for looking at."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.drawing import VOID_COLOR, colorize, stack
from segtrain.explain import printable
from segtrain.labels import Label

SHARE = 0.5  # of the class colour
ROWS = 512  # blended at once, so that a large picture needs little more than itself
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
PADDING = 6  # pixels, at least
Entry = tuple[str, tuple[int, int, int]]  # of a legend: what is written beside a colour


def blended(image: np.ndarray, pred: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Lay a prediction over its picture.

    Args:
        image: uint8 (H, W, 3).
        pred: uint8 (H, W) train ids.
        labels: The classes.

    Returns:
        uint8 (H, W, 3).
    """
    result = np.empty_like(image)
    for top in range(0, len(image), ROWS):
        rows = slice(top, top + ROWS)
        cv2.addWeighted(image[rows], 1 - SHARE, colorize(pred[rows], labels), SHARE, 0, dst=result[rows])
    return result


def with_legend(picture: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Put a legend below a picture, uint8 (H, W, 3): the colours and names of the labels, in rows."""
    return np.concatenate([picture, _legend(_entries(labels), picture.shape[1], _font_size(picture.shape[1]))])


def examples_sheet(pictures: Sequence[np.ndarray], labels: Sequence[Label]) -> np.ndarray:
    """Lay pictures of `side_by_side` below one another, under their headings and over a legend of all classes and void.

    Args:
        pictures: uint8 (H, 3 W + 8, 3), of any sizes, at least one. The headings are placed above the first.
        labels: The classes.

    Returns:
        uint8 (height, width, 3).
    """
    sheet = stack(pictures)
    width = sheet.shape[1]
    size = _font_size(round(1.4 * width))  # larger, for TensorBoard shows sheets small
    heading = Image.new("RGB", (width, size + PADDING), "white")
    column = (pictures[0].shape[1] + 4) // 3
    for number, text in enumerate(("input", "target", "prediction")):
        ImageDraw.Draw(heading).text((number * column, 0), text, fill="black", font=_font(size))
    entries = (*_entries(labels), ("void (target only)", VOID_COLOR))
    return np.concatenate([np.asarray(heading), sheet, _legend(entries, width, size)])


def occurring(pred: np.ndarray, labels: Sequence[Label]) -> list[Label]:
    """Return the labels that a prediction shows; pred is uint8 (H, W) train ids."""
    shown = np.flatnonzero(cv2.calcHist([pred], [0], None, [256], [0, 256]))
    return [label for label in labels if label.train_id in shown]


def _entries(labels: Sequence[Label]) -> tuple[Entry, ...]:
    return tuple((printable(label.name), label.color) for label in labels)


def _font_size(width: int) -> int:
    """Choose the size of the text so that the legend can be read when the picture is shown whole."""
    return int(min(max(width / 50, 11), 120))


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)


@lru_cache(maxsize=256)
def _legend(entries: tuple[Entry, ...], width: int, size: int) -> np.ndarray:
    """Draw a legend of a width, uint8 (height, width, 3), of names and colours; a row that is full begins the next."""
    font, padding = _font(size), max(PADDING, size // 3)
    line = size + padding
    places = []
    left = top = padding
    for name, _ in entries:
        length = size + padding + int(font.getlength(name)) + 2 * padding
        if left > padding and left + length > width:
            left, top = padding, top + line
        places.append((left, top))
        left += length
    picture = Image.new("RGB", (width, top + line), "white")
    draw = ImageDraw.Draw(picture)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        draw.rectangle((left, top, left + size, top + size), fill=color, outline="grey")
        draw.text((left + size + padding, top), name, fill="black", font=font)
    return np.asarray(picture)
