"""Compute the numbers that others print under the names of our scores, from one set of predictions.

    python scripts/metric_drift.py predictions dataset=camvid dataset.root=/data/CamVid
    python scripts/metric_drift.py predictions dataset=voc dataset.root=/data/VOCdevkit --batch-sizes 16 --json all.json

The folder holds a PNG for each image, as `task=evaluate task.save_predictions=true` writes and `task=score` reads them.
What follows are overrides as for segtrain; dataset.split is the split that was predicted. Prints a table in Markdown:
what is computed, its value, its difference from the score of ours that it is taken for, and where it is found.
docs/explanation/comparing-scores.md explains the table and names the sources.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segtrain.config import build
from segtrain.config.compose import compose_config
from segtrain.data.base import Dataset
from segtrain.data.images import read_mask
from segtrain.data.label_files import UNKNOWN, find_predictions, map_predicted_ids
from segtrain.errors import UserError
from segtrain.metrics.confusion import class_counts, confusion_matrix
from segtrain.metrics.scores import compute_scores

FACTORS = (2, 4, 8)
EXCLUDED = float("nan")
FIRST, CENTRE = "nearest", "nearest-exact"  # which pixel stands for a block


@dataclass(frozen=True)
class Row:
    """A number that is printed somewhere."""

    group: str  # the head it stands under
    what: str  # how it is computed
    value: float | None  # None without a denominator
    ours: str  # the key of results.json that it is taken for
    where: str = ""  # who prints it


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("predictions", type=Path, help="the folder of predicted PNG files")
    arguments.add_argument("overrides", nargs="*", help="dataset=... dataset.root=...")
    arguments.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 8, 16])
    arguments.add_argument("--json", type=Path, help="also write the table there")
    given = arguments.parse_intermixed_args()
    if min(given.batch_sizes) < 1:
        arguments.error("--batch-sizes must be at least 1")
    try:
        data = dataset_of(given.overrides)
        names = [label.name for label in data.labels]
        ours, found = drift(pairs(data, given.predictions), names, given.batch_sizes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(markdown(ours, found))
    if given.json:
        given.json.write_text(json.dumps({"ours": ours, "rows": [asdict(row) for row in found]}, indent=1) + "\n")


def dataset_of(overrides: Sequence[str]) -> Dataset:
    """Build the split that overrides of the command line choose, for its targets."""
    cfg = compose_config(overrides)
    return build.dataset(cfg, cfg.dataset.split, targets_only=True)


def pairs(data: Dataset, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield prediction and target of every image, integer (H, W) train ids each; raise UserError for a bad file."""
    meaning = map_predicted_ids(data)
    paths, _ = find_predictions(data, folder)
    for index, path in enumerate(paths):
        pred, target = meaning[read_mask(path)], data.read(index).target
        if pred.shape != target.shape:
            raise UserError(f"{path} is {pred.shape[1]}x{pred.shape[0]} but its target is "
                            f"{target.shape[1]}x{target.shape[0]}: save predictions at the size of the label.")
        if (pred == UNKNOWN).any():
            raise UserError(f"{path} holds values that are not a class of the dataset: segtrain task=score lists them.")
        yield pred, target


def drift(images: Iterator[tuple[np.ndarray, np.ndarray]], names: Sequence[str],
          batch_sizes: Sequence[int]) -> tuple[dict[str, Any], list[Row]]:
    """Compute our scores, and what others compute.

    Args:
        images: Prediction and target of every image of the split in its order, integer (H, W) train ids each.
        names: The K class names.
        batch_sizes: For the means over batches.

    Returns:
        The scores of `compute_scores`, and the rows of the table.
    """
    num_classes = len(names)
    of_images: list[Tensor] = []
    reduced = {factor: torch.zeros(3, num_classes + 1, num_classes + 1, dtype=torch.int64) for factor in FACTORS}
    for pred_array, target_array in images:
        pred, target = torch.from_numpy(pred_array).long(), torch.from_numpy(target_array).long()
        of_images.append(confusion_matrix(pred, target, num_classes))
        for factor, total in reduced.items():
            small = [max(1, side // factor) for side in target.shape]
            small_pred = nearest(pred, small)
            total[0] += confusion_matrix(small_pred, nearest(target, small), num_classes)
            total[1] += confusion_matrix(nearest(pred, small, CENTRE), nearest(target, small, CENTRE), num_classes)
            total[2] += confusion_matrix(nearest(small_pred, target.shape), target, num_classes)
    matrices = torch.stack(of_images)
    ours = compute_scores(matrices.sum(0), names)
    return ours, [*averages(matrices, batch_sizes), *voids(matrices), *others(matrices), *resolutions(reduced)]


def averages(matrices: Tensor, batch_sizes: Sequence[int]) -> list[Row]:
    """IoU averaged over something else than the classes of the split. Shape (N, K+1, K+1), int64, as for all below."""
    images, split = counts_of(matrices), counts_of(matrices.sum(0))
    rows = [
        ("images: mean of each image's mIoU, absent classes left out", mean(mean_iou(images, EXCLUDED)), ""),
        ("images: the same, absent classes as 1", mean(mean_iou(images, 1)),
         'smp `iou_score(reduction="macro-imagewise")`'),
        ("images: the same, absent classes as 0", mean(mean_iou(images, 0)),
         'smp `iou_score(reduction="macro-imagewise", zero_division=0)`'),
        ("images: the same, only the classes of the image's target", mean(mean_iou(images, EXCLUDED, of_target=True)),
         "MONAI `MeanIoU()`"),
        ("images: mean over all pairs of an image and a class in it", mean(iou(images, EXCLUDED)),
         "torchmetrics `segmentation.MeanIoU`"),
        ("images: mean of each image's TP / union, summed over classes", mean(micro(images)),
         'smp `iou_score(reduction="micro-imagewise")`'),
    ]
    for size in batch_sizes:
        batches = counts_of(torch.stack([part.sum(0) for part in matrices.split(size)]))
        rows.append((f"batches of {size}: mean of each batch's mIoU, absent classes left out",
                     mean(mean_iou(batches, EXCLUDED)), "loops that average the score of a batch"))
        rows.append((f"batches of {size}: the same, absent classes as 1", mean(mean_iou(batches, 1)),
                     "segmentation_models (Keras) `IOUScore`, of hard predictions"))
        whole = len(matrices) // size * size
        rows.append((f"batches of {size}: one matrix, the last incomplete batch left out",
                     mean(mean_iou(counts_of(matrices[:whole].sum(0)), EXCLUDED)), "LinkNet's `test.lua`"))
    rows += [
        ("all pixels: TP summed over classes / unions summed over classes", mean(micro(split)),
         'smp `iou_score(reduction="micro")`, torchmetrics `JaccardIndex(average="micro")`'),
        ("all pixels: IoU weighted by the pixels of the classes (our `fwiou`)", frequency_weighted(split),
         'torchmetrics `JaccardIndex(average="weighted")`, detectron2 `fwIoU`'),
    ]
    return [Row("another average", what, value, "miou", where) for what, value, where in rows]


def voids(matrices: Tensor) -> list[Row]:
    """The split's mIoU under other rules for void and for absent classes."""
    total = matrices.sum(0)
    split = counts_of(total)
    num_classes = split.shape[-1]
    with_void = void_as_false(total)
    # The pixels of void that are predicted as no class: with void as a class of its own they are right.
    void = np.array([[total[num_classes, num_classes]], [total[:num_classes, num_classes].sum()],
                     [total[num_classes, :num_classes].sum()]])
    rows = [
        ("classes absent from the split as 0", mean(mean_iou(split, 0)), "PaddleSeg `mean_iou`"),
        ("classes absent from the split as 1", mean(mean_iou(split, 1)), 'smp `iou_score(reduction="macro")`'),
        ("classes in no target left out, even if predicted", mean(mean_iou(split, EXCLUDED, of_target=True)),
         "detectron2 `SemSegEvaluator`"),
        ("predictions on void are false positives", mean(mean_iou(with_void, EXCLUDED)),
         "smp `get_stats` without `ignore_index`, fastai `JaccardCoeffMulti`"),
        (f"void is a class: mean over {num_classes + 1}", mean(mean_iou(np.hstack([with_void, void]), EXCLUDED)),
         f"Keras `MeanIoU(num_classes={num_classes + 1})` without `ignore_class`"),
    ]
    return [Row("void and absent classes", what, value, "miou", where) for what, value, where in rows]


def others(matrices: Tensor) -> list[Row]:
    """Quantities of another kind that go by the same names."""
    total = matrices.sum(0)
    images = counts_of(matrices)
    tp, fp, fn = split = counts_of(total)
    correct, valid, num_classes = tp.sum(), (tp + fn).sum(), len(tp)
    rows = [
        ("mean class accuracy, called IoU", mean(divided(tp, tp + fn)), "miou", "LinkNet's `test.lua`, column IoU"),
        ("mean Dice (F1) of the classes", mean(dice(split)), "miou",
         'mmseg `mDice`, smp `f1_score(reduction="macro")`'),
        ("the same, predictions on void are false positives", mean(dice(void_as_false(total))), "miou",
         "fastai `DiceMulti`"),
        ("mean over images of the mean Dice of the classes in the target",
         mean(nanmean(masked(dice(images), images))), "miou", "MONAI `DiceMetric()`"),
        ("Dice of all classes' pixels together", quotient(2 * correct, 2 * correct + fp.sum() + fn.sum()), "miou",
         'smp `f1_score(reduction="micro")`'),
        ("pixel accuracy", quotient(correct, valid), "miou",
         "`acc_camvid` in code after fastai's course, mmseg `aAcc`"),
        ("pixel accuracy, void pixels as wrong", quotient(correct, int(total.sum())), "pacc",
         "Keras `SparseCategoricalAccuracy`, void as a class"),
        ("accuracy of each class against the rest, true negatives as right",
         quotient(valid * num_classes - fp.sum() - fn.sum(), valid * num_classes), "pacc", "smp `accuracy`"),
    ]
    return [Row("another quantity", *row) for row in rows]


def resolutions(reduced: dict[int, Tensor]) -> list[Row]:
    """The split's mIoU at other resolutions, from the matrices by factor, (3, K+1, K+1): scored small, scored large."""
    what = ("prediction and target reduced to 1/{}, the first pixel of each block",
            "prediction and target reduced to 1/{}, the middle pixel", "prediction alone reduced to 1/{} and enlarged")
    where = ("OpenCV's and torch's nearest", "Pillow's nearest, torch's nearest-exact", "networks with a small output")
    return [Row("another resolution", what[kind].format(factor), mean(mean_iou(counts_of(total[kind]), EXCLUDED)),
                "miou", where[kind])
            for kind in range(3) for factor, total in reduced.items()]


def counts_of(matrices: Tensor) -> np.ndarray:
    """Take TP, FP and FN: (..., K+1, K+1) -> (3, ..., K)."""
    return np.moveaxis(class_counts(matrices).numpy(), -2, 0)


def void_as_false(total: Tensor) -> np.ndarray:
    """Take TP, FP and FN of the split, (3, K), with predictions on void as false positives."""
    tp, fp, fn = counts_of(total)
    return np.stack([tp, fp + total[-1, :len(tp)].numpy(), fn])


def divided(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = EXCLUDED) -> np.ndarray:
    """Divide, with `otherwise` where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), otherwise)


def iou(counts: np.ndarray, absent: float) -> np.ndarray:
    """Compute the IoU of each class, with a value where it is in neither image: (3, ..., K) -> (..., K)."""
    return divided(counts[0], counts.sum(0), absent)


def dice(counts: np.ndarray) -> np.ndarray:
    """Compute the Dice coefficient of each class: (3, ..., K) -> (..., K)."""
    return divided(2 * counts[0], counts[0] + counts.sum(0))


def mean_iou(counts: np.ndarray, absent: float, *, of_target: bool = False) -> np.ndarray:
    """Average the IoU over the classes, or over those that a target holds: (3, ..., K) -> (...)."""
    values = iou(counts, absent)
    return nanmean(masked(values, counts) if of_target else values)


def masked(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Leave out the classes that no target holds."""
    return np.where(counts[0] + counts[2] > 0, values, EXCLUDED)


def micro(counts: np.ndarray) -> np.ndarray:
    """Divide the true positives of all classes by the unions of all classes: (3, ..., K) -> (...)."""
    return divided(counts[0].sum(-1), counts.sum(0).sum(-1))


def frequency_weighted(counts: np.ndarray) -> float | None:
    """Weigh the IoU of each class, (3, K), by its target pixels."""
    pixels = counts[0] + counts[2]
    return quotient(float((iou(counts, 0) * pixels).sum()), pixels.sum())


def nanmean(values: np.ndarray) -> np.ndarray:
    """Average the last axis over what is not NaN; NaN if all is, without numpy's warning."""
    known = ~np.isnan(values)
    return divided(np.where(known, values, 0).sum(-1), known.sum(-1))


def mean(values: np.ndarray) -> float | None:
    """Average all that is not NaN, of any shape."""
    found = float(nanmean(np.ravel(values)))
    return None if np.isnan(found) else found


def quotient(numerator: float, denominator: float) -> float | None:
    return float(numerator) / float(denominator) if denominator else None


def nearest(ids: Tensor, size: Sequence[int], mode: str = FIRST) -> Tensor:
    """Resize class ids (H, W) by picking the first or the middle pixel of each block."""
    return interpolate(ids[None, None].double(), size=tuple(size), mode=mode)[0, 0].long()


def markdown(ours: dict[str, Any], rows: Sequence[Row]) -> str:
    """Write the table; values in percent."""
    lines = ["| what is computed | % | − ours | where |", "|---|---|---|---|"]
    lines += [f"| **ours: `{key}`** | **{percent(ours[key])}** | | |" for key in ("miou", "macc", "pacc")]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append(f"| *{group}* | | | |")
        reference = ours[row.ours]
        difference = "" if row.value is None or reference is None else f"{100 * (row.value - reference):+.2f}"
        lines.append(f"| {row.what} | {percent(row.value)} | {difference}{_of(row)} | {row.where} |")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """Write a share in percent; nothing if it is undefined."""
    return "" if value is None else f"{100 * value:.2f}"


def _of(row: Row) -> str:
    return "" if row.ours == "miou" else f" (`{row.ours}`)"


if __name__ == "__main__":
    main()
