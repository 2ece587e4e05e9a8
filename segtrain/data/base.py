"""What every dataset offers: classes, names, and samples read by number."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segtrain.data.images import check_sizes, decode, read_image_and_turn, read_orientation
from segtrain.labels import Label


@dataclass(frozen=True)
class Sample:
    """One image with its target.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        target: uint8 (H, W) train ids, 255 = void; other values are refused when the statistics are computed.
        instances: int32 (H, W), a number above 0 for each separate object, 0 elsewhere; None without instance maps.
    """

    image: np.ndarray
    target: np.ndarray
    instances: np.ndarray | None = None


class Dataset(ABC):
    """One split of a dataset.

    Subclass it: set `labels` and `names` in `__init__`, which takes `split`, and write `read`. All else has a default.
    An argument `targets_only: bool = False` of `__init__` says that the class can do without its images, which
    task=score does not need.

    Attributes:
        labels: The classes, in the order of their train ids.
        names: A name for each sample: unique, and the file's stem where there is a file.
        class_sizes: The mean pixels of an object by class name, where the dataset's own iIoU fixes them.
        file_labels: All labels of its label files, if predictions hold their label ids, and have file names that only
            begin with the sample's name. Empty: predictions hold train ids.
        prediction_ending: What the file names of saved predictions have after the sample's name.
        prediction_palette: A palette for saved predictions, (red, green, blue) for each value.
        is_sequence: Whether neighbours in the order of the names are frames of one video, which folds keep together.
    """

    labels: tuple[Label, ...]
    names: list[str]
    class_sizes: dict[str, float | None] | None = None
    file_labels: tuple[Label, ...] = ()
    prediction_ending: str = ""
    prediction_palette: Sequence[Sequence[int]] | None = None
    is_sequence: bool = False

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Return one sample, from any thread or process; raise UserError naming the file if it cannot be read."""

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the target and the instances of a sample, without reading its image where that is possible."""
        sample = self.read(index)
        return sample.target, sample.instances

    def paths(self, index: int) -> tuple[Path | None, Path | None]:
        """Return the files of a sample's image and of its mask; None where there is no file."""
        return None, None

    def list_files(self, index: int) -> list[Path]:
        """Return all files of a sample."""
        return [path for path in self.paths(index) if path is not None]

    def orientation(self, index: int) -> int:
        """Return how the image of a sample was turned to stand upright, 1..8 as in EXIF, once it has been read."""
        noted = self.__dict__.get("_turned", {}).get(index)
        image = self.paths(index)[0] if noted is None else None
        return noted or (1 if image is None else decode(image, read_orientation))

    def _read_image(self, index: int, path: Path, bits: int | None = None) -> np.ndarray:
        """Read the image of a sample as `read_image` does, and note how it was turned."""
        image, turn = read_image_and_turn(path, bits)
        self.__dict__.setdefault("_turned", {})[index] = turn  # many threads read
        return image

    def locate(self, index: int) -> str:
        """Return where a sample comes from, for messages: its mask's file, else its image's, else its name."""
        image, mask = self.paths(index)
        return str(mask or image or self.names[index])

    def remarks(self) -> list[str]:
        """Return what the user should know, once every sample has been read."""
        return []


class FileDataset(Dataset):
    """A dataset of image files with a mask file each: a subclass sets `images` and `masks`, and reads targets."""

    images: list[Path]
    masks: list[Path]
    image_bits: int | None = None  # how many bits a channel images of 16 bits use; None: see `read_image`
    without_mask: Sequence[Path] = ()  # the images that were left out for want of a mask

    def read(self, index: int) -> Sample:
        image = self._read_image(index, self.images[index], self.image_bits)
        target, instances = self.read_target(index)
        check_sizes(image, self.images[index], target, self.masks[index])
        return Sample(image, target, instances)

    @abstractmethod
    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the target and the instances of a sample."""

    def paths(self, index: int) -> tuple[Path, Path]:
        return self.images[index], self.masks[index]

    def remarks(self) -> list[str]:
        return describe_left_out(self.without_mask, len(self.names))


def describe_left_out(images: Sequence[Path], num_others: int) -> list[str]:
    """Say, if it is so, that images without a mask were left out."""
    return [f"{len(images)} of {len(images) + num_others} images have no mask and are left out "
            f"(dataset.skip_without_mask=true), the first is {images[0]}."] if images else []


class View(Dataset):
    """The samples of another dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.labels, self.names, self.class_sizes = dataset.labels, dataset.names, dataset.class_sizes
        self.file_labels, self.prediction_ending = dataset.file_labels, dataset.prediction_ending
        self.prediction_palette, self.is_sequence = dataset.prediction_palette, dataset.is_sequence

    def source(self, index: int) -> tuple[Dataset, int]:
        """Return the dataset that a sample is from, and its number there."""
        return self.dataset, index

    def read(self, index: int) -> Sample:
        dataset, place = self.source(index)
        return dataset.read(place)

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        dataset, place = self.source(index)
        return dataset.read_target(place)

    def paths(self, index: int) -> tuple[Path | None, Path | None]:
        dataset, place = self.source(index)
        return dataset.paths(place)

    def list_files(self, index: int) -> list[Path]:
        dataset, place = self.source(index)
        return dataset.list_files(place)

    def orientation(self, index: int) -> int:
        dataset, place = self.source(index)
        return dataset.orientation(place)

    def locate(self, index: int) -> str:
        dataset, place = self.source(index)
        return dataset.locate(place)

    def remarks(self) -> list[str]:
        return self.dataset.remarks()


class Cached(View):
    """A dataset whose samples stay in memory once read, locked against writing.

    Workers forked afterwards share that memory, so computing the statistics fills the cache for all of them.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._samples: list[Sample | None] = [None] * len(dataset.names)

    def read(self, index: int) -> Sample:
        sample = self._samples[index]
        if sample is None:
            sample = self._samples[index] = self.dataset.read(index)
            for array in (sample.image, sample.target, sample.instances):
                if array is not None:
                    array.flags.writeable = False  # a transform that works in place would change every later epoch
        return sample


class Picked(View):
    """Some samples of one or several datasets, which have the same classes.

    Args:
        samples: The dataset and the number there of each sample, which has the same name as there.
        remarks: What the user should know, beside what the datasets remark.
    """

    def __init__(self, samples: Sequence[tuple[Dataset, int]], remarks: Sequence[str] = ()) -> None:
        super().__init__(samples[0][0])
        self._samples, self._remarks = list(samples), remarks
        self.names = [dataset.names[index] for dataset, index in samples]

    def source(self, index: int) -> tuple[Dataset, int]:
        return self._samples[index]

    def remarks(self) -> list[str]:
        told = [remark for dataset in dict.fromkeys(dataset for dataset, _ in self._samples)
                for remark in dataset.remarks()]
        return [*self._remarks, *dict.fromkeys(told)]


def take_first(dataset: Dataset, num_samples: int) -> Picked:
    """Return the first samples of a dataset."""
    return Picked([(dataset, index) for index in range(num_samples)])
