"""Torchvision's networks: the same numbers as torchvision's own, and their encoders' weights by name or from a file."""

import pytest
import torch
from helpers import images
from torch import nn
from torchvision.models import get_model, list_models, segmentation

from segtrain.models.torchvision import TorchvisionNetwork

SMALL = "lraspp_mobilenet_v3_large"


@pytest.mark.slow
@pytest.mark.parametrize("name", [SMALL, "deeplabv3_mobilenet_v3_large", "fcn_resnet50"])
@torch.no_grad()
def test_it_is_torchvisions(name):
    torch.manual_seed(0)
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=5).eval()
    torch.manual_seed(0)
    ours = TorchvisionNetwork(5, name).eval()
    x = images(2, 3, 45, 67)
    assert torch.equal(ours(x), theirs(x)["out"])


def test_every_network_of_torchvision_has_its_encoder():
    for name in list_models(module=segmentation):
        with torch.device("meta"):
            assert isinstance(TorchvisionNetwork(2, name).encoder, nn.Module)


def backbone(name, tmp_path):
    """Save the state dict of a classifier with BatchNorm statistics of its own; return it and its path."""
    torch.manual_seed(3)
    network = get_model(name, weights=None)
    network.train()(images(2, 3, 64, 64))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return network.eval(), str(tmp_path / "weights.pth")


@torch.no_grad()
def test_weights_from_a_file_and_other_channels(tmp_path):
    mobilenet, path = backbone("mobilenet_v3_large", tmp_path)
    grey, rgb = images(1, 1, 64, 64), images(1, 3, 64, 64)
    one, three, four = (TorchvisionNetwork(5, SMALL, n, path).encoder.eval() for n in (1, 3, 4))
    expected, actual = mobilenet.features.state_dict(), three.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)
    first = mobilenet.features[0]
    torch.testing.assert_close(one["0"](grey), first(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(four["0"](torch.cat([rgb, 9 * grey], 1)), first(rgb), atol=1e-5, rtol=1e-4)


def test_weights_of_a_resnet_fit(tmp_path):
    resnet, path = backbone("resnet50", tmp_path)
    encoder = TorchvisionNetwork(5, "fcn_resnet50", pretrained=path).encoder
    assert torch.equal(encoder.state_dict()["layer4.2.bn3.running_var"], resnet.layer4[2].bn3.running_var)


def test_weights_by_name_are_those_of_the_encoder(tmp_path, monkeypatch):
    mobilenet, _ = backbone("mobilenet_v3_large", tmp_path)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: mobilenet.state_dict())
    encoder = TorchvisionNetwork(5, SMALL, pretrained="IMAGENET1K_V2").encoder
    assert torch.equal(encoder.state_dict()["0.0.weight"], mobilenet.features[0][0].weight)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "deeplabv3_resnet5"}, "unknown network of torchvision 'deeplabv3_resnet5'.*deeplabv3_resnet50"),
    ({"name": "resnet18"}, "choose one of deeplabv3_mobilenet_v3_large, "),
    ({"name": SMALL, "pretrained": "IMAGENET1K_V9"}, "weights of mobilenet_v3_large 'IMAGENET1K_V9'.*IMAGENET1K_V2"),
    ({"name": SMALL, "pretrained": "/nowhere/w.pth"}, "no such file"),
])
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionNetwork(5, **arguments)


def test_weights_of_another_encoder_are_refused(tmp_path):
    _, path = backbone("resnet18", tmp_path)
    with pytest.raises(ValueError, match=r"does not fit mobilenet_v3_large \(missing: 0\.0\.weight, .* and \d+ more"):
        TorchvisionNetwork(5, SMALL, pretrained=path)
