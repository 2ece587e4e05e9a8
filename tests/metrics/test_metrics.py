"""The metrics against hand counts, scikit-learn, and the official Cityscapes scripts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from segtrain.data.camvid import CAMVID
from segtrain.data.cityscapes import CITYSCAPES, CITYSCAPES_LABELS, CITYSCAPES_SIZES
from segtrain.labels import Label
from segtrain.metrics.categories import compute_category_scores, number_categories
from segtrain.metrics.confusion import class_counts, confusion_matrix
from segtrain.metrics.instances import count_instances, label_components, mean_instance_sizes
from segtrain.metrics.scores import compute_pixel_scores, compute_scores, resolve_class_sizes

ROOT = Path(__file__).parents[2]
OFFICIAL = json.loads((ROOT / "tests/oracle/iiou_cases.json").read_text())["cases"]

# the ids that predictions are told apart by: 0..18 the evaluated classes, then the ignored labels
OTHERS = [label for label in CITYSCAPES_LABELS if label.train_id == 255 and label.label_id >= 0]


def score(pred, target, class_names, instances=None, class_ids=(), class_sizes=None):
    """Score lists of images, counted one by one."""
    num_classes = len(class_names)
    confusion = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)
    for p, t in zip(pred, target, strict=True):
        confusion += confusion_matrix(torch.from_numpy(p), torch.from_numpy(t), num_classes)
    counts = None
    if instances is not None:
        counts = np.concatenate(
            [count_instances(p, t, i, class_ids) for p, t, i in zip(pred, target, instances, strict=True)]
        )
    return compute_scores(confusion, class_names, counts, class_sizes)


def grid(text):
    return np.array([[int(value) for value in row.split()] for row in text.strip().splitlines()])


# --- confusion matrix ---


@pytest.mark.parametrize("pred_dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("target_dtype", [torch.uint8, torch.int64])
def test_confusion_matrix_counts_void_and_other_predictions(pred_dtype, target_dtype):
    target = torch.tensor([[0, 0, 0, 1], [1, 1, 255, 255]], dtype=target_dtype)
    pred = torch.tensor([[0, 1, 7, 1], [1, 0, 0, 255]], dtype=pred_dtype)
    matrix = confusion_matrix(pred, target, num_classes=3)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 1, 0, 1], [1, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]


def test_confusion_matrix_takes_negative_and_huge_ids_as_none():
    pred = torch.tensor([[-1, -(2**40), 2**32, 0]])
    target = torch.tensor([[0, 0, 0, -1]])
    assert confusion_matrix(pred, target, num_classes=1).tolist() == [[0, 3], [1, 0]]


def test_confusion_matrix_ignores_the_given_index_even_among_the_classes():
    pred, target = torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 1, 255]])
    assert confusion_matrix(pred, target, 2, ignore_index=0).tolist() == [[0, 0, 0], [0, 1, 0], [1, 2, 0]]


def test_confusion_matrix_has_room_for_more_classes_than_a_byte():
    target = torch.tensor([[0, 254, 299, 255]])
    matrix = confusion_matrix(target, target, 300, ignore_index=-1)
    assert matrix.sum() == 4
    assert matrix.diagonal()[[0, 254, 255, 299]].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 5), (2, 4, 5), (2, 3, 4, 5), (2, 0, 5)])
def test_confusion_matrix_takes_any_number_of_images(shape):
    ids = torch.zeros(shape, dtype=torch.uint8)
    matrices = confusion_matrix(ids, ids, 2)
    assert matrices.shape == (*shape[:-2], 3, 3)
    assert matrices.reshape(-1, 3, 3).sum(0).tolist() == [[math.prod(shape), 0, 0], [0, 0, 0], [0, 0, 0]]


def test_confusion_matrix_leaves_its_inputs_alone():
    pred, target = torch.tensor([[0, 9]]), torch.tensor([[255, 9]])
    confusion_matrix(pred, target, 2)
    assert pred.tolist() == [[0, 9]]
    assert target.tolist() == [[255, 9]]


def test_confusion_matrix_refuses_what_it_cannot_count():
    ids = torch.zeros(2, 4, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrix(ids, ids[0], 2)
    with pytest.raises(TypeError, match="integer class ids"):
        confusion_matrix(ids.float(), ids, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_confusion_matrix_agrees_on_the_gpu_without_waiting_for_it():
    generator = torch.Generator().manual_seed(0)
    pred, target = (torch.randint(0, 14, (4, 60, 80), generator=generator, dtype=torch.uint8) for _ in range(2))
    gpu_pred, gpu_target = pred.cuda(), target.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        matrix = confusion_matrix(gpu_pred, gpu_target, 11)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(matrix.cpu(), confusion_matrix(pred, target, 11))


# --- scores from the confusion matrix ---


def test_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    num_classes = 6
    target = rng.integers(0, num_classes, (3, 40, 50)).astype(np.uint8)
    pred = np.where(rng.random(target.shape) < 0.5, rng.integers(0, num_classes, target.shape), target)
    target[rng.random(target.shape) < 0.1] = 255
    names = list("abcdef")
    scores = score(list(pred), list(target), names)

    t, p = target[target != 255], pred[target != 255]
    iou = sklearn_metrics.jaccard_score(t, p, average=None)
    expected = sklearn_metrics.confusion_matrix(t, p)
    assert scores["confusion_matrix"] == expected.tolist()
    assert list(scores["iou_per_class"].values()) == pytest.approx(iou, abs=1e-12)
    assert list(scores["acc_per_class"].values()) == pytest.approx(
        sklearn_metrics.recall_score(t, p, average=None), abs=1e-12
    )
    precision = sklearn_metrics.precision_score(t, p, average=None)
    assert list(scores["precision_per_class"].values()) == pytest.approx(precision, abs=1e-12)
    assert scores["mprecision"] == pytest.approx(precision.mean(), abs=1e-12)
    dice = sklearn_metrics.f1_score(t, p, average=None)
    assert list(scores["dice_per_class"].values()) == pytest.approx(dice, abs=1e-12)
    assert scores["mdice"] == pytest.approx(dice.mean(), abs=1e-12)
    assert scores["miou"] == pytest.approx(iou.mean(), abs=1e-12)
    assert scores["macc"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(t, p), abs=1e-12)
    assert scores["pacc"] == pytest.approx(sklearn_metrics.accuracy_score(t, p), abs=1e-12)
    assert scores["fwiou"] == pytest.approx(sklearn_metrics.jaccard_score(t, p, average="weighted"), abs=1e-12)
    assert scores["predicted_void"] == np.bincount(pred[target == 255], minlength=num_classes).tolist()
    assert scores["iiou"] is None
    assert scores["iiou_per_class"] is None


def test_absent_classes_are_excluded_and_wrongly_predicted_ones_are_zero():
    target, pred = np.array([[0, 0, 0, 1]]), np.array([[0, 0, 2, 1]])
    scores = score([pred], [target], ["a", "b", "only predicted", "absent"])
    assert scores["iou_per_class"] == {"a": pytest.approx(2 / 3), "b": 1.0, "only predicted": 0.0, "absent": None}
    assert scores["acc_per_class"] == {"a": pytest.approx(2 / 3), "b": 1.0, "only predicted": None, "absent": None}
    assert scores["miou"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["macc"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["pacc"] == 3 / 4
    assert scores["fwiou"] == pytest.approx((2 / 3 * 3 + 1) / 4)


def test_predictions_on_void_cost_nothing():
    target = np.array([[0, 0, 255, 255]])
    clean, noisy = (score([np.array([p])], [target], ["a", "b"]) for p in ([0, 0, 0, 0], [0, 0, 1, 1]))
    assert clean.pop("predicted_void") == [2, 0]
    assert noisy.pop("predicted_void") == [0, 2]
    assert clean == noisy
    assert clean["iou_per_class"] == {"a": 1.0, "b": None}


def test_predictions_of_no_class_are_misses_of_the_target():
    scores = score([np.array([[0, 9, 9, 1]])], [np.array([[0, 0, 1, 1]])], ["a", "b"])
    assert scores["confusion_matrix"] == [[1, 0], [0, 1]]
    assert scores["miou"] == scores["macc"] == scores["pacc"] == scores["fwiou"] == 0.5


@pytest.mark.parametrize("images", [[], [np.full((2, 3), 255, np.uint8)]])
def test_a_split_without_valid_pixels_has_no_scores(images):
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    for target in images:
        confusion += confusion_matrix(torch.zeros(2, 3, dtype=torch.int64), torch.from_numpy(target), 2)
    scores = compute_scores(confusion, ["a", "b"], np.zeros((0, 4), np.int64), {"b": 5.0})
    assert scores.pop("confusion_matrix") == [[0, 0], [0, 0]]
    assert scores.pop("predicted_void") == [6 * len(images), 0]
    for key in ("iou_per_class", "acc_per_class", "precision_per_class", "dice_per_class", "iiou_per_class"):
        assert scores.pop(key) == {"a": None, "b": None}
    assert scores == dict.fromkeys(["miou", "macc", "pacc", "fwiou", "mprecision", "mdice", "iiou"])


def test_scores_are_plain_json():
    target = np.array([[0, 0, 1]])
    scores = score([target], [target], ["a", "b"], [np.array([[0, 0, 1]])], [1])
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert type(scores["pacc"]) is float
    assert type(scores["iiou"]) is float


def test_scores_refuse_counts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"2 classes .* 3 rows .* not of the shape \(2, 3\)"):
        compute_scores(torch.zeros(2, 3, dtype=torch.int64), ["a", "b"])
    with pytest.raises(ValueError, match=r"\(U, 4\)"):
        compute_scores(torch.zeros(3, 3, dtype=torch.int64), ["a", "b"], np.zeros(3, np.int64))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_the_way_images_are_batched_changes_nothing(batch_size):
    rng = np.random.default_rng(1)
    target = rng.integers(0, 4, (7, 12, 16)).astype(np.uint8)
    target[target == 3] = 255
    pred = rng.integers(0, 3, target.shape)
    instances = rng.integers(0, 9, target.shape)
    sizes = {"b": 13.7, "c": 1 / 3}
    names = ["a", "b", "c"]
    one_by_one = score(list(pred), list(target), names, list(instances), [1, 2], sizes)

    confusion = torch.zeros(4, 4, dtype=torch.int64)
    order = rng.permutation(7)
    for batch in np.split(order, range(batch_size, 7, batch_size)):
        confusion += confusion_matrix(torch.from_numpy(pred[batch]), torch.from_numpy(target[batch]), 3).sum(0)
    counts = np.concatenate([count_instances(pred[i], target[i], instances[i], [1, 2]) for i in order])
    assert compute_scores(confusion, names, counts, sizes) == one_by_one  # to the last bit


def test_each_image_has_counts_and_scores_of_its_own():
    target = np.array([[[0, 0, 1, 255]], [[1, 1, 1, 1]]])
    pred = np.array([[[0, 1, 1, 1]], [[1, 1, 0, 7]]])
    matrices = confusion_matrix(torch.from_numpy(pred), torch.from_numpy(target), 2)
    counts = class_counts(matrices).numpy()  # the 7 is a miss of class 1, the 1 on void is nothing
    assert counts.tolist() == [[[1, 1], [0, 1], [1, 0]], [[0, 2], [1, 0], [0, 2]]]
    first, second = (compute_pixel_scores(each, ["a", "b"]) for each in counts)
    assert (first["miou"], first["pacc"], first["acc_per_class"]) == (1 / 2, 2 / 3, {"a": 1 / 2, "b": 1.0})
    assert (second["miou"], second["pacc"], second["acc_per_class"]) == (1 / 4, 1 / 2, {"a": None, "b": 1 / 2})


# --- instances ---


def test_components_are_8_connected_and_numbered_through_the_classes():
    target = grid("""
        1 0 0 2
        0 1 0 2
        0 0 0 1
        1 1 0 3
    """).astype(np.uint8)
    components = label_components(target, [1, 2])
    assert components.dtype == np.int32
    # The two 1s of the first rows touch by a corner; so do a 2 and a 1, but they differ in class. 3 has no instances.
    # The numbers follow the scan of OpenCV, so only which pixels belong together is compared.
    groups = {frozenset(map(tuple, np.argwhere(components == i))) for i in np.unique(components) if i > 0}
    assert groups == {
        frozenset({(0, 0), (1, 1)}),
        frozenset({(2, 3)}),
        frozenset({(3, 0), (3, 1)}),
        frozenset({(0, 3), (1, 3)}),
    }
    assert sorted(np.unique(components)) == [0, 1, 2, 3, 4]
    assert components[0, 3] == 4  # class 2 comes after the three components of class 1
    assert not label_components(target, [5]).any()
    assert not label_components(target, []).any()


def test_count_instances_by_hand():
    target = grid("""
        0 1 1 1
        2 2 1 255
        2 2 1 255
    """).astype(np.uint8)
    instances = grid("""
        5 3 3 0
        3 3 7 7
        3 8 7 7
    """)
    pred = grid("""
        0 1 0 1
        2 9 1 1
        1 2 1 1
    """)
    # Instance 3 is an object of class 1 and another of class 2; the pixel of instance 0 is a crowd; void is in none.
    expected = [[1, 2, 1, 1], [1, 2, 2, 2], [2, 3, 1, 1], [2, 1, 1, 1]]  # without categories the last two are equal
    counts = count_instances(pred, target, instances, [2, 1])
    assert counts.dtype == np.int64
    assert counts.tolist() == expected
    assert count_instances(pred.astype(np.uint8), target, instances.astype(np.uint16), [1, 2]).tolist() == expected
    assert mean_instance_sizes(counts) == {1: 2.0, 2: 2.0}


def test_count_instances_without_objects():
    target = np.ones((2, 3), np.uint8)
    for instances, class_ids in ((np.zeros((2, 3), int), [1]), (np.ones((2, 3), int), [0]), (np.ones((2, 3), int), [])):
        counts = count_instances(target, target, instances, class_ids)
        assert counts.shape == (0, 4)
        assert counts.dtype == np.int64
        assert mean_instance_sizes(counts) == {}
    with pytest.raises(ValueError, match="differ in shape"):
        count_instances(target, target, target.T, [1])


def test_a_crowd_counts_in_iou_only():
    target, instances = np.array([[0, 1, 1, 1, 1, 1]]), np.array([[0, 1, 1, 0, 0, 0]])
    found, missed = (
        score([np.array([p])], [target], ["road", "car"], [instances], [1], {"car": 2.0})
        for p in ([0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0])
    )
    assert found["iiou_per_class"] == missed["iiou_per_class"] == {"road": None, "car": 1.0}
    assert found["iou_per_class"]["car"] == 1.0
    assert missed["iou_per_class"]["car"] == 2 / 5


def test_component_iiou_by_hand():
    target = grid("""
        1 1 0 0 0 1
        1 1 0 0 0 0
        0 0 1 0 0 1
        0 0 0 0 0 1
    """).astype(np.uint8)
    pred = grid("""
        1 1 1 0 0 0
        1 0 0 0 0 0
        0 0 1 0 0 1
        0 0 0 0 0 1
    """)
    # Components of 5 (the corner pixel belongs to it), 1 and 2 pixels; 4, 0 and 2 of them found; 1 false positive.
    # Their mean size is 8/3: iTP = 8/3 (4/5 + 0 + 1), iTP + iFN = 8/3 * 3.
    components = label_components(target, [1])
    counts = count_instances(pred, target, components, [1])
    assert sorted(counts[:, 1:3].tolist()) == [[1, 0], [2, 2], [5, 4]]
    assert mean_instance_sizes(counts) == {1: 8 / 3}
    scores = score([pred], [target], ["road", "car"], [components], [1])
    assert scores["iiou"] == scores["iiou_per_class"]["car"] == pytest.approx(8 / 3 * 9 / 5 / (8 + 1), abs=1e-12)


def test_the_worked_example_of_the_docs():
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = [line.split() for line in text.split("```text\n")[1].split("```")[0].splitlines()[1:]]
    target, objects, pred = ("".join(column) for column in zip(*rows, strict=True))
    ids = {"R": 0, "C": 1, ".": 255}
    target, pred = (np.array([ids[c] for c in image]).reshape(4, 8) for image in (target, pred))
    objects = np.array([0 if c == "." else int(c) for c in objects]).reshape(4, 8)
    assert mean_instance_sizes(count_instances(pred, target, objects, [1])) == {1: 8.0}
    scores = score([pred], [target], ["Road", "Car", "Bus"], [objects], [1], {"Car": 8.0})

    assert scores["confusion_matrix"] == [[12, 2, 0], [3, 13, 0], [0, 0, 0]]
    assert scores["predicted_void"] == [1, 1, 0]
    assert scores["iou_per_class"] == {"Road": 12 / 17, "Car": 13 / 18, "Bus": None}
    assert scores["acc_per_class"] == {"Road": 12 / 14, "Car": 13 / 16, "Bus": None}
    assert scores["iiou_per_class"] == {"Road": None, "Car": pytest.approx(10 / 18, abs=1e-12), "Bus": None}
    for quantity, value in {
        "`miou` ": scores["miou"],
        "`macc` ": scores["macc"],
        "`pacc` = (12 + 13) / 30 = ": scores["pacc"],
        "`fwiou` = (14 · 0.7059 + 16 · 0.7222) / 30 = ": scores["fwiou"],
        "iIoU = 10 / (10 + 2 + 6) = ": scores["iiou"],
    }.items():
        assert f"{quantity}{value:.4f}" in text


# --- class sizes ---


def test_a_class_without_a_size_takes_the_size_of_its_objects_here():
    names = ["road", "car", "bus", "person"]
    counts = np.array([[1, 4, 4, 4], [2, 10, 5, 5], [2, 20, 20, 20]])
    expected = {"car": 8.0, "bus": 15.0, "person": None}
    for bus in ({}, {"bus": None}):
        assert resolve_class_sizes(names, counts, {"person": None, "car": 8.0, **bus}) == expected
    assert list(resolve_class_sizes(names, counts, {"person": None, "car": 8.0})) == ["car", "bus", "person"]
    assert resolve_class_sizes(names, counts) == {"car": 4.0, "bus": 15.0}
    assert resolve_class_sizes(names, counts[:0]) == {}


@pytest.mark.parametrize("size", [None, 5.0])
def test_a_class_with_instances_that_is_only_predicted_scores_zero(size):
    target, nothing = np.array([[0, 0, 255]]), np.zeros((1, 3), int)
    predicted = score([np.array([[0, 1, 1]])], [target], ["road", "car"], [nothing], [1], {"car": size})
    only_on_void = score([np.array([[0, 0, 1]])], [target], ["road", "car"], [nothing], [1], {"car": size})
    assert predicted["iiou"] == 0.0
    assert predicted["iiou_per_class"] == {"road": None, "car": 0.0}
    assert only_on_void["iiou"] is None
    assert only_on_void["iiou_per_class"] == {"road": None, "car": None}


@pytest.mark.parametrize("sizes", [{"cra": 5.0}, {"car": 0.0}, {"car": -1.0}, {"car": math.nan}, {"car": math.inf}])
def test_senseless_class_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=f"class_sizes.*{next(iter(sizes))}"):
        resolve_class_sizes(["road", "car"], np.zeros((0, 4), np.int64), sizes)


# --- categories ---


def test_categories_by_hand():
    labels = [Label("road", 7, 0, (0, 0, 0), category="flat"), Label("path", 8, 1, (0, 0, 0), category="flat"),
              Label("car", 26, 2, (0, 0, 0), True, "vehicle"), Label("bus", 28, 3, (0, 0, 0), True, "vehicle")]
    caravan = Label("caravan", 29, 255, (0, 0, 0), True, "vehicle")
    target = np.array([[0, 0, 0, 1, 2, 2, 2, 2, 3, 255]])
    pred = np.array([[0, 1, 4, 2, 2, 3, 4, 0, 3, 3]])  # 4 is the caravan
    objects = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1, 0]])
    confusion = confusion_matrix(torch.from_numpy(pred), torch.from_numpy(target), 4, num_predicted=5)
    counts = count_instances(pred, target, objects, [2, 3], number_categories([*labels, caravan]))
    assert counts.tolist() == [[2, 4, 1, 3], [3, 1, 1, 1]]
    scores = compute_category_scores(confusion, labels, [caravan], counts, {"car": 8.0, "bus": 2.0})
    # flat: 2 of 4 right, 1 vehicle taken for it. vehicle: 3 of 5 right as evaluated classes, 1 of flat taken for a car;
    # its iIoU: 8 * 3/4 + 2 * 1, out of 10, and 2 false positives: the car and the caravan on flat.
    assert scores["iou_per_category"] == {"flat": 2 / 5, "vehicle": 3 / 6}
    assert scores["iiou_per_category"] == {"flat": None, "vehicle": 8 / 12}
    assert (scores["category_miou"], scores["category_iiou"]) == (pytest.approx(0.45, abs=1e-15), 8 / 12)


def test_classes_without_categories_have_no_category_scores():
    assert number_categories(CAMVID) is None
    scores = compute_category_scores(torch.ones(12, 12, dtype=torch.int64), CAMVID)
    assert scores == dict.fromkeys(["iou_per_category", "iiou_per_category", "category_miou", "category_iiou"])


# --- the official Cityscapes scripts ---


@pytest.mark.parametrize("case", OFFICIAL)
def test_scores_agree_with_the_official_cityscapes_scripts(case):
    train_ids, predicted_ids = np.full(256, 255, np.uint8), np.full(256, 255, np.uint8)
    train_ids[[label.label_id for label in CITYSCAPES]] = range(len(CITYSCAPES))
    predicted_ids[[label.label_id for label in (*CITYSCAPES, *OTHERS)]] = range(len(CITYSCAPES) + len(OTHERS))
    names = [label.name for label in CITYSCAPES]
    class_ids = [label.train_id for label in CITYSCAPES if label.has_instances]
    sizes = {names[number]: CITYSCAPES_SIZES[names[number]] for number in class_ids}
    confusion, objects = torch.zeros(20, 35, dtype=torch.int64), []
    for image in OFFICIAL[case]["images"]:
        pred = predicted_ids[np.array(image["prediction"])]
        target = train_ids[np.array(image["label_ids"])]
        instances = np.array(image["instance_ids"])
        confusion += confusion_matrix(torch.from_numpy(pred), torch.from_numpy(target), 19, num_predicted=34)
        objects.append(count_instances(pred, target, np.where(instances >= 1000, instances, 0), class_ids,
                                       number_categories([*CITYSCAPES, *OTHERS])))
    counts = np.concatenate(objects)
    scores = compute_scores(confusion, names, counts, sizes) | compute_category_scores(
        confusion, CITYSCAPES, OTHERS, counts, sizes)

    expected = OFFICIAL[case]["expected"]
    assert expected["categoryIoU"].pop("void", None) is expected["category_iIoU"].pop("void", None) is None
    for key, official in {"iou_per_class": expected["classIoU"], "iou_per_category": expected["categoryIoU"],
                          "iiou_per_class": dict.fromkeys(names) | expected["class_iIoU"],
                          "iiou_per_category": expected["category_iIoU"]}.items():
        assert scores[key] == {k: v and pytest.approx(v, abs=1e-9) for k, v in official.items()}, key
    for key, official in {"miou": "meanIoU", "iiou": "mean_iIoU", "category_miou": "categoryIoU_mean",
                          "category_iiou": "category_iIoU_mean"}.items():
        assert scores[key] == pytest.approx(expected[official], abs=1e-9)
