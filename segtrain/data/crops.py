"""A random crop that can contain what is wanted of an image, and that one class does not fill."""

from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np

from segtrain.labels import IGNORE_INDEX
from segtrain.metrics.confusion import count_values

WANTED = "wanted"  # the map of pixels of which a crop should contain one: 1; it is transformed as targets are
ATTEMPTS = 10  # places that are tried for max_share


class RandomCrop(A.RandomCrop):
    """albumentations' RandomCrop, which heeds the map of wanted pixels that `train.sampling` and copy-paste give.

    Args:
        max_share: The most that one class should take of a crop's labelled pixels; of ten places the first one counts
            for which that is so, or the one that comes nearest. None: any place.

    The others are those of albumentations.
    """

    class InitSchema(A.RandomCrop.InitSchema):
        max_share: float | None

    def __init__(
        self, height: int, width: int, pad_if_needed: bool = False,
        pad_position: Literal["center", "top_left", "top_right", "bottom_left", "bottom_right", "random"] = "center",
        border_mode: Literal[0, 1, 2, 3, 4] = cv2.BORDER_CONSTANT,  # type: ignore[assignment]
        fill: tuple[float, ...] | float = 0.0, fill_mask: tuple[float, ...] | float = 0.0,
        max_share: float | None = None, p: float = 1.0,
    ) -> None:
        super().__init__(height, width, pad_if_needed, pad_position, border_mode, fill, fill_mask, p)
        if max_share is not None and not 0 < max_share <= 1:
            raise ValueError(f"max_share={max_share} must be above 0 and at most 1")
        self.max_share = max_share

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Choose the place of a crop."""
        found = super().get_params_dependent_on_data(params, data)
        wanted = data.get(WANTED)
        pixels = np.flatnonzero(wanted == 1) if wanted is not None else np.zeros(0, np.int64)
        if not len(pixels) and self.max_share is None:
            return found
        pads = found["pad_params"] or dict.fromkeys(("pad_top", "pad_bottom", "pad_left", "pad_right"), 0)
        before, after = (pads["pad_top"], pads["pad_left"]), (pads["pad_bottom"], pads["pad_right"])
        shape = params["shape"][:2]
        best, least = found["crop_coords"], np.inf
        for attempt in range(ATTEMPTS):
            if attempt or len(pixels):
                pixel = divmod(int(self.random_generator.choice(pixels)), shape[1]) if len(pixels) else None
                starts = [self._draw_start(None if pixel is None else pixel[axis] + before[axis],
                                           shape[axis] + before[axis] + after[axis], length)
                          for axis, length in enumerate((self.height, self.width))]
                place = (starts[1], starts[0], starts[1] + self.width, starts[0] + self.height)
            else:
                place = best
            if self.max_share is None:
                best = place
                break
            share = _measure_share(data["mask"], place[1] - before[0], place[0] - before[1], self.height, self.width)
            if share < least:
                best, least = place, share
            if share <= self.max_share:
                break
        return {**found, "crop_coords": best}

    def _draw_start(self, pixel: int | None, whole: int, length: int) -> int:
        """Draw where a stretch of some length begins, in a whole, that contains a pixel; None: any."""
        first, last = (0, whole) if pixel is None else (pixel - length + 1, pixel)
        return int(self.random_generator.integers(max(first, 0), min(last, whole - length) + 1))


def _measure_share(target: np.ndarray, top: int, left: int, height: int, width: int) -> float:
    """Return the share of the commonest class in the labelled pixels of a crop; 1 without any."""
    part = target[max(top, 0):top + height, max(left, 0):left + width]
    counts = count_values(np.ascontiguousarray(part))
    counts[IGNORE_INDEX] = 0
    return float(counts.max() / counts.sum()) if counts.sum() else 1.0
