"""Turn images into logits: in one pass or several (flip, scales), small images padded, large ones in windows."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.inference.folding import fold_batchnorm
from segtrain.inference.sliding_window import PredictFn, predict_sliding_window, window_starts

MIN_SIDE = 32  # every network takes images as large as this
PROBE_SIDE = 64  # of the corner of an image that shows how a network computes
AUTOCAST_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class InferenceSettings:
    """How the logits of an image are computed.

    Attributes:
        window: (height, width) of the sliding window; None: the whole image at once.
        overlap: The minimum share of a window that its neighbor covers too, in [0, 1).
        flip: Flip TTA: average the logits with those of the horizontally flipped image.
        scales: Average the logits of the image, or of each window, resized by each of these factors.
    """

    window: tuple[int, int] | None = None
    overlap: float = 0.0
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def as_results(self) -> dict[str, object]:
        """Return the entry `inference` of results.json."""
        return {"window": None if self.window is None else list(self.window),
                "overlap": None if self.window is None else self.overlap, "flip": self.flip,
                "scales": list(self.scales)}

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the network's input, at scale 1, for an image of (height, width)."""
        return size if self.window is None else (min(size[0], self.window[0]), min(size[1], self.window[1]))

    def passes(self, size: tuple[int, int]) -> dict[tuple[int, int], int]:
        """Return how many inputs of which (height, width) an image of (height, width) takes."""
        rows, columns = (len(window_starts(length, part, self.overlap)) for length, part
                         in zip(size, self.input_size(size), strict=True))
        counts: Counter[tuple[int, int]] = Counter()
        for scale in self.scales:
            counts[scaled_size(self.input_size(size), scale)] += rows * columns * (2 if self.flip else 1)
        return counts


WHOLE_IMAGE = InferenceSettings()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision, "fp32" (none), "bf16" or "fp16"."""
    dtype = AUTOCAST_DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def make_predict_fn(network: nn.Module, normalize: Callable[[Tensor], Tensor],
                    settings: InferenceSettings = WHOLE_IMAGE, *, device: torch.device, precision: str = "fp32",
                    batch_size: int = 1) -> PredictFn:
    """Return a function from images to logits. The network, on the device, is put into evaluation mode.

    `precision` is "fp32", "bf16" or "fp16" (autocast), `batch_size` the maximum number of windows at once. BatchNorm is
    folded into a copy of the network at the first call, so that later changes of it need not have an effect.
    """
    network.eval()
    folded: nn.Module | None = None

    @torch.inference_mode()
    def predict_whole(images: Tensor) -> Tensor:
        nonlocal folded
        inputs = normalize(images.to(device, non_blocking=True))
        if folded is None:
            folded = fold_batchnorm(network, inputs[:1, :, :PROBE_SIDE, :PROBE_SIDE])
        with autocast(device, precision):
            logits = folded(inputs)
        return logits.float()

    predict: PredictFn = predict_whole
    if settings.flip:
        predict = partial(predict_with_flip_tta, predict)
    if settings.scales != (1.0,):
        predict = partial(predict_at_scales, predict, settings.scales)
    if settings.window is not None:
        predict = partial(predict_sliding_window, predict, window=settings.window, overlap=settings.overlap,
                          batch_size=batch_size)
    return predict


@torch.inference_mode()
def predict_with_flip_tta(predict: PredictFn, images: Tensor) -> Tensor:
    """Average the logits of images, (N, H, W, C), with those of the horizontally flipped images, flipped back."""
    return (predict(images) + predict(images.flip(2)).flip(3)) / 2


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (height, width) at a scale; a scaled side is at least as long as every network takes."""
    return size if scale == 1 else (max(MIN_SIDE, round(size[0] * scale)), max(MIN_SIDE, round(size[1] * scale)))


@torch.inference_mode()
def predict_at_scales(predict: PredictFn, scales: Sequence[float], images: Tensor) -> Tensor:
    """Average the logits of images, (N, H, W, C), that were resized by each scale; logits are resized back.

    Both are resized bilinearly, images with antialiasing, and those of uint8 are rounded again.
    """
    height, width = images.shape[1:3]
    total: Tensor | None = None
    for scale in scales:
        size = scaled_size((height, width), scale)
        if size == (height, width):
            logits = predict(images)
        else:
            resized = F.interpolate(images.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
            resized = resized.clamp_(0, 255) if images.is_floating_point() else resized.round_().clamp_(0, 255)
            logits = predict(resized.to(images.dtype).permute(0, 2, 3, 1).contiguous())
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        total = logits if total is None else total + logits
    assert total is not None, "there is at least one scale"
    return total / len(scales)


@torch.inference_mode()
def predict_padded(predict: PredictFn, images: Tensor) -> Tensor:
    """Predict images that may be smaller than the network takes: repeat their last rows and columns, then crop."""
    height, width = images.shape[1:3]
    if min(height, width) >= MIN_SIDE:
        return predict(images)
    rows = torch.arange(max(height, MIN_SIDE)).clamp(max=height - 1)
    columns = torch.arange(max(width, MIN_SIDE)).clamp(max=width - 1)
    return predict(images[:, rows][:, :, columns])[:, :, :height, :width]
