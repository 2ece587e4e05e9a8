"""Find the runs below a folder, and tell what they are from their files, which others may have made."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segtrain.config.overrides import CONFIG
from segtrain.errors import UserError
from segtrain.files import read_yaml_text
from segtrain.run import directory
from segtrain.run.results import RESULTS, read_results

RUNS, SWEEPS = "outputs", "multirun"  # where runs and sweeps go unless told otherwise


@dataclass(frozen=True)
class Listed:
    """A run, as a table of runs shows it.

    Attributes:
        when: When its config was written, seconds since 1970.
        model, data: The files of the groups that were chosen, or else the classes; None where they cannot be told.
        state: "finished", "running", "stopped" (it can be resumed), "failed", or "damaged".
        scores: Of results.json; empty where there are none.
    """

    folder: Path
    when: float
    task: str | None
    model: str | None
    data: str | None
    state: str
    scores: Mapping[str, Any]

    def as_row(self) -> dict[str, Any]:
        """Return plain values for JSON, scores as fractions."""
        return {"run": str(self.folder), "when": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.when)),
                "task": self.task, "model": self.model, "data": self.data, "split": self.scores.get("split"),
                **{name: self.scores.get(name) for name in ("miou", "iiou", "loss", "epoch", "seconds")},
                "state": self.state}


def find_runs(root: Path) -> Iterator[Path]:
    """Yield the run directories at and below a folder: those that hold a config.yaml. Links are not followed."""
    if (root / CONFIG).is_file():
        yield root
    with contextlib.suppress(OSError):
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and not folder.is_symlink():
                yield from find_runs(folder)


def find_last(root: Path, file: str) -> Path:
    """Return the run directory below a folder that holds a file, such as checkpoints/last.pt, and began last.

    Raises:
        UserError: If there is none.
    """
    runs = [folder for folder in find_runs(root) if (folder / file).is_file()]
    if not runs:
        raise UserError(f"there is no run with {file} in {root.absolute()}: name the run's directory instead of last.")
    return max(runs, key=lambda folder: (folder / CONFIG).stat().st_mtime)


def describe_run(folder: Path) -> Listed:
    """Tell what a run directory holds; a file that is damaged makes its state "damaged"."""
    path = folder / CONFIG
    when = path.stat().st_mtime
    settings: Any = None
    scores: dict[str, Any] = {}
    state = "finished" if (folder / RESULTS).exists() else "failed"
    if (folder / "checkpoints" / "last.pt").exists() and state == "failed":
        state = "stopped"
    try:
        settings = yaml.safe_load(read_yaml_text(path))
        if state == "finished":
            scores = read_results(folder)
    except (UserError, ValueError):
        state = "damaged"
    if directory.is_held(folder):
        state = "running"
    settings = settings if isinstance(settings, dict) else {}
    task = settings.get("task")
    name = task.get("name") if isinstance(task, dict) else None
    return Listed(folder, when, name if isinstance(name, str) else None, _choice(settings, "model"),
                  _choice(settings, "dataset"), state, scores)


def _choice(settings: Mapping[str, Any], group: str) -> str | None:
    """Return the file of a group that a run's command chose, or else the class that it was built from."""
    overrides = settings.get("overrides")
    chosen = [override.partition("=")[2] for override in (overrides if isinstance(overrides, list) else [])
              if isinstance(override, str) and override.startswith(f"{group}=")]
    node = settings.get(group)
    target = node.get("_target_") if isinstance(node, dict) else None
    return chosen[-1] if chosen else str(target).rsplit(".", 1)[-1] if isinstance(target, str) else None
