"""Configs that were saved with a run or in a checkpoint: read, laid under a command's overrides, compared."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config.check import check_config
from segtrain.config.instantiate import check_trust, without_download
from segtrain.config.overrides import flatten, lay_over, merge_overrides, override_key
from segtrain.config.schema import Config
from segtrain.errors import UserError
from segtrain.files import check_plain, read_yaml_text

# What ends a run: a finished one continues if one of them was raised.
ENDS = ("epochs", "max_steps", "max_minutes", "patience")
LISTS = ("open", "overrides")  # that config.yaml holds beside the config
WITHOUT_EFFECT = ("task.sort", "train.report", "runtime.trusted")  # on weights and scores


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run: the config, and the `open` keys, `overrides` and `versions` of the run.

    Raises:
        UserError: If the file cannot be read, or holds anything but a mapping of plain values.
    """
    text = read_yaml_text(path)
    try:
        tree = OmegaConf.load(io.StringIO(text))  # which refuses a key that is there twice, as yaml does not
    except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path} is not a YAML mapping")
    plain: Any = OmegaConf.to_container(tree)
    check_plain(plain, str(path))
    for name in LISTS:
        items = plain.setdefault(name, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise UserError(f"{path}: {name} is not a list of text as segtrain writes it: choose another file.")
    versions = plain.setdefault("versions", {})
    if not isinstance(versions, dict) or not all(isinstance(value, str | None) for value in versions.values()):
        raise UserError(f"{path}: versions is not a mapping of names to versions: choose another file.")
    return plain


def config_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config alone of what `read_config` returns."""
    return {key: value for key, value in plain.items() if key not in (*LISTS, "versions")}


def check_saved(config: Mapping[str, Any], where: object) -> None:
    """Raise UserError unless a saved config is one of plain values that a command may have."""
    try:
        check_plain(config, str(where))
        check_config(dict(config))
    except UserError as error:
        named = "" if str(where) in str(error) else f"{where}: "
        raise UserError(f"{named}{error} Restore the file, or choose another.") from error


def from_checkpoint(config: Mapping[str, Any], path: Path, cfg: Config[Any]) -> Config[Any]:
    """Return a checkpoint's config under a command's overrides, with the command's task and this machine's runtime.

    Raises:
        UserError: Names the key at fault; or a `_target_` of the file that may not be built.
    """
    check_plain(config, str(path))
    plain = {**config, **{name: [] for name in LISTS}}
    return _under_overrides(plain, f"the configuration in {path}", cfg, "task", "runtime")


def continued(plain: Mapping[str, Any], path: Path, cfg: Config[Any]) -> Config[Any]:
    """Return the config of the run to continue, which `read_config` found in a file, under a command's overrides.

    Raises:
        UserError: Names the file, and the key at fault.
    """
    # trust is given on the command line, never by a file
    return _under_overrides(plain, str(path), cfg, "runtime.trusted")


def run_again(path: Path, cfg: Config[Any]) -> Config[Any]:
    """Return the config of a run, or of its config.yaml, under a command's overrides, for a new run.

    Raises:
        UserError: Names the file, and the key at fault.
    """
    file = path / "config.yaml" if path.is_dir() else path
    return _under_overrides(read_config(file), str(file), cfg, "runtime.trusted", "resume", "rerun")


def _under_overrides(plain: Mapping[str, Any], where: str, cfg: Config[Any], *own: str) -> Config[Any]:
    """Return a saved config under a command's overrides; the keys `own` are always the command's."""
    try:
        laid = lay_over(config_of(plain), cfg.tree(), [*cfg.overrides, *own])
        check_trust(laid, cfg.overrides, cfg.runtime.trusted)
        checked = check_config(laid, merge_overrides(plain["overrides"], cfg.overrides), plain["open"])
        return without_download(checked, cfg.overrides)
    except UserError as error:
        raise UserError(f"{where} under this command's overrides: {error}") from error


def started_again(plain: Mapping[str, Any], path: Path, cfg: Config[Any]) -> Config[Any]:
    """Return the config of a run that the same command starts again: the run's own, on this machine's runtime.

    Raises:
        UserError: If the run is not what this command would run; names the first key that differs.
    """
    saved = config_of(plain)
    different = difference(cfg.plain(), saved, plain["open"])
    if different is not None:
        raise UserError(f"{path.parent} holds a run of another configuration ({different} differs): choose another "
                        "hydra.sweep.dir=, or hydra.run.dir= for a single run.")
    of_machine = [override for override in cfg.overrides if override_key(override).startswith("runtime.")]
    return check_config(lay_over(saved, cfg.tree(), of_machine), plain["overrides"], plain["open"])


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any], open_keys: Sequence[str]) -> str | None:
    """Return the first key in which a run's saved config is not what this command would run.

    Keys that both left open are the same, whatever they were settled to; `runtime` belongs to the machine;
    WITHOUT_EFFECT may differ.
    """
    one, other = flatten(wanted), flatten(found)
    for key in sorted(one.keys() | other.keys()):
        was_open = key in open_keys and one.get(key) in (None, "auto")
        if not was_open and not key.startswith("runtime.") and key not in WITHOUT_EFFECT and (
                one.get(key) != other.get(key)):
            return key
    return None


def is_prolonged(cfg: Config[Any], saved: Mapping[str, Any]) -> bool:
    """Return whether a config lets a training go on for longer than its saved one: one of ENDS is raised, or null."""
    train = saved.get("train")
    if cfg.task.name != "train" or not isinstance(train, dict):
        return False
    pairs = [(train.get(key), getattr(cfg.train, key)) for key in ENDS]
    return any(old is not None and (new is None or new > old) for old, new in pairs)

