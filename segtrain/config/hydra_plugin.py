"""What segtrain adds to Hydra: resolvers, a callback, the command's arguments; and what it asks it: jobs, keys."""

import contextlib
import itertools
import re
import sys
import traceback
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config.messages import composition_error, value_error
from segtrain.config.overrides import OPEN_GROUPS, RECIPE_GROUPS, override_key, walk
from segtrain.distributed.launch import Processes
from segtrain.errors import UserError
from segtrain.files import remove_alias
from segtrain.metrics import comparison

if TYPE_CHECKING:
    from segtrain.config.schema import Config

# What a job knows of its sweep, in hydra.job.env_set: it may run in another process, which has another sys.argv.
COMMAND, SWEPT = "SEGTRAIN_SWEEP", "SEGTRAIN_SWEPT"
# Keys whose values are paths, which may have any name.
PATHS = ("checkpoint", "rerun", "hydra.run.dir", "hydra.sweep.dir", "dataset.root", "task.input", "task.output",
         "task.run", "task.evaluation", "task.predictions", "task.weights")
MOST_CHECKED = 100  # values of a key that are checked before a sweep begins


def register_resolvers() -> None:
    """Make known what conf/ interpolates: ${if:x,yes,no}, ${better:score}, ${swept_keys:number}."""
    OmegaConf.register_new_resolver("better", comparison.better, replace=True)
    OmegaConf.register_new_resolver("if", lambda condition, yes, no: yes if condition else no, replace=True)
    OmegaConf.register_new_resolver("swept_keys", _job_folder, replace=True)


def share_config_store() -> None:
    """Keep Hydra from copying its whole store for each group that --help lists, which takes a second.

    What is loaded from the store is copied then. Launchers pickle the store, so copyreg cannot do this.
    """
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


# ---- the command


@dataclass(frozen=True)
class Sweep:
    """A sweep, as the command that starts its jobs knows it."""

    directory: Path  # hydra.sweep.dir
    command: str  # a name for this command; the same sweep started again has another
    with_report: bool


@dataclass
class Command:
    """The state of the command in the process that runs it."""

    processes: Processes  # that torchrun has started
    hold: Callable[[Path], AbstractContextManager[None]]  # holds the directory of a sweep against other processes
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # while the command runs
    made: list[Path] = field(default_factory=list)  # the folders that it makes, outermost first
    sweep: Sweep | None = None
    failures: list[Exception] = field(default_factory=list)  # of jobs in this process: a sweep continues after one
    has_ended_jobs: bool = False  # whether a job of the sweep has ended in this process


# The command that this process runs, for what Hydra calls; a process that runs jobs for a launcher has none.
current_command: ContextVar[Command] = ContextVar("command")


class NoteFolders(Callback):
    """Note which folders a command is about to make, and tell the jobs of a sweep what it sweeps over."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._note(config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _check_sweep(config, sys.argv[1:])
        self._note(config.hydra.sweep)
        with contextlib.suppress(OmegaConfBaseException, OSError):  # Hydra will raise it itself
            _hold_sweep(Path(config.hydra.sweep.dir))
        with contextlib.suppress(OmegaConfBaseException):  # Hydra will raise it itself
            name = uuid.uuid4().hex[:12]
            is_training = OmegaConf.select(config, "task.name", default="train") == "train"
            with_report = is_training and bool(config.train.report)
            current_command.get().sweep = Sweep(Path(config.hydra.sweep.dir), name, with_report)
            swept = ",".join(override.get_key_element() for override in _swept(sys.argv[1:]))
            config.hydra.overrides.hydra += [f"+hydra.job.env_set.{COMMAND}={name}",
                                             f"+hydra.job.env_set.{SWEPT}='{swept}'"]

    def _note(self, section: DictConfig) -> None:
        with contextlib.suppress(OmegaConfBaseException, OSError):  # Hydra will raise it itself
            if _expand(section.dir) != section.dir:
                raise CommandRefused(UserError(f"{section.dir}: ~ is expanded on the command line only, write the "
                                               "whole path into the file (hydra.run.dir, hydra.sweep.dir)."))
            path = Path(section.dir).absolute()
            current_command.get().made = [made for made in (*reversed(path.parents), path) if not made.exists()]
            remove_alias(path / "multirun.yaml")  # Hydra is about to write it, wherever it leads


class CommandRefused(BaseException):  # not an Exception: Hydra makes a warning of those
    """A callback has found a user error: nothing is run."""


def _hold_sweep(folder: Path) -> None:
    """Hold the directory of a sweep until the command ends; refuse it if another process does."""
    command = current_command.get()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        command.held.enter_context(command.hold(folder))
    except UserError as error:
        raise CommandRefused(error) from error


def _check_sweep(config: DictConfig, arguments: Sequence[str]) -> None:
    """Check the values of fixed keys that a command line sweeps over, before any job is run."""
    from segtrain.config.check import check_sweep  # slow to import: --help must not wait for it

    tree = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    fixed = re.compile(r"(train|runtime)\.|seed$|dataset\.(num_classes|split|instances|cache|crop|mean|std)$")
    parser = OverridesParser.create()
    swept = []
    for override in _swept(arguments):
        key = override.key_or_group
        with contextlib.suppress(HydraException):  # a range that only Optuna knows
            if fixed.match(key):
                values = itertools.islice(override.sweep_string_iterator(), MOST_CHECKED)
                swept += [(key, parser.parse_override(f"{key}={value}").value()) for value in values]
    try:
        check_sweep(tree, swept)
    except UserError as error:
        raise CommandRefused(error) from error


@dataclass(frozen=True)
class Job:
    """A run, or a job of a sweep, as Hydra starts it."""

    run_dir: Path
    overrides: list[str]  # that make its config
    sweep_dir: Path | None  # None for a run that is not part of a sweep
    command: str | None  # the name of the sweep's command, `Sweep.command`
    direction: str | None  # "minimize" or "maximize" if the sweeper searches by a score
    has_search: bool  # whether search= chooses what a sweep looks for


def current_job() -> Job:
    """Return the job that Hydra is running."""
    hydra = HydraConfig.get()
    direction = hydra.sweeper.get("direction")
    return Job(
        run_dir=Path(hydra.runtime.output_dir),
        overrides=[override for override in _task_overrides(hydra) if override_key(override) != "resume"],
        sweep_dir=Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None,
        command=hydra.job.env_set.get(COMMAND),
        direction=None if direction is None else str(getattr(direction, "name", direction)),
        has_search=bool(hydra.runtime.choices.get("search")))


def _task_overrides(hydra: Any) -> list[str]:
    """Return a job's overrides as they were given, what they interpolate left alone."""
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)
    return overrides


def _job_folder(job_number: Any, *, _root_: DictConfig) -> str:
    """Name a sweep job's folder from the keys that differ between the jobs, in at most 120 bytes."""
    swept = OmegaConf.select(_root_, f"hydra.job.env_set.{SWEPT}") or ""
    keys = {*(OmegaConf.select(_root_, "hydra.sweeper.params") or ()), *swept.split(",")}
    overrides = _task_overrides(_root_.hydra)
    given = ",".join(override for override in overrides if override.split("=", 1)[0] in keys) or str(job_number)
    name = re.sub(r"[^\w.=,+\[\]-]", "_", given)
    if name == given and len(name.encode()) <= 120:
        return name
    digest = sha256(given.encode()).hexdigest()[:8]  # a/b and a_b must not share a folder
    return f"{name.encode()[:110].decode(errors='ignore')}-{digest}"


def _swept(arguments: Iterable[str]) -> list[Override]:
    """Return the overrides of a command line that give a key several values."""
    parser = OverridesParser.create()
    found = []
    for argument in arguments:
        with contextlib.suppress(HydraException):  # a flag
            override = parser.parse_override(argument)
            found += [override] if override.is_sweep_override() else []
    return found


# ---- its arguments


def prepare_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra needs them to continue a run or to use a saved config; paths may have any name.

    `resume=DIR` becomes the run directory, before Hydra makes a new one; DIR may have any name. What is overridden in
    an open group need not be in the group's default file, for the saved config may have chosen another.

    Raises:
        UserError: If resume= names no run directory, or contradicts another argument.
    """
    own_files = _find_config_dir(arguments)
    if own_files is not None and (own_files / "config.yaml").is_file():
        raise UserError(f"{own_files / 'config.yaml'} would not be read: --config-dir adds files to the groups. To run "
                        f"the configuration of a run again, use rerun={own_files}; values of your own belong into "
                        f"{own_files / 'experiment' / 'NAME.yaml'}, chosen by experiment=NAME.")
    arguments = [_prepare_path(argument) for argument in arguments]
    given = [argument for argument in arguments if argument.startswith("resume=") and argument != "resume=null"]
    uses_saved = (any(argument.startswith("task=") and argument != "task=train" for argument in arguments)
                  and any(argument.startswith("checkpoint=") for argument in arguments)
                  ) or any(argument.startswith("rerun=") for argument in arguments)
    if given or uses_saved:
        inside = re.compile(rf"({'|'.join(OPEN_GROUPS)})\.")
        arguments = [f"++{argument}" if inside.match(argument) else argument for argument in arguments]
    if not given:
        return list(arguments)
    text = given[-1].removeprefix("resume=")
    if not Path(text).is_dir() and len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]  # quoted for Hydra
    text = _expand(text)
    if not text or not Path(text).is_dir():
        raise UserError(f"resume={text} is not a directory: give the run directory to continue.")
    if not (Path(text) / "config.yaml").is_file():
        raise UserError(f"resume={text} is not a run directory: it has no config.yaml.")
    other = [argument for argument in arguments if argument.startswith("hydra.run.dir=")]
    if other:
        raise UserError(f"resume={text} continues the run in that directory: leave out {other[0]}.")
    quoted = QuotedString(text, Quote.single).with_quotes()
    rest = [argument for argument in arguments if argument not in given]
    return [f"resume={quoted}", f"hydra.run.dir={quoted}", *rest]


def _find_config_dir(arguments: Sequence[str]) -> Path | None:
    """Return the folder that --config-dir gives."""
    found = re.search(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.+)", "\n".join(arguments))
    return Path(found[1]) if found else None


def _prepare_path(argument: str) -> str:
    """Expand ~ in an argument that gives a path, and quote a path that Hydra would not read as one value."""
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATHS:
        return argument
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    given = value[1:-1] if is_quoted else value
    path = _expand(given)
    with contextlib.suppress(HydraException):
        OverridesParser.create().parse_override(argument)
        if path == given:
            return argument
    return f"{key}={QuotedString(path, Quote.single).with_quotes()}"


def _expand(path: str) -> str:
    """Replace a ~ that means the home directory, which a shell leaves alone behind an equals sign."""
    return str(Path(path).expanduser()) if path == "~" or path.startswith("~/") else path


# ---- its errors


def explain(error: Exception, *, is_of_job: bool) -> str | None:
    """Return the message of an error that Hydra or OmegaConf raised; None if it is of another kind.

    `is_of_job` is whether a job raised it: then an error in Hydra's own code is not about the command's arguments.
    """
    if isinstance(error, OmegaConfBaseException):
        return value_error(error, all_keys)
    if isinstance(error, HydraException) or (not is_of_job and _is_raised_in_hydra(error)):
        return composition_error(error, all_keys, files_in_folders)
    if isinstance(error, yaml.YAMLError):
        return f"a config file is not valid YAML: {' '.join(str(error).split())}"
    return None


def _is_raised_in_hydra(error: Exception) -> bool:
    """Return whether Hydra answers odd input with one of Python's own exceptions."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith(("hydra.", "omegaconf."))


def all_keys() -> list[str]:
    """Return every key of the config under the groups that the command line chooses, and the groups."""
    chosen = [argument for argument in sys.argv[1:] if argument.split("=", 1)[0] in (*OPEN_GROUPS, "task")]
    own_files = _find_config_dir(sys.argv[1:])
    if own_files is not None:  # Hydra does not read the command line here
        chosen.append(f"hydra.searchpath=['file://{own_files.absolute()}']")
    for overrides in (chosen, []):
        with contextlib.suppress(Exception), _initialized():
            tree: Any = OmegaConf.to_container(compose("config", overrides))
            return [*(key for key, _ in walk(tree)), *RECIPE_GROUPS]
    return []


def files_in_folders(group: str) -> list[str]:
    """Return the files of a group that are in folders of it, as folder/name."""
    with contextlib.suppress(Exception), _initialized():
        loader = GlobalHydra.instance().config_loader()
        return [f"{folder}/{name}" for folder in loader.get_group_options(group, ObjectType.GROUP)
                for name in loader.get_group_options(f"{group}/{folder}")]
    return []


def _initialized() -> initialize_config_module:
    """Return a context in which Hydra composes without a command."""
    GlobalHydra.instance().clear()
    return initialize_config_module("segtrain.conf", version_base="1.3")


def compose_config(overrides: Sequence[str]) -> "Config[Any]":
    """Compose and check the config that a command line with these overrides has."""
    from segtrain.config.check import check_config

    with _initialized():
        return check_config(compose("config", list(overrides)), overrides)
