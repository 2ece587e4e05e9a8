"""One optimizer step: forward, loss, backward, clip, update, EMA."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from segtrain.data.loading import Batch
from segtrain.distributed import ddp, process_group
from segtrain.inference.forward import autocast
from segtrain.losses import Loss, mean_loss


@dataclass
class Step:
    """The outcome of one optimizer step; tensors stay on the device, so that nothing waits for it.

    An fp16 gradient that overflows because of its scale counts as finite: the gradient scaler skips that update and
    halves the scale.
    """

    loss: Tensor  # float32 scalar, detached
    loss_sums: Tensor  # float32 (T,), the T terms of the loss before they are divided, detached
    normalizers: Tensor  # float32 (T,), what they are divided by
    lr: float
    num_images: int  # of all processes
    indices: list[int]  # of this process's images in the dataset
    gradient_norm: Tensor | None  # float32 scalar, of the whole gradient before it is clipped; None unless asked for
    is_finite: Tensor  # bool scalar, whether loss and gradient are finite
    pixels: np.ndarray | None = None  # of each value of this process's targets, int64 (256,)
    skipped: bool = False  # whether weights were left as they are because they are not


def train_step(
    model: nn.Module,
    batches: Sequence[Batch],
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    normalize: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    precision: str = "fp32",
    scaler: torch.amp.GradScaler | None = None,
    clip_norm: float | None = None,
    measures_norm: bool = False,
    ema: nn.Module | None = None,
    ema_decay: float | None = None,
    teacher: Callable[[Tensor], Tensor] | None = None,
    allows_update: Callable[[Step], bool] = lambda step: True,
) -> Step:
    """Make one optimizer step on one or more batches.

    The loss is summed over all pixels and divided by all valid (weighted) pixels of the step, over accumulated batches
    and processes: two batches of 4 give the gradient of one batch of 8, whatever share of them is void.

    Args:
        model: In training mode, on the device; with several processes, wrapped by `ddp.wrap`.
        batches: Accumulated into one gradient.
        loss_fn: Of what the model returns, on the device.
        optimizer: Of the model's parameters.
        scheduler: Advanced once.
        normalize: uint8 (N, H, W, C) on the device -> float32 (N, C, H, W).
        device: Where the model is.
        precision: "fp32", "bf16" or "fp16" (autocast).
        scaler: For fp16.
        clip_norm: Largest norm of the whole gradient.
        measures_norm: Compute that norm, which takes a pass over the gradient.
        ema: A copy of the unwrapped model that follows it with `ema_decay`.
        ema_decay: See `update_ema`.
        teacher: Turns the images into logits to learn from; `loss_fn` is then a `DistillationLoss`.
        allows_update: Called before anything but BatchNorm's statistics has changed; where it returns False, only the
            schedule moves on. What it raises ends the step.

    Raises:
        UserError: With several processes, if a parameter has no gradient.
    """
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    parts = [(batch.images.to(device, non_blocking=True), batch.targets.to(device, non_blocking=True))
             for batch in batches]
    normalizers = process_group.summed(torch.stack([loss_fn.normalizer(targets) for _, targets in parts]).sum(0))
    lr, num_processes = optimizer.param_groups[0]["lr"], process_group.world_size()

    optimizer.zero_grad(set_to_none=True)
    sums = []
    for number, (images, targets) in enumerate(parts, 1):
        with ddp.gradients_held(model, is_last=number == len(parts)):
            with autocast(device, precision):
                output = model(normalize(images))  # logits, or a mapping of them and those of auxiliary heads
                if teacher is not None:
                    output = {"student": output, "teacher": teacher(images)}
            loss_sums = loss_fn(output, targets)
            # DDP averages gradients over processes, but those of a sum add up
            scaler.scale(mean_loss(loss_sums, normalizers) * num_processes).backward()
        sums.append(loss_sums.detach())
    ddp.check_gradients(model)

    loss_sums = process_group.summed(torch.stack(sums).sum(0))
    loss = mean_loss(loss_sums, normalizers)
    gradient_norm = _measure_norm(model, scaler) if measures_norm else None
    norm = _clip_gradient(model, optimizer, scaler, clip_norm)
    is_scaled = scaler.scale(torch.ones((), device=device)) > 1
    step = Step(loss, loss_sums, normalizers, lr, sum(len(batch.indices) for batch in batches) * num_processes,
                [index for batch in batches for index in batch.indices],
                gradient_norm, is_finite=loss.isfinite() & (norm.isfinite() | is_scaled), pixels=_count_pixels(batches))
    if allows_update(step):
        scaler.step(optimizer)
        if ema is not None and ema_decay is not None:
            update_ema(ema, model, ema_decay)
    else:
        step.skipped = True
        if scaler.is_enabled() and clip_norm is None:
            scaler.unscale_(optimizer)  # finds what is not finite, which update() wants to know
    scaler.update()
    with warnings.catch_warnings():  # torch warns where the very first update is skipped
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        scheduler.step()
    return step


def accumulated(batches: Iterable[Batch], accumulate: int) -> Iterator[tuple[list[Batch], float]]:
    """Yield the batches of each step, `accumulate` of them or what is left at the end, and the seconds waited."""
    source = iter(batches)
    while True:
        started = perf_counter()
        group = list(islice(source, accumulate))
        if not group:
            return
        yield group, perf_counter() - started


def _count_pixels(batches: Sequence[Batch]) -> np.ndarray | None:
    counts = [batch.pixels for batch in batches if batch.pixels is not None]
    return np.sum(counts, axis=0) if counts else None


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an EMA of a model, a copy of it, towards it by 1 - decay: parameters and BatchNorm's statistics."""
    pairs = list(zip(ema.state_dict().values(), model.state_dict().values(), strict=True))
    torch._foreach_lerp_([old for old, _ in pairs if old.is_floating_point()],
                         [new for old, new in pairs if old.is_floating_point()], 1 - decay)
    for old, new in pairs:
        if not old.is_floating_point():  # BatchNorm's count of batches
            old.copy_(new)


def _measure_norm(model: nn.Module, scaler: torch.amp.GradScaler) -> Tensor:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients) / scaler.scale(torch.ones((), device=gradients[0].device))


def _clip_gradient(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
                   clip_norm: float | None) -> Tensor:
    """Clip the gradient if asked to, and return a norm of it that is finite exactly if the gradient is."""
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        return nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, math.inf)  # unlike a sum of squares it cannot overflow by itself
