"""The command: compose the config, check it, run its task. The only place that ends the process."""

import importlib
import logging
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from segtrain.run.logging import start_log, stop_log

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise its errors for us to explain, not print them and exit

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from segtrain import terminal
from segtrain.config import check, hydra_plugin, messages
from segtrain.distributed import launch, process_group
from segtrain.errors import Stopped, UserError
from segtrain.run import directory
from segtrain.sweep import jobs, leaderboard
from segtrain.sweep.jobs import BugElsewhereError

USER_ERROR, PEER_LOSS = 2, 1

failures: list[Exception] = []  # of this process's jobs: a sweep goes on after one, and reports them at its end
leads = False  # whether this process runs main; the others run jobs for a launcher, and tell it how they ended


@terminal.silent_completion()
def main() -> NoReturn:
    """Run the command line and exit: 0 done, 2 the user's to mend, 128 + signal stopped, 1 a bug."""
    global leads
    leads = True
    failures.clear()
    directory.made.clear()
    directory.sweeps.clear()
    _find_modules_here()
    errors: list[Exception] = failures
    try:
        with launch.joined():
            if process_group.is_main():
                launch.check_arguments(sys.argv[1:])
                sys.argv[1:] = _prepared(sys.argv[1:])
                _hydra_main()
            else:
                launch.follow(_take_over)
        if not failures:
            launch.part()
    except Stopped as stopped:
        jobs.end(directory.sweeps, is_stopped=True)
        _leave(128 + stopped.signum)
    except KeyboardInterrupt:
        jobs.end(directory.sweeps, is_stopped=True)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:  # Hydra raises the first failed job's again
        errors = failures or [error]
    if errors:
        launch.let_the_first_speak()
    errors = jobs.end(directory.sweeps) or errors
    messages = [None if message is None else terminal.printable(message) for message in map(_user_message, errors)]
    bugs = [error for error, message in zip(errors, messages, strict=True) if message is None]
    if bugs:
        if isinstance(bugs[0], BugElsewhereError):
            print(f"segtrain: {terminal.printable(str(bugs[0]))}", file=sys.stderr)
            _leave(1)
        if process_group.is_started():
            traceback.print_exception(bugs[0])
            _leave(1)
        raise bugs[0]
    if not messages:
        sys.exit(0)
    directory.remove_empty()
    more = f" ({len(messages)} jobs failed, see the leaderboard)" if len(messages) > 1 else ""
    terminal.complain(f"segtrain: {launch.named(str(messages[0]))}{more}")
    _leave(PEER_LOSS if launch.peer_loss(errors[0]) else USER_ERROR)


def _find_modules_here() -> None:
    """Let _target_ name modules in the working directory."""
    here = str(Path.cwd())
    if here not in sys.path:  # as python -m does, but last: nothing there can hide an installed package
        sys.path.append(here)


def _prepared(arguments: list[str]) -> list[str]:
    """Return the arguments as Hydra needs them to continue a run or to use a checkpoint's config.

    `resume=DIR` becomes the run directory, before Hydra makes a new one; DIR may have any name. What is overridden in
    an open group need not be in the group's default file, for the saved config may have chosen another.
    """
    given = [argument for argument in arguments if argument.startswith("resume=") and argument != "resume=null"]
    uses_saved = (any(argument.startswith("task=") and argument != "task=train" for argument in arguments)
                  and any(argument.startswith("checkpoint=") for argument in arguments))
    if given or uses_saved:
        inside = re.compile(rf"({'|'.join(check.OPEN_GROUPS)})\.")
        arguments = [f"++{argument}" if inside.match(argument) else argument for argument in arguments]
    if not given:
        return arguments
    text = given[-1].removeprefix("resume=")
    if not Path(text).is_dir() and len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]  # quoted for Hydra
    if not text or not Path(text).is_dir():
        raise UserError(f"resume={text} is no directory: give the run directory to continue.")
    if not (Path(text) / "config.yaml").is_file():
        raise UserError(f"resume={text} is no run directory: it has no config.yaml.")
    other = [argument for argument in arguments if argument.startswith("hydra.run.dir=")]
    if other:
        raise UserError(f"resume={text} continues the run in that directory: leave out {other[0]}.")
    quoted = QuotedString(text, Quote.single).with_quotes()
    rest = [argument for argument in arguments if argument not in given]
    return [f"resume={quoted}", f"hydra.run.dir={quoted}", *rest]


def _leave(code: int) -> NoReturn:
    """End the process; one of several at once, for torch would wait at its end for what others do not send."""
    if process_group.is_started():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _take_over(hydra_config: Any) -> None:
    """Make known what the config of a job of the first process may refer to."""
    check.register()
    setup_globals()
    HydraConfig.instance().cfg = hydra_config


# ---- one run, or one job of a sweep


def _job(cfg: DictConfig) -> float | None:
    if not leads:
        _find_modules_here()
    context = HydraConfig.get()
    run_dir = Path(context.runtime.output_dir)
    overrides = [each for each in directory.task_overrides(context.overrides) if check.override_key(each) != "resume"]
    is_sweep = context.mode == RunMode.MULTIRUN
    was_empty = not any(run_dir.iterdir())
    try:
        score = _run_task(cfg, run_dir, overrides, is_sweep)
    except Exception as error:
        failures.append(error)
        message = _user_message(error)
        if is_sweep:
            if was_empty and not logging.getLogger("segtrain").handlers:  # refused before there was a log
                start_log(run_dir / f"{cfg.task.name}.log")
            _write_down(error, message)
            stop_log()
            _enter(cfg, run_dir, overrides, error=message or repr(error), is_bug=message is None,
                   is_entered=was_empty or not (run_dir / "results.json").exists())  # a finished job stays as it is
            if message is not None and not leads:
                raise UserError(message) from None  # which every launcher can send to the process that leads
            raise
        is_cut_off = launch.peer_loss(error) is not None and (run_dir / "config.yaml").exists()
        if message is not None and was_empty and not _has_results(run_dir) and not is_cut_off:
            stop_log()
            directory.empty(run_dir)
        else:
            _write_down(error, message)
        return None  # main reports it; Hydra would print a line of its own first
    finally:
        stop_log()
        if is_sweep:
            jobs.free_memory()
    if is_sweep:
        _enter(cfg, run_dir, overrides)
    return score


# Not as a decorator: launchers send _job to other processes by its name, which must lead to itself.
_hydra_main = hydra.main(config_path="pkg://segtrain.conf", config_name="config", version_base="1.3")(_job)


def _has_results(run_dir: Path) -> bool:
    """Say whether a run that ended by an error leaves what is worth keeping: weights, predictions, a report."""
    return ((run_dir / "results.json").exists() or any((run_dir / "checkpoints").glob("*.pt"))
            or any((run_dir / "predictions").rglob("*.png")))


def _enter(cfg: DictConfig, run_dir: Path, overrides: list[str], **how: Any) -> None:
    """Enter a job of a sweep into its leaderboard, and tell the process that leads if that is another."""
    context = HydraConfig.get()
    sort = cfg.train.monitor if cfg.task.name == "train" else cfg.task.get("sort")
    jobs.enter(Path(context.sweep.dir), run_dir, cfg.task.name, overrides, sort=sort,
                 command=None if leads else context.job.env_set.get(directory.COMMAND), **how)


def _run_task(cfg: DictConfig, run_dir: Path, overrides: list[str], is_sweep: bool) -> float | None:
    """Check the config, lay it over the run to continue if there is one, and run its task."""
    cfg = check.check(cfg)
    if is_sweep:
        jobs.check_direction(HydraConfig.get().sweeper.get("direction"), cfg.train.monitor, cfg.task.name)
    elif HydraConfig.get().runtime.choices.get("search"):
        raise UserError("search= chooses what a sweep looks for, and this is none: add -m.")
    saved = _saved_config(cfg, run_dir, overrides, is_sweep)
    if saved is not None:
        finished = run_dir / "results.json"
        if finished.exists() and not _is_prolonged(saved, run_dir):
            print(f"{run_dir} is finished: nothing to do, its scores are in {finished}; "
                  "a training goes on for longer with train.epochs=")
            return leaderboard.read_score(finished, saved.train.monitor)
        cfg = saved
    start_log(run_dir / f"{cfg.task.name}.log")
    if saved is not None and not is_sweep:
        from segtrain.config import instantiate

        instantiate.check_trust(cfg, overrides, cfg.runtime.trusted)
    launch.announce(launch.Job(cfg, run_dir.absolute(), overrides, HydraConfig.instance().cfg))
    return importlib.import_module(f"segtrain.tasks.{cfg.task.name}").run(cfg, run_dir, overrides)


def _is_prolonged(cfg: DictConfig, run_dir: Path) -> bool:
    """Say whether a finished run has what it takes to go on, and is told to."""
    has_state = (run_dir / "checkpoints" / "last.pt").exists()
    return has_state and check.is_prolonged(cfg, check.read_yaml(run_dir / "config.yaml"))


def _saved_config(cfg: DictConfig, run_dir: Path, overrides: list[str], is_sweep: bool) -> DictConfig | None:
    """Return the config of the run to continue, under this command's overrides; None for a new run."""
    if cfg.resume is not None and Path(cfg.resume).absolute() != run_dir.absolute():
        raise UserError("resume= is for the command line of a single run, resume=DIR; a sweep goes on with its "
                        "former command and hydra.sweep.dir=.")
    is_again = is_sweep or (cfg.resume is None and process_group.is_restarted())  # the same command once more
    if cfg.resume is None and not is_again and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} is not empty: continue the run in it with resume={run_dir}, "
                        "or choose another hydra.run.dir=.")
    path = run_dir / "config.yaml"
    directory.refuse_links(run_dir)
    if not path.exists():
        return None
    saved = check.read_yaml(path)
    saved.pop("versions", None)
    if not is_again:
        try:
            laid = check.check(check.overlay(saved, cfg, overrides))
        except UserError as error:
            raise UserError(f"{path} under this command's overrides: {error}") from error
        laid.runtime.trusted = cfg.runtime.trusted  # trust is given on the command line, never by a file
        return laid
    different = check.difference(cfg, saved)
    if different is not None:
        raise UserError(f"{run_dir} holds a run of another configuration ({different} differs): "
                        f"choose another hydra.{'sweep' if is_sweep else 'run'}.dir=.")
    of_machine = [override for override in overrides if check.override_key(override).startswith("runtime.")]
    return check.check(check.overlay(saved, cfg, of_machine))


def _write_down(error: Exception, message: str | None) -> None:
    """Write why a job failed to its log, where it stays when the terminal is gone."""
    log = logging.getLogger("segtrain")
    trace = None if message is not None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message or "a bug of segtrain:", (), trace)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):  # the terminal hears of it from main
            handler.handle(record)


# ---- what to tell the user


def _user_message(error: Exception) -> str | None:
    """Return the message of an error that the user can mend; None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if lost := launch.peer_loss(error) or jobs.lost_worker(error):
        return lost
    if isinstance(error, OmegaConfBaseException):
        return messages.value_error(error, hydra_plugin.all_keys)
    if isinstance(error, HydraException) or (error not in failures and _is_raised_in_hydra(error)):
        return messages.composition(error, hydra_plugin.all_keys, hydra_plugin.files_in_folders)
    if isinstance(error, yaml.YAMLError):
        return f"a config file is not valid YAML: {' '.join(str(error).split())}"
    return messages.machine(error)


def _is_raised_in_hydra(error: Exception) -> bool:
    """Tell apart what Hydra says of odd input in Python's own exceptions."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith(("hydra.", "omegaconf."))
