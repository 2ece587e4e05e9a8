"""Track every epoch of a training: metrics.csv, TensorBoard and examples.png."""

import contextlib
import csv
import io
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segtrain.config.overrides import flatten
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.files import MAX_BYTES, is_utf8, read_text, write_file, write_text
from segtrain.run.results import CONFIG, csv_cell, csv_text
from segtrain.terminal import shell
from segtrain.visualize import draw_confusion

NUMBER = re.compile(r"[0-9]{1,15}")
EXAMPLES = "examples.png"  # in the run directory: validation images, predicted by the best checkpoint


def _report_unless_full(args: threading.ExceptHookArgs) -> None:
    """Leave errors of TensorBoard's own thread to its next flush, which raises them."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def check_name(run_dir: Path) -> None:
    """Raise UserError if TensorBoard cannot write into a directory because of its name."""
    if not is_utf8(run_dir):
        raise UserError(f"{run_dir} is not UTF-8 text, which TensorBoard needs: choose another hydra.run.dir=, or, if "
                        "only the terminal does not know its letters, set LC_ALL=C.UTF-8.")


class Tracker:
    """Write a training's numbers and images; of several processes only the first one writes.

    Args:
        run_dir: The run directory.
        class_names: For the columns val/iou/<class>.
        epoch: Epochs completed. Later rows, of an interrupted run, are removed, and hidden in TensorBoard.
    """

    def __init__(self, run_dir: Path, class_names: Sequence[str], *, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._columns = ["epoch", "step", "train/loss", "train/lr", "train/images_per_second", "train/data_wait",
                         "val/loss", "val/miou", "val/iiou", "val/macc", *(f"val/iou/{name}" for name in class_names)]
        self._writer: SummaryWriter | None = None
        if not process_group.is_main():
            return
        self._path = run_dir / "metrics.csv"
        kept = [row for row in read_metrics(self._path) if int(row["epoch"]) <= epoch]
        if kept and list(kept[0]) != [csv_cell(name) for name in self._columns]:
            raise UserError(f"{self._path} has other columns than this run: restore it, or remove it.")
        write_text(self._path, csv_text([self._columns, *(row.values() for row in kept)]))
        known_step = int(kept[-1]["step"]) if kept else 0  # TensorBoard hides what the checkpoint does not know of
        is_first = not any(run_dir.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(run_dir), purge_step=None if is_first else known_step + 1)
        threading.excepthook = _report_unless_full

    def config(self, step: int) -> None:
        """Show the run's config.yaml in TensorBoard; a resumed run may have changed it."""
        if self._writer is not None:
            text = read_text(self._path.parent / CONFIG)
            self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), step)

    def epoch(self, epoch: int, step: int, scalars: Mapping[str, float | None]) -> None:
        """Add one epoch's numbers, named by their TensorBoard tags; None leaves a cell empty."""
        if self._writer is None:
            return
        values = {"epoch": epoch, "step": step, **scalars}
        row = [values.get(name) for name in self._columns]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(csv_text([row]))
            file.flush()
            os.fsync(file.fileno())  # as the checkpoint of the epoch, which comes after it
        for tag, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def examples(self, sheet: np.ndarray | None, step: int, *, is_best: bool) -> None:
        """Show a sheet of examples, uint8 (H, W, 3), in TensorBoard; that of the best epoch is examples.png, too."""
        if self._writer is None:
            return
        path = self._path.with_name(EXAMPLES)
        if sheet is not None:
            self._writer.add_image("val/examples", sheet, step, dataformats="HWC")
        if is_best and sheet is not None:
            write_file(path, lambda file: Image.fromarray(sheet).save(file, format="PNG"),
                       remedy=f"make room, then go on with: {shell(f'resume={path.parent}')}")
        elif is_best:
            path.unlink(missing_ok=True)  # of a former best epoch

    def confusion(self, matrix: Sequence[Sequence[int]], class_names: Sequence[str], step: int) -> None:
        """Show a confusion matrix, each row as shares of its target class."""
        if self._writer is not None:
            self._writer.add_figure("val/confusion_matrix", draw_confusion(matrix, class_names), step)

    def close(self) -> None:
        if self._writer is None:
            return
        with contextlib.suppress(OSError):  # every epoch was flushed; a disk that is full has been reported
            self._writer.close()
        threading.excepthook = threading.__excepthook__


def add_hparams(run_dir: Path, config: Mapping[str, Any], scores: Mapping[str, float | None], step: int) -> None:
    """Enter a finished run into TensorBoard's table of hyperparameters: its settings, and its best scores.

    The scores are shown as best/<name>, because TensorBoard sorts columns by name.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    if not process_group.is_main():
        return
    chosen = {group: node["_target_"].rsplit(".", 1)[-1] for group, node in config.items()
              if isinstance(node, Mapping) and "_target_" in node}
    chosen |= {"seed": config["seed"], "augmentation": "+".join(config["augmentation"]) or "none"}
    for section in ("optim", "scheduler", "loss", "train"):
        chosen |= flatten(config[section], f"{section}.")
    values = {key: value for key, value in chosen.items()
              if isinstance(value, (str, int, float, bool)) and not key.endswith("._target_")}
    # The writer's own add_hparams also writes the table's columns, and TensorBoard takes those of one run for all.
    # Without them it finds the columns of all runs, and shows those first in which the runs differ.
    _, begun, ended = hparams(values, {})
    with SummaryWriter(str(run_dir)) as writer:
        for part in (begun, ended):
            writer.file_writer.add_summary(part)
        for name, score in scores.items():
            if score is not None:
                writer.add_scalar(f"best/{name}", score, step)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read metrics.csv; no rows if it is missing. A last line that a crash cut short is left out.

    Raises:
        UserError: If the file is not such a table.
    """
    if not path.exists():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, 100 * MAX_BYTES), newline="")))
    except csv.Error as error:
        raise UserError(f"{path} is not valid CSV ({error}): remove it.") from error
    whole = [row for row in rows if None not in row.values()]
    if not all(NUMBER.fullmatch(row.get(key) or "") for row in whole for key in ("epoch", "step")):
        raise UserError(f"{path} is not a table of epochs and steps as segtrain writes it: remove it.")
    return whole
