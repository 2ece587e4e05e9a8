"""Networks of the user's own: what they must return is checked before the work begins, and bad input is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import TINY, mostly_slow, refused
from torch import nn

from segtrain.errors import UserError
from segtrain.inference.sanity_check import check_independence, check_logits
from segtrain.models.linknet import LinkNet

NETS = '''
import torch
import torch.nn.functional as F
from torch import nn


class Good(nn.Module):
    """It knows nothing of segtrain, has no num_classes, and returns its auxiliary logits if asked."""

    def __init__(self, width: int = 8, outputs: int = 11, aux: bool = False, scale: int = 1):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(width, outputs, 1))
        self.aux, self.scale = aux, scale

    def forward(self, x):
        logits = self.head(self.encoder(x))
        size = [side // self.scale for side in x.shape[-2:]]
        logits = F.interpolate(logits, size, mode="bilinear")
        return (logits, logits) if self.aux and self.training else logits


class Mapping(Good):
    def forward(self, x):
        return {"out": super().forward(x), "aux": None}


class Answers(Good):
    def forward(self, x):
        return super().forward(x).argmax(1)


class Nothing(Good):
    def forward(self, x):
        super().forward(x)


class Broken(Good):
    def forward(self, x):
        return self.head(x)  # takes 8 channels


class Full(Good):
    def forward(self, x):
        raise MemoryError("the whole of it")
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a package and configs of the user's into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mynets").mkdir()
    Path("mynets/nets.py").write_text(NETS)
    Path("myconf/model").mkdir(parents=True)
    for name in ("Good", "Mapping", "Answers", "Nothing", "Broken", "Full"):
        Path(f"myconf/model/{name.lower()}.yaml").write_text(f"_target_: mynets.nets.{name}\n")
    Path("myconf/model/theirs.yaml").write_text("_target_: torchvision.models.segmentation.lraspp_mobilenet_v3_large\n"
                                                "num_classes: 11\nweights_backbone: null\n")
    yield ("--config-dir", "myconf", *TINY)
    for module in ("mynets", "mynets.nets"):
        sys.modules.pop(module, None)


@pytest.mark.slow
def test_a_class_of_the_users_trains_resumes_and_is_evaluated_by_yaml_alone(segtrain, own, capsys):
    assert segtrain(*own, "model=good", "+model.width=4", "train.epochs=2", "train.encoder_lr=1e-4",
                    "hydra.run.dir=run") == 0
    evaluate = ("task=evaluate", "checkpoint=run", "hydra.run.dir=scores", "runtime.threads=1")
    assert segtrain(*evaluate) == 2
    assert "runtime.trusted=[mynets]" in capsys.readouterr().err
    assert segtrain(*evaluate, "runtime.trusted=[mynets]") == 0
    trained, scored = (json.loads(Path(name, "results.json").read_text()) for name in ("run", "scores"))
    assert trained["miou"] == scored["miou"]
    assert trained["params"] == scored["params"] == 3 * 4 * 9 + 4 + 8 + 4 * 11 + 11
    Path("run/results.json").unlink()
    assert segtrain("resume=run", "train.epochs=3", "runtime.trusted=[mynets]") == 0


@pytest.mark.parametrize("flag", [("--config-dir", "theirs"), ("-cd", "theirs"), ("--config-dir=theirs",)])
def test_a_misspelt_key_is_looked_for_in_the_users_files_too(segtrain, tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    Path("theirs/model").mkdir(parents=True)
    Path("theirs/model/wide.yaml").write_text("_target_: mynets.nets.Good\nbreadth: 4\n")
    assert segtrain(*flag, "model=wide", "model.breath=5") == 2
    assert "Did you mean 'model.breadth'" in capsys.readouterr().err


def test_a_class_of_the_users_may_be_frozen_without_pretrained(segtrain, own):
    """It may load weights in a way of its own."""
    assert segtrain(*own, "model=good", "debug=smoke", "train.freeze_encoder=true", "hydra.run.dir=run") == 0


def test_a_new_head_needs_a_head(segtrain, own, capsys):
    assert segtrain(*own, "model=good", "debug=smoke", "hydra.run.dir=run") == 0
    assert segtrain(*own, "model=good", "checkpoint=run", "train.new_head=true", "hydra.run.dir=new") == 2
    assert "model._target_=mynets.nets.Good" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), mostly_slow(4, [
    (["model=mapping"], "returns a mapping with the keys out, aux in training mode for images of shape (2, 3, 32, 32), "
                        "but logits of shape (2, 11, 32, 32) are needed: let its forward return the logits alone, or"),
    (["model=good", "+model.aux=true"], "returns a tuple of 2 in training mode"),
    (["model=good", "+model.outputs=5"], "returns a tensor of shape (2, 5, 32, 32) and type float32 in training mode"),
    (["model=good", "+model.outputs=5"], "the dataset has 11 classes, set model.num_classes or the channels"),
    (["model=good", "+model.scale=2"], "returns a tensor of shape (2, 11, 16, 16)"),
    (["model=good", "+model.scale=2"], "enlarge its logits to the size of the images"),
    (["model=answers"], "returns a tensor of shape (2, 32, 32) and type int64"),
    (["model=answers"], "before any softmax or argmax"),
    (["model=nothing"], "returns an object of type NoneType"),
    (["model=broken"], "fails in training mode on images of shape (2, 3, 32, 32): RuntimeError: Given groups=1, "),
    (["model=broken"], "nets.py, line 40)"),
    (["model=linknet", "model.num_classes=5"], "LinkNet returns a tensor of shape (2, 5, 32, 32)"),
    (["model=linknet", "model.num_classes=0"], "model.num_classes=0: must be at least 1"),
    (["model=theirs"], "choose model=torchvision/lraspp_mobilenet_v3_large."),
    (["model=full"], "out of memory"),
]))
def test_what_returns_no_logits_is_refused_before_the_first_step(segtrain, own, capsys, arguments, said):
    assert segtrain(*own, *arguments, "hydra.run.dir=run") == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert message.startswith("segtrain: model") or "memory" in said
    assert not Path("run").exists()


def test_it_is_refused_before_an_evaluation(segtrain, own, capsys):
    assert segtrain(*own, "model=good", "debug=smoke", "hydra.run.dir=run") == 0
    assert segtrain("task=evaluate", "checkpoint=run", "runtime.trusted=[mynets]", "++model.scale=2",
                    "hydra.run.dir=scores") == 2
    assert "model._target_=mynets.nets.Good returns a tensor of shape (1, 11, 16, 24)" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [
    (["model=linkent"], "model=linkent does not exist: model is one of "),
    (["model=linkent"], "torchvision/lraspp_mobilenet_v3_large. Did you mean 'linknet'?"),
    (["model=deeplabv3_resnet50"], "Did you mean 'torchvision/deeplabv3_resnet50'?"),
    (["model=torchvision/lraspp"], "model=torchvision/lraspp does not exist: model is one of "),
    (["model/torchvision=fcn_resnet50"], "choose one of its files by model=torchvision/NAME"),
    (["dataset.crop=[16,32]"], "dataset.crop=[16, 32] must be [height, width], each at least 32 pixels"),
    (["dataset.height=16"], "dataset.height=16: must be at least 32"),
])
def test_unknown_names_and_small_images_are_refused(segtrain, own, capsys, arguments, said):
    assert segtrain(*own, *arguments, "hydra.run.dir=run") == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert not Path("run").exists()


def test_a_picture_that_is_too_small_is_named(segtrain, own, capsys):
    import numpy as np
    from PIL import Image

    for split in ("train", "val"):
        for kind in ("images", "masks"):
            Path("data", split, kind).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(f"data/{split}/images/{number}.png")
            Image.fromarray(np.zeros((40, 30), np.uint8)).save(f"data/{split}/masks/{number}.png")
    Path("data/classes.csv").write_text("name\na\nb\n")
    assert segtrain("dataset=folder", "dataset.root=data", "train.batch_size=2", "hydra.run.dir=run") == 2
    assert "is 30x40: images need at least 32x32 pixels" in capsys.readouterr().err


# ---- the trial itself


class Noted(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.still = nn.BatchNorm2d(3).eval()
        self.modes = []

    def forward(self, images):
        self.modes.append(self.training)
        return self.drop(self.still(self.norm(images + 1)))


@pytest.mark.parametrize("training", [True, False])
def test_the_trial_leaves_the_network_as_it_was(training):
    network = Noted()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    check_logits(network, "own.Noted", (32, 40), in_channels=3, num_classes=3, training=training)
    assert network.modes == [training]
    assert [module.training for module in network.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_bug_of_segtrains_stays_a_bug():
    network = LinkNet(3)
    network.decoder[0] = None
    with pytest.raises(TypeError):
        check_logits(network, "segtrain.models.linknet.LinkNet", (32, 32), in_channels=3, num_classes=3)
    with pytest.raises(UserError, match="16x32 are too small"):
        check_logits(network, "segtrain.models.linknet.LinkNet", (16, 32), in_channels=3, num_classes=3)


class OverBatch(nn.Module):
    """Logits from which the mean over the batch is taken, or of which random ones are dropped, in any mode."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2, track_running_stats=kind != "norm")

    def forward(self, x):
        logits = self.norm(self.conv(x))
        return {"mean": logits - logits.mean(0), "dropout": nn.functional.dropout(logits)}.get(self.kind, logits)


@pytest.mark.parametrize(("kind", "words"), [
    ("norm", "in a batch with another"), ("mean", "in a batch with another"), ("dropout", "when it is called again")])
def test_logits_of_an_image_are_its_own(kind, words):
    torch.manual_seed(0)
    with refused("model._target_=mine.Net", words, "in evaluation mode"):
        check_independence(OverBatch(kind), "mine.Net", (32, 48), in_channels=3)
    sound = OverBatch(None).train()
    check_independence(sound, "mine.Net", (32, 48), in_channels=3)
    assert sound.training
