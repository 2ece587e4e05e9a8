"""Predictions laid over their pictures, with a legend: for looking at."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.drawing import colorize
from segtrain.labels import Label

SHARE = 0.5  # of the class colour
ROWS = 512  # blended at once, so that a large picture needs little more than itself
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
PADDING = 6


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
    strip = _legend(tuple(labels), picture.shape[1], _font_size(picture.shape[1]))
    return np.concatenate([picture, strip])


def occurring(pred: np.ndarray, labels: Sequence[Label]) -> list[Label]:
    """Return the labels that a prediction shows; pred is uint8 (H, W) train ids."""
    shown = np.flatnonzero(cv2.calcHist([pred], [0], None, [256], [0, 256]))
    return [label for label in labels if label.train_id in shown]


def _font_size(width: int) -> int:
    """Choose the size of the text so that the legend can be read when the picture is shown whole."""
    return int(min(max(width / 50, 11), 120))


@lru_cache(maxsize=256)
def _legend(labels: tuple[Label, ...], width: int, size: int) -> np.ndarray:
    """Draw a legend of a width, uint8 (height, width, 3); entries that do not fit into a row begin the next."""
    font = ImageFont.truetype(str(FONT), size)
    line = size + PADDING
    places = []
    left = top = PADDING
    for label in labels:
        length = size + PADDING + int(font.getlength(label.name)) + 2 * PADDING
        if left > PADDING and left + length > width:
            left, top = PADDING, top + line
        places.append((left, top))
        left += length
    picture = Image.new("RGB", (width, top + line), "white")
    draw = ImageDraw.Draw(picture)
    for label, (left, top) in zip(labels, places, strict=True):
        draw.rectangle((left, top, left + size, top + size), fill=label.color, outline="grey")
        draw.text((left + size + PADDING, top), label.name, fill="black", font=font)
    return np.asarray(picture)
