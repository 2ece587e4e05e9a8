"""Weights that the authors of a network, or others, have published: their names, turned into those here.

Many parameters keep their published names. Where they do not, the file of a network has a dictionary RENAMED: what a
name must match, a regular expression, and what takes its place, applied in order; None drops a weight that no output
depends on.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.errors import list_first

Renamed = Mapping[str, str | Callable[[re.Match[str]], str] | None]
PARTS = {"_mean": "running_mean", "_variance": "running_var", "_batch_norm": "bn", "_conv": "conv"}  # Paddle's
WRAPPERS = ("module.", "model.", "state_dict.")  # prefixes that trainers put in front of all names


def convert_original(weights: Mapping[str, Any], network: nn.Module, renamed: Renamed) -> dict[str, Tensor]:
    """Turn published weights into a state dict.

    Args:
        weights: Arrays by their published names, in torch's layout.
        network: The same network here; its auxiliary heads keep what they have if the weights lack them.
        renamed: RENAMED of its file.

    Returns:
        The network's whole state dict.

    Raises:
        ValueError: If a name is unknown, a weight is missing, or a shape differs; the first five are named.
    """
    own = network.state_dict()
    found: dict[str, Tensor] = {}
    unknown, differing = [], []
    for name, value in weights.items():
        key = rename_original(name, renamed)
        if not key or key.endswith("num_batches_tracked") or (key.startswith("aux.") and key not in own):
            continue
        if key not in own:
            unknown.append(name)
            continue
        found[key] = torch.as_tensor(value, dtype=own[key].dtype)
        if found[key].shape != own[key].shape:
            differing.append(f"{name} {tuple(found[key].shape)} instead of {tuple(own[key].shape)}")
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")
               and not key.startswith("aux.")]
    check_complete(unknown, missing, differing)
    return {**own, **found}


def rename_original(name: str, renamed: Renamed) -> str:
    """Return the name here of a published weight; "" if it is left out."""
    for prefix in WRAPPERS:
        name = name.removeprefix(prefix)
    name = ".".join(PARTS.get(part, part) for part in name.split("."))
    for pattern, replacement in renamed.items():
        if replacement is not None:
            name = re.sub(pattern, replacement, name)
        elif re.search(pattern, name):
            return ""
    return name


def check_complete(unknown: list[str], missing: list[str], differing: list[str]) -> None:
    """Raise ValueError if weights are those of another network."""
    problems = {"unknown": unknown, "missing": missing, "of another shape": differing}
    if any(problems.values()):
        raise ValueError("the weights are of another network: " + "; ".join(
            f"{what}: {list_first(names)}" for what, names in problems.items() if names))
