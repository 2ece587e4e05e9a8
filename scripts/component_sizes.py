"""Show how iIoU from connected components depends on the sizes of the components, from one set of predictions.

    python scripts/component_sizes.py predictions dataset=camvid dataset.root=/data/CamVid
    python scripts/component_sizes.py predictions dataset=camvid dataset.root=/data/CamVid --bins 16 64 256 1024

The folder holds a PNG for each image, as `task=score` reads them. What follows are overrides as for segtrain. Prints
tables in Markdown: what components there are, how much of them is found by size, iIoU if those below a size are left
out (as a crowd is: counted in IoU, in neither iTP nor iFN), and iIoU with other class sizes. The training split is read
for the class sizes. docs/explanation/comparing-scores.md explains the tables.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from metric_drift import dataset_of, pairs, percent

from segtrain.data.statistics import list_instance_classes
from segtrain.errors import UserError
from segtrain.metrics.confusion import confusion_matrix
from segtrain.metrics.instances import count_instances, label_components, mean_instance_sizes
from segtrain.metrics.scores import compute_scores

THRESHOLDS = (1, 4, 16, 64, 256)
SCALES = (0.25, 0.5, 1, 2, 4)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("predictions", type=Path, help="the folder of predicted PNG files")
    arguments.add_argument("overrides", nargs="*", help="dataset=... dataset.root=...")
    arguments.add_argument("--bins", type=int, nargs="+", default=[16, 64, 256, 1024, 4096],
                           help="sizes in pixels at which a bin of components begins")
    given = arguments.parse_intermixed_args()
    try:
        print(report(given.predictions, given.overrides, sorted(given.bins)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def report(folder: Path, overrides: Sequence[str], bins: Sequence[int]) -> str:
    """Read both splits and write all tables."""
    data = dataset_of(overrides)
    class_ids, names = list_instance_classes(data.labels), [label.name for label in data.labels]
    confusion = torch.zeros(len(names) + 1, len(names) + 1, dtype=torch.int64)
    parts = []
    for pred, target in pairs(data, folder):
        confusion += confusion_matrix(torch.from_numpy(pred), torch.from_numpy(target), len(names))
        parts.append(count_instances(pred, target, label_components(target, class_ids), class_ids))
    objects = np.concatenate(parts)
    training = dataset_of([*overrides, "dataset.split=train"])
    seen = []
    for index in range(len(training.names)):
        target = training.read(index).target
        seen.append(count_instances(target, target, label_components(target, class_ids), class_ids))
    known = np.concatenate(seen)
    return "\n\n".join([
        "\n".join(counts_table(objects, names, class_ids)),
        "\n".join(recall_table(objects, names, class_ids, bins)),
        "\n".join(threshold_table(confusion, objects, known, names, class_ids)),
        "\n".join(size_table(confusion, objects, known, names, class_ids)),
    ])


def sizes_of(objects: np.ndarray, names: Sequence[str], class_ids: Sequence[int]) -> dict[str, float | None]:
    """Return the mean pixels of the objects of each class; None for a class without any."""
    sizes = mean_instance_sizes(objects)
    return {names[train_id]: sizes.get(train_id) for train_id in class_ids}


def counts_table(objects: np.ndarray, names: Sequence[str], class_ids: Sequence[int]) -> list[str]:
    """Show how many components there are, how large, and the share of the class's pixels in tiny ones."""
    lines = ["| class | components | mean pixels | median | below 16 px | their pixels | below 64 px | their pixels |",
             "|---|---|---|---|---|---|---|---|"]
    for train_id in class_ids:
        pixels = objects[objects[:, 0] == train_id, 1]
        if len(pixels) == 0:
            continue
        cells = [f"{len(pixels)}", f"{pixels.mean():.0f}", f"{np.median(pixels):.0f}"]
        for limit in (16, 64):
            tiny = pixels < limit
            cells += [percent(tiny.mean()), percent(pixels[tiny].sum() / pixels.sum())]
        lines.append(f"| {names[train_id]} | {' | '.join(cells)} |")
    return lines


def recall_table(objects: np.ndarray, names: Sequence[str], class_ids: Sequence[int],
                 bins: Sequence[int]) -> list[str]:
    """Average what is found of a component (tp / n) over the components of each range of sizes."""
    edges = [1, *(edge for edge in bins if edge > 1)]
    ranges = [f"{low} to {high - 1}" for low, high in itertools.pairwise(edges)] + [f"{edges[-1]} and more"]
    lines = [f"| class | {' | '.join(ranges)} | all | of all pixels |", "|---" * (len(ranges) + 3) + "|"]
    for train_id in class_ids:
        mine = objects[objects[:, 0] == train_id]
        if len(mine) == 0:
            continue
        place, found = np.digitize(mine[:, 1], edges) - 1, mine[:, 2] / mine[:, 1]
        here = [found[place == index] for index in range(len(edges))]
        cells = [f"{percent(part.mean())} ({len(part)})" if len(part) else "" for part in here]
        cells += [percent(found.mean()), percent(mine[:, 2].sum() / mine[:, 1].sum())]
        lines.append(f"| {names[train_id]} | {' | '.join(cells)} |")
    return lines


def threshold_table(confusion: torch.Tensor, objects: np.ndarray, known: np.ndarray, names: Sequence[str],
                    class_ids: Sequence[int]) -> list[str]:
    """Compute iIoU without the components below a size, with the class sizes of all, and of the same, components."""
    mine = [names[train_id] for train_id in class_ids]
    lines = [f"| components of | sizes A of | number | {' | '.join(mine)} | iIoU |", "|---" * (len(mine) + 4) + "|"]
    for limit in THRESHOLDS:
        kept = objects[objects[:, 1] >= limit]
        for what, sizes in (("all", sizes_of(known, names, class_ids)),
                            ("the same", sizes_of(known[known[:, 1] >= limit], names, class_ids))):
            if limit == THRESHOLDS[0] and what != "all":
                continue
            lines.append(f"| {limit} px and more | {what} | {len(kept)} | "
                         f"{_iious(confusion, kept, sizes, names, mine)} |")
    return lines


def size_table(confusion: torch.Tensor, objects: np.ndarray, known: np.ndarray, names: Sequence[str],
               class_ids: Sequence[int]) -> list[str]:
    """Compute iIoU with other class sizes, beside IoU and accuracy."""
    mine = [names[train_id] for train_id in class_ids]
    scores = compute_scores(confusion, names)
    lines = [f"| | {' | '.join(mine)} | mean |", "|---" * (len(mine) + 2) + "|"]
    for text, key in (("IoU", "iou_per_class"), ("accuracy", "acc_per_class")):
        values = [scores[key][name] for name in mine]
        defined = [value for value in values if value is not None]
        lines.append(f"| {text} | {' | '.join(map(percent, [*values, np.mean(defined) if defined else None]))} |")
    own, training = (sizes_of(rows, names, class_ids) for rows in (objects, known))
    lines.append(f"| A of the training split | {' | '.join(_pixels(training[name]) for name in mine)} | |")
    lines.append(f"| A of this split | {' | '.join(_pixels(own[name]) for name in mine)} | |")
    for scale in SCALES:
        sizes = {name: None if size is None else scale * size for name, size in training.items()}
        lines.append(f"| iIoU, A of the training split × {scale} | {_iious(confusion, objects, sizes, names, mine)} |")
    lines.append(f"| iIoU, A of this split | {_iious(confusion, objects, own, names, mine)} |")
    return lines


def _iious(confusion: torch.Tensor, objects: np.ndarray, sizes: dict[str, float | None], names: Sequence[str],
           mine: Sequence[str]) -> str:
    scores = compute_scores(confusion, names, objects, sizes)
    return " | ".join(map(percent, [*(scores["iiou_per_class"][name] for name in mine), scores["iiou"]]))


def _pixels(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    main()
