"""Predict large images in overlapping windows, and blend the logits where the windows overlap."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

PredictFn = Callable[[Tensor], Tensor]  # images (N, H, W, C) -> logits, float32 (N, K, H, W)


def predict_sliding_window(predict: PredictFn, images: Tensor, window: tuple[int, int], *, overlap: float,
                           batch_size: int) -> Tensor:
    """Return the logits of images, float32 (N, K, H, W), predicted in windows; the arguments are those of
    `iterate_bands`.
    """
    bands = iterate_bands(predict, images, window, overlap=overlap, batch_size=batch_size)
    return torch.cat([logits for _, logits in bands], dim=2)


@torch.inference_mode()
def iterate_bands(predict: PredictFn, images: Tensor, window: tuple[int, int], *, overlap: float,
                  batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Predict images in overlapping windows, and yield the logits of each band of rows once it is complete.

    Where windows overlap, their logits are averaged. The weights add up to 1 at every pixel and decrease towards a
    window's border, where a network sees less context. Apart from the images, memory holds the logits of `batch_size`
    windows and of as many whole rows as a window is high.

    Args:
        images: (N, H, W, C), of one size; of a `LargeImage`, windows are read one by one.
        window: (height, width) of the windows; windows are never larger than the images.
        overlap: The minimum share of a window that its neighbor covers too, in [0, 1). Windows are evenly spaced.
        batch_size: Maximum number of windows at once.

    Yields:
        The number of the band's first row, and its logits, float32 (N, K, rows, W). Concatenated from the top down, the
        bands are the whole logits.

    Raises:
        ValueError: If an argument is out of range.
    """
    if min(window) < 1 or not 0 <= overlap < 1 or batch_size < 1:
        raise ValueError(f"window={window} and batch_size={batch_size} must be at least 1, and overlap={overlap} at "
                         "least 0 and below 1")
    num_images, height, width = images.shape[:3]
    window_height, window_width = min(window[0], height), min(window[1], width)
    tops, lefts = window_starts(height, window_height, overlap), window_starts(width, window_width, overlap)
    row_weights = dict(zip(tops, blending_weights(tops, window_height), strict=True))
    column_weights = dict(zip(lefts, blending_weights(lefts, window_width), strict=True))
    buffer = torch.empty(0)
    top = 0  # the image row that the buffer's first row stands for
    positions = list(product(tops, lefts, range(num_images)))
    for first in range(0, len(positions), batch_size):
        group = positions[first:first + batch_size]
        parts = torch.stack([images[number, y:y + window_height, x:x + window_width] for y, x, number in group])
        for (y, x, number), logits in zip(group, predict(parts), strict=True):
            if not len(buffer):
                buffer = logits.new_zeros(num_images, len(logits), window_height, width)
            if y > top:  # the rows above y are complete
                kept = buffer[:, :, y - top:].clone()
                yield top, buffer[:, :, :y - top].clone()
                buffer[:, :, :kept.shape[2]] = kept
                buffer[:, :, kept.shape[2]:] = 0
                top = y
            weights = torch.outer(row_weights[y], column_weights[x]).to(logits.device)
            buffer[number, :, :, x:x + window_width].addcmul_(logits, weights)
    yield top, buffer


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Return the first pixel of each of the evenly spaced windows that cover 0..length-1.

    Neighbors share at least the share `overlap` of a window, rounded to whole pixels.
    """
    if window >= length:
        return [0]
    stride = max(1, round(window * (1 - overlap)))  # the largest allowed
    gaps = -(-(length - window) // stride)
    return [(length - window) * number // gaps for number in range(gaps + 1)]


def blending_weights(starts: list[int], window: int) -> list[Tensor]:
    """Return the weights of windows in one direction: at every pixel, those of all windows add up to 1.

    Args:
        starts: The first pixel of each window, ascending.
        window: Their length.

    Returns:
        For each window float32 (window,), above 0, decreasing linearly towards a border that lies in another window.
    """
    slope = torch.arange(1, window + 1, dtype=torch.float64)
    raw = torch.minimum(slope, slope.flip(0))
    total = torch.zeros(starts[-1] + window, dtype=torch.float64)
    for start in starts:
        total[start:start + window] += raw
    return [(raw / total[start:start + window]).float() for start in starts]
