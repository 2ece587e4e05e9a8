"""Predict images and videos with a checkpoint; neither targets nor the dataset are needed."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pooch

from segtrain.config import build
from segtrain.config.schema import Config, PredictTask
from segtrain.data.label_files import map_file_values, with_colors
from segtrain.errors import UserError
from segtrain.inference.forward import MIN_SIDE, InferenceSettings
from segtrain.inference.inputs import Item, find_inputs, hide_password, is_stream, select_shard
from segtrain.inference.pipeline import predict_items
from segtrain.inference.predictor import Predictor
from segtrain.inference.sanity_check import check_logits
from segtrain.inference.writers import Outputs, claim_folder
from segtrain.run.directory import hold
from segtrain.run.results import write_config, write_results
from segtrain.run.trained import load_trained

log = logging.getLogger(__name__)


def run(cfg: Config[PredictTask], run_dir: Path) -> None:
    """Predict cfg.task.input with cfg.checkpoint, into cfg.task.output or the run directory.

    Raises:
        UserError: For any fault found before the work begins; and at the end, if files could not be read: all others
            are done, and results.json lists the failures.
    """
    source = cfg.task.input
    if source is None:
        raise UserError("task.input is needed: an image, a video, a folder, a pattern or a list of paths, "
                        "task.input=/data/photos")
    options = cfg.task
    output = run_dir if options.output is None else Path(options.output)
    found, remarks = find_inputs(source, output, build.image_form(cfg))
    items = found if options.shard is None else select_shard(found, options.shard)
    _check_options(options, found)

    trained = load_trained(cfg)
    check_logits(trained.network, trained.target, (2 * MIN_SIDE, 2 * MIN_SIDE), in_channels=trained.in_channels,
                 num_classes=len(trained.labels))
    settings = InferenceSettings(options.window, options.overlap, options.flip, tuple(options.scales))
    predictor = Predictor(trained.network, trained.normalize, settings, device=trained.device,
                          precision=trained.cfg.runtime.precision, batch_size=cfg.train.batch_size,
                          num_classes=len(trained.labels), in_channels=trained.in_channels)
    values = map_file_values(trained.labels, trained.file_form)
    classes = [{"name": label.name, "value": int(values[label.train_id]), "color": list(label.color)}
               for label in trained.labels]
    claim_folder(output, {
        "checkpoint": str(trained.path), "sha256": pooch.file_hash(str(trained.path)),
        "input": hide_password(source) if is_stream(source) else str(Path(source).absolute()),
        "classes": classes,
        "inference": {**settings.as_results(), "overlap": options.overlap}})
    write_config(run_dir, trained.cfg, change=hide_password)  # of a stream, also among the overrides

    outputs = Outputs(output, trained.labels, with_colors(trained.file_form, trained.labels), options.overlays,
                      options.probabilities, trained.form)
    with _hold_output(output, run_dir, options.shard):
        to_do = [item for item in items if not outputs.is_done(item)]
        log.info("predicting %d of %d files in %s%s with %s (epoch %s)", len(to_do), len(found), hide_password(source),
                 "" if options.shard is None else f", shard {options.shard}", trained.path, trained.epoch)
        for remark in remarks:
            log.warning("note: %s", remark)
        if len(to_do) < len(items):
            log.info("%d files are done already", len(items) - len(to_do))
        done = predict_items(to_do, predictor, outputs)
    write_results(run_dir, {
        "task": "predict", "checkpoint": str(trained.path), "epoch": trained.epoch, "step": trained.step,
        "input": hide_password(source), "output": str(output), "shard": options.shard, "num_found": len(found),
        "num_skipped": len(items) - len(to_do), **done, "inference": settings.as_results(), "classes": classes})
    _log_end(done, outputs)
    if done["failed"]:
        raise UserError(f"{len(done['failed'])} of {len(to_do)} files failed, all others are done; "
                        f"{run_dir / 'results.json'} lists them. The first: {done['failed'][0]['reason']}",
                        [failure["file"] for failure in done["failed"]])


def _hold_output(output: Path, run_dir: Path, shard: str | None) -> AbstractContextManager[None]:
    """Hold the folder of the predictions against other processes, but not against those of other shards."""
    if output.resolve() == run_dir.resolve():
        return nullcontext()  # it is held
    return hold(output, "" if shard is None else f".{shard.replace('/', '-of-')}", "choose another task.output=")


def _check_options(options: PredictTask, items: list[Item]) -> None:
    videos = [item for item in items if item.is_video]
    if options.probabilities and len(videos) == len(items):
        raise UserError(f"task.probabilities=true is for images, and {options.input} has videos only: leave it out.")
    if options.probabilities and videos:
        raise UserError(f"task.probabilities=true is for images, and {videos[0].path} is a video: predict the videos "
                        "in a run of their own.")


def _log_end(done: Mapping[str, Any], outputs: Outputs) -> None:
    if done["num_images"]:
        log.info("%d images in %.1f s, %s images a second", done["num_images"],
                 done["num_images"] / done["images_per_second"], f"{done['images_per_second']:.3g}")
    written = [("predictions", done["num_images"]), ("overlays", done["num_images"] and outputs.overlays),
               ("probabilities", done["num_images"] and outputs.probabilities), ("videos", done["num_videos"]),
               ("geotiffs", (outputs.folder / "geotiffs").is_dir())]
    for name, is_there in written:
        if is_there:
            log.info("%-14s%s", name, outputs.folder / name)
