"""Predict pictures of any size: batches of small ones, windows of those that are too large for the memory."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.inference.sliding_window import Inference, logit_bands, padded, predictor
from segtrain.profiling import bytes_per_pixel, free_memory

LEAST_SIDE = 32  # every network takes pictures as large as this
# Larger pictures are cut into windows whatever the memory: no camera takes them, and no network is trained for them.
MOST_PIXELS = 2**25
WINDOW, LEAST_WINDOW = 1024, 256  # pixels, of the windows that are chosen here
WINDOW_BYTES, BUFFER_BYTES = 2**30, 3 * 2**29  # for all windows at once, and for the rows that they are blended into
UNKNOWN_MEMORY = 2**32  # taken for free where the system does not say
SCRATCH = 1.5  # how much more an operator takes than its tensors, at most as measured


@dataclass(frozen=True)
class Plan:
    """How pictures of one size are predicted.

    Attributes:
        inference: With windows, if they were asked for or are needed.
        is_too_large: Whether the windows were not asked for, but chosen because the memory does not suffice.
        pictures: How many at once.
        windows: How many windows at once.
    """

    inference: Inference
    is_too_large: bool
    pictures: int
    windows: int


class Predictor:
    """Turn pictures into class numbers.

    Args:
        network: On the device. It is put into evaluation mode, and left in it.
        normalize: uint8 (N, H, W, C) on the device -> float32 (N, C, H, W).
        inference: Windows and mirror images. Without windows, pictures are taken whole as long as half of the memory
            that was free suffices; the overlap is that of the windows that are needed then.
        device: Where the network is.
        precision: "fp32", "bf16" or "fp16" (autocast).
        batch_size: Most pictures or windows at once.
        num_classes: K.
        in_channels: Of the pictures.
    """

    def __init__(self, network: nn.Module, normalize: Callable[[Tensor], Tensor], inference: Inference, *,
                 device: torch.device, precision: str, batch_size: int, num_classes: int, in_channels: int = 3) -> None:
        self._predict = padded(predictor(network, normalize, replace(inference, window=None), device=device,
                                         precision=precision, batch_size=batch_size), LEAST_SIDE)
        self._inference, self._batch_size, self._num_classes = inference, batch_size, num_classes
        self._memory = (free_memory(device) or UNKNOWN_MEMORY) / 2
        measured = bytes_per_pixel(network, in_channels)
        self._bytes_per_pixel = None if measured is None else SCRATCH * measured
        self.plan = lru_cache(maxsize=None)(self._plan)

    def _plan(self, size: tuple[int, int]) -> Plan:
        """Return how pictures of (height, width) are predicted."""
        if self._inference.window is not None:
            return self._windowed(self._inference.window, size, False)
        at_once = self._at_once(size, self._memory)
        if at_once and size[0] * size[1] <= MOST_PIXELS:
            return Plan(self._inference, False, at_once, 1)
        side = WINDOW
        while side > LEAST_WINDOW and 2 * 4 * self._num_classes * side * size[1] > BUFFER_BYTES:
            side //= 2
        return self._windowed((side, side), size, True)

    def _windowed(self, window: tuple[int, int], size: tuple[int, int], is_too_large: bool) -> Plan:
        inference = replace(self._inference, window=window)
        most = min(WINDOW_BYTES, self._memory) if is_too_large else self._memory
        return Plan(inference, is_too_large, 1, max(1, self._at_once(inference.pass_size(size), most)))

    def _at_once(self, size: tuple[int, int], memory: float) -> int:
        """Return how many pictures of a size the network can take in so much memory, batch_size at most."""
        if self._bytes_per_pixel is None:
            return self._batch_size
        return min(self._batch_size, int(memory / (size[0] * size[1] * self._bytes_per_pixel)))

    def __call__(self, pictures: np.ndarray, keep: Callable[[int, np.ndarray], None] | None = None) -> np.ndarray:
        """Predict pictures of one size.

        Args:
            pictures: uint8 (N, H, W, C), as many as the plan says.
            keep: Called with a row's number and the probabilities of the rows from there on, float32 (N, K, rows, W);
                all calls together, from the top down, give them for the whole pictures.

        Returns:
            uint8 (N, H, W), the class numbers (train ids).
        """
        num_pictures, height, width = pictures.shape[:3]
        plan = self.plan((height, width))
        preds = np.empty((num_pictures, height, width), np.uint8)
        # The array may be locked against writing, which torch warns of; nothing here writes into it.
        images = torch.from_numpy(pictures if pictures.flags.writeable else pictures.copy())
        for top, logits in logit_bands(self._predict, images, plan.inference, batch_size=plan.windows):
            rows = slice(top, top + logits.shape[2])
            preds[:, rows] = logits.argmax(1).to(torch.uint8).cpu().numpy()
            if keep is not None:
                keep(top, logits.softmax(1).cpu().numpy())
        return preds
