"""One bar for the running epoch and the whole run, on a terminal; nothing where the output is no terminal."""

import time

from tqdm import tqdm

from segtrain.distributed import process_group
from segtrain.profiling import used_memory
from segtrain.terminal import format_duration, percent
from segtrain.training.state import TrainingState
from segtrain.training.step import Step


class ProgressBar:
    """The images of an epoch, with the loss so far, the learning rate, the best score and the time that is left."""

    def __init__(self, state: TrainingState) -> None:
        progress, per_step = state.progress, state.images_per_step
        self._state, self._per_step = state, per_step
        self._bar = tqdm(
            total=state.steps_per_epoch * per_step, initial=progress.epoch_steps * per_step, unit="", leave=False,
            desc=f"epoch {progress.epoch + 1}/{state.cfg.train.epochs}", dynamic_ncols=True, smoothing=0.1,
            bar_format="{desc} {percentage:3.0f}%|{bar:12}| {unit}",
            disable=None if process_group.is_main() else True)
        self._first_step, self._started = progress.step, time.monotonic()

    def update(self, step: Step) -> None:
        """Show where the run is after a step."""
        progress = self._state.progress
        if not self._bar.disable:
            self._bar.unit = self._describe(step)  # where its format has free text
        self._bar.update(progress.epoch_steps * self._per_step - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()

    def _describe(self, step: Step) -> str:
        progress, state = self._state.progress, self._state
        rate = self._bar.format_dict["rate"]
        parts = [f"step {progress.step}/{state.total_steps}"]
        if progress.loss_sums:
            parts.append(f"loss {progress.train_loss:.3f}")
        parts += [f"lr {step.lr:.2g}", f"{rate or 0:.1f} images/s", f"{used_memory(state.device) / 2**30:.1f} GiB"]
        monitor = state.cfg.train.monitor
        if progress.best is not None and progress.best.get(monitor) is not None:
            best = progress.best[monitor]
            parts.append(f"best {monitor} {best:.4f}" if monitor == "loss" else f"best {monitor} {percent(best)} %")
        parts.append(f"{format_duration(self._seconds_left())} left")
        return ", ".join(parts)

    def _seconds_left(self) -> float:
        """Estimate the rest of the run, validations included, from what was done so far; the end may come earlier."""
        progress = self._state.progress
        elapsed = time.monotonic() - self._started
        steps, seconds = progress.step - self._first_step, elapsed
        if progress.epoch and not progress.skipped:  # whole epochs know what validations take
            steps, seconds = progress.step, progress.seconds + elapsed
        return seconds / max(steps, 1) * (self._state.total_steps - progress.step)
