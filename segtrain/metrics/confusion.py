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
    """Count the pixels of each (target class, predicted class) of all images: `confusion_matrices`, added up.

    Returns:
        Shape (K+1, P+1), int64. The matrices of several batches add up to the matrix of the whole, exactly.
    """
    matrices = confusion_matrices(pred, target, num_classes, ignore_index, num_predicted)
    return matrices.reshape(-1, *matrices.shape[-2:]).sum(0)


def confusion_matrices(
    pred: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX, num_predicted: int | None = None
) -> Tensor:
    """Count the pixels of each (target class, predicted class), for each image. Nothing here waits for a GPU.

    Args:
        pred: Predicted ids. Shape (..., H, W), any integer dtype, any values. 0..K-1 are the train ids; a value outside
            0..P-1 is a prediction of no class at all.
        target: Train ids. Shape (..., H, W), any integer dtype. `ignore_index` and every value outside 0..K-1 is void.
        num_classes: K, the number of evaluated classes.
        ignore_index: The void value. If it lies in 0..K-1, that class has no target pixel.
        num_predicted: P, the ids that predictions are told apart by: the evaluated classes, then others that label
            files may hold, such as Cityscapes' caravan. None: K.

    Returns:
        Shape (..., K+1, P+1), int64, on the device of the inputs. Rows are targets, columns are predictions. Row K
        counts void targets, column P counts predictions of no class. No pixels give all zeros.

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


def count_pairs(pred: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count the pixels of each (target value, predicted value) of one 8-bit image, on a CPU.

    `fold_pairs` turns the counts into a confusion matrix: several times as fast as `confusion_matrix`, and without
    holding Python's lock.

    Args:
        pred: Shape (H, W), uint8, any values.
        target: Shape (H, W), uint8, any values.

    Returns:
        Shape (256, 256), int64. Rows are targets, columns are predictions.

    Raises:
        ValueError: If the shapes differ.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred and target differ in shape: {pred.shape} and {target.shape}")
    return _histogram(target, pred)


def count_values(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count the pixels of each value of an 8-bit image: np.bincount, several times as fast.

    Args:
        values: Shape (H, W), uint8.

    Returns:
        Shape (256,), int64.
    """
    return _histogram(values)


def _histogram(*images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Count the values, or combinations of values, of images of one size; an axis of 256 for each image."""
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
    """Turn the counts of values into a confusion matrix.

    Args:
        pairs: From `count_pairs`; the target values are train ids, and those outside 0..K-1 are void.
        predicted_ids: What each predicted value means, 0..P-1, or P for no class at all. Shape (256,), any integer
            dtype.
        num_classes: K, the number of evaluated classes.
        num_predicted: P, see `confusion_matrices`.

    Returns:
        Shape (K+1, P+1), int64, see `confusion_matrix`.
    """
    matrix = np.zeros((num_classes + 1, num_predicted + 1), np.int64)
    rows, columns = np.nonzero(pairs)
    np.add.at(matrix, (np.minimum(rows, num_classes), predicted_ids[columns]), pairs[rows, columns])
    return torch.from_numpy(matrix)


def class_counts(confusion: Tensor) -> Tensor:
    """Return the true positives, false positives and false negatives of each class.

    Args:
        confusion: Shape (..., K+1, P+1), int64, see `confusion_matrices`.

    Returns:
        Shape (..., 3, K), int64: TP, FP, FN. A prediction of no evaluated class is a FN of its target's class, and
        predictions on void are not counted.
    """
    matrix = confusion[..., :-1, :]
    num_classes = matrix.shape[-2]
    correct = matrix.diagonal(dim1=-2, dim2=-1)
    return torch.stack([correct, matrix[..., :num_classes].sum(-2) - correct, matrix.sum(-1) - correct], -2)
