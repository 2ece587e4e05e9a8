"""What the jobs of a sweep leave in its directory, whichever process ran them: leaderboard, errors, report."""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segtrain.config.hydra_plugin import Job
from segtrain.errors import UserError
from segtrain.files import locked, read_json, write_text
from segtrain.metrics import comparison
from segtrain.sweep import leaderboard, table
from segtrain.terminal import printable


class BugElsewhereError(Exception):
    """A bug that another process has met; a log has its traceback."""


def check_direction(direction: str | None, monitor: str, task: str) -> None:
    """Check that a sweeper that searches looks for the better end of the score that jobs return.

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


def enter(job: Job, sweep_dir: Path, task: str, *, sort: str | None, error: str | None = None, is_bug: bool = False,
          is_entered: bool = True, is_elsewhere: bool = False) -> None:
    """Enter a job that has ended into the leaderboard of its sweep, and print a line about it.

    Args:
        sort: The column that the leaderboard is sorted by; None: the task's first.
        error: Why the job failed; None if it did not.
        is_bug: Whether that is a bug of segtrain.
        is_entered: Whether it has a row; a finished job that was refused keeps the one it has.
        is_elsewhere: Whether this process runs jobs for a launcher: the process of the command reads of the end.
    """
    if is_entered:
        rows = leaderboard.update(sweep_dir, job.run_dir, task, job.overrides, sort=sort, error=error)
        done = sum(row["status"] == "done" for row in rows)
        board = printable(str(sweep_dir / "leaderboard.csv"))
        print(f"\nsweep: {done} jobs done, {len(rows) - done} failed; {board}\n", flush=True)
    if is_elsewhere and job.command is not None:
        path = _journal(sweep_dir, job.command)
        with locked(sweep_dir / leaderboard.NAME):  # one lock for all files of a sweep
            earlier = _read_journal(path)
            ended = {"job": job.run_dir.name, "error": error, "is_bug": is_bug}
            write_text(path, json.dumps([*earlier, ended]))


def end(sweep_dir: Path, command: str, *, has_ended_jobs: bool,
        report: Callable[[Path], Path | None] | None) -> list[Exception]:
    """Show the leaderboard of a sweep of which jobs have ended, and write its report if that is wanted.

    Args:
        command: The name of the command that this process runs.
        has_ended_jobs: Whether jobs have ended in this process.
        report: Writes the report and returns its file; None for no report.

    Returns:
        The errors of jobs that ran in other processes.
    """
    path = _journal(sweep_dir, command)
    elsewhere = _read_journal(path)
    path.unlink(missing_ok=True)
    if (elsewhere or has_ended_jobs) and (sweep_dir / leaderboard.NAME).exists():
        try:
            print(f"\n{table.format_leaderboard(sweep_dir)}", flush=True)
            written = report(sweep_dir) if report is not None else None
            if written is not None:
                print(printable(f"report: {written}"))
        except UserError as error:  # a damaged leaderboard, by which the jobs have failed as well
            print(printable(f"segtrain: {error}"), file=sys.stderr)
    return [BugElsewhereError(f"a bug of segtrain, of which the log in {sweep_dir / ended['job']} has more: "
                              f"{ended['error']}") if ended["is_bug"] else UserError(ended["error"])
            for ended in elsewhere if ended["error"] is not None]


def _journal(sweep_dir: Path, command: str) -> Path:
    """Return the file in which other processes write how their jobs ended."""
    return sweep_dir / f".jobs-{command}.json"


def _read_journal(path: Path) -> list[dict[str, Any]]:
    from segtrain.schemas import check_content  # slow to import: --help must not wait for it
    from segtrain.sweep.file_schemas import Journal

    if not path.exists():
        return []
    ended = read_json(path)
    check_content(Journal, ended, path, "remove it, and start the same command again")
    return ended


def lost_worker(error: BaseException) -> str | None:
    """Explain the end of a process that ran jobs for a launcher; None for another error."""
    if type(error).__name__ not in ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError"):
        return None
    reason = " ".join(str(error).split())
    return ("a process that ran jobs was killed, as the system does when memory is short "
            f"({reason[:200]}): run fewer at once (hydra.launcher.n_jobs=), and start the same command again with the "
            "same hydra.sweep.dir=, which skips what is done.")


def free_memory() -> None:
    """Free what a job held: the next one shares its process."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
