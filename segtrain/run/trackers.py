"""Track every epoch of a training: metrics.csv, steps.csv, examples.png, and what the loggers show."""

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.files import MAX_BYTES, is_utf8, read_text, write_file, write_text
from segtrain.run.loggers import Loggers
from segtrain.run.results import csv_cell, csv_text
from segtrain.terminal import shell
from segtrain.visualize import draw_confusion, render_figure

NUMBER = re.compile(r"[0-9]{1,15}")
EXAMPLES = "examples.png"  # in the run directory: validation images, predicted by the best checkpoint
OF_STEPS = ("train/step/loss", "train/step/lr", "train/step/gradient_norm", "train/step/memory_gib")


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
        epoch: Epochs completed. Later rows, of an interrupted run, are removed.
        step: Optimizer steps completed, the same for steps.csv.
        has_steps: Whether `step` will be called.
        loggers: What else gets the numbers and images; None: nothing.
        config: Of the run, as plain values, for the loggers.
    """

    def __init__(self, run_dir: Path, class_names: Sequence[str], *, epoch: int, step: int = 0, has_steps: bool = False,
                 loggers: Loggers | None = None, config: Mapping[str, object] | None = None) -> None:
        self._is_main, self._last_step = process_group.is_main(), step
        self._loggers = loggers or Loggers({})
        if not self._is_main:
            return
        self._columns = ["epoch", "step", "train/loss", "train/lr", "train/images_per_second", "train/data_wait",
                         "val/loss", "val/miou", "val/iiou", "val/macc", *(f"val/iou/{name}" for name in class_names)]
        self._path, self._steps = run_dir / "metrics.csv", run_dir / "steps.csv"
        kept = _keep_rows(self._path, self._columns, "epoch", epoch)
        if has_steps:
            _keep_rows(self._steps, ["epoch", "step", *OF_STEPS], "step", step)
        self._loggers.start(run_dir, config or {}, int(kept[-1]["step"]) if kept else 0)

    def step(self, epoch: int, step: int, scalars: Mapping[str, float | None]) -> None:
        """Add the numbers of an optimizer step, those of OF_STEPS; None leaves a cell empty."""
        if self._is_main and step > self._last_step:  # not again after a rollback
            self._last_step = step
            _append(self._steps, [epoch, step, *(scalars[name] for name in OF_STEPS)])
            self._loggers.scalars(scalars, step)

    def epoch(self, epoch: int, step: int, scalars: Mapping[str, float | None]) -> None:
        """Add one epoch's numbers by their tags; what is no column of metrics.csv goes to the loggers alone."""
        if self._is_main:
            values = {"epoch": epoch, "step": step, **scalars}
            _append(self._path, [values.get(name) for name in self._columns])
            self._loggers.scalars(scalars, step)

    def examples(self, sheet: np.ndarray | None, step: int, *, is_best: bool) -> None:
        """Show a sheet of examples, uint8 (H, W, 3); that of the best epoch is examples.png, too."""
        if not self._is_main:
            return
        path = self._path.with_name(EXAMPLES)
        if sheet is not None:
            self._loggers.image("val/examples", sheet, step)
        if is_best and sheet is not None:
            write_file(path, lambda file: Image.fromarray(sheet).save(file, format="PNG"),
                       remedy=f"make room, then go on with: {shell(f'resume={path.parent}')}")
        elif is_best:
            path.unlink(missing_ok=True)  # of a former best epoch

    def confusion(self, matrix: Sequence[Sequence[int]], class_names: Sequence[str], step: int) -> None:
        """Show a confusion matrix, each row as shares of its target class."""
        if self._is_main and self._loggers.are_there:
            self._loggers.image("val/confusion_matrix", render_figure(draw_confusion(matrix, class_names)), step)

    def finish(self, scores: Mapping[str, float | None], best: Path) -> None:
        """Tell the loggers that the training is finished, its best scores and the best checkpoint's file."""
        if self._is_main:
            self._loggers.finish(scores, best)

    def close(self) -> None:
        if self._is_main:
            self._loggers.close()


def _append(path: Path, row: Sequence[float | int | None]) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(csv_text([row]))
        file.flush()
        os.fsync(file.fileno())  # as the checkpoint of the epoch, which comes after it


def _keep_rows(path: Path, columns: Sequence[str], key: str, most: int) -> list[dict[str, str]]:
    """Rewrite a table without the rows beyond `most`, which the checkpoint does not know of; return the others."""
    kept = [row for row in read_metrics(path) if int(row[key]) <= most]
    if kept and list(kept[0]) != [csv_cell(name) for name in columns]:
        raise UserError(f"{path} has other columns than this run: restore it, or remove it.")
    write_text(path, csv_text([columns, *(row.values() for row in kept)]))
    return kept


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
