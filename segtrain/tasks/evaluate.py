"""Score a checkpoint on one split."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from segtrain import build, checkpoint, config, tracking
from segtrain.cost import cost
from segtrain.datasets.base import Dataset
from segtrain.datasets.loading import evaluation_batches
from segtrain.datasets.survey import Survey, instance_classes, survey
from segtrain.drawing import side_by_side
from segtrain.engine import mean_loss, predict_epoch
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX
from segtrain.losses import Loss
from segtrain.metrics.confusion import confusion_matrix
from segtrain.metrics.instances import count_instances
from segtrain.metrics.scores import compute_scores, resolve_class_sizes
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
    cfg = _saved_config(saved, path, cfg, overrides)

    device = build.device(cfg)
    data = build.cached(build.dataset(cfg, cfg.dataset.split), cfg.dataset.cache)
    found = survey(data, cfg.dataset.instances)
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
    foreign = sorted({*(known["class_sizes"] or ())} - {label.name for label in data.labels})
    if foreign and cfg.dataset.instances is not None:
        raise UserError(f"{path} knows the sizes of objects of the class {foreign[0]}, which {dataset_name(cfg)} does "
                        "not have, so iIoU is not defined: leave it out with dataset.instances=null.")
    lacks_sizes = known["class_sizes"] is None and cfg.dataset.instances is not None
    if lacks_sizes or (known["class_pixels"] is None and build.weighs_classes(cfg)):
        tracking.log.info("the checkpoint lacks statistics of the training split (class weights of the loss, object "
                          "sizes for iIoU): reading it")
        training = survey(build.dataset(cfg, "train"), cfg.dataset.instances)
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


def _saved_config(saved: Mapping[str, Any], path: Path, cfg: Any, overrides: list[str]) -> Any:
    """Return the checkpoint's config under this command's overrides, with this machine's runtime."""
    own = config.from_container(saved["config"], str(path))
    try:
        laid = config.overlay(own, cfg, overrides)
        laid.runtime = cfg.runtime
        build.check_trust(laid, overrides, cfg.runtime.trusted)
        return config.check(laid)
    except UserError as error:
        raise UserError(f"the configuration in {path} under this command's overrides: {error}") from error


@dataclass
class Scored:
    """A split's scores, and pictures of its first images.

    Attributes:
        results: The part of results.json that a split decides.
        examples: uint8 (H, 3 W + 8, 3) each: input, target, prediction.
    """

    results: dict[str, Any]
    examples: list[np.ndarray]


def score_split(
    network: nn.Module,
    data: Dataset,
    found: Survey,
    loss_fn: Loss,
    normalize: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    precision: str,
    batch_size: int,
    workers: int,
    instances: str | None,
    class_sizes: Mapping[str, float | None] | None,
    num_examples: int = 0,
    after_batch: Callable[[], None] = lambda: None,
) -> Scored:
    """Score a network on a whole split.

    Counts are integers and losses are kept per image and added in image order, so that a score depends neither on the
    batch size nor on how the images were shared out.

    Args:
        network: On the device; left in evaluation mode.
        data: The split.
        found: Its survey.
        loss_fn: On the device.
        normalize: uint8 (N, H, W, C) -> float32 (N, C, H, W).
        device: Where the network is.
        precision: "fp32", "bf16" or "fp16".
        batch_size: Most images at once.
        workers: Loader processes.
        instances: Where objects come from, "maps" or "components"; None: no iIoU.
        class_sizes: Mean object size by class name, of the training split.
        num_examples: How many pictures to make, of the first images.
        after_batch: Called after every batch; may raise to stop.

    Raises:
        UserError: If the loss is not finite.
    """
    started = time.perf_counter()
    num_classes = len(data.labels)
    class_ids = instance_classes(data.labels)
    confusion = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64, device=device)
    sums: list[Tensor] = []
    normalizers: list[Tensor] = []
    objects: list[np.ndarray] = []
    examples: list[np.ndarray] = []
    batches = evaluation_batches(data, found.sizes, instances=instances, batch_size=batch_size, workers=workers,
                                 pin_memory=device.type == "cuda")
    with tqdm(total=len(data.names), desc="validating", unit="image", leave=False, disable=None) as bar:
        for batch, logits in predict_epoch(network, batches, normalize, device=device, precision=precision):
            for number in range(len(batch.indices)):
                one = slice(number, number + 1)
                sums.append(loss_fn(logits[one], batch.targets[one]))
                normalizers.append(loss_fn.normalizer(batch.targets[one]))
            preds = logits.argmax(1)
            confusion += confusion_matrix(preds, batch.targets, num_classes)
            if batch.instances is not None or len(examples) < num_examples:
                on_cpu = zip(batch.images.cpu().numpy(), batch.targets.cpu().numpy(), preds.cpu().numpy(), strict=True)
                for number, (image, target, pred) in enumerate(on_cpu):
                    if batch.instances is not None:
                        objects.append(count_instances(pred, target, batch.instances[number], class_ids))
                    if len(examples) < num_examples:
                        examples.append(side_by_side(image, target, pred, data.labels))
            bar.update(len(batch.indices))
            after_batch()

    loss = float(mean_loss(_total(sums), _total(normalizers)))
    if not math.isfinite(loss):
        raise UserError(f"the loss over {len(data.names)} images is {loss}: the network has diverged; train it with a "
                        "lower optim.lr, or with train.clip_norm=1. Checkpoints of earlier epochs are intact.")
    names = [label.name for label in data.labels]
    counts = np.concatenate(objects) if instances is not None else None
    seconds = time.perf_counter() - started
    results = {
        "num_images": len(data.names),
        "loss": loss,
        **compute_scores(confusion, names, counts, class_sizes),
        "iiou_source": {"maps": "instances", "components": "components", None: None}[instances],
        "iou_per_category": None, "iiou_per_category": None, "category_miou": None, "category_iiou": None,
        "policy": {
            "num_classes": num_classes, "ignore_index": IGNORE_INDEX, "resolution": "label file",
            "accumulated_over": "split", "absent_class": "excluded",
            "class_sizes": None if counts is None else resolve_class_sizes(names, counts, class_sizes),
        },
        "seconds": seconds, "images_per_second": len(data.names) / seconds,
    }
    return Scored(results, examples)


def _total(parts: list[Tensor]) -> Tensor:
    """Add the images' float32 (T,) in their order, in float64 (which not every device has)."""
    return torch.stack(parts).cpu().double().sum(0)


def dataset_name(cfg: Any) -> str:
    """Name a dataset as its class is named, in small letters."""
    return cfg.dataset._target_.rsplit(".", 1)[-1].lower()


def memory_format(cfg: Any) -> torch.memory_format:
    """Return the memory layout that runtime.channels_last asks for."""
    return torch.channels_last if cfg.runtime.channels_last else torch.contiguous_format
