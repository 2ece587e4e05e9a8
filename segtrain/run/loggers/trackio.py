"""trackio: a database on this machine, shown by `trackio show`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.config.overrides import flatten
from segtrain.run.loggers import Start


def make_logger(project: str) -> "Trackio":
    return Trackio(project)


class Trackio:
    """See `Logger`."""

    def __init__(self, project: str) -> None:
        self._project = project

    def start(self, start: Start) -> str:
        import trackio

        self._trackio: Any = trackio
        name = start.run_id or f"{start.run_dir.absolute().parent.name}-{start.run_dir.name}"
        trackio.init(project=self._project, name=name, group=start.group, config=flatten(start.config),
                     resume="allow" if start.run_id else "never")
        return name

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._trackio.log({tag: self._trackio.Image(image)}, step=step)

    def finish(self, scores: Mapping[str, float], best: Path) -> None:
        self._trackio.log({f"best/{name}": score for name, score in scores.items()})

    def close(self) -> None:
        self._trackio.finish()
