"""Exported files: what is in them, that they compute what the checkpoint does, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import segtrain_exits
from PIL import Image
from torch import nn

from segtrain.data.camvid import CAMVID
from segtrain.errors import UserError
from segtrain.export import verify
from segtrain.export.onnx import write_onnx
from segtrain.export.program import ModelWithPreprocessing, reuses_pooling_indices, trace_program
from segtrain.export.verify import as_input, compare, load_in_onnxruntime, load_in_opencv
from segtrain.models.enet import ENet
from segtrain.models.linknet import LinkNet
from segtrain.models.segnet import SegNet
from segtrain.models.unet import UNet
from segtrain.run import checkpoint
from segtrain.tasks import export

pytest.importorskip("onnx", reason="needs pip install '.[export]'")
pytest.importorskip("onnxscript", reason="needs pip install '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs pip install '.[export]'")

ROOT = Path(__file__).parents[2]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = [label.name for label in CAMVID]
COLORS = np.array([label.color for label in CAMVID], dtype=np.uint8)


@pytest.fixture(scope="module")
def network(shared_run):
    """What was shared_run, built by hand."""
    model = UNet(11, width=4, batch_norm=True)
    model.load_state_dict(checkpoint.load(shared_run / "checkpoints" / "best.pt")["model"])
    return model.eval()


@pytest.fixture(scope="module")
def exported(shared_run, tmp_path_factory):
    """The run as model.onnx, made by the command."""
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    assert segtrain_exits("task=export", f"checkpoint={shared_run}", "runtime.threads=1",
                          f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def with_labels(shared_run, tmp_path_factory):
    """The run as a model.onnx that gives labels."""
    folder = tmp_path_factory.mktemp("exported") / "labels"
    assert segtrain_exits("task=export", "task.labels=true", f"checkpoint={shared_run}", "runtime.threads=1",
                          f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def pictures(num_images, height, width):
    """Draw noise in patches, so that classes have some extent."""
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (num_images, -(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return small.repeat(4, 1).repeat(4, 2)[:, :height, :width].copy()


@torch.no_grad()
def reference(network, images):
    """Normalise as the formula says, in double precision, and pass a network."""
    normalised = (images / 255 - np.array(MEAN)) / np.array(STD)
    return network(torch.tensor(normalised.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()


def results(folder):
    return json.loads((folder / "results.json").read_text())


# ---- ONNX


@pytest.mark.slow
def test_onnx_gives_the_logits_of_the_checkpoint_for_any_batch_and_size(exported, network):
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    for shape in ((1, 32, 32), (3, 50, 77), (2, 97, 64)):
        images = pictures(*shape)
        logits, = session.run(None, {"image": images.transpose(0, 3, 1, 2).astype(np.float32)})
        expected = reference(network, images)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * expected.std())


@pytest.mark.slow
def test_onnx_gives_the_classes_of_the_checkpoint_if_labels_are_wanted(with_labels, network):
    session = onnxruntime.InferenceSession(with_labels / "model.onnx")
    for shape in ((1, 32, 32), (3, 50, 77)):
        images = pictures(*shape)
        labels, = session.run(None, {"image": images})
        assert labels.dtype == np.uint8
        assert (labels == reference(network, images).argmax(1)).mean() > 0.999
    assert (session.get_inputs()[0].name, session.get_inputs()[0].shape) == ("image", ["batch", "height", "width", 3])
    assert (session.get_outputs()[0].name, session.get_outputs()[0].shape) == ("labels", ["batch", "height", "width"])
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == "tensor(uint8)"


@pytest.mark.slow
def test_the_file_says_what_it_is(exported, shared_run):
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    image, logits = session.get_inputs()[0], session.get_outputs()[0]
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["batch", 3, "height", "width"])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 11, "height", "width"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == NAMES
    assert json.loads(about["colors"]) == COLORS.tolist()
    assert json.loads(about["label_ids"]) == list(range(11))
    assert (json.loads(about["mean"]), json.loads(about["std"])) == (list(MEAN), list(STD))
    assert about["input"] == "image: float32 (N, 3, H, W), RGB, 0..255"
    assert about["output"] == "logits: float32 (N, 11, H, W)"
    assert about["checkpoint"] == str(shared_run / "checkpoints" / "best.pt")
    assert about["model"] == "UNet"
    assert "segtrain" in about


@pytest.mark.slow
def test_results_of_an_export(exported):
    found = results(exported)
    assert sorted(path.name for path in exported.iterdir()) == [
        "config.yaml", "export.log", "model.onnx", "results.json"]
    assert (found["task"], found["format"], found["opset"], found["size"]) == ("export", "onnx", 18, None)
    assert found["bytes"] == (exported / "model.onnx").stat().st_size
    assert found["images"] == "images of streets val"
    for runtime in ("onnxruntime", "opencv"):
        checks = found["checks"][runtime]
        assert [check["size"] for check in checks] == [[32, 48], [33, 37], [40, 40]]
        assert [check["num_images"] for check in checks] == [1, 2, 1]
        assert all(check["passed"] and check["agreement"] > 0.999 for check in checks)
        assert all(0 <= check["mean_relative"] <= check["max_relative"] < 1e-3 for check in checks)
    assert found["latency_ms"].keys() == {"torch", "onnxruntime", "opencv"}
    assert found["opencv_error"] is None
    assert found["versions"]["onnxruntime"] == onnxruntime.__version__


@pytest.mark.slow
def test_a_file_for_one_size(segtrain, shared_run, network):
    assert segtrain("task=export", f"checkpoint={shared_run}", "task.size=[40,70]", "hydra.run.dir=out") == 0
    session = onnxruntime.InferenceSession("out/model.onnx")
    assert session.get_inputs()[0].shape == [1, 3, 40, 70]
    assert session.get_outputs()[0].shape == [1, 11, 40, 70]
    images = pictures(1, 40, 70)
    logits, = session.run(None, {"image": images.transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_allclose(logits, reference(network, images), rtol=0, atol=1e-3)
    assert session.get_modelmeta().custom_metadata_map["input"] == "image: float32 (1, 3, 40, 70), RGB, 0..255"
    assert [check["size"] for check in results(Path("out"))["checks"]["onnxruntime"]] == [[40, 70]] * 3


@pytest.mark.slow
@pytest.mark.parametrize("make", [LinkNet, ENet, lambda classes: SegNet(classes, width=4)],
                         ids=["LinkNet", "ENet", "SegNet"])
def test_onnxruntime_and_opencv_compute_what_torch_does(make, tmp_path):
    torch.manual_seed(0)
    model = make(5)
    images = pictures(4, 64, 96)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the statistics of what it sees next
        model.train()(torch.tensor((images / 255 - MEAN) / STD, dtype=torch.float32).permute(0, 3, 1, 2))
    program = trace_program(ModelWithPreprocessing(model, MEAN, STD, labels=False), None, "mine")
    write_onnx(tmp_path / "model.onnx", program, {}, labels=False, target="mine")
    assert reuses_pooling_indices(program) == (type(model) in (SegNet, ENet))
    for maker in (load_in_onnxruntime, load_in_opencv):
        run = maker(tmp_path / "model.onnx")
        for shape in ((1, 64, 96), (2, 45, 67), (1, 90, 40)):
            batch = pictures(*shape)
            check = compare(run(as_input(batch, False)), reference(model, batch),
                            pooling_indices=reuses_pooling_indices(program))
            # an untrained network is so unsure of some pixels that rounding decides on them
            assert check.passed or (check.max_relative < 1e-4 and check.agreement > 0.995), check


@pytest.mark.slow
def test_a_network_whose_upsampling_is_channels_last_takes_any_size_with_labels_too():
    program = trace_program(ModelWithPreprocessing(LinkNet(5).eval(), MEAN, STD, labels=True), None, "mine")
    image = pictures(1, 50, 77)
    assert program.module()(torch.tensor(image)).shape == (1, 50, 77)


# ---- torch.export


@pytest.mark.slow
@pytest.mark.parametrize("labels", [False, True])
def test_pt2_computes_what_the_checkpoint_does(segtrain, shared_run, network, labels):
    assert segtrain("task=export", f"checkpoint={shared_run}", "task.format=pt2", f"task.labels={labels}",
                    "hydra.run.dir=out") == 0
    notes = {"segtrain.json": ""}
    module = torch.export.load("out/model.pt2", extra_files=notes).module()
    assert json.loads(json.loads(notes["segtrain.json"])["classes"]) == NAMES
    for shape in ((1, 32, 32), (3, 50, 77)):
        images = pictures(*shape)
        expected = reference(network, images)
        actual = module(torch.tensor(as_input(images, labels))).detach().numpy()
        if labels:
            assert (actual == expected.argmax(1)).mean() > 0.999
        else:
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * expected.std())
    found = results(Path("out"))
    assert found["checks"].keys() == {"torch.export"}
    assert (found["opset"], found["format"]) == (None, "pt2")


# ---- the example


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exported", "with_labels"])
def test_the_example_needs_neither_torch_nor_segtrain(kind, request, network, tmp_path):
    images = pictures(1, 61, 83)
    Image.fromarray(images[0]).save("picture.png")
    example = ROOT / "scripts" / "run_onnx.py"
    forbidden = "import runpy, sys; sys.modules['torch'] = sys.modules['segtrain'] = sys.modules['cv2'] = None; " \
                "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", forbidden, example, request.getfixturevalue(kind) / "model.onnx",
                           "picture.png", "mask.png"], capture_output=True, text=True,
                          env={"HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home").exists(), "onnxruntime keeps there what it wants to report"
    expected = reference(network, images).argmax(1)[0]
    mask = np.asarray(Image.open("mask.png"))
    assert (mask == COLORS[expected]).all(2).mean() > 0.999
    printed = {line.split("%")[1].strip(): float(line.split("%")[0]) for line in done.stdout.splitlines()}
    assert list(printed) == NAMES
    assert [printed[name] for name in NAMES] == pytest.approx(
        [100 * (expected == number).mean() for number in range(11)], abs=0.2)


def test_the_example_is_short():
    assert len((ROOT / "scripts" / "run_onnx.py").read_text().splitlines()) <= 25


def test_segtrain_keeps_onnxruntime_from_reporting():
    says = "import os, segtrain; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", says], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


# ---- without the data


@pytest.mark.slow
def test_the_data_need_not_be_there(segtrain, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind, shape, top in (("images", (40, 48, 3), 256), ("masks", (40, 48), 2)):
            folder = tmp_path / "data" / split / kind
            folder.mkdir(parents=True)
            for index in range(2):
                Image.fromarray(rng.integers(0, top, shape, dtype=np.uint8)).save(folder / f"{index}.png")
    (tmp_path / "data" / "classes.csv").write_text("name,color\nwall,#ff0000\nfloor,#00ff00\n")
    assert segtrain("dataset=folder", f"dataset.root={tmp_path / 'data'}", "model=unet", "model.width=2",
                    "dataset.crop=[32,32]", "train.batch_size=2", "train.epochs=1", "runtime.workers=0",
                    "hydra.run.dir=run") == 0
    shutil.rmtree(tmp_path / "data")
    capsys.readouterr()
    assert segtrain("task=export", "task.format=pt2", "checkpoint=run", "hydra.run.dir=out") == 0
    said = capsys.readouterr().out
    assert "the checkpoint's dataset is not available" in said
    assert results(Path("out"))["images"] == "embedded street scenes"
    assert json.loads(results(Path("out"))["metadata"]["classes"]) == ["wall", "floor"]
    assert json.loads(results(Path("out"))["metadata"]["colors"]) == [[255, 0, 0], [0, 255, 0]]


# ---- what is compared


LOGITS = np.random.default_rng(0).normal(size=(2, 4, 30, 40)).astype(np.float32)


def test_figures_of_a_check():
    actual = LOGITS.copy()
    actual[0, 0, 0, 0] += 0.5 * LOGITS.std()
    check = compare(actual, LOGITS, pooling_indices=False)
    assert (check.size, check.num_images) == ([30, 40], 2)
    assert check.max_error == pytest.approx(0.5 * LOGITS.std(), rel=1e-5)
    assert check.max_relative == pytest.approx(0.5, rel=1e-5)
    assert check.mean_relative == pytest.approx(0.5 / LOGITS.size, rel=1e-5)
    assert check.agreement >= 1 - 1 / (2 * 30 * 40)


@pytest.mark.parametrize(("change", "pooling_indices", "passed"), [
    (lambda logits: logits + 1e-5, False, True),
    (lambda logits: np.roll(logits, 1, 2), False, False),
    (lambda logits: np.roll(logits, 1, 2), True, False),
    (lambda logits: logits[:, ::-1], False, False),
    (lambda logits: logits + np.float32(1e-3), False, False),
    (lambda logits: logits + np.float32(1e-3), True, True),
    (lambda logits: np.where(np.arange(40) == 39, 0, logits), False, False),  # the last column
    (lambda logits: np.where(np.arange(40) == 39, 0, logits), True, False),
    (lambda logits: logits * np.nan, False, False),
    (lambda logits: logits.argmax(1).astype(np.uint8), False, True),
    (lambda logits: np.roll(logits, 1, 3).argmax(1), False, False),
])
def test_what_passes(change, pooling_indices, passed):
    check = compare(change(LOGITS), LOGITS, pooling_indices=pooling_indices)
    assert check.passed is passed
    json.dumps(asdict(check), allow_nan=False)


def test_another_shape_is_no_rounding():
    with pytest.raises(ValueError, match="instead of"):
        compare(LOGITS[:, :, 1:], LOGITS, pooling_indices=False)


# ---- what is refused


def reuse(monkeypatch, exported):
    """Write the file that was exported already: what is done with it is looked at, and to make it takes long."""
    def write(path, *given, **options):
        path.write_bytes((exported / "model.onnx").read_bytes())
        return 18

    monkeypatch.setattr(export, "write_onnx", write)


def shifted(maker):
    """Make a runtime that puts everything one row too low."""
    def make(path):
        run = maker(path)
        return lambda image: np.roll(run(image), 1, 2)
    return make


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given", "remedy"), [
    ("onnxruntime", (), "another version of onnxruntime or of torch"),
    ("opencv", (), "task.opencv=false exports it for other runtimes"),
    ("pt2", ("task.format=pt2",), "another version of torch.export or of torch"),
])
def test_a_file_that_computes_something_else_is_not_kept(segtrain, shared_run, exported, monkeypatch, capsys, name,
                                                         given, remedy):
    reuse(monkeypatch, exported)
    load = {"onnxruntime": "load_in_onnxruntime", "opencv": "load_in_opencv", "pt2": "load_in_torch_export"}[name]
    monkeypatch.setattr(verify, load, shifted(getattr(verify, load)))
    assert segtrain("task=export", f"checkpoint={shared_run}", *given, "hydra.run.dir=out") == 2
    said = capsys.readouterr().err
    assert remedy in said
    assert "1 image of 48x32" in said
    assert "% of the pixels have the same class; logits differ by" in said
    assert not Path("out").exists()


@pytest.mark.slow
def test_what_opencv_cannot_run_is_said_and_kept(segtrain, shared_run, exported, monkeypatch, capsys):
    reuse(monkeypatch, exported)
    def make(path):
        raise cv2.error("unsupported layer Foo")

    monkeypatch.setattr(verify, "load_in_opencv", make)
    assert segtrain("task=export", f"checkpoint={shared_run}", "hydra.run.dir=out") == 0
    assert "OpenCV cannot run it (unsupported layer Foo)" in capsys.readouterr().out
    assert results(Path("out"))["opencv_error"] == "unsupported layer Foo"
    assert results(Path("out"))["checks"].keys() == {"onnxruntime"}
    assert Path("out/model.onnx").exists()


class Bessel(nn.Module):
    def forward(self, images):
        return torch.special.bessel_j0(images)


class Brightness(nn.Module):
    def forward(self, images):
        return images if images.mean() > 0 else -images


class LargeOnly(nn.Module):
    def forward(self, images):
        return images if images.shape[2] > 100 else -images


@pytest.mark.slow
def test_an_operator_without_counterpart_is_named(tmp_path):
    program = trace_program(ModelWithPreprocessing(Bessel(), MEAN, STD, labels=False), None, "mine.Bessel")
    with pytest.raises(UserError, match=r"mine\.Bessel .*bessel_j0 has no counterpart in ONNX.*task\.format=pt2"):
        write_onnx(tmp_path / "model.onnx", program, {}, labels=False, target="mine.Bessel")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("network", "size", "message"), [
    (Brightness(), None, "cannot be exported .*values of tensors"),
    (LargeOnly(), None, "cannot be exported for every size.*task.size="),
])
def test_what_cannot_be_traced(network, size, message, capfd):
    with pytest.raises(UserError, match=message):
        trace_program(ModelWithPreprocessing(network, MEAN, STD, labels=False), size, "mine")
    assert "".join(capfd.readouterr()) == ""


def test_one_size_may_be_traced_where_all_may_not():
    trace_program(ModelWithPreprocessing(LargeOnly(), MEAN, STD, labels=False), (64, 64), "mine")


@pytest.mark.parametrize(("given", "message"), [
    ((), "task=export needs checkpoint="),
    (("checkpoint=nowhere",), "nowhere does not exist"),
    (("checkpoint=CHECKPOINT", "task.format=onxx"), "Did you mean 'onnx'"),
    (("checkpoint=CHECKPOINT", "task.size=[16,64]"), "task.size=[16, 64] must be [height, width]"),
])
def test_arguments_that_are_refused(segtrain, shared_run, capsys, given, message):
    given = [argument.replace("CHECKPOINT", str(shared_run)) for argument in given]
    assert segtrain("task=export", *given, "hydra.run.dir=out") == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_without_the_extra_the_message_says_how_to_install_it(segtrain, shared_run, monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime"
                        else find(name, *rest))
    assert segtrain("task=export", f"checkpoint={shared_run}", "hydra.run.dir=out") == 2
    assert "needs onnxruntime: pip install '.[export]'" in capsys.readouterr().err
    assert not Path("out").exists()
