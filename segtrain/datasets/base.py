"""What every dataset offers: classes, names, and samples read by number."""

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
