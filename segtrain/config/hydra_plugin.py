"""What segtrain adds to Hydra: resolvers and a callback; and what it asks it of the job that runs."""

import contextlib
import itertools
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config.arguments import quote, read_path
from segtrain.config.overrides import CONFIG_DIR, expand_home, override_key
from segtrain.distributed.launch import Processes
from segtrain.errors import UserError
from segtrain.files import remove_alias
from segtrain.metrics import comparison

# What a job knows of its sweep, in hydra.job.env_set: it may run in another process, which has another sys.argv.
COMMAND, SWEPT = "SEGTRAIN_SWEEP", "SEGTRAIN_SWEPT"
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
                                             f"+hydra.job.env_set.{SWEPT}='{swept}'",
                                             f"hydra.sweep.dir={quote(config.hydra.sweep.dir)}"]

    def _note(self, section: DictConfig) -> None:
        with contextlib.suppress(OmegaConfBaseException, OSError):  # Hydra will raise it itself
            section.dir = expand_home(section.dir)
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
    overrides: list[str]  # that make its config, --config-dir= among them
    choices: dict[str, str]  # the file of each group
    sweep_dir: Path | None  # None for a run that is not part of a sweep
    command: str | None  # the name of the sweep's command, `Sweep.command`
    direction: str | None  # "minimize" or "maximize" if the sweeper searches by a score
    has_search: bool  # whether search= chooses what a sweep looks for


def current_job() -> Job:
    """Return the job that Hydra is running."""
    hydra = HydraConfig.get()
    return make_job(hydra, Path(hydra.runtime.output_dir), is_sweep=hydra.mode == RunMode.MULTIRUN)


def make_job(hydra: Any, run_dir: Path, *, is_sweep: bool = False) -> Job:
    """Return a job from Hydra's own section of its config."""
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    direction = hydra.sweeper.get("direction")
    return Job(
        run_dir=run_dir,
        overrides=[*(f"{CONFIG_DIR}={Path(folder).absolute()}" for folder in folders),
                   *(_with_whole_root(override) for override in _task_overrides(hydra)
                     if override_key(override) != "resume")],
        choices=dict(hydra.runtime.choices),
        sweep_dir=Path(hydra.sweep.dir) if is_sweep else None,
        command=hydra.job.env_set.get(COMMAND),
        direction=None if direction is None else str(getattr(direction, "name", direction)),
        has_search=bool(hydra.runtime.choices.get("search")))


def _with_whole_root(override: str) -> str:
    """Return an override with an absolute path where it sets dataset.root: the command is printed to be used again."""
    key, _, value = override.partition("=")
    if key.lstrip("+") != "dataset.root" or value in ("", "null") or "${" in value:
        return override
    return f"{key}={quote(str(Path(read_path(value)).absolute()))}"


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
