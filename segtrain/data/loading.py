"""From a dataset to batches: what is random about a sample comes from (seed, epoch, index) alone."""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segtrain.data.base import Dataset
from segtrain.data.mixes import Mix, Picture
from segtrain.data.sampling import ClassSampling
from segtrain.data.statistics import find_instances
from segtrain.data.transforms import Augmentation, pad_to
from segtrain.errors import UserError
from segtrain.metrics.confusion import count_values

# image, target, index, instances, pixels of each value of the target
_Item = tuple[np.ndarray, np.ndarray, int, np.ndarray | None, np.ndarray | None]
OF_MIXES = 2**32 - 2  # sets the random numbers of mixes apart from those of transforms

cv2.setNumThreads(0)  # workers are the parallelism; OpenCV's own threads would fight torch's for the cores


@dataclass
class Batch:
    """Samples stacked for the device."""

    images: Tensor  # uint8 (N, H, W, C), RGB 0..255
    targets: Tensor  # uint8 (N, H, W), train ids or 255
    indices: list[int]  # the samples' numbers in the dataset
    instances: list[np.ndarray] | None = None  # for evaluation with instances, each sample's map, int32 (H, W)
    pixels: np.ndarray | None = None  # in training, the pixels of each value of the targets, int64 (256,)

    def pin_memory(self) -> "Batch":
        """Move the batch to pinned memory (called by the DataLoader)."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices, self.instances,
                     self.pixels)


class TrainingSampler:
    """Yield the batches of one epoch as lists of (epoch, index), shuffled by (seed, epoch).

    With class sampling they are of (epoch, index, place in the epoch, train id that it is drawn for or -1).

    Samples left over after the last whole batch wait for another epoch's order, so that every step sees
    batch_size images and BatchNorm never a lone one. Several processes cut the order into batches for all of them, of
    which each takes its part: together they see in a step what one process sees with a batch so many times as large.
    `batch_size` counts the images of one process; ValueError if there would be no batch.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int, *, rank: int = 0, num_processes: int = 1,
                 sampling: ClassSampling | None = None) -> None:
        if not 1 <= batch_size * num_processes <= num_samples:
            raise ValueError(f"batch_size={batch_size} of {num_processes} must be from 1 to the number of samples, "
                             f"{num_samples}")
        self._num_samples, self._batch_size, self._seed = num_samples, batch_size, seed
        self._rank, self._num_processes, self._sampling = rank, num_processes, sampling
        self.epoch = 0
        self.first_image = 0

    def __len__(self) -> int:
        return self.batches_left(self.first_image)

    def batches_left(self, first_image: int) -> int:
        return (self._num_samples - first_image) // (self._batch_size * self._num_processes)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._num_samples)
        train_ids = None
        if self._sampling is not None:
            order, train_ids = self._sampling.draw(order, self._seed, self.epoch)
        for number in range(len(self)):
            start = self.first_image + (number * self._num_processes + self._rank) * self._batch_size
            places = range(start, start + self._batch_size)
            yield [(self.epoch, int(order[place]), *(() if train_ids is None else (place, int(train_ids[place]))))
                   for place in places]


class _TrainingSamples:
    """A map from what `TrainingSampler` yields to an augmented sample, for the DataLoader."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, seed: int, places: Sequence[np.ndarray]) -> None:
        self._dataset, self._augmentation, self._seed, self._places = dataset, augmentation, seed, places

    def __getitem__(self, item: tuple[int, ...]) -> _Item:
        epoch, index, *drawn = item
        # an image may be drawn several times in an epoch, and is cropped anew each time
        key = (self._seed, epoch, index, *(drawn[:1]))
        sample = self._dataset.read(index)
        wanted = (sample.target == drawn[1]).view(np.uint8) if drawn and drawn[1] >= 0 else None
        image, target, _ = self._augmentation.transform(sample.image, sample.target, key, wanted)
        for number, (name, mix) in enumerate(self._augmentation.mixes.items()):
            rng = np.random.default_rng([*key, OF_MIXES, number])
            if rng.random() >= mix.p:
                continue
            others = [self._draw_other(mix, rng, (*key, OF_MIXES, number, other)) for other in range(mix.num_others)]
            shape = next((other[1].shape for other in others if other[1].shape != target.shape), None)
            if shape is not None:
                raise UserError(f"augmentation.{name} mixes images of one size, but one is {shape[1]}x{shape[0]} and "
                                f"another {target.shape[1]}x{target.shape[0]}: crop them, as augmentation=crop_flip "
                                "does.")
            image, target = mix.combine(image, target, others, rng)
        return image, target, index, None, count_values(np.ascontiguousarray(target))

    def _draw_other(self, mix: Mix, rng: np.random.Generator, key: Sequence[int]) -> Picture:
        """Draw another image, of those that show a class that the mix wants."""
        wanted = [train_id for train_id in mix.train_ids if len(self._places[train_id])]
        index = int(rng.choice(self._places[rng.choice(wanted)]) if wanted else rng.integers(len(self._dataset.names)))
        sample = self._dataset.read(index)
        return self._augmentation.transform(sample.image, sample.target, key, mix.select(sample, rng))


class _EvaluationSamples:
    """A map from index to a sample as it is, for the DataLoader."""

    def __init__(self, dataset: Dataset, instances: str | None) -> None:
        self._dataset, self._instances = dataset, instances

    def __getitem__(self, index: int) -> _Item:
        sample = self._dataset.read(index)
        if self._instances is None:
            return sample.image, sample.target, index, None, None
        found = find_instances(sample.target, sample.instances, self._dataset.labels, self._instances,
                               self._dataset.locate(index))
        return sample.image, sample.target, index, found, None


class TrainingLoader:
    """Load the batches of any epoch, from any batch on; the same stream for any number of workers.

    Every sample is augmented with the key (seed, epoch, index). `workers` are loader processes; 0 loads in this one.
    `places` are for each class the samples that show it, which mixes with classes need. For the rest see
    `TrainingSampler`.
    """

    def __init__(self, dataset: Dataset, augmentation: Augmentation, *, batch_size: int, seed: int, workers: int,
                 pin_memory: bool, rank: int = 0, num_processes: int = 1, sampling: ClassSampling | None = None,
                 places: Sequence[np.ndarray] = ()) -> None:
        self._sampler = TrainingSampler(len(dataset.names), batch_size, seed, rank=rank, num_processes=num_processes,
                                        sampling=sampling)
        self._loader = _make_loader(_TrainingSamples(dataset, augmentation, seed, places), self._sampler, workers,
                                    pin_memory, persistent=True)
        self.batches_per_epoch = len(self._sampler)

    def batches_left(self, first_image: int) -> int:
        """Return how many batches an epoch has after its first images."""
        return self._sampler.batches_left(first_image)

    def batches(self, epoch: int, first_image: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch (counted from 0), skipping its first images, those of all processes.

        Only one epoch is loaded at a time: end or drop an iteration before the next begins.
        """
        self._sampler.epoch, self._sampler.first_image = epoch, first_image
        return _unwrap_errors(self._loader)

    def close(self) -> None:
        """End the worker processes; left to the end of the process, torch reports them as killed."""
        if self._loader._iterator is not None:  # torch has no public way
            self._loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


def load_for_evaluation(dataset: Dataset, sizes: Sequence[tuple[int, int]], *, instances: str | None, batch_size: int,
                        workers: int, pin_memory: bool, rank: int = 0, num_processes: int = 1) -> Iterator[Batch]:
    """Yield a split once, in order, unaugmented; of several processes each takes its turn of the same batches.

    `sizes` are (height, width) of every sample; `instances` says where objects come from, "maps" or "components", None
    leaves them out; a batch has at most batch_size images.
    """
    groups = group_for_evaluation(sizes, batch_size)[rank::num_processes]
    return _unwrap_errors(_make_loader(_EvaluationSamples(dataset, instances), groups, workers, pin_memory,
                                       persistent=False))


def group_for_evaluation(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Return the samples of every batch of an evaluation.

    Only neighbours of one size share a batch: padding would reach into the network's output at the border, and a
    score must not depend on the batch size.
    """
    groups: list[list[int]] = []
    for index, size in enumerate(sizes):
        if groups and len(groups[-1]) < batch_size and sizes[groups[-1][0]] == size:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _make_loader(samples: object, batches: object, workers: int, pin_memory: bool, persistent: bool) -> DataLoader:
    return DataLoader(
        samples,  # type: ignore[arg-type]  # any map serves
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        persistent_workers=persistent and workers > 0,
        worker_init_fn=_start_worker,
        # its own generator: the loader's draws must not shift torch's global stream, which a resume restores
        generator=torch.Generator().manual_seed(0),
    )


def _unwrap_errors(loader: DataLoader) -> Iterator[Batch]:
    """Iterate, with a worker's UserError as it was raised, without the traceback that the DataLoader adds to it."""
    try:
        yield from loader
    except UserError as error:
        if loader.num_workers == 0:
            raise
        message = str(error).rstrip().rsplit("UserError: ", 1)[-1]
        # The traceback leads back to the error and to the loader's iterator: left to the garbage collector, this circle
        # would hold up the end of the process by five seconds a worker.
        error.__traceback__ = None
        raise UserError(message) from None


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _collate(samples: list[_Item]) -> Batch:
    images, targets, indices, instances, pixels = zip(*samples, strict=True)
    height = max(target.shape[0] for target in targets)
    width = max(target.shape[1] for target in targets)
    padded = [pad_to(image, target, height, width) for image, target in zip(images, targets, strict=True)]
    return Batch(torch.from_numpy(np.stack([image for image, _ in padded])),
                 torch.from_numpy(np.stack([target for _, target in padded])),
                 list(indices),
                 None if instances[0] is None else list(instances),
                 None if pixels[0] is None else np.sum(pixels, axis=0))
