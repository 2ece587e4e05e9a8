"""What an evaluation measures beyond a validation: boundary IoU, calibration, and the interval of the mIoU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segtrain.distributed import process_group
from segtrain.metrics.bootstrap import RESAMPLES, miou_interval
from segtrain.metrics.boundary import compute_boundary_iou, count_boundaries
from segtrain.metrics.calibration import BINS, compute_calibration, count_confidences


class Details:
    """Counts of the images of this process, which add up to those of the split.

    Args:
        num_classes: K.
        boundary_band: The width of the band of boundary IoU, as a share of an image's diagonal.
    """

    def __init__(self, num_classes: int, boundary_band: float) -> None:
        self._num_classes, self._band = num_classes, boundary_band
        self._boundaries = torch.zeros(2, num_classes, dtype=torch.int64)
        self._confidences = torch.zeros(BINS, 3, dtype=torch.int64)

    def add(self, logits: Tensor, preds: Tensor, targets: Tensor) -> None:
        """Count a batch: logits float32 (N, K, H, W), preds and targets integers (N, H, W)."""
        self._confidences += count_confidences(logits, targets).sum(0).cpu()
        for pred, target in zip(preds.cpu().numpy(), targets.cpu().numpy(), strict=True):
            self._boundaries += torch.from_numpy(count_boundaries(pred, target, self._num_classes, self._band))

    def results(self, class_names: Sequence[str], image_counts: np.ndarray) -> dict[str, Any]:
        """Return the part of results.json for the whole split, given its `class_counts` by image, (N, 3, K)."""
        return {
            **compute_boundary_iou(process_group.summed(self._boundaries).numpy(), class_names),
            "boundary_band": self._band,
            **compute_calibration(process_group.summed(self._confidences).numpy()),
            "miou_interval": miou_interval(image_counts), "miou_interval_resamples": RESAMPLES,
        }
