"""Counting of pixels by target class and predicted class: the integers behind every score but iIoU."""

import torch
from torch import Tensor

from segtrain.labels import IGNORE_INDEX


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
    # Left-out pixels are counted in a bin of their own: picking the others with a mask, or torch.bincount, would make
    # the host wait for the GPU to learn a shape.
    rows = target.masked_fill((target == ignore_index) | (target < 0) | (target >= num_classes), num_classes)
    columns = pred.masked_fill((pred < 0) | (pred >= num_predicted), num_predicted)
    cells = rows.mul_(width).add_(columns).flatten(-2)
    # One histogram per image keeps the GPU's atomic additions apart, and lets the CPU share the images among threads.
    counts = cells.new_zeros(*cells.shape[:-1], height * width)
    counts.scatter_add_(-1, cells, cells.new_ones(()).expand_as(cells))
    return counts.reshape(*counts.shape[:-1], height, width)


def class_counts(confusion: Tensor) -> Tensor:
    """Take the true positives, false positives and false negatives of each class from confusion matrices.

    Args:
        confusion: Shape (..., K+1, P+1), int64, as of `confusion_matrices`.

    Returns:
        Shape (..., 3, K), int64: TP, FP, FN. A prediction of no evaluated class is a FN of its target's class, and
        predictions on void count in nothing.
    """
    matrix = confusion[..., :-1, :]
    num_classes = matrix.shape[-2]
    correct = matrix.diagonal(dim1=-2, dim2=-1)
    return torch.stack([correct, matrix[..., :num_classes].sum(-2) - correct, matrix.sum(-1) - correct], -2)
