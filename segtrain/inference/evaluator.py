"""Score a split: what is counted in every image, and what results.json says about it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from segtrain.data.base import Dataset
from segtrain.data.loading import evaluation_batches, evaluation_groups
from segtrain.data.statistics import DatasetStatistics, instance_classes
from segtrain.data.transforms import Normalize
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.inference.sliding_window import WHOLE, Inference, predictor
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.losses import Loss
from segtrain.metrics.categories import category_ids, category_scores
from segtrain.metrics.confusion import class_counts, confusion_matrices
from segtrain.metrics.instances import count_instances
from segtrain.metrics.scores import compute_scores, pixel_scores, resolve_class_sizes
from segtrain.training.step import mean_loss, predict_epoch
from segtrain.visualize import side_by_side


@dataclass
class Scored:
    """A split's scores.

    Attributes:
        results: The part of results.json that a split decides.
        images: A row for each image in the order of the split: `name`, `loss` (None without one), `miou`, `macc`,
            `pacc`, `valid_pixels`, and `iou/<class>` for each class; None where a score is not defined.
        examples: Pictures of the first images, uint8 (H, 3 W + 8, 3) each: input, target, prediction.
    """

    results: dict[str, Any]
    images: list[dict[str, Any]]
    examples: list[np.ndarray]


def score_split(
    network: nn.Module,
    data: Dataset,
    found: DatasetStatistics,
    loss_fn: Loss,
    normalize: Normalize,
    *,
    device: torch.device,
    precision: str,
    batch_size: int,
    workers: int,
    instances: str | None,
    class_sizes: Mapping[str, float | None] | None,
    inference: Inference = WHOLE,
    num_examples: int = 0,
    after_batch: Callable[[], None] = lambda: None,
    keep: Callable[[int, np.ndarray], None] | None = None,
) -> Scored:
    """Score a network on a whole split.

    Counts are integers and losses are kept per image and added in image order, so that a score depends neither on the
    batch size nor on how the images were shared out. Several processes take turns with the batches; all return the
    scores of the whole split.

    Args:
        network: On the device; left in evaluation mode.
        data: The split.
        found: Its statistics.
        loss_fn: On the device.
        normalize: uint8 (N, H, W, C) -> float32 (N, C, H, W).
        device: Where the network is.
        precision: "fp32", "bf16" or "fp16".
        batch_size: Most images at once, and most windows.
        workers: Loader processes.
        instances: Where objects come from, "maps" or "components"; None: no iIoU.
        class_sizes: Mean object size by class name, of the training split.
        inference: How an image's logits are made.
        num_examples: How many pictures to make, of the first images.
        after_batch: Called after every batch, equally often in every process; may raise to stop.
        keep: Called with each image's number in the split and its prediction, train ids (H, W), int64.

    Raises:
        UserError: If the loss is not finite.
    """
    started = time.perf_counter()
    num_classes = len(data.labels)
    class_ids, categories = instance_classes(data.labels), category_ids(data.labels)
    confusion = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64, device=device)
    counts: list[Tensor] = []
    sums: list[Tensor] = []
    normalizers: list[Tensor] = []
    objects: list[np.ndarray] = []
    pictures: list[tuple[int, np.ndarray]] = []
    indices: list[int] = []  # of this process's images, to which the lists belong
    rank, num_processes = process_group.rank(), process_group.world_size()
    batches = evaluation_batches(data, found.sizes, instances=instances, batch_size=batch_size, workers=workers,
                                 pin_memory=device.type == "cuda", rank=rank, num_processes=num_processes)
    groups = evaluation_groups(found.sizes, batch_size)
    predict = predictor(network, normalize, inference, device=device, precision=precision, batch_size=batch_size)
    with tqdm(total=sum(map(len, groups[rank::num_processes])), desc="validating", unit="image", leave=False,
              disable=None if process_group.is_main() else True) as bar:
        for batch, logits in predict_epoch(predict, batches, device=device):
            for number in range(len(batch.indices)):
                one = slice(number, number + 1)
                sums.append(loss_fn(logits[one], batch.targets[one]))
                normalizers.append(loss_fn.normalizer(batch.targets[one]))
            preds = logits.argmax(1)
            matrices = confusion_matrices(preds, batch.targets, num_classes)
            confusion += matrices.sum(0)
            counts.extend(class_counts(matrices))
            if batch.instances is not None or keep is not None or batch.indices[0] < num_examples:
                on_cpu = zip(batch.images.cpu().numpy(), batch.targets.cpu().numpy(), preds.cpu().numpy(), strict=True)
                for number, (image, target, pred) in enumerate(on_cpu):
                    if batch.instances is not None:
                        objects.append(count_instances(pred, target, batch.instances[number], class_ids, categories))
                    if batch.indices[number] < num_examples:
                        pictures.append((batch.indices[number], side_by_side(image, target, pred, data.labels)))
                    if keep is not None:
                        keep(batch.indices[number], pred)
            indices += batch.indices
            bar.update(len(batch.indices))
            after_batch()
        if len(groups[rank::num_processes]) < len(groups[::num_processes]):
            after_batch()  # others have one batch more

    confusion = process_group.summed(confusion)
    all_counts, *of_loss = process_group.in_image_order(
        indices, *(_on_cpu(tensors) for tensors in (counts, sums, normalizers)))
    all_sums, all_normalizers = (torch.from_numpy(np.stack(each)).double() for each in of_loss)  # float64 on a CPU
    all_objects = None if instances is None else np.concatenate(process_group.in_image_order(indices, objects)[0])
    examples = sorted((each for part in process_group.all_gather(pictures) for each in part), key=lambda each: each[0])
    loss = _loss(all_sums.sum(0), all_normalizers.sum(0))
    if loss is not None and not math.isfinite(loss):
        raise UserError(f"the loss over {len(data.names)} images is {loss}: the network has diverged; train it with a "
                        "lower optim.lr, or with train.clip_norm=1. Checkpoints of earlier epochs are intact.")
    losses = [_loss(*pair) for pair in zip(all_sums, all_normalizers, strict=True)]
    results = split_results(data.labels, confusion, all_objects, instances=instances, class_sizes=class_sizes,
                            num_images=len(data.names), loss=loss,
                            seconds=process_group.broadcast(time.perf_counter() - started), inference=inference)
    return Scored(results, image_rows(data, np.stack(all_counts), losses), [picture for _, picture in examples])


def _on_cpu(parts: list[Tensor]) -> list[np.ndarray]:
    return list(torch.stack(parts).cpu().numpy()) if parts else []


def _loss(sums: Tensor, normalizers: Tensor) -> float | None:
    """Return the loss of an image or a split; None where no pixel is valid."""
    return float(mean_loss(sums, normalizers)) if (normalizers > 0).any() else None


def split_results(
    labels: Sequence[Label],
    confusion: Tensor,
    objects: np.ndarray | None,
    *,
    others: Sequence[Label] = (),
    instances: str | None,
    class_sizes: Mapping[str, float | None] | None,
    num_images: int,
    loss: float | None,
    seconds: float,
    inference: Inference | None = None,
) -> dict[str, Any]:
    """Put together the part of results.json that a split decides.

    Args:
        labels: The K evaluated classes, by train id.
        confusion: The sum of `confusion_matrix` over the split, (K+1, P+1), int64.
        objects: The rows of `count_instances` for all images, (U, 4), int64; None: no iIoU.
        others: The labels that columns K..P-1 of the confusion matrix stand for.
        instances: Where objects come from, "maps", "components" or None.
        class_sizes: Mean object size by class name.
        num_images: Images of the split.
        loss: Over the split, where there is one.
        seconds: What the scoring took.
        inference: How the logits were made; None where there were none, as for label files.
    """
    names = [label.name for label in labels]
    sizes = None if objects is None else resolve_class_sizes(names, objects, class_sizes)
    return {
        "num_images": num_images,
        "loss": loss,
        **compute_scores(confusion, names, objects, sizes),
        "iiou_source": {"maps": "instances", "components": "components", None: None}[instances],
        **category_scores(confusion, labels, others, objects, sizes),
        "policy": {
            "num_classes": len(names), "ignore_index": IGNORE_INDEX, "resolution": "label file",
            "accumulated_over": "split", "absent_class": "excluded", "class_sizes": sizes,
        },
        "inference": None if inference is None else inference.as_results(),
        "seconds": seconds, "images_per_second": num_images / seconds,
    }


def image_rows(data: Dataset, counts: np.ndarray, losses: Sequence[float | None]) -> list[dict[str, Any]]:
    """Score every image by itself, for finding the bad ones: the split's scores are not the means of these.

    Args:
        data: The split of N images.
        counts: TP, FP and FN of every class, (N, 3, K), int64.
        losses: N losses, or Nones.
    """
    names = [label.name for label in data.labels]
    rows = []
    for name, each, loss in zip(data.names, counts, losses, strict=True):
        scores = pixel_scores(each, names)
        rows.append({"name": name, "loss": loss, **{key: scores[key] for key in ("miou", "macc", "pacc")},
                     "valid_pixels": int(each[0].sum() + each[2].sum()),
                     **{f"iou/{class_name}": value for class_name, value in scores["iou_per_class"].items()}})
    return rows
