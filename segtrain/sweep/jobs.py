"""A sweep from beside its jobs: what each of them leaves in the sweep's directory, whichever process ran it."""

import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segtrain.errors import UserError
from segtrain.files import locked, read_json, write_text
from segtrain.metrics import comparison
from segtrain.sweep import leaderboard, table


class BugElsewhereError(Exception):
    """A bug that another process has met; a log has its traceback."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        job: Its folder's name.
        message: What went wrong; None if nothing did.
        is_bug: Whether that is not the user's to mend.
    """

    job: str
    message: str | None
    is_bug: bool


def check_direction(direction: str | None, monitor: str, task: str) -> None:
    """Check that a sweeper that searches looks for the better end of the score that jobs return.

    Args:
        direction: The sweeper's, "minimize" or "maximize"; None if it has none, as it only tries what it is told.
        monitor: The score, one of train.monitor.
        task: What the jobs do.

    Raises:
        UserError: If it looks for the worse end, or for several values.
    """
    if direction is None:
        return
    if task not in ("train", "evaluate", "score"):
        raise UserError(f"task={task} has no score that a sweeper could search by: use task=train, or "
                        "hydra/sweeper=basic.")
    right = comparison.better(monitor)
    if direction != right:
        raise UserError(f"hydra.sweeper.direction={direction} looks for the worst train.monitor={monitor}: set "
                        f"hydra.sweeper.direction={right}, or use search=optuna, which does so.")


def enter(sweep_dir: Path, run_dir: Path, task: str, overrides: Sequence[str], *, sort: str | None,
          error: str | None = None, is_bug: bool = False, is_entered: bool = True, command: str | None = None) -> None:
    """Enter a job into the leaderboard of its sweep, and say so in a line.

    Args:
        sweep_dir: The sweep's directory.
        run_dir: The job's.
        task: What it does.
        overrides: What it overrides.
        sort: What the leaderboard is sorted by; None: the task's first column.
        error: Why the job failed; None if it did not.
        is_bug: Whether that is not the user's to mend.
        is_entered: Whether it has a row; a finished job that was refused keeps the one it has.
        command: The name of the command whose process is to be told; None if it is this one.
    """
    if is_entered:
        rows = leaderboard.update(sweep_dir, run_dir, task, overrides, sort=sort, error=error)
        done = sum(row["status"] == "done" for row in rows)
        print(f"\nsweep: {done} jobs done, {len(rows) - done} failed; {sweep_dir / 'leaderboard.csv'}\n", flush=True)
    if command is None:
        return
    path = _journal(sweep_dir, command)
    with locked(sweep_dir / leaderboard.NAME):  # one lock for all files of a sweep
        earlier = read_json(path) if path.exists() else []
        write_text(path, json.dumps([*earlier, vars(Ended(run_dir.name, error, is_bug))]))


def end(sweep_dir: Path, command: str, *, has_ended_jobs: bool,
        report: Callable[[Path], Path | None] | None) -> list[Exception]:
    """Show the leaderboard of a sweep of which jobs have ended, and write its report if that is wanted.

    Args:
        sweep_dir: The sweep's directory.
        command: The name of the command that this process runs.
        has_ended_jobs: Whether jobs have ended in this process.
        report: Writes the report and returns its file; None for no report.

    Returns:
        The errors of jobs that ran in other processes.
    """
    errors: list[Exception] = []
    path = _journal(sweep_dir, command)
    elsewhere = [Ended(**entry) for entry in read_json(path)] if path.exists() else []
    path.unlink(missing_ok=True)
    for ended in elsewhere:
        if ended.message is not None:
            bug = f"a bug of segtrain, of which the log in {sweep_dir / ended.job} has more: {ended.message}"
            errors.append(BugElsewhereError(bug) if ended.is_bug else UserError(ended.message))
    if (elsewhere or has_ended_jobs) and (sweep_dir / leaderboard.NAME).exists():
        _show(sweep_dir, report)
    return errors


def _journal(sweep_dir: Path, command: str) -> Path:
    """Return the file in which other processes tell how their jobs ended."""
    return sweep_dir / f".jobs-{command}.json"


def _show(sweep_dir: Path, report: Callable[[Path], Path | None] | None) -> None:
    try:
        print(f"\n{table.format_leaderboard(sweep_dir)}", flush=True)
    except UserError as error:  # which the jobs have met as well
        print(f"segtrain: {error}", file=sys.stderr)
        return
    path = None if report is None else report(sweep_dir)
    if path is not None:
        print(f"report: {path}")


def lost_worker(error: BaseException) -> str | None:
    """Explain that a process which ran jobs for a launcher is gone; None if that is not the error."""
    if type(error).__name__ not in ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError"):
        return None
    reason = " ".join(str(error).split())
    return ("a process that ran jobs has ended without a word, as the system ends it when memory is short "
            f"({reason[:200]}): run fewer at once (hydra.launcher.n_jobs=), and start the same command again with the "
            "same hydra.sweep.dir=, which skips what is done.")


def free_memory() -> None:
    """Give back what a job held: the next one shares its process."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
