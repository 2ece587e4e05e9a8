"""Mix a training image with others: ClassMix, CutMix, copy-paste and mosaic.

They follow the transforms of each image, in the section augmentation. The other images are drawn from the whole
training split by the sample's own random key, so that batches, processes and a resume change nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from segtrain.data.base import Sample
from segtrain.data.checks import START, check
from segtrain.errors import UserError, unknown_class
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.instances import label_components

Picture = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # image, target, map of what was selected (1) or None


class Mix(ABC):
    """Make one training sample of several.

    Attributes:
        p: How often.
        classes: The names of the classes that are wanted of the other images; None: no particular ones.
        train_ids: Their train ids, once `bind` was called.
        num_others: How many other images are needed.
    """

    num_others = 1

    def __init__(self, p: float = 0.5, classes: list[str] | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p={p} must be from 0 to 1")
        self.p, self.classes = p, classes
        self.train_ids: list[int] = []

    @check(START, "classes of a mix that are none of the dataset's")
    def bind(self, labels: Sequence[Label], key: str) -> None:
        """Look the classes up in those of the dataset; `key` is the place of the mix in the config."""
        names = [label.name for label in labels]
        for name in self.classes or ():
            if name not in names:
                raise unknown_class(f"{key}.classes", name, names)
        self.train_ids = [names.index(name) for name in self.classes or ()]

    def select(self, sample: Sample, rng: np.random.Generator) -> np.ndarray | None:
        """Return what another image is wanted for, before it is transformed: uint8 (H, W) of 0 and 1; None: all."""
        return None

    @abstractmethod
    def combine(self, image: np.ndarray, target: np.ndarray, others: Sequence[Picture],
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the mixed image, uint8 (H, W, 3), and target, uint8 (H, W), of images of one size."""


class ClassMix(Mix):
    """Put half of the classes that another image shows, with all their pixels, onto the image; void is never put.

    Source: Olsson et al., "ClassMix: Segmentation-based data augmentation for semi-supervised learning" (WACV 2021).

    Args:
        p: How often.
        classes: Only these, all of them that are shown.
    """

    def select(self, sample: Sample, rng: np.random.Generator) -> np.ndarray | None:
        return np.isin(sample.target, self.train_ids).view(np.uint8) if self.train_ids else None

    def combine(self, image: np.ndarray, target: np.ndarray, others: Sequence[Picture],
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        other, other_target, _ = others[0]
        shown = np.setdiff1d(np.unique(other_target), [IGNORE_INDEX])
        chosen = self.train_ids or rng.permutation(shown)[:(len(shown) + 1) // 2]
        return _put(image, target, other, other_target, np.isin(other_target, chosen))


class CutMix(Mix):
    """Put a rectangle of another image onto the image, void pixels included.

    Source: Yun et al., "CutMix" (ICCV 2019), for segmentation as in French et al. (BMVC 2020).

    Args:
        p: How often.
        alpha: The share of the rectangle is drawn from Beta(alpha, alpha); 1: any is as probable.
    """

    def __init__(self, p: float = 0.5, alpha: float = 1.0) -> None:
        super().__init__(p)
        if not 0 < alpha < 1000:
            raise ValueError(f"alpha={alpha} must be above 0 and below 1000")
        self.alpha = alpha

    def combine(self, image: np.ndarray, target: np.ndarray, others: Sequence[Picture],
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        side = np.sqrt(rng.beta(self.alpha, self.alpha))
        lengths = [max(1, round(side * length)) for length in target.shape]
        top, left = (int(rng.integers(0, whole - length + 1))
                     for whole, length in zip(target.shape, lengths, strict=True))
        mask = np.zeros(target.shape, bool)
        mask[top:top + lengths[0], left:left + lengths[1]] = True
        return _put(image, target, *others[0][:2], mask)


class CopyPaste(Mix):
    """Put objects of another image onto the image: of its instance map, or else connected regions of its classes.

    Source: Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation" (CVPR
    2021).

    Args:
        p: How often.
        classes: Objects of these; None: of the classes that have instances.
        share: The probability of each object to be put; one always is.
    """

    def __init__(self, p: float = 0.5, classes: list[str] | None = None, share: float = 0.5) -> None:
        super().__init__(p, classes)
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must be above 0 and at most 1")
        self.share = share

    @check(START, "copy-paste without classes of objects")
    def bind(self, labels: Sequence[Label], key: str) -> None:
        super().bind(labels, key)
        self.train_ids = self.train_ids or [label.train_id for label in labels if label.has_instances]
        if not self.train_ids:
            raise UserError(f"{key} needs classes with instances, and the dataset has none: name some, "
                            f"{key}.classes=[NAME].")

    def select(self, sample: Sample, rng: np.random.Generator) -> np.ndarray | None:
        objects = sample.instances
        if objects is None:
            objects = label_components(sample.target, self.train_ids)
        objects = np.where(np.isin(sample.target, self.train_ids), objects, 0)
        numbers = np.setdiff1d(np.unique(objects), [0])
        chosen = numbers[rng.random(len(numbers)) < self.share] if len(numbers) else numbers
        if not len(chosen) and len(numbers):
            chosen = rng.choice(numbers, 1)
        return np.isin(objects, chosen).view(np.uint8)

    def combine(self, image: np.ndarray, target: np.ndarray, others: Sequence[Picture],
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        other, other_target, selected = others[0]
        assert selected is not None, "it was selected"
        return _put(image, target, other, other_target, (selected == 1) & (other_target != IGNORE_INDEX))


class Mosaic(Mix):
    """Let four images meet at a random point in the middle half, each in its own corner; nothing is resized.

    Source: Bochkovskiy et al., "YOLOv4" (2020).

    Args:
        p: How often.
    """

    num_others = 3

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def combine(self, image: np.ndarray, target: np.ndarray, others: Sequence[Picture],
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        row, column = (round(length * rng.uniform(0.25, 0.75)) for length in target.shape)
        corners = ((slice(None, row), slice(column, None)), (slice(row, None), slice(None, column)),
                   (slice(row, None), slice(column, None)))
        image, target = image.copy(), target.copy()
        for (other, other_target, _), corner in zip(others, corners, strict=True):
            image[corner], target[corner] = other[corner], other_target[corner]
        return image, target


def _put(image: np.ndarray, target: np.ndarray, other: np.ndarray, other_target: np.ndarray,
         mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the pixels of a mask, bool (H, W), from another image onto one."""
    return np.where(mask[..., None], other, image), np.where(mask, other_target, target)
