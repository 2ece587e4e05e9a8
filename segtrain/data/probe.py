"""Check a dataset class of the user on its first, middle and last sample, before anything relies on it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from segtrain.data.base import Dataset, Sample, View
from segtrain.data.checks import BUILT, check
from segtrain.data.image_form import ImageForm
from segtrain.errors import UserError, list_first
from segtrain.labels import IGNORE_INDEX, Label


@check(BUILT,
       "a dataset class of your own: labels, names, and type, shape, range, layout and values of its first, middle "
       "and last sample")
def check_dataset(data: Dataset, target: str) -> None:
    """Check labels, names and three samples of a dataset whose class is not segtrain's own.

    Raises:
        UserError: Names the class, `target`, the sample, what is wrong and the remedy. What the class itself raises is
            not caught: it is a bug of that class, whose traceback is needed.
    """
    if reads_files(data):
        return
    fault = next(_find_faults(data), None)
    if fault is not None:
        raise UserError(f"dataset._target_={target}: {fault}")


def reads_files(data: Dataset) -> bool:
    """Return whether a dataset's class is segtrain's own, which heeds what images are to be read as."""
    while isinstance(data, View):
        data = data.dataset
    return type(data).__module__.startswith("segtrain.")


def _find_faults(data: Dataset) -> Iterator[str]:
    """Yield what is wrong, with the remedy, the most basic first."""
    labels, names = data.labels, data.names
    if not isinstance(labels, tuple | list) or not labels or not all(isinstance(label, Label) for label in labels):
        yield "labels must be a tuple of segtrain.labels.Label, one for each class."
    if [label.train_id for label in labels] != list(range(len(labels))):
        yield f"the train ids of labels are {[label.train_id for label in labels]}: number them 0, 1, 2, ... in order."
    if len({label.name for label in labels}) < len(labels):
        yield "two labels have one name: give every class its own."
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        yield "names must be a list of texts, one for each sample, and not empty."
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        yield f"names has {list_first(doubled)} more than once: names tell samples apart, so give each its own."
    is_dark = []
    for index in dict.fromkeys((0, len(names) // 2, len(names) - 1)):
        sample = data.read(index)
        for fault in _find_sample_faults(sample, len(labels), data.form):
            yield f"read({index}), the sample {names[index]}, {fault}"
        is_dark.append(int(sample.image.max()) == 1)
        if index == 0 and not _are_equal(sample, data.read(index)):
            yield ("read(0) returns another sample when it is called again: leave what is random to augmentation, "
                   "which a resumed run repeats.")
    if all(is_dark):
        yield ("images hold 0 and 1 only, as values from 0 to 1 that were cast to uint8: return 0..255, segtrain "
               "normalizes by dataset.mean and dataset.std itself.")


def _find_sample_faults(sample: Any, num_classes: int, form: ImageForm) -> Iterator[str]:
    if not isinstance(sample, Sample):
        yield f"returns a {type(sample).__name__}: return segtrain.data.base.Sample(image, target)."
    image, target, instances = sample.image, sample.target, sample.instances
    for what, array in (("image", image), ("target", target)):
        if not isinstance(array, np.ndarray):
            yield f"has a {type(array).__name__} as its {what}: return a NumPy array."
        if array.dtype != np.uint8 and not (what == "image" and form.channels and array.dtype == np.float32):
            hint = ("0..255 in RGB, segtrain normalizes by dataset.mean and dataset.std itself" if what == "image" else
                    "train ids 0..K-1, 255 for void")
            yield f"has a {what} of type {array.dtype}: return uint8, {hint}."
    if image.ndim != 3 or image.shape[2] != form.num_channels:
        hint = "put the channels last" if image.ndim == 3 and image.shape[0] == form.num_channels else (
            "grey values thrice, or state other numbers of channels by dataset.channels")
        yield f"has an image of shape {image.shape}: return (height, width, {form.num_channels}); {hint}."
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 255):
        yield f"has an image with values from {image.min():g} to {image.max():g}: return float32 in 0..255."
    if target.shape != image.shape[:2]:
        yield (f"has an image of shape {image.shape} and a target of {target.shape}: return one class number a pixel, "
               "(height, width), at the image's size.")
    if instances is not None and (not isinstance(instances, np.ndarray) or instances.dtype != np.int32
                                  or instances.shape != target.shape):
        yield ("has instances that are not int32 at the target's size: number the objects 1, 2, ... in such an array, "
               "0 elsewhere.")
    for what, array in (("image", image), ("target", target)):
        if not array.flags.c_contiguous:
            yield (f"has a view as its {what}, of another memory layout, as slices like [..., ::-1] and transposes "
                   "are: return numpy.ascontiguousarray of it.")
    strange = [str(value) for value in np.unique(target) if num_classes <= value < IGNORE_INDEX]
    if strange:
        yield (f"has the values {list_first(strange)} in its target, but labels has {num_classes} classes: map them to "
               f"0..{num_classes - 1}, or to 255, which is void.")


def _are_equal(one: Sample, other: Sample) -> bool:
    return all(np.array_equal(first, second) for first, second in (
        (one.image, other.image), (one.target, other.target)))
