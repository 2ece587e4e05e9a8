"""Predict images of any size: batches of small ones, a sliding window over those too large for the memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.inference.forward import InferenceSettings, make_predict_fn, predict_padded
from segtrain.inference.large_images import MOST_PIXELS, LargeImage
from segtrain.inference.sliding_window import iterate_bands
from segtrain.profiling import free_memory, measure_bytes_per_pixel

# Larger images are cut into windows even if they fit into memory: no network is trained on such images.
MAX_PIXELS = MOST_PIXELS
WINDOW, MIN_WINDOW = 1024, 256  # pixels, of windows that are chosen here
WINDOW_BYTES, BUFFER_BYTES = 2**30, 3 * 2**29  # for all windows at once, and for the rows that they are blended into
UNKNOWN_MEMORY = 2**32  # assumed to be free where the system does not say
SCRATCH = 1.5  # the most memory that an operator was measured to need, as a multiple of its tensors


@dataclass(frozen=True)
class Plan:
    """How images of one size are predicted.

    Attributes:
        settings: With a window, if one was asked for or is needed.
        is_too_large: Whether the window was not asked for, but chosen because the memory does not suffice.
        num_images, num_windows: How many at once.
    """

    settings: InferenceSettings
    is_too_large: bool
    num_images: int
    num_windows: int


class Predictor:
    """Turn images into class numbers.

    Args:
        network: On the device. It is put into evaluation mode and left in it.
        normalize: images (N, H, W, C) on the device -> float32 (N, C, H, W).
        settings: Sliding window, flip TTA and scales. Without a window, images are predicted whole as long as half of
            the free memory suffices; `overlap` is that of the windows that are needed otherwise.
        batch_size: Maximum number of images or windows at once.
    """

    def __init__(self, network: nn.Module, normalize: Callable[[Tensor], Tensor], settings: InferenceSettings, *,
                 device: torch.device, precision: str, batch_size: int, num_classes: int, in_channels: int = 3) -> None:
        whole = make_predict_fn(network, normalize, replace(settings, window=None), device=device, precision=precision)
        self._predict = partial(predict_padded, whole)
        self._settings, self._batch_size, self._num_classes = settings, batch_size, num_classes
        self._memory = (free_memory(device) or UNKNOWN_MEMORY) / 2
        measured = measure_bytes_per_pixel(network, in_channels)
        self._bytes_per_pixel = None if measured is None else SCRATCH * measured

    def __call__(self, images: np.ndarray | LargeImage,
                 on_probabilities: Callable[[int, np.ndarray], None] | None = None) -> np.ndarray:
        """Predict images of one size.

        Args:
            images: uint8 or float32 (N, H, W, C), as many as the plan says.
            on_probabilities: Called with a row's number and the probabilities of the rows from there on, float32
                (N, K, rows, W); all calls together, from the top down, give them for the whole images.

        Returns:
            uint8 (N, H, W), the class numbers (train ids).
        """
        num_images, height, width = images.shape[:3]
        plan = self.plan((height, width))
        preds = np.empty((num_images, height, width), np.uint8)
        # torch warns of arrays that are not writable
        tensor: Any = images if isinstance(images, LargeImage) else torch.from_numpy(
            images if images.flags.writeable else images.copy())
        settings = plan.settings
        bands = [(0, self._predict(tensor))] if settings.window is None else iterate_bands(
            self._predict, tensor, settings.window, overlap=settings.overlap, batch_size=plan.num_windows)
        for top, logits in bands:
            preds[:, top:top + logits.shape[2]] = logits.max(1).indices.to(torch.uint8).cpu().numpy()
            if on_probabilities is not None:
                on_probabilities(top, logits.softmax(1).cpu().numpy())
        return preds

    def plan(self, size: tuple[int, int]) -> Plan:
        """Return how images of (height, width) are predicted."""
        window, memory = self._settings.window, self._memory
        if window is None:
            num_images = self._max_at_once(size, memory)
            if num_images and size[0] * size[1] <= MAX_PIXELS:
                return Plan(self._settings, False, num_images, 1)
            side = WINDOW
            while side > MIN_WINDOW and 2 * 4 * self._num_classes * side * size[1] > BUFFER_BYTES:
                side //= 2
            window, memory = (side, side), min(WINDOW_BYTES, memory)
        settings = replace(self._settings, window=window)
        num_windows = max(1, self._max_at_once(settings.input_size(size), memory))
        return Plan(settings, self._settings.window is None, 1, num_windows)

    def _max_at_once(self, size: tuple[int, int], memory: float) -> int:
        """Return how many images of a size the network can take in so much memory, batch_size at most."""
        if self._bytes_per_pixel is None:
            return self._batch_size
        pixels = size[0] * size[1] * max(1.0, *self._settings.scales) ** 2
        return min(self._batch_size, int(memory / (pixels * self._bytes_per_pixel)))
