"""Export a checkpoint as a file that runs without segtrain. The file is kept only if its runtimes reproduce the
checkpoint's predictions.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segtrain.config import build
from segtrain.config.instantiate import without_download
from segtrain.config.schema import Config, ExportTask
from segtrain.data.image_form import ImageForm
from segtrain.data.streets import draw_scene
from segtrain.errors import UserError
from segtrain.export.onnx import require_onnx, write_onnx
from segtrain.export.program import (
    ModelWithPreprocessing,
    make_metadata,
    reuses_pooling_indices,
    trace_program,
    write_pt2,
)
from segtrain.export.verify import make_batches, verify_file
from segtrain.inference.forward import make_predict_fn
from segtrain.inference.sanity_check import check_logits
from segtrain.run.results import versions, write_config, write_results
from segtrain.run.trained import load_trained

log = logging.getLogger(__name__)

CPU = torch.device("cpu")  # an exported program must not name another device
NUM_IMAGES = 3  # to check the file with
SCENE_SIZE = (192, 256)  # of street scenes that are drawn for it
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "opencv-python-headless")


def run(cfg: Config[ExportTask], run_dir: Path) -> None:
    """Export cfg.checkpoint to model.onnx or model.pt2, verify the file in its runtimes, and write results.json."""
    options, size = cfg.task, cfg.task.size
    if options.format == "onnx":
        require_onnx()
    build.device(cfg)  # sets the number of threads too
    trained = load_trained(cfg, device=CPU)
    name, target = type(trained.network).__name__, trained.target
    images, origin = _read_images(trained.cfg, trained.form)
    batches = make_batches(images, size)
    check_logits(trained.network, target, batches[0].shape[1:3], in_channels=trained.in_channels,
                 num_classes=len(trained.labels))
    log.info("exporting %s: %s, %d classes", trained.path, name, len(trained.labels))

    mean, std = trained.cfg.dataset.mean, trained.cfg.dataset.std
    metadata = make_metadata(labels=trained.labels, mean=mean, std=std, form=trained.form, size=size,
                             gives_labels=options.labels, model=name, checkpoint=trained.path,
                             version=versions()["segtrain"] or "unknown")
    network = trained.network.to(memory_format=torch.contiguous_format)
    program = trace_program(ModelWithPreprocessing(network, mean, std, labels=options.labels,
                                                   ranges=trained.form.range), size, target)
    unchecked, opset = run_dir / f"unchecked.{options.format}", None
    if options.format == "onnx":
        opset = write_onnx(unchecked, program, metadata, labels=options.labels, target=target)
    else:
        write_pt2(unchecked, program, metadata)

    # the reference is what task=evaluate computes, which normalises the images in another way than the exported program
    predict = make_predict_fn(build.lay_out(network, trained.cfg), trained.normalize, device=CPU)
    log.info("checking it on %s", origin)
    try:
        checked = verify_file(unchecked, batches, predict, labels=options.labels, opencv=options.opencv,
                              form=trained.form,
                              pooling_indices=reuses_pooling_indices(program))
    except BaseException:
        unchecked.unlink(missing_ok=True)
        raise
    final = unchecked.replace(run_dir / f"model.{options.format}")

    write_config(run_dir, trained.cfg)
    write_results(run_dir, {
        "task": "export", "model": name, "checkpoint": str(trained.path), "epoch": trained.epoch, "file": str(final),
        "format": options.format, "bytes": final.stat().st_size, "opset": opset, "metadata": metadata,
        "size": size and list(size), "images": origin, **checked,
        "threads": torch.get_num_threads(), "versions": versions(*PACKAGES)})
    log.info("\n%s  %.1f MiB%s\n%s -> %s\nresults     %s", final, final.stat().st_size / 2**20,
             f", ONNX opset {opset}" if opset else "", metadata["input"], metadata["output"], run_dir / "results.json")


def _read_images(cfg: Config[Any], form: ImageForm) -> tuple[list[np.ndarray], str]:
    """Return images to check the file with, (H, W, C), and where they come from.

    They come from the checkpoint's dataset. Without it, embedded street scenes suffice, and of other channels than red,
    green and blue patterns of their brightness: what is compared is the arithmetic of runtimes.
    """
    try:
        data = build.dataset(without_download(cfg), cfg.dataset.split)
        images = [data.read(index).image for index in range(min(NUM_IMAGES, len(data.names)))]
        return images, f"images of {build.dataset_name(cfg)} {cfg.dataset.split}"
    except (UserError, OSError) as error:
        log.info("the checkpoint's dataset is not available (%s): the file is checked on embedded street scenes", error)
        scenes = [draw_scene(0, "val", index, *SCENE_SIZE)[0] for index in range(NUM_IMAGES)]
        if form.channels is not None:
            scenes = [np.stack([np.roll(scene[..., number % 3], 8 * number, 1) for number in range(form.channels)], -1)
                      .astype(np.uint8 if form.range is None else np.float32) for scene in scenes]
        return scenes, "embedded street scenes"
