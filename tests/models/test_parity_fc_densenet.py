"""FC-DenseNet against the Keras network of ssnets, and its encoder against torchvision's."""

import re

import pytest
import torch
import torchvision
from helpers import images
from keras_records import batch_norm_constants, load_record, relative_error

from segtrain.models.encoders import DENSENETS, rename_densenet_key
from segtrain.models.fc_densenet import EnlargedConv, FCDenseNet, keras_layers
from segtrain.models.keras_weights import convert_keras


@pytest.fixture(autouse=True)
def small_depth(monkeypatch):
    """Know a DenseNet small enough for every test."""
    monkeypatch.setitem(DENSENETS, 13, (1, 1, 1, 1))


def keras_weights(network):
    """Give the weights of a network the names and layouts of Keras."""
    weights = {}
    for layer, name in keras_layers(network).items():
        module = network.get_submodule(name)
        if isinstance(module, torch.nn.BatchNorm2d):
            weights |= {f"{layer}/gamma:0": module.weight, f"{layer}/beta:0": module.bias,
                        f"{layer}/moving_mean:0": module.running_mean,
                        f"{layer}/moving_variance:0": module.running_var}
        else:
            weights[f"{layer}/kernel:0"] = module.weight.permute(2, 3, 1, 0)
            if module.bias is not None:
                weights[f"{layer}/bias:0"] = module.bias
    return {name: weight.detach() for name, weight in weights.items()}


def test_logits_are_those_of_the_keras_network():
    record, weights = load_record("fc_densenet121")
    network = FCDenseNet(12, keras_compatible=True)
    network.load_state_dict(convert_keras(weights, network, keras_layers(network)))
    assert relative_error(network, record) <= 1e-4


@pytest.mark.parametrize("bottleneck_blocks", [0, 3])
def test_keras_weights_fill_a_network_of_any_bottleneck(bottleneck_blocks):
    torch.manual_seed(0)
    network, other = (FCDenseNet(5, 2, 13, bottleneck_blocks, keras_compatible=True) for _ in range(2))
    network.train()(images(2, 2, 64, 64))  # statistics of its own
    state = convert_keras(keras_weights(network), other, keras_layers(other))
    counters = {key: value for key, value in state.items() if "num_batches" in key}
    expected = network.state_dict() | counters
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_keras_layers_need_the_last_step_of_keras():
    with pytest.raises(ValueError, match="keras_compatible=True"):
        keras_layers(FCDenseNet(5, depth=13))


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck_blocks", [0, 1, 32])
@pytest.mark.parametrize("depth", [121, 169, 201])
def test_keras_layers_have_the_names_of_the_original(depth, bottleneck_blocks):
    with torch.device("meta"):
        network = FCDenseNet(12, 3, depth, bottleneck_blocks, keras_compatible=True)
    num_layers = DENSENETS[depth]
    blocks = {f"conv{i + 2}": num for i, num in enumerate(num_layers)}
    blocks |= {f"upsample{i}": num_layers[-i] for i in (1, 2, 3)} | {"bottleneck": bottleneck_blocks}
    names = [f"{block}_block{i}_{part}" for block, num in blocks.items() for i in range(1, num + 1)
             for part in ("0_bn", "1_conv", "1_bn", "2_conv")]
    names += [f"pool{i}_{part}" for i in (2, 3, 4) for part in ("bn", "conv")]
    names += ["conv1/conv", "conv1/bn", "conv2d"]
    names += ["conv2d_transpose", *(f"conv2d_transpose_{i}" for i in (1, 2, 3))]
    layers = keras_layers(network)
    assert sorted(layers) == sorted(names)
    state = convert_keras(keras_weights(network), network, layers)
    assert {key: value.shape for key, value in state.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_keras_compatible_names_the_constants_of_keras_and_leaves_pixels_to_the_bias():
    """Default and exact network differ in the last step and in BatchNorm, not in the number of parameters."""
    default, exact = FCDenseNet(5, depth=13), FCDenseNet(5, depth=13, keras_compatible=True)
    assert sum(p.numel() for p in default.parameters()) == sum(p.numel() for p in exact.parameters())
    assert batch_norm_constants(exact) == {(1.001e-5, 0.01)}
    x = images(1, exact.head[0].in_channels, 4, 4)
    exact.head[0].bias.data.zero_()
    with torch.no_grad():
        bare = [(part(x)[0] == 0).all(0).double().mean() for part in (default.head[0], exact.head[0])]
    assert bare == [0, 7 / 16]


@torch.no_grad()
def test_the_last_step_is_a_convolution_of_repeated_pixels():
    """EnlargedConv against torch's own upsampling and convolution with the same kernel."""
    step, conv, x = EnlargedConv(6, 5), torch.nn.Conv2d(6, 5, 3, padding=1), images(2, 6, 3, 7)
    step.weight.copy_(conv.weight.permute(2, 3, 0, 1).reshape(45, 6, 1, 1))
    step.bias.copy_(conv.bias)
    expected = conv(torch.nn.functional.interpolate(x, scale_factor=4, mode="nearest"))
    torch.testing.assert_close(step(x), expected)


@torch.no_grad()
def test_skips_are_the_ends_of_the_dense_blocks():
    network = FCDenseNet(5, depth=121).eval()
    features = network.encoder(images(1, 3, 64, 96))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (256, 16, 24), (512, 8, 12), (1024, 4, 6), (1024, 2, 3)
    ]  # fmt: skip
    assert [feature.shape[1] for feature in features] == network.encoder.channels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 161}, "unknown depth 161: choose one of 121, 169, 201"),
        ({"bottleneck_blocks": -1}, "bottleneck_blocks must be at least 0.*not -1"),
        ({"pretrained": "DEFAULT", "keras_compatible": True}, "keras_compatible=true excludes pretrained"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FCDenseNet(5, **arguments)


@pytest.fixture(scope="module")
def densenet121():
    """Torchvision's network with BatchNorm statistics of its own, so that a forgotten buffer shows."""
    torch.manual_seed(3)
    network = torchvision.models.densenet121(weights=None)
    network.train()(images(2, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize("old_names", [False, True])
@torch.no_grad()
def test_weights_of_torchvision_are_loaded_exactly(densenet121, tmp_path, old_names):
    """Torchvision's own files say norm.1 where its modules say norm1, and hold no batch counters."""
    state = densenet121.state_dict()
    if old_names:
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
                 for key, value in state.items() if "num_batches" not in key}
        assert "features.denseblock1.denselayer1.norm.1.running_var" in state
    torch.save(state, tmp_path / "densenet121.pth")
    encoder = FCDenseNet(5, pretrained=str(tmp_path / "densenet121.pth")).encoder.eval()
    left_out = ("classifier.", "features.norm5.")
    expected = {k: v for k, v in densenet121.state_dict().items() if not k.startswith(left_out)}
    actual = encoder.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected if "num_batches" not in key)
    x = images(1, 3, 64, 64)
    torch.testing.assert_close(densenet121.features.norm5(encoder(x)[-1]), densenet121.features(x))


@pytest.mark.parametrize("in_channels", [1, 4])
@torch.no_grad()
def test_weights_fit_other_channels(densenet121, tmp_path, in_channels):
    torch.save(densenet121.state_dict(), tmp_path / "densenet121.pth")
    conv = FCDenseNet(5, in_channels, pretrained=str(tmp_path / "densenet121.pth")).encoder.features.conv0
    grey, rgb = images(1, 1, 32, 32), images(1, 3, 32, 32)
    x, equal = (grey, grey.expand(-1, 3, -1, -1)) if in_channels == 1 else (torch.cat([rgb, grey], 1), rgb)
    torch.testing.assert_close(conv(x), densenet121.features.conv0(equal), atol=1e-5, rtol=1e-4)


def test_weights_of_another_depth_are_refused(densenet121, tmp_path):
    torch.save(densenet121.state_dict(), tmp_path / "densenet121.pth")
    with pytest.raises(ValueError, match=r"does not fit densenet169 \(missing"):
        FCDenseNet(5, depth=169, pretrained=str(tmp_path / "densenet121.pth"))


def test_only_the_old_names_are_changed():
    assert rename_densenet_key("denseblock2.denselayer12.conv.2.weight") == "denseblock2.denselayer12.conv2.weight"
    for key in ("transition1.norm.weight", "denseblock1.denselayer1.norm1.weight", "conv0.weight"):
        assert rename_densenet_key(key) == key
