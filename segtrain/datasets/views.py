"""Datasets seen through something: a cache, the first samples only."""

from segtrain.datasets.base import Dataset, Sample

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
