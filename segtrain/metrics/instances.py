"""Count pixels by object, image by image: the exact integers behind iIoU."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]


def label_components(target: IntArray, class_ids: Iterable[int]) -> npt.NDArray[np.int32]:
    """Number the 8-connected components of each class: objects for a dataset that has no instance map.

    Two objects of a class that touch, even by a corner, become one. An object that is cut in two becomes two.

    Args:
        target: Train ids of one image, (H, W), uint8, 0..K-1 or void.
        class_ids: The train ids of the classes that have instances.

    Returns:
        (H, W), int32. Components are numbered 1, 2, ... through all classes; 0 elsewhere.
    """
    instances = np.zeros(target.shape, np.int32)
    num_components = 0
    for class_id in class_ids:
        mask = target == class_id
        if not mask.any():
            continue
        count, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        np.add(components, num_components, out=instances, where=mask)
        num_components += count - 1  # OpenCV counts the background as a component
    return instances


def count_instances(
    pred: IntArray, target: IntArray, instances: IntArray, class_ids: Iterable[int],
    categories: Sequence[int] | None = None,
) -> npt.NDArray[np.int64]:
    """Count the pixels of each object of one image, and those predicted as its class.

    An object is the set of pixels that share a target class and an instance id. Void pixels belong to none. Memory
    grows with (largest class id) x (largest instance id), which is small for ids of 16 bits.

    Args:
        pred: Predicted train ids, (H, W), any integer dtype, any values.
        target: Train ids, (H, W), any integer dtype, 0..K-1 or void.
        instances: Instance ids, (H, W), any integer dtype. Values below 1 mean no object, or a crowd whose members are
            not told apart; such pixels are not counted.
        class_ids: The train ids of the classes that have instances.
        categories: The category, 0 or above, of each predicted id 0..P-1, the train ids first. None: there are none.

    Returns:
        (U, 4), int64, a row for each object, ordered by class and instance id. The columns are the train id, the number
        of pixels n (at least 1), the number of them predicted as the object's class, and of those predicted as any id
        of its class's category; without categories, the class alone.

    Raises:
        ValueError: If the shapes differ.
    """
    if not pred.shape == target.shape == instances.shape:
        raise ValueError(
            f"pred, target and instances differ in shape: {pred.shape}, {target.shape} and {instances.shape}"
        )
    pixels = np.flatnonzero(instances > 0)  # few, so all else is done with them alone
    pixels = pixels[np.isin(target.ravel()[pixels], list(class_ids))]
    if pixels.size == 0:
        return np.zeros((0, 4), np.int64)
    classes = target.ravel()[pixels].astype(np.int64)
    ids = instances.ravel()[pixels].astype(np.int64)
    num_ids = int(ids.max()) + 1
    keys = classes * num_ids + ids
    num_pixels = np.bincount(keys)
    predicted = pred.ravel()[pixels]
    num_correct = num_of_category = np.bincount(keys[predicted == classes], minlength=len(num_pixels))
    if categories is not None:
        table = np.array([*categories, -1])  # the last for ids without a category
        inside = (predicted >= 0) & (predicted < len(categories))
        same = table[np.where(inside, predicted, -1)] == table[classes]
        num_of_category = np.bincount(keys[same], minlength=len(num_pixels))
    found = np.flatnonzero(num_pixels)
    return np.stack([found // num_ids, num_pixels[found], num_correct[found], num_of_category[found]], axis=1)


def mean_instance_sizes(counts: npt.NDArray[np.int64]) -> dict[int, float]:
    """Return the mean pixels of an object by train id, for the classes in the rows of `count_instances`."""
    return {int(c): float(counts[counts[:, 0] == c, 1].mean()) for c in np.unique(counts[:, 0])}
