"""Encoders by name: the features of torchvision's and timm's own networks, their weights, and what is refused."""

import logging
import sys

import pytest
import torch
from helpers import images
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from segtrain.models.lraspp import LRASPP
from segtrain.models.named_encoders import EXAMPLES, NamedEncoder
from segtrain.models.pretrained import IMAGENET, Weights, list_weights
from segtrain.models.unet import UNet


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs timm")


def with_statistics(network):
    """Give BatchNorm statistics of its own, so that a forgotten buffer shows."""
    torch.manual_seed(3)
    network.train()(images(2, 3, 64, 64))
    return network.eval()


def save(network, path):
    torch.save(network.state_dict(), path)
    return str(path)


# of a torchvision network: the layers whose outputs are the maps
MAPS = {
    "mobilenet_v3_small": ["features.0", "features.1", "features.3", "features.8", "features.11"],
    "vgg11": ["features.4", "features.9", "features.14", "features.19", "features.20"],
    "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": ["features.relu0", "features.denseblock1", "features.denseblock2", "features.denseblock3",
                    "features.norm5"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features.7"],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{number}" for number in range(1, 5))],
    "shufflenet_v2_x0_5": ["conv1", "maxpool", "stage2", "stage3", "stage4"],
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=() if name == "mobilenet_v3_small" else pytest.mark.slow) for name in MAPS])
@torch.no_grad()
def test_features_of_torchvision(name, tmp_path):
    theirs, x = with_statistics(get_model(name)), images(2, 3, 64, 96)
    encoder = NamedEncoder(name, pretrained=save(theirs, tmp_path / "weights.pth")).eval()
    expected = create_feature_extractor(theirs, MAPS[name])(x)
    assert encoder.strides == (2, 4, 8, 16, 32)[-len(MAPS[name]):]
    assert encoder.channels == tuple(features.shape[1] for features in expected.values())
    for ours, features in zip(encoder(x), expected.values(), strict=True):
        assert torch.equal(ours, features)


@pytest.mark.parametrize(("name", "suffix"), [
    ("mobilenetv3_small_050", ".pth"), ("convnext_atto", ".safetensors"),
    *(pytest.param(name, ".pth", marks=pytest.mark.slow) for name in ("vgg11", "hrnet_w18_small", "efficientvit_b0"))])
@torch.no_grad()
def test_features_of_timm(timm, name, suffix, tmp_path):
    theirs, x, path = with_statistics(timm.create_model(name)), images(1, 3, 64, 96), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(theirs.state_dict(), path)
    else:
        save(theirs, path)
    encoder = NamedEncoder(f"timm/{name}", pretrained=str(path)).eval()
    maps = timm.create_model(name, features_only=True)
    record = dict(zip(maps.feature_info.reduction(), maps.feature_info.channels(), strict=True))
    record.pop(1, None)
    assert dict(zip(encoder.strides, encoder.channels, strict=True)) == record
    if hasattr(theirs, "forward_intermediates"):
        expected = theirs.forward_intermediates(x, intermediates_only=True)
        for ours, features in zip(encoder(x)[::-1], expected[::-1], strict=False):
            torch.testing.assert_close(ours, features)
    else:
        torch.testing.assert_close(encoder(x)[-1], theirs.forward_features(x))


@torch.no_grad()
def test_weights_of_another_implementation_are_matched_in_their_order(timm, tmp_path, caplog):
    theirs, x = with_statistics(get_model("mobilenet_v2")), images(1, 3, 64, 96)
    path = save(theirs, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO):
        other = NamedEncoder("timm/mobilenetv2_100", pretrained=path).eval()
    assert "features.0.0.weight is taken for conv_stem.weight" in caplog.text
    assert "left out: features.18.0.weight" in caplog.text
    for ours, features in zip(other(x), NamedEncoder("mobilenet_v2", pretrained=path).eval()(x), strict=True):
        assert torch.equal(ours, features)
    grey = NamedEncoder("timm/mobilenetv2_100", in_channels=1, pretrained=path).network
    torch.testing.assert_close(grey.conv_stem(x[:, :1]), theirs.features[0][0](x[:, :1].expand(-1, 3, -1, -1)),
                               atol=1e-5, rtol=1e-4)
    torch.save(dict(sorted(theirs.state_dict().items())), path)
    with pytest.raises(ValueError, match=r"timm/mobilenetv2_100 \(missing: conv_stem\.weight(, \S+){4} and"):
        NamedEncoder("timm/mobilenetv2_100", pretrained=path)


@pytest.mark.parametrize(("name", "pretrained", "said"), [
    ("resnet81", None, r"unknown encoder 'resnet81': choose one of the nearest of \d+: resnet18(, [\w/]+){4}\.$"),
    ("alexnet", None, "alexnet does not fit: it has feature maps at strides that vary, but decoders need .* resnet18"),
    ("swin_t", None, "strides 32, but decoders need feature maps at strides 4, 8 and 16"),
    ("resnet18", "IMAGENET1K_V9", "weights of resnet18 'IMAGENET1K_V9': choose one of IMAGENET1K_V1, DEFAULT"),
    ("timm/mobilenetv3_smal_100", None, r"nearest of \d+: timm/mobilenetv3_small_100, "),
    ("mobilenetv3_small_100", None, "timm/mobilenetv3_small_100, "),
    ("timm/vit_tiny_patch16_224", None, "images of 64x96 fail .*, but decoders need"),
    ("timm/resnet18.a9_in1k", None, "weights of timm/resnet18 'a9_in1k': choose one of a1_in1k, "),
    ("timm/resnet18", "a9_in1k", "weights of timm/resnet18 'a9_in1k': choose one of a1_in1k, "),
    ("timm/resnet18", "w.safetensors", "no such file"),
])
def test_what_is_refused(timm, name, pretrained, said):
    with pytest.raises(ValueError, match=said):
        NamedEncoder(name, pretrained=pretrained)


def test_timm_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"encoder timm/resnet18 needs timm, .*pip install '\.\[timm\]'"):
        LRASPP(5, encoder="timm/resnet18")
    with pytest.raises(ValueError, match=r"unknown encoder 'mobilenetv3_small_100': .*mobilenet_v3_small"):
        LRASPP(5, encoder="mobilenetv3_small_100")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit(timm, name):
    assert {4, 8, 16} <= {*NamedEncoder(name).strides}


def test_normalization_and_license_are_those_that_the_libraries_record(timm):
    half = [0.5, 0.5, 0.5]
    for name, pretrained, expected in (
            ("timm/tf_efficientnet_lite0", "DEFAULT", (half, half)),
            ("timm/tf_efficientnet_lite0", "weights.pth", (half, half)), ("timm/resnet18.a1_in1k", "DEFAULT", IMAGENET),
            ("efficientnet_v2_l", "IMAGENET1K_V1", (half, half)), ("timm/nothing", "DEFAULT", IMAGENET),
            ("mobilenet_v2", "MobileNet_V2_Weights.DEFAULT", IMAGENET)):
        assert LRASPP.normalization(pretrained, encoder=name) == expected, name
    assert UNet.normalization("DEFAULT", encoder="timm/tf_efficientnet_lite0") == (half, half)
    assert list_weights("timm/resnet18")["DEFAULT"].license == "apache-2.0"
    assert [name for name, weights in list_weights("regnet_y_16gf").items() if not weights.is_commercial] == [
        "IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"]
    assert not list_weights("timm/convnextv2_atto")["DEFAULT"].is_commercial


def test_weights_by_name_say_once_that_they_are_not_for_commercial_use(monkeypatch, caplog):
    state = get_model("mobilenet_v3_small").state_dict()
    weights = Weights("some", IMAGENET, "cc-by-nc-4.0", "https://example.org/w", lambda: state)
    monkeypatch.setattr("segtrain.models.pretrained.list_weights", lambda name: {"some": weights})
    LRASPP(5, encoder="mobilenet_v3_small", pretrained="some")
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "the weights some of mobilenet_v3_small are under cc-by-nc-4.0" in warning


def test_a_download_of_timm_that_fails_names_the_file(timm, monkeypatch):
    create_model = timm.create_model

    def offline(name, pretrained=False, **arguments):
        if pretrained:
            raise OSError("no route to host")
        return create_model(name, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"cannot download the tv_in1k weights of timm/resnet18 \(no route .*https://"):
        NamedEncoder("timm/resnet18", pretrained="tv_in1k")


@pytest.mark.slow
def test_an_encoder_by_name_is_one_override(timm, segtrain, tmp_path):
    tiny = ["dataset.height=64", "dataset.width=64", "dataset.num_train=4", "dataset.num_val=2", "dataset.crop=[64,64]"]
    assert segtrain(*tiny, "debug=smoke", "model.encoder=timm/mobilenetv3_small_050", "runtime.device=cpu",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0


def test_weights_without_an_encoder_are_refused():
    with pytest.raises(ValueError, match="pretrained weights are for an encoder by name"):
        UNet(5, width=4, pretrained="DEFAULT")
