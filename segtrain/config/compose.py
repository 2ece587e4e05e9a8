"""Compose configs without a command, and explain what Hydra or OmegaConf refuse."""

import contextlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config.arguments import find_config_dir
from segtrain.config.messages import composition_error, value_error
from segtrain.config.overrides import OPEN_GROUPS, RECIPE_GROUPS, expand_home, walk
from segtrain.errors import UserError

if TYPE_CHECKING:
    from segtrain.config.hydra_plugin import Job
    from segtrain.config.schema import Config


def compose_config(overrides: Sequence[str]) -> "Config[Any]":
    """Compose and check the config that a command line with these overrides has."""
    from segtrain.config.check import check_config

    with _initialized():
        return check_config(compose("config", list(overrides)), overrides)


def compose_job(arguments: Sequence[str]) -> "tuple[Config[Any], Job]":
    """Compose and check the config of a command line that is run from Python, and say where it runs.

    Raises:
        UserError: For what the command would refuse.
    """
    from segtrain.config.check import check_config
    from segtrain.config.hydra_plugin import make_job

    try:
        with _initialized():
            tree = compose("config", list(arguments), return_hydra_config=True)
            job = make_job(tree.hydra, Path(expand_home(tree.hydra.run.dir)))
    except Exception as error:
        message = explain(error, is_of_job=False)
        if message is None:
            raise
        raise UserError(message) from error
    return check_config(OmegaConf.masked_copy(tree, [str(key) for key in tree if key != "hydra"]), job.overrides), job


def _initialized() -> initialize_config_module:
    """Return a context in which Hydra composes without a command."""
    GlobalHydra.instance().clear()
    return initialize_config_module("segtrain.conf", version_base="1.3")


def all_keys() -> list[str]:
    """Return every key of the config under the groups that the command line chooses, and the groups."""
    chosen = [argument for argument in sys.argv[1:] if argument.split("=", 1)[0] in (*OPEN_GROUPS, "task")]
    own_files = find_config_dir(sys.argv[1:])
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
