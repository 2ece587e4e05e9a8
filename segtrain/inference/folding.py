"""Fold BatchNorm into the convolutions before it: the same function with one pass less over every map."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-3  # of the largest logit; rounding stays below 1e-5, and a wrong pair changes much more


@torch.inference_mode()
def fold_batchnorm(network: nn.Module, probe: Tensor) -> nn.Module:
    """Return a copy of a network in evaluation mode whose BatchNorms are part of the convolutions that feed them.

    The pairs are found in a forward pass: what a BatchNorm takes must be what a convolution returned, each of them
    called once. That nothing else reads what the convolution returned is checked by a second pass: where the copy
    computes something else, the network is returned as it is.

    Args:
        network: Takes `probe`; not changed.
        probe: A batch of network input, float32 (N, C, H, W), on the network's device.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        copied = copy.deepcopy(network)
    except (RuntimeError, TypeError):  # a user's network may hold what cannot be copied
        return network
    expected, pairs = _find_pairs(copied, probe)
    if not pairs:
        return network
    for name, (conv, norm) in pairs.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                                            norm.weight, norm.bias, transpose=isinstance(conv, nn.ConvTranspose2d))
        conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
        parent, _, child = name.rpartition(".")
        setattr(copied.get_submodule(parent), child, nn.Identity())
    logits = copied(probe)
    is_same = (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()  # not so if anything is NaN
    return copied if is_same else network


def _find_pairs(network: nn.Module, probe: Tensor) -> tuple[Tensor, dict[str, tuple[Any, nn.BatchNorm2d]]]:
    """Return the logits of a forward pass, and the convolution that feeds each BatchNorm, by the BatchNorm's name."""
    calls: Counter[nn.Module] = Counter()
    returned: dict[int, tuple[nn.Module, Tensor]] = {}  # with the tensor, so that no other gets its id
    pairs: dict[str, tuple[Any, nn.BatchNorm2d]] = {}

    def after_conv(conv: nn.Module, _: Any, output: Tensor) -> None:
        calls[conv] += 1
        returned[id(output)] = conv, output

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(module.register_forward_hook(after_conv))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            def before_norm(norm: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                calls[norm] += 1
                conv = returned.get(id(args[0]), (None,))[0]
                if isinstance(conv, nn.Conv2d) or (isinstance(conv, nn.ConvTranspose2d) and conv.groups == 1):
                    assert isinstance(norm, nn.BatchNorm2d)
                    pairs[name] = conv, norm  # torch folds transposed convolutions without groups only
            hooks.append(module.register_forward_pre_hook(before_norm))
    logits = network(probe)
    for hook in hooks:
        hook.remove()
    return logits, {name: pair for name, pair in pairs.items() if calls[pair[0]] == calls[pair[1]] == 1}
