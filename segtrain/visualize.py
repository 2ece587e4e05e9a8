"""Draw predictions, errors and scores: overlays, side-by-side sheets, confusion matrices.

Images are uint8 (H, W, 3). Targets and predictions are label maps, (H, W) train ids, with 255 for void, which is black.
Overlays and sheets are images; samples, errors and confusion matrices are figures of matplotlib.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segtrain.labels import IGNORE_INDEX, Label, is_background
from segtrain.terminal import printable

VOID_COLOR = (0, 0, 0)
ERROR_COLOR = (255, 0, 0)
UNSCORED_COLOR = (200, 200, 200)
LEGEND_COLUMNS = 4
MOST_NUMBERED = 40  # classes up to which the cells of a confusion matrix hold their numbers
OPACITY = 0.5  # of the class colors in an overlay
ROWS = 512  # blended at once, so that a large image needs little memory beside itself
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
PADDING = 6  # pixels, at least
Entry = tuple[str, tuple[int, int, int]]  # of a legend: a name and its color


def colorize(train_ids: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Turn a label map into an image."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for label in labels:
        table[label.train_id] = label.color
    return table[train_ids]


def blend(image: np.ndarray, pred: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Overlay a prediction, uint8, on its image; a class that is called background lets the image through."""
    result = np.empty_like(image)
    clear = [label.train_id for label in labels if is_background(label.name, label.train_id)]
    for top in range(0, len(image), ROWS):
        rows = slice(top, top + ROWS)
        cv2.addWeighted(image[rows], 1 - OPACITY, colorize(pred[rows], labels), OPACITY, 0, dst=result[rows])
        if clear:
            cv2.copyTo(image[rows], (pred[rows] == clear[0]).astype(np.uint8), result[rows])
    return result


def add_legend(image: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Add a legend below an image: the colors and names of the labels."""
    width = image.shape[1]
    return np.concatenate([image, _render_legend(_list_entries(labels), width, _choose_font_size(width))])


def find_occurring(pred: np.ndarray, labels: Sequence[Label]) -> list[Label]:
    """Return the labels that occur in a prediction, uint8."""
    found = np.flatnonzero(cv2.calcHist([pred], [0], None, [256], [0, 256]))
    return [label for label in labels if label.train_id in found]


def count_shares(pred: np.ndarray, labels: Sequence[Label]) -> dict[str, float]:
    """Return the share of a prediction's pixels, uint8, that each class has that occurs in it, the largest first."""
    counts = cv2.calcHist([pred], [0], None, [256], [0, 256]).ravel().astype(float) / pred.size
    shares = {label.name: float(counts[label.train_id]) for label in labels if counts[label.train_id]}
    return dict(sorted(shares.items(), key=lambda share: -share[1]))


def draw_side_by_side(image: np.ndarray, target: np.ndarray, pred: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Draw an image, its target and its prediction side by side: uint8 (H, 3 W + 8, 3)."""
    gap = np.full((image.shape[0], 4, 3), 255, dtype=np.uint8)
    return np.concatenate([image, gap, colorize(target, labels), gap, colorize(pred, labels)], axis=1)


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack images of any sizes vertically on white."""
    width = max(image.shape[1] for image in images)
    padded = [np.pad(image, ((0, 4), (0, width - image.shape[1]), (0, 0)), constant_values=255) for image in images]
    return np.concatenate(padded)


def draw_examples_sheet(images: Sequence[np.ndarray], labels: Sequence[Label]) -> np.ndarray:
    """Stack images of `draw_side_by_side`, of any sizes, between headings and a legend of all classes and void."""
    sheet = stack(images)
    width = sheet.shape[1]
    size = _choose_font_size(round(1.4 * width))  # larger, because TensorBoard shows small sheets
    heading = Image.new("RGB", (width, size + PADDING), "white")
    column = (images[0].shape[1] + 4) // 3
    for number, text in enumerate(("input", "target", "prediction")):
        ImageDraw.Draw(heading).text((number * column, 0), text, fill="black", font=_load_font(size))
    entries = (*_list_entries(labels), ("void (target only)", VOID_COLOR))
    return np.concatenate([np.asarray(heading), sheet, _render_legend(entries, width, size)])


def shrink(image: np.ndarray, target: np.ndarray, most: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image and its target to at most `most` pixels a side."""
    scale = min(1.0, most / max(target.shape))
    size = [max(1, round(side * scale)) for side in target.shape[::-1]]
    return (cv2.resize(image, size, interpolation=cv2.INTER_AREA),
            cv2.resize(target, size, interpolation=cv2.INTER_NEAREST))


def mark_errors(image: np.ndarray, target: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Mark the wrong pixels of a prediction in red on the dimmed image, and void in gray."""
    gray = image.mean(-1, keepdims=True)
    drawn = np.repeat(0.5 * gray, 3, axis=-1).astype(np.uint8)  # without colors, so that red stands out
    void = target == IGNORE_INDEX
    drawn[void] = UNSCORED_COLOR
    drawn[(target != pred) & ~void] = ERROR_COLOR
    return drawn


def draw_errors(image: np.ndarray, target: np.ndarray, pred: np.ndarray, labels: Sequence[Label],
                notes: Sequence[str], title: str) -> Any:
    """Draw an image, its target, its prediction and its errors, above a legend: the classes in it, and their notes."""
    from matplotlib.figure import Figure

    panels = {"input": image, "target": colorize(target, labels), "prediction": colorize(pred, labels),
              "errors": mark_errors(image, target, pred)}
    present = [label for label in labels if (target == label.train_id).any() or (pred == label.train_id).any()]
    entries = [(f"{label.name}  {notes[label.train_id]}", label.color) for label in present]
    entries += [("void in the target", VOID_COLOR), ("wrong", ERROR_COLOR), ("void: not scored", UNSCORED_COLOR)]
    legend_height = _legend_height(len(entries)) - 0.4  # without a title
    ratio = image.shape[0] / image.shape[1]
    width = min(5.5, 11 / ratio)  # of a panel, in inches: a tall image must not fill the screen
    figure = Figure(figsize=(max(2 * width, 8), 2 * (width * ratio + 0.3) + legend_height + 0.4), layout="constrained")
    axes = figure.subplots(3, 2, height_ratios=[width * ratio + 0.3, width * ratio + 0.3, legend_height])
    for (name, panel), axis in zip(panels.items(), axes.ravel(), strict=False):
        axis.imshow(panel, interpolation="nearest" if name in ("target", "prediction") else "antialiased")
        axis.set_title(name, fontsize=9, loc="left")
    for axis in axes.ravel():
        axis.set_axis_off()
    figure.suptitle("\n".join(map(escape_text, title.splitlines())), fontsize=10)
    _draw_legend(figure, entries, None)
    return figure


def draw_samples(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], labels: Sequence[Label], notes: Sequence[str],
                 title: str) -> Any:
    """Draw samples, each a title, an image and its target, above a legend with a title: the classes and their notes."""
    from matplotlib.figure import Figure

    legend_height = _legend_height(len(labels) + 1)
    heights = [5.4 * min(image.shape[0] / image.shape[1], 2) + 0.3 for _, image, _ in rows]
    figure = Figure(figsize=(11, sum(heights) + legend_height), layout="constrained")
    axes = figure.subplots(len(rows) + 1, 2, squeeze=False, height_ratios=[*heights, legend_height])
    for (name, image, target), (left, right) in zip(rows, axes[:-1], strict=True):
        left.imshow(image)
        right.imshow(colorize(target, labels), interpolation="nearest")
        left.set_title(escape_text(name), fontsize=8, loc="left")
    for axis in axes.ravel():
        axis.set_axis_off()
    entries = [(f"{label.name}  {note}", label.color) for label, note in zip(labels, notes, strict=True)]
    _draw_legend(figure, [*entries, ("void", VOID_COLOR)], title)
    return figure


def draw_confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str], in_pixels: bool = False) -> Any:
    """Draw a K x K confusion matrix of pixel counts, rows target and columns prediction, in percent of each row.

    With `in_pixels` draw counts instead, their colors on a logarithmic scale.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    counts = np.asarray(matrix, dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cell = 0.5 if len(class_names) <= MOST_NUMBERED else max(0.15, 0.5 * MOST_NUMBERED / len(class_names))
    side = 3 + cell * len(class_names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    if in_pixels:
        depth = np.log1p(counts) / max(np.log1p(counts.max()), 1)
        drawn = axes.imshow(np.maximum(counts, 1), cmap="Blues", norm=LogNorm(1, max(counts.max(), 2)))
    else:
        depth = shares / 100
        drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    size = min(9.0, 60 * cell)
    names = [escape_text(name) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    axes.set_title("pixels" if in_pixels else "% of each target class", fontsize=10)
    if len(class_names) <= MOST_NUMBERED:
        for row, column in np.ndindex(shares.shape):
            text = format_count(int(counts[row, column])) if in_pixels else f"{shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, in_layout=False,  # else slow
                      color="white" if depth[row, column] > (0.7 if in_pixels else 0.5) else "black")
    else:
        figure.colorbar(drawn, shrink=0.5)
    return figure


def render_figure(figure: Any) -> np.ndarray:
    """Turn a figure of matplotlib into an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def format_count(count: int) -> str:
    """Write a count, 0 or above, in at most four characters: 7, 950, 1.2K, 35K, 1.2M, 120M, 3.4G."""
    value, units = float(count), iter(("", "K", "M", "G", "T", "P"))
    unit = next(units)
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    digits = 1 if unit and value < 9.95 else 0
    return f"{value:.{digits}f}{unit}"


def escape_text(text: str) -> str:
    """Escape a name for matplotlib: control characters, and dollar signs, which would start a formula."""
    return printable(text).replace("$", r"\$")


def _legend_height(entries: int) -> float:
    """Return the height in inches of a legend with a number of entries."""
    return 0.6 + 0.25 * -(-entries // LEGEND_COLUMNS)


def _draw_legend(figure: Any, entries: Sequence[Entry], title: str | None) -> None:
    """Draw a legend at the bottom of a figure."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor="#" + bytes(color).hex(), edgecolor="grey", label=escape_text(f" {text}"))
               for text, color in entries]  # matplotlib leaves out what starts with _
    title = None if title is None else escape_text(title)
    figure.legend(handles=patches, title=title, ncols=LEGEND_COLUMNS, loc="lower center", fontsize=9)


def _list_entries(labels: Sequence[Label]) -> tuple[Entry, ...]:
    return tuple((printable(label.name), label.color) for label in labels)


def _choose_font_size(width: int) -> int:
    """Choose a font size that is readable when the whole image is shown."""
    return int(min(max(width / 50, 11), 120))


@lru_cache(maxsize=8)
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)


@lru_cache(maxsize=256)
def _render_legend(entries: tuple[Entry, ...], width: int, size: int) -> np.ndarray:
    """Draw a legend of names and colors in rows of a width."""
    font, padding = _load_font(size), max(PADDING, size // 3)
    line = size + padding
    places = []
    left = top = padding
    for name, _ in entries:
        length = size + padding + int(font.getlength(name)) + 2 * padding
        if left > padding and left + length > width:
            left, top = padding, top + line
        places.append((left, top))
        left += length
    image = Image.new("RGB", (width, top + line), "white")
    draw = ImageDraw.Draw(image)
    for (name, color), (left, top) in zip(entries, places, strict=True):
        draw.rectangle((left, top, left + size, top + size), fill=color, outline="grey")
        draw.text((left + size + padding, top), name, fill="black", font=font)
    return np.asarray(image)
