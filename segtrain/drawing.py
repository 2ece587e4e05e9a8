"""Pictures of targets, predictions and scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from segtrain.labels import Label


def side_by_side(image: np.ndarray, target: np.ndarray, pred: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Lay an image, its target and its prediction next to each other in the dataset's colours.

    Args:
        image: uint8 (H, W, 3).
        target: (H, W) train ids or 255, which is black.
        pred: (H, W) train ids.
        labels: The classes.

    Returns:
        uint8 (H, 3 W + 8, 3).
    """
    gap = np.full((image.shape[0], 4, 3), 255, dtype=np.uint8)
    return np.concatenate([image, gap, colorize(target, labels), gap, colorize(pred, labels)], axis=1)


def stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Lay pictures, uint8 (H, W, 3) of any sizes, below one another on white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(picture, ((0, 4), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
              for picture in pictures]
    return np.concatenate(padded)


def colorize(train_ids: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Turn train ids (H, W) into colours, uint8 (H, W, 3); void is black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for label in labels:
        table[label.train_id] = label.color
    return table[train_ids]


def confusion_figure(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Any:
    """Draw a confusion matrix, rows target and columns prediction, as percent of each row."""
    from matplotlib.figure import Figure

    counts = np.asarray(matrix, dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 3 + 0.5 * len(class_names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(class_names)), class_names, rotation=90)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    if len(class_names) <= 40:
        for row, column in np.ndindex(shares.shape):
            axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=8,
                      color="white" if shares[row, column] > 50 else "black")
    return figure
