"""What every dataset offers: classes, names, and samples read by number."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segtrain.data.image_form import RGB, ImageForm, Pixels, read_pixels
from segtrain.data.images import check_sizes, decode, read_orientation
from segtrain.data.rasters import Window
from segtrain.labels import IGNORE_INDEX, Label


@dataclass(frozen=True)
class Sample:
    """One image with its target.

    Attributes:
        image: uint8 (H, W, 3) RGB; with dataset.channels (H, W, channels), uint8 or float32, both in 0..255.
        target: uint8 (H, W) train ids, 255 = void; other values are refused when the statistics are computed.
        instances: int32 (H, W), a number above 0 for each separate object, 0 elsewhere; None without instance maps.
        nodata: bool (H, W), where the image has no data: it is 0 there, and the target void. None: nowhere.
    """

    image: np.ndarray
    target: np.ndarray
    instances: np.ndarray | None = None
    nodata: np.ndarray | None = None


def make_sample(pixels: Pixels, target: np.ndarray, instances: np.ndarray | None) -> Sample:
    """Join an image that was read with its target, which becomes void where the image has no data."""
    if pixels.nodata is not None:
        target = np.where(pixels.nodata, np.uint8(IGNORE_INDEX), target)
    return Sample(pixels.image, target, instances, pixels.nodata)


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
        settings: What its samples follow from beside their files, so that what is known of them may be kept; None: not
            known.
        is_sequence: Whether neighbours in the order of the names are frames of one video, which folds keep together.
        form: What its images are read as, where it reads image files; whoever builds it sets this before any is read.
    """

    labels: tuple[Label, ...]
    names: list[str]
    class_sizes: dict[str, float | None] | None = None
    file_labels: tuple[Label, ...] = ()
    prediction_ending: str = ""
    prediction_palette: Sequence[Sequence[int]] | None = None
    settings: str | None = None
    is_sequence: bool = False
    form: ImageForm = RGB

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

    def list_sources(self, index: int) -> list[Path] | None:
        """Return all files that a sample's content follows from, whether they are there or not; None: not known."""
        return None

    def orientation(self, index: int) -> int:
        """Return how the image of a sample was turned to stand upright, 1..8 as in EXIF, once it has been read."""
        noted = self.__dict__.get("_turned", {}).get(index)
        image = self.paths(index)[0] if noted is None else None
        return noted or (1 if image is None else decode(image, read_orientation))

    def _read_image(self, index: int, path: Path, window: Window | None = None) -> Pixels:
        """Read the image of a sample as `form` says, and note how it was turned."""
        pixels = read_pixels(path, self.form, window)
        self.__dict__.setdefault("_turned", {})[index] = pixels.turn  # many threads read
        return pixels

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
    windows: Sequence[Window] | None = None  # of each sample, the part of the files that it is; None: the whole
    without_mask: Sequence[Path] = ()  # the images that were left out for want of a mask

    def read(self, index: int) -> Sample:
        pixels = self._read_image(index, self.images[index], None if self.windows is None else self.windows[index])
        target, instances = self.read_target(index)
        check_sizes(pixels.image, self.images[index], target, self.masks[index])
        return make_sample(pixels, target, instances)

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

    @property
    def form(self) -> ImageForm:
        return self.dataset.form

    @form.setter
    def form(self, form: ImageForm) -> None:
        for dataset in self._sources():
            dataset.form = form

    def _sources(self) -> list[Dataset]:
        """Return the datasets that samples are from."""
        return [self.dataset]

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

    def list_sources(self, index: int) -> list[Path] | None:
        dataset, place = self.source(index)
        return dataset.list_sources(place)

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
            for array in (sample.image, sample.target, sample.instances, sample.nodata):
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

    def _sources(self) -> list[Dataset]:
        return list(dict.fromkeys(dataset for dataset, _ in self._samples))

    def remarks(self) -> list[str]:
        told = [remark for dataset in self._sources() for remark in dataset.remarks()]
        return [*self._remarks, *dict.fromkeys(told)]


def take_first(dataset: Dataset, num_samples: int) -> Picked:
    """Return the first samples of a dataset."""
    return Picked([(dataset, index) for index in range(num_samples)])
