"""Compare saved predictions, label files, with their targets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from segtrain.data.base import Dataset
from segtrain.data.images import read_mask
from segtrain.data.label_files import UNKNOWN, list_other_labels, map_predicted_ids
from segtrain.data.statistics import check_counts, find_instances, list_instance_classes
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError, list_first
from segtrain.metrics.categories import number_categories
from segtrain.metrics.confusion import count_values, fold_pairs
from segtrain.metrics.instances import count_instances


def count_predictions(data: Dataset, paths: Sequence[Path], instances: str | None,
                      written: Mapping[str, int] | None = None,
                      ) -> tuple[torch.Tensor, np.ndarray | None]:
    """Count every pair of target and prediction, on all cores.

    Args:
        data: The split.
        paths: The prediction of each of its N images.
        instances: Where objects come from, "maps", "components" or None.
        written: The value of each class in the predictions, where it is known.

    Returns:
        The confusion matrices, (N, K+1, P+1), int64, and the rows of `count_instances` of all images, (U, 4), int64;
        None without `instances`.

    Raises:
        UserError: If pairs are at fault; it names the first, and holds the files of all.
    """
    table, num_classes = map_predicted_ids(data, written), len(data.labels)
    others = list_other_labels(data)
    num_predicted = num_classes + len(others)
    class_ids, categories = list_instance_classes(data.labels), number_categories([*data.labels, *others])
    ids: np.ndarray = np.where(table == UNKNOWN, num_predicted, table).astype(np.int16)
    classes = (f"label ids 0..{max(label.label_id for label in data.file_labels)}" if data.file_labels
               else f"train ids 0..{num_classes - 1} (255 is no class)")

    def count(index: int) -> tuple[torch.Tensor, np.ndarray] | UserError:
        file = data.locate(index)
        try:
            target, own = data.read_target(index)
            found = None if instances is None else find_instances(target, own, data.labels, instances, file)
            file = str(paths[index])
            pred = read_mask(paths[index])
            if pred.shape != target.shape:
                raise UserError(f"{file} is {pred.shape[1]}x{pred.shape[0]} but its target {data.locate(index)} is "
                                f"{target.shape[1]}x{target.shape[0]}: predict at the target's size.")
            pairs = count_values(target, pred)
            pixels = pairs.sum(1)
            check_counts({int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}, data.labels,
                         data.locate(index))
            _check_prediction(pairs.sum(0), table, classes, file)
        except UserError as error:
            return UserError(str(error), error.files or [file])
        objects = np.zeros((0, 4), np.int64)
        if found is not None:
            predicted: np.ndarray = cv2.LUT(pred, ids)
            objects = count_instances(predicted, target, found, class_ids, categories)
        return fold_pairs(pairs, ids, num_classes, num_predicted), objects

    counted = list(tqdm(map_in_order(count, len(paths)), desc="scoring", total=len(paths), unit="image", leave=False,
                        disable=None))
    faults = [result for result in counted if isinstance(result, UserError)]
    if faults:
        more = f" ({len(faults)} of {len(paths)} pairs of target and prediction are at fault)" if faults[1:] else ""
        raise UserError(f"{faults[0]}{more}", [file for fault in faults for file in fault.files])
    confusion, objects = zip(*(result for result in counted if not isinstance(result, UserError)), strict=True)
    return torch.stack(confusion), None if instances is None else np.concatenate(objects)


def _check_prediction(counts: np.ndarray, table: np.ndarray, classes: str, file: str) -> None:
    unknown = np.flatnonzero((counts > 0) & (table == UNKNOWN))
    if len(unknown):
        values = list_first([f"{value} ({counts[value]} pixels)" for value in unknown])
        raise UserError(f"{file} holds the value {values}, which is not a class: predictions hold {classes}.")
