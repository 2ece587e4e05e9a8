"""Boundary IoU, calibration and the interval of the mIoU, against hand counts and independent definitions."""

import cv2
import numpy as np
import pytest
import torch

from segtrain.metrics.bootstrap import miou_interval
from segtrain.metrics.boundary import compute_boundary_iou, count_boundaries
from segtrain.metrics.calibration import compute_calibration, count_confidences


def test_boundaries_by_hand():
    target, pred = np.zeros((7, 7), np.uint8), np.zeros((7, 7), np.uint8)
    target[1:6, 1:6] = 1  # 25 pixels, all but the middle 9 in its band
    pred[1:6, 2:7] = 1  # one to the right, and so at the border of the image
    counts = count_boundaries(pred, target, 2, band=0.01)
    # class 1: rings of 16 pixels, which share rows 1 and 5 of columns 2 to 5
    assert counts[:, 1].tolist() == [8, 16 + 16 - 8]
    # class 0: 24 pixels each, all in the band; (1..5, 1) and (1..5, 6) differ
    assert counts[:, 0].tolist() == [24 - 5, 24 + 5]
    scores = compute_boundary_iou(counts, ["a", "b"])
    assert scores["boundary_iou_per_class"] == {"a": 19 / 29, "b": 8 / 24}
    assert scores["boundary_miou"] == (19 / 29 + 8 / 24) / 2


@pytest.mark.parametrize("band", [0.02, 0.1])
def test_boundaries_agree_with_the_erosion_of_every_mask(band):
    rng = np.random.default_rng(1)
    target = cv2.resize(rng.integers(0, 4, (6, 8)).astype(np.uint8), (80, 60), interpolation=cv2.INTER_NEAREST)
    pred = np.roll(target, (2, 3), (0, 1))
    target[:9, 30:50] = 255
    width = round(band * 100)  # the diagonal of 60 x 80
    expected = []
    for k in range(4):
        bands = []
        for ids in (target, np.where(target == 255, 255, pred)):
            mask = np.pad((ids == k).astype(np.uint8), 1)
            bands.append((mask - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width))[1:-1, 1:-1] > 0)
        expected.append([(bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()])
    assert count_boundaries(pred, target, 4, band).T.tolist() == expected


def test_a_class_that_is_nowhere_has_no_boundary_iou():
    zeros = np.zeros((5, 5), np.int64)
    scores = compute_boundary_iou(count_boundaries(zeros, zeros, 2, 0.1), ["a", "b"])
    assert scores == {"boundary_miou": 1.0, "boundary_iou_per_class": {"a": 1.0, "b": None}}


def test_calibration_error_as_its_definition_has_it():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (3, 5, 20, 30)).astype(np.float32))
    target = torch.from_numpy(rng.integers(0, 5, (3, 20, 30)))
    target[:, :4] = 255
    counts = count_confidences(logits, target)
    scores = compute_calibration(counts.sum(0).numpy())

    valid = (target < 5).numpy()
    confidence, pred = (part.numpy()[valid] for part in logits.double().softmax(1).max(1))
    correct = pred == target.numpy()[valid]
    places = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1])
    gaps = [abs(correct[places == place].mean() - confidence[places == place].mean()) * (places == place).sum()
            for place in range(15) if (places == place).any()]
    assert scores["ece"] == pytest.approx(sum(gaps) / valid.sum(), abs=1e-6)
    assert scores["calibration"]["pixels"] == np.bincount(places, minlength=15).tolist()
    assert scores["calibration"]["accuracy"][:3] == [None] * 3  # the highest of 5 is above 0.2
    assert torch.equal(counts[1:2], count_confidences(logits[1:2], target[1:2])), "an image counts the same anywhere"


def test_certain_predictions_are_in_the_last_bin_and_void_in_none():
    logits = torch.tensor([[[[100.0, -100, 100]], [[-100.0, 100, -100]]]])
    scores = compute_calibration(count_confidences(logits, torch.tensor([[[0, 0, 255]]])).sum(0).numpy())
    assert scores["calibration"]["pixels"] == [0] * 14 + [2]
    assert scores["ece"] == 0.5
    assert compute_calibration(np.zeros((15, 3), np.int64))["ece"] is None


def test_the_interval_of_the_miou_is_what_resampling_gives():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 50, (8, 3, 4))
    counts[:, :, 3] = 0  # a class that is nowhere
    low, high = miou_interval(counts, resamples=4000)
    found = []
    for _ in range(4000):
        correct, false_positives, missed = counts[rng.integers(0, 8, 8)].sum(0)[:, :3]
        found.append((correct / (correct + false_positives + missed)).mean())
    assert [low, high] == pytest.approx(np.percentile(found, [2.5, 97.5]), abs=0.01)
    assert miou_interval(counts) == miou_interval(counts[::-1])
    assert miou_interval(counts[:1]) is None
    assert miou_interval(np.zeros((4, 3, 2), np.int64)) is None
