"""Folding BatchNorm into convolutions changes no logits, and is left alone where it would."""

import copy

import pytest
import torch
from torch import nn

from segtrain.inference.folding import fold_batchnorm


def with_statistics(network):
    """Give BatchNorms statistics, scales and shifts far from those they start with; evaluation mode."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2)
                nn.init.uniform_(module.bias, -2, 2)
    with torch.no_grad():
        network(torch.randn(4, 3, 16, 16))
    return network.eval()


def count_norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


class ReadTwice(nn.Module):
    """What the convolution returns is read by BatchNorm and by the sum."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x)


class Shared(nn.Module):
    """One convolution for two BatchNorms."""

    def __init__(self):
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


class Locked(nn.Sequential):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.parametrize(("make", "left"), [
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), 0),
    (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, affine=False)), 0),
    (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.Sequential(nn.BatchNorm2d(4))), 0),
    (lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), 1),
    (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), 2),
    (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)), 1),
    (ReadTwice, 1),
    (Shared, 2),
    (lambda: Locked(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 1),
], ids=["conv", "groups", "transposed", "transposed groups", "no pair", "no statistics", "read twice", "shared",
        "locked"])
def test_the_same_logits_with_so_many_norms_left(make, left):
    network, x = with_statistics(make()), torch.randn(2, 3, 20, 24)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batchnorm(network, torch.randn(1, 3, 16, 16))
    assert count_norms(folded) == left
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), network(x), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_layout_stays_and_what_is_not_finite_stays_as_it_is():
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    network = network.to(memory_format=torch.channels_last)
    assert fold_batchnorm(network, torch.randn(1, 3, 8, 8))[0].weight.is_contiguous(memory_format=torch.channels_last)
    broken = copy.deepcopy(network)
    broken[0].weight.data[0] = torch.nan
    assert fold_batchnorm(broken, torch.randn(1, 3, 8, 8)) is broken
