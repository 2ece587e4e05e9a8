"""Compute the scores of categories, which are groups of classes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segtrain.labels import Label
from segtrain.metrics.scores import mean, ratio


def compute_category_scores(
    confusion: Tensor,
    labels: Sequence[Label],
    others: Sequence[Label] = (),
    instance_counts: npt.NDArray[np.int64] | None = None,
    class_sizes: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Compute the category scores of a split from its counts.

    IoU of a category: its classes are merged, so that a car predicted as a truck is correct. Only evaluated classes
    count. iIoU of a category, which only a category has all of whose labels have instances: the weight of
    an object is that of its own class, and its pixels are found if they are predicted as any label of the category, be
    it evaluated or not. False positives are predictions of any of these labels on the classes of other categories.

    Args:
        confusion: The sum of `confusion_matrix` over the split, (K+1, P+1), int64.
        labels: The K evaluated classes, by train id.
        others: The labels of the columns K..P-1, which are not evaluated.
        instance_counts: The rows of `count_instances` for all images, counted with the categories of the P labels,
            (U, 4), int64. None: no category has an iIoU.
        class_sizes: From `resolve_class_sizes`: a size for every class that has objects in the counts.

    Returns:
        `iou_per_category` and `iiou_per_category`, by the categories' names in the order of `labels`, and their means
        over the values that are not None, `category_miou` and `category_iiou`. All None where no class has a category;
        the two of the iIoU also without instance_counts.

    Source:
        Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", 2016, section 4.1, as computed
        by cityscapesScripts.
    """
    found: dict[str, Any] = dict.fromkeys(("iou_per_category", "iiou_per_category", "category_miou", "category_iiou"))
    names = list(dict.fromkeys(label.category for label in labels if label.category is not None))
    if not names:
        return found
    matrix = confusion[:-1].cpu().numpy()
    columns = [*labels, *others]
    iou: dict[str, float | None] = {}
    iiou: dict[str, float | None] = dict.fromkeys(names)
    for name in names:
        rows = np.array([label.category == name for label in labels])
        evaluated = np.flatnonzero(rows)
        correct = matrix[np.ix_(evaluated, evaluated)].sum()
        iou[name] = ratio(correct, matrix[evaluated].sum() + matrix[~rows][:, evaluated].sum())
        members = [index for index, label in enumerate(columns) if label.category == name]
        if instance_counts is not None and all(columns[index].has_instances for index in members):
            objects = instance_counts[np.isin(instance_counts[:, 0], evaluated)]
            sizes = np.array([(class_sizes or {})[labels[train_id].name] for train_id in objects[:, 0]])
            weighted = math.fsum(sizes * (objects[:, 3] / objects[:, 1]))  # exact, so it does not depend on the order
            iiou[name] = ratio(weighted, math.fsum(sizes) + int(matrix[~rows][:, members].sum()))
    found |= {"iou_per_category": iou, "category_miou": mean(iou.values())}
    if instance_counts is not None:
        found |= {"iiou_per_category": iiou, "category_iiou": mean(iiou.values())}
    return found


def number_categories(labels: Sequence[Label]) -> list[int] | None:
    """Number the categories of labels, each label without one on its own; None if no label has a category."""
    if not any(label.category for label in labels):
        return None
    numbers: dict[str, int] = {}
    return [numbers.setdefault(label.category or f"\0{label.name}", len(numbers)) for label in labels]
