"""segtrain as a library: what docs/how-to/python.md says works, and agrees with the command."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import segtrain_exits
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score

import segtrain
from segtrain.data.camvid import CAMVID
from segtrain.data.streets.dataset import Streets
from segtrain.errors import UserError

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
        assert pred.dtype == np.uint8
        assert np.array_equal(pred, np.asarray(saved))
    scores = segtrain.score(preds, [sample.target for sample in samples], model.labels)
    results = json.loads((trained / "evaluated" / "results.json").read_text())
    assert {key: results[key] for key in scores if "iiou" not in key} == {
        key: scores[key] for key in scores if "iiou" not in key}


def test_probabilities_paths_and_overlays_agree_with_predictions(trained):
    model = segtrain.load(str(trained / "outputs" / "first" / "checkpoints" / "best.pt"), device="cpu", flip=True)
    image = scenes()[0].image
    shares = model.probabilities(image)
    assert shares.shape == (11, 32, 48)
    assert shares.dtype == np.float32
    assert np.allclose(shares.sum(0), 1, atol=1e-5)
    assert np.array_equal(shares.argmax(0), model.predict(image))
    assert np.array_equal(model.predict(str(trained / "street.png")), model.predict(image))
    assert np.array_equal(model.overlay(image), model.overlay(trained / "street.png", model.predict(image)))
    assert model.overlay(image).shape[1:] == (48, 3)
    parts = segtrain.load(trained / "outputs" / "first", window=(32, 32), overlap=0.5)
    assert parts.probabilities(image).shape == (11, 32, 48)


@pytest.mark.parametrize("image", [np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3)), np.zeros((3, 32, 32), np.uint8),
                                   None])
def test_what_is_no_image_is_refused(trained, image):
    with pytest.raises(ValueError, match="an image must be a uint8 array"):
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
        assert found["pred"].shape == (32, 48)
        assert found["names"] <= {label.name for label in CAMVID}
        assert Path("overlay.png").exists()


def test_importing_segtrain_does_not_import_torch():
    code = "import sys, segtrain; assert not {'torch', 'numpy', 'hydra'} & {*sys.modules}; print(*dir(segtrain))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"load", "build_model", "score", "Model"} <= set(done.stdout.split())
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        segtrain.lode  # noqa: B018
