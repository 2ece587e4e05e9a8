"""The folders of runs: which ones a command makes, to remove them if it is refused, and the names of a sweep's jobs."""

import contextlib
import hashlib
import re
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.errors import UserError

made: list[Path] = []  # by this command, outermost first
sweeps: list["Sweep"] = []  # the one that this command is, if it is one

# What a job knows of its sweep, in hydra.job.env_set: the job may run in another process, which has another sys.argv.
COMMAND, SWEPT = "SEGTRAIN_SWEEP", "SEGTRAIN_SWEPT"


@dataclass(frozen=True)
class Sweep:
    """A sweep, as the command that starts its jobs knows it.

    Attributes:
        directory: hydra.sweep.dir.
        command: A name for this command; the same sweep started again has another.
        with_report: Whether its end wants a report.
    """

    directory: Path
    command: str
    with_report: bool


class NoteFolders(Callback):
    """Note which folders a command is about to make, and tell the jobs of a sweep what it sweeps over."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._note(config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._note(config.hydra.sweep)
        with contextlib.suppress(OmegaConfBaseException):  # Hydra will say so itself
            command = uuid.uuid4().hex[:12]
            is_training = OmegaConf.select(config, "task.name", default="train") == "train"
            sweeps[:] = [Sweep(Path(config.hydra.sweep.dir), command, is_training and bool(config.train.report))]
            config.hydra.overrides.hydra += [f"+hydra.job.env_set.{COMMAND}={command}",
                                             f"+hydra.job.env_set.{SWEPT}='{','.join(_swept(sys.argv[1:]))}'"]

    def _note(self, section: DictConfig) -> None:
        with contextlib.suppress(OmegaConfBaseException, OSError):  # Hydra will say so itself
            path = Path(section.dir).absolute()
            made[:] = [each for each in (*reversed(path.parents), path) if not each.exists()]
            if (path / "multirun.yaml").is_symlink():
                (path / "multirun.yaml").unlink()  # Hydra is about to write it, wherever it leads


def remove_empty() -> None:
    """Remove the folders that this command made, as far as nothing is in them."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            if {each.name for each in folder.iterdir()} == {"multirun.yaml"}:  # Hydra's, of a sweep without a job
                (folder / "multirun.yaml").unlink()
            folder.rmdir()


def refuse_links(run_dir: Path) -> None:
    """Refuse a run directory of which a part is a link to elsewhere: a run writes into its own directory only.

    Raises:
        UserError: Names the first such link.
    """
    inside = run_dir.resolve()
    for path in sorted(run_dir.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UserError(f"{path} is a link to {path.resolve()}, and a run writes into its own directory only: put "
                            "what it leads to in its place, or move the whole run directory and link that.")


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def task_overrides(overrides: Any) -> list[str]:
    """Return a job's overrides as they were given, what they interpolate left alone."""
    container: Any = OmegaConf.to_container(overrides)
    return container["task"]


def _job_folder(job_number: Any, *, _root_: DictConfig) -> str:
    """Name a sweep job's folder from the keys that differ between the jobs, in at most 120 bytes."""
    told = OmegaConf.select(_root_, f"hydra.job.env_set.{SWEPT}") or ""
    keys = {*(OmegaConf.select(_root_, "hydra.sweeper.params") or ()), *told.split(",")}
    overrides = task_overrides(_root_.hydra.overrides)
    given = ",".join(each for each in overrides if each.split("=", 1)[0] in keys) or str(job_number)
    name = re.sub(r"[^\w.=,+\[\]-]", "_", given)
    if name == given and len(name.encode()) <= 120:
        return name
    digest = hashlib.sha256(given.encode()).hexdigest()[:8]  # a/b and a_b must not share a folder
    return f"{name.encode()[:110].decode(errors='ignore')}-{digest}"


def _swept(arguments: Iterable[str]) -> Iterator[str]:
    """Yield the keys that a command line gives several values each."""
    parser = OverridesParser.create()
    for argument in arguments:
        with contextlib.suppress(HydraException):  # a flag
            override = parser.parse_override(argument)
            if override.is_sweep_override():
                yield override.get_key_element()


OmegaConf.register_new_resolver("swept_keys", _job_folder, replace=True)
