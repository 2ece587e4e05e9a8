"""Compare task=score with the official scripts of Cityscapes, side by side on one machine: seconds, and every number.

    python scripts/score_speed.py --official-python /path/to/an/environment/bin/python

That environment holds cityscapesScripts 2.3.0, which needs numpy below 2.4. --official-path names a folder that is
searched first, such as a build of cityscapesScripts with its Cython extension. The label files are drawn: street
scenes of 2048x1024 with some thirty objects each, groups, ignored labels, and predictions that waver at borders and
take objects for others. The two take turns. Reported are the median seconds of the whole processes, and of the work
without the start of the process, reading of the files included.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segtrain.data.cityscapes import CITYSCAPES, CITYSCAPES_LABELS
from segtrain.data.streets.scene import draw_scene

# The label ids that the classes of the drawn scenes become; those of objects are drawn by lot.
STUFF = {0: 23, 1: 11, 2: 17, 3: 7, 4: 8, 5: 21, 6: 20, 7: 13, 255: 4}
THINGS = {8: [26] * 8 + [27, 28, 29, 30, 31], 9: [24] * 4 + [25], 10: [33, 33, 32]}
NAME = "aachen_{:06}_000019"

OFFICIAL = """
import glob, json, sys, time
start = time.perf_counter()
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as tool
import_seconds = time.perf_counter() - start
root, predictions = sys.argv[1:]
tool.args.predictionPath, tool.args.quiet, tool.args.JSONOutput = predictions, True, False
targets = sorted(glob.glob(root + "/gtFine/val/*/*_gtFine_labelIds.png"))
start = time.perf_counter()
found = tool.evaluateImgLists([tool.getPrediction(tool.args, target) for target in targets], targets, tool.args)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "cython": tool.CSUPPORT, "scores": found}))
"""


def main() -> None:
    arguments = read_arguments()
    if arguments.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:arguments.cores])
    with tempfile.TemporaryDirectory() as folder:
        root, predictions = Path(folder, "data"), Path(folder, "predictions")
        num_objects = [write_image(root, predictions, index, *arguments.size) for index in range(arguments.images)]
        print(f"{arguments.images} images of {arguments.size[1]}x{arguments.size[0]}, "
              f"{np.mean(num_objects):.1f} objects each")
        turns = [(run_ours(root, predictions, Path(folder, f"run{turn}")),
                  run_official(root, predictions, arguments.official_python, arguments.official_path))
                 for turn in range(arguments.turns)]
    ours, official = turns[0]
    report(turns)
    differences = compare(ours[0], official[0]["scores"])
    print(f"{len(differences)} numbers compared, largest difference {max(differences.values()):.1e}")
    wrong = {name: value for name, value in differences.items() if not value <= 1e-9}
    if wrong:
        sys.exit(f"these differ: {wrong}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--official-python", required=True, help="of the environment with cityscapesScripts")
    parser.add_argument("--official-path", help="a folder with another build of cityscapesScripts")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="that both may use; 0: all")
    return parser.parse_args()


# ---- the label files


def write_image(root: Path, predictions: Path, index: int, height: int, width: int) -> int:
    """Write label ids, instance ids and a prediction; return the number of objects."""
    rng = np.random.default_rng([7, index])
    labels, instances = draw_labels(rng, index, height, width)
    stem = root / "gtFine" / "val" / "aachen" / f"{NAME.format(index)}_gtFine"
    stem.parent.mkdir(parents=True, exist_ok=True)
    predictions.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(f"{stem}_labelIds.png")
    Image.fromarray(instances).save(f"{stem}_instanceIds.png")
    Image.fromarray(predict(rng, labels, instances)).save(predictions / f"{NAME.format(index)}.png")
    return len(np.unique(instances[instances > 1000]))


def draw_labels(rng: np.random.Generator, index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a street scene with the objects of three more before it, in label ids (uint8) and instance ids (uint16)."""
    labels, instances = (np.zeros((height // 2, width // 2), dtype) for dtype in (np.uint8, np.uint16))
    numbers = dict.fromkeys({value for values in THINGS.values() for value in values}, 0)
    for layer in range(4):
        _, target, objects = draw_scene(index, "score_speed", layer, height // 2, width // 2)
        if layer == 0:
            for train_id, label_id in STUFF.items():
                labels[target == train_id] = instances[target == train_id] = label_id
        for number in np.unique(objects[np.isin(target, list(THINGS))]):
            mask = objects == number
            label_id = int(rng.choice(THINGS[int(target[mask][0])]))
            labels[mask] = label_id
            is_group = rng.random() < 0.1  # a crowd whose members were not told apart
            instances[mask] = label_id if is_group else 1000 * label_id + numbers[label_id]
            numbers[label_id] += not is_group
    for rows, label_id in ((slice(-height // 20, None), 1), (slice(0, 2), 3)):  # the own bonnet, and outside
        labels[rows] = instances[rows] = label_id
    return labels.repeat(2, 0).repeat(2, 1), instances.repeat(2, 0).repeat(2, 1)


def predict(rng: np.random.Generator, labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Make a prediction: every fifth object is taken for something else, and all borders waver by some pixels."""
    height, width = labels.shape
    pred = np.where(np.isin(labels, [1, 3, 4]), 7, labels).astype(np.uint8)  # networks do not predict these
    known = [label.label_id for label in CITYSCAPES_LABELS if label.label_id > 6]
    for number in np.unique(instances[instances > 1000]):
        if rng.random() < 0.2:
            pred[instances == number] = rng.choice(known)
    coarse = rng.normal(0, 5, (2, height // 16, width // 16)).astype(np.float32)
    shift = [cv2.resize(field, (width, height)) for field in coarse]
    rows, columns = np.meshgrid(*(np.arange(size, dtype=np.float32) for size in (height, width)), indexing="ij")
    return cv2.remap(pred, columns + shift[0], rows + shift[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


# ---- the two


def run_ours(root: Path, predictions: Path, run_dir: Path) -> tuple[dict[str, Any], float]:
    """Return results.json, and the seconds of the whole process."""
    command = [sys.executable, "-m", "segtrain", "task=score", "dataset=cityscapes", f"dataset.root={root}",
               f"task.predictions={predictions}", f"hydra.run.dir={run_dir}"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((run_dir / "results.json").read_text()), time.perf_counter() - started


def run_official(root: Path, predictions: Path, python: str, path: str | None) -> tuple[dict[str, Any], float]:
    """Return what the official script found, and the seconds of the whole process."""
    environment = {**os.environ, "PYTHONPATH": path or ""}
    started = time.perf_counter()
    done = subprocess.run([python, "-c", OFFICIAL, str(root), str(predictions)], check=True, text=True,
                          stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


def report(turns: list[tuple[tuple[dict[str, Any], float], tuple[dict[str, Any], float]]]) -> None:
    """Print the medians over the turns, and the median of their ratios."""
    print(f"{'':<28}{'segtrain':>10}{'official':>10}{'ratio':>8}")
    for name, is_work in (("work, seconds", True), ("whole process, seconds", False)):
        ours, official = ([turn[place][0]["seconds"] if is_work else turn[place][1] for turn in turns]
                          for place in (0, 1))
        ratio = statistics.median(theirs / own for own, theirs in zip(ours, official, strict=True))
        print(f"{name:<28}{statistics.median(ours):>10.2f}{statistics.median(official):>10.2f}{ratio:>8.2f}")
    print(f"official script {'with' if turns[0][1][0]['cython'] else 'without'} its Cython extension")


def compare(ours: dict[str, Any], official: dict[str, Any]) -> dict[str, float]:
    """Return the difference of each number; infinite where only one of the two is defined."""
    pairs: dict[str, tuple[float | None, float | None]] = {
        "miou": (ours["miou"], official["averageScoreClasses"]),
        "iiou": (ours["iiou"], official["averageScoreInstClasses"]),
        "category_miou": (ours["category_miou"], official["averageScoreCategories"]),
        "category_iiou": (ours["category_iiou"], official["averageScoreInstCategories"]),
    }
    names = [label.name for label in CITYSCAPES]
    categories = list(ours["iou_per_category"])
    for key, group, theirs in (("iou_per_class", names, "classScores"), ("iiou_per_class", names, "classInstScores"),
                               ("iou_per_category", categories, "categoryScores"),
                               ("iiou_per_category", categories, "categoryInstScores")):
        pairs |= {f"{key}/{name}": (ours[key][name], official[theirs][name]) for name in group}
    matrix = np.array(official["confMatrix"])
    ids = [label.label_id for label in CITYSCAPES]
    different = int(np.abs(matrix[np.ix_(ids, ids)] - np.array(ours["confusion_matrix"])).sum())
    return {**{name: difference(*pair) for name, pair in pairs.items()}, "confusion_matrix": float(different)}


def difference(ours: float | None, official: float | None) -> float:
    """Return the absolute difference of two scores; the official script has NaN for what is not defined."""
    undefined = official is None or math.isnan(official)
    if ours is None or undefined:
        return 0.0 if ours is None and undefined else math.inf
    return abs(ours - float(official or 0))


if __name__ == "__main__":
    main()
