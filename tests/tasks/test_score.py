"""task=score: predicted label files against targets, with the official numbers, and what is said of bad input."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, UNET, mostly_slow
from PIL import Image

from segtrain.data.cityscapes import CITYSCAPES, CITYSCAPES_LABELS, CITYSCAPES_SIZES
from segtrain.metrics.confusion import MAX_PIXELS, confusion_matrix, count_values, fold_pairs
from segtrain.tasks import score as score_task

ROOT = Path(__file__).parents[2]
OFFICIAL = json.loads((ROOT / "tests/oracle/iiou_cases.json").read_text())["cases"]
CAMVID = ("dataset=camvid", "dataset.root=data", "task.predictions=preds")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def score(segtrain, monkeypatch):
    """Run task=score and return its results.json; its pictures take longer than all else, and are left out."""
    monkeypatch.setattr(score_task, "write_confusion", lambda *arguments: None)

    def run(*arguments, run_dir="outputs/score"):
        assert segtrain("task=score", f"hydra.run.dir={run_dir}", *arguments) == 0
        return json.loads((Path(run_dir) / "results.json").read_text())

    return run


@pytest.fixture
def refused(segtrain, capsys):
    """Run task=score, which must exit with 2 and say all the parts in one line; it leaves nothing behind."""

    def run(*arguments, says):
        assert segtrain("task=score", "hydra.run.dir=outputs/refused", *arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("segtrain: ")
        assert error.count("\n") == 1
        for part in says:
            assert str(part) in error
        assert not Path("outputs/refused").exists()

    return run


def save(path, array, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)


def cityscapes(images, root="data", predictions="preds"):
    """Write (label ids, instance ids, prediction) of each image as a tree of Cityscapes without leftImg8bit."""
    for number, (labels, instances, pred) in enumerate(images):
        stem = f"{root}/gtFine/val/aachen/aachen_{number:06}_000019_gtFine"
        save(f"{stem}_labelIds.png", np.array(labels, np.uint8))
        save(f"{stem}_instanceIds.png", np.array(instances, np.uint16))
        save(f"{predictions}/any/where/aachen_{number:06}_000019_mine.png", np.array(pred, np.uint8))
    return ("dataset=cityscapes", f"dataset.root={root}", f"task.predictions={predictions}")


def official(case):
    return [(image["label_ids"], image["instance_ids"], image["prediction"]) for image in OFFICIAL[case]["images"]]


def camvid(targets, preds, size=(40, 48)):
    """Write a CamVid of the 480x360 layout without images, and predictions in train ids."""
    for index, (target, pred) in enumerate(zip(targets, preds, strict=True)):
        save(f"data/valannot/{index}.png", np.full(size, target, np.uint8) if np.isscalar(target) else target)
        save(f"preds/{index}.png", np.full(size, pred, np.uint8) if np.isscalar(pred) else pred)


def frames(seed=0, count=3):
    rng = np.random.default_rng(seed)
    targets = [rng.integers(0, 12, (40, 48), dtype=np.uint8) for _ in range(count)]
    preds = [np.where(rng.random(t.shape) < 0.5, rng.integers(0, 11, t.shape), np.minimum(t, 10)).astype(np.uint8)
             for t in targets]
    return targets, preds


# ---- the numbers


@pytest.mark.parametrize("case", OFFICIAL)
def test_every_official_number_comes_out_of_the_command(score, case):
    results, expected = score(*cityscapes(official(case))), OFFICIAL[case]["expected"]
    names = {"miou": "meanIoU", "iiou": "mean_iIoU", "category_miou": "categoryIoU_mean",
             "category_iiou": "category_iIoU_mean"}
    for ours, theirs in names.items():
        assert results[ours] == pytest.approx(expected[theirs], abs=1e-9), ours
    for ours, theirs in (("iou_per_class", "classIoU"), ("iiou_per_class", "class_iIoU"),
                         ("iou_per_category", "categoryIoU"), ("iiou_per_category", "category_iIoU")):
        found = {name: value for name, value in results[ours].items() if name in expected[theirs]}
        assert found == pytest.approx({name: expected[theirs][name] for name in found}, abs=1e-9)
        assert {name for name, value in expected[theirs].items() if value is not None} <= found.keys()
    assert (results["task"], results["dataset"], results["split"]) == ("score", "cityscapes", "val")
    assert results["num_images"] == len(OFFICIAL[case]["images"])
    assert [results[key] for key in ("loss", "checkpoint", "epoch", "step", "params", "macs")] == [None] * 6
    assert results["policy"]["class_sizes"] == {
        label.name: CITYSCAPES_SIZES[label.name] for label in CITYSCAPES if label.has_instances}


@pytest.mark.slow
def test_what_a_score_leaves_behind(segtrain, capsys):
    arguments = cityscapes(official("c6_three_images_noise"))
    assert segtrain("task=score", "hydra.run.dir=outputs/score", *arguments) == 0
    results = json.loads(Path("outputs/score/results.json").read_text())
    shown = capsys.readouterr().out
    assert {path.name for path in Path("outputs/score").iterdir()} == {
        "config.yaml", "score.log", "results.json", "per_image.csv", "confusion_matrix.png",
        "confusion_matrix_pixels.png"}
    rows = list(csv.DictReader(Path("outputs/score/per_image.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == [f"aachen_{number:06}_000019" for number in range(3)]
    assert all(row["loss"] == "" and 0 <= float(row["miou"]) <= 1 for row in rows)
    assert sum(int(row["valid_pixels"]) for row in rows) == sum(
        np.isin(labels, [label.label_id for label in CITYSCAPES]).sum()
        for labels, *_ in official("c6_three_images_noise"))
    for text in ("person", "object sizes for iIoU: those that the dataset fixes", f"{100 * results['miou']:.2f}"):
        assert text in shown
    assert np.array(results["confusion_matrix"]).shape == (19, 19)


def test_polygons_and_images_change_nothing(score, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    polygons = {"imgHeight": 40, "imgWidth": 48, "objects": [
        {"label": "road", "polygon": [[0, 0], [47, 0], [47, 39], [0, 39]]},
        {"label": "car", "polygon": [[2, 2], [9, 2], [9, 9], [2, 9]]}]}
    path = Path("data/gtFine/val/aachen/aachen_000000_000019_gtFine_polygons.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(polygons))
    pred = np.full((40, 48), 7, np.uint8)
    pred[2:10, 2:6] = 26
    save("preds/aachen_000000_000019.png", pred)
    arguments = ("dataset=cityscapes", "dataset.root=data", "task.predictions=preds")
    bare = score(*arguments)
    assert (bare["iou_per_class"]["car"], bare["iiou_per_class"]["car"]) == (0.5, 0.5)
    for split in ("val", "train"):
        save(f"data/leftImg8bit/{split}/aachen/aachen_000000_000019_leftImg8bit.png", np.zeros((40, 48, 3), np.uint8))
    assert score(*arguments, run_dir="outputs/with_images")["iou_per_class"] == bare["iou_per_class"]


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 5])
def test_neither_threads_nor_names_change_a_bit(score, monkeypatch, cores):
    images = official("c6_three_images_noise") * 4
    first = score(*cityscapes(images))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    second = score(*cityscapes(images[::-1], "reversed", "reversed_preds"), run_dir="outputs/reversed")
    left_out = ("seconds", "images_per_second", "predictions")
    assert {key: value for key, value in first.items() if key not in left_out} == {
        key: value for key, value in second.items() if key not in left_out}


def test_predicted_ignored_labels_are_misses_by_hand(score):
    labels, pred = np.full((4, 10), 26, np.uint8), np.full((4, 10), 26, np.uint8)
    pred[:, :5], pred[0, 5:] = 29, 3  # caravan: a vehicle; out of roi: none
    results = score(*cityscapes([(labels, np.full((4, 10), 26001), pred)]))
    assert results["iou_per_class"]["car"] == 15 / 40
    assert results["iiou_per_class"]["car"] == pytest.approx(15 / 40, abs=1e-12)
    assert results["iou_per_category"]["vehicle"] == 15 / 40
    assert results["iiou_per_category"]["vehicle"] == pytest.approx(35 / 40, abs=1e-12)
    assert results["pacc"] == 15 / 40


@pytest.mark.slow
def test_counting_of_pairs_equals_the_confusion_matrix():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 24, 256)
    for shape in ((1, 1), (37, 53), (3, MAX_PIXELS // 2)):
        pred, target = (rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2))
        target.flags.writeable = False
        pairs = count_values(target, pred)
        assert pairs.sum() == pred.size
        expected = confusion_matrix(torch.from_numpy(ids[pred]), torch.from_numpy(target.copy()), 19, num_predicted=23)
        assert torch.equal(fold_pairs(pairs, ids, 19, 23), expected)
    with pytest.raises(ValueError, match="differ in shape"):
        count_values(pred, pred.T)


# ---- other datasets


def test_train_ids_where_255_is_no_class(score):
    pred = np.zeros((40, 48), np.uint8)
    pred[:10] = 255
    camvid([0], [pred])
    results = score(*CAMVID)
    assert (results["iou_per_class"]["Sky"], results["macc"], results["iiou"]) == (0.75, 0.75, None)
    assert results["iou_per_category"] is results["category_miou"] is None
    assert (results["policy"]["num_classes"], results["predicted_void"]) == (11, [0] * 11)


def test_palettes_and_suffixes_count_by_their_index(score):
    camvid([1], [1])
    picture = Image.fromarray(np.ones((40, 48), np.uint8))
    picture.putpalette([9, 9, 9, 200, 0, 0])
    Path("preds/0.png").unlink()
    picture.save("preds/0.PNG", format="PNG")
    assert score(*CAMVID)["iou_per_class"]["Building"] == 1.0


def test_predictions_that_match_no_target_are_warned_of(score, capsys):
    camvid([1], [1])
    save("preds/x.png", np.zeros((2, 2), np.uint8))
    save("preds/sub/0.png", np.zeros((2, 2), np.uint8))
    assert score(*CAMVID)["miou"] == 1.0
    assert "2 files below preds belong to no target and are left out, the first is preds/sub/0.png" in (
        capsys.readouterr().out)


@pytest.mark.parametrize("ending", ["", "_L"])
@pytest.mark.parametrize("folders", [("701_StillsRaw_full", "LabeledApproved_full"), ("val", "val_labels")])
def test_camvid_in_colours_needs_no_images(score, ending, folders):
    names = [f"0001TP_00{number}" for number in range(4)]
    for name in names:
        save(f"data/{folders[1]}/{name}_L.png", np.full((32, 40, 3), (64, 0, 128), np.uint8))  # Car
        save(f"preds/{name}{ending}.png", np.full((32, 40), 8, np.uint8))
    for with_images in (False, True):
        results = score(*CAMVID, "dataset.splits=random", "dataset.num_train=1", "dataset.num_val=2",
                        run_dir=f"outputs/{with_images}")
        assert (results["num_images"], results["iou_per_class"]["Car"]) == (2, 1.0)
        for name in names:
            save(f"data/{folders[0]}/{name}.png", np.zeros((32, 40, 3), np.uint8))


@pytest.mark.parametrize("objects", [True, False])
def test_voc_needs_no_images(score, objects):
    base = Path("data/VOC2012")
    target = np.zeros((40, 48), np.uint8)
    target[:10], target[10:12] = 15, 255
    pred = np.zeros((40, 48), np.uint8)
    pred[:10, :24] = 15
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("a\n")
    save(base / "SegmentationClass/a.png", target)
    save("preds/a.png", pred)
    if objects:
        save(base / "SegmentationObject/a.png", np.where(target == 15, 1 + (np.arange(48) >= 24), 0).astype(np.uint8))
    results = score("dataset=voc", "dataset.root=data", "task.predictions=preds",
                    f"dataset.instances={'maps' if objects else 'components'}")
    assert results["iou_per_class"]["person"] == 0.5
    assert results["iiou_per_class"]["person"] == 0.5
    assert results["iiou_source"] == ("instances" if objects else "components")
    assert results["policy"]["class_sizes"]["person"] == (240 if objects else 480)


@pytest.mark.parametrize(("mask", "name", "settings"), [
    ("val/masks/day/1.png", "day/1", ()),
    ("val/day/1_mask.png", "day/1", ("dataset.images='{split}/**/*_rgb.png'", "dataset.masks='{split}/**/*_mask.png'")),
    ("val/day/1_mask.png", "day/1", ("dataset.images='{split}'", "dataset.masks=null", "dataset.mask_suffix=_mask")),
    ("val/day/1_mask.png", "day/1_mask", ("dataset.images='{split}'", "dataset.masks=null",
                                          "dataset.mask_suffix=_mask")),
    ("val/masks/1.png", "val/images/1", ("dataset.images='{split}.txt'",))],
    ids=["folders", "wildcards", "beside", "beside, named as the mask", "list"])
def test_own_folders_need_no_images(score, mask, name, settings):
    save(f"data/{mask}", np.ones((40, 48), np.uint8))
    Path("data/classes.csv").write_text("name\nwall\nfloor\n")
    Path("data/val.txt").write_text("val/images/1.jpg val/masks/1.png\n")
    save(f"preds/{name}.png", np.ones((40, 48), np.uint8))
    results = score("dataset=folder", "dataset.root=data", "task.predictions=preds", *settings)
    assert results["iou_per_class"] == {"wall": None, "floor": 1.0}


def test_masks_that_do_not_tell_the_split_need_their_images(refused):
    save("data/masks/1.png", np.ones((40, 48), np.uint8))
    Path("data/classes.csv").write_text("name\nwall\nfloor\n")
    save("preds/1.png", np.ones((40, 48), np.uint8))
    refused("dataset=folder", "dataset.root=data", "task.predictions=preds", "dataset.masks=masks",
            says=["data/val/images is not a folder"])


def test_drawn_streets_are_scored_whole(score):
    small = ("dataset=streets", "dataset.height=32", "dataset.width=48", "dataset.num_train=1", "dataset.num_val=2")
    for index in range(2):
        save(f"preds/street_val_{index:05d}.png", np.full((32, 48), 3, np.uint8))
    results = score(*small, "task.predictions=preds")
    assert results["num_images"] == 2
    assert results["iou_per_class"]["Road"] > 0
    assert results["iiou_source"] == "instances"


# ---- predictions that task=evaluate saved


def agree(found, expected):
    """Compare all that does not depend on which task it was."""
    differing = {"task", "checkpoint", "epoch", "step", "loss", "predictions", "inference", "params", "macs", "seconds",
                 "images_per_second"}
    of_a_network = {"inputs", "boundary_miou", "boundary_iou_per_class", "boundary_band", "ece", "calibration"}
    assert found.keys() - {"predictions"} == expected.keys() - of_a_network
    assert {key: value for key, value in found.items() if key not in differing} == {
        key: value for key, value in expected.items() if key not in differing | of_a_network}


def evaluated(segtrain, *arguments):
    """Train a step, evaluate with saved predictions, and return results.json."""
    small = ("dataset.crop=[32,32]", "train.batch_size=2", "train.max_steps=1", "runtime.workers=0", *UNET)
    assert segtrain("hydra.run.dir=outputs/trained", *small, *arguments) == 0
    assert segtrain("task=evaluate", "checkpoint=outputs/trained", "hydra.run.dir=outputs/evaluated", "task.worst=0",
                    "task.save_predictions=true") == 0
    return json.loads(Path("outputs/evaluated/results.json").read_text())


@pytest.mark.slow
def test_saved_predictions_of_streets_have_the_scores_of_evaluate(segtrain, score):
    streets = [argument for argument in TINY if argument.startswith("dataset.") and "crop" not in argument]
    expected = evaluated(segtrain, *streets)
    agree(score(*streets, "task.predictions=outputs/evaluated/predictions", "task.class_sizes=outputs/evaluated"),
          expected)


@pytest.mark.slow
@pytest.mark.parametrize("images_left", [True, False])
def test_saved_predictions_of_camvid_have_the_scores_of_evaluate(segtrain, score, images_left):
    rng = np.random.default_rng(5)
    for split in ("train", "val"):
        for index in range(3):
            save(f"data/{split}/{index}.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
            labels = rng.integers(0, 12, (5, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            save(f"data/{split}annot/{index}.png", labels)
    data = ("dataset=camvid", "dataset.root=data", "dataset.instances=components")
    expected = evaluated(segtrain, *data)
    if not images_left:
        shutil.rmtree("data/val")
    agree(score(*data, "task.predictions=outputs/evaluated/predictions", "task.class_sizes=outputs/evaluated"),
          expected)


@pytest.mark.slow
def test_saved_predictions_of_cityscapes_have_the_scores_of_evaluate(segtrain, score):
    rng = np.random.default_rng(6)
    for split in ("train", "val"):
        for index in range(2):
            stem = f"{split}/ulm/ulm_{index:06}_000019"
            labels = rng.integers(7, 34, (5, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            save(f"data/leftImg8bit/{stem}_leftImg8bit.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
            save(f"data/gtFine/{stem}_gtFine_labelIds.png", labels)
            save(f"data/gtFine/{stem}_gtFine_instanceIds.png",
                 np.where(labels >= 24, labels * np.uint16(1000) + index, labels).astype(np.uint16))
    data = ("dataset=cityscapes", "dataset.root=data")
    expected = evaluated(segtrain, *data)
    shutil.rmtree("data/leftImg8bit")
    agree(score(*data, "task.predictions=outputs/evaluated/predictions"), expected)


# ---- the sizes of objects


def sized(*arguments):
    target, pred = np.zeros((40, 48), np.uint8), np.zeros((40, 48), np.uint8)
    target[:10, :10], pred[:10, :10], pred[20:22, :10] = 8, 8, 8  # a car of 100 pixels, and 20 false ones
    camvid([target], [pred])
    return (*CAMVID, "dataset.instances=components", *arguments)


@pytest.mark.slow
def test_class_sizes_are_given_or_those_of_the_split(score, capsys):
    own = score(*sized())
    assert own["iiou_per_class"]["Car"] == 100 / 120
    assert "the means of this split itself for Car" in capsys.readouterr().out
    given = score(*sized("task.class_sizes={Car: 40, Pedestrian: null}"), run_dir="outputs/given")
    assert given["iiou_per_class"]["Car"] == pytest.approx(40 / 60)
    assert given["policy"]["class_sizes"] == {"Car": 40.0, "Pedestrian": None}
    assert "this split itself" not in capsys.readouterr().out
    for number, path in enumerate(("outputs/given", "outputs/given/results.json")):
        again = score(*sized(f"task.class_sizes={path}"), run_dir=f"outputs/{number}")
        assert again["iiou_per_class"] == given["iiou_per_class"]


@pytest.mark.parametrize(("value", "says"), mostly_slow(3, [
    ("{Cars: 4}", ["Cars", 'Car']), ("{Sky: 4}", ["Sky", "not a class with instances"]),
    ("{Car: 0}", ["Car", "above 0"]),
    ("{Car: many}", ["Car", "many"]), ("{Car: true}", ["Car", "above 0"]), ("7", ["task.class_sizes=7"]),
    ("nowhere.json", ["nowhere.json", "results.json"]), ("bad.json", ["bad.json"]), ("none.json", ["none.json"])]))
def test_useless_class_sizes_are_refused(refused, value, says):
    Path("bad.json").write_text("[]")
    Path("none.json").write_text('{"policy": {"class_sizes": null}}')
    refused(*sized(f"task.class_sizes={value}"), says=says)


def test_class_sizes_without_instances_are_refused(refused):
    camvid([1], [1])
    refused(*CAMVID, "task.class_sizes={Car: 4}", says=["task.class_sizes", "dataset.instances"])


# ---- bad input


@pytest.mark.parametrize(("arguments", "says"), [
    (("dataset=camvid", "dataset.root=data"), ["task.predictions is needed"]),
    (("dataset=camvid", "dataset.root=data", "task.predictions=nowhere"), ["nowhere is not a folder"]),
    ((*CAMVID, "checkpoint=x.pt"), ["checkpoint", "task=evaluate"]),
    ((*CAMVID, "+dataset.targets_only=true"), ["dataset.targets_only is not an argument"]),
    ((*CAMVID, "dataset.instances=maps"), ["data/valannot/0.png", "no instance map", "components"]),
    ((*CAMVID, "task.prediction=x"), ["task.prediction"])])
def test_arguments_that_do_not_fit_are_refused(refused, arguments, says):
    camvid([1], [1])
    refused(*arguments, says=says)


def test_missing_predictions_are_counted(refused):
    camvid(*frames())
    Path("preds/1.png").unlink()
    Path("preds/2.png").unlink()
    refused(*CAMVID, says=["2 of 3 targets have no prediction below preds", "data/valannot/1.png", "add 1.png"])


def test_missing_and_doubled_predictions_of_cityscapes(refused):
    arguments = cityscapes(official("c6_three_images_noise"))
    save("preds/aachen_000001_000019.png", np.zeros((4, 4), np.uint8))
    refused(*arguments, says=["preds/aachen_000001_000019.png and preds/any/where/aachen_000001_000019_mine.png",
                              "both predictions of aachen_000001_000019"])
    Path("preds/aachen_000001_000019.png").unlink()
    Path("preds/any/where/aachen_000001_000019_mine.png").unlink()
    refused(*arguments, says=["1 of 3 targets", "aachen_000001_000019_gtFine_labelIds.png",
                              "add aachen_000001_000019*.png"])


def test_doubled_predictions_that_differ_in_their_suffix_only(refused):
    camvid([1], [1])
    save("preds/0.PNG", np.ones((40, 48), np.uint8), format="PNG")
    refused(*CAMVID, says=["preds/0.PNG and preds/0.png have the same name"])


@pytest.mark.parametrize(("pred", "says"), [
    (np.ones((48, 40), np.uint8), ["40x48", "data/valannot/0.png", "48x40", "target's size"]),
    (np.ones((40, 48, 3), np.uint8), ["mode RGB", "8-bit class number"]),
    (np.ones((40, 48), np.uint16), ["mode I;16", "8-bit class number"]),
    (np.full((40, 48), 11, np.uint8), ["holds the value 11 (1920 pixels)", "train ids 0..10"])])
def test_a_bad_prediction_is_named(refused, pred, says):
    camvid([1, 1], [1, 1])
    save("preds/0.png", pred)
    refused(*CAMVID, says=["preds/0.png", *says])


def test_all_faults_are_counted(refused):
    camvid([1, 1, 1], [1, 12, 13])
    Path("preds/0.png").write_bytes(b"no picture")
    refused(*CAMVID, says=["preds/0.png cannot be read", "3 of 3 pairs of target and prediction are at fault"])


def test_label_ids_that_cityscapes_does_not_have_are_refused(refused):
    labels = np.full((4, 5), 7, np.uint8)
    train_ids = cityscapes([(labels, labels, np.full((4, 5), 255))])
    refused(*train_ids, says=["_mine.png holds the value 255 (20 pixels)", "label ids 0..33"])
    assert max(label.label_id for label in CITYSCAPES_LABELS) == 33
    bad_target = cityscapes([(np.full((4, 5), 40), labels, labels)])
    refused(*bad_target, says=["labelIds.png holds the label 40 (20 pixels)"])


def test_targets_without_their_instances_are_refused(refused):
    labels = np.full((4, 5), 7, np.uint8)
    arguments = cityscapes([(labels, labels, labels)])
    Path("data/gtFine/val/aachen/aachen_000000_000019_gtFine_instanceIds.png").unlink()
    refused(*arguments, says=["labelIds.png has no instance map"])


@pytest.mark.parametrize("empty", [True, False])
def test_a_split_with_nothing_to_score_is_refused(refused, empty):
    camvid([11, 11], [1, 1])
    if empty:
        for path in Path("data/valannot").iterdir():
            path.unlink()
    refused(*CAMVID, says=["the split is empty"] if empty else ["no pixel of the 2 images has a class"])
