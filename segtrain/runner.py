"""Run a task: check its run directory, lay its config over what was saved there or in a checkpoint, start the log."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segtrain.config import saved
from segtrain.config.hydra_plugin import Job
from segtrain.config.overrides import CONFIG
from segtrain.config.schema import Config
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.run import checkpoint, directory
from segtrain.run.logging import start_log
from segtrain.run.results import RESULTS
from segtrain.sweep import leaderboard
from segtrain.terminal import printable, shell

USE_CHECKPOINTS = ("evaluate", "predict", "export")  # tasks that take their config from a checkpoint
# Tasks that a restarted sweep does again, for they do not record what they have read; the others take longer.
READ_AGAIN = ("predict", "score", "convert", "doctor", "export", "rasterize", "report")


def run_task(cfg: Config[Any], job: Job, announce: Callable[[Config[Any], Path], object] | None = None,
             on_epoch: Callable[[dict[str, float | None]], object] | None = None) -> float | None:
    """Run the task of a checked config in its run directory, which this process holds.

    Args:
        cfg: The config.
        job: How the run was started, and where it goes.
        announce: Called with the config that is run and its directory, before the task begins.
        on_epoch: Of a training, called after each epoch.

    Returns:
        The score that a search compares, if the task gives one.

    Raises:
        UserError: If the directory or the config do not fit what was saved; or the task's own.
    """
    if cfg.rerun is not None:
        cfg = saved.run_again(Path(cfg.rerun), cfg)
    is_again = job.sweep_dir is not None or (cfg.resume is None and process_group.is_restarted())
    if cfg.resume is None and not is_again and not directory.is_unused(job.run_dir):
        resume = f"continue the run in it with {shell(f'resume={job.run_dir}')}, or " * (job.run_dir / CONFIG).is_file()
        raise UserError(f"{job.run_dir} is not empty: {resume}choose another hydra.run.dir=.")
    directory.refuse_links(job.run_dir)
    if cfg.resume is None and not is_again:
        directory.empty(job.run_dir)  # of what a run has left that was ended before it saved anything
    path, results = job.run_dir / CONFIG, job.run_dir / RESULTS
    former = saved.read_config(path) if path.exists() else None
    if (former is None or is_again) and cfg.checkpoint is not None and cfg.task.name in USE_CHECKPOINTS:
        file = checkpoint.find(cfg.checkpoint)
        cfg = saved.from_checkpoint(checkpoint.load(file, mapped=True)["config"], file, cfg)
    if former is not None:
        cfg = (saved.started_again if is_again else saved.continued)(former, path, cfg)
        has_state = (job.run_dir / "checkpoints" / "last.pt").exists()
        is_read_again = job.sweep_dir is not None and cfg.task.name in READ_AGAIN
        if results.exists() and not is_read_again and not (has_state and saved.is_prolonged(cfg, former)):
            if job.sweep_dir is not None:
                _check_unchanged(cfg, job.run_dir)
            print(printable(f"{job.run_dir} is finished: nothing to do, its scores are in {results}; "
                            "a training goes on for longer with train.epochs="))
            return leaderboard.read_score(results, cfg.train.monitor)
    start_log(job.run_dir / f"{cfg.task.name}.log")
    if announce is not None:
        announce(cfg, job.run_dir.absolute())
    hooks = {} if on_epoch is None else {"on_epoch": on_epoch}
    return importlib.import_module(f"segtrain.tasks.{cfg.task.name}").run(cfg, job.run_dir, **hooks)


def _check_unchanged(cfg: Any, run_dir: Path) -> None:
    """Raise UserError if what a finished job of a sweep has read is not what it was: its scores are of other data."""
    task = importlib.import_module(f"segtrain.tasks.{cfg.task.name}")
    try:
        changes = task.describe_changes(cfg, run_dir) if hasattr(task, "describe_changes") else None
    except UserError as error:
        changes = str(error).rstrip(".")
    if changes is not None:
        raise UserError(f"{run_dir} is finished, but what it has read has changed ({changes}): restore that, choose "
                        f"another hydra.sweep.dir=, or remove {run_dir} to run this job again.")
