"""What a config out of a checkpoint or a run directory may build: a file of others is not trusted."""

from collections.abc import Iterable
from typing import Any

import albumentations
import torch
from torch import nn

from segtrain import losses
from segtrain.config import override_key, to_container
from segtrain.datasets.base import Reader
from segtrain.errors import UserError
from segtrain.instantiate import is_trusted, targets

# What it may name: defined in these packages, and of this kind; None is a function.
TRUSTED = {
    "model": (("segtrain.models", "torchvision.models"), nn.Module),
    "optim": (("torch.optim",), torch.optim.Optimizer),
    "scheduler": (("segtrain.schedules",), None),
    "loss": (("segtrain.losses",), losses.Loss),
    "dataset": (("segtrain.datasets",), Reader),
    "augmentation": (("albumentations",), albumentations.BasicTransform),
}


def check_trust(cfg: Any, overrides: Iterable[str], trusted: Iterable[str]) -> None:
    """Check that a config out of a checkpoint or a run directory names only what it may build, and fetches nothing.

    Args:
        cfg: The config. Its dataset.download is set to false unless the command line says otherwise: where data are
            written is not for a file to choose.
        overrides: The command line's overrides; what is chosen there is the user's own and not checked.
        trusted: The user's own packages (runtime.trusted on the command line).

    Raises:
        UserError: Names the key and the option that allows it. Nothing outside the trusted packages was imported.
    """
    chosen = tuple(f"{override_key(override)}." for override in overrides)
    container = to_container(cfg)
    for group, (packages, kind) in TRUSTED.items():
        for key, path in targets(container.get(group), group):
            if f"{key}._target_.".startswith(chosen) or is_trusted(path, key, packages, kind, trusted):
                continue
            raise UserError(
                f"{key}._target_={path} in the saved configuration is not among what may be built from a file "
                f"({', '.join(packages)}): if it is your own code, pass runtime.trusted=[{path.split('.')[0]}].")
    data = container.get("dataset")
    if isinstance(data, dict) and data.get("download") and not "dataset.download.".startswith(chosen):
        cfg.dataset.download = False
