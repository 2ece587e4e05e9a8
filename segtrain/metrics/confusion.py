"""Counting of pixels by target class and predicted class: the integers behind every score but iIoU."""

from torch import Tensor

from segtrain.labels import IGNORE_INDEX


def confusion_matrix(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Count the pixels of each (target class, predicted class).

    The matrices of several batches add up to the matrix of the whole, exactly. Nothing here waits for a GPU.

    Args:
        pred: Predicted train ids. Shape (..., H, W), any integer dtype, any values. A value outside 0..K-1 is a
            prediction of no evaluated class.
        target: Train ids. Shape (..., H, W), any integer dtype. `ignore_index` and every value outside 0..K-1 is void.
        num_classes: K, the number of evaluated classes.
        ignore_index: The void value. If it lies in 0..K-1, that class has no target pixel.

    Returns:
        Shape (K+1, K+1), int64, on the device of the inputs. Rows are targets, columns are predictions. Row K counts
        void targets, column K counts predictions of no evaluated class. No pixels give all zeros.

    Raises:
        ValueError: If the shapes differ.
        TypeError: If an input is not an integer tensor, as logits or probabilities are not.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred and target differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    if pred.is_floating_point() or target.is_floating_point():
        raise TypeError(f"pred and target must hold integer class ids, not {pred.dtype} and {target.dtype}")
    size = num_classes + 1
    pred, target = pred.long(), target.long()
    # Left-out pixels are counted in a bin of their own: picking the others with a mask, or torch.bincount, would make
    # the host wait for the GPU to learn a shape.
    rows = target.masked_fill((target == ignore_index) | (target < 0) | (target >= num_classes), num_classes)
    columns = pred.masked_fill((pred < 0) | (pred >= num_classes), num_classes)
    cells = rows.mul_(size).add_(columns).flatten(-2)
    # One histogram per image keeps the GPU's atomic additions apart, and lets the CPU share the images among threads.
    counts = cells.new_zeros(*cells.shape[:-1], size * size)
    counts.scatter_add_(-1, cells, cells.new_ones(()).expand_as(cells))
    return counts.reshape(-1, size * size).sum(0).reshape(size, size)
