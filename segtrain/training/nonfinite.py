"""Train one epoch: read its losses, save in between, and deal with those that are not finite."""

import copy
import logging
import math
import time

import torch
from torch import nn
from tqdm import tqdm

from segtrain.distributed import ddp, process_group
from segtrain.errors import UserError
from segtrain.optim import encoder_of
from segtrain.run import checkpoint
from segtrain.training import state
from segtrain.training.signals import StopRequest
from segtrain.training.state import Training
from segtrain.training.step import NonFiniteError, Step, train_one_epoch, update_average

log = logging.getLogger(__name__)

READ_EVERY = 50  # steps on a GPU, where reading a loss waits for the device
MOST_SKIPPED = 10  # in a row: weights that give nothing but NaN do not mend themselves


def train_epoch(training: Training, step_network: nn.Module, request: StopRequest) -> None:
    """Train on what is left of the running epoch.

    On a CPU every loss and gradient is looked at before it changes anything. On a GPU that would wait for the device
    in every step. There they are read every READ_EVERY steps; if one was not finite, the steps since the last reading
    are made once more, looked at one by one, from a copy of the state that is kept on the device.

    Raises:
        Stopped: After the step in which a signal came.
        UserError: If a loss or gradient is not finite; the state before it is saved.
    """
    cfg = training.cfg
    training.network.train()
    if cfg.train.freeze_encoder:
        encoder_of(training.network, "train.freeze_encoder").eval()  # BatchNorm's statistics stay, and nothing drops
    with tqdm(total=training.steps_per_epoch, desc=f"epoch {training.progress.epoch + 1}/{cfg.train.epochs}",
              unit="step", leave=False, disable=None if process_group.is_main() else True) as bar:
        look_until = training.total_steps if _looks_first(training) else 0
        while not _is_over(training, request):
            bad_step = _train_on(training, step_network, request, bar, look_until=look_until)
            if bad_step is not None:
                look_until = bad_step
    training.progress.trained = process_group.broadcast(training.progress.trained)
    request.check()


def _looks_first(training: Training) -> bool:
    """Say whether looking at a loss costs nothing, since nothing runs beside this process."""
    return training.device.type == "cpu"


def _is_over(training: Training, request: StopRequest) -> bool:
    progress = training.progress
    return (request.is_agreed or progress.done >= training.steps_per_epoch
            or progress.step >= training.total_steps)


def _train_on(training: Training, step_network: nn.Module, request: StopRequest, bar: tqdm, *,
              look_until: int) -> int | None:
    """Train until the epoch is over, or step look_until, up to which every step is looked at before it is made.

    Returns:
        The number of a step that was not finite, with the state of some steps before it back in place; None if every
        step made so far was.
    """
    cfg, progress = training.cfg, training.progress
    looks_first = progress.step < look_until
    steps = iter(train_one_epoch(
        step_network, training.loader.batches(progress.epoch, progress.images), training.loss_fn,
        training.optimizer, training.scheduler, training.normalize, device=training.device,
        precision=cfg.runtime.precision, scaler=training.scaler, accumulate=cfg.train.accumulate,
        clip_norm=cfg.train.clip_norm, on_nonfinite=cfg.train.on_nonfinite if looks_first else "ignore"))
    kept = None if looks_first else copy.deepcopy(state.state(training))
    started, trained = time.monotonic(), progress.trained
    unread: list[Step] = []
    while not _is_over(training, request) and not (looks_first and progress.step >= look_until):
        random_state = checkpoint.random_state() if looks_first else None
        ddp.reseed(cfg.seed, progress.step)
        try:
            step = next(steps, None)
        except NonFiniteError as fault:
            assert random_state is not None
            checkpoint.restore_random_state(random_state)  # the step may have drawn, for dropout
            raise _fault(training, fault.step) from fault
        if step is None:
            break
        progress.step += 1
        progress.done += 1
        bar.n = progress.done
        bar.update(0)
        if training.average is not None and cfg.train.ema_decay is not None and not step.skipped:
            update_average(training.average, training.network, cfg.train.ema_decay)
        unread.append(step)
        is_save_due = state.is_due(training)
        must_read = looks_first or len(unread) >= READ_EVERY or is_save_due
        bad_step = _read(training, unread) if must_read else None
        if bad_step is None:
            request.is_made()  # all processes ask, once a step
            if unread and _is_over(training, request):
                bad_step = _read(training, unread)
        if bad_step is not None:
            assert kept is not None
            state.put_back(training, kept)
            return bad_step
        if unread:
            continue
        progress.trained = trained + time.monotonic() - started
        if is_save_due:
            state.save_last(training)
        if not looks_first:
            kept = copy.deepcopy(state.state(training))
    return None


def _read(training: Training, steps: list[Step]) -> int | None:
    """Add the steps' losses to the running epoch and empty the list.

    Returns:
        The number of the first step that should not have been made, for it was not finite.
    """
    progress = training.progress
    first = progress.step - len(steps) + 1
    values = torch.stack([torch.stack([step.finite.float(), *step.loss_sums, *step.normalizers]) for step in steps])
    for number, (step, (finite, *parts)) in enumerate(zip(steps, values.tolist(), strict=True), first):
        if step.skipped:
            _count_skipped(training, step, number)
        elif not finite:
            return number
        else:
            half = len(parts) // 2
            progress.skipped_in_a_row = 0
            progress.loss_sums = _added(progress.loss_sums, parts[:half])
            progress.normalizers = _added(progress.normalizers, parts[half:])
        progress.images += step.num_images
        progress.waited += step.waited
    steps.clear()
    return None


def _added(totals: list[float], values: list[float]) -> list[float]:
    return [total + value for total, value in zip(totals or [0.0] * len(values), values, strict=True)]


# ---- losses and gradients that are not finite


def _count_skipped(training: Training, step: Step, number: int) -> None:
    """Report a skipped step.

    Raises:
        UserError: If too many came one after the other; the state is saved.
    """
    progress = training.progress
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    log.warning("warning: step %d is skipped: %s (learning rate %g, files %s)", number, _what(step), step.lr,
                _files(training, step))
    if progress.skipped_in_a_row >= MOST_SKIPPED:
        state.save_last(training, keep_former=True)
        raise UserError(f"{MOST_SKIPPED} steps in a row were skipped, the last is step {number}: {_what(step)}. "
                        f"{_remedy(training)}")


def _fault(training: Training, step: Step) -> UserError:
    """Save the state before a step that cannot be made, and say what is wrong."""
    progress = training.progress
    said = (f"{_what(step)} at step {progress.step + 1} of epoch {progress.epoch + 1} (learning rate {step.lr:g}, "
            f"files {_files(training, step)}). ")
    if not state.is_finite(training):
        return UserError(f"{said}The weights were not finite either, so nothing was saved: start again with a lower "
                         "optim.lr or train.clip_norm=1; checkpoints of earlier steps are intact.")
    state.save_last(training, keep_former=True)
    return UserError(f"{said}The state before that step is saved; resume={training.run_dir} alone repeats it. "
                     f"{_remedy(training)}")


def _what(step: Step) -> str:
    loss = float(step.loss)
    return f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is not finite (the loss is {loss:.4g})"


def _files(training: Training, step: Step) -> str:
    indices = [index for part in process_group.all_gather(step.indices) for index in part]
    return ", ".join(training.train_data.locate(index) for index in indices)


def _remedy(training: Training) -> str:
    changes = [f"optim.lr={training.cfg.optim['lr'] / 10:g}"] if "lr" in training.cfg.optim else []
    changes += ["train.clip_norm=1"] if training.cfg.train.clip_norm is None else []
    changes += ["train.on_nonfinite=skip"] if training.cfg.train.on_nonfinite == "stop" else []
    best = training.run_dir / "checkpoints" / checkpoint.BEST
    older = f" If the weights have grown too large already, start a new run with checkpoint={best}." if best.exists() \
        else ""
    return f"Go on with: segtrain resume={training.run_dir} and one of {', '.join(changes)}.{older}"
