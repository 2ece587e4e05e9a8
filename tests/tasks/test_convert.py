"""Published weights as a .npz file, converted by the command into a checkpoint that the other tasks take."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, composed, mostly_slow
from keras_records import load_record, relative_error

from segtrain.data.camvid import CAMVID
from segtrain.data.cityscapes import CITYSCAPES
from segtrain.data.voc import VOC
from segtrain.models.fast_scnn import FastSCNN
from segtrain.models.keras_weights import convert_keras
from segtrain.models.linknet_preact import LinkNetPreact, keras_layers
from segtrain.models.segformer import SegFormer
from segtrain.run import checkpoint
from segtrain.tasks.convert import find_classes

CONVERT = ("task=convert", "model=linknet_preact", "model.keras_compatible=true", "task.weights=weights.npz",
           "hydra.run.dir=converted")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def keras():
    """What a LinkNet in Keras computed, and its weights, for 12 classes."""
    return load_record("linknet_preact")


def test_a_file_of_weights_becomes_a_checkpoint(segtrain, keras, capsys):
    record, weights = keras
    np.savez("weights.npz", **weights)
    assert segtrain(*CONVERT, "dataset=folder", "dataset.num_classes=12") == 0
    assert "200 arrays of weights.npz" in capsys.readouterr().out
    saved = checkpoint.load(Path("converted/checkpoints/best.pt"))
    network = LinkNetPreact(12, keras_compatible=True)
    network.load_state_dict(saved["model"])
    assert relative_error(network, record) <= 1e-4
    assert [label["name"] for label in saved["labels"]] == [f"class {number}" for number in range(12)]
    assert len({tuple(label["color"]) for label in saved["labels"]}) == 12
    assert sorted(path.name for path in Path("converted").iterdir()) == [
        "checkpoints", "config.yaml", "convert.log", "results.json"]


def test_weights_by_their_authors_names_become_a_checkpoint(segtrain, capsys):
    """Under the prefix that a wrapper of several GPUs adds, without a head that only training has, with a counter."""
    torch.manual_seed(0)
    original = FastSCNN(11, variant="tramac")
    names = {"down.0": "learning_to_downsample.conv.conv", "down.": "learning_to_downsample.dsconv",
             "pyramid_out": "global_feature_extractor.ppm.out.conv", "classifier.3": "classifier.conv.1"}
    weights = {}
    for key, value in original.state_dict().items():
        if not key.startswith("aux."):
            for here, there in names.items():
                if key.startswith(here):
                    key = there + key.removeprefix(here)
            for number in "12":  # of the separable convolutions, whose layers are one list there
                key = key.replace(f"dsconv{number}.", f"dsconv{number}.conv.")
                key = key.replace(f"classifier.{int(number) - 1}.", f"classifier.dsconv{number}.conv.")
            weights[f"module.{key}"] = value.numpy()
    np.savez("weights.npz", **weights)
    convert = ("task=convert", "model=fast_scnn", "model.variant=tramac", "task.weights=weights.npz",
               "hydra.run.dir=converted")
    assert segtrain(*convert) == 0
    saved = checkpoint.load(Path("converted/checkpoints/best.pt"))["model"]
    assert all(torch.equal(saved[key], value) for key, value in original.state_dict().items()
               if not key.startswith("aux."))
    np.savez("weights.npz", **dict(list(weights.items())[1:]))
    assert segtrain(*convert, "hydra.run.dir=other") == 2
    assert "weights.npz does not fit" in (message := capsys.readouterr().err)
    assert "missing: down.0.0.weight" in message


@pytest.mark.slow
def test_weights_that_are_not_for_commercial_use_are_warned_of_once(segtrain, capsys):
    np.savez("weights.npz", **{key: value.numpy() for key, value in SegFormer(11).state_dict().items()})
    assert segtrain("task=convert", "model=segformer_b0", "task.weights=weights.npz", "hydra.run.dir=converted") == 0
    said = "".join(capsys.readouterr())
    assert said.count("NVIDIA's Source Code License for SegFormer, which does not allow commercial use") == 1


@pytest.mark.parametrize(("dataset", "expected"), [
    ("streets", CAMVID), ("camvid", CAMVID), ("cityscapes", CITYSCAPES), ("voc", VOC)])
def test_the_classes_of_known_datasets_need_no_data(hydra, dataset, expected):
    cfg = composed("task=convert", f"dataset={dataset}", f"dataset.num_classes={len(expected)}",
                   *[] if dataset == "streets" else ["dataset.root=nowhere"])
    labels, form = find_classes(cfg)
    assert labels == expected
    assert form.label_ids == (dataset == "cityscapes")
    assert (form.palette is not None) == (dataset == "voc")


@pytest.mark.slow
def test_the_checkpoint_can_be_evaluated_and_trained_on(segtrain, keras):
    """Of its 12 classes street scenes have 11; with the head cut to these, nothing else is needed."""
    _, weights = keras
    cut = {name: value[..., :11] if name.startswith("conv2d_35/") else value for name, value in weights.items()}
    np.savez("weights.npz", **cut)
    assert segtrain(*CONVERT, *TINY) == 0
    for weights in ("enet", "none"):  # of the loss: the training split is read, or not
        assert segtrain("task=evaluate", "checkpoint=converted", f"loss.class_weights={weights}",
                        "dataset.instances=null", f"hydra.run.dir={weights}") == 0
        assert ("reading it" in Path(weights, "evaluate.log").read_text()) == (weights == "enet")
        assert Path(weights, "results.json").exists()
    assert segtrain("checkpoint=converted", "model=linknet_preact", "model.keras_compatible=true", *TINY, "debug=smoke",
                    "dataset.crop=[32,96]", "dataset.width=96", "hydra.run.dir=trained") == 0


@pytest.mark.parametrize(("rename", "offset"), [
    (lambda name: name, 0),
    (lambda name: name.removesuffix(":0"), 0),  # as Keras 3 names them
    (lambda name: f"link_net/{name}", 0),
    (lambda name: name, 17),  # the second model of a session
])
def test_names_of_other_sessions_and_versions(keras, rename, offset):
    _, weights = keras
    network = LinkNetPreact(12)
    expected = convert_keras(weights, network, keras_layers(network))

    def moved(name):
        layer, _, weight = name.partition("/")
        kind, _, number = layer.rpartition("_") if layer[-1].isdigit() and "_" in layer else (layer, "", "0")
        return rename(f"{kind}_{int(number) + offset}/{weight}" if offset else name)

    found = convert_keras({moved(name): value for name, value in weights.items()}, network, keras_layers(network))
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("given", "message"), mostly_slow(3, [
    (("task.weights=null",), "task.weights is needed"),
    (("task.weights=nowhere.npz",), "task.weights=nowhere.npz does not exist"),
    (("task.weights=text.npz",), "task.weights=text.npz is not a .npz file of arrays"),
    (("task.weights=single.npy",), "task.weights=single.npy is not a .npz file of arrays"),
    (("task.weights=objects.npz",), "task.weights=objects.npz is not a .npz file of arrays"),
    (("dataset.num_classes=7",), "conv2d_35/kernel (12, 32, 2, 2) instead of (7, 32, 2, 2)"),
    (("task.weights=missing.npz",), "missing: stem.2.weight"),
    (("task.weights=unknown.npz",), "unknown: dense/kernel"),
    (("dataset.num_classes=null",), "the number of classes is open"),
    (("model=unet", "~model.keras_compatible"), "has no original whose weights are known"),
]))
def test_what_is_refused(segtrain, keras, capsys, given, message):
    _, weights = keras
    np.savez("weights.npz", **weights)
    np.savez("missing.npz", **{name: value for name, value in weights.items() if name != "conv2d/kernel:0"})
    np.savez("unknown.npz", **weights, **{"dense/kernel:0": np.zeros((3, 3))})
    np.savez("objects.npz", a=np.array([{}], dtype=object))
    np.save("single.npy", np.zeros(3))
    Path("text.npz").write_text("weights")
    arguments = [argument for argument in CONVERT
                 if not (given[0].startswith("model=") and argument.startswith(("model", "model.seed")))]
    assert segtrain(*arguments, "dataset=folder", "dataset.num_classes=12", *given[:1]) == 2
    assert message in capsys.readouterr().err
    assert not Path("converted").exists()
