"""The command in several processes: the first one reads the command line and decides, the others run what it says.

So there is one run directory, and an error of the command is reported once.
"""

import contextlib
import importlib
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segtrain.distributed import process_group
from segtrain.errors import UserError

TASKS = ("train", "evaluate")


class Processes:
    """The processes that torchrun has started, as this one sees them; without torchrun there is only this one.

    As a context manager it meets the others, and leaves none of them waiting for a job.
    """

    def __init__(self) -> None:
        self._has_job = False

    def __enter__(self) -> "Processes":
        if process_group.is_asked():
            process_group.start()
        return self

    def __exit__(self, *error: object) -> None:
        if process_group.is_main() and not self._has_job:
            with contextlib.suppress(RuntimeError):  # they may be gone already
                process_group.broadcast(None)

    def announce(self, cfg: Any, run_dir: Path) -> None:
        """Tell the other processes what to run; UserError if the config is for a task of one process."""
        if process_group.is_started() and cfg.task.name not in TASKS:
            raise UserError(f"task={cfg.task.name} runs in one process: start it without torchrun "
                            f"(in several run {' and '.join(TASKS)}).")
        self._has_job = True
        process_group.broadcast((cfg, run_dir))

    def follow(self) -> None:
        """Run what the first process announces, silently: that one reports."""
        job: tuple[Any, Path] | None = process_group.broadcast(None)
        if job is None:
            return
        self._has_job = True
        cfg, run_dir = job
        logging.getLogger("segtrain").setLevel(logging.CRITICAL + 1)
        importlib.import_module(f"segtrain.tasks.{cfg.task.name}").run(cfg, run_dir)

    def part(self) -> None:
        """Wait for the others, where there was a job that all have done."""
        if self._has_job:
            process_group.finish()


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for a sweep in several processes: torchrun would have to start each of its jobs."""
    if process_group.is_started() and any(
            argument == "-m" or argument.lower().startswith(("--mu", "hydra.mode=multi")) for argument in arguments):
        raise UserError("-m under torchrun: start each job with torchrun by itself, or run the sweep without torchrun "
                        "(docs/how-to/multi-gpu.md).")


# ---- messages


def let_the_first_speak() -> None:
    """Wait, in the other processes: if the first one has the same error it reports it, and torchrun ends them."""
    if not process_group.is_main():
        time.sleep(process_group.COMMON_ERROR)


def named(message: str) -> str:
    """Put the number of the process in front of a message, unless it is the first."""
    return message if process_group.is_main() else f"process {process_group.rank()}: {message}"


def peer_loss(error: BaseException) -> str | None:
    """Explain that another process is gone; None if it is not."""
    if not process_group.is_peer_loss(error):
        return None
    reason = re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", (str(error).splitlines() or [""])[0]).split(". ")[0]
    return ("another process of the job has ended, so this one cannot go on: its own message says why, or the system "
            f"killed it, as it does when memory is short ({reason[:200]}). What was saved is intact.")
