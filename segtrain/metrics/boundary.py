"""Count pixels near the borders of classes: the exact integers behind boundary IoU."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segtrain.labels import IGNORE_INDEX
from segtrain.metrics.scores import mean, ratio


def count_boundaries(pred: npt.NDArray[np.integer], target: npt.NDArray[np.integer], num_classes: int, band: float,
                     ) -> npt.NDArray[np.int64]:
    """Count the pixels of each class in the band along its border, in one image.

    The band of a class holds its pixels from which another class, void or the outside of the image is at most
    `round(band * diagonal)` pixels away, at least 1, rows and columns counted alone. Void is cut out of the prediction
    too, so that it borders on both alike and counts for neither.

    Args:
        pred: Predicted train ids, (H, W), any integer dtype, 0..K-1.
        target: Train ids, (H, W), any integer dtype, 0..K-1 or void.
        num_classes: K.
        band: The width of the band, as a share of the image's diagonal.

    Returns:
        For each class, the pixels that lie in the bands of both target and prediction, and those that lie in either,
        (2, K), int64.

    Source:
        Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", 2021, section 4.
    """
    void = (target < 0) | (target >= num_classes)
    maps = [np.where(void, IGNORE_INDEX, image).astype(np.uint8) for image in (target, pred)]
    width = max(1, round(band * math.hypot(*target.shape)))
    in_target, in_pred = (_is_near_border(image, width) for image in maps)
    both = maps[0][in_target & in_pred & (maps[0] == maps[1])]
    common, of_target, of_pred = (np.bincount(ids, minlength=IGNORE_INDEX + 1)[:num_classes]
                                  for ids in (both, maps[0][in_target], maps[1][in_pred]))
    return np.stack([common, of_target + of_pred - common])


def compute_boundary_iou(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """Return `boundary_iou_per_class` and its mean, `boundary_miou`, of summed `count_boundaries`, (2, K), int64."""
    iou = [ratio(*pair) for pair in counts.T]
    return {"boundary_miou": mean(iou), "boundary_iou_per_class": dict(zip(class_names, iou, strict=True))}


def _is_near_border(ids: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.bool_]:
    """Return where a square of 2 width + 1 pixels holds two ids, or reaches out of the image."""
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    near = cv2.erode(ids, kernel) != cv2.dilate(ids, kernel)
    near[:width] = near[-width:] = near[:, :width] = near[:, -width:] = True
    return near
