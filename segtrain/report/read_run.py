"""Read what a run directory holds."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from segtrain.config.overrides import CONFIG
from segtrain.config.saved import check_saved, config_of, read_config
from segtrain.errors import UserError
from segtrain.files import open_regular
from segtrain.report.charts import Line
from segtrain.run import checkpoint
from segtrain.run.directory import refuse_links
from segtrain.run.results import RESULTS, check_scores, read_results
from segtrain.run.trackers import read_metrics

MOST_LOG = 10_000_000  # bytes of a log that are read
MOST_DRAWN = 1e30  # in a chart; what is larger, or not finite, is left out
TASKS = ("train", "evaluate", "score")  # those with scores of classes


@dataclass
class Run:
    """A run directory.

    Attributes:
        settings: Its config.yaml; {} without one, as for a refused job.
        epochs: The rows of metrics.csv; None for an empty cell.
        results: Its results.json, or the results in the best checkpoint of an unfinished training.
        is_finished: Whether it has a results.json.
        colors: Of the classes, from a checkpoint; {} without one.
        class_pixels: Labelled pixels of each class in the training split, from a checkpoint.
        remarks: Warnings of its log, and what could not be read.
        begun: When its log begins.
        ended: When its log ends.
    """

    folder: Path
    settings: dict[str, Any]
    epochs: list[dict[str, float | None]]
    results: dict[str, Any] | None
    is_finished: bool
    colors: dict[str, list[int]]
    class_pixels: list[int] | None
    remarks: list[str]
    begun: datetime | None = None
    ended: datetime | None = None

    @property
    def task(self) -> str:
        return str((self.settings.get("task") or {}).get("name", "train"))

    @property
    def class_names(self) -> list[str]:
        if self.results is not None:
            return list(self.results["iou_per_class"])
        return [key.removeprefix("val/iou/") for key in (self.epochs or [{}])[0] if key.startswith("val/iou/")]

    def line(self, key: str, style: int = 0, label: str = "") -> Line:
        """Return a column of metrics.csv as a line of a chart."""
        return Line([row["epoch"] or 0 for row in self.epochs], [row.get(key) for row in self.epochs], style, label)


def is_run(folder: Path) -> bool:
    """Return whether a directory is that of a run, even of a refused one."""
    return (folder / CONFIG).is_file() or any((folder / f"{task}.log").is_file() for task in TASKS)


def read_run(folder: Path) -> Run:
    """Read a run directory.

    Raises:
        UserError: If it is not one, holds a link to elsewhere or a damaged file, or its task has no scores of classes.
    """
    if not is_run(folder):
        raise UserError(f"{folder} is not a run directory: it has no config.yaml. Give a directory that segtrain "
                        "made, of a run or of a sweep.")
    refuse_links(folder)
    path = folder / CONFIG
    settings = _read_settings(path) if path.exists() else {}
    name = (settings.get("task") or {}).get("name", "train")
    if name not in TASKS:
        raise UserError(f"{folder} holds a run of task={name}: a report needs scores of classes: give one of "
                        f"task={', '.join(TASKS)}.")
    remarks, times = _read_log(folder / f"{name}.log")
    path = folder / RESULTS
    results = read_results(path, with_scores=True) if path.is_file() else None
    if results is not None:
        check_scores(results, path)
    is_finished = results is not None
    saved = _read_checkpoint(folder, remarks) if name == "train" else {}
    best = (saved.get("progress") or {}).get("best")
    if best is not None:
        check_scores(best, folder / "checkpoints" / checkpoint.BEST)
        best = best | {"seconds": None}  # of its validation, not of the run
    colors = {label["name"]: list(label["color"]) for label in saved.get("labels") or ()}
    return Run(folder, settings, _read_epochs(folder / "metrics.csv"), results or best, is_finished, colors,
               saved.get("class_pixels"), remarks, *times)


def _read_settings(path: Path) -> dict[str, Any]:
    settings = read_config(path)
    check_saved(config_of(settings), path)
    return settings


def _read_epochs(path: Path) -> list[dict[str, float | None]]:
    try:
        rows = [{key: float(cell) if cell else None for key, cell in row.items()} for row in read_metrics(path)]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it, or restore it from a copy.") from error
    return [{key: value if value is not None and abs(value) < MOST_DRAWN else None for key, value in row.items()}
            for row in rows]


def _read_checkpoint(folder: Path, remarks: list[str]) -> dict[str, Any]:
    """Return the best checkpoint; {} if there is none that can be read."""
    path = folder / "checkpoints" / checkpoint.BEST
    if not path.is_file():
        return {}
    try:
        return checkpoint.load(path, mapped=True)
    except UserError as error:
        remarks.append(str(error))
        return {}


def _read_log(path: Path) -> tuple[list[str], tuple[datetime | None, datetime | None]]:
    """Return the warnings, errors and changed settings in a log, each once, and when it begins and ends."""
    try:
        with open_regular(path) as file:
            text = file.read(MOST_LOG).decode(errors="replace")
    except FileNotFoundError:
        return [], (None, None)
    except OSError as error:
        return [f"{path} cannot be read ({error}): its warnings are not shown."], (None, None)
    found = re.findall(r"^[\d-]+ [\d:,]+ (?:(?:WARNING|ERROR) |INFO (?=changed since ))(.*)$", text, re.MULTILINE)
    times = re.findall(r"^([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}),", text, re.MULTILINE) or [""]
    return (list(dict.fromkeys(line.removeprefix("warning: ") for line in found)),
            (_read_time(times[0]), _read_time(times[-1])))


def _read_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return None
