"""Group parameters for the optimizer, and compute learning-rate schedules.

A schedule returns the factor on the optimizer's learning rate at a step. It depends on the step's number alone, so a
resumed run continues exactly where it stopped.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from segtrain.errors import UserError


def find_encoder(network: nn.Module, key: str) -> nn.Module:
    """Return a network's module named encoder; UserError, which names the key that needs it, if there is none."""
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UserError(f"{key} needs to know the encoder of the network, but {type(network).__name__} has no module "
                        f"named encoder: leave out {key}, or name that part of your class encoder.")
    return encoder


def group_parameters(
    network: nn.Module, *, freeze_encoder: bool, encoder_lr: float | None, decay_kernels_only: bool
) -> list[Any]:
    """Return the parameters to train, in groups if they need several, as the first argument of an optimizer.

    Groups with the optimizer's own learning rate come first.

    Args:
        network: With a module named encoder, if `freeze_encoder` or `encoder_lr` is used.
        freeze_encoder: Leave out the encoder's parameters.
        encoder_lr: The encoder's learning rate; None: the optimizer's.
        decay_kernels_only: Put parameters of one dimension (biases, scales and shifts of normalisations, slopes of
            PReLU) into groups without weight decay.

    Raises:
        UserError: If an option needs an encoder and the network has none, or nothing is left to train.
    """
    key = "train.freeze_encoder" if freeze_encoder else "train.encoder_lr" if encoder_lr is not None else None
    encoder = set(find_encoder(network, key).parameters()) if key else set()
    trained = [parameter for parameter in network.parameters()
               if parameter.requires_grad and not (freeze_encoder and parameter in encoder)]
    if not trained:
        raise UserError(f"{type(network).__name__} has no parameter to train"
                        f"{' outside its encoder: leave out train.freeze_encoder' if freeze_encoder else ''}.")
    if encoder_lr is None and not decay_kernels_only:
        return trained
    groups = []
    for in_encoder, decays in ((False, True), (False, False), (True, True), (True, False)):
        members = [parameter for parameter in trained if (parameter in encoder) == in_encoder
                   and (parameter.ndim > 1 or not decay_kernels_only) == decays]
        if members:
            groups.append({"params": members, **({"lr": encoder_lr} if in_encoder else {}),
                           **({} if decays else {"weight_decay": 0.0})})
    return groups


Schedule = Callable[[int], float]


def constant(*, total_steps: int, steps_per_epoch: int, warmup_epochs: float = 0.0) -> Schedule:
    """Keep the learning rate constant, after an optional linear warm-up.

    Args:
        total_steps: Optimizer steps of the run.
        steps_per_epoch: Optimizer steps of an epoch.
        warmup_epochs: Epochs, or fractions, of linear rise from 0 to the full learning rate.
    """
    return _with_warmup(lambda _: 1.0, steps_per_epoch, warmup_epochs)


def step(*, total_steps: int, steps_per_epoch: int, every_epochs: float, gamma: float = 0.1,
         warmup_epochs: float = 0.0) -> Schedule:
    """Multiply the learning rate by gamma every `every_epochs`, to the nearest step."""
    if every_epochs <= 0:
        raise ValueError(f"every_epochs={every_epochs} must be above 0")
    if gamma <= 0:
        raise ValueError(f"gamma={gamma} must be above 0")
    every_steps = max(1, round(every_epochs * steps_per_epoch))
    return _with_warmup(lambda n: gamma ** (n // every_steps), steps_per_epoch, warmup_epochs)


def poly(*, total_steps: int, steps_per_epoch: int, power: float = 0.9, warmup_epochs: float = 0.0) -> Schedule:
    """Decay the learning rate as (1 - n / total_steps) ** power (Chen et al., DeepLab, 2017)."""
    if power < 0:
        raise ValueError(f"power={power} must be at least 0")
    return _with_warmup(lambda n: max(0.0, 1 - n / total_steps) ** power, steps_per_epoch, warmup_epochs)


def cosine(*, total_steps: int, steps_per_epoch: int, min_factor: float = 0.0,
           warmup_epochs: float = 0.0) -> Schedule:
    """Decay the learning rate along half a cosine to `min_factor` times it (Loshchilov and Hutter, SGDR, 2017)."""
    if not 0 <= min_factor <= 1:
        raise ValueError(f"min_factor={min_factor} must be from 0 to 1")
    return _with_warmup(
        lambda n: min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, n / total_steps))),
        steps_per_epoch, warmup_epochs)


def _with_warmup(schedule: Schedule, steps_per_epoch: int, warmup_epochs: float) -> Schedule:
    """Multiply a schedule by a linear warm-up whose first step is above 0."""
    if warmup_epochs < 0:
        raise ValueError(f"warmup_epochs={warmup_epochs} must be at least 0")
    warmup_steps = warmup_epochs * steps_per_epoch
    return lambda n: schedule(n) * (min(1.0, (n + 1) / warmup_steps) if warmup_steps else 1.0)
