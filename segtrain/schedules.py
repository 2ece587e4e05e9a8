"""The course of the learning rate: each function returns the factor on the optimizer's own rate at a step.

A factor depends on the step's number alone, so a resumed run goes on exactly where it stopped.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(*, total_steps: int, steps_per_epoch: int, warmup_epochs: float = 0.0) -> Schedule:
    """Keep the rate, after an optional linear warm-up.

    Args:
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        warmup_epochs: Epochs of linear rise from 0 to the full rate.
    """
    return _with_warmup(lambda _: 1.0, steps_per_epoch, warmup_epochs)


def step(*, total_steps: int, steps_per_epoch: int, every_epochs: float, gamma: float = 0.1,
         warmup_epochs: float = 0.0) -> Schedule:
    """Multiply the rate by gamma every so many epochs (to the nearest step), counted from the start of the run."""
    if every_epochs <= 0:
        raise ValueError(f"every_epochs={every_epochs} must be above 0")
    if gamma <= 0:
        raise ValueError(f"gamma={gamma} must be above 0")
    every_steps = max(1, round(every_epochs * steps_per_epoch))
    return _with_warmup(lambda n: gamma ** (n // every_steps), steps_per_epoch, warmup_epochs)


def poly(*, total_steps: int, steps_per_epoch: int, power: float = 0.9, warmup_epochs: float = 0.0) -> Schedule:
    """Lower the rate as (1 - n / total_steps) ** power (Chen et al., DeepLab, 2017)."""
    if power < 0:
        raise ValueError(f"power={power} must be at least 0")
    return _with_warmup(lambda n: max(0.0, 1 - n / total_steps) ** power, steps_per_epoch, warmup_epochs)


def cosine(*, total_steps: int, steps_per_epoch: int, min_factor: float = 0.0,
           warmup_epochs: float = 0.0) -> Schedule:
    """Lower the rate along half a cosine to min_factor times it (Loshchilov and Hutter, SGDR, 2017)."""
    if not 0 <= min_factor <= 1:
        raise ValueError(f"min_factor={min_factor} must be from 0 to 1")
    return _with_warmup(
        lambda n: min_factor + (1 - min_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, n / total_steps))),
        steps_per_epoch, warmup_epochs)


def _with_warmup(schedule: Schedule, steps_per_epoch: int, warmup_epochs: float) -> Schedule:
    """Multiply a schedule by a ramp whose first step is already above 0."""
    if warmup_epochs < 0:
        raise ValueError(f"warmup_epochs={warmup_epochs} must be at least 0")
    warmup_steps = warmup_epochs * steps_per_epoch
    return lambda n: schedule(n) * (min(1.0, (n + 1) / warmup_steps) if warmup_steps else 1.0)
