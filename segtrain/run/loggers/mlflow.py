"""MLflow: a server, or a database or folder of its own."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from segtrain.config.overrides import flatten
from segtrain.run.loggers import Start

AT_ONCE = 100  # parameters of a request
MOST_LETTERS = 500  # of a parameter


def make_logger(tracking_uri: str | None, experiment: str, checkpoint: bool) -> "MLflow":
    return MLflow(tracking_uri, experiment, checkpoint)


class MLflow:
    """See `Logger`."""

    def __init__(self, tracking_uri: str | None, experiment: str, keeps_checkpoint: bool) -> None:
        self._uri, self._experiment, self._keeps_checkpoint = tracking_uri, experiment, keeps_checkpoint
        self._is_finished = False

    def start(self, start: Start) -> str:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a training does not wait for a lost server
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=self._uri)
        if start.run_id is not None:
            self._id = start.run_id
            self._client.update_run(self._id, status="RUNNING")
            return self._id
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        tags = {"run_dir": str(start.run_dir.absolute()), **({"sweep": start.group} if start.group else {})}
        made = self._client.create_run(experiment, run_name=start.run_dir.absolute().name, tags=tags)
        self._id = str(made.info.run_id)
        params = [Param(_clean(key), str(value)[:MOST_LETTERS]) for key, value in flatten(start.config).items()]
        for first in range(0, len(params), AT_ONCE):
            self._client.log_batch(self._id, params=params[first:first + AT_ONCE])
        return self._id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time())
        self._client.log_batch(self._id, [self._metric(_clean(tag), value, now, step)
                                          for tag, value in values.items()])

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._client.log_image(self._id, image, f"{_clean(tag)}/{step:08d}.png")

    def finish(self, scores: Mapping[str, float], best: Path) -> None:
        self.scalars({f"best/{name}": score for name, score in scores.items()}, 0)
        if self._keeps_checkpoint:
            self._client.log_artifact(self._id, str(best), "checkpoint")
        self._is_finished = True

    def close(self) -> None:
        self._client.set_terminated(self._id, "FINISHED" if self._is_finished else "KILLED")


def _clean(name: str) -> str:
    """Return a name of the letters that MLflow takes."""
    cleaned: Any = re.sub(r"[^\w\-. /]", "_", name)
    return str(cleaned)
