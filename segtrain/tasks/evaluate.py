"""Score a checkpoint on one split."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pooch import file_hash

from segtrain.config import build
from segtrain.config.schema import Config, EvaluateTask
from segtrain.data.base import Dataset
from segtrain.data.label_files import locate_prediction, write_prediction
from segtrain.data.statistics import DatasetStatistics, compute_statistics, describe_all_void
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.inference.details import Details
from segtrain.inference.evaluator import draw_worst, score_split
from segtrain.inference.forward import InferenceSettings, make_predict_fn
from segtrain.inference.sanity_check import check_logits
from segtrain.inference.selection import Selection
from segtrain.profiling import measure_cost
from segtrain.run import checkpoint
from segtrain.run.images import write_images
from segtrain.run.results import read_results, results_table, write_config, write_confusion, write_results, write_rows
from segtrain.run.samples import digest_split, find_changed_samples, read_digests, record_names
from segtrain.run.trained import Trained, dataset_of, load_trained, match_trained_classes, new_class_map

log = logging.getLogger(__name__)


def run(cfg: Config[EvaluateTask], run_dir: Path) -> float | None:
    """Evaluate cfg.checkpoint on cfg.dataset.split: results.json, per_image.csv, drawings, predictions if wanted."""
    settings = _inference_settings(cfg.task)
    trained = load_trained(cfg)
    data = match_trained_classes(build.dataset(cfg, cfg.dataset.split), trained.saved, trained.path, cfg)
    data = build.cached(data, cfg.dataset.cache)
    statistics = _read_split(cfg, data)
    cfg = build.settle(cfg, trained.device, num_classes=len(data.labels), cached_in_memory=True,
                       scored_with=trained.cfg.plain()["runtime"])
    input_size = settings.input_size(statistics.sizes[0])
    check_logits(trained.network, trained.target, input_size, in_channels=trained.in_channels,
                 num_classes=len(data.labels))
    log.info("evaluating %s on %d images of %s %s", trained.path, len(data.names), build.dataset_name(cfg),
             cfg.dataset.split)
    for remark in statistics.remarks:
        log.warning("warning: %s", remark)
    found = find_changed_samples(trained.saved, cfg.dataset.split, data, statistics.digests)
    if found:
        log.warning("warning: %s is not what %s was %s on: %s", cfg.dataset.split, trained.path,
                    "trained" if cfg.dataset.split == "train" else "chosen", found)

    known = _training_statistics(trained, cfg, data)
    loss_fn = build.loss(cfg, known["class_pixels"], known["image_pixels"]).to(trained.device)
    scored = score_split(
        trained.network, data, statistics, loss_fn, trained.normalize, device=trained.device,
        precision=cfg.runtime.precision, batch_size=cfg.train.batch_size, workers=cfg.runtime.workers,
        instances=cfg.dataset.instances, class_sizes=known["class_sizes"], settings=settings,
        selection=Selection(cfg.task.worst), details=Details(len(data.labels), cfg.task.boundary_band),
        on_prediction=(lambda index, pred: write_prediction(run_dir / "predictions", data, index, pred))
        if cfg.task.save_predictions else None)

    costs = _measure_cost(trained, settings, statistics.sizes[0])
    results = {"task": "evaluate", "dataset": build.dataset_name(cfg), "split": cfg.dataset.split,
               "fold": cfg.dataset.name_fold(cfg.dataset.split),
               "checkpoint": str(trained.path), "epoch": trained.epoch, "step": trained.step, **scored.results, **costs,
               "inputs": _inputs(trained.path, data, statistics.digests)}
    if not process_group.is_main():
        return results[cfg.train.monitor]
    write_config(run_dir, cfg)
    write_rows(run_dir / "per_image.csv", list(scored.images[0]), scored.images)
    if results["pacc"] is not None:  # else no pixel has a class
        write_confusion(run_dir, results["confusion_matrix"], list(results["iou_per_class"]))
        predict = make_predict_fn(trained.network, trained.normalize, settings, device=trained.device,
                                  precision=cfg.runtime.precision, batch_size=cfg.train.batch_size)
        assert scored.selection is not None
        write_images(run_dir, data.labels, scored.selection.encode(record_names(data), data.labels))
        draw_worst(run_dir / "worst", data, scored.images, predict, cfg.task.worst)
    write_results(run_dir, results)
    _log_end(run_dir, results, cfg.task)
    return results[cfg.train.monitor]


def _measure_cost(trained: Trained, settings: InferenceSettings, size: tuple[int, int]) -> dict[str, int | None]:
    """Return the parameters, and the multiply-adds of all passes that an image of (height, width) takes."""
    costs = [(number, measure_cost(trained.network, part, trained.in_channels))
             for part, number in settings.passes(size).items()]
    macs = [number * cost["macs"] for number, cost in costs if cost["macs"] is not None]
    return {"params": costs[0][1]["params"], "macs": sum(macs) if len(macs) == len(costs) else None}


def describe_changes(cfg: Config[EvaluateTask], run_dir: Path) -> str | None:
    """Say what has changed since the finished evaluation in run_dir; None if nothing has."""
    former, path, split = read_results(run_dir).get("inputs"), checkpoint.find(str(cfg.checkpoint)), cfg.dataset.split
    if not former:
        return None
    data = match_trained_classes(build.dataset(cfg, split), checkpoint.load(path, mapped=True), path, cfg)
    now = _inputs(path, data, read_digests(cfg, split, data))
    names = {"checkpoint": str(path), "samples": f"classes or samples of {split}"}
    return ", ".join(name for key, name in names.items() if former.get(key) != now[key]) or None


def _inputs(path: Path, data: Dataset, digests: Sequence[int]) -> dict[str, str]:
    """Return digests of what an evaluation reads."""
    return {"checkpoint": file_hash(str(path)), "samples": digest_split(data, digests)}


def _inference_settings(options: EvaluateTask) -> InferenceSettings:
    """Return how logits are computed; raise UserError for task.overlap without task.window."""
    if options.overlap is not None and options.window is None:
        raise UserError(f"task.overlap={options.overlap} is for a sliding window: set task.window=[height,width], "
                        "or leave task.overlap out.")
    return InferenceSettings(options.window, 0.25 if options.overlap is None else options.overlap, options.flip,
                             tuple(options.scales))


def _read_split(cfg: Config[EvaluateTask], data: Dataset) -> DatasetStatistics:
    """Read the split and check it; one without any labelled pixel can only be predicted, not scored."""
    statistics = compute_statistics(data, cfg.dataset.instances, may_be_void=True)
    if cfg.task.save_predictions:
        for index in range(len(data.names)):
            locate_prediction(Path("predictions"), data, index)  # refuses a bad name now, not after an hour
    if not any(statistics.class_pixels):
        if not cfg.task.save_predictions:
            raise UserError(f"{describe_all_void(len(data.names), data.locate(0))} task.save_predictions=true writes "
                            "the predictions, without scores.")
        statistics.remarks.append("no pixel of the split has a class: predictions are written, and all scores are "
                                  "null.")
    return statistics


def _training_statistics(trained: Trained, cfg: Config[Any], data: Dataset) -> dict[str, Any]:
    """Return the statistics of the training split that the scores need; read it if the checkpoint lacks them.

    Sizes of objects that were counted otherwise, from maps or components, are not what the scores need.
    """
    names = ("class_sizes", "class_pixels", "image_pixels")
    known = {name: getattr(trained, name) for name in names}
    if trained.class_sizes is not None and dataset_of(trained.saved).get("instances") == cfg.dataset.instances:
        renamed = new_class_map(trained.saved, cfg)
        known["class_sizes"] = {renamed.get(name, name): size for name, size in trained.class_sizes.items()}
    else:
        known["class_sizes"] = None
    lacks_sizes = known["class_sizes"] is None and cfg.dataset.instances is not None
    if lacks_sizes or (trained.class_pixels is None and build.weighs_classes(cfg)):
        log.info("the checkpoint lacks statistics of the training split (class weights of the loss, object sizes for "
                 "iIoU): reading it")
        training = compute_statistics(build.dataset(cfg, "train"), cfg.dataset.instances)
        known = {name: getattr(training, name) if value is None else value for name, value in known.items()}
    return known


def _log_end(run_dir: Path, results: dict[str, Any], options: EvaluateTask) -> None:
    """Print the scores, and where everything is."""
    log.info("\n%s\n", results_table(results))
    log.info("scores       %s\nevery image  %s", run_dir / "results.json", run_dir / "per_image.csv")
    if results["pacc"] is not None:
        log.info("drawings     %s", ", ".join(str(run_dir / name) for name in (
            "confusion_matrix.png", "confusion_matrix_pixels.png", *["worst/"] * bool(options.worst))))
    if options.save_predictions:
        log.info("predictions  %s", run_dir / "predictions")
