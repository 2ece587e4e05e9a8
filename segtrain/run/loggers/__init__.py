"""Where the numbers and images of a training go beside its run directory's tables; one file for each program."""

import importlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segtrain.errors import UserError
from segtrain.files import write_text
from segtrain.run.file_schemas import LoggerRuns
from segtrain.schemas import read_checked

log = logging.getLogger(__name__)
RUNS = "loggers.json"  # in the run directory: under which names other programs keep the run


@dataclass(frozen=True)
class Start:
    """What a logger is told at the beginning.

    Attributes:
        config: As plain values.
        step: The last step whose numbers were logged before, 0 for a new run; later ones are to be dropped.
        group: The sweep that the run is a job of; None for a run of its own.
        run_id: The name that the program gave the run before; None for a new run.
    """

    run_dir: Path
    config: Mapping[str, Any]
    step: int
    group: str | None
    run_id: str | None


class Logger(Protocol):
    """Shows a training somewhere. Whatever it raises is a warning, and the end of it alone."""

    def start(self, start: Start) -> str | None:
        """Begin or continue; return the name under which the run is kept, if it is to be given again on a resume."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers by their tags."""

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Log an image, uint8 (H, W, 3)."""

    def finish(self, scores: Mapping[str, float], best: Path) -> None:
        """Note the end of a finished training: its best scores, and the best checkpoint's file."""

    def close(self) -> None:
        """Send what is left; also of a training that was stopped."""


class Loggers:
    """All loggers of a run. One that fails warns once and is left out from then on: it never stops a training.

    Args:
        options: Of each logger by its name, as the section `logger` has them.
    """

    def __init__(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        self._loggers = {name: importlib.import_module(f"segtrain.run.loggers.{name}").make_logger(**values)
                         for name, values in options.items()}

    @property
    def are_there(self) -> bool:
        return bool(self._loggers)

    def start(self, run_dir: Path, config: Mapping[str, Any], step: int) -> None:
        path = run_dir / RUNS
        known: dict[str, str] = {}
        if path.exists():
            known = {name: value for name, value in read_checked(path, LoggerRuns, "remove it").model_dump().items()
                     if name in self._loggers and value is not None}
        group = run_dir.absolute().parent.name if (run_dir.absolute().parent / "multirun.yaml").exists() else None
        for name in list(self._loggers):
            run_id = self._call(name, "start", Start(run_dir, config, step, group, known.get(name)))
            if run_id is not None:
                known[name] = run_id
        if known:
            write_text(path, json.dumps({"file_format": 1, **known}, indent=1) + "\n")

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        self._call_all("scalars", {tag: value for tag, value in values.items() if value is not None}, step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._call_all("image", tag, image, step)

    def finish(self, scores: Mapping[str, float | None], best: Path) -> None:
        self._call_all("finish", {name: score for name, score in scores.items() if score is not None}, best)

    def close(self) -> None:
        self._call_all("close")

    def _call_all(self, method: str, *arguments: Any) -> None:
        for name in list(self._loggers):
            self._call(name, method, *arguments)

    def _call(self, name: str, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._loggers[name], method)(*arguments)
        except UserError:
            raise
        except Exception as error:  # of a server, a disk, another program: whatever it may be
            log.warning("warning: logger=%s has failed (%s) and gets nothing more; metrics.csv has all numbers, and "
                        "the training goes on", name, " ".join(f"{type(error).__name__}: {error}".split())[:300])
            del self._loggers[name]
            return None
