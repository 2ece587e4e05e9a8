"""Weights & Biases, online or offline; offline runs are sent later, by `wandb sync`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.run.loggers import Start


def make_logger(project: str, entity: str | None, mode: str, checkpoint: bool) -> "Wandb":
    return Wandb({"project": project, "entity": entity, "mode": mode}, checkpoint)


class Wandb:
    """See `Logger`."""

    def __init__(self, options: Mapping[str, Any], keeps_checkpoint: bool) -> None:
        self._options, self._keeps_checkpoint = options, keeps_checkpoint

    def start(self, start: Start) -> str:
        import wandb

        self._wandb = wandb
        settings = wandb.Settings(console="off", silent=True, init_timeout=30)
        # Its files stay where it wants them: it makes links, which a run directory does not hold.
        self._run = wandb.init(**self._options, name=start.run_dir.absolute().name, group=start.group,
                               config=dict(start.config), id=start.run_id, resume="allow", settings=settings)
        return str(self._run.id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        self._run.log({tag: self._wandb.Image(image)}, step=step)

    def finish(self, scores: Mapping[str, float], best: Path) -> None:
        self._run.summary.update({f"best/{name}": score for name, score in scores.items()})
        if self._keeps_checkpoint:
            artifact = self._wandb.Artifact(f"checkpoint-{self._run.id}", type="model")
            artifact.add_file(str(best))
            self._run.log_artifact(artifact)

    def close(self) -> None:
        self._run.finish()
