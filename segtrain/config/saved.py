"""Configs that were saved with a run or in a checkpoint: read, laid under a command's overrides, compared."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config import build
from segtrain.config.check import check_config
from segtrain.config.instantiate import check_trust, without_download
from segtrain.config.overrides import CONFIG, find_changes, lay_over, merge_overrides, override_key
from segtrain.config.schema import Config
from segtrain.errors import UserError, show_value
from segtrain.files import check_plain, read_yaml_text

# What ends a run: a finished one continues if one of them was raised.
ENDS = ("epochs", "max_steps", "max_minutes", "patience")
BESIDE = ("overrides", "versions")  # what config.yaml holds beside the config
# Which change no score.
OF_COMMAND = ("runtime.", "logger", "train.log_every", "train.accept_changed_data", "train.report", "task.sort")
# What its weights have learnt to expect.
OF_NETWORK = ("dataset.channels", "dataset.dtype", "dataset.range", "dataset.mean", "dataset.std")


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a run: the config, and the `overrides` and `versions` of the run.

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
    overrides = plain.setdefault("overrides", [])
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise UserError(f"{path}: overrides is not a list of text as segtrain writes it: choose another file.")
    versions = plain.setdefault("versions", {})
    if not isinstance(versions, dict) or not all(isinstance(value, str | None) for value in versions.values()):
        raise UserError(f"{path}: versions is not a mapping of names to versions: choose another file.")
    return plain


def config_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config alone of what `read_config` returns."""
    return {key: value for key, value in plain.items() if key not in BESIDE}


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

    The normalisation stays that of the network, whichever dataset the command chooses, unless it is itself overridden.

    Raises:
        UserError: Names the key at fault; or a `_target_` of the file that may not be built.
    """
    check_plain(config, str(path))
    return _under_overrides({**config, "overrides": []}, f"the configuration in {path}", cfg, "task", "runtime",
                            kept=OF_NETWORK)


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
    file = path / CONFIG if path.is_dir() else path
    return _under_overrides(read_config(file), str(file), cfg, "runtime.trusted", "resume", "rerun")


def _under_overrides(plain: Mapping[str, Any], where: str, cfg: Config[Any], *own: str,
                     kept: Sequence[str] = ()) -> Config[Any]:
    """Return a saved config under a command's overrides.

    The keys `own` are always the command's; the keys `kept` stay as saved where only their group is overridden.
    """
    try:
        saved, overridden = config_of(plain), {override_key(override) for override in cfg.overrides}
        laid = lay_over(saved, cfg.tree(), [*cfg.overrides, *own])
        laid = lay_over(laid, saved, [key for key in kept if key not in overridden])
        check_trust(laid, cfg.overrides, cfg.runtime.trusted)
        checked = check_config(laid, merge_overrides(plain["overrides"], cfg.overrides))
        return without_download(checked, cfg.overrides)
    except UserError as error:
        raise UserError(f"{where} under this command's overrides: {error}") from error


def started_again(plain: Mapping[str, Any], path: Path, cfg: Config[Any]) -> Config[Any]:
    """Return the config of a run that the same command starts again: the run's own, on this machine's runtime.

    Raises:
        UserError: If the run is not what this command would run; names the first key that differs.
    """
    saved = config_of(plain)
    different = find_difference(cfg, saved)
    if different is not None:
        key, (former, now) = different
        raise UserError(f"{path.parent} holds a run of another configuration ({key} was {show_value(former)}, and is "
                        f"{show_value(now)} now): choose another hydra.sweep.dir=, or hydra.run.dir= for a single run.")
    of_command = [override for override in cfg.overrides if override_key(override).startswith(OF_COMMAND)]
    return check_config(lay_over(saved, cfg.tree(), of_command), plain["overrides"])


def find_difference(cfg: Config[Any], saved: Mapping[str, Any]) -> tuple[str, tuple[Any, Any]] | None:
    """Return the first key in which a run's saved config is not what this command would run, with both values.

    A value that the command leaves open is what it is settled to; of the data only the number of classes matters there.
    """
    dataset = saved.get("dataset")
    num_classes = cfg.dataset.num_classes or (dataset.get("num_classes") if isinstance(dataset, dict) else None)
    settled = build.settle(cfg, torch.device("cpu"), num_classes=num_classes or 1, cached_in_memory=True)
    asked, meant = (find_changes(saved, either.plain()) for either in (cfg, settled))
    unmeasured = {f"dataset.{key}" for key in build.list_unmeasured(cfg)}
    return next(((key, meant[key]) for key in sorted(asked.keys() & meant.keys() - unmeasured)
                 if not key.startswith(OF_COMMAND)), None)


def is_prolonged(cfg: Config[Any], saved: Mapping[str, Any]) -> bool:
    """Return whether a config lets a training go on for longer than its saved one: one of ENDS is raised, or null."""
    train = saved.get("train")
    if cfg.task.name != "train" or not isinstance(train, dict):
        return False
    pairs = [(train.get(key), getattr(cfg.train, key)) for key in ENDS]
    return any(old is not None and (new is None or new > old) for old, new in pairs)

