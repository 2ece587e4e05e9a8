"""Turn uint8 images into logits: one forward pass, flip TTA, small images padded, large ones in a sliding window."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from segtrain.inference.sliding_window import PredictFn, predict_sliding_window, window_starts

AUTOCAST_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class InferenceSettings:
    """How the logits of an image are computed.

    Attributes:
        window: (height, width) of the sliding window; None: the whole image at once.
        overlap: The minimum share of a window that its neighbor covers too, in [0, 1).
        flip: Flip TTA: average the logits with those of the horizontally flipped image.
    """

    window: tuple[int, int] | None = None
    overlap: float = 0.0
    flip: bool = False

    def as_results(self) -> dict[str, object]:
        """Return the entry `inference` of results.json."""
        return {"window": None if self.window is None else list(self.window),
                "overlap": None if self.window is None else self.overlap, "flip": self.flip}

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the network's input for an image of (height, width)."""
        return size if self.window is None else (min(size[0], self.window[0]), min(size[1], self.window[1]))

    def num_passes(self, size: tuple[int, int]) -> int:
        """Return how many inputs of `input_size` an image of (height, width) takes."""
        rows, columns = (len(window_starts(length, part, self.overlap)) for length, part
                         in zip(size, self.input_size(size), strict=True))
        return rows * columns * (2 if self.flip else 1)


WHOLE_IMAGE = InferenceSettings()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision, "fp32" (none), "bf16" or "fp16"."""
    dtype = AUTOCAST_DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def make_predict_fn(network: nn.Module, normalize: Callable[[Tensor], Tensor],
                    settings: InferenceSettings = WHOLE_IMAGE, *, device: torch.device, precision: str = "fp32",
                    batch_size: int = 1) -> PredictFn:
    """Return a function from images to logits. The network, on the device, is put into evaluation mode.

    `precision` is "fp32", "bf16" or "fp16" (autocast), `batch_size` the maximum number of windows at once.
    """
    network.eval()
    predict: PredictFn = partial(predict_whole, network, normalize, device=device, precision=precision)
    if settings.flip:
        predict = partial(predict_with_flip_tta, predict)
    if settings.window is not None:
        predict = partial(predict_sliding_window, predict, window=settings.window, overlap=settings.overlap,
                          batch_size=batch_size)
    return predict


@torch.inference_mode()
def predict_whole(network: nn.Module, normalize: Callable[[Tensor], Tensor], images: Tensor, *, device: torch.device,
                  precision: str = "fp32") -> Tensor:
    """Return the logits of images, float32 (N, K, H, W), from one forward pass of a network in evaluation mode."""
    with autocast(device, precision):
        logits = network(normalize(images.to(device, non_blocking=True)))
    return logits.float()


@torch.inference_mode()
def predict_with_flip_tta(predict: PredictFn, images: Tensor) -> Tensor:
    """Average the logits of images, uint8 (N, H, W, C), with those of the horizontally flipped images, flipped back."""
    return (predict(images) + predict(images.flip(2)).flip(3)) / 2


@torch.inference_mode()
def predict_padded(predict: PredictFn, min_side: int, images: Tensor) -> Tensor:
    """Predict images that may be smaller than the network takes: repeat their last rows and columns, then crop."""
    height, width = images.shape[1:3]
    if min(height, width) >= min_side:
        return predict(images)
    rows = torch.arange(max(height, min_side)).clamp(max=height - 1)
    columns = torch.arange(max(width, min_side)).clamp(max=width - 1)
    return predict(images[:, rows][:, :, columns])[:, :, :height, :width]
