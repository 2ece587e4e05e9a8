"""scripts/metric_drift.py and scripts/component_sizes.py: each number counted by hand, and what packages print."""

import importlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
NAMES = ["A", "B", "C"]


def grid(*rows):
    return np.array([[int(value) for value in row.split()] for row in rows], dtype=np.uint8)


# TP, FP, FN of A, B, C in the first: (3, 1, 1), (2, 1, 1), (0, 0, 0), in the second: (3, 1, 1), (2, 0, 1), (0, 1, 0)
TARGETS = [grid("0 0 1 1", "0 0 1 255"), grid("0 0 0 0", "255 1 1 1")]
PREDS = [grid("0 1 1 1", "0 0 0 2"), grid("0 0 2 0", "1 1 0 1")]
BY_HAND = {
    "images: mean of each image's mIoU, absent classes left out": ((3/5 + 1/2) / 2 + (3/5 + 2/3 + 0) / 3) / 2,
    "images: the same, absent classes as 1": ((3/5 + 1/2 + 1) / 3 + (3/5 + 2/3 + 0) / 3) / 2,
    "images: the same, absent classes as 0": ((3/5 + 1/2 + 0) / 3 + (3/5 + 2/3 + 0) / 3) / 2,
    "images: the same, only the classes of the image's target": ((3/5 + 1/2) / 2 + (3/5 + 2/3) / 2) / 2,
    "images: mean over all pairs of an image and a class in it": (3/5 + 1/2 + 3/5 + 2/3 + 0) / 5,
    "images: mean of each image's TP / union, summed over classes": (5/9 + 5/9) / 2,
    "batches of 1: mean of each batch's mIoU, absent classes left out": ((3/5 + 1/2) / 2 + (3/5 + 2/3 + 0) / 3) / 2,
    "batches of 1: the same, absent classes as 1": ((3/5 + 1/2 + 1) / 3 + (3/5 + 2/3 + 0) / 3) / 2,
    "batches of 1: one matrix, the last incomplete batch left out": (6/10 + 4/7 + 0) / 3,
    "batches of 2: mean of each batch's mIoU, absent classes left out": (6/10 + 4/7 + 0) / 3,
    "batches of 2: the same, absent classes as 1": (6/10 + 4/7 + 0) / 3,
    "batches of 2: one matrix, the last incomplete batch left out": (6/10 + 4/7 + 0) / 3,
    "all pixels: TP summed over classes / unions summed over classes": 10 / (10 + 7 + 1),
    "all pixels: IoU weighted by the pixels of the classes (our `fwiou`)": (8 * 6/10 + 6 * 4/7) / 14,
    "classes absent from the split as 0": (6/10 + 4/7 + 0) / 3,
    "classes absent from the split as 1": (6/10 + 4/7 + 0) / 3,
    "classes in no target left out, even if predicted": (6/10 + 4/7) / 2,
    "predictions on void are false positives": (6/10 + 4/8 + 0/2) / 3,
    "void is a class: mean over 4": (6/10 + 4/8 + 0/2 + 0/2) / 4,
    "mean class accuracy, called IoU": (6/8 + 4/6) / 2,
    "mean Dice (F1) of the classes": (12/16 + 8/11 + 0) / 3,
    "the same, predictions on void are false positives": (12/16 + 8/12 + 0) / 3,
    "mean over images of the mean Dice of the classes in the target": ((6/8 + 4/6) / 2 + (6/8 + 4/5) / 2) / 2,
    "Dice of all classes' pixels together": 20 / (20 + 4 + 4),
    "pixel accuracy": 10/14,
    "pixel accuracy, void pixels as wrong": 10/16,
    "accuracy of each class against the rest, true negatives as right": (3 * 14 - 4 - 4) / (3 * 14),
    "prediction and target reduced to 1/2, the first pixel of each block": (2/3 + 1/1 + 0/1) / 3,
    "prediction and target reduced to 1/4, the first pixel of each block": 1,
    "prediction and target reduced to 1/8, the first pixel of each block": 1,
    "prediction and target reduced to 1/2, the middle pixel": 1,
    "prediction and target reduced to 1/4, the middle pixel": 0,
    "prediction and target reduced to 1/8, the middle pixel": 0,
    "prediction alone reduced to 1/2 and enlarged": (6/9 + 3/6 + 0/4) / 3,
    "prediction alone reduced to 1/4 and enlarged": (8/14 + 0/6) / 2,
    "prediction alone reduced to 1/8 and enlarged": (8/14 + 0/6) / 2,
}


@pytest.fixture
def scripts(monkeypatch):
    """Import a script by its name."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module


def drift_of(scripts, preds, targets, names=NAMES, batch_sizes=(1, 2)):
    ours, rows = scripts("metric_drift").drift(zip(preds, targets, strict=True), names, batch_sizes)
    return ours, {row.what: row.value for row in rows}


def test_every_row_by_hand(scripts):
    ours, rows = drift_of(scripts, PREDS, TARGETS)
    assert ours["miou"] == pytest.approx((6/10 + 4/7 + 0) / 3)
    assert rows == pytest.approx(BY_HAND)


def test_a_class_that_is_nowhere_counts_by_the_rule_of_the_row(scripts):
    ours, rows = drift_of(scripts, PREDS, TARGETS, [*NAMES, "D"])
    assert ours["miou"] == pytest.approx((6/10 + 4/7 + 0) / 3)
    assert rows["classes absent from the split as 0"] == pytest.approx((6/10 + 4/7 + 0 + 0) / 4)
    assert rows["classes absent from the split as 1"] == pytest.approx((6/10 + 4/7 + 0 + 1) / 4)


def test_an_incomplete_batch_is_left_out_where_the_row_says_so(scripts):
    _, rows = drift_of(scripts, [*PREDS, PREDS[0]], [*TARGETS, TARGETS[0]], batch_sizes=[2, 4])
    left_out = "one matrix, the last incomplete batch left out"
    assert rows[f"batches of 2: {left_out}"] == pytest.approx((6/10 + 4/7 + 0) / 3)
    assert rows[f"batches of 4: {left_out}"] is None, "no batch is complete"
    whole = "mean of each batch's mIoU, absent classes left out"
    assert rows[f"batches of 2: {whole}"] == pytest.approx(((6/10 + 4/7 + 0) / 3 + (3/5 + 1/2) / 2) / 2)


def test_void_everywhere_leaves_every_number_undefined_but_those_that_count_void(scripts):
    void = np.full((2, 4), 255, np.uint8)
    ours, rows = drift_of(scripts, [PREDS[0]], [void])
    assert ours["miou"] is None
    assert rows["pixel accuracy"] is None
    assert rows["predictions on void are false positives"] == 0


@pytest.mark.parametrize("side", [12, 13])
def test_the_pixels_picked_are_those_of_opencv_and_pillow(scripts, side):
    nearest = scripts("metric_drift").nearest
    ids = np.arange(side * side, dtype=np.uint8).reshape(side, side)
    size = (side // 2, side // 2)
    assert np.array_equal(nearest(torch.from_numpy(ids), size), cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST))
    middle = nearest(torch.from_numpy(ids), size, "nearest-exact")
    assert np.array_equal(middle, np.asarray(Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)))


def many_images():
    """Draw predictions that are mostly right, on images that lack classes, with void."""
    rng = np.random.default_rng(0)
    targets = [rng.integers(0, 4, (6, 8)) * rng.integers(0, 2) + rng.integers(0, 3) for _ in range(7)]
    preds = [np.where(rng.random((6, 8)) < 0.7, target, rng.integers(0, 6, (6, 8))) for target in targets]
    for target in targets:
        target[rng.random((6, 8)) < 0.1] = 255
    return np.stack(preds), np.stack(targets)


def test_agrees_with_segmentation_models_pytorch(scripts):
    metrics = pytest.importorskip("segmentation_models_pytorch").metrics
    preds, targets = many_images()
    preds = np.where(preds == 255, 0, preds)
    _, rows = drift_of(scripts, preds, targets, list("abcdef"))
    given = torch.from_numpy(preds).long(), torch.from_numpy(targets).long()
    stats = metrics.get_stats(*given, mode="multiclass", num_classes=6, ignore_index=255)
    with_void = metrics.get_stats(*given, mode="multiclass", num_classes=6)
    theirs = {
        "images: the same, absent classes as 1": metrics.iou_score(*stats, reduction="macro-imagewise"),
        "images: the same, absent classes as 0":
            metrics.iou_score(*stats, reduction="macro-imagewise", zero_division=0),
        "images: mean of each image's TP / union, summed over classes":
            metrics.iou_score(*stats, reduction="micro-imagewise"),
        "all pixels: TP summed over classes / unions summed over classes":
            metrics.iou_score(*stats, reduction="micro"),
        "classes absent from the split as 1": metrics.iou_score(*stats, reduction="macro"),
        "predictions on void are false positives": metrics.iou_score(*with_void, reduction="macro"),
        "mean Dice (F1) of the classes": metrics.f1_score(*stats, reduction="macro"),
        "Dice of all classes' pixels together": metrics.f1_score(*stats, reduction="micro"),
        "accuracy of each class against the rest, true negatives as right":
            metrics.accuracy(*stats, reduction="micro"),
    }
    assert {what: rows[what] for what in theirs} == pytest.approx(
        {what: float(value) for what, value in theirs.items()}, rel=1e-6)


def test_agrees_with_torchmetrics(scripts):
    torchmetrics = pytest.importorskip("torchmetrics")
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    preds, targets = many_images()
    preds = np.where(preds == 255, 0, preds)
    ours, rows = drift_of(scripts, preds, targets, list("abcdef"))
    pred, target = torch.from_numpy(preds).long(), torch.from_numpy(targets).long()

    def jaccard(average):
        return float(torchmetrics.JaccardIndex(task="multiclass", num_classes=6, average=average, ignore_index=255)(
            pred, target))

    assert ours["miou"] == pytest.approx(jaccard("macro"), rel=1e-6)
    assert ours["fwiou"] == pytest.approx(jaccard("weighted"), rel=1e-6)
    assert rows["all pixels: TP summed over classes / unions summed over classes"] == pytest.approx(
        jaccard("micro"), rel=1e-6)
    valid = (target != 255)[:, None]
    one_hot = [torch.stack([ids == c for c in range(6)], 1) & valid for ids in (pred, target)]
    pairs = segmentation.MeanIoU(num_classes=6)(*one_hot)
    assert rows["images: mean over all pairs of an image and a class in it"] == pytest.approx(float(pairs), rel=1e-6)


@pytest.fixture
def camvid(tmp_path):
    """Write CamVid's layout with the two images, whose classes are Sky, Building and Pole, and their predictions."""
    for split in ("train", "val"):
        for number, (pred, target) in enumerate(zip(PREDS, TARGETS, strict=True)):
            for folder, picture in ((split, np.zeros((2, 4, 3), np.uint8)), (f"{split}annot", np.minimum(target, 11)),
                                    ("predictions", pred)):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
    return tmp_path


def run(scripts, monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    code = 0
    try:
        scripts(name).main()
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def test_the_command_prints_and_writes_the_table(scripts, monkeypatch, capsys, camvid):
    code, out, _ = run(scripts, monkeypatch, capsys, "metric_drift", camvid / "predictions", "dataset=camvid",
                       f"dataset.root={camvid}", "--batch-sizes", "2", "--json", camvid / "all.json")
    assert code == 0
    assert "| **ours: `miou`** | **39.05** | | |" in out
    assert "| mean class accuracy, called IoU | 70.83 | +31.79 | LinkNet's `test.lua`, column IoU |" in out
    written = json.loads((camvid / "all.json").read_text())
    assert written["ours"]["miou"] == pytest.approx((6/10 + 4/7 + 0) / 3)
    assert len(written["rows"]) == sum("batches of 1" not in what for what in BY_HAND)


def test_a_missing_or_wrong_prediction_is_named(scripts, monkeypatch, capsys, camvid):
    given = ("metric_drift", camvid / "predictions", "dataset=camvid", f"dataset.root={camvid}")
    Image.fromarray(np.zeros((1, 2), np.uint8)).save(camvid / "predictions" / "1.png")
    code, out, err = run(scripts, monkeypatch, capsys, *given)
    assert (code, out) == (2, "")
    assert "1.png is 2x1 but its target is 4x2" in err
    Image.fromarray(np.full((2, 4), 77, np.uint8)).save(camvid / "predictions" / "1.png")
    code, _, err = run(scripts, monkeypatch, capsys, *given)
    assert code == 2
    assert "1.png holds values that are not a class" in err
    (camvid / "predictions" / "1.png").unlink()
    code, _, err = run(scripts, monkeypatch, capsys, *given)
    assert code == 2
    assert "1 of 2 targets have no prediction" in err


def test_component_tables_by_hand(scripts):
    sizes = scripts("component_sizes")
    # class 1: three objects of 1, 4 and 20 pixels, of which 0, 4 and 10 are found; 5 false positives
    objects = np.array([[1, 1, 0, 0], [1, 4, 4, 4], [1, 20, 10, 10]])
    confusion = torch.tensor([[95, 5, 0], [11, 14, 0], [0, 0, 0]])
    counts = sizes.counts_table(objects, NAMES[:2], [1])
    assert counts[2] == "| B | 3 | 8 | 4 | 66.67 | 20.00 | 100.00 | 100.00 |"
    recall = sizes.recall_table(objects, NAMES[:2], [1], [4, 16])
    assert recall[0] == "| class | 1 to 3 | 4 to 15 | 16 and more | all | of all pixels |"
    assert recall[2] == "| B | 0.00 (1) | 100.00 (1) | 50.00 (1) | 50.00 | 56.00 |"
    known = np.array([[1, 2, 2, 2], [1, 18, 18, 18]])  # A is 10, and 18 from 4 pixels on
    rows = sizes.threshold_table(confusion, objects, known, NAMES[:2], [1])
    assert f"| 1 px and more | all | 3 | {100 * 10 * 1.5 / (10 * 3 + 5):.2f} |" in rows[2]
    assert f"| 4 px and more | all | 2 | {100 * 10 * 1.5 / (10 * 2 + 5):.2f} |" in rows[3]
    assert f"| 4 px and more | the same | 2 | {100 * 18 * 1.5 / (18 * 2 + 5):.2f} |" in rows[4]
    scaled = sizes.size_table(confusion, objects, known, NAMES[:2], [1])
    assert f"| iIoU, A of the training split × 2 | {100 * 20 * 1.5 / (20 * 3 + 5):.2f} |" in "\n".join(scaled)


def test_the_component_command_runs(scripts, monkeypatch, capsys, camvid):
    target = np.array([[8, 8, 0, 8], [8, 8, 0, 0]], np.uint8)
    for folder in ("trainannot", "valannot"):
        Image.fromarray(target).save(camvid / folder / "0.png")
    code, out, err = run(scripts, monkeypatch, capsys, "component_sizes", camvid / "predictions", "dataset=camvid",
                         f"dataset.root={camvid}")
    assert code == 0, err
    assert "| Car | 2 | 2 | 2 | 100.00 | 100.00 | 100.00 | 100.00 |" in out
