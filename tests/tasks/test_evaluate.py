"""Evaluation as a user sees it: scores that depend on nothing but the predictions, and all the files it leaves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import UNET, refused, segtrain_exits
from made_files import LABELS, Memory, cityscapes_frame, cityscapes_ids, make_image, make_sample, save_image
from PIL import Image
from torch import nn

from segtrain.data.base import Cached, take_first
from segtrain.data.cityscapes import CITYSCAPES, Cityscapes
from segtrain.data.label_files import locate_prediction, write_prediction
from segtrain.data.statistics import compute_statistics
from segtrain.data.transforms import Normalize
from segtrain.data.voc import VOC, Voc
from segtrain.inference.details import Details
from segtrain.inference.evaluator import score_split
from segtrain.losses import CrossEntropy
from segtrain.visualize import draw_confusion, draw_errors, format_count, mark_errors

SIZES = [(40, 48), (40, 48), (40, 48), (33, 57), (64, 32), (33, 57), (40, 48), (40, 48)]
NAMES = ["a", "b", "c", "night/a", "night/b", "night/deep/a", "y", "z"]
CLASSES = ("wall", "floor", "door", "ghost")  # no ghost anywhere
TIMES = ("seconds", "images_per_second")
CPU = torch.device("cpu")


def target_of(size, seed):
    """Draw blocks of the first three classes and void."""
    blocks = np.random.default_rng(seed).choice([0, 1, 2, 255], (size[0] // 8 + 1, size[1] // 8 + 1)).astype(np.uint8)
    return np.kron(blocks, np.ones((8, 8), np.uint8))[:size[0], :size[1]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of images of several sizes, and a run trained on it."""
    root = tmp_path_factory.mktemp("evaluate")
    for split in ("train", "val"):
        for number, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
            target = target_of(size, number)
            image = make_image(size, number) // 4 + target[..., None] // 2
            save_image(root / "data" / split / "images" / f"{name}.png", image)
            save_image(root / "data" / split / "masks" / f"{name}.png", target)
    rows = "".join(f"{name},{name != 'floor'}\n" for name in CLASSES)
    (root / "data" / "classes.csv").write_text(f"name,has_instances\n{rows}")
    assert segtrain_exits("dataset=folder", f"dataset.root={root}/data", "dataset.instances=components", *UNET,
                          "dataset.crop=[32,32]", "train.batch_size=4", "train.epochs=2", "runtime.workers=0",
                          f"hydra.run.dir={root}/run") == 0
    return root


@pytest.fixture
def evaluated(segtrain, trained, tmp_path):
    """Evaluate: evaluated("name", "task.flip=true") -> the run directory and its results; only drawn if asked for."""

    def run(name, *arguments):
        worst = [] if any(each.startswith("task.worst=") for each in arguments) else ["task.worst=0"]
        assert segtrain("task=evaluate", f"checkpoint={trained}/run", "runtime.workers=0",
                        f"hydra.run.dir={tmp_path / name}", *worst, *arguments) == 0
        return tmp_path / name, json.loads((tmp_path / name / "results.json").read_text())

    return run


def without(results, *keys):
    return {key: value for key, value in results.items() if key not in keys}


def table(run_dir):
    with (run_dir / "per_image.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- scores depend on nothing but the predictions


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("task.window=[32,40]", "task.overlap=0.5", "task.flip=true")],
                         ids=["whole", "windows"])
def test_scores_do_not_change_with_batch_size_and_workers(evaluated, options):
    first_dir, first = evaluated("first", "train.batch_size=1", *options)
    for number, (batch_size, workers) in enumerate([(3, 0), (8, 0), (3, 2)]):
        run_dir, results = evaluated(f"{number}", f"train.batch_size={batch_size}", f"runtime.workers={workers}",
                                     *options)
        # losses are sums of float32: a convolution may add in another order for another batch
        assert results["loss"] == pytest.approx(first["loss"], rel=1e-6)
        assert results["ece"] == pytest.approx(first["ece"], rel=1e-6)
        inexact = ("loss", "ece", "calibration", *TIMES)
        assert without(results, *inexact) == without(first, *inexact)
        for row, other in zip(table(run_dir), table(first_dir), strict=True):
            assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-6)
            assert without(row, "loss") == without(other, "loss")


def test_scores_do_not_change_with_the_order_of_the_images():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    rng = np.random.default_rng(0)
    samples = [make_sample(target_of(size, number) % 5) for number, size in enumerate(SIZES)]
    for each in samples:
        each.target[each.target > 2] = 255
        each.image[:] = rng.integers(0, 256, each.image.shape)
    found = []
    for order in (samples, samples[::-1]):
        data = Memory(order)
        found.append(score_split(
            network, data, compute_statistics(data, "components"), CrossEntropy(),
            Normalize([0.5] * 3, [1.0] * 3, CPU, True), device=CPU, precision="fp32",
            batch_size=3, workers=0, instances="components", class_sizes=None).results)
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-12)
    assert without(found[0], "loss", *TIMES) == without(found[1], "loss", *TIMES)


def test_evaluate_equals_training(trained, evaluated):
    of_training = json.loads((trained / "run" / "results.json").read_text())
    _, results = evaluated("again")
    assert results["inference"] == {"window": None, "overlap": None, "flip": False, "scales": [1.0]}
    of_details = Details(1, 0.02).results(["a"], np.zeros((1, 3, 1), np.int64))
    assert without(results, "task", "inputs", *of_details, *TIMES) == without(
        of_training, "task", "drawn_shares", *TIMES)
    assert results["boundary_band"] == 0.02
    assert 0 < results["boundary_miou"] < results["mdice"]
    assert sum(results["calibration"]["pixels"]) == sum(map(sum, results["confusion_matrix"]))
    assert results["miou_interval"][0] <= results["miou"] <= results["miou_interval"][1]


@pytest.mark.slow
def test_a_window_of_the_images_size_changes_nothing(evaluated):
    _, whole = evaluated("whole", "train.batch_size=1")
    run_dir, windowed = evaluated("windows", "train.batch_size=1", "task.window=[64,64]", "task.overlap=0.5")
    assert windowed["inference"] == {"window": [64, 64], "overlap": 0.5, "flip": False, "scales": [1.0]}
    assert without(windowed, "inference", *TIMES) == without(whole, "inference", *TIMES)
    assert "window:\n  - 64" in (run_dir / "config.yaml").read_text()


@pytest.mark.slow
def test_windows_and_flip_do_something_and_are_counted(evaluated):
    _, whole = evaluated("whole")
    _, flipped = evaluated("flip", "task.flip=true")
    _, windowed = evaluated("windows", "task.window=[32,32]")
    assert len({whole["loss"], flipped["loss"], windowed["loss"]}) == 3
    assert flipped["inference"] == {"window": None, "overlap": None, "flip": True, "scales": [1.0]}
    assert windowed["inference"] == {"window": [32, 32], "overlap": 0.25, "flip": False, "scales": [1.0]}
    assert flipped["macs"] == 2 * whole["macs"]
    _, scaled = evaluated("scales", "task.scales=[1,2]", "task.boundary_band=0.1")
    assert scaled["inference"]["scales"] == [1, 2]
    assert scaled["macs"] > 4 * whole["macs"]
    assert scaled["boundary_band"] == 0.1
    assert scaled["boundary_miou"] > whole["boundary_miou"]
    # 2 x 2 windows of an image of 40x48, which the network pads to 48x48
    assert windowed["macs"] == pytest.approx(whole["macs"] * 4 * 32 * 32 / (48 * 48), rel=0.01)


# ---- each image


def test_per_image_table_agrees_with_a_count_by_hand(evaluated, trained):
    run_dir, results = evaluated("all", "task.save_predictions=true")
    rows = table(run_dir)
    assert list(rows[0]) == ["name", "loss", "miou", "macc", "pacc", "valid_pixels", *(f"iou/{c}" for c in CLASSES)]
    assert [row["name"] for row in rows] == NAMES
    total = np.zeros((4, 3))
    for row in rows:
        target = np.array(Image.open(trained / "data/val/masks" / f"{row['name']}.png"))
        picture = Image.open(run_dir / "predictions" / f"{row['name']}.png")
        assert picture.mode == "L"
        pred = np.array(picture)
        assert pred.shape == target.shape
        valid = target != 255
        assert int(row["valid_pixels"]) == valid.sum()
        assert float(row["pacc"]) == pytest.approx((pred == target)[valid].mean())
        ious = []
        for number, name in enumerate(CLASSES):
            both = ((pred == number) & (target == number)).sum()
            either = (((pred == number) & valid) | (target == number)).sum()
            total[number] += both, either, 0
            assert row[f"iou/{name}"] == "" if either == 0 else float(row[f"iou/{name}"]) == both / either
            ious += [both / either] if either else []
        assert float(row["miou"]) == pytest.approx(np.mean(ious))
    defined = total[:, 1] > 0
    assert results["miou"] == pytest.approx((total[defined, 0] / total[defined, 1]).mean())
    assert len(list((run_dir / "predictions").rglob("*"))) == len(NAMES) + 2  # and the folders night, night/deep


@pytest.mark.slow
def test_worst_images_are_drawn_in_order(evaluated):
    run_dir, _ = evaluated("three", "task.worst=3")
    scores = sorted((float(row["miou"]), row["name"].replace("/", "_")) for row in table(run_dir))[:3]
    drawn = sorted(path.name for path in (run_dir / "worst").iterdir())
    assert [name.split("_miou_")[0] for name in drawn] == ["1", "2", "3"]
    assert [float(name.split("_")[2]) for name in drawn] == pytest.approx([100 * miou for miou, _ in scores], abs=0.005)
    assert {name.removesuffix(".png").split("_", 3)[3] for name in drawn} == {name for _, name in scores}
    for name in drawn:
        assert np.array(Image.open(run_dir / "worst" / name)).std() > 10


@pytest.mark.slow
def test_files_of_an_evaluation(evaluated):
    run_dir, _ = evaluated("few")
    assert {path.name for path in run_dir.iterdir()} == {
        "config.yaml", "evaluate.log", "results.json", "per_image.csv", "confusion_matrix.png",
        "confusion_matrix_pixels.png"}
    run_dir, _ = evaluated("many", "task.worst=100", "task.save_predictions=true")
    assert len(list((run_dir / "worst").iterdir())) == len(NAMES)
    assert sorted(path.name for path in (run_dir / "worst").iterdir())[0].startswith("001_miou_")


# ---- predictions for benchmarks


def test_cityscapes_predictions_are_found_by_the_official_pattern_and_hold_label_ids(tmp_path):
    cityscapes_frame(tmp_path, "aachen_000001_000019", labels=cityscapes_ids())
    data = Cached(take_first(Cityscapes("train", str(tmp_path)), 1))
    pred = np.arange(32 * 48).reshape(32, 48) % 19
    write_prediction(tmp_path / "predictions", data, 0, pred)
    found, = (tmp_path / "predictions").rglob("aachen_000001_000019*.png")
    picture = Image.open(found)
    assert picture.mode == "L"
    assert (np.array(picture) == np.array([label.label_id for label in CITYSCAPES])[pred]).all()


def test_voc_predictions_have_vocs_palette_and_indices(tmp_path):
    save_image(tmp_path / "JPEGImages" / "2007_000033.jpg", make_image((32, 40)))
    save_image(tmp_path / "SegmentationClass" / "2007_000033.png", np.zeros((32, 40), np.uint8))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n")
    pred = np.arange(32 * 40).reshape(32, 40) % 21
    write_prediction(tmp_path / "predictions", Cached(Voc("val", str(tmp_path))), 0, pred)
    drawn = Image.open(tmp_path / "predictions" / "2007_000033.png")
    assert drawn.mode == "P"
    assert (np.array(drawn) == pred).all()
    assert (np.array(drawn.convert("RGB")) == np.array([label.color for label in VOC])[pred]).all()
    assert drawn.getpalette()[3 * 255:] == [224, 224, 192]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a/../../../x"])
def test_a_prediction_never_leaves_its_folder(tmp_path, name):
    data = Memory([make_sample(np.zeros((32, 32), np.uint8))])
    data.names = [name]
    with refused("leads out", name):
        locate_prediction(tmp_path / "run" / "predictions", data, 0)
    with refused("leads out"):
        write_prediction(tmp_path / "run" / "predictions", data, 0, np.zeros((32, 32), np.int64))
    assert not list(tmp_path.rglob("*.png"))


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path):
    (tmp_path / "predictions").write_text("")
    with refused("predictions", "hydra.run.dir"):
        write_prediction(tmp_path / "predictions", Memory([make_sample(np.zeros((32, 32), np.uint8))]), 0,
                         np.zeros((32, 32), np.int64))


# ---- Cityscapes: categories, and a split without labels


@pytest.fixture(scope="module")
def city_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("cities")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(2):
            labels = np.kron(rng.choice([7, 24, 25, 26, 27, 23], (4, 6)), np.ones((8, 8))).astype(np.uint8)
            numbers = labels.astype(np.int32) * 1000 + rng.integers(0, 2, labels.shape)
            instances = np.where(labels >= 24, numbers, labels)
            cityscapes_frame(root, f"aachen_00000{number}_000019", split, labels=labels, instances=instances)
    cityscapes_frame(root, "berlin_000000_000019", "test")
    assert segtrain_exits("dataset=cityscapes", f"dataset.root={root}", *UNET, "dataset.crop=[32,32]",
                          "train.batch_size=2", "train.epochs=1", "runtime.workers=0",
                          f"hydra.run.dir={root}/run") == 0
    return root


@pytest.mark.slow
def test_category_iiou_of_cityscapes(segtrain, city_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert segtrain("task=evaluate", f"checkpoint={city_run}/run", "hydra.run.dir=scores", "runtime.workers=0",
                    "task.save_predictions=true") == 0
    results = json.loads(Path("scores/results.json").read_text())
    category = {label.label_id: label.category for label in CITYSCAPES}
    sizes = {label.label_id: results["policy"]["class_sizes"].get(label.name) for label in CITYSCAPES}
    found, all_objects, wrong = ({"human": 0.0, "vehicle": 0.0} for _ in range(3))
    for path in sorted(Path("scores/predictions").glob("*.png")):
        stem = city_run / "gtFine/val/aachen" / path.name.removesuffix("_pred_labelIds.png")
        pred, target, instances = (np.array(Image.open(file)) for file in (
            path, f"{stem}_gtFine_labelIds.png", f"{stem}_gtFine_instanceIds.png"))
        pred_category, target_category = np.vectorize(category.get)(pred), np.vectorize(category.get)(target)
        for name in found:
            wrong[name] += ((pred_category == name) & (target_category != name)).sum()
        for number in np.unique(instances[instances >= 1000]):
            mask = instances == number
            name, size = category[number // 1000], sizes[number // 1000]
            found[name] += size * (pred_category[mask] == name).mean()
            all_objects[name] += size
    for name in found:
        assert results["iiou_per_category"][name] == pytest.approx(found[name] / (all_objects[name] + wrong[name]))
    assert results["iiou_per_category"]["sky"] is None
    assert set(results["iou_per_category"]) == {label.category for label in CITYSCAPES}


@pytest.mark.slow
def test_a_split_without_labels_is_refused_unless_predictions_are_wanted(segtrain, city_run, tmp_path, monkeypatch,
                                                                         capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ("task=evaluate", f"checkpoint={city_run}/run", "dataset.split=test", "runtime.workers=0")
    assert segtrain(*arguments, "hydra.run.dir=refused") == 2
    assert "task.save_predictions=true" in capsys.readouterr().err
    assert not Path("refused").exists()
    assert segtrain(*arguments, "hydra.run.dir=test", "task.save_predictions=true") == 0
    assert "all scores are null" in capsys.readouterr().out
    results = json.loads(Path("test/results.json").read_text())
    assert all(results[name] is None for name in ("loss", "miou", "macc", "pacc", "fwiou", "iiou", "category_miou"))
    assert (results["num_images"], np.sum(results["confusion_matrix"])) == (1, 0)
    row, = table(Path("test"))
    assert (row["name"], row["loss"], row["miou"], row["valid_pixels"]) == ("berlin_000000_000019", "", "", "0")
    drawn = np.array(Image.open("test/predictions/berlin_000000_000019_pred_labelIds.png"))
    assert drawn.shape == (32, 48)
    assert np.isin(drawn, [label.label_id for label in CITYSCAPES]).all()
    assert not Path("test/worst").exists()


# ---- options that contradict


@pytest.mark.parametrize(("arguments", "said"), [
    (["task.overlap=0.5"], "task.window=[height,width]"),
    (["task.window=[16,64]"], "at least 32"),
    (["task.window=64"], "task.window"),
    (["task.window=[64,64]", "task.overlap=1"], "task.overlap"),
    (["task.window=[64,64]", "task.overlap=-0.1"], "task.overlap"),
    (["task.worst=-1"], "task.worst"),
    (["task.flips=true"], "task.flip"),
])
def test_options_that_make_no_sense_are_refused(segtrain, trained, tmp_path, capsys, arguments, said):
    assert segtrain("task=evaluate", f"checkpoint={trained}/run", f"hydra.run.dir={tmp_path}/no", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


# ---- pictures


def test_counts_are_written_in_four_characters():
    assert [format_count(count) for count in (0, 7, 950, 999, 1000, 1234, 9949, 9950, 34_567, 999_499, 999_500,
                                              1_200_000, 123_456_789, 3_400_000_000)] == [
        "0", "7", "950", "999", "1.0K", "1.2K", "9.9K", "10K", "35K", "999K", "1.0M", "1.2M", "123M", "3.4G"]
    assert max(len(format_count(10**power + offset)) for power in range(17) for offset in (-1, 0, 49)) <= 4


def test_confusion_in_pixels():
    axes, = draw_confusion([[3_000, 1], [0, 0]], ["road", "car"], in_pixels=True).axes
    assert [text.get_text() for text in axes.texts] == ["3.0K", "1", "0", "0"]
    assert [text.get_text() for text in draw_confusion([[0]], ["a"], in_pixels=True).axes[0].texts] == ["0"]
    many = draw_confusion(np.eye(60, dtype=int).tolist(), [str(n) for n in range(60)], in_pixels=True)
    assert len(many.axes) == 2, "without numbers a scale says what the colours mean"


def test_errors_are_red_over_grey_and_void_is_no_error():
    target, pred = np.array([[0, 1], [255, 1]], np.uint8), np.array([[0, 0], [0, 1]])
    drawn = mark_errors(np.full((2, 2, 3), (200, 100, 0), np.uint8), target, pred)
    assert drawn.tolist() == [[[50, 50, 50], [255, 0, 0]], [[200, 200, 200], [50, 50, 50]]]


def test_legend_of_errors_names_the_classes_that_occur():
    figure = draw_errors(make_image((40, 50)), np.zeros((40, 50), np.uint8), np.full((40, 50), 2), LABELS,
                           ["IoU 0 %", "none", "IoU $1 %"], "title $")
    texts = [text.get_text().replace(r"\$", "$").strip() for text in figure.legends[0].get_texts()]
    assert texts == ["a  IoU 0 %", "c  IoU $1 %", "void in the target", "wrong", "void: not scored"]
