"""The typed schema of the fixed sections, and what is done to a composed config before anything is built from it.

The YAML in conf/ holds the values; here stand their types and ranges. Open groups (model, optim, scheduler, loss,
dataset, augmentation) are plain mappings, checked against the signature of their target in segtrain.build.
"""

import difflib
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.errors import UserError

OPEN_GROUPS = ("model", "optim", "scheduler", "loss", "dataset", "augmentation")
RECIPE_GROUPS = ("experiment", "debug")  # they set values of other sections and leave no section of their own


def _value(at_least: float | None = None, above: float | None = None, below: float | None = None,
           one_of: tuple[str, ...] = ()) -> Any:
    """Declare a value that conf/ must give, with the range it has to lie in."""
    limits = {"at_least": at_least, "above": above, "below": below, "one_of": one_of}
    return field(default=MISSING, metadata={name: limit for name, limit in limits.items() if limit not in (None, ())})


@dataclass
class TrainSection:
    epochs: int = _value(at_least=1)
    max_steps: int | None = _value(at_least=1)
    max_minutes: float | None = _value(above=0)
    batch_size: int = _value(at_least=1)
    accumulate: int = _value(at_least=1)
    clip_norm: float | None = _value(above=0)
    ema_decay: float | None = _value(above=0, below=1)
    val_every: int = _value(at_least=1)
    monitor: str = _value(one_of=("miou", "macc", "pacc", "fwiou", "iiou", "loss"))
    patience: int | None = _value(at_least=1)
    new_head: bool = _value()
    num_images: int | None = _value(at_least=1)
    examples: int = _value(at_least=0)


@dataclass
class RuntimeSection:
    device: str = _value()
    precision: str = _value(one_of=("auto", "fp32", "bf16", "fp16"))
    channels_last: bool = _value()
    compile: Any = _value(one_of=("auto", "true", "false"))
    workers: Any = _value()
    threads: int | None = _value(at_least=1)
    trusted: list[str] = _value()


@dataclass
class TaskSection:
    name: str = _value(one_of=("train", "evaluate"))


@dataclass
class DatasetSettings:
    """What conf/dataset/*.yaml hold beside the arguments of their class: the same for every dataset."""

    num_classes: int | None = _value(at_least=1)
    split: str = _value()
    instances: str | None = _value(one_of=("maps", "components"))
    cache: Any = _value(one_of=("auto", "true", "false"))
    crop: list[int] = _value()
    mean: list[float] = _value()
    std: Any = _value()


@dataclass
class Config:
    task: TaskSection = field(default_factory=TaskSection)
    train: TrainSection = field(default_factory=TrainSection)
    runtime: RuntimeSection = field(default_factory=RuntimeSection)
    model: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    seed: int = _value(at_least=0)
    checkpoint: str | None = _value()
    resume: str | None = _value()


def register() -> None:
    """Make the schema known to Hydra, under the name that conf/config.yaml starts its defaults list with."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("swept_keys", _job_folder, replace=True)


def _job_folder(job_number: Any, *, _root_: DictConfig) -> str:
    """Name a sweep job's folder from the keys that differ between the jobs, in at most 120 bytes."""
    given = set(sys.argv[1:])
    overrides = OmegaConf.select(_root_, "hydra.overrides.task")
    swept = [override for override in overrides if override not in given]
    name = re.sub(r"[^\w.=,+-]", "_", ",".join(swept)) or str(job_number)
    if len(name.encode()) > 120:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name.encode()[:110].decode(errors='ignore')}-{digest}"
    return name


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to a misspelt one, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def check(cfg: DictConfig) -> DictConfig:
    """Check a composed config against the schema: names, types and ranges of the fixed sections.

    Hydra accepts `+train.epochz=3`; merging into a structured config once more does not.

    Returns:
        The config with every interpolation still in place and no key missing.

    Raises:
        UserError: Names the first key at fault.
    """
    try:
        checked = OmegaConf.merge(OmegaConf.structured(Config), cfg)
    except OmegaConfBaseException as error:
        raise UserError(explain(error, known_keys(OmegaConf.structured(Config)))) from error
    assert isinstance(checked, DictConfig)
    for missing in sorted(OmegaConf.missing_keys(checked)):
        raise UserError(f"{missing} has no value: give it one, {missing}=...")
    _check_ranges(Config, checked, "")
    _check_dataset(checked.dataset)
    return checked


def _check_dataset(node: DictConfig) -> None:
    values = to_container(node)
    settings = {item.name: values[item.name] for item in fields(DatasetSettings) if item.name in values}
    try:
        checked = OmegaConf.merge(OmegaConf.structured(DatasetSettings), settings)
    except OmegaConfBaseException as error:
        raise UserError(f"dataset.{explain(error, ())}") from error
    for missing in sorted(OmegaConf.missing_keys(checked)):
        raise UserError(f"dataset.{missing} has no value: give it one, dataset.{missing}=...")
    _check_ranges(DatasetSettings, checked, "dataset.")
    if len(checked.crop) != 2 or min(checked.crop) < 32:
        raise UserError(f"dataset.crop={list(checked.crop)} must be [height, width], each at least 32 pixels.")


def _check_ranges(schema: type, section: Any, prefix: str) -> None:
    for item in fields(schema):
        key = f"{prefix}{item.name}"
        value = section[item.name]
        if isinstance(item.type, type) and is_dataclass(item.type):
            _check_ranges(item.type, value, f"{key}.")
            continue
        limits = item.metadata
        if value is None:
            continue
        if "one_of" in limits and str(value).lower() not in limits["one_of"]:
            known = limits["one_of"]
            raise UserError(f"{key}={value} is unknown: use one of {', '.join(known)}.{nearest(str(value), known)}")
        if "at_least" in limits and not value >= limits["at_least"]:
            raise UserError(f"{key}={value} is too small: it must be at least {limits['at_least']}.")
        if "above" in limits and not value > limits["above"]:
            raise UserError(f"{key}={value} is too small: it must be above {limits['above']}.")
        if "below" in limits and not value < limits["below"]:
            raise UserError(f"{key}={value} is too large: it must be below {limits['below']}.")


def known_keys(cfg: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of a config in dotted form, sections included."""
    for name in cfg:
        key = f"{prefix}{name}"
        yield key
        if OmegaConf.is_missing(cfg, name) or OmegaConf.is_interpolation(cfg, name):
            continue
        if isinstance(cfg[name], DictConfig):
            yield from known_keys(cfg[name], f"{key}.")


def explain(error: Exception, known: Iterable[str]) -> str:
    """Say in one line which key of a config is wrong, and which known key is nearest."""
    key = str(getattr(error, "full_key", None) or "")
    reason = (getattr(error, "msg", None) or str(error)).splitlines()[0]
    if type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError"):
        return f"{key} is not a key of the configuration.{nearest(key, known)}"
    return f"{key}: {reason}" if key else reason


def overlay(saved: DictConfig, composed: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Put what the command line overrides on top of a saved config.

    A group override (model=fcn8) replaces the group, a value override (train.epochs=9) its value; everything else
    stays as saved. The composed config supplies the values, so that interpolations and group files count.

    Args:
        saved: The config of a run or of a checkpoint.
        composed: This command's own config, of which only the overridden keys are read.
        overrides: The command line's overrides, e.g. ["model=fcn8", "train.epochs=9"].

    Raises:
        UserError: For experiment= and debug=, which set many values at once.
    """
    result = OmegaConf.create(OmegaConf.to_container(saved))
    for override in overrides:
        key = override_key(override)
        if key in RECIPE_GROUPS:
            raise UserError(f"{override} cannot be laid over a saved run: name the single values to change instead.")
        value = OmegaConf.select(composed, key, default=None)
        if isinstance(value, DictConfig):
            value = OmegaConf.create(OmegaConf.to_container(value))
        OmegaConf.update(result, key, value, merge=False, force_add=True)
    return result


def override_key(override: str) -> str:
    """Return the dotted key an override sets: "+model@x.depth=3" gives "model"."""
    key = override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]
    return key.replace("/", ".")


def read_yaml(path: Path) -> DictConfig:
    """Read a YAML mapping.

    Raises:
        UserError: If the file cannot be read or is no mapping.
    """
    try:
        cfg = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # PyYAML's errors share no importable base here
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path} is not a YAML mapping")
    return cfg


def from_container(container: dict[str, Any]) -> DictConfig:
    """Make a config of plain dicts and lists, as a checkpoint holds them."""
    return OmegaConf.create(container)


def to_container(cfg: Any) -> dict[str, Any]:
    """Return a config as plain dicts, lists and numbers, interpolations resolved."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}

