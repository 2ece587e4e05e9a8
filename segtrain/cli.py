"""The command: compose the config, check it, run its task, exit. The only place that ends the process."""

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra is to raise its errors for us to explain, not print them and exit

import hydra
from omegaconf import DictConfig, OmegaConf

from segtrain import terminal
from segtrain.commands import shortcuts
from segtrain.config import arguments, compose, hydra_plugin, messages
from segtrain.config.hydra_plugin import Command, Job
from segtrain.config.overrides import CONFIG
from segtrain.distributed import launch, process_group
from segtrain.errors import Stopped, UserError
from segtrain.run import directory
from segtrain.run.logging import log, log_failure, start_log, stop_log
from segtrain.run.results import DISTRIBUTION, RESULTS
from segtrain.sweep import jobs

USER_ERROR, PEER_LOSS = 2, 1


@terminal.silent_completion()
def main() -> NoReturn:
    """Run the command line and exit: 0 done, 2 user error, 128 + signal stopped, 1 a bug."""
    terminal.open_streams()
    if sys.argv[1:] == ["--version"]:
        print(f"segtrain {version(DISTRIBUTION)}")  # Hydra would print its own
        sys.exit(0)
    if sys.argv[1:2] and sys.argv[1] in shortcuts.COMMANDS:
        _print_and_exit(lambda: importlib.import_module(f"segtrain.commands.{sys.argv[1]}").main(sys.argv[2:]))
    if not {"--help", "-h"}.isdisjoint(sys.argv[1:]):
        from segtrain.commands.help import show_help  # needs pydantic, which a completion must not wait for

        _print_and_exit(lambda: show_help(sys.argv[1:]) if process_group.is_first() else None)
    _find_modules_here()
    hydra_plugin.share_config_store()
    command = Command(launch.Processes(), partial(directory.hold, remedy="choose another hydra.sweep.dir="))
    hydra_plugin.current_command.set(command)
    with command.held:
        _lead(command)


def _lead(command: Command) -> NoReturn:
    """Run a command in this process, report its errors, and exit."""
    errors = command.failures
    try:
        with command.processes:
            if process_group.is_main():
                launch.check_arguments(sys.argv[1:])
                sys.argv[1:] = arguments.prepare_arguments(shortcuts.expand(sys.argv[1:]))
                _hydra_main()
            else:
                command.processes.follow()
        if not errors:
            command.processes.part()
    except Stopped as stopped:
        _end_sweep(command, is_stopped=True)
        _leave(128 + stopped.signum)
    except KeyboardInterrupt:
        _end_sweep(command, is_stopped=True)
        _clean(command)
        sys.exit(128 + signal.SIGINT)
    except hydra_plugin.CommandRefused as refused:
        errors = [refused.args[0]]
    except Exception as error:  # Hydra raises the first failed job's again
        errors = command.failures or [error]
    if errors:
        launch.let_the_first_speak()
    errors = _end_sweep(command) or errors
    if not errors:
        sys.exit(0)
    _report(errors, command)


def _print_and_exit(answer: Callable[[], object]) -> NoReturn:
    """Print what needs no configuration, and exit; a reader such as head may have read enough before the end."""
    try:
        answer()
        sys.stdout.flush()
    except UserError as error:
        terminal.complain(f"segtrain: {terminal.printable(str(error))}")
        sys.exit(USER_ERROR)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the rest goes when Python flushes it
    sys.exit(0)


def _find_modules_here() -> None:
    """Let _target_ name modules in the working directory."""
    here = str(Path.cwd())
    if here not in sys.path:  # as python -m does, but last: nothing there can hide an installed package
        sys.path.append(here)


def _end_sweep(command: Command, *, is_stopped: bool = False) -> list[Exception]:
    """End the sweep that the command is, if it is one; return the errors of its jobs in other processes."""
    sweep = command.sweep
    if sweep is None:
        return []
    return jobs.end(sweep.directory, sweep.command, has_ended_jobs=command.has_ended_jobs,
                    report=_report_sweep if sweep.with_report and not is_stopped else None)


def _report_sweep(sweep_dir: Path) -> Path | None:
    """Write the report of a sweep; return its file, or None if it could not be written."""
    from segtrain.report.render import try_report  # slow to import, as the tasks: --help must not wait for it
    from segtrain.report.sweep_page import write_sweep

    return try_report(write_sweep, sweep_dir)


def _report(errors: list[Exception], command: Command) -> NoReturn:
    """Print the message of the first error and exit; a bug keeps its traceback."""
    texts = [_message(error, is_of_job=error in command.failures) for error in errors]
    bugs = [error for error, text in zip(errors, texts, strict=True) if text is None]
    if bugs:
        if isinstance(bugs[0], jobs.BugElsewhereError):
            print(f"segtrain: {terminal.printable(str(bugs[0]))}", file=sys.stderr)
            _leave(1)
        if process_group.is_started():
            traceback.print_exception(bugs[0])
            _leave(1)
        raise bugs[0]
    _clean(command)
    more = f" ({len(texts)} jobs failed, see the leaderboard)" if len(texts) > 1 else ""
    terminal.complain(f"segtrain: {launch.named(terminal.printable(str(texts[0])))}{more}")
    _leave(PEER_LOSS if launch.peer_loss(errors[0]) else USER_ERROR)


def _clean(command: Command) -> None:
    """Remove the folders that a command has made and left empty."""
    command.held.close()
    directory.remove_empty(command.made)


def _message(error: Exception, *, is_of_job: bool = True) -> str | None:
    """Return the message of an error that the user can do something about; None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    return (launch.peer_loss(error) or jobs.lost_worker(error) or compose.explain(error, is_of_job=is_of_job)
            or messages.machine(error))


def _leave(code: int) -> NoReturn:
    """End the process; one of several at once, for torch would wait at its end for what others do not send."""
    if process_group.is_started():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


# ---- one run, or one job of a sweep


def _job(tree: DictConfig) -> float | None:
    """Run what Hydra has composed; a sweeper compares the score that is returned."""
    job = hydra_plugin.current_job()
    command = hydra_plugin.current_command.get(None)
    try:
        if job.sweep_dir is not None:
            directory.refuse_link_out(job.run_dir, job.sweep_dir)
        with directory.hold(job.run_dir):
            if job.sweep_dir is not None:
                return _run_in_sweep(tree, job, job.sweep_dir, command)
            assert command is not None, "a single run is never given to another process"
            return _run_alone(tree, job, command)
    except directory.InUseError as error:  # its files are the other process's
        if command is None:
            raise UserError(str(error)) from None  # which every launcher can send to the process that leads
        command.failures.append(error)
        if job.sweep_dir is not None:
            raise
        return None
    finally:
        stop_log()


# Not as a decorator: launchers send _job to other processes by its name, which must lead to itself.
_hydra_main = hydra.main(config_path="pkg://segtrain.conf", config_name="config", version_base="1.3")(_job)


def _run_alone(tree: DictConfig, job: Job, command: Command) -> float | None:
    """Run a task; one that is refused leaves nothing behind."""
    was_empty = directory.is_empty(job.run_dir)
    try:
        return _run_task(tree, job, command)
    except KeyboardInterrupt:
        if was_empty and directory.holds_results(job.run_dir):
            terminal.complain(f"segtrain: stopped; go on with: {terminal.shell(f'resume={job.run_dir}')}")
        elif was_empty:
            stop_log()
            directory.empty(job.run_dir)
            terminal.complain("segtrain: stopped before anything was saved; the same command starts it again")
        raise
    except Exception as error:
        command.failures.append(error)  # main reports it; Hydra would print a line of its own first
        message = _message(error)
        is_cut_off = launch.peer_loss(error) is not None and (job.run_dir / CONFIG).exists()
        if message is not None and was_empty and not directory.holds_results(job.run_dir) and not is_cut_off:
            stop_log()
            directory.empty(job.run_dir)
        else:
            log_failure(error, message)
        return None


def _run_in_sweep(tree: DictConfig, job: Job, sweep_dir: Path, command: Command | None) -> float | None:
    """Run a task as a job of a sweep, and enter it into the leaderboard, however it ends."""
    if command is None:
        _find_modules_here()
    was_empty = directory.is_empty(job.run_dir)
    task = str(OmegaConf.select(tree, "task.name"))
    sort = OmegaConf.select(tree, "train.monitor" if task == "train" else "task.sort")

    def enter(**outcome: Any) -> None:
        jobs.enter(job, sweep_dir, task, sort=sort, is_elsewhere=command is None, **outcome)
        if command is not None:
            command.has_ended_jobs = True

    try:
        score = _run_task(tree, job, command)
    except Exception as error:
        if command is not None:
            command.failures.append(error)
        message = _message(error)
        if was_empty and not log.handlers:  # refused before there was a log
            start_log(job.run_dir / f"{task}.log")
        log_failure(error, message)
        enter(error=message or repr(error), is_bug=message is None,
              is_entered=was_empty or not (job.run_dir / RESULTS).exists())  # a finished job stays as it is
        if message is not None and command is None:
            raise UserError(message) from None  # which every launcher can send to the process that leads
        raise
    finally:
        jobs.free_memory()
    enter()
    return score


def _run_task(tree: DictConfig, job: Job, command: Command | None) -> float | None:
    """Check the config, say what is done, and do it."""
    from segtrain.config.check import check_config  # slow to import, as all below: --help must not wait for it
    from segtrain.config.early import refuse_early

    cfg = check_config(tree, job.overrides)
    refuse_early(cfg, job.choices)
    print(_first_line(cfg, job), flush=True)  # what follows takes seconds to import
    if job.sweep_dir is not None:
        jobs.check_direction(job.direction, cfg.train.monitor, cfg.task.name)
    elif job.has_search:
        raise UserError("search= chooses what a sweep looks for, and this is none: add -m.")
    if cfg.resume is not None and Path(cfg.resume).absolute() != job.run_dir.absolute():
        raise UserError("resume= is for the command line of a single run, resume=DIR; a sweep goes on with its "
                        "former command and hydra.sweep.dir=.")
    from segtrain.runner import run_task  # needs torch, for which a wrong value must not wait

    return run_task(cfg, job, None if command is None else command.processes.announce)


def _first_line(cfg: Any, job: Job) -> str:
    """Say in a line what the command is about to do."""
    parts = [f"segtrain {version(DISTRIBUTION)}", cfg.task.name]
    if cfg.resume is not None or cfg.rerun is not None:
        parts.append(f"resume {cfg.resume}" if cfg.rerun is None else f"rerun {cfg.rerun}")
    elif cfg.checkpoint is not None and cfg.task.name in shortcuts.INSIDE:
        parts.append(f"checkpoint {cfg.checkpoint}")
    elif cfg.task.name != "report":
        parts += [f"{group} {job.choices.get(group)}" for group in ("model", "dataset")]
    return terminal.printable("  ".join([*parts, f"device {cfg.runtime.device}"]))
