"""TensorBoard: event files in the run directory."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.config.overrides import CONFIG, flatten
from segtrain.files import read_text
from segtrain.run.loggers import Start


def make_logger() -> "TensorBoard":
    return TensorBoard()


class TensorBoard:
    """See `Logger`."""

    def start(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        is_first = not any(start.run_dir.glob("events.out.tfevents.*"))
        # It hides what the checkpoint does not know of.
        self._writer = SummaryWriter(str(start.run_dir), purge_step=None if is_first else start.step + 1)
        self._config, self._step = start.config, start.step
        threading.excepthook = _report_unless_full
        text = read_text(start.run_dir / CONFIG)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), start.step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._step = step
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._writer.add_image(tag, image, step, dataformats="HWC")

    def finish(self, scores: Mapping[str, float], best: Path) -> None:
        """Enter the run into the table of hyperparameters, whose scores are the last values of the curves.

        The first of them, by name, is that of best/<train.monitor>.
        """
        from torch.utils.tensorboard.summary import hparams

        # The writer's own add_hparams also writes the table's columns, and TensorBoard takes those of one run for all.
        # Without them it finds the columns of all runs, and shows those first in which the runs differ.
        _, begun, ended = hparams(list_settings(self._config), {})
        for part in (begun, ended):
            self._writer._get_file_writer().add_summary(part)
        self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # every epoch was flushed; a disk that is full has been reported
            self._writer.close()
        threading.excepthook = threading.__excepthook__


def list_settings(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return the settings by which runs are compared: the class of each group, and what is set in it."""
    chosen = {group: node["_target_"].rsplit(".", 1)[-1] for group, node in config.items()
              if isinstance(node, Mapping) and "_target_" in node}
    chosen |= {"seed": config["seed"], "augmentation": "+".join(config["augmentation"]) or "none"}
    for section in ("optim", "scheduler", "loss", "train"):
        chosen |= flatten(config[section], f"{section}.")
    return {key: value for key, value in chosen.items()
            if isinstance(value, (str, int, float, bool)) and not key.endswith("._target_")}


def _report_unless_full(args: threading.ExceptHookArgs) -> None:
    """Leave errors of TensorBoard's own thread to its next flush, which raises them."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)
