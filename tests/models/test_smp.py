"""Networks of segmentation_models_pytorch, where it is installed; and what is said where it is not."""

import sys

import pytest
import torch
from helpers import TINY
from torch import nn

from segtrain.models.pretrained import IMAGENET
from segtrain.models.smp import SMPNetwork


def test_the_package_that_is_missing_is_named(segtrain, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install '\.\[smp\]'"):
        SMPNetwork(5, "Linknet", "resnet18")
    assert segtrain(*TINY, "model=smp", f"hydra.run.dir={tmp_path / 'run'}") == 2
    message = capsys.readouterr().err
    assert message.startswith("segtrain: model: segmentation_models_pytorch cannot be imported")
    assert "pip install '.[smp]'" in message
    assert not (tmp_path / "run").exists()


@pytest.fixture
def package():
    return pytest.importorskip("segmentation_models_pytorch", reason="needs segmentation_models_pytorch")


@torch.no_grad()
def test_it_is_the_packages_network(package):
    torch.manual_seed(0)
    theirs = package.Unet("resnet18", encoder_weights=None, in_channels=4, classes=5).eval()
    torch.manual_seed(0)
    ours = SMPNetwork(5, "Unet", "resnet18", in_channels=4).eval()
    x = torch.randn(1, 4, 64, 96, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours(x), theirs(x))
    assert ours(x[..., :45, :67]).shape == (1, 5, 45, 67)
    assert isinstance(ours.encoder, nn.Module)
    assert not any(key.startswith("encoder.") for key in ours.state_dict()), "each weight is saved once"


@pytest.mark.parametrize(("arguments", "message"), [
    ({"architecture": "LinkNet"}, "unknown architecture 'LinkNet'.*Linknet"),
    ({"encoder": "resnet19"}, "unknown encoder 'resnet19'.*resnet18"),
    ({"pretrained": "imagenett"}, "pretrained=imagenett cannot be loaded into resnet18: .*imagenet"),
])
def test_unknown_names_are_refused(package, arguments, message):
    with pytest.raises(ValueError, match=message):
        SMPNetwork(5, **{"architecture": "Linknet", "encoder": "resnet18", **arguments})


def test_it_trains(package, segtrain, tmp_path):
    assert segtrain(*TINY, "debug=smoke", "model=smp", f"hydra.run.dir={tmp_path / 'run'}") == 0


def test_its_normalization_is_what_the_package_records(package, monkeypatch):
    record = {"mean": [0.5] * 3, "std": [0.25] * 3}
    monkeypatch.setattr(package.encoders, "get_preprocessing_params", lambda encoder, pretrained: record)
    assert SMPNetwork.normalization("imagenet", encoder="inceptionv4", num_classes=5) == ([0.5] * 3, [0.25] * 3)

    def offline(encoder, pretrained):
        raise FileNotFoundError("no network")

    monkeypatch.setattr(package.encoders, "get_preprocessing_params", offline)
    assert SMPNetwork.normalization("imagenet", encoder="inceptionv4") == IMAGENET
