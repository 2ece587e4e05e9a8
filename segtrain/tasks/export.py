"""Write a checkpoint as a file that runs without segtrain, and let nobody have it before it was run and compared."""

import importlib.metadata
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segtrain.config import build
from segtrain.config.instantiate import without_download
from segtrain.config.schema import Config, ExportTask, Settled
from segtrain.data.streets import draw_scene
from segtrain.errors import UserError
from segtrain.export.traced import (
    Portable,
    need_export_extra,
    output_name,
    passes_places,
    trace,
    write_onnx,
    write_pt2,
)
from segtrain.export.verify import (
    Check,
    Runner,
    as_input,
    check_batches,
    compare,
    medians_ms,
    onnxruntime_runner,
    opencv_runner,
    pt2_runner,
)
from segtrain.inference.forward import make_predict_fn
from segtrain.inference.sanity_check import check_logits
from segtrain.inference.sliding_window import PredictFn
from segtrain.labels import Label
from segtrain.run import checkpoint
from segtrain.run.results import versions, write_config, write_json
from segtrain.run.trained import load_network, saved_classes

log = logging.getLogger(__name__)

CPU = torch.device("cpu")  # what is exported holds no device but this
NUM_PICTURES = 3  # the file is checked with
SCENE_SIZE = (192, 256)  # of pictures that are drawn for it
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "opencv-python-headless")


def run(cfg: Config[ExportTask], run_dir: Path) -> float | None:
    """Export cfg.checkpoint to model.onnx or model.pt2, check it in its runtimes, and write results.json.

    Returns:
        None, for nothing is scored.
    """
    if cfg.checkpoint is None:
        raise UserError("task=export needs checkpoint=, a .pt file or a run directory.")
    options = cfg.task
    if options.format == "onnx":
        need_export_extra()
    path = checkpoint.find(cfg.checkpoint)
    saved = checkpoint.load(path)
    build.device(cfg)  # it sets the threads too
    assert cfg.dataset.num_classes is not None, "a checkpoint's is settled"
    cfg = build.settle(cfg, CPU, num_classes=cfg.dataset.num_classes, cached_in_memory=True)
    size = options.size

    network = load_network(cfg, saved, path)
    name, target, num_classes = type(network).__name__, cfg.model["_target_"], cfg.dataset.num_classes
    labels, _, remark = saved_classes(saved, path, cfg)
    pictures, origin = _pictures(cfg, size)
    check_logits(network, target, pictures[0].shape[1:3], in_channels=len(cfg.dataset.mean), num_classes=num_classes)
    log.info("exporting %s: %s, %d classes", path, name, num_classes)
    if remark is not None:
        log.warning("warning: %s", remark)

    metadata = _metadata(cfg, path, name, labels)
    program = trace(Portable(network, cfg.dataset.mean, cfg.dataset.std, labels=options.labels), size,
                    target)
    unchecked, opset = run_dir / f"unchecked.{options.format}", None
    if options.format == "onnx":
        opset = write_onnx(unchecked, program, metadata, labels=options.labels, target=target)
    else:
        write_pt2(unchecked, program, metadata)

    # the reference is what task=evaluate computes: another path than that through the exported normalisation
    network = network.to(memory_format=build.memory_format(cfg))
    predict = make_predict_fn(network, build.normalize(cfg, CPU), device=CPU)
    log.info("checking it on %s", origin)
    try:
        checked = _checked(unchecked, options, predict, pictures, places=passes_places(program))
    except BaseException:
        unchecked.unlink(missing_ok=True)
        raise
    final = unchecked.replace(run_dir / f"model.{options.format}")

    write_config(run_dir, cfg)
    write_json(run_dir / "results.json", {
        "task": "export", "model": name, "checkpoint": str(path), "epoch": saved["epoch"], "file": str(final),
        "format": options.format, "bytes": final.stat().st_size, "opset": opset, "metadata": metadata,
        "size": options.size and list(options.size), "images": origin, **checked,
        "threads": torch.get_num_threads(), "versions": versions() | _versions()})
    log.info("\n%s  %.1f MiB%s\n%s -> %s\nresults     %s", final, final.stat().st_size / 2**20,
             f", ONNX opset {opset}" if opset else "", metadata["input"], metadata["output"], run_dir / "results.json")
    return None


def _metadata(cfg: Settled[ExportTask], path: Path, model: str, labels: Sequence[Label]) -> dict[str, str]:
    """Return what the file says of itself: text, lists as JSON."""
    options = cfg.task
    batch, rows = ("1", "{}, {}".format(*options.size)) if options.size else ("N", "H, W")
    channels = len(cfg.dataset.mean)
    if options.labels:
        given, result = f"uint8 ({batch}, {rows}, {channels})", f"uint8 ({batch}, {rows}), class numbers"
    else:
        given, result = f"float32 ({batch}, {channels}, {rows})", f"float32 ({batch}, {len(labels)}, {rows})"
    return {
        "segtrain": versions()["segtrain"] or "unknown", "model": model, "checkpoint": str(path),
        "input": f"image: {given}, RGB, 0..255", "output": f"{output_name(options.labels)}: {result}",
        "classes": json.dumps([label.name for label in labels]),
        "colors": json.dumps([list(label.color) for label in labels]),
        "label_ids": json.dumps([label.label_id for label in labels]),
        "normalization": "inside: (image / 255 - mean) / std",
        "mean": json.dumps(cfg.dataset.mean), "std": json.dumps(cfg.dataset.std),
    }


# ---- what it is checked with


def _pictures(cfg: Settled[ExportTask], size: tuple[int, int] | None) -> tuple[list[np.ndarray], str]:
    """Return batches of pictures to check with, uint8 (N, H, W, 3), and where they are from.

    They come from the checkpoint's dataset. If that is not here, embedded street scenes will do: what is compared is
    the arithmetic of runtimes.
    """
    try:
        data = build.dataset(without_download(cfg), cfg.dataset.split)
        images = [data.read(index).image for index in range(min(NUM_PICTURES, len(data.names)))]
        origin = f"images of {build.dataset_name(cfg)} {cfg.dataset.split}"
    except (UserError, OSError) as error:
        images = [draw_scene(0, "val", index, *SCENE_SIZE)[0] for index in range(NUM_PICTURES)]
        origin = "embedded street scenes"
        log.info("the checkpoint's dataset is not to be had (%s): the file is checked on %s", error, origin)
    return check_batches(images, size), origin


# ---- the checks


def _checked(path: Path, options: ExportTask, predict: PredictFn, pictures: Sequence[np.ndarray], *,
             places: bool) -> dict[str, Any]:
    """Run a file in its runtimes and time it; the entries of results.json.

    Raises:
        UserError: If a runtime gives other results than torch, or the one that the format is for cannot run it.
    """
    logits = [predict(torch.tensor(batch)).numpy() for batch in pictures]
    calls: dict[str, Callable[[], object]] = {"torch": lambda: predict(torch.tensor(pictures[0]))}
    checks: dict[str, Any] = {}
    failure = None
    runners: dict[str, Callable[[Path], Runner]] = (
        {"torch.export": pt2_runner} if options.format == "pt2" else {"onnxruntime": onnxruntime_runner})
    if options.format == "onnx" and options.opencv:
        runners["opencv"] = opencv_runner
    for name, make in runners.items():
        try:
            runner = make(path)
            found = [compare(runner(as_input(batch, options.labels)), expected, places=places)
                     for batch, expected in zip(pictures, logits, strict=True)]
        except Exception as error:  # runtimes raise errors of their own kinds
            said = " ".join(str(error).split())[:300]
            if name != "opencv":
                raise UserError(f"{name} cannot run the exported file ({said}), which is not kept: try another version "
                                "of it or of torch.") from error
            failure = said
            log.warning("warning: OpenCV cannot run it (%s); onnxruntime can. task.size=[height,width] may help, "
                        "task.opencv=false leaves this check out.", said)
            continue
        for each in found:
            log.info("  %-12s %s", name, each)
            if not each.passed:
                raise UserError(_mismatch(name, each))
        checks[name] = [each.as_results() for each in found]
        first = as_input(pictures[0], options.labels)
        calls[name] = partial(runner, first)
    times = medians_ms(calls)
    height, width = pictures[0].shape[1:3]
    log.info("one image of %dx%d takes: %s (CPU, threads: %d)", width, height,
             ", ".join(f"{name} {time:.0f} ms" for name, time in times.items()), torch.get_num_threads())
    return {"checks": checks, "opencv_error": failure, "latency_ms": times, "latency_size": [height, width]}


def _mismatch(name: str, check: Check) -> str:
    remedy = ("task.opencv=false exports it for other runtimes" if name == "opencv" else
              f"try another version of {name} or of torch")
    return (f"the exported file gives other results in {name} than the checkpoint in torch, and is not kept. {check}. "
            f"This is a fault of {name}, of torch's exporter, or of a network's forward that decides by its input: "
            f"{remedy}.")


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
