"""What a run leaves behind: its log, metrics.csv, TensorBoard events, results.json, config.yaml, tables."""

import contextlib
import csv
import importlib.metadata
import io
import json
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.files import MAX_BYTES, read_text, write_file, write_text
from segtrain.terminal import Marked, Printable
from segtrain.visualize import confusion_figure, stack

CONFIG = "config.yaml"
log = logging.getLogger("segtrain")


# ---- the log


class _Handler(logging.Handler):
    """Say once that the log cannot be written; the run goes on for as long as its checkpoints can."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            with contextlib.suppress(OSError):
                print(f"segtrain: the log cannot be written ({error})", file=sys.stderr)


class _Console(_Handler, logging.StreamHandler):
    pass


class _File(_Handler, logging.FileHandler):
    pass


def start_log(path: Path) -> None:
    """Send the log to the terminal and to a file of the run, and to nothing that an earlier job opened."""
    stop_log()
    log.setLevel(logging.INFO)
    log.propagate = False
    console = _Console(sys.stdout)
    console.setFormatter(Marked(sys.stdout))
    file = _File(path, encoding="utf-8")
    file.setFormatter(Printable("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(console)
    log.addHandler(file)


def stop_log() -> None:
    """Close the files of the log."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        with contextlib.suppress(OSError):  # has been reported
            handler.close()


# ---- what is written once


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, from the first of several processes; NaN has no place there."""
    if not process_group.is_main():
        return
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file: a header, then a line for each row; None leaves a cell empty."""
    write_text(path, csv_text([columns, *([row[name] for name in columns] for row in rows)]))


def write_figure(path: Path, figure: Any) -> None:
    """Write a figure of matplotlib as PNG."""
    write_file(path, lambda file: figure.savefig(file, format="png"))


def write_confusion(run_dir: Path, matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> None:
    """Draw a confusion matrix, K x K, as shares of its rows (confusion_matrix.png) and in pixels (*_pixels.png)."""
    for name, in_pixels in (("confusion_matrix.png", False), ("confusion_matrix_pixels.png", True)):
        write_figure(run_dir / name, confusion_figure(matrix, class_names, in_pixels=in_pixels))


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Write rows as CSV; None is empty, and numbers are written so that they can be read back exactly."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml, from the first of several processes: every value resolved, and the versions it ran with."""
    import yaml

    if process_group.is_main():
        write_text(run_dir / CONFIG, yaml.safe_dump({**config, "versions": versions()}, sort_keys=False))


def versions() -> dict[str, str | None]:
    """Return the versions that a result depends on, and the git commit if segtrain runs from a checkout."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("segtrain", "torch", "torchvision", "albumentations", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    here = Path(__file__).resolve().parents[1]
    found["git_commit"] = None
    if (here.parent / ".git").exists():
        try:
            asked = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"],
                                   capture_output=True, text=True, timeout=10)
            found["git_commit"] = asked.stdout.strip() or None
        except (OSError, subprocess.TimeoutExpired):
            pass
    return found


# ---- numbers of every epoch


def _report_unless_full(args: threading.ExceptHookArgs) -> None:
    """Leave it to the next flush to raise what TensorBoard's own thread could not write."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


class Tracker:
    """Write a training's numbers to metrics.csv and TensorBoard; of several processes only the first one writes.

    Args:
        run_dir: The run directory.
        class_names: For the columns val/iou/<class>.
        epoch: Epochs completed; what an interrupted run wrote beyond them is cut away, and hidden in TensorBoard.
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
        write_rows(self._path, self._columns, kept)
        known_step = int(kept[-1]["step"]) if kept else 0  # TensorBoard shall hide what the checkpoint does not know of
        is_first = not any(run_dir.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(run_dir), purge_step=None if is_first else known_step + 1)
        threading.excepthook = _report_unless_full

    def config(self, step: int) -> None:
        """Show the run's config.yaml as it is at a step: that of a resumed run may differ from what it was."""
        if self._writer is not None:
            text = (self._path.parent / CONFIG).read_text(encoding="utf-8")
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

    def examples(self, pictures: Sequence[np.ndarray], step: int) -> None:
        """Show pictures, uint8 (H, W, 3) each, below one another."""
        if self._writer is not None and pictures:
            self._writer.add_image("val/examples", stack(pictures), step, dataformats="HWC")

    def confusion(self, matrix: Sequence[Sequence[int]], class_names: Sequence[str], step: int) -> None:
        """Show a confusion matrix, each row as shares of its target class."""
        if self._writer is not None:
            self._writer.add_figure("val/confusion_matrix", confusion_figure(matrix, class_names), step)

    def close(self) -> None:
        if self._writer is None:
            return
        with contextlib.suppress(OSError):  # every epoch was flushed; a disk that is full has been reported
            self._writer.close()
        threading.excepthook = threading.__excepthook__


def add_hparams(run_dir: Path, config: Mapping[str, Any], scores: Mapping[str, float | None], step: int) -> None:
    """Enter a finished run into TensorBoard's table of hyperparameters: what was chosen, and its best scores.

    They are shown as best/<name>, for the alphabet decides which columns come first.
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
    # The writer's own add_hparams would also write the table's columns, and TensorBoard would take those of one run for
    # all. Without them it finds the columns of all runs, and shows those first in which the runs differ.
    _, begun, ended = hparams(values, {})
    with SummaryWriter(str(run_dir)) as writer:
        for part in (begun, ended):
            writer.file_writer.add_summary(part)
        for name, score in scores.items():
            if score is not None:
                writer.add_scalar(f"best/{name}", score, step)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Read metrics.csv; no rows where there is none. A last line cut short by a crash is left out.

    Raises:
        UserError: If the file is no such table.
    """
    if not path.exists():
        return []
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path, 100 * MAX_BYTES), newline="")))
    except csv.Error as error:
        raise UserError(f"{path} is not valid CSV ({error}): remove it.") from error
    whole = [row for row in rows if None not in row.values()]
    if not all(row.get("epoch", "").isdecimal() for row in whole):
        raise UserError(f"{path} is no table of epochs as segtrain writes it: remove it.")
    return whole


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


# ---- tables for the terminal


def results_table(results: Mapping[str, Any]) -> str:
    """Write the scores of results.json as a table, in percent; n/a where a score is not defined."""
    per_class = [(name, results["iou_per_class"][name], results["acc_per_class"][name],
                  (results["iiou_per_class"] or {}).get(name)) for name in results["iou_per_class"]]
    rows = [*per_class, ("mean", results["miou"], results["macc"], results["iiou"])]
    width = max(len("class"), *(len(row[0]) for row in rows))
    head = f"{'class':<{width}}  {'IoU %':>6}  {'acc %':>6}  {'iIoU %':>6}"
    lines = [f"{name:<{width}}  " + "  ".join(f"{percent(score):>6}" for score in scores) for name, *scores in rows]
    lines = [head, *lines[:-1], "-" * len(head), lines[-1], ""]
    loss = "" if results["loss"] is None else f", loss {results['loss']:.4f}"
    lines.append(f"pixel accuracy {percent(results['pacc'])} %, "
                 f"frequency-weighted IoU {percent(results['fwiou'])} %{loss}")
    lines.append(f"{results['num_images']} images of {results['dataset']} {results['split']}, "
                 "one confusion matrix over all of them")
    if results["iiou_source"] is None:
        lines.append("iIoU: not defined, there are no instance maps; "
                     "dataset.instances=components counts connected regions instead.")
    elif results["iiou_source"] == "components":
        lines.append("iIoU: connected regions of the target counted as instances.")
    return "\n".join(lines)


def percent(fraction: float | None) -> str:
    """Write a fraction in percent with two decimals."""
    return "n/a" if fraction is None else f"{100 * fraction:.2f}"
