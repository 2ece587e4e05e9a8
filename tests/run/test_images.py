"""images.json: which images of a split are kept, and what a reader gets of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.inference.selection import Selection, encode_map
from segtrain.labels import Label
from segtrain.metrics.confusion import class_counts, confusion_matrix
from segtrain.run.images import read_images, write_images

LABELS = (Label("a", 0, 0, (10, 20, 30)), Label("b", 1, 1, (40, 50, 60)))
NUM = 9


@pytest.fixture
def split():
    """Images of 8x8 pixels; of image n, n columns of the prediction are wrong, and the last one is void."""
    targets = torch.zeros(NUM + 1, 8, 8, dtype=torch.int64)
    preds = targets.clone()
    for number in range(NUM):
        preds[number, :, :number] = 1
    targets[NUM] = 255
    return torch.full((NUM + 1, 8, 8, 3), 77, dtype=torch.uint8), targets, preds


def add(selection, split, order):
    images, targets, preds = (part[order] for part in split)
    selection.add(order, class_counts(confusion_matrix(preds, targets, 2)), images, targets, preds)


def kept(selection):
    return [(entry["kind"], entry["name"]) for entry in selection.encode([str(n) for n in range(NUM + 1)], LABELS)]


def test_the_worst_the_best_and_the_examples_are_kept_in_whatever_order_they_come(split):
    expected = [("worst", "8"), ("worst", "7"), ("best", "0"), ("best", "1"), ("example", "0")]
    whole = Selection(2, frozenset([0]))
    add(whole, split, list(range(NUM + 1)))
    assert kept(whole) == expected
    parts = [Selection(2, frozenset([0])), Selection(2, frozenset([0]))]
    for batch in ([9, 5, 8], [0, 3]):
        add(parts[0], split, batch)
    for batch in ([7, 6], [1, 4, 2]):
        add(parts[1], split, batch)
    parts[0].merge(parts[1].images())
    assert kept(parts[0]) == expected


def test_no_image_is_both_the_worst_and_the_best(split):
    selection = Selection(4)
    add(selection, split, [3, 4, 5])
    assert kept(selection) == [("worst", "5"), ("worst", "4"), ("worst", "3")]
    nothing = Selection(0)
    add(nothing, split, [3, 4, 5])
    assert kept(nothing) == []


def test_a_reader_gets_what_was_written(split, tmp_path):
    selection = Selection(1)
    add(selection, split, [2, 6])
    write_images(tmp_path, LABELS, selection.encode([str(n) for n in range(NUM)], LABELS))
    classes, (worst, best) = read_images(tmp_path)
    assert classes == [("a", [10, 20, 30]), ("b", [40, 50, 60])]
    assert (worst.name, worst.miou, best.name, best.miou) == ("6", 0.125, "2", 0.375)  # IoU of a: 2/8 and 6/8, of b: 0
    np.testing.assert_array_equal(worst.pred, split[2][6].numpy())
    np.testing.assert_array_equal(worst.target, split[1][6].numpy())
    write_images(tmp_path, LABELS, [])
    assert read_images(tmp_path) == ([], [])


def test_maps_have_the_colors_of_the_classes_and_black_for_void(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(encode_map(np.array([[0, 1, 255]], np.uint8), {0: (10, 20, 30), 1: (40, 50, 60)}))
    with Image.open(path) as image:
        assert np.asarray(image).tolist() == [[0, 1, 255]]
        assert np.asarray(image.convert("RGB")).tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0]]]
