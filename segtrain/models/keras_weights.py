"""Weights of Keras networks: their names and layouts, turned into those of a network here.

The file of a network that exists in Keras too has a function `keras_layers`, which maps the original's layer names to
the modules of the network here.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.errors import list_first

# What Keras calls a weight -> (the part of a separable convolution, the name here)
WEIGHTS = {
    "kernel": ("", "weight"),
    "depthwise_kernel": ("depthwise", "weight"),
    "pointwise_kernel": ("pointwise", "weight"),
    "bias": ("", "bias"),
    "gamma": ("", "weight"),
    "beta": ("", "bias"),
    "moving_mean": ("", "running_mean"),
    "moving_variance": ("", "running_var"),
}


def convert_keras(weights: Mapping[str, Any], network: nn.Module, layers: Mapping[str, str]) -> dict[str, Tensor]:
    """Turn the weights of a Keras network into a state dict.

    Names may carry a model's name in front and ":0" behind. Layers that Keras named itself (conv2d_7) are counted
    anew from the lowest number, for the numbers go on over all models of a session.

    Args:
        weights: By Keras's names, such as "conv1_1/kernel:0"; arrays, float, convolutions (height, width, in, out),
            transposed ones (height, width, out, in), depthwise ones (height, width, channels, 1).
        network: The same network here.
        layers: Keras layer -> module of the network, such as {"conv1_1": "encoder.0"}.

    Returns:
        The network's whole state dict, with every weight from the file.

    Raises:
        ValueError: If a name is unknown, a weight is missing, or a shape differs; the first five are named.
    """
    own = network.state_dict()
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    differing: list[str] = []
    for name, value in _renumbered(weights, layers).items():
        key = _key(name, network, layers)
        if key not in own:
            unknown.append(name)
            continue
        tensor = torch.as_tensor(value, dtype=own[key].dtype)
        if tensor.ndim == 4:
            # A transposed convolution stores (.., out, in) there and (in, out, ..) here: the same order again.
            tensor = tensor.permute(2, 3, 0, 1) if "depthwise_kernel" in name else tensor.permute(3, 2, 0, 1)
        if tensor.shape != own[key].shape:
            differing.append(f"{name} {tuple(tensor.shape)} instead of {tuple(own[key].shape)}")
        found[key] = tensor.contiguous()
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    problems = {"unknown": unknown, "missing": missing, "of another shape": differing}
    if any(problems.values()):
        raise ValueError("the weights are of another network: " + "; ".join(
            f"{what}: {list_first(names)}" for what, names in problems.items() if names))
    return {**own, **found}


def _key(name: str, network: nn.Module, layers: Mapping[str, str]) -> str:
    """Return the state-dict key of a Keras weight, "" if there is none."""
    layer, _, weight = name.rpartition("/")
    while layer not in layers and "/" in layer:
        layer = layer.partition("/")[2]  # the name of the model that holds it
    if layer not in layers or weight not in WEIGHTS:
        return ""
    part, own_name = WEIGHTS[weight]
    module = layers[layer]
    if weight == "bias":
        part = "pointwise"
    if not hasattr(network.get_submodule(module), part):
        part = ""  # not a separable convolution, but a plain or a depthwise one
    return ".".join(name for name in (module, part, own_name) if name)


def _renumbered(weights: Mapping[str, Any], layers: Mapping[str, str]) -> dict[str, Any]:
    """Drop ":0", and count the layers that Keras named itself from 0, which has no number."""
    kinds = {re.sub(r"_\d+$", "", layer) for layer in layers} & {"conv2d", "conv2d_transpose", "batch_normalization"}
    split = {name: re.fullmatch(r"(.*?/)??(\w+?)(?:_(\d+))?(/\w+?)(?::0)?", name) for name in weights}
    lowest: dict[str, int] = {}
    for match in split.values():
        if match and match[2] in kinds:
            number = int(match[3] or 0)
            lowest[match[2]] = min(number, lowest.get(match[2], number))
    renamed: dict[str, Any] = {}
    for name, match in split.items():
        plain = name.removesuffix(":0")
        if match and match[2] in kinds:
            number = int(match[3] or 0) - lowest[match[2]]
            plain = f"{match[1] or ''}{match[2]}{f'_{number}' if number else ''}{match[4]}"
        renamed[plain] = weights[name]
    return renamed
