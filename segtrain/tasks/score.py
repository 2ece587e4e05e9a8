"""Score a folder of predicted label files on one split: no model, and no images where the dataset can do without."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from segtrain.config import build
from segtrain.config.schema import Config, ScoreTask
from segtrain.data.base import Dataset
from segtrain.data.images import read_mask
from segtrain.data.label_files import UNKNOWN, find_predictions, other_labels, predicted_ids
from segtrain.data.statistics import (
    all_void,
    check_counts,
    check_instances,
    find_instances,
    instance_classes,
)
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError, did_you_mean, list_first
from segtrain.inference.evaluator import image_rows, split_results
from segtrain.labels import Label
from segtrain.metrics.categories import category_ids
from segtrain.metrics.confusion import class_counts, count_pairs, fold_pairs
from segtrain.metrics.instances import count_instances
from segtrain.run.results import results_table, write_config, write_confusion, write_json, write_rows

log = logging.getLogger(__name__)


def run(cfg: Config[ScoreTask], run_dir: Path) -> float | None:
    """Score the files below cfg.task.predictions on cfg.dataset.split and write results.json.

    Returns:
        The score that train.monitor names.
    """
    if cfg.task.predictions is None:
        raise UserError("task.predictions is needed: the folder that holds the predicted PNG files, "
                        "task.predictions=/data/predictions")
    if cfg.checkpoint is not None:
        raise UserError("task=score reads predictions, not a checkpoint=: leave it out, or use task=evaluate.")
    folder = Path(cfg.task.predictions).expanduser()
    data = build.dataset(cfg, cfg.dataset.split, targets_only=True)
    check_instances(data.labels, cfg.dataset.instances)
    class_sizes, source = _class_sizes(cfg.task.class_sizes, data, cfg.dataset.instances)
    paths, unused = find_predictions(data, folder)
    cfg = build.settle(cfg, torch.device("cpu"), num_classes=len(data.labels), cached_in_memory=True)
    log.info("scoring the predictions in %s on %d targets of %s %s", folder, len(paths), build.dataset_name(cfg),
             cfg.dataset.split)
    if unused:
        log.warning("warning: %d files below %s belong to no target and are left out, the first is %s", len(unused),
                    folder, unused[0])

    started = time.perf_counter()
    counts = _count_all(data, paths, cfg.dataset.instances)
    confusion = torch.stack([each.confusion for each in counts])
    if not confusion[:, :-1].any():
        raise UserError(all_void(len(paths), data.locate(0)))
    for remark in data.remarks():
        log.warning("warning: %s", remark)
    objects = None
    if cfg.dataset.instances is not None:
        objects = np.concatenate([each.objects for each in counts])
        _tell_sizes(data.labels, objects, class_sizes, source)
    of_split = split_results(data.labels, confusion.sum(0), objects, others=other_labels(data),
                             instances=cfg.dataset.instances, class_sizes=class_sizes, num_images=len(paths), loss=None,
                             seconds=time.perf_counter() - started)
    results = {"task": "score", "dataset": build.dataset_name(cfg), "split": cfg.dataset.split,
               "predictions": str(folder), "checkpoint": None, "epoch": None, "step": None, **of_split,
               "params": None, "macs": None}
    rows = image_rows(data, class_counts(confusion).numpy(), [None] * len(paths))
    write_config(run_dir, cfg)
    write_rows(run_dir / "per_image.csv", list(rows[0]), rows)
    write_confusion(run_dir, results["confusion_matrix"], list(results["iou_per_class"]))
    write_json(run_dir / "results.json", results)
    log.info("\n%s\n\nresults: %s", results_table(results), run_dir / "results.json")
    return results[cfg.train.monitor]


# ---- counting


@dataclass
class _Counts:
    """What was counted in one image: a confusion matrix (K+1, P+1), and the rows of `count_instances`."""

    confusion: torch.Tensor
    objects: np.ndarray


def _count_all(data: Dataset, paths: Sequence[Path], instances: str | None) -> list[_Counts]:
    """Count every pair of target and prediction, on all cores.

    Raises:
        UserError: If pairs are at fault; it says what is wrong with the first, and holds the files of all.
    """
    table, num_classes = predicted_ids(data), len(data.labels)
    others = other_labels(data)
    num_predicted = num_classes + len(others)
    class_ids, categories = instance_classes(data.labels), category_ids([*data.labels, *others])
    ids: np.ndarray = np.where(table == UNKNOWN, num_predicted, table).astype(np.int16)
    classes = (f"label ids 0..{max(label.label_id for label in data.file_labels)}" if data.file_labels
               else f"train ids 0..{num_classes - 1} (255 is no class)")

    def count(index: int) -> _Counts | UserError:
        file = data.locate(index)
        try:
            target, own = data.read_target(index)
            found = None if instances is None else find_instances(target, own, data.labels, instances, file)
            file = str(paths[index])
            pred = read_mask(paths[index])
            if pred.shape != target.shape:
                raise UserError(f"{file} is {pred.shape[1]}x{pred.shape[0]} but its target {data.locate(index)} is "
                                f"{target.shape[1]}x{target.shape[0]}: predict at the target's size.")
            pairs = count_pairs(pred, target)
            check_counts(pairs.sum(1), data.labels, data.locate(index))
            _check_prediction(pairs.sum(0), table, classes, file)
        except UserError as error:
            return UserError(str(error), error.files or [file])
        objects = np.zeros((0, 4), np.int64)
        if found is not None:
            predicted: np.ndarray = cv2.LUT(pred, ids)
            objects = count_instances(predicted, target, found, class_ids, categories)
        return _Counts(fold_pairs(pairs, ids, num_classes, num_predicted), objects)

    bar = tqdm(map_in_order(count, len(paths)), desc="scoring", total=len(paths), unit="image", leave=False,
               disable=None)
    counted = list(bar)
    faults = [each for each in counted if isinstance(each, UserError)]
    if faults:
        more = f" ({len(faults)} of {len(paths)} pairs of target and prediction are at fault)" if faults[1:] else ""
        raise UserError(f"{faults[0]}{more}", [file for fault in faults for file in fault.files])
    return [each for each in counted if isinstance(each, _Counts)]


def _check_prediction(counts: np.ndarray, table: np.ndarray, classes: str, file: str) -> None:
    unknown = np.flatnonzero((counts > 0) & (table == UNKNOWN))
    if len(unknown):
        values = list_first([f"{value} ({counts[value]} pixels)" for value in unknown])
        raise UserError(f"{file} holds the value {values}, which is not a class: predictions hold {classes}.")


# ---- the sizes of objects


def _class_sizes(given: Any, data: Dataset, instances: str | None) -> tuple[dict[str, float | None] | None, str]:
    """Settle the sizes that iIoU weighs with: task.class_sizes, or those that the dataset fixes, or None.

    Returns:
        The sizes by class name, and where they come from.

    Raises:
        UserError: If task.class_sizes is of no use.
    """
    if given is None:
        fixed = data.class_sizes if instances == "maps" else None
        return fixed, "those that the dataset fixes"
    if instances is None:
        raise UserError("task.class_sizes is for iIoU: set dataset.instances=maps or components, or leave it out.")
    source = "task.class_sizes"
    if isinstance(given, str):
        path = Path(given).expanduser()
        path = path / "results.json" if path.is_dir() else path
        source, given = str(path), _read_sizes(path)
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"task.class_sizes={given} must be a results.json or a mapping of sizes in pixels by class "
                        "name, {Car: 1234.5}.")
    names = [label.name for label in data.labels if label.has_instances]
    for name, size in given.items():
        if name not in names:
            raise UserError(f"{source} gives a size of {name}, which is no class with instances here; those are "
                            f"{', '.join(names)}.{did_you_mean(str(name), names)}")
        if size is not None and (isinstance(size, bool) or not isinstance(size, (int, float))
                                 or not 0 < size < math.inf):
            raise UserError(f"{source} gives {name} the size {size}: it must be a number of pixels above 0.")
    return {str(name): size for name, size in given.items()}, source


def _read_sizes(path: Path) -> Any:
    try:
        sizes = json.loads(path.read_text(encoding="utf-8"))["policy"]["class_sizes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"task.class_sizes={path} is no results.json of a scored split ({reason}): name one, or give "
                        "the sizes, task.class_sizes={Car: 1234.5}.") from error
    if sizes is None:
        raise UserError(f"task.class_sizes={path} holds no sizes, for it was scored without dataset.instances: "
                        "name another.")
    return sizes


def _tell_sizes(labels: Sequence[Label], objects: np.ndarray, sizes: Mapping[str, float | None] | None,
                source: str) -> None:
    """Say which object sizes iIoU weighs with: they are a part of its definition."""
    own = [labels[train_id].name for train_id in np.unique(objects[:, 0]) if not (sizes or {}).get(
        labels[train_id].name)]
    if sizes is not None:
        log.info("object sizes for iIoU: %s", source)
    if own:
        log.info("object sizes for iIoU: the means of this split itself for %s; task.class_sizes=results.json takes "
                 "those of a training", ", ".join(own))
