"""FCN-8s against its Keras original, and its encoder against torchvision's VGG16."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers import images
from keras_records import batch_norm_constants, load_record, relative_error
from torch import nn

from segtrain.models.fcn8 import FCN8, enlarge_bilinear, enlarge_nearest, keras_layers
from segtrain.models.keras_weights import convert_keras

SMALL = {"separable": True, "fc_channels": 64}


@pytest.fixture(scope="module")
def keras():
    return load_record("fcn8_separable")


def test_logits_are_those_of_the_keras_network(keras):
    """On a size that is not divisible by 32."""
    record, weights = keras
    network = FCN8(12, separable=True, keras_compatible=True)
    network.load_state_dict(convert_keras(weights, network, keras_layers(network)))
    assert relative_error(network, record) <= 1e-4


def test_every_weight_of_keras_lands_where_it_belongs(keras):
    """Also in a default network, whose parameters are the same."""
    _, weights = keras
    network = FCN8(12, separable=True)
    layers = keras_layers(network)
    assert {name.rpartition("/")[0] for name in weights} == set(layers)
    state = convert_keras(weights, network, layers)
    mixing = weights["conv3_2/pointwise_kernel:0"][0, 0].T
    np.testing.assert_array_equal(state["encoder.features.17.pointwise.weight"][..., 0, 0], mixing)
    np.testing.assert_array_equal(state["fc.1.0.pointwise.bias"], weights["fc2/bias:0"])


def test_plain_convolutions_have_the_same_layers_in_keras(keras):
    _, weights = keras
    with torch.device("meta"):
        network = FCN8(12)
    assert {name.rpartition("/")[0] for name in weights} == set(keras_layers(network))
    assert keras_layers(network)["conv5_3"] == "encoder.features.40"


def test_keras_compatible_is_what_differs():
    exact, mended = FCN8(5, **SMALL, dropout=0.9, keras_compatible=True), FCN8(5, **SMALL, dropout=0.9)
    assert batch_norm_constants(exact) == {(1e-3, 0.01)}
    assert batch_norm_constants(mended) == {(1e-5, 0.1)}
    assert dropout_rates(exact) == pytest.approx([0.1, 0.1])
    assert dropout_rates(mended) == [0.9, 0.9]
    assert (exact.upscore8, mended.upscore8) == (enlarge_nearest, enlarge_bilinear)


def dropout_rates(network):
    return [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]


def test_keras_compatible_cuts_out_the_middle():
    """Of three repeated scores, 24 pixels, 19 stay: two are cut on the left and three on the right."""
    scores = torch.tensor([1.0, 2.0, 3.0]).expand(1, 1, 3, 3)
    row = enlarge_nearest(scores, torch.zeros(1, 3, 17, 19))[0, 0, 0]
    assert row.tolist() == [1.0] * 6 + [2.0] * 8 + [3.0] * 5
    column = enlarge_nearest(scores.mT, torch.zeros(1, 3, 17, 19))[0, 0, :, 0]
    assert column.tolist() == [1.0] * 5 + [2.0] * 8 + [3.0] * 4


def test_scores_keep_their_place_by_default():
    scores = torch.tensor([0.0, 8.0, 16.0]).expand(1, 1, 3, 3)
    row = enlarge_bilinear(scores, torch.zeros(1, 3, 17, 19))[0, 0, 0]
    torch.testing.assert_close(row[4:], torch.arange(0.5, 15))  # pixel x lies at x + 0.5, the first score at 4


@torch.no_grad()
def test_learned_enlargements_start_bilinear():
    network, scores = FCN8(5, **SMALL), images(1, 5, 4, 6)
    smooth = F.interpolate(scores, scale_factor=2, mode="bilinear")
    for layer in (network.upscore32, network.upscore16):
        torch.testing.assert_close(layer(scores)[..., 1:-1, 1:-1], smooth[..., 1:-1, 1:-1])
    assert FCN8(5, **SMALL, keras_compatible=True).upscore32.weight.count_nonzero() == 5 * 5 * 16


@torch.no_grad()
def test_dropout_in_training_only():
    network, features = FCN8(5, **SMALL, dropout=0.3), images(1, 512, 40, 40)
    torch.manual_seed(0)
    for layer, channels in zip(network.fc, (512, 64), strict=True):
        kept = layer.eval()(features[:, :channels])
        dropped = layer.train()(features[:, :channels])
        survives = dropped[kept > 0] > 0
        assert survives.float().mean() == pytest.approx(0.7, abs=0.02)
        torch.testing.assert_close(dropped[dropped > 0], (kept / 0.7)[dropped > 0])


@torch.no_grad()
def test_no_dropout_at_zero():
    network, features = FCN8(5, **SMALL, dropout=0).train(), images(1, 512, 4, 4)
    assert torch.equal(network.fc(features), network.fc(features))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_batch_norm_and_fc_channels(batch_norm):
    network = FCN8(5, separable=True, fc_channels=24, batch_norm=batch_norm)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 13 * batch_norm
    assert network.fc(images(1, 512, 2, 3)).shape == (1, 24, 2, 3)


@torch.no_grad()
def test_sizes_are_rounded_up_inside():
    features, _ = FCN8(5, **SMALL).eval().encoder(images(1, 3, 72, 104))
    assert [tuple(f.shape[1:]) for f in features[2:]] == [(256, 9, 13), (512, 5, 7), (512, 3, 4)]


# Weights of torchvision


@pytest.fixture(scope="module", params=["vgg16", "vgg16_bn"])
def vgg(request):
    """Torchvision's network with weights and statistics of its own, but for the classifier, which is large."""
    with torch.device("meta"):
        network = torchvision.models.get_model(request.param, weights=None)
    features = network.features.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(3)
    for value in features.state_dict().values():
        if value.ndim == 4:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.fill_(7)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    return request.param, features, state | {"classifier.0.weight": torch.zeros(1), "classifier.0.bias": torch.zeros(1)}


@torch.no_grad()
def test_weights_of_torchvision_are_loaded_exactly(vgg, tmp_path):
    name, features, state = vgg
    torch.save(state, tmp_path / "vgg.pth")
    arguments = {"batch_norm": name == "vgg16_bn", "fc_channels": 8}
    encoder = FCN8(5, **arguments, pretrained=str(tmp_path / "vgg.pth")).encoder.eval()
    actual = encoder.state_dict()
    assert actual.keys() == {key for key in state if not key.startswith("classifier.")}
    assert all(torch.equal(actual[key], state[key]) for key in actual)
    x = images(1, 3, 64, 96)
    torch.testing.assert_close(encoder(x)[0][-1], features(x))
    with pytest.raises(ValueError, match="does not fit vgg16"):
        FCN8(5, **{**arguments, "batch_norm": name == "vgg16"}, pretrained=str(tmp_path / "vgg.pth"))


def test_weights_by_name_come_from_torchvision(vgg, monkeypatch):
    name, features, state = vgg
    urls = []
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: urls.append(url) or state)
    network = FCN8(5, 4, batch_norm=name == "vgg16_bn", fc_channels=8, pretrained="DEFAULT")
    assert urls == [torchvision.models.get_model_weights(name).DEFAULT.url]
    first = network.encoder.features[0].weight
    assert torch.equal(first[:, :3], features[0].weight)
    assert not first[:, 3].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"separable": True, "pretrained": "DEFAULT"}, "separable=true.*set pretrained=null, or separable=false"),
        ({"keras_compatible": True, "pretrained": "DEFAULT"}, "keras_compatible=true excludes.*set pretrained=null"),
        ({"dropout": 1.0}, r"dropout must be a probability in \[0, 1\), not 1.0"),
        ({"dropout": -0.1}, r"dropout must be a probability in \[0, 1\), not -0.1"),
        ({"dropout": 0.0, "keras_compatible": True}, r"dropout must be the probability to keep .* in \(0, 1\]"),
        ({"fc_channels": 0}, "fc_channels must be at least 1.*not 0"),
        ({"pretrained": "IMAGENET1K_V7"}, "unknown weights of vgg16_bn 'IMAGENET1K_V7'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        FCN8(5, **arguments)
