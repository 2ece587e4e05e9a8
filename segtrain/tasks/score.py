"""Score a folder of predicted label files on one split: no model, and no images where the dataset can do without."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segtrain.config import build
from segtrain.config.schema import Config, ScoreTask
from segtrain.data.base import Dataset
from segtrain.data.label_files import find_predictions, list_other_labels, read_written_classes
from segtrain.data.statistics import check_instances, describe_all_void
from segtrain.errors import UserError, did_you_mean
from segtrain.inference.evaluator import image_rows, split_results
from segtrain.inference.saved_predictions import count_predictions
from segtrain.labels import Label
from segtrain.metrics.bootstrap import RESAMPLES, miou_interval
from segtrain.metrics.confusion import class_counts
from segtrain.run.results import read_results, results_table, write_config, write_confusion, write_results, write_rows

log = logging.getLogger(__name__)


def run(cfg: Config[ScoreTask], run_dir: Path) -> float | None:
    """Score the files below cfg.task.predictions on cfg.dataset.split and write results.json."""
    if cfg.task.predictions is None:
        raise UserError("task.predictions is needed: the folder that holds the predicted PNG files, "
                        "task.predictions=/data/predictions")
    if cfg.checkpoint is not None:
        raise UserError("task=score reads predictions, not a checkpoint=: leave it out, or use task=evaluate.")
    folder = Path(cfg.task.predictions)
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
    confusion, objects = count_predictions(data, paths, cfg.dataset.instances, read_written_classes(folder))
    if not confusion[:, :-1].any():
        raise UserError(describe_all_void(len(paths), data.locate(0)))
    for remark in data.remarks():
        log.warning("warning: %s", remark)
    if objects is not None:
        _log_sizes(data.labels, objects, class_sizes, source)
    of_split = split_results(data.labels, confusion.sum(0), objects, others=list_other_labels(data),
                             instances=cfg.dataset.instances, class_sizes=class_sizes, num_images=len(paths), loss=None,
                             seconds=time.perf_counter() - started)
    image_counts = class_counts(confusion).numpy()
    results = {"task": "score", "dataset": build.dataset_name(cfg), "split": cfg.dataset.split,
               "fold": cfg.dataset.name_fold(cfg.dataset.split),
               "predictions": str(folder), "checkpoint": None, "epoch": None, "step": None, **of_split,
               "params": None, "macs": None,
               "miou_interval": miou_interval(image_counts), "miou_interval_resamples": RESAMPLES}
    rows = image_rows(data, image_counts, [None] * len(paths))
    write_config(run_dir, cfg)
    write_rows(run_dir / "per_image.csv", list(rows[0]), rows)
    write_confusion(run_dir, results["confusion_matrix"], list(results["iou_per_class"]))
    write_results(run_dir, results)
    log.info("\n%s\n\nresults: %s", results_table(results), run_dir / "results.json")
    return results[cfg.train.monitor]


def _class_sizes(given: Any, data: Dataset,
                 instances: str | None) -> tuple[Mapping[str, float | None] | None, str]:
    """Return the object sizes that weight iIoU, by class name, and where they come from.

    They are task.class_sizes, or those that the dataset fixes, or None.
    """
    if given is None:
        fixed = data.class_sizes if instances == "maps" else None
        return fixed, "those that the dataset fixes"
    if instances is None:
        raise UserError("task.class_sizes is for iIoU: set dataset.instances=maps or components, or leave it out.")
    source = "task.class_sizes"
    if isinstance(given, str):
        path = Path(given)
        path = path / "results.json" if path.is_dir() else path
        source, given = str(path), _read_sizes(path)
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"task.class_sizes={given} must be a results.json or a mapping of sizes in pixels by class "
                        "name, {Car: 1234.5}.")
    names = [label.name for label in data.labels if label.has_instances]
    for name, size in given.items():
        if name not in names:
            raise UserError(f"{source} gives a size of {name}, which is not a class with instances here; those are "
                            f"{', '.join(names)}.{did_you_mean(str(name), names)}")
        if size is not None and (isinstance(size, bool) or not isinstance(size, (int, float))
                                 or not 0 < size < math.inf):
            raise UserError(f"{source} gives {name} the size {size}: it must be a number of pixels above 0.")
    return {str(name): size for name, size in given.items()}, source


def _read_sizes(path: Path) -> Any:
    try:
        sizes = read_results(path)["policy"]["class_sizes"]
    except (UserError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"task.class_sizes={path} is not a results.json of a scored split ({reason}): name one, or "
                        "give the sizes, task.class_sizes={Car: 1234.5}.") from error
    if sizes is None:
        raise UserError(f"task.class_sizes={path} holds no sizes, because it was scored without dataset.instances: "
                        "name another.")
    return sizes


def _log_sizes(labels: Sequence[Label], objects: np.ndarray, sizes: Mapping[str, float | None] | None,
               source: str) -> None:
    """Log which object sizes weight iIoU: they are a part of its definition."""
    names = [labels[train_id].name for train_id in np.unique(objects[:, 0])]
    own = [name for name in names if not (sizes or {}).get(name)]
    if sizes is not None:
        log.info("object sizes for iIoU: %s", source)
    if own:
        log.info("object sizes for iIoU: the means of this split itself for %s; task.class_sizes=results.json takes "
                 "those of a training", ", ".join(own))
