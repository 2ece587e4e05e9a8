"""Check that a dataset has the classes that a network was trained for: by their names, never by their number."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from segtrain.data.base import Dataset, Sample, View
from segtrain.data.checks import MATCHED, check
from segtrain.errors import UserError, did_you_mean, list_first, list_part
from segtrain.labels import IGNORE_INDEX, Label

log = logging.getLogger(__name__)


class Reordered(View):
    """A dataset whose classes are numbered in another order.

    Attributes:
        original_ids: The dataset's train id for each one of this view, uint8 (256,); 255 stays void.
    """

    def __init__(self, dataset: Dataset, order: Sequence[int]) -> None:
        super().__init__(dataset)
        self.labels = tuple(replace(dataset.labels[train_id], train_id=place) for place, train_id in enumerate(order))
        places = {label.name: label.train_id for label in self.labels}
        self.file_labels = tuple(replace(label, train_id=places.get(label.name, label.train_id))
                                 if label.train_id != IGNORE_INDEX else label for label in dataset.file_labels)
        if self.prediction_palette is not None and not self.file_labels:
            palette = list(self.prediction_palette)
            self.prediction_palette = [*(palette[train_id] for train_id in order), *palette[len(order):]]
        self.original_ids: np.ndarray = np.arange(256, dtype=np.uint8)
        self.original_ids[:len(order)] = order
        self._ids: np.ndarray = np.argsort(self.original_ids).astype(np.uint8)

    def read(self, index: int) -> Sample:
        sample = self.dataset.read(index)
        return replace(sample, target=cv2.LUT(sample.target, self._ids))

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        target, instances = self.dataset.read_target(index)
        return cv2.LUT(target, self._ids), instances


def to_original(data: Dataset, pred: np.ndarray) -> tuple[Dataset, np.ndarray]:
    """Return a dataset with the numbering of its files, and a prediction (H, W) in that numbering."""
    view = data
    while isinstance(view, View):
        if isinstance(view, Reordered):
            return view.dataset, view.original_ids[pred]
        view = view.dataset
    return data, pred


@check(MATCHED, "classes of other names than the checkpoint's; the same in another order are matched by name")
def match_classes(data: Dataset, trained: Sequence[Label], class_map: Mapping[str, str] | None,
                  path: Path) -> Dataset:
    """Return a dataset with the train ids of the network's classes, which are found by their names.

    Args:
        data: The dataset.
        trained: The classes that the network was trained for.
        class_map: dataset.class_map, the dataset's names for classes of the network that have others there.
        path: The checkpoint, for messages.

    Raises:
        UserError: If the dataset has other classes; it lists both.
    """
    if class_map:
        _check_map(class_map, trained, data)
    names = [(class_map or {}).get(label.name, label.name) for label in trained]
    own = {label.name: label for label in data.labels}
    if sorted(names) != sorted(own):
        raise UserError(
            f"{path} was trained for other classes than the dataset has: "
            f"{list_part('only in the checkpoint', sorted({*names} - own.keys()))}"
            f"{list_part('only in the dataset', sorted(own.keys() - {*names}))}"
            f"the checkpoint's classes are {_all(trained)}, the dataset's {_all(data.labels)}. If only names differ, "
            "map them, dataset.class_map={CHECKPOINT_NAME: DATASET_NAME}; to train for other classes, set "
            "train.new_head=true.")
    for label, name in zip(trained, names, strict=True):
        if label.has_instances != own[name].has_instances:
            log.warning("warning: %s has instances in the %s only: iIoU follows the dataset", name,
                        "dataset" if own[name].has_instances else "checkpoint")
    order = [own[name].train_id for name in names]
    if order == list(range(len(order))):
        return data
    log.info("the dataset lists the classes in another order than %s: they are matched by name", path)
    return Reordered(data, order)


@check(MATCHED, "splits of other classes; the same in another order are matched by name")
def match_splits(data: Dataset, labels: Sequence[Label], split: str, first: str) -> Dataset:
    """Return a split with the train ids of another one's classes, which are found by their names.

    Args:
        data: The split.
        labels: The classes of the other one.
        split: The name of the split, for messages.
        first: That of the other one.

    Raises:
        UserError: If it has other classes; it lists those that only one of them has.
    """
    own, names = {label.name: label for label in data.labels}, [label.name for label in labels]
    if sorted(own) != sorted(names):
        alone, other = sorted({*names} - own.keys()), sorted(own.keys() - {*names})
        pairs = [(name, hint) for name in other for hint in [did_you_mean(name, alone)] if hint]
        hint = f" For {pairs[0][0]} in {split}:{pairs[0][1]}" if pairs else ""
        raise UserError(f"{first} and {split} have different classes: {list_part(f'only in {first}', alone)}"
                        f"{list_part(f'only in {split}', other)}give all splits the same, for instance with a class "
                        f"file (dataset.classes).{hint}")
    order = [own[name].train_id for name in names]
    return data if order == list(range(len(order))) else Reordered(data, order)


@check(MATCHED, "names in dataset.class_map that are of no class")
def _check_map(class_map: Mapping[str, str], trained: Sequence[Label], data: Dataset) -> None:
    for what, given, known in (("checkpoint", class_map, trained), ("dataset", class_map.values(), data.labels)):
        names = [label.name for label in known]
        for name in given:
            if name not in names:
                raise UserError(f"dataset.class_map names {name}, which is not a class of the {what}: its classes are "
                                f"{', '.join(names)}.")


def _all(labels: Sequence[Label]) -> str:
    return list_first([label.name for label in labels], 30)
