"""The command in several processes: the first one reads the command line and decides, the others run what it says.

So there is one run directory, and what is wrong with a command is said once.
"""

import contextlib
import importlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtrain.distributed import process_group
from segtrain.errors import UserError

TASKS = ("train", "evaluate")


@dataclass
class Job:
    """What a task is run with: a typed config, and the run directory."""

    cfg: Any
    run_dir: Path


class Processes:
    """The processes that torchrun has started, as one of them sees them; without torchrun there is this one."""

    def __init__(self) -> None:
        self._is_announced = False
        self._has_job = False

    def announce(self, job: Job | None) -> None:
        """Tell the other processes what to run; None if there is nothing.

        Raises:
            UserError: If it is a task of one process.
        """
        if job is not None and process_group.is_started() and job.cfg.task.name not in TASKS:
            raise UserError(f"task={job.cfg.task.name} runs in one process: start it without torchrun "
                            f"(in several run {' and '.join(TASKS)}).")
        self._is_announced, self._has_job = True, job is not None
        process_group.broadcast(job)

    def follow(self) -> None:
        """Run what the first process announces, in silence: that one reports."""
        job: Job | None = process_group.broadcast(None)
        if job is None:
            return
        self._has_job = True
        logging.getLogger("segtrain").setLevel(logging.CRITICAL + 1)
        importlib.import_module(f"segtrain.tasks.{job.cfg.task.name}").run(job.cfg, job.run_dir)

    def release(self) -> None:
        """Tell waiting processes that there is no job, if none was announced."""
        if process_group.is_main() and not self._is_announced:
            with contextlib.suppress(RuntimeError):  # they may be gone already
                self.announce(None)

    def part(self) -> None:
        """Wait for the others, where there was a job that all have done."""
        if self._has_job:
            process_group.finish()


@contextlib.contextmanager
def joined(processes: Processes) -> Iterator[None]:
    """Meet the other processes that torchrun has started, if any, and leave none of them waiting for a job."""
    if process_group.is_asked():
        process_group.start()
    try:
        yield
    finally:
        processes.release()


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse a sweep in several processes: its jobs would have to begin anew within them."""
    if process_group.is_started() and any(
            argument == "-m" or argument.lower().startswith(("--mu", "hydra.mode=multi")) for argument in arguments):
        raise UserError("-m under torchrun: start each job with torchrun by itself, or run the sweep without torchrun "
                        "(docs/how-to/multi-gpu.md).")


# ---- what to tell the user


def let_the_first_speak() -> None:
    """Wait, in the other processes: if the first one has met the same error it says so, and torchrun ends them."""
    if not process_group.is_main():
        time.sleep(process_group.COMMON_ERROR)


def named(message: str) -> str:
    """Say which process a message is of, if it is not the first."""
    return message if process_group.is_main() else f"process {process_group.rank()}: {message}"


def peer_loss(error: BaseException) -> str | None:
    """Explain that another process is gone; None if it is not."""
    if not process_group.is_peer_loss(error):
        return None
    reason = re.sub(r"^\[[^\]]*\.cc:\d+\] ", "", (str(error).splitlines() or [""])[0]).split(". ")[0]
    return ("another process of the job has ended, so this one cannot go on: its own message says why, or the system "
            f"killed it, as it does when memory is short ({reason[:200]}). What was saved is intact.")
