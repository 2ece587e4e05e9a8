"""The pre-activation LinkNet against its Keras original, and what it promises beyond the tests of all networks."""

import numpy as np
import pytest
import torch
from keras_records import batch_norm_constants, load_record, relative_error
from torch import nn

from segtrain.models.keras_weights import convert_keras
from segtrain.models.linknet_preact import LinkNetPreact, keras_layers


@pytest.fixture(scope="module")
def keras():
    return load_record("linknet_preact")


def test_logits_are_those_of_the_keras_network(keras):
    record, weights = keras
    network = LinkNetPreact(12, keras_compatible=True)
    network.load_state_dict(convert_keras(weights, network, keras_layers(network)))
    assert relative_error(network, record) <= 1e-4


def test_every_weight_of_keras_lands_where_it_belongs(keras):
    """Also in a default network, whose parameters are the same, and whatever number Keras began to count with."""
    _, weights = keras
    network = LinkNetPreact(12)
    layers = keras_layers(network)
    assert {name.rpartition("/")[0] for name in weights} == set(layers)
    state = convert_keras(weights, network, layers)
    shortcut = weights["conv2d_8/kernel:0"][0, 0].T
    np.testing.assert_array_equal(state["encoder.1.0.shortcut.weight"][..., 0, 0], shortcut)
    variance = weights["batch_normalization_17/moving_variance:0"]
    np.testing.assert_array_equal(state["decoder.0.0.0.running_var"], variance)


def test_keras_compatible_is_what_differs():
    exact, mended = LinkNetPreact(5, keras_compatible=True), LinkNetPreact(5)
    assert batch_norm_constants(exact) == {(1e-3, 0.01)}
    assert batch_norm_constants(mended) == {(1e-5, 0.1)}
    assert [isinstance(network.stem[1], nn.ReLU) for network in (exact, mended)] == [True, False]


@torch.no_grad()
def test_what_is_darker_than_the_mean_counts_unless_keras_compatible():
    dark = -torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for keras_compatible in (True, False):
        torch.manual_seed(0)
        network = LinkNetPreact(5, keras_compatible=keras_compatible).eval()
        assert torch.allclose(network(dark), network(2 * dark)) == keras_compatible


@torch.no_grad()
def test_shapes_inside():
    network, x = LinkNetPreact(5).eval(), torch.zeros(1, 3, 64, 128)
    shapes = [tuple((x := network.stem(x)).shape[1:])]
    shapes += [tuple((x := stage(x)).shape[1:]) for stage in network.encoder]
    assert shapes == [(64, 15, 31), (64, 8, 16), (128, 4, 8), (256, 2, 4), (512, 1, 2)]
    shapes = [tuple((x := block(x)).shape[1:]) for block in network.decoder]
    assert shapes == [(256, 2, 4), (128, 4, 8), (64, 8, 16), (64, 16, 32)]


def test_features_at_stride_8_are_centred_on_their_cells():
    """The path of the shortcut: a cell sees pixels around its own eight, half a pixel from the middle."""
    network = LinkNetPreact(1).eval()
    image = torch.ones(1, 3, 64, 64, requires_grad=True)
    stem = nn.Sequential(network.stem[0], network.stem[2], nn.AvgPool2d(3, stride=2, padding=1))  # a max has one path
    network.encoder[0][0].shortcut(stem(image))[0, :, 4, 4].abs().sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min() + rows.max()) / 2 == 8 * 4 + 3
