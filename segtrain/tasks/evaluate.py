"""Score a checkpoint on one split."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segtrain.config import build
from segtrain.config.build import memory_format
from segtrain.config.schema import Config, EvaluateTask
from segtrain.data.base import Dataset
from segtrain.data.label_files import prediction_path, write_prediction
from segtrain.data.statistics import DatasetStatistics, all_void, compute_statistics
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.inference.evaluator import score_split
from segtrain.inference.forward import InferenceSettings, make_predict_fn
from segtrain.inference.sanity_check import check_logits
from segtrain.inference.worst_images import draw_worst
from segtrain.profiling import cost
from segtrain.run import checkpoint
from segtrain.run.results import results_table, write_config, write_confusion, write_json, write_rows
from segtrain.run.trained import load_network

log = logging.getLogger(__name__)


def run(cfg: Config[EvaluateTask], run_dir: Path) -> float | None:
    """Evaluate cfg.checkpoint on cfg.dataset.split: results.json, per_image.csv, pictures, and predictions if wanted.

    Returns:
        The score that train.monitor names.
    """
    if cfg.checkpoint is None:
        raise UserError("task=evaluate needs checkpoint=, a .pt file or a run directory.")
    inference = _inference(cfg.task)
    path = checkpoint.find(cfg.checkpoint)
    saved = checkpoint.load(path)
    options = cfg.task

    device = build.device(cfg)
    data = build.cached(build.dataset(cfg, cfg.dataset.split), cfg.dataset.cache)
    found = _statistics(cfg, data, options.save_predictions)
    cfg = build.settle(cfg, device, num_classes=len(data.labels), cached_in_memory=True)
    log.info("evaluating %s on %d images of %s %s", path, len(data.names), build.dataset_name(cfg), cfg.dataset.split)
    for remark in found.remarks:
        log.warning("warning: %s", remark)

    network = load_network(cfg, saved, path).to(device).to(memory_format=memory_format(cfg))
    pass_size = inference.input_size(found.sizes[0])
    check_logits(network, cfg.model["_target_"], pass_size, in_channels=len(cfg.dataset.mean),
                 num_classes=len(data.labels))
    known = _known_of_training(saved, path, cfg, data)
    normalize = build.normalize(cfg, device)
    scored = score_split(
        network, data, found, build.loss(cfg, known["class_pixels"], known["image_pixels"]).to(device), normalize,
        device=device, precision=cfg.runtime.precision, batch_size=cfg.train.batch_size, workers=cfg.runtime.workers,
        instances=cfg.dataset.instances, class_sizes=known["class_sizes"], settings=inference,
        on_prediction=(lambda index, pred: write_prediction(run_dir / "predictions", data, index, pred))
        if options.save_predictions else None)

    costs = cost(network, pass_size, len(cfg.dataset.mean))
    if costs["macs"] is not None:
        costs["macs"] *= inference.num_passes(found.sizes[0])
    results = {"task": "evaluate", "dataset": build.dataset_name(cfg), "split": cfg.dataset.split,
               "checkpoint": str(path), "epoch": saved["epoch"], "step": saved["step"], **scored.results, **costs}
    if not process_group.is_main():
        return results[cfg.train.monitor]
    write_config(run_dir, cfg)
    write_rows(run_dir / "per_image.csv", list(scored.images[0]), scored.images)
    if results["pacc"] is not None:  # else no pixel has a class
        write_confusion(run_dir, results["confusion_matrix"], list(results["iou_per_class"]))
        predict = make_predict_fn(network, normalize, inference, device=device, precision=cfg.runtime.precision,
                            batch_size=cfg.train.batch_size)
        draw_worst(run_dir / "worst", data, scored.images, predict, options.worst)
    write_json(run_dir / "results.json", results)
    _log_end(run_dir, results, options)
    return results[cfg.train.monitor]


def _inference(options: EvaluateTask) -> InferenceSettings:
    """Return how logits are to be made.

    Raises:
        UserError: If an option of windows is given without windows.
    """
    if options.window is not None:
        return InferenceSettings(options.window, 0.25 if options.overlap is None else options.overlap, options.flip)
    if options.overlap is not None:
        raise UserError(f"task.overlap={options.overlap} is for windows: set task.window=[height,width], "
                        "or leave task.overlap out.")
    return InferenceSettings(flip=options.flip)


def _statistics(cfg: Config[Any], data: Dataset, saves_predictions: bool) -> DatasetStatistics:
    """Read the split; without any labelled pixel it is of use for predictions only."""
    found = compute_statistics(data, cfg.dataset.instances, may_be_void=True)
    if saves_predictions:
        for index in range(len(data.names)):
            prediction_path(Path("predictions"), data, index)  # refused now, not after an hour
    if not any(found.class_pixels):
        if not saves_predictions:
            raise UserError(f"{all_void(len(data.names), data.locate(0))} task.save_predictions=true writes the "
                            "predictions, without scores.")
        found.remarks.append("no pixel of the split has a class: predictions are written, and all scores are null.")
    return found


def _known_of_training(saved: Mapping[str, Any], path: Path, cfg: Config[Any], data: Dataset) -> dict[str, Any]:
    """Return the statistics of the training split that the scores need; read it where the checkpoint lacks them."""
    known = {name: saved[name] for name in ("class_sizes", "class_pixels", "image_pixels")}
    foreign = sorted({*(known["class_sizes"] or ())} - {label.name for label in data.labels})
    if foreign and cfg.dataset.instances is not None:
        raise UserError(f"{path} knows the sizes of objects of the class {foreign[0]}, which "
                        f"{build.dataset_name(cfg)} does not have, so iIoU is not defined: leave it out with "
                        "dataset.instances=null.")
    lacks_sizes = known["class_sizes"] is None and cfg.dataset.instances is not None
    if lacks_sizes or (known["class_pixels"] is None and build.weighs_classes(cfg)):
        log.info("the checkpoint lacks statistics of the training split (class weights of the loss, object sizes for "
                 "iIoU): reading it")
        training = compute_statistics(build.dataset(cfg, "train"), cfg.dataset.instances)
        known = {name: getattr(training, name) if value is None else value for name, value in known.items()}
    return known


def _log_end(run_dir: Path, results: Mapping[str, Any], options: EvaluateTask) -> None:
    """Print the scores, and where everything is."""
    log.info("\n%s\n", results_table(results))
    log.info("scores       %s\nevery image  %s", run_dir / "results.json", run_dir / "per_image.csv")
    if results["pacc"] is not None:
        log.info("pictures     %s", ", ".join(str(run_dir / name) for name in (
            "confusion_matrix.png", "confusion_matrix_pixels.png", *["worst/"] * bool(options.worst))))
    if options.save_predictions:
        log.info("predictions  %s", run_dir / "predictions")
