"""Score a checkpoint on one split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segtrain import build, checkpoint, config, tracking
from segtrain.cost import cost
from segtrain.datasets.survey import survey_once
from segtrain.errors import UserError
from segtrain.tasks.scoring import score_split
from segtrain.trial import try_out


def run(cfg: Any, run_dir: Path, overrides: list[str]) -> float | None:
    """Evaluate cfg.checkpoint on cfg.dataset.split and write results.json.

    Returns:
        The score that train.monitor names.
    """
    if cfg.checkpoint is None:
        raise UserError("task=evaluate needs checkpoint=, a .pt file or a run directory.")
    path = checkpoint.find(cfg.checkpoint)
    saved = checkpoint.load(path)
    cfg = _saved_config(saved, cfg, overrides)

    device = build.device(cfg)
    data = build.cached(build.dataset(cfg, cfg.dataset.split), cfg.dataset.cache)
    found = survey_once(data, cfg.dataset.instances)
    build.settle(cfg, device, num_classes=len(data.labels), cached_in_memory=True)
    tracking.log.info("evaluating %s on %d images of %s %s", path, len(data.names), dataset_name(cfg),
                      cfg.dataset.split)
    for remark in found.remarks:
        tracking.log.warning("warning: %s", remark)

    network = build.model(cfg, pretrained=False)
    checkpoint.load_weights(network, saved["model"], path, class_layer=build.class_layer(cfg))
    network = network.to(device).to(memory_format=memory_format(cfg))
    try_out(network, cfg.model._target_, found.sizes[0], in_channels=len(cfg.dataset.mean),
            num_classes=len(data.labels))
    known = {name: saved[name] for name in ("class_sizes", "class_pixels", "image_pixels")}
    lacks_sizes = known["class_sizes"] is None and cfg.dataset.instances is not None
    if lacks_sizes or (known["class_pixels"] is None and build.weighs_classes(cfg)):
        tracking.log.info("the checkpoint lacks statistics of the training split (class weights of the loss, object "
                          "sizes for iIoU): reading it")
        training = survey_once(build.dataset(cfg, "train"), cfg.dataset.instances)
        known = {name: getattr(training, name) if value is None else value for name, value in known.items()}
    scored = score_split(
        network, data, found, build.loss(cfg, known["class_pixels"], known["image_pixels"]).to(device),
        build.normalize(cfg, device), device=device, precision=cfg.runtime.precision, batch_size=cfg.train.batch_size,
        workers=cfg.runtime.workers, instances=cfg.dataset.instances, class_sizes=known["class_sizes"])

    results = {"task": "evaluate", "dataset": dataset_name(cfg), "split": cfg.dataset.split, "checkpoint": str(path),
               "epoch": saved["epoch"], "step": saved["step"], **scored.results,
               **cost(network, found.sizes[0], len(cfg.dataset.mean))}
    tracking.write_config(run_dir, config.to_container(cfg))
    tracking.write_json(run_dir / "results.json", results)
    tracking.log.info("\n%s\n\nresults: %s", tracking.results_table(results), run_dir / "results.json")
    return results[cfg.train.monitor]


def _saved_config(saved: Mapping[str, Any], cfg: Any, overrides: list[str]) -> Any:
    """Return the checkpoint's config under this command's overrides, with this machine's runtime."""
    laid = config.overlay(config.from_container(saved["config"]), cfg, overrides)
    laid.runtime = cfg.runtime
    build.check_trust(laid, overrides, cfg.runtime.trusted)
    return config.check(laid)


def dataset_name(cfg: Any) -> str:
    """Name a dataset as its class is named, in small letters."""
    return cfg.dataset._target_.rsplit(".", 1)[-1].lower()


def memory_format(cfg: Any) -> torch.memory_format:
    """Return the memory layout that runtime.channels_last asks for."""
    return torch.channels_last if cfg.runtime.channels_last else torch.contiguous_format
