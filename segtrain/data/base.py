"""What every dataset offers: classes, names, and samples read by number.
Datasets seen through something: a cache, the first samples only.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from segtrain.labels import Label


@dataclass(frozen=True)
class Sample:
    """One picture with its target.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        target: uint8 (H, W) train ids, 255 = void; the survey reports other values.
        instances: int32 (H, W), a number above 0 for each separate object, 0 elsewhere; None without instance maps.
    """

    image: np.ndarray
    target: np.ndarray
    instances: np.ndarray | None = None


@runtime_checkable
class Reader(Protocol):
    """What a class must do to be a dataset, as far as that can be seen without making one."""

    def read(self, index: int) -> Sample:
        """Return one sample, from any thread or process; raise UserError naming the file if it cannot be read."""
        ...

    def files(self, index: int) -> str:
        """Say where a sample comes from, for messages."""
        ...


class Dataset(Reader, Protocol):
    """One split of a dataset.

    It may also have a method remarks() -> list[str]: what the user should know, once every sample has been read; a
    method paths(index) -> tuple[Path, Path | None]: the files of a sample's image and of its mask; and class_sizes: the
    mean pixels of an object by class name, where the dataset's own iIoU fixes them.

    For task=score, which needs no image, it may have a method read_target(index) -> tuple[target, instances or None],
    as of Sample; an argument targets_only: bool = False of its class, with which the images may be missing; and
    file_labels: all labels of its label files, if predictions to be scored hold their label ids and have file names
    that only begin with the sample's name. Without these, samples are read whole, and predictions hold train ids.

    For predictions that are saved, it may have prediction_ending: what their file names have behind the sample's name;
    and prediction_palette: a palette for them, [r, g, b] for each value. With file_labels they hold label ids.

    Attributes:
        labels: The classes, in the order of their train ids.
        names: A name for each sample: unique, and the file's stem where there is a file.
    """

    labels: tuple[Label, ...]
    names: list[str]


pass

# what base.py says a dataset may have
OPTIONAL = ("paths", "remarks", "class_sizes", "read_target", "file_labels", "prediction_ending", "prediction_palette")


class Cached:
    """A dataset whose samples stay in memory once read, locked against writing.

    Workers forked afterwards share that memory, so a survey fills the cache for all of them.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.labels, self.names, self.files = dataset.labels, dataset.names, dataset.files
        _offer(self, dataset)
        self._dataset = dataset
        self._samples: list[Sample | None] = [None] * len(dataset.names)

    def read(self, index: int) -> Sample:
        sample = self._samples[index]
        if sample is None:
            sample = self._samples[index] = self._dataset.read(index)
            for array in (sample.image, sample.target, sample.instances):
                if array is not None:
                    array.flags.writeable = False  # a transform that works in place would change every later epoch
        return sample


class Subset:
    """The first samples of a dataset."""

    def __init__(self, dataset: Dataset, num_samples: int) -> None:
        self.labels, self.read, self.files = dataset.labels, dataset.read, dataset.files
        self.names = dataset.names[:num_samples]
        _offer(self, dataset)


def _offer(view: Dataset, dataset: Dataset) -> None:
    """Give a view what its dataset has beyond what all have."""
    for name in OPTIONAL:
        if hasattr(dataset, name):
            setattr(view, name, getattr(dataset, name))
