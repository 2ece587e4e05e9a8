"""How far a score depends on which images a split happens to hold."""

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
AT_ONCE = 100


def miou_interval(counts: npt.NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0) -> list[float] | None:
    """Return the 95 % interval of the mIoU under resampling of the images with replacement, (low, high).

    Neighboring frames of a video are alike, so that for them the interval is narrower than it should be.

    Args:
        counts: The `class_counts` of each image, (N, 3, K), int64.
        resamples: How many splits of N images are drawn.
        seed: Of the drawing.

    Returns:
        The 2.5th and the 97.5th percentile of the mIoU, or None with fewer than two images, or without valid pixels.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    num_images, _, num_classes = counts.shape
    if num_images < 2 or not counts[:, ::2].any():
        return None
    flat = counts.reshape(num_images, -1)
    flat = flat[np.lexsort(flat.T)]  # so that the order of the images changes nothing
    rng = np.random.default_rng(seed)
    mious: list[npt.NDArray[np.float64]] = []
    for start in range(0, resamples, AT_ONCE):
        times = rng.multinomial(num_images, [1 / num_images] * num_images, size=min(AT_ONCE, resamples - start))
        correct, false_positives, missed = (
            (times @ flat).reshape(-1, 3, num_classes).transpose(1, 0, 2))
        union = correct + false_positives + missed
        defined = union > 0
        iou = np.divide(correct, union, out=np.zeros(union.shape), where=defined)
        mious.append(iou.sum(1)[defined.any(1)] / defined.sum(1)[defined.any(1)])
    low, high = np.percentile(np.concatenate(mious), [2.5, 97.5])
    return [float(low), float(high)]
