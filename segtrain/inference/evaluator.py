"""Score a network on a split, and draw the images that it predicts worst."""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from segtrain.data.base import Dataset
from segtrain.data.loading import Batch, group_for_evaluation, load_for_evaluation
from segtrain.data.statistics import DatasetStatistics, list_instance_classes
from segtrain.data.transforms import Normalize
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.files import write_file
from segtrain.inference.details import Details
from segtrain.inference.forward import WHOLE_IMAGE, InferenceSettings, make_predict_fn
from segtrain.inference.selection import Selection
from segtrain.inference.sliding_window import PredictFn
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.losses import Loss, mean_loss
from segtrain.metrics.categories import compute_category_scores, number_categories
from segtrain.metrics.confusion import class_counts, confusion_matrix
from segtrain.metrics.instances import count_instances
from segtrain.metrics.scores import compute_pixel_scores, compute_scores, resolve_class_sizes
from segtrain.terminal import percent
from segtrain.visualize import draw_errors, draw_side_by_side, shrink


@dataclass
class Scored:
    """A split's scores.

    Attributes:
        results: As of `split_results`.
        images: As of `image_rows`.
        examples: The first images as of `draw_side_by_side`, uint8 (H, 3 W + 8, 3) each.
        selection: The images that a report shows, if they were asked for.
    """

    results: dict[str, Any]
    images: list[dict[str, Any]]
    examples: list[np.ndarray]
    selection: Selection | None = None


def score_split(
    network: nn.Module,
    data: Dataset,
    statistics: DatasetStatistics,
    loss_fn: Loss,
    normalize: Normalize,
    *,
    device: torch.device,
    precision: str,
    batch_size: int,
    workers: int,
    instances: str | None,
    class_sizes: Mapping[str, float | None] | None,
    settings: InferenceSettings = WHOLE_IMAGE,
    num_examples: int = 0,
    selection: Selection | None = None,
    details: Details | None = None,
    after_batch: Callable[[], None] = lambda: None,
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
) -> Scored:
    """Score a network on a whole split.

    Counts are integers, and losses are kept per image and added in image order, so that a score depends neither on the
    batch size nor on the number of processes. Several processes share the batches; all return the scores of the whole
    split.

    Args:
        network: On the device; left in evaluation mode.
        batch_size: Maximum number of images, and of windows, at once.
        instances: Where objects come from, "maps" or "components"; None: no iIoU.
        class_sizes: Mean object size by class name, of the training split.
        num_examples: How many images to draw, spread over the split.
        selection: Where to keep the images that a report shows, in every process those of all.
        details: Where to count what is too slow for every validation; its results join those of the split.
        after_batch: Called after every batch, equally often in every process; may raise to stop.
        on_prediction: Called with each image's number in the split and its prediction, train ids (H, W), int64.

    Raises:
        UserError: If the loss is not finite.
    """
    started = time.perf_counter()
    num_classes = len(data.labels)
    class_ids, categories = list_instance_classes(data.labels), number_categories(data.labels)
    confusion = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64, device=device)
    counts: list[Tensor] = []
    sums: list[Tensor] = []
    normalizers: list[Tensor] = []
    objects: list[np.ndarray] = []
    examples: list[tuple[int, np.ndarray]] = []
    shown = spread(len(statistics.sizes), num_examples)
    if selection is not None:
        selection.examples, selection.draw = frozenset(shown), data.form.draw
    indices: list[int] = []  # of this process's images, to which the lists belong
    rank, num_processes = process_group.rank(), process_group.world_size()
    batches = load_for_evaluation(data, statistics.sizes, instances=instances, batch_size=batch_size, workers=workers,
                                  pin_memory=device.type == "cuda", rank=rank, num_processes=num_processes)
    groups = group_for_evaluation(statistics.sizes, batch_size)
    predict = make_predict_fn(network, normalize, settings, device=device, precision=precision, batch_size=batch_size)
    with tqdm(total=sum(map(len, groups[rank::num_processes])), desc="validating", unit="image", leave=False,
              disable=None if process_group.is_main() else True) as bar:
        for batch, logits in predict_batches(predict, batches, device=device):
            for number in range(len(batch.indices)):
                one = slice(number, number + 1)
                sums.append(loss_fn(logits[one], batch.targets[one]))
                normalizers.append(loss_fn.normalizer(batch.targets[one]))
            preds = logits.max(1).indices
            matrices = confusion_matrix(preds, batch.targets, num_classes)
            confusion += matrices.sum(0)
            counts.extend(image_counts := class_counts(matrices))
            if selection is not None:
                selection.add(batch.indices, image_counts, batch.images, batch.targets, preds)
            if details is not None:
                details.add(logits, preds, batch.targets)
            if batch.instances is not None or on_prediction is not None or not shown.isdisjoint(batch.indices):
                on_cpu = zip(batch.images.cpu().numpy(), batch.targets.cpu().numpy(), preds.cpu().numpy(), strict=True)
                for number, (image, target, pred) in enumerate(on_cpu):
                    if batch.instances is not None:
                        objects.append(count_instances(pred, target, batch.instances[number], class_ids, categories))
                    if batch.indices[number] in shown:
                        examples.append((batch.indices[number], draw_side_by_side(
                            data.form.draw(image), target, pred, data.labels)))
                    if on_prediction is not None:
                        on_prediction(batch.indices[number], pred)
            indices += batch.indices
            bar.update(len(batch.indices))
            after_batch()
        if len(groups[rank::num_processes]) < len(groups[::num_processes]):
            after_batch()  # others have one batch more

    confusion = process_group.summed(confusion)
    all_counts, *of_loss = process_group.in_image_order(
        indices, *(_on_cpu(tensors) for tensors in (counts, sums, normalizers)))
    all_sums, all_normalizers = (torch.from_numpy(np.stack(values)).double() for values in of_loss)  # float64 on a CPU
    all_objects = None if instances is None else np.concatenate(process_group.in_image_order(indices, objects)[0])
    drawn = sorted((pair for part in process_group.all_gather(examples) for pair in part), key=lambda pair: pair[0])
    loss = _loss(all_sums.sum(0), all_normalizers.sum(0))
    if loss is not None and not math.isfinite(loss):
        raise UserError(f"the loss over {len(data.names)} images is {loss}: the network has diverged; train it with a "
                        "lower optim.lr, or with train.clip_norm=1. Checkpoints of earlier epochs are intact.")
    losses = [_loss(*pair) for pair in zip(all_sums, all_normalizers, strict=True)]
    if selection is not None:
        selection.merge(image for part in process_group.all_gather(selection.images()) for image in part)
    split_counts = np.stack(all_counts)
    results = split_results(data.labels, confusion, all_objects, instances=instances, class_sizes=class_sizes,
                            num_images=len(data.names), loss=loss,
                            seconds=process_group.broadcast(time.perf_counter() - started), settings=settings)
    if details is not None:
        results |= details.results([label.name for label in data.labels], split_counts)
    return Scored(results, image_rows(data, split_counts, losses), [drawing for _, drawing in drawn], selection)


@torch.inference_mode()
def predict_batches(predict: PredictFn, batches: Iterable[Batch], *, device: torch.device,
                    ) -> Iterator[tuple[Batch, Tensor]]:
    """Yield each batch on the device, and its logits, float32 (N, K, H, W)."""
    for batch in batches:
        on_device = replace(batch, images=batch.images.to(device, non_blocking=True),
                            targets=batch.targets.to(device, non_blocking=True))
        yield on_device, predict(on_device.images)


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
    settings: InferenceSettings | None = None,
) -> dict[str, Any]:
    """Return the part of results.json that depends on a split.

    Args:
        labels: The K evaluated classes, by train id.
        confusion: The sum of `confusion_matrix` over the split, (K+1, P+1), int64.
        objects: The rows of `count_instances` for all images, (U, 4), int64; None: no iIoU.
        others: The labels of columns K..P-1 of the confusion matrix.
        instances: Where objects come from, "maps", "components" or None.
        class_sizes: Mean object size by class name.
        settings: How the logits were computed; None for label files.
    """
    names = [label.name for label in labels]
    sizes = None if objects is None else resolve_class_sizes(names, objects, class_sizes)
    return {
        "num_images": num_images,
        "loss": loss,
        **compute_scores(confusion, names, objects, sizes),
        "iiou_source": {"maps": "instances", "components": "components", None: None}[instances],
        **compute_category_scores(confusion, labels, others, objects, sizes),
        "policy": {
            "num_classes": len(names), "ignore_index": IGNORE_INDEX, "resolution": "label file",
            "accumulated_over": "split", "absent_class": "excluded", "class_sizes": sizes,
        },
        "inference": None if settings is None else settings.as_results(),
        "seconds": seconds, "images_per_second": num_images / seconds,
    }


def image_rows(data: Dataset, counts: np.ndarray, losses: Sequence[float | None]) -> list[dict[str, Any]]:
    """Score every image by itself, to find the bad ones: the split's scores are not the means of these.

    Args:
        data: The split of N images.
        counts: TP, FP and FN of every class, (N, 3, K), int64.
        losses: N losses; None without valid pixels, or for label files.

    Returns:
        A row for each image: `name`, `loss`, `miou`, `macc`, `pacc`, `valid_pixels`, and `iou/<class>` for each class;
        None where a score is not defined.
    """
    names = [label.name for label in data.labels]
    rows = []
    for name, image_counts, loss in zip(data.names, counts, losses, strict=True):
        scores = compute_pixel_scores(image_counts, names)
        rows.append({"name": name, "loss": loss, **{key: scores[key] for key in ("miou", "macc", "pacc")},
                     "valid_pixels": int(image_counts[0].sum() + image_counts[2].sum()),
                     **{f"iou/{class_name}": value for class_name, value in scores["iou_per_class"].items()}})
    return rows


def spread(count: int, most: int) -> set[int]:
    """Return the numbers of `most` of `count` images, or of all, from the first to the last at equal distances."""
    if most >= count:
        return set(range(count))
    return {round(number * (count - 1) / max(most - 1, 1)) for number in range(most)}


def draw_worst(folder: Path, data: Dataset, rows: Sequence[Mapping[str, Any]], predict: PredictFn, count: int) -> None:
    """Draw up to `count` images of lowest mIoU: input, target, prediction, errors; file names begin with rank and mIoU.

    `rows` are those of `image_rows`; images without a valid pixel are left out. The images are predicted again, so that
    memory need not hold the predictions of a whole split. The folder is made if there is anything to draw.
    """
    scored = [index for index, row in enumerate(rows) if row["miou"] is not None]
    for rank, index in enumerate(sorted(scored, key=lambda index: rows[index]["miou"])[:count], 1):
        folder.mkdir(exist_ok=True)
        row, sample = rows[index], data.read(index)
        pred = predict(torch.tensor(sample.image)[None]).argmax(1)[0].cpu().numpy()
        shown = data.form.draw(sample.image)
        image, target = shrink(shown, sample.target)
        notes = [f"IoU {percent(row[f'iou/{label.name}'])} %" for label in data.labels]
        miou, pacc = (percent(row[name]) for name in ("miou", "pacc"))
        title = f"{row['name']}\nmIoU {miou} %, pixel accuracy {pacc} %"
        figure = draw_errors(image, target, shrink(shown, pred.astype("uint8"))[1], data.labels, notes, title)
        name = re.sub(r"[^\w.-]", "_", row["name"]).encode()[-100:].decode(errors="ignore")
        path = folder / f"{rank:0{len(str(count))}d}_miou_{100 * row['miou']:05.2f}_{name}.png"
        write_file(path, partial(figure.savefig, format="png"))
