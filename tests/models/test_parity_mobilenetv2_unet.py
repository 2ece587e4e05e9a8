"""The U-Net on MobileNetV2 against the Keras network of ssnets, and its encoder against torchvision's."""

import numpy as np
import pytest
import torch
import torchvision
from helpers import images
from keras_records import batch_norm_constants, load_record, relative_error
from torch import nn

from segtrain.models.keras_weights import convert_keras
from segtrain.models.mobilenetv2_unet import MobileNetV2UNet, keras_layers


@pytest.fixture(scope="module")
def keras():
    return load_record("mobilenetv2_unet")


def test_logits_are_those_of_the_keras_network(keras):
    record, weights = keras
    network = MobileNetV2UNet(12, keras_compatible=True)
    network.load_state_dict(convert_keras(weights, network, keras_layers(network)))
    assert relative_error(network, record) <= 1e-4


def test_every_weight_of_keras_lands_where_it_belongs(keras):
    """Also in a default network, whose parameters are the same."""
    _, weights = keras
    network = MobileNetV2UNet(12)
    layers = keras_layers(network)
    assert {name.rpartition("/")[0] for name in weights} == set(layers)
    state = convert_keras(weights, network, layers)
    depthwise = weights["block_3_depthwise/depthwise_kernel:0"][..., 0].transpose(2, 0, 1)
    np.testing.assert_array_equal(state["encoder.features.4.conv.1.0.weight"][:, 0], depthwise)
    variance = weights["batch_normalization_1/moving_variance:0"]
    np.testing.assert_array_equal(state["decoder.1.norm.running_var"], variance)


def test_keras_compatible_names_the_constants_of_keras():
    network = MobileNetV2UNet(5, keras_compatible=True)
    for part, momentum in ((network.encoder, 0.001), (network.decoder, 0.01)):
        assert batch_norm_constants(part) == {(1e-3, momentum)}
    with pytest.raises(ValueError, match="keras_compatible=true excludes pretrained"):
        MobileNetV2UNet(5, pretrained="DEFAULT", keras_compatible=True)


@torch.no_grad()
def test_keras_compatible_pads_right_and_bottom_only():
    """The first pixel of the stem sees the first 3x3 pixels of the image."""
    network = MobileNetV2UNet(5, keras_compatible=True).eval()
    stem, x = network.encoder.features[0][0], images(1, 3, 8, 8)
    first = (stem.weight * x[..., :3, :3]).sum((1, 2, 3))
    torch.testing.assert_close(stem(x)[0, :, 0, 0], first, atol=1e-5, rtol=1e-4)
    strided = [m for m in network.encoder.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [type(m).__name__ for m in strided] == ["RightBottomConv2d"] * 5


@pytest.fixture(scope="module")
def mobilenet():
    """Torchvision's network with BatchNorm statistics of its own, so that a forgotten buffer shows."""
    torch.manual_seed(3)
    network = torchvision.models.mobilenet_v2(weights=None)
    network.train()(images(2, 3, 64, 64))
    return network.eval()


@pytest.fixture
def checkpoint(mobilenet, tmp_path):
    torch.save(mobilenet.state_dict(), tmp_path / "mobilenet_v2.pth")
    return str(tmp_path / "mobilenet_v2.pth")


@torch.no_grad()
def test_weights_of_torchvision_are_loaded_exactly(mobilenet, checkpoint):
    encoder = MobileNetV2UNet(5, pretrained=checkpoint).encoder.eval()
    left_out = ("classifier.", "features.18.", "features.17.conv.3.")
    expected = {k: v for k, v in mobilenet.state_dict().items() if not k.startswith(left_out)}
    actual = encoder.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


@torch.no_grad()
def test_skips_are_the_expansions_that_torchvision_computes(mobilenet, checkpoint):
    seen, hooks = [], []
    blocks = [mobilenet.features[i].conv for i in (2, 4, 7, 14, 17)]
    for layer in (*(block[0] for block in blocks[:4]), blocks[4][2]):
        hooks.append(layer.register_forward_hook(lambda module, args, output: seen.append(output.clone())))
    x = images(1, 3, 64, 96)
    mobilenet(x)
    for hook in hooks:
        hook.remove()
    encoder = MobileNetV2UNet(5, pretrained=checkpoint).encoder.eval()
    features = encoder(x)
    assert tuple(feature.shape[1] for feature in features) == encoder.channels
    assert [64 // feature.shape[2] for feature in features] == [2, 4, 8, 16, 32]
    assert all(torch.equal(*pair) for pair in zip(features, seen, strict=True))


@pytest.mark.parametrize("in_channels", [1, 4])
@torch.no_grad()
def test_weights_fit_other_channels(mobilenet, checkpoint, in_channels):
    conv = MobileNetV2UNet(5, in_channels, pretrained=checkpoint).encoder.features[0][0]
    grey, rgb = images(1, 1, 32, 32), images(1, 3, 32, 32)
    x, equal = (grey, grey.expand(-1, 3, -1, -1)) if in_channels == 1 else (torch.cat([rgb, grey], 1), rgb)
    torch.testing.assert_close(conv(x), mobilenet.features[0][0](equal), atol=1e-5, rtol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"does not fit mobilenet_v2 \(missing"):
        MobileNetV2UNet(5, pretrained=str(tmp_path / "resnet18.pth"))
