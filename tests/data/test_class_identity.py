"""Classes of a network and of a dataset are the same by their names, whatever their order and number."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import UNET, composed, refused, segtrain_exits
from PIL import Image

from segtrain.config.check import check_config, replace_values
from segtrain.config.saved import config_of, read_config
from segtrain.data.base import Dataset, Sample
from segtrain.data.class_identity import Reordered, match_classes
from segtrain.data.label_files import MARKER, make_file_form, map_predicted_ids, read_written_classes, write_prediction
from segtrain.errors import UserError
from segtrain.labels import Label
from segtrain.run.trained import new_class_map
from segtrain.tasks import train

CHECKPOINT = Path("best.pt")


def labels(*names, **more):
    return tuple(Label(name, 10 + number, number, (number, 0, 0), **more) for number, name in enumerate(names))


class Field(Dataset):
    """Two rows of pixels: the three classes and void."""

    def __init__(self, *names, **more):
        self.labels, self.names = labels(*names, **more), ["x"]

    def read(self, index):
        return Sample(np.zeros((2, 2, 3), np.uint8), np.array([[0, 1], [2, 255]], np.uint8))


def test_the_same_classes_change_nothing():
    data = Field("soil", "leaf", "root")
    assert match_classes(data, labels("soil", "leaf", "root"), None, CHECKPOINT) is data


def test_another_order_is_matched_by_name(caplog):
    with caplog.at_level(logging.INFO):
        data = match_classes(Field("soil", "leaf", "root"), labels("root", "soil", "leaf"), None, CHECKPOINT)
    assert "another order than best.pt" in caplog.text
    assert [(label.name, label.train_id, label.label_id) for label in data.labels] == [
        ("root", 0, 12), ("soil", 1, 10), ("leaf", 2, 11)]
    assert data.read(0).target.tolist() == [[1, 2], [0, 255]]
    assert data.read_target(0)[0].tolist() == [[1, 2], [0, 255]]


def test_predictions_are_written_in_the_order_of_the_dataset(tmp_path):
    data = match_classes(Field("soil", "leaf", "root"), labels("root", "soil", "leaf"), None, CHECKPOINT)
    write_prediction(tmp_path, data, 0, data.read(0).target)
    assert np.array(Image.open(tmp_path / "x.png")).tolist() == [[0, 1], [2, 255]]


def test_colours_of_predictions_follow_their_classes():
    data = Field("soil", "leaf", "root")
    data.prediction_palette = [(1, 1, 1), (2, 2, 2), (3, 3, 3), (9, 9, 9)]
    assert make_file_form(Reordered(data, [2, 0, 1])).palette == [[3, 3, 3], [1, 1, 1], [2, 2, 2], [9, 9, 9]]


@pytest.mark.parametrize("names", [("soil", "leaf", "stem"), ("soil", "leaf"), ("soil", "leaf", "root", "stem")])
def test_other_classes_are_refused_with_both_lists(names):
    with refused("best.pt was trained for other classes", "classes are soil, leaf, root", f"'s {', '.join(names)}",
                 "dataset.class_map=", "train.new_head=true"):
        match_classes(Field(*names), labels("soil", "leaf", "root"), None, CHECKPOINT)


def test_names_are_mapped_where_the_user_says_so():
    trained = labels("root", "soil", "leaf")
    data = match_classes(Field("ground", "leaf", "root"), trained, {"soil": "ground"}, CHECKPOINT)
    assert [label.name for label in data.labels] == ["root", "ground", "leaf"]
    assert data.read(0).target.tolist() == [[1, 2], [0, 255]]


@pytest.mark.parametrize(("class_map", "said"), [
    ({"sol": "soil"}, "names sol, which is not a class of the checkpoint"),
    ({"soil": "sol"}, "names sol, which is not a class of the dataset"),
    ({"soil": "leaf"}, "only in the dataset: soil")])
def test_a_map_that_does_not_fit_is_refused(class_map, said):
    with refused(said):
        match_classes(Field("soil", "leaf", "root"), labels("soil", "leaf", "root"), class_map, CHECKPOINT)


def test_instances_of_one_side_are_warned_of(caplog):
    match_classes(Field("soil", "leaf", has_instances=True), labels("soil", "leaf"), None, CHECKPOINT)
    assert "leaf has instances in the dataset only" in caplog.text


def test_predictions_say_what_their_values_mean(tmp_path):
    assert read_written_classes(tmp_path) is None
    more = {"checkpoint": "", "sha256": "", "input": "", "inference": {}}
    (tmp_path / MARKER).write_text(json.dumps({**more, "classes": [
        {"name": "root", "value": 0}, {"name": "soil", "value": 1}, {"name": "leaf", "value": 2}]}))
    (tmp_path / "predictions").mkdir()
    written = read_written_classes(tmp_path / "predictions")
    assert written == {"root": 0, "soil": 1, "leaf": 2}
    assert map_predicted_ids(Field("soil", "leaf", "root"), written)[[0, 1, 2, 255]].tolist() == [2, 0, 1, 3]
    assert map_predicted_ids(Field("soil", "leaf", "root"))[[0, 1, 2, 255]].tolist() == [0, 1, 2, 3]
    with refused("classes root, soil, leaf", "dataset has soil, leaf, stem"):
        map_predicted_ids(Field("soil", "leaf", "stem"), written)


@pytest.mark.parametrize("text", [
    "[", "[1]", "{}", '{"classes": [{"name": "a"}]}', '{"classes": [{"name": "a", "value": 256}]}'])
def test_a_damaged_list_of_classes_is_refused(tmp_path, text):
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(UserError, match=MARKER):
        read_written_classes(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset of two classes, and a run on it."""
    root = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:24, 4 + number:20 + number] = 1
        image = np.where(mask[..., None] == 1, (200, 40, 40), (60, 90, 60)) + rng.integers(-20, 21, (32, 32, 3))
        for kind, pixels in (("images", image.astype(np.uint8)), ("masks", mask)):
            path = root / "data" / ("train" if number < 4 else "val") / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "data/classes.csv").write_text("name,label_id\nsoil,0\nleaf,1\n")
    (root / "data/reordered.csv").write_text("name,label_id\nleaf,1\nsoil,0\n")
    (root / "data/renamed.csv").write_text("name,label_id\nsky,0\ncow,1\n")
    assert segtrain_exits("dataset=folder", f"dataset.root={root / 'data'}", "dataset.crop=[32,32]", *UNET,
                          "train.batch_size=2", "train.epochs=3", "train.report=false", "runtime.workers=0",
                          f"hydra.run.dir={root / 'run'}") == 0
    return root


def miou(folder):
    return json.loads((folder / "results.json").read_text())["miou"]


def test_an_evaluation_scores_the_classes_of_the_network(segtrain, trained, tmp_path, capsys):
    evaluate = ("task=evaluate", f"checkpoint={trained / 'run'}", "task.save_predictions=true", "task.worst=0")
    assert segtrain(*evaluate, f"hydra.run.dir={tmp_path / 'same'}") == 0
    assert segtrain(*evaluate, "dataset.classes=reordered.csv", f"hydra.run.dir={tmp_path / 'other'}") == 0
    assert miou(tmp_path / "other") == miou(tmp_path / "same") == miou(trained / "run")
    assert segtrain("task=score", "dataset=folder", f"dataset.root={trained / 'data'}", "dataset.classes=reordered.csv",
                    f"task.predictions={tmp_path / 'other/predictions'}", f"hydra.run.dir={tmp_path / 'score'}") == 0
    assert miou(tmp_path / "score") == pytest.approx(miou(tmp_path / "same"))
    capsys.readouterr()
    assert segtrain(*evaluate, "dataset.classes=renamed.csv", f"hydra.run.dir={tmp_path / 'none'}") == 2
    assert "only in the dataset: cow, sky" in capsys.readouterr().err
    assert segtrain(*evaluate, "dataset.classes=renamed.csv", "dataset.class_map={soil: sky, leaf: cow}",
                    f"hydra.run.dir={tmp_path / 'mapped'}") == 0
    assert miou(tmp_path / "mapped") == miou(tmp_path / "same")


@pytest.fixture
def edited(trained, tmp_path):
    """A copy of the dataset of which a mask of val has changed, and an image is called otherwise."""
    root = shutil.copytree(trained / "data", tmp_path / "edited")
    mask = np.array(Image.open(root / "val/masks/4.png"))
    mask[0, :] = 1
    Image.fromarray(mask).save(root / "val/masks/4.png")
    for kind in ("images", "masks"):
        (root / "val" / kind / "5.png").rename(root / "val" / kind / "6.png")
    return root


def test_an_evaluation_says_what_is_not_as_in_the_training(segtrain, trained, edited, tmp_path):
    assert segtrain("task=evaluate", f"checkpoint={trained / 'run'}", f"dataset.root={edited}", "dataset.void=[7]",
                    "dataset.mean=[0.5,0.5,0.5]", "task.worst=0", f"hydra.run.dir={tmp_path / 'run'}") == 0
    said = (tmp_path / "run/evaluate.log").read_text()
    assert "dataset.void: trained with null, this run uses [7]" in said
    assert "dataset.mean: trained with [0.485, 0.456, 0.406], this run uses [0.5, 0.5, 0.5]" in said
    assert re.search(r"val is not what .*best.pt was chosen on: 1 changed \(.*masks/4.png\), 1 missing \(5\), 1 new "
                     r"\(.*masks/6.png\)", said)
    assert said.count("WARNING") == 3


@pytest.mark.slow
def test_a_finished_job_of_a_sweep_is_compared_with_its_data(segtrain, trained, edited, tmp_path, capsys):
    sweep = ("-m", "seed=0", f"dataset.root={edited}", f"hydra.sweep.dir={tmp_path / 'sweep'}", "task.worst=0",
             "task=evaluate", f"checkpoint={trained / 'run'}")
    assert segtrain(*sweep) == segtrain(*sweep) == 0
    assert "is finished: nothing to do" in capsys.readouterr().out
    shutil.copy(edited / "val/masks/6.png", edited / "val/masks/4.png")
    assert segtrain(*sweep) == 2
    assert re.search(r"sweep/0 is finished, but what it has read has changed \(classes or samples of val\): .* or "
                     "remove .*sweep/0 to run this job again", capsys.readouterr().err)


def test_a_finished_training_is_compared_with_its_data(trained, edited):
    cfg = check_config(config_of(read_config(trained / "run/config.yaml")))
    assert train.describe_changes(cfg, trained / "run") is None
    (edited / "classes.csv").write_text("name,label_id\nsoil,1\nleaf,0\n")
    cfg = replace_values(cfg, {"dataset.root": str(edited)})
    assert train.describe_changes(cfg, trained / "run").startswith("samples of train: 4 changed (")
    assert train.describe_changes(replace_values(cfg, {"train.accept_changed_data": True}), trained / "run") is None
    (edited / "classes.csv").write_text("name,label_id,has_instances\nsoil,0,false\nleaf,1,true\n")
    assert "have instances" in train.describe_changes(cfg, trained / "run")
    (edited / "classes.csv").write_text("name,label_id\nsky,1\nleaf,0\n")
    with pytest.raises(UserError, match="only in the dataset: sky"):
        train.describe_changes(cfg, trained / "run")


def test_a_class_map_is_applied_once():
    saved = {"config": {"dataset": {"class_map": {"a": "b", "b": "a"}}}}
    cfg = composed("dataset.class_map={a: b, b: a}")
    assert new_class_map(saved, cfg) == {}, "the checkpoint's classes have these names already"
    assert new_class_map({"config": {}}, cfg) == {"a": "b", "b": "a"}
    assert new_class_map(saved, composed()) == {}


@pytest.mark.slow
def test_weights_of_elsewhere_start_a_training_without_their_head(segtrain, trained, tmp_path, capsys):
    weights = torch.load(trained / "run/checkpoints/best.pt", weights_only=True)["model"]
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "other.pt")
    start = ("dataset=folder", f"dataset.root={trained / 'data'}", "dataset.crop=[32,32]", *UNET, "train.batch_size=2",
             "train.epochs=1", "train.report=false", "runtime.workers=0", f"checkpoint={tmp_path / 'other.pt'}")
    assert segtrain(*start, f"hydra.run.dir={tmp_path / 'none'}") == 2
    assert "with checkpoint= and train.new_head=true" in capsys.readouterr().err
    assert segtrain(*start, "train.new_head=true", f"hydra.run.dir={tmp_path / 'run'}") == 0
    said = capsys.readouterr().out
    assert "other.pt: the weights below module." in said
    assert "does not say how its images were normalised" in said


@pytest.mark.slow
def test_a_training_starts_and_goes_on_with_the_classes_of_its_checkpoint(segtrain, trained, tmp_path, capsys):
    start = ("dataset=folder", f"dataset.root={trained / 'data'}", "dataset.crop=[32,32]", *UNET, "train.batch_size=2",
             "train.epochs=1", "train.report=false", "runtime.workers=0", f"checkpoint={trained / 'run'}")
    assert segtrain(*start, "dataset.classes=renamed.csv", f"hydra.run.dir={tmp_path / 'none'}") == 2
    assert "trained for other classes" in capsys.readouterr().err
    assert segtrain(*start, "dataset.classes=renamed.csv", "train.new_head=true",
                    f"hydra.run.dir={tmp_path / 'new'}") == 0
    for name, classes in (("same", "classes.csv"), ("other", "reordered.csv")):
        assert segtrain(*start, f"dataset.classes={classes}", f"hydra.run.dir={tmp_path / name}") == 0
    assert miou(tmp_path / "other") == miou(tmp_path / "same")
    (trained / "data/classes.csv").write_text("name,label_id\nsky,0\ncow,1\n")
    assert segtrain(f"resume={tmp_path / 'same'}", "train.epochs=2") == 2
    assert "last.pt was trained for other classes" in capsys.readouterr().err
    (trained / "data/classes.csv").write_text("name,label_id\nsoil,0\nleaf,1\n")
