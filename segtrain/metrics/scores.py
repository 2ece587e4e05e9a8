"""Compute scores from counts; docs/reference/metrics.md defines them for users."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segtrain.metrics.confusion import class_counts
from segtrain.metrics.instances import mean_instance_sizes


def compute_scores(
    confusion: Tensor,
    class_names: Sequence[str],
    instance_counts: npt.NDArray[np.int64] | None = None,
    class_sizes: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Compute all scores of a split from its counts.

    A score without a denominator is None: the IoU of a class that is in neither targets nor predictions, the accuracy
    of a class that is not in the targets, everything if no pixel is valid. Means leave out the classes that are None.

    Args:
        confusion: The sum of `confusion_matrix` over the split, (K+1, P+1), int64.
        class_names: The K names by train id.
        instance_counts: The rows of `count_instances` for all images of the split, in any order, (U, 4), int64. None if
            the dataset has no instances: then `iiou` and `iiou_per_class` are None.
        class_sizes: See `resolve_class_sizes`.

    Returns:
        Plain Python values, ready for JSON; scores are fractions. `miou`, `macc`, `pacc`, `fwiou`, `iiou`;
        `iou_per_class`, `acc_per_class`, `precision_per_class`, `dice_per_class`, `iiou_per_class`, each with all K
        names; `mprecision` and `mdice`, the means of two of them; `confusion_matrix`, K lists of K, rows are targets,
        without the last row and column; `predicted_void`, how many void target pixels were predicted as each of the K
        classes.

    Raises:
        ValueError: If the shape of a count does not fit, or as `resolve_class_sizes`.

    Source:
        IoU, mean accuracy, pixel accuracy and frequency-weighted IoU: Long et al., "Fully convolutional networks for
        semantic segmentation", 2015, section 5. iIoU: Cordts et al., "The Cityscapes dataset for semantic urban scene
        understanding", 2016, section 4.1, as computed by cityscapesScripts.
    """
    num_classes = len(class_names)
    if confusion.ndim != 2 or confusion.shape[0] != num_classes + 1 or confusion.shape[1] <= num_classes:
        raise ValueError(f"{num_classes} classes need a confusion matrix of {num_classes + 1} rows and at least as "
                         f"many columns, not of the shape {tuple(confusion.shape)}")
    counts = class_counts(confusion).cpu().numpy()
    scores: dict[str, Any] = {
        **compute_pixel_scores(counts, class_names),
        **_precision_and_dice(counts, class_names),
        "iiou": None,
        "iiou_per_class": None,
        "confusion_matrix": confusion[:-1, :num_classes].tolist(),
        "predicted_void": confusion[-1, :num_classes].tolist(),
    }
    if instance_counts is not None:
        iiou: dict[str, float | None] = dict.fromkeys(class_names)  # None for a class that has no instances
        for name, size in resolve_class_sizes(class_names, instance_counts, class_sizes).items():
            train_id = class_names.index(name)
            objects = instance_counts[instance_counts[:, 0] == train_id]
            iiou[name] = _iiou(objects, size, counts[1, train_id])
        scores["iiou"] = mean(iiou.values())
        scores["iiou_per_class"] = iiou
    return scores


def compute_pixel_scores(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """Compute the scores that do not need objects, of a split or of one image.

    Args:
        counts: The TP, FP and FN of `class_counts`, (3, K), int64.
        class_names: The K names by train id.

    Returns:
        `miou`, `macc`, `pacc`, `fwiou`, `iou_per_class`, `acc_per_class`, as `compute_scores`.
    """
    correct, false_positives, missed = counts
    targets = correct + missed
    iou = list(map(ratio, correct, targets + false_positives))
    acc = list(map(ratio, correct, targets))
    iou_pixels = math.fsum(value * pixels for value, pixels in zip(iou, targets, strict=True) if value is not None)
    return {
        "miou": mean(iou),
        "macc": mean(acc),
        "pacc": ratio(correct.sum(), targets.sum()),
        "fwiou": ratio(iou_pixels, targets.sum()),
        "iou_per_class": dict(zip(class_names, iou, strict=True)),
        "acc_per_class": dict(zip(class_names, acc, strict=True)),
    }


def _precision_and_dice(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    correct, false_positives, missed = counts
    precision = list(map(ratio, correct, correct + false_positives))
    dice = list(map(ratio, 2 * correct, 2 * correct + false_positives + missed))
    return {"mprecision": mean(precision), "mdice": mean(dice),
            "precision_per_class": dict(zip(class_names, precision, strict=True)),
            "dice_per_class": dict(zip(class_names, dice, strict=True))}


def resolve_class_sizes(
    class_names: Sequence[str],
    instance_counts: npt.NDArray[np.int64],
    class_sizes: Mapping[str, float | None] | None = None,
) -> dict[str, float | None]:
    """Determine the object size that iIoU uses for each class with instances.

    A class that has objects here but no size, because the training split shows none, gets the mean size of its objects
    here, so that a model can be evaluated on a split with objects that are new to it. The sizes returned are the ones
    to report beside the scores.

    Args:
        class_names: The K names by train id.
        instance_counts: The rows of `count_instances` for all images of the split, (U, 4), int64.
        class_sizes: The mean pixels of an object by class name, for the classes that have instances; None for a class
            whose size is not known.

    Returns:
        The size by class name, in the order of `class_names`: the given classes and those with objects here. None for
        a class that has neither a given size nor objects here, where iIoU needs no size.

    Raises:
        ValueError: If `instance_counts` is not (U, 4), if a name is not in `class_names`, or if a size is not above 0
            and finite.
    """
    if instance_counts.ndim != 2 or instance_counts.shape[1] != 4:
        raise ValueError(f"instance_counts must have the shape (U, 4), not {instance_counts.shape}")
    sizes = dict(class_sizes or {})
    if unknown := sorted(set(sizes) - set(class_names)):
        raise ValueError(f"class_sizes names classes that are not evaluated: {', '.join(unknown)}")
    for name, size in sizes.items():
        if size is not None and not 0 < size < math.inf:
            raise ValueError(f"class_sizes: the size of {name} must be above 0 and finite, not {size}")
    for train_id, size in mean_instance_sizes(instance_counts).items():
        if sizes.get(class_names[train_id]) is None:
            sizes[class_names[train_id]] = size
    return {name: sizes[name] for name in class_names if name in sizes}


def _iiou(objects: npt.NDArray[np.int64], size: float | None, false_positives: int) -> float | None:
    """Compute the iIoU of one class from the rows of its objects, (U, 4), int64.

    An object of n pixels weighs size / n, so iTP = size * sum(tp / n), and iTP + iFN = size * U.
    """
    size = size or 0.0  # None for a class that is known to have instances, but has none here
    # An exactly rounded sum does not depend on the order of the images, so neither on the number of processes.
    found = math.fsum(objects[:, 2] / objects[:, 1])
    return ratio(size * found, size * len(objects) + int(false_positives))


def ratio(numerator: float, denominator: float) -> float | None:
    """Divide, with None for a denominator of 0."""
    return float(numerator) / float(denominator) if denominator else None


def mean(values: Iterable[float | None]) -> float | None:
    """Average the values that are not None, with None if there are none."""
    known = [value for value in values if value is not None]
    return ratio(math.fsum(known), len(known))
