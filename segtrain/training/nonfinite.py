"""Stop a run before a step whose loss or gradient is not finite, or skip the step.

Either way it changes no weight, optimizer state or BatchNorm statistic, on CPUs and GPUs alike.
"""

import copy
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.run import checkpoint
from segtrain.terminal import shell
from segtrain.training import saving
from segtrain.training.state import TrainingState
from segtrain.training.step import Step

log = logging.getLogger(__name__)

READ_EVERY = 50  # steps on a GPU, where reading a loss waits for the device
MAX_SKIPPED = 10  # in a row: weights that only give NaN do not recover by themselves


class NonFiniteGuard:
    """Check every step of a training, and add the losses of good ones to its progress.

    On a CPU a step is checked before its update. On a GPU this would wait for the device in each step: there the losses
    are read every READ_EVERY steps, and if one of them is not finite, the run is rolled back to a copy of its state as
    of the last reading. The steps from there on are made again, checked one by one.

    The order of calls in the loop: `before_step`, `allows_update` (by train_step), `check`.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._check_until = state.total_steps if checks_first(state.device) else 0  # the last step checked before it
        self._copy: dict[str, Any] | None = None  # of the state, to roll back to
        self._unread: list[Step] = []
        self._waited = 0.0
        self._clock = time.monotonic()

    def start_epoch(self) -> None:
        """Start the clock of an epoch's training time."""
        self._clock = time.monotonic()

    def before_step(self) -> None:
        """Keep what a step changes before it can be checked: BatchNorm's statistics and torch's random state."""
        state = self._state
        if self._checks_first:
            self._random_state = checkpoint.random_state()
            self._buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
        elif self._copy is None:
            self._copy = copy.deepcopy(saving.snapshot(state))

    def allows_update(self, step: Step) -> bool:
        """Return whether a step may change the weights; where steps are checked later, it may.

        Raises:
            UserError: If the step is not finite and train.on_nonfinite=stop; the state before it is saved.
        """
        if not self._checks_first or step.is_finite:
            return True
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        if self._state.cfg.train.on_nonfinite == "skip":
            return False
        checkpoint.restore_random_state(self._random_state)  # the step may have drawn, for dropout
        raise self._stop(step)

    def check(self, step: Step, waited: float, *, read_now: bool) -> bool:
        """Read the losses of the steps since the last reading, if it is time to.

        Args:
            step: The step that was made last; progress counts it already.
            waited: Seconds it waited for data.
            read_now: Whether the loop needs everything read, to save or to end an epoch.

        Returns:
            False if the run was rolled back, so that its batches must be read again from where progress is.
        """
        self._unread.append(step)
        self._waited += waited
        if not (self._checks_first_made or read_now or len(self._unread) >= READ_EVERY):
            return True
        bad_step = self._read()
        self._unread.clear()
        if bad_step is None:
            progress, now = self._state.progress, time.monotonic()
            progress.seconds_waited += self._waited
            progress.seconds_trained += now - self._clock
            self._copy = None
        else:
            assert self._copy is not None
            saving.put_back(self._state, self._copy)
            self._check_until = bad_step
            now = time.monotonic()
        self._waited, self._clock = 0.0, now
        return bad_step is None

    @property
    def _checks_first(self) -> bool:
        """Whether the next step is checked before its update."""
        return self._state.progress.step < self._check_until

    @property
    def _checks_first_made(self) -> bool:
        """Whether the step that was made last was checked before its update."""
        return self._state.progress.step <= self._check_until

    def _read(self) -> int | None:
        """Add the losses of the unread steps to progress.

        Returns:
            The number of the first step that should not have been made; None if all stand.
        """
        progress, steps = self._state.progress, self._unread
        values = torch.stack([torch.stack([step.is_finite.float(), *step.loss_sums, *step.normalizers])
                              for step in steps])
        first = progress.step - len(steps) + 1
        for number, (step, (is_finite, *parts)) in enumerate(zip(steps, values.tolist(), strict=True), first):
            if not is_finite and not step.skipped:
                return number
            if step.skipped:
                self._count_skipped(step, number)
            else:
                terms = len(parts) // 2
                progress.skipped_in_a_row = 0
                progress.loss_sums = _add(progress.loss_sums, parts[:terms])
                progress.normalizers = _add(progress.normalizers, parts[terms:])
            progress.images += step.num_images
        self._count_drawn(steps)
        return None

    def _count_drawn(self, steps: Sequence[Step]) -> None:
        """Add the pixels of each class that were trained on, those of all processes."""
        counts = [step.pixels for step in steps if step.pixels is not None]
        if counts:
            num_classes = len(self._state.train_data.labels)
            every = process_group.all_gather(np.sum(counts, axis=0)[:num_classes].tolist())
            drawn = self._state.progress.drawn or [0] * num_classes
            self._state.progress.drawn = [sum(column) for column in zip(drawn, *every, strict=True)]

    def _count_skipped(self, step: Step, number: int) -> None:
        """Report a skipped step.

        Raises:
            UserError: If too many were skipped in a row; the state is saved.
        """
        progress = self._state.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        log.warning("warning: step %d is skipped: %s (learning rate %g, files %s)", number, _describe(step), step.lr,
                    self._files(step))
        if progress.skipped_in_a_row >= MAX_SKIPPED:
            saving.save_last(self._state, keep_former=True)
            raise UserError(f"{MAX_SKIPPED} steps in a row were skipped, the last is step {number}: {_describe(step)}. "
                            f"{self._remedy()}")

    def _stop(self, step: Step) -> UserError:
        """Save the state before a step that is not finite, and return the error that explains it."""
        progress, run_dir = self._state.progress, self._state.run_dir
        cause = (f"{_describe(step)} at step {progress.step + 1} of epoch {progress.epoch + 1} (learning rate "
                 f"{step.lr:g}, files {self._files(step)}). ")
        if not saving.is_finite(self._state):
            return UserError(f"{cause}The weights were not finite either, so nothing was saved: start again with a "
                             "lower optim.lr or train.clip_norm=1; checkpoints of earlier steps are intact.")
        saving.save_last(self._state, keep_former=True)
        return UserError(f"{cause}The state before that step is saved; resume={run_dir} alone repeats it. "
                         f"{self._remedy()}")

    def _files(self, step: Step) -> str:
        indices = [index for part in process_group.all_gather(step.indices) for index in part]
        return ", ".join(self._state.train_data.locate(index) for index in indices)

    def _remedy(self) -> str:
        cfg, run_dir = self._state.cfg, self._state.run_dir
        changes = [f"optim.lr={cfg.optim['lr'] / 10:g}"] if "lr" in cfg.optim else []
        changes += ["train.clip_norm=1"] if cfg.train.clip_norm is None else []
        changes += ["train.on_nonfinite=skip"] if cfg.train.on_nonfinite == "stop" else []
        best = run_dir / "checkpoints" / checkpoint.BEST
        older = (f" If the weights have grown too large already, start a new run with checkpoint={best}."
                 if best.exists() else "")
        return f"Go on with: {shell(f'resume={run_dir}')} and one of {', '.join(changes)}.{older}"


def checks_first(device: torch.device) -> bool:
    """Return whether reading a loss costs nothing on a device, because it does not run beside this process."""
    return device.type == "cpu"


def _describe(step: Step) -> str:
    loss = float(step.loss)
    return f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient is not finite (the loss is {loss:.4g})"


def _add(totals: list[float], values: list[float]) -> list[float]:
    return [total + value for total, value in zip(totals or [0.0] * len(values), values, strict=True)]
