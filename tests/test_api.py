"""segtrain as a library: what docs/how-to/python.md says works, and agrees with the command."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SHARED_RUN, segtrain_exits
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score

import segtrain
from segtrain.data.camvid import CAMVID
from segtrain.data.streets.dataset import Streets
from segtrain.errors import UserError
from segtrain.trained_run import write_overrides

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(shared_run, tmp_path_factory):
    """A folder with outputs/first, a run on street scenes, its evaluation, and an image."""
    root = tmp_path_factory.mktemp("api")
    run = shutil.copytree(shared_run, root / "outputs" / "first")
    assert segtrain_exits("task=evaluate", f"checkpoint={run}", "task.save_predictions=true", "task.worst=0",
                          "runtime.workers=0", f"hydra.run.dir={root}/evaluated") == 0
    Image.fromarray(scenes()[0].image).save(root / "street.png")
    return root


def scenes():
    data = Streets("val", height=32, width=48, num_train=5, num_val=3)
    return [data.read(index) for index in range(3)]


@pytest.mark.slow
def test_a_loaded_network_predicts_and_scores_as_the_command_does(trained):
    model = segtrain.load(trained / "outputs" / "first")
    assert model.labels == CAMVID
    samples = scenes()
    preds = model.predict([sample.image for sample in samples])
    for index, pred in enumerate(preds):
        saved = Image.open(trained / "evaluated" / "predictions" / f"street_val_{index:05d}.png")
        assert pred.classes.dtype == np.uint8
        assert np.array_equal(pred, np.asarray(saved))
    scores = segtrain.score(preds, [sample.target for sample in samples], model.labels)
    results = json.loads((trained / "evaluated" / "results.json").read_text())
    assert {key: results[key] for key in scores if "iiou" not in key} == {
        key: scores[key] for key in scores if "iiou" not in key}


def test_every_kind_of_image_gives_the_same_prediction(trained):
    model = segtrain.load(str(trained / "outputs" / "first" / "checkpoints" / "best.pt"), device="cpu", flip=True)
    array = scenes()[0].image
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    kinds = [array, str(trained / "street.png"), trained / "street.png", Image.fromarray(array), tensor, tensor / 255]
    preds = model.predict(kinds)
    assert all(np.array_equal(pred, preds[0]) for pred in preds)
    pred = preds[0]
    assert pred.probabilities.shape == (11, 32, 48)
    assert pred.probabilities.dtype == np.float32
    assert np.allclose(pred.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(pred.probabilities.argmax(0), pred.classes)
    parts = segtrain.load(trained / "outputs" / "first", window=(32, 32), overlap=0.5)
    assert parts.predict(array).probabilities.shape == (11, 32, 48)


def test_a_prediction_shows_saves_and_describes_itself(trained, tmp_path):
    pred = segtrain.load(trained / "outputs" / "first").predict(trained / "street.png")
    plain, drawn = pred.overlay(legend=False), pred.overlay()
    assert plain.size == (48, 32)
    assert drawn.size[0] == 48
    assert drawn.size[1] > 32
    assert np.array_equal(np.asarray(drawn)[:32], np.asarray(plain))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pred._repr_png_()))), np.asarray(drawn))
    pred.save(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), pred.classes)
    counts = np.bincount(pred.classes.ravel(), minlength=11) / pred.classes.size
    assert pred.shares == {pred.labels[number].name: counts[number] for number in np.argsort(-counts, kind="stable")
                           if counts[number]}
    first, share = next(iter(pred.shares.items()))
    assert repr(pred).startswith(f"Prediction(32x48: {first} {100 * share:.1f} %")
    assert np.asarray(pred, dtype=np.int64).dtype == np.int64


@pytest.mark.slow
def test_a_training_from_python_is_that_of_the_command(trained, shared_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    with pytest.raises(ZeroDivisionError):
        segtrain.train(*SHARED_RUN, name="first", on_epoch=lambda row: seen.append(row) or (seen[1:] and 1 / 0))
    run = segtrain.train("resume=last", on_epoch=seen.append)
    assert run.folder == Path("outputs/first")
    assert [row["epoch"] for row in seen] == [1, 2, 3, 4]
    assert seen[-1]["val/miou"] == run.history[-1]["val/miou"]
    assert [row["train/loss"] for row in run.history] == [row["train/loss"] for row in segtrain.Run(shared_run).history]
    assert run.results["miou"] == json.loads((shared_run / "results.json").read_text())["miou"]
    assert run.best.exists()
    assert run.evaluate(task={"worst": 0}, runtime={"workers": 0})["miou"] == run.results["miou"]
    assert (run.folder / "evaluate-val").is_dir()
    assert run.report() == run.folder / "report.html"
    assert run.predict(trained / "street.png").classes.shape == (32, 48)
    assert run.export("task.format=pt2").exists()


def test_a_training_that_is_refused_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for settings, said in (({"optim": "adma"}, "Did you mean 'adam'"),
                           ({"dataset": "folder"}, "dataset.root is needed"),
                           ({"train": {"epochs": 0}}, "train.epochs=0 is too small"),
                           ({"train": {"num_images": 3, "batch_size": 4}}, "train.batch_size=4 is larger")):
        with pytest.raises(UserError, match=said):
            segtrain.train(**settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("settings", "written"), [
    ({"model": "torchvision/fcn_resnet50", "seed": np.int64(3)}, ["model=torchvision/fcn_resnet50", "seed=3"]),
    ({"train": {"max_steps": None, "report": False}}, ["train.max_steps=null", "train.report=false"]),
    ({"dataset": {"root": Path("/a b,c=1"), "crop": (32, 48)}}, ["dataset.root='/a b,c=1'", "dataset.crop=[32,48]"]),
])
def test_settings_are_written_as_overrides(settings, written):
    assert list(write_overrides(settings)) == written


@pytest.mark.parametrize("image", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3)), np.zeros((3, 32, 32), np.uint8),
                                   None])
def test_what_is_no_image_is_refused(trained, image):
    with pytest.raises(ValueError, match="an image must be a path"):
        segtrain.load(trained / "outputs" / "first").predict(image)


def test_files_that_are_no_checkpoint_or_picture_are_named(trained, tmp_path):
    with pytest.raises(UserError, match=r"none\.pt does not exist"):
        segtrain.load(tmp_path / "none.pt")
    with pytest.raises(UserError, match=r"none\.png"):
        segtrain.load(trained / "outputs" / "first").predict(tmp_path / "none.png")
    with pytest.raises(ValueError, match="overlap=1"):
        segtrain.load(trained / "outputs" / "first", overlap=1)


def test_a_checkpoint_may_not_name_what_is_not_trusted(trained, tmp_path):
    saved = torch.load(trained / "outputs" / "first" / "checkpoints" / "best.pt", weights_only=True)
    saved["config"]["model"]["_target_"] = "os.getcwd"
    torch.save(saved, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"model\._target_=os\.getcwd"):
        segtrain.load(tmp_path / "evil.pt")


def test_untrained_networks_are_those_of_the_command():
    assert sum(p.numel() for p in segtrain.build_model("enet", num_classes=12).parameters()) == 350_652
    network = segtrain.build_model("torchvision/lraspp_mobilenet_v3_large", num_classes=5)
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 64, 64)
    with pytest.raises(UserError, match=r"there is no model linkent.*Did you mean 'linknet'"):
        segtrain.build_model("linkent", num_classes=5)
    with pytest.raises(UserError, match=r"model\.depht is not an argument"):
        segtrain.build_model("enet", num_classes=5, depht=3)


def test_scores_are_those_of_sklearn():
    rng = np.random.default_rng(0)
    targets = [rng.choice([0, 1, 2, 255], (20, 30 + number)) for number in range(3)]
    preds = [rng.integers(0, 3, target.shape) for target in targets]
    scores = segtrain.score(preds, targets, ["a", "b", "c"])
    target, pred = (np.concatenate([each.ravel() for each in arrays]) for arrays in (targets, preds))
    valid = target != 255
    assert scores["pacc"] == pytest.approx(accuracy_score(target[valid], pred[valid]))
    assert list(scores["iou_per_class"].values()) == pytest.approx(
        list(jaccard_score(target[valid], pred[valid], average=None)))


@pytest.mark.parametrize(("pred", "target", "said"), [
    ([[0, 3]], [[0, 1]], "predictions hold 3"), ([[0, 1]], [[0, 9]], "targets hold 9"),
    ([[0, 1]], [[0, 1, 1]], "shape"), ([[255, 1]], [[0, 1]], "predictions hold 255")])
def test_scores_refuse_what_does_not_fit(pred, target, said):
    with pytest.raises(ValueError, match=said):
        segtrain.score(np.array(pred), np.array(target), ["a", "b"])


def python_blocks():
    page = (ROOT / "docs/how-to/python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    readme = (ROOT / "README.md").read_text()
    return [*blocks, re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[0]]


@pytest.mark.parametrize("number", range(4))
def test_the_documented_lines_run(trained, monkeypatch, number):
    blocks = python_blocks()
    assert len(blocks) == 4
    monkeypatch.chdir(trained)
    Image.open("street.png").save("street.jpg")
    found: dict = {}
    exec(blocks[number], found)
    if number == 0:
        assert found["pred"].classes.shape == (32, 48)
        assert found["names"] <= {label.name for label in CAMVID}
        assert Path("overlay.png").exists()


def test_importing_segtrain_does_not_import_torch():
    code = "import sys, segtrain; assert not {'torch', 'numpy', 'hydra'} & {*sys.modules}; print(*dir(segtrain))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"load", "train", "Run", "build_model", "score", "Model", "Prediction"} <= set(done.stdout.split())
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        segtrain.lode  # noqa: B018
