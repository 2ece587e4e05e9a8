"""Predict pictures and videos with a checkpoint; neither targets nor the dataset are needed."""

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from segtrain.config import build
from segtrain.config.schema import Config, PredictTask, Settled
from segtrain.data.label_files import MARKER, file_values, make_folder
from segtrain.errors import UserError
from segtrain.inference.forward import InferenceSettings
from segtrain.inference.inputs import Item, find_inputs, shard
from segtrain.inference.pipeline import FOLDERS, Outputs, predict_pictures, predict_video
from segtrain.inference.predictor import MIN_SIDE, Predictor
from segtrain.inference.sanity_check import check_logits
from segtrain.run import checkpoint
from segtrain.run.results import write_config, write_json
from segtrain.run.trained import load_network, saved_classes

log = logging.getLogger(__name__)


def run(cfg: Config[PredictTask], run_dir: Path) -> None:
    """Predict cfg.task.input with cfg.checkpoint, into cfg.task.output or the run directory.

    Raises:
        UserError: For whatever is at fault before the work begins; and at its end, if files could not be read: all
            others are done, and results.json lists them.
    """
    if cfg.checkpoint is None:
        raise UserError("task=predict needs checkpoint=, a .pt file or a run directory.")
    source = cfg.task.input
    if source is None:
        raise UserError("task.input is needed: a picture, a video, a folder, a pattern or a list of paths, "
                        "task.input=/data/photos")
    path = checkpoint.find(cfg.checkpoint)
    saved = checkpoint.load(path)
    options = cfg.task
    output = run_dir if options.output is None else Path(options.output).expanduser()
    found = find_inputs(source, MARKER, FOLDERS, output)
    items = found.items if options.shard is None else shard(found.items, options.shard)
    _check_options(options, found.items)

    device = build.device(cfg)
    labels, form, remark = saved_classes(saved, path, cfg)
    cfg = build.settle(cfg, device, num_classes=len(labels), cached_in_memory=True)
    network = load_network(cfg, saved, path).to(device).to(memory_format=build.memory_format(cfg))
    in_channels = len(cfg.dataset.mean)
    check_logits(network, cfg.model["_target_"], (2 * MIN_SIDE, 2 * MIN_SIDE), in_channels=in_channels,
            num_classes=len(labels))
    inference = InferenceSettings(None if options.window is None else options.window,
                                  options.overlap, options.flip)
    predictor = Predictor(network, build.normalize(cfg, device), inference, device=device,
                          precision=cfg.runtime.precision, batch_size=cfg.train.batch_size, num_classes=len(labels),
                          in_channels=in_channels)
    values = file_values(labels, form)
    classes = [{"name": label.name, "value": int(values[label.train_id]), "color": list(label.color)}
               for label in labels]
    _claim(output, {"checkpoint": str(path), "sha256": _digest(path), "input": str(Path(source).absolute()),
                    "inference": {**inference.as_results(), "overlap": options.overlap}, "classes": classes})
    write_config(run_dir, cfg)

    outputs = Outputs(output, labels, form, options.overlays, options.probabilities)
    to_do = [item for item in items if not outputs.is_done(item)]
    log.info("predicting %d of %d files in %s%s with %s (epoch %s)", len(to_do), len(found.items), options.input,
             "" if options.shard is None else f", shard {options.shard}", path, saved["epoch"])
    for text in [*found.remarks, *[remark] * (remark is not None)]:
        log.warning("note: %s", text)
    if len(to_do) < len(items):
        log.info("%d files are done already", len(items) - len(to_do))
    done = _Work(cfg, predictor, outputs)
    done.run(to_do)
    results = {"task": "predict", "checkpoint": str(path), "epoch": saved["epoch"], "step": saved["step"],
               "input": options.input, "output": str(output), "shard": options.shard, "num_found": len(found.items),
               "num_skipped": len(items) - len(to_do), **done.results(), "inference": inference.as_results(),
               "classes": classes}
    write_json(run_dir / "results.json", results)
    _log_end(results, outputs)
    if done.failed:
        raise UserError(f"{len(done.failed)} of {len(to_do)} files failed, all others are done; "
                        f"{run_dir / 'results.json'} lists them. The first: {done.failed[0]['reason']}",
                        [each["file"] for each in done.failed])


class _Work:
    """Predict files one after another and note what comes of them."""

    def __init__(self, cfg: Settled[PredictTask], predictor: Predictor, outputs: Outputs) -> None:
        self._bits = cfg.dataset.arguments.get("image_bits")
        self._predictor, self._outputs = predictor, outputs
        self.failed: list[dict[str, str]] = []
        self._num_images = self._num_windowed = self._num_videos = self._num_frames = 0
        self._image_seconds = self._video_seconds = 0.0

    def run(self, items: list[Item]) -> None:
        pictures = [item for item in items if not item.is_video]
        started = time.perf_counter()
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are what windows are for
        with tqdm(total=len(pictures), desc="predicting", unit="image", leave=False, disable=None) as bar:

            def failed(item: Item, error: UserError) -> None:
                self._fail(item, str(error))
                bar.update()

            def done(item: Item) -> None:
                self._num_images += 1
                bar.update()

            predict_pictures(pictures, self._predictor, self._outputs, image_bits=self._bits, failed=failed,
                             windowed=self._note_windows, done=done)
        self._image_seconds = time.perf_counter() - started
        for item in items:
            if item.is_video:
                self._predict_video(item)

    def _note_windows(self, item: Item, window: tuple[int, int]) -> None:
        self._num_windowed += 1
        log.info("%s is too large to be predicted whole: it is cut into windows of %dx%d, which overlap and are "
                 "blended; task.window= sets others", item.path, window[1], window[0])

    def _predict_video(self, item: Item) -> None:
        try:
            with tqdm(desc=item.path.name, unit="frame", leave=False, disable=None) as bar:
                frames, seconds, fault = predict_video(item, self._predictor, self._outputs, bar.update)
        except UserError as error:
            self._fail(item, str(error))
            return
        log.info("%s: %d frames in %.1f s, %s frames a second", item.path, frames, seconds, f"{frames / seconds:.3g}")
        self._num_videos += 1
        self._num_frames += frames
        self._video_seconds += seconds
        if fault is not None:
            self._fail(item, fault)

    def _fail(self, item: Item, reason: str) -> None:
        log.warning("failed: %s", reason)
        self.failed.append({"file": str(item.path), "reason": reason})

    def results(self) -> dict[str, Any]:
        """Return what results.json says of it."""
        return {"num_images": self._num_images, "num_videos": self._num_videos, "num_frames": self._num_frames,
                "num_windowed": self._num_windowed, "num_failed": len(self.failed), "failed": self.failed,
                "seconds": self._image_seconds + self._video_seconds,
                "images_per_second": self._num_images / self._image_seconds if self._num_images else None,
                "frames_per_second": self._num_frames / self._video_seconds if self._num_frames else None}


def _check_options(options: PredictTask, items: list[Item]) -> None:
    videos = [item for item in items if item.is_video]
    for name in ("overlays", "probabilities"):
        if getattr(options, name) and len(videos) == len(items):
            raise UserError(f"task.{name}=true is for pictures, and {options.input} has videos only: leave it out; a "
                            "video is always shown under its predictions.")
    if options.probabilities and videos:
        raise UserError(f"task.probabilities=true is for pictures, and {videos[0].path} is a video: predict the videos "
                        "in a run of their own.")


def _claim(output: Path, own: Mapping[str, Any]) -> None:
    """Mark a folder as that of this checkpoint's predictions; UserError if it holds others."""
    make_folder(output)
    marker = output / MARKER
    with FileLock(output / f".{MARKER}.lock"):  # shards may start together
        if not marker.exists():
            other = next((output / name for name in FOLDERS if (output / name).is_dir()
                          and any((output / name).iterdir())), None)
            if other is not None:
                raise UserError(f"{other} holds files, but {output} has no {MARKER}, so they are no predictions of "
                                "task=predict: choose another task.output=.")
            write_json(marker, own)
            return
    try:
        before = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{marker} cannot be read ({error}): choose another task.output=.") from error
    for key, what in (("sha256", "another checkpoint"), ("input", "another task.input"),
                      ("inference", "other windows, overlap or flip"), ("classes", "other classes")):
        if before.get(key) != own[key]:
            shown = "checkpoint" if key == "sha256" else key
            raise UserError(f"{output} holds predictions of {what} ({before.get(shown)}): choose another task.output=, "
                            "for a folder of mixed predictions is of no use.")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _log_end(results: Mapping[str, Any], outputs: Outputs) -> None:
    if results["num_images"]:
        log.info("%d images in %.1f s, %s images a second", results["num_images"],
                 results["num_images"] / results["images_per_second"], f"{results['images_per_second']:.3g}")
    written = [("predictions", results["num_images"]), ("overlays", results["num_images"] and outputs.overlays),
               ("probabilities", results["num_images"] and outputs.probabilities), ("videos", results["num_videos"])]
    for name, is_there in written:
        if is_there:
            log.info("%-14s%s", name, outputs.folder / name)
