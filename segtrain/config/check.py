"""What is done to a composed config before anything is built from it: checked, and laid over a saved one.

The fixed sections are checked against schema.py. The open groups are plain mappings, each checked against the signature
of its target when that is called.
"""

import io
import math
import operator
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config import messages
from segtrain.config.schema import TASKS, Config, DatasetSettings, TaskSection
from segtrain.errors import UserError, did_you_mean
from segtrain.files import check_plain, read_yaml_text
from segtrain.metrics import comparison

OPEN_GROUPS = ("model", "optim", "scheduler", "loss", "dataset", "augmentation")
RECIPE_GROUPS = ("experiment", "search", "debug")  # they set values of other sections and leave no section of their own

# What a run takes from its data and model, where the config leaves it open.
SETTLED = ("dataset.num_classes", "dataset.std", "model.num_classes")
LIMITS = (("at_least", operator.ge, "small: it must be at least"), ("above", operator.gt, "small: it must be above"),
          ("below", operator.lt, "large: it must be below"))
# What runs did that are older than a key.
FORMERLY = {"train.freeze_encoder": False, "train.encoder_lr": None, "train.weight_decay_on": "all",
            "train.on_nonfinite": "stop", "train.save_steps": None, "train.save_minutes": None, "train.keep": 2,
            "runtime.sync_batchnorm": False, "train.report": True}
# What ends a run: a finished one goes on where one of them was raised.
ENDS = ("epochs", "max_steps", "max_minutes", "patience")
WITHOUT_EFFECT = ("task.sort", "train.report", "runtime.trusted")  # on weights and scores


def register() -> None:
    """Make known what conf/ refers to: the schema, which config.yaml starts with, ${if:x,yes,no}, ${better:score}."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("better", comparison.better, replace=True)
    OmegaConf.register_new_resolver("if", lambda condition, yes, no: yes if condition else no, replace=True)


def check(cfg: DictConfig) -> DictConfig:
    """Check the names, types and ranges of a composed config; Hydra accepts even `+train.epochz=3`.

    Returns:
        The config, typed, its interpolations still in place.

    Raises:
        UserError: Names the first key at fault.
    """
    try:
        _check_kinds(Config, OmegaConf.to_container(cfg), "")  # before the dataset's section is read
        _check_dataset(cfg.get("dataset") or {})  # first, for other sections interpolate it
        checked = _merged(Config, cfg, "")
        OmegaConf.resolve(checked.copy())
        _check_ranges(Config, checked, "")
        checked.task = OmegaConf.to_container(_checked_task(checked.task))
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        raise UserError(messages.value_error(error, lambda: known_keys(cfg))) from error
    if checked.task.name == "train":
        if checked.train.monitor == "iiou" and checked.dataset.get("instances") is None:
            raise UserError("train.monitor=iiou needs instances: set dataset.instances=components, or monitor miou.")
        if checked.train.new_head and checked.checkpoint is None:
            raise UserError("train.new_head=true needs checkpoint=, the weights to start from.")
        if checked.train.freeze_encoder and checked.train.encoder_lr is not None:
            raise UserError(f"train.freeze_encoder=true and train.encoder_lr={checked.train.encoder_lr} contradict: "
                            "a frozen encoder does not learn; leave one of them out.")
    return checked


def _check_kinds(schema: type, values: Any, prefix: str) -> None:
    """Check what OmegaConf would say without a key (no section, no list) or bend: it takes 7 for true."""
    for item in fields(schema):
        key, value = f"{prefix}{item.name}", values.get(item.name)
        if isinstance(value, str) and "${" in value:
            continue
        section = item.type if isinstance(item.type, type) and is_dataclass(item.type) else None
        types = [typing.get_origin(each) for each in (item.type, *typing.get_args(item.type))]
        if (section or types[0] is dict) and not isinstance(value, dict | None):
            raise UserError(f"{key}={_shown(value)} has the wrong type: it is a section, set its values one by one, "
                            f"{key}.name=...")
        if section and isinstance(value, dict):
            _check_kinds(section, value, f"{key}.")
        elif list in types:
            if not isinstance(value, list | str | None):
                raise UserError(f"{key} has the wrong type: it must be a list, {key}=[...].")
        elif item.type is bool and not isinstance(value, bool | None) and value != "???":
            raise UserError(f"{key}={_shown(value)} has the wrong type: it must be true or false.")


def _merged(schema: type, values: Any, prefix: str) -> DictConfig:
    """Merge values into a schema, which rejects unknown keys and wrong types; all values must be there."""
    structured = OmegaConf.structured(schema)
    # As plain values: of a config that was typed already, unknown keys would be taken over.
    plain: Any = OmegaConf.to_container(values) if isinstance(values, DictConfig) else values
    try:
        _check_kinds(schema, plain, prefix)
        merged = OmegaConf.merge(structured, plain)
    except OmegaConfBaseException as error:
        raise UserError(messages.value_error(error, lambda: [f"{prefix}{key}" for key in known_keys(structured)],
                                            prefix)) from error
    assert isinstance(merged, DictConfig)
    for missing in sorted(OmegaConf.missing_keys(merged)):
        raise UserError(f"{prefix}{missing} has no value: give it one, {prefix}{missing}=...")
    return merged


def _checked_task(node: DictConfig) -> DictConfig:
    """Check the section of the task, whose keys depend on its name."""
    _check_ranges(TaskSection, _merged(TaskSection, {"name": node.get("name")}, "task."), "task.")
    section = TASKS.get(node["name"], TaskSection)
    checked = _merged(section, node, "task.")
    _check_ranges(section, checked, "task.")
    return checked


def _check_dataset(node: Any) -> None:
    values = to_container(node) if node else {}
    known = {item.name: values[item.name] for item in fields(DatasetSettings) if item.name in values}
    checked = _merged(DatasetSettings, known, "dataset.")
    _check_ranges(DatasetSettings, checked, "dataset.")
    std = known["std"]
    if std != "auto" and (not isinstance(std, list) or len(std) != len(checked.mean) or not all(
            isinstance(value, (int, float)) and value > 0 for value in std)):
        raise UserError(f"dataset.std={_shown(std)} must be auto or a list of {len(checked.mean)} numbers above 0, "
                        "one for each of dataset.mean.")


def _check_ranges(schema: type, section: Any, prefix: str) -> None:
    for item in fields(schema):
        key, value = f"{prefix}{item.name}", section[item.name]
        if isinstance(item.type, type) and is_dataclass(item.type):
            _check_ranges(item.type, value, f"{key}.")
        elif value is not None or item.type is Any:
            _check_range(key, value, dict(item.metadata))


def _check_range(key: str, value: Any, limits: dict[str, Any]) -> None:
    """Check one value against the limits that the schema declares."""
    if limits.pop("image_size", False) and (len(value) != 2 or min(value) < 32):
        raise UserError(f"{key}={value} must be [height, width], each at least 32 pixels.")
    if limits.pop("or_auto", False):
        if value == "auto":
            return
        if "at_least" in limits and type(value) is not int:
            raise UserError(f"{key}={_shown(value)} has the wrong type: it must be auto or a whole number.")
    known = limits.get("one_of")
    if known and not any(type(value) is type(each) and value == each for each in known):
        names = [_shown(each) for each in known]
        raise UserError(f"{key}={_shown(value)} is unknown: use one of {', '.join(names)}."
                        f"{did_you_mean(_shown(value), names)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value} is no finite number.")
    if isinstance(value, int):
        limits.setdefault("below", 2**31)
    for name, holds, said in LIMITS:
        if name in limits and not holds(value, limits[name]):
            raise UserError(f"{key}={value} is too {said} {limits[name]}.")


def _shown(value: Any) -> str:
    """Write a value as YAML does."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def known_keys(cfg: Any) -> list[str]:
    """Return every key of a config in dotted form, sections included."""
    return [key for key, _ in _walk(OmegaConf.to_container(cfg))]


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings, sections before what is in them."""
    for name, value in node.items():
        yield f"{prefix}{name}", value
        if isinstance(value, dict):
            yield from _walk(value, f"{prefix}{name}.")


def overlay(saved: DictConfig, composed: DictConfig, overrides: Iterable[str]) -> DictConfig:
    """Put what the command line overrides on top of a saved config.

    A group override (model=fcn8) replaces the group, a value override (train.epochs=9) its value; everything else
    stays as saved. The composed config supplies the values, so that interpolations and group files count.

    Args:
        saved: The config of a run or of a checkpoint.
        composed: This command's own config, of which only the overridden keys are read.
        overrides: The command line's overrides, e.g. ["model=fcn8", "train.epochs=9"].

    Raises:
        UserError: For experiment= and debug=, which set many values at once, and for a section that is none.
    """
    container: Any = OmegaConf.to_container(saved)
    _check_kinds(Config, container, "")
    result: Any = OmegaConf.create(container)
    values: Any = OmegaConf.to_container(composed)  # interpolations stay: they shall read the saved values around them
    for section in ("train", "runtime"):  # a run may be older than some of their keys
        result[section] = OmegaConf.merge(values[section], result.get(section, {}))
    for override in overrides:
        key = override_key(override)
        if key in RECIPE_GROUPS:
            raise UserError(f"{override} cannot be laid over a saved run: name the single values to change instead.")
        _lay(result, key, values)
        for other in _derived(values, key):
            if OmegaConf.select(result, other) is not None:
                _lay(result, other, values)
    return result


def _lay(result: DictConfig, key: str, values: Any) -> None:
    """Set one key of a config to what it is in plain values, or delete it if it is not there."""
    parent, _, name = key.rpartition(".")
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            above = OmegaConf.select(result, parent) if parent else result
            if isinstance(above, DictConfig):
                above.pop(name, None)
            return
        values = values[part]
    OmegaConf.update(result, key, values, merge=False, force_add=True)


def _derived(values: Any, key: str) -> Iterator[str]:
    """Yield the keys whose value is an interpolation of a key: the augmentation's crop follows dataset.crop."""
    for other, value in _walk(values):
        if isinstance(value, str) and re.search(rf"\$\{{{re.escape(key)}[}}\[]", value):
            yield other


def difference(composed: DictConfig, saved: DictConfig) -> str | None:
    """Return the first key in which a run's saved config is not what this command would run.

    Args:
        composed: This command's config.
        saved: The run's: the same, with what was left open settled. `runtime` belongs to the machine, and what
            is WITHOUT_EFFECT may differ.
    """
    wanted, found = (dict(_walk(to_container(cfg))) for cfg in (composed, saved))
    found = {**FORMERLY, **found}
    for key in sorted(wanted.keys() | found.keys()):
        if isinstance(wanted.get(key), dict) and isinstance(found.get(key), dict):
            continue
        was_open = key in SETTLED and wanted.get(key) in (None, "auto")
        if not was_open and not key.startswith("runtime.") and key not in WITHOUT_EFFECT and (
                wanted.get(key) != found.get(key)):
            return key
    return None


def is_prolonged(cfg: DictConfig, saved: DictConfig) -> bool:
    """Say whether a config lets a training go on for longer than its saved one: one of ENDS is raised, or null."""
    pairs = [(saved.train.get(key), cfg.train[key]) for key in ENDS]
    return cfg.task.name == "train" and any(old is not None and (new is None or new > old) for old, new in pairs)


def override_key(override: str) -> str:
    """Return the dotted key an override sets: "+model@x.depth=3" gives "model"."""
    key = override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]
    return key.replace("/", ".")


def read_yaml(path: Path) -> DictConfig:
    """Read a saved config; UserError if the file cannot be read, or holds anything but a mapping of plain values."""
    text = read_yaml_text(path)
    try:
        cfg = OmegaConf.load(io.StringIO(text))
    except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path} is not a YAML mapping")
    check_plain(OmegaConf.to_container(cfg), str(path))
    return cfg


def from_container(container: dict[str, Any], where: str = "the checkpoint") -> DictConfig:
    """Make a config of plain dicts and lists, as a checkpoint holds them; UserError if they hold anything else."""
    check_plain(container, where)
    return OmegaConf.create(container)


def to_container(cfg: Any) -> dict[str, Any]:
    """Return a config as plain dicts, lists and numbers, interpolations resolved."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested mappings as dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
