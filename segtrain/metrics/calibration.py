"""Count how often predictions of each confidence are right: the exact integers behind the calibration error."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BINS = 15  # of equal width, as Guo et al. have them
UNITS = 2**24  # of a confidence, counted as integers so that a sum does not depend on the order


def count_confidences(logits: Tensor, target: Tensor, bins: int = BINS) -> Tensor:
    """Count valid pixels by the confidence of their prediction, the softmax probability of the predicted class.

    Args:
        logits: float32 (N, K, H, W).
        target: Train ids, (N, H, W), any integer dtype; values outside 0..K-1 are void.
        bins: Of confidences, all of one width; a confidence of 1 is in the last.

    Returns:
        (N, bins, 3), int64, on the device of the inputs: pixels, correctly predicted ones, and the sum of their
        confidences in units of 2^-24.
    """
    num_images, num_classes = logits.shape[:2]
    highest, pred = logits.max(1)
    confidence = (highest - logits.logsumexp(1)).exp().nan_to_num_(0).clamp_(max=1)  # a diverged network gives NaN
    place = (confidence * bins).long().clamp_(max=bins - 1)
    place = place.masked_fill_((target < 0) | (target >= num_classes), bins).flatten(1)  # void has a bin of its own
    values = [torch.ones_like(place), (pred == target).long().flatten(1), (confidence * UNITS).long().flatten(1)]
    counts = place.new_zeros(3, num_images, bins + 1)
    for row, value in zip(counts, values, strict=True):
        row.scatter_add_(1, place, value)
    return counts.permute(1, 2, 0)[:, :bins]


def compute_calibration(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Compute the expected calibration error of the summed `count_confidences`, (bins, 3), int64.

    Returns:
        `ece`, the mean of |accuracy - confidence| over the bins, weighted by their pixels, None without a valid pixel;
        and `calibration`: `pixels`, `accuracy` and `confidence` of each bin, the latter None where it is empty.

    Source:
        Guo et al., "On calibration of modern neural networks", 2017, section 2.
    """
    pixels, correct = counts[:, 0], counts[:, 1]
    confidence = counts[:, 2] / UNITS
    known = pixels > 0
    gaps = np.abs(correct - confidence)[known]

    def per_bin(sums: npt.NDArray[Any]) -> list[float | None]:
        return [float(value / number) if number else None for value, number in zip(sums, pixels, strict=True)]

    return {"ece": float(gaps.sum() / pixels.sum()) if known.any() else None,
            "calibration": {"pixels": pixels.tolist(), "accuracy": per_bin(correct), "confidence": per_bin(confidence)}}
