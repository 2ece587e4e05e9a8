"""Start the command in several processes as torchrun does, but by forking from a warm one: a second instead of ten."""

import dataclasses
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import draw_no_confusion_matrix

from segtrain import cli
from segtrain.training import signals

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as distributed.start sets it, too late for a warm process
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["segtrain.cli", "segtrain.tasks.train", "segtrain.tasks.evaluate",
                             "torch.utils.tensorboard", "torch.nn.parallel"])


@dataclasses.dataclass
class Job:
    """A started command.

    Attributes:
        processes: By their rank.
        outputs: The file of each, with what it says.
    """

    processes: list
    outputs: list[Path]

    def said(self, rank: int) -> str:
        return self.outputs[rank].read_text()

    def everything(self) -> str:
        return "\n".join(f"--- process {rank}\n{self.said(rank)}" for rank in range(len(self.processes)))

    def wait(self, seconds: float = 90) -> list[int]:
        """Return the exit codes; end what does not end by itself, and fail."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        stuck = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for rank in stuck:
            self.processes[rank].kill()
            self.processes[rank].join()
        if stuck:
            pytest.fail(f"processes {stuck} did not end\n{self.everything()}")
        return [process.exitcode for process in self.processes]


def start(folder: Path, num_processes: int, *arguments: str, at_step: "tuple | None" = None, **environment: str) -> Job:
    """Start segtrain in so many processes, which write what they say into a folder.

    Args:
        folder: Made if it is not there.
        num_processes: How many; 1 for a plain run, of which torchrun knows nothing.
        arguments: The command line.
        at_step: (n, rank, what, *with): a function of this module that is called after the n-th step of a process, with
            the rest as its arguments.
        environment: Of all processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.txt")))
    job = Job([], [folder / f"{number}-{rank}.txt" for rank in range(num_processes)])
    for rank in range(num_processes):
        of_torchrun = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "MASTER_ADDR": "127.0.0.1",
                       "LOCAL_WORLD_SIZE": num_processes, "MASTER_PORT": port}
        variables = {**(of_torchrun if num_processes > 1 else {}), **environment}
        job.processes.append(WARM.Process(target=_run, args=(
            {name: str(value) for name, value in variables.items()}, arguments, str(job.outputs[rank]),
            at_step[2:] if at_step and at_step[1] == rank else None, at_step[0] if at_step else 0)))
        job.processes[-1].start()
    return job


def start_script(path: Path, *arguments: str, output: Path) -> Job:
    """Start a script that imports segtrain."""
    job = Job([WARM.Process(target=_run_script, args=(str(path), arguments, str(output)))], [output])
    job.processes[0].start()
    return job


def signal_itself(signum: int) -> None:
    os.kill(os.getpid(), signum)


def grow_impatient(path: str) -> None:
    """Wait for others no longer than a second after a signal, and say by a file that it is so."""
    signals.STUCK = 1.0
    Path(path).touch()


def pause(path: str) -> None:
    """Make a file and wait until somebody removes it."""
    Path(path).touch()
    while Path(path).exists():
        time.sleep(0.01)


def save_for_a_minute_from_now_on(path: str) -> None:
    """Let a save make a file and then take a minute, and ask for one by a Ctrl-C."""
    from segtrain.tasks import train

    def save_last(training):
        Path(path).touch()
        time.sleep(60)

    train.save_last = save_last
    os.kill(os.getpid(), signal.SIGINT)


def delete(path: str) -> None:
    Path(path).unlink()


def _write_to(output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)


def _run_script(path: str, arguments: tuple[str, ...], output: str) -> None:
    _write_to(output)
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def _run(variables: dict[str, str], arguments: tuple[str, ...], output: str, event: "tuple | None", step: int) -> None:
    _write_to(output)
    os.environ.update(variables)
    sys.path[:0] = [each for each in [variables.get("PYTHONPATH_FIRST")] if each]
    torch.set_num_threads(1)
    if event is not None:
        asked, original = [], signals.StopSignals.is_requested

        def is_requested(self):  # each process asks this after every step
            asked.append(self)
            if len(asked) == step:
                event[0](*event[1:])
            return original(self)

        signals.StopSignals.is_requested = is_requested
    draw_no_confusion_matrix(pytest.MonkeyPatch())
    sys.argv = ["segtrain", *arguments]
    cli.main()
