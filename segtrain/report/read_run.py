"""All that a run directory says about its run, whichever version wrote it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtrain.config.saved import read_config
from segtrain.errors import UserError
from segtrain.run import checkpoint
from segtrain.run.results import RESULTS, read_results
from segtrain.run.trackers import read_metrics

TASKS = ("train", "evaluate", "score")  # those that leave scores of classes


@dataclass
class Run:
    """A run directory.

    Attributes:
        folder: The directory.
        settings: Its config.yaml; {} where it has none, as a job that was refused.
        epochs: The rows of metrics.csv; None where a cell is empty.
        results: Its results.json, or what the best checkpoint of an unfinished training knows; None if there is none.
        is_finished: Whether it has a results.json.
        colors: Of the classes in pictures, where a checkpoint says so; else {}.
        class_pixels: Labelled pixels of each class in the training split, where a checkpoint says so.
        remarks: What its log warns of, and what of the directory could not be read.
    """

    folder: Path
    settings: dict[str, Any]
    epochs: list[dict[str, float | None]]
    results: dict[str, Any] | None
    is_finished: bool
    colors: dict[str, list[int]]
    class_pixels: list[int] | None
    remarks: list[str]

    @property
    def task(self) -> str:
        return str((self.settings.get("task") or {}).get("name", "train"))

    @property
    def class_names(self) -> list[str]:
        if self.results is not None:
            return list(self.results["iou_per_class"])
        return [key.removeprefix("val/iou/") for key in (self.epochs or [{}])[0] if key.startswith("val/iou/")]

    @property
    def steps(self) -> int | None:
        """The step of the results' checkpoint."""
        return None if self.results is None else self.results.get("step")


def is_run(folder: Path) -> bool:
    """Return whether a directory holds what a run leaves behind, even if it was refused at once."""
    return (folder / "config.yaml").is_file() or any((folder / f"{task}.log").is_file() for task in TASKS)


def read_run(folder: Path) -> Run:
    """Read a run directory.

    Raises:
        UserError: If it is none, or that of a task without scores of classes, or a file is damaged.
    """
    if not is_run(folder):
        raise UserError(f"{folder} is no run directory: it has no config.yaml. Give a directory that segtrain made, of "
                        "a run or of a sweep.")
    path = folder / "config.yaml"
    settings = read_config(path) if path.is_file() else {}
    name = (settings.get("task") or {}).get("name", "train")
    if name not in TASKS:
        raise UserError(f"{folder} holds a run of task={name}: a report is of runs with scores of classes: give "
                        f"one of task={', '.join(TASKS)}.")
    remarks = _logged(folder / f"{name}.log")
    path = folder / RESULTS
    results = read_results(path, with_scores=True) if path.is_file() else None
    is_finished = results is not None
    known = _from_checkpoint(folder, remarks) if name == "train" else {}
    best = (known.get("progress") or {}).get("best")
    if best is not None:
        best = best | {"seconds": None}  # they are those of its validation, not of the run
    colors = {label["name"]: label["color"] for label in known.get("labels") or ()}
    return Run(folder, settings, _read_epochs(folder / "metrics.csv"), results or best, is_finished, colors,
               known.get("class_pixels"), remarks)


def _read_epochs(path: Path) -> list[dict[str, float | None]]:
    try:
        return [{key: float(cell) if cell else None for key, cell in row.items()}
                for row in read_metrics(path)]
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, or restore it from a copy.") from error


def _from_checkpoint(folder: Path, remarks: list[str]) -> dict[str, Any]:
    """Return what stands beside the weights in the best checkpoint; {} if there is none that can be read."""
    path = folder / "checkpoints" / checkpoint.BEST
    if not path.is_file():
        return {}
    try:
        return checkpoint.load(path, mapped=True)
    except UserError as error:
        remarks.append(str(error))
        return {}


def _logged(path: Path) -> list[str]:
    """Return the warnings and errors of a log, each once, and what was changed on the way."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^[\d-]+ [\d:,]+ (?:(?:WARNING|ERROR) |INFO (?=changed since ))(.*)$", text, re.MULTILINE)
    return list(dict.fromkeys(line.removeprefix("warning: ") for line in found))
