"""The loop itself: plain arguments in, numbers out; no config and no files."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from segtrain.data.loading import Batch
from segtrain.distributed import ddp, process_group
from segtrain.inference.forward import autocast
from segtrain.losses import Loss, mean_loss


@dataclass
class Step:
    """What one optimizer step gave; tensors stay on the device, so that nothing waits for it.

    Attributes:
        loss: float32 scalar, detached.
        loss_sums: float32 (T,), the loss's sums before they are divided, detached.
        normalizers: float32 (T,), what they are divided by.
        lr: The learning rate of the step.
        num_images: Images of the step, of all processes.
        waited: Seconds spent waiting for data.
        indices: The numbers in the dataset of this process's images.
        finite: bool scalar, whether loss and gradient are; an overflow that the scaler mends by itself counts as so.
        skipped: Whether the update was left out because they are not.
    """

    loss: Tensor
    loss_sums: Tensor
    normalizers: Tensor
    lr: float
    num_images: int
    waited: float
    indices: list[int]
    finite: Tensor
    skipped: bool = False


class NonFiniteError(ArithmeticError):
    """A loss or gradient is not finite; nothing of the step has reached weights, optimizer, schedule or BatchNorm.

    Args:
        step: The step that was not made.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(f"loss {float(step.loss)}")
        self.step = step


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_fn: Loss,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    normalize: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    precision: str = "fp32",
    scaler: torch.amp.GradScaler | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    on_nonfinite: str = "stop",
) -> Iterator[Step]:
    """Train on the batches and yield after every optimizer step, so that the caller may stop, save or report.

    The loss of a step is its sum over all pixels divided by all its valid (weighted) pixels, over every accumulated
    batch: two batches of 4 give the gradient of one batch of 8 whatever share of them is void. So do two
    processes with a batch of 4 each.

    Args:
        model: In training mode, on the device; of several processes, wrapped by `parallel.wrapped`.
        batches: Of one epoch; a last group of fewer than `accumulate` batches makes a step too.
        loss_fn: On the device.
        optimizer: Of the model's parameters.
        scheduler: Advanced after every step.
        normalize: uint8 (N, H, W, C) on the device -> float32 (N, C, H, W).
        device: Where the model is.
        precision: "fp32", "bf16" or "fp16" (autocast).
        scaler: For fp16; None otherwise.
        accumulate: Batches a step.
        clip_norm: Largest norm of the whole gradient; None leaves it.
        on_nonfinite: What becomes of a step whose loss or gradient is not finite. "stop" and "skip" look at every step
            before it changes anything, which waits for the device: the one raises, the other leaves the update out,
            BatchNorm's statistics with it, and moves the schedule on. "ignore" makes the step all the same, and
            `Step.finite` tells without waiting.

    Raises:
        NonFiniteError: With "stop".
        UserError: With several processes, if a parameter has no gradient.
    """
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    looks_first = on_nonfinite != "ignore"
    source, num_processes = iter(batches), process_group.world_size()
    while True:
        started = time.perf_counter()
        group = list(islice(source, accumulate))
        waited = time.perf_counter() - started
        if not group:
            return
        parts = [(_to(batch.images, device), _to(batch.targets, device)) for batch in group]
        normalizers = process_group.summed(torch.stack([loss_fn.normalizer(targets) for _, targets in parts]).sum(0))
        lr = optimizer.param_groups[0]["lr"]
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if looks_first else []
        optimizer.zero_grad(set_to_none=True)
        sums_of_parts = []
        for number, (images, targets) in enumerate(parts):
            with ddp.gradients_held(model, is_last=number == len(parts) - 1):
                with autocast(device, precision):
                    logits = model(normalize(images))
                sums = loss_fn(logits, targets)
                # the gradients of several processes are averaged, but those of a sum add up
                scaler.scale(mean_loss(sums, normalizers) * num_processes).backward()
            sums_of_parts.append(sums.detach())
        ddp.check_gradients(model)
        loss_sums = process_group.summed(torch.stack(sums_of_parts).sum(0))
        loss = mean_loss(loss_sums, normalizers)
        norm = _gradient_norm(model, optimizer, scaler, clip_norm)
        # A gradient that overflows only because it was scaled is the scaler's to mend: it skips the step, and halves.
        is_scaled = scaler.scale(torch.ones((), device=device)) > 1
        step = Step(loss, loss_sums, normalizers, lr, sum(len(batch.indices) for batch in group) * num_processes,
                    waited, [index for batch in group for index in batch.indices],
                    finite=loss.isfinite() & (norm.isfinite() | is_scaled))
        if looks_first and not step.finite:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            if on_nonfinite == "stop":
                raise NonFiniteError(step)
            step.skipped = True
            _skip(optimizer, scheduler, scaler, is_unscaled=clip_norm is not None)
        else:
            scaler.step(optimizer)
            scaler.update()
            _advance(scheduler)
        yield step


def _gradient_norm(model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler,
                   clip_norm: float | None) -> Tensor:
    """Return a norm of the whole gradient, which is finite if the gradient is, after clipping it if asked to."""
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        return nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, math.inf)  # unlike a sum of squares it cannot overflow by itself


def _skip(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler,
          scaler: torch.amp.GradScaler, *, is_unscaled: bool) -> None:
    """Move schedule and scaler on without an update."""
    if scaler.is_enabled():
        if not is_unscaled:
            scaler.unscale_(optimizer)  # which looks for what is not finite
        scaler.update()
    _advance(scheduler)


def _advance(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    with warnings.catch_warnings():  # which it gives where the very first update was left out
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        scheduler.step()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an averaged copy of a model towards it by 1 - decay: parameters, and BatchNorm's statistics with them."""
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    torch._foreach_lerp_([old for old, _ in pairs if old.is_floating_point()],
                         [new for old, new in pairs if old.is_floating_point()], 1 - decay)
    for old, new in pairs:
        if not old.is_floating_point():  # BatchNorm's count of batches
            old.copy_(new)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
