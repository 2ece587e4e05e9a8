"""Pictures of targets, predictions and scores."""

from collections.abc import Sequence
from typing import Any

import cv2
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
    names = [_text(name) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    if len(class_names) <= 40:
        for row, column in np.ndindex(shares.shape):
            axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=8,
                      color="white" if shares[row, column] > 50 else "black")
    return figure


def _text(name: str) -> str:
    """Return a name as matplotlib draws it, not as the formula that it would see between two $."""
    return name.replace("$", r"\$")


def shrunk(image: np.ndarray, target: np.ndarray, most: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image, uint8 (H, W, 3), and its target, (H, W), so that no side has more than `most` pixels."""
    scale = min(1.0, most / max(target.shape))
    size = [max(1, round(side * scale)) for side in target.shape[::-1]]
    return (cv2.resize(image, size, interpolation=cv2.INTER_AREA),
            cv2.resize(target, size, interpolation=cv2.INTER_NEAREST))


def examples_figure(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], labels: Sequence[Label], notes: Sequence[str],
                    title: str) -> Any:
    """Draw samples below one another, each an image beside its target, over a legend of the classes.

    Args:
        rows: Title, image uint8 (H, W, 3), target (H, W) train ids or 255, which is black.
        labels: The classes.
        notes: What the legend says behind each class.
        title: Of the legend.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = 4
    legend_height = 0.6 + 0.25 * -(-(len(labels) + 1) // columns)
    heights = [5.4 * min(image.shape[0] / image.shape[1], 2) + 0.3 for _, image, _ in rows]
    figure = Figure(figsize=(11, sum(heights) + legend_height), layout="constrained")
    axes = figure.subplots(len(rows) + 1, 2, squeeze=False, height_ratios=[*heights, legend_height])
    for (name, image, target), (left, right) in zip(rows, axes[:-1], strict=True):
        left.imshow(image)
        right.imshow(colorize(target, labels), interpolation="nearest")
        left.set_title(_text(name), fontsize=8, loc="left")
    for each in axes.ravel():
        each.set_axis_off()
    texts = [_text(f" {label.name}  {note}")  # matplotlib leaves out what starts with _
             for label, note in zip(labels, notes, strict=True)]
    patches = [Patch(facecolor="#" + bytes(label.color).hex(), edgecolor="grey", label=text)
               for label, text in zip(labels, texts, strict=True)]
    patches.append(Patch(facecolor="black", edgecolor="grey", label="void"))
    figure.legend(handles=patches, title=title, ncols=columns, loc="lower center", fontsize=9)
    return figure
