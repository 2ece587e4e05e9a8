"""Count pixels by target class and predicted class: the exact integers behind every score but iIoU."""

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segtrain.labels import IGNORE_INDEX

MAX_PIXELS = 2**24  # OpenCV returns counts as float32, which is exact up to here


def confusion_matrix(
    pred: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX, num_predicted: int | None = None
) -> Tensor:
    """Count the pixels of each (target class, predicted class), for each image. Nothing here waits for a GPU.

    Args:
        pred: (..., H, W), any integer dtype. 0..K-1 are the train ids; a value outside 0..P-1 is no class at all.
        target: Train ids, (..., H, W), any integer dtype. `ignore_index` and every value outside 0..K-1 is void.
        num_classes: K, the number of evaluated classes.
        ignore_index: The void value. If it lies in 0..K-1, that class has no target pixel.
        num_predicted: P, the ids that predictions are told apart by: the evaluated classes, then others that label
            files may hold, such as Cityscapes' caravan. None: K.

    Returns:
        (..., K+1, P+1), int64, on the device of the inputs. Rows are targets, columns are predictions. Row K counts
        void targets, column P counts predictions of no class. The matrices of several images add up to that of all.

    Raises:
        ValueError: If the shapes differ, or P is less than K.
        TypeError: If an input is not an integer tensor, as logits or probabilities are not.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred and target differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    if pred.is_floating_point() or target.is_floating_point():
        raise TypeError(f"pred and target must hold integer class ids, not {pred.dtype} and {target.dtype}")
    num_predicted = num_classes if num_predicted is None else num_predicted
    if num_predicted < num_classes:
        raise ValueError(f"num_predicted={num_predicted} must be at least num_classes={num_classes}")
    height, width = num_classes + 1, num_predicted + 1
    pred, target = pred.long(), target.long()
    # Void pixels are counted in a bin of their own: selecting the others with a mask, or torch.bincount, would make the
    # host wait for the GPU to learn a shape.
    rows = target.masked_fill((target == ignore_index) | (target < 0) | (target >= num_classes), num_classes)
    columns = pred.masked_fill((pred < 0) | (pred >= num_predicted), num_predicted)
    cells = rows.mul_(width).add_(columns).flatten(-2)
    # One histogram per image keeps the GPU's atomic additions apart, and lets the CPU share the images among threads.
    counts = cells.new_zeros(*cells.shape[:-1], height * width)
    counts.scatter_add_(-1, cells, cells.new_ones(()).expand_as(cells))
    return counts.reshape(*counts.shape[:-1], height, width)


def count_values(*images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count the pixels of each value of an 8-bit image, or of each combination of values of several of one shape.

    What numpy's histograms count, several times as fast, on a CPU, and without holding Python's lock.

    Args:
        images: Each (H, W), uint8, any values.

    Returns:
        An axis of 256 for each image, int64.

    Raises:
        ValueError: If the shapes differ.
    """
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"the images differ in shape: {', '.join(str(image.shape) for image in images)}")
    axes = len(images)
    counts = np.zeros((256,) * axes, np.int64)
    flat = [image.reshape(1, -1) for image in images]
    for start in range(0, flat[0].size, MAX_PIXELS):
        parts = [image[:, start:start + MAX_PIXELS] for image in flat]
        found = cv2.calcHist(parts, list(range(axes)), None, [256] * axes, [0, 256] * axes)
        counts += found.reshape(counts.shape).astype(np.int64)
    return counts


def fold_pairs(
    pairs: npt.NDArray[np.int64], predicted_ids: npt.NDArray[np.integer], num_classes: int, num_predicted: int
) -> Tensor:
    """Turn counts of values into what `confusion_matrix` returns for (K, P), several times as fast on a CPU.

    Args:
        pairs: The `count_values` of target and prediction, (256, 256). Target values outside 0..K-1 are void.
        predicted_ids: What each predicted value means, 0..P-1, or P for no class at all; (256,), any integer dtype.
        num_classes: K.
        num_predicted: P.
    """
    matrix = np.zeros((num_classes + 1, num_predicted + 1), np.int64)
    rows, columns = np.nonzero(pairs)
    np.add.at(matrix, (np.minimum(rows, num_classes), predicted_ids[columns]), pairs[rows, columns])
    return torch.from_numpy(matrix)


def class_counts(confusion: Tensor) -> Tensor:
    """Return the true positives, false positives and false negatives of each class.

    Args:
        confusion: A `confusion_matrix`, (..., K+1, P+1), int64.

    Returns:
        TP, FP and FN, (..., 3, K), int64. A prediction of no evaluated class is a FN of its target's class, and
        predictions on void are not counted.
    """
    matrix = confusion[..., :-1, :]
    num_classes = matrix.shape[-2]
    correct = matrix.diagonal(dim1=-2, dim2=-1)
    return torch.stack([correct, matrix[..., :num_classes].sum(-2) - correct, matrix.sum(-1) - correct], -2)
