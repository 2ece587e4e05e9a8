"""From pictures to logits: whole, in windows, averaged with their mirror images.

A `Predict` turns uint8 pictures (N, H, W, C) into float32 logits (N, K, H, W). `whole_pictures` makes one of a network;
`mirrored` and `windowed` make one of another, so that they can be combined.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

Predict = Callable[[Tensor], Tensor]

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Inference:
    """How the logits of a picture are made.

    Attributes:
        window: (height, width) of the windows that a picture is cut into; None: it is taken whole.
        overlap: The least share of a window that its neighbour shows too, in [0, 1); of no meaning without windows.
        flip: Whether the logits are averaged with those of the mirrored picture.
    """

    window: tuple[int, int] | None = None
    overlap: float = 0.0
    flip: bool = False

    def as_results(self) -> dict[str, object]:
        """Return what results.json says of it."""
        return {"window": None if self.window is None else list(self.window),
                "overlap": None if self.window is None else self.overlap, "flip": self.flip}

    def pass_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of what the network sees at once of a picture of (height, width)."""
        return size if self.window is None else (min(size[0], self.window[0]), min(size[1], self.window[1]))

    def num_passes(self, size: tuple[int, int]) -> int:
        """Return how often the network sees a part, as large as pass_size, of a picture of (height, width)."""
        rows, columns = (len(starts(length, part, self.overlap)) for length, part
                         in zip(size, self.pass_size(size), strict=True))
        return rows * columns * (2 if self.flip else 1)


WHOLE = Inference()


def predictor(network: nn.Module, normalize: Callable[[Tensor], Tensor], inference: Inference, *, device: torch.device,
              precision: str, batch_size: int) -> Predict:
    """Make the function from pictures to logits that an Inference describes.

    Args:
        network: On the device. It is put into evaluation mode, and left in it.
        normalize: uint8 (N, H, W, C) on the device -> float32 (N, C, H, W).
        inference: What is to be done.
        device: Where the network is.
        precision: "fp32", "bf16" or "fp16" (autocast).
        batch_size: Most windows at once.
    """
    predict = whole_pictures(network, normalize, device=device, precision=precision)
    if inference.flip:
        predict = mirrored(predict)
    if inference.window is not None:
        predict = windowed(predict, inference.window, overlap=inference.overlap, batch_size=batch_size)
    return predict


def whole_pictures(network: nn.Module, normalize: Callable[[Tensor], Tensor], *, device: torch.device,
                   precision: str = "fp32") -> Predict:
    """Pass pictures through a network as they are; the arguments are those of `predictor`."""
    network.eval()

    @torch.inference_mode()
    def predict(pictures: Tensor) -> Tensor:
        with torch.autocast(device.type, AUTOCAST[precision], enabled=AUTOCAST[precision] is not None):
            logits = network(normalize(pictures.to(device, non_blocking=True)))
        return logits.float()

    return predict


def mirrored(predict: Predict) -> Predict:
    """Average the logits of pictures with those of their mirror images, left for right, mirrored back."""

    @torch.inference_mode()
    def average(pictures: Tensor) -> Tensor:
        return (predict(pictures) + predict(pictures.flip(2)).flip(3)) / 2

    return average


def padded(predict: Predict, least: int) -> Predict:
    """Enlarge pictures that are smaller than a network takes by repeating their last rows and columns."""

    @torch.inference_mode()
    def predict_cropped(pictures: Tensor) -> Tensor:
        height, width = pictures.shape[1:3]
        if min(height, width) >= least:
            return predict(pictures)
        rows = torch.arange(max(height, least)).clamp(max=height - 1)
        columns = torch.arange(max(width, least)).clamp(max=width - 1)
        return predict(pictures[:, rows][:, :, columns])[:, :, :height, :width]

    return predict_cropped


def logit_bands(predict: Predict, pictures: Tensor, inference: Inference, *,
                batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the logits of pictures as `bands` does; without windows there is one band, of all rows.

    Args:
        predict: uint8 (N, H, W, C) -> float32 (N, K, H, W), of pictures and windows of any size.
        pictures: uint8 (N, H, W, C), of one size.
        inference: Its windows; whether mirror images count is up to `predict`.
        batch_size: Most windows at once.
    """
    if inference.window is None:
        yield 0, predict(pictures)
    else:
        yield from bands(predict, pictures, inference.window, overlap=inference.overlap, batch_size=batch_size)


def windowed(predict: Predict, window: tuple[int, int], *, overlap: float, batch_size: int) -> Predict:
    """Predict pictures in overlapping windows; the arguments are those of `bands`."""

    @torch.inference_mode()
    def predict_all(pictures: Tensor) -> Tensor:
        parts = bands(predict, pictures, window, overlap=overlap, batch_size=batch_size)
        return torch.cat([logits for _, logits in parts], dim=2)

    return predict_all


@torch.inference_mode()
def bands(predict: Predict, pictures: Tensor, window: tuple[int, int], *, overlap: float,
          batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Predict pictures in overlapping windows, and yield the logits of each band of rows once it is complete.

    Where windows overlap their logits are averaged, with weights that fall off towards a window's border, where a
    network sees less of what is around, and that add up to 1 at every pixel. Apart from the pictures, memory holds the
    logits of `batch_size` windows and of as many whole rows as a window is high, however high the pictures are.

    Args:
        predict: uint8 (N, H, W, C) -> float32 (N, K, H, W), of any N, called with windows.
        pictures: uint8 (N, H, W, C), of one size.
        window: (height, width) of the windows; where the pictures are smaller, they have the pictures' size.
        overlap: The least share of a window that its neighbour shows too, in [0, 1). The windows are spread evenly.
        batch_size: Most windows at once.

    Yields:
        The number of the band's first row, and its logits, float32 (N, K, rows, W). All bands together, from the top
        down, are the whole logits.

    Raises:
        ValueError: If an argument is out of range.
    """
    if min(window) < 1 or not 0 <= overlap < 1 or batch_size < 1:
        raise ValueError(f"window={window} and batch_size={batch_size} must be at least 1, and overlap={overlap} at "
                         "least 0 and below 1")
    num_pictures, height, width = pictures.shape[:3]
    window_height, window_width = min(window[0], height), min(window[1], width)
    tops, lefts = starts(height, window_height, overlap), starts(width, window_width, overlap)
    row_weights = dict(zip(tops, blending(tops, window_height), strict=True))
    column_weights = dict(zip(lefts, blending(lefts, window_width), strict=True))
    buffer = torch.empty(0)
    top = 0  # the picture's row that the buffer's first row stands for
    places = list(product(tops, lefts, range(num_pictures)))
    for first in range(0, len(places), batch_size):
        group = places[first:first + batch_size]
        parts = torch.stack([pictures[number, y:y + window_height, x:x + window_width] for y, x, number in group])
        for (y, x, number), logits in zip(group, predict(parts), strict=True):
            if not len(buffer):
                buffer = logits.new_zeros(num_pictures, len(logits), window_height, width)
            if y > top:  # the rows above y are complete
                kept = buffer[:, :, y - top:].clone()
                yield top, buffer[:, :, :y - top].clone()
                buffer[:, :, :kept.shape[2]] = kept
                buffer[:, :, kept.shape[2]:] = 0
                top = y
            weights = torch.outer(row_weights[y], column_weights[x]).to(logits.device)
            buffer[number, :, :, x:x + window_width].addcmul_(logits, weights)
    yield top, buffer


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Return where windows start that cover 0..length-1, evenly spread; one does where `window` is as long.

    Neighbours share at least the share `overlap` of a window, rounded to whole pixels.
    """
    if window >= length:
        return [0]
    most = max(1, round(window * (1 - overlap)))  # pixels between two starts
    gaps = -(-(length - window) // most)
    return [(length - window) * number // gaps for number in range(gaps + 1)]


def blending(begins: list[int], window: int) -> list[Tensor]:
    """Return the weights of windows in one direction: at every pixel, those of all windows add up to 1.

    Args:
        begins: The first pixel of each window, rising.
        window: Their length.

    Returns:
        For each window float32 (window,), above 0, falling off linearly towards a border that lies in another window.
    """
    slope = torch.arange(1, window + 1, dtype=torch.float64)
    raw = torch.minimum(slope, slope.flip(0))
    total = torch.zeros(begins[-1] + window, dtype=torch.float64)
    for begin in begins:
        total[begin:begin + window] += raw
    return [(raw / total[begin:begin + window]).float() for begin in begins]
