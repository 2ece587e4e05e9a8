"""From what Hydra composed, or a run saved, to a typed config: every fixed key is checked, each fault named."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from segtrain.config.messages import unknown_key, value_error
from segtrain.config.overrides import expand_home, walk
from segtrain.config.schema import (
    TASKS,
    Config,
    DatasetSection,
    RefusedValueError,
    Section,
    Settled,
    TaskSection,
    TaskT,
)
from segtrain.errors import UserError, did_you_mean, show_value

SectionT = TypeVar("SectionT", bound=Section)
# pydantic's types of errors
RANGES = {"greater_than_equal": "small: it must be at least {ge:g}", "greater_than": "small: it must be above {gt:g}",
          "less_than_equal": "large: it must be at most {le:g}", "less_than": "large: it must be below {lt:g}"}
NO_SECTION = ("model_type", "model_attributes_type", "dict_type", "dataclass_type")
EXPECTED = {int: "a whole number", float: "a number", str: "text", type(None): "null", list: "a list",
            dict: "a mapping", tuple: "[height, width]"}


def check_config(tree: DictConfig | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config[Any]:
    """Check the names, types and ranges of a whole config; Hydra accepts even `+train.epochz=3`.

    Args:
        tree: As Hydra composed it, interpolations and all, or plain values.
        overrides: The overrides of the command lines that made it.

    Raises:
        UserError: Names the first key at fault, the cause and the remedy.
    """
    return _checked(tree, overrides, Config)


def check_sweep(tree: DictConfig, swept: Iterable[tuple[str, Any]]) -> None:
    """Check the types of a sweep's config, and of it with each of the values that one key has in a job.

    Values out of range and contradictions are left to the jobs, of which the others are run.

    Raises:
        UserError: Names the first key at fault.
    """
    for values in ({}, *({key: value} for key, value in swept)):
        with contextlib.suppress(RefusedValueError):
            check_config(_replaced(tree, values))


def replace_values(cfg: Config[TaskT], values: Mapping[str, Any]) -> Config[TaskT]:
    """Return a config with other values under dotted keys, checked; what interpolates them follows."""
    return _checked(_replaced(cfg._tree, values), cfg.overrides, Config)


def settle_values(cfg: Config[TaskT], values: Mapping[str, Any]) -> Settled[TaskT]:
    """Do as `replace_values`, for the values that leave nothing open."""
    settled: Settled[TaskT] = _checked(_replaced(cfg._tree, values), cfg.overrides, Settled)
    return settled


def _replaced(tree: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    tree = tree.copy()
    OmegaConf.set_struct(tree, False)
    for key, value in values.items():
        OmegaConf.update(tree, key, value, merge=False, force_add=True)
    return tree


def _checked(tree: DictConfig | Mapping[str, Any], overrides: Sequence[str], kind: type[Any]) -> Any:
    tree = tree if isinstance(tree, DictConfig) else OmegaConf.create(dict(tree))
    values = _resolved(tree)
    task = values.get("task")
    if isinstance(task, dict):
        name = task.get("name")
        known = TASKS.get(name) if isinstance(name, str) else None
        if known is None and "name" in task:
            raise UserError(f"task.name={show_value(name)} is unknown: use one of {', '.join(TASKS)}."
                            f"{did_you_mean(show_value(name), TASKS)}")
        values = {**values, "task": _validated(known or TaskSection, task, "task.")}
    cfg = _validated(kind, values)
    cfg._tree, cfg._overrides = tree, tuple(overrides)
    return cfg


def _resolved(tree: DictConfig) -> dict[str, Any]:
    """Return plain values, every interpolation resolved, ~ expanded, and dataset.root absolute.

    A run is used from other folders than that in which it was started.
    """
    try:
        plain: dict[str, Any] = expand_home(OmegaConf.to_container(tree, resolve=True))
        dataset = plain.get("dataset")
        if isinstance(dataset, dict) and isinstance(dataset.get("root"), str):
            dataset["root"] = str(Path(dataset["root"]).absolute())
        return plain
    except OmegaConfBaseException as error:
        with contextlib.suppress(OmegaConfBaseException):
            dataset = tree.dataset  # which other sections interpolate: what is wrong there comes first
            values = OmegaConf.to_container(dataset, resolve=True) if isinstance(dataset, DictConfig) else dataset
            _validated(DatasetSection, values, "dataset.")
        raise UserError(value_error(error, lambda: _keys(OmegaConf.to_container(tree)))) from error


def _validated(kind: type[SectionT], values: Any, prefix: str = "") -> SectionT:
    for key, value in walk(values, prefix) if isinstance(values, dict) else ():
        if value == "???":  # OmegaConf's mark
            raise UserError(_no_value(key))
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _explained(error, kind, values, prefix) from None


# ---- what to say of a fault


def _explained(error: ValidationError, kind: type[Section], values: Any, prefix: str) -> UserError:
    """Return an error that names the first key at fault."""
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] != "missing"), faults[0])
    name, annotation = _find_key(kind, first["loc"])
    key, value = f"{prefix}{name}".removesuffix("."), first["input"]
    if first["type"] == "extra_forbidden":
        known = [f"{prefix}{other}" for other in (*_schema_keys(kind), *_keys(values)) if other != name]
        return UserError(unknown_key(key, lambda: known))
    if first["type"] == "missing":
        return UserError(_no_value(key))
    shown = f"{key}={show_value(value)}"
    if first["type"] in NO_SECTION:
        return UserError(f"{shown} has the wrong type: it is a section, set its values one by one, {key}.name=...")
    for fault in faults:  # a union has one for each of its members
        if _find_key(kind, fault["loc"])[0] != name:
            continue
        if fault["type"] == "value_error":
            return UserError(f"{shown} {fault['ctx']['error']}.")
        if fault["type"] in RANGES:
            return RefusedValueError(f"{shown} is too {RANGES[fault['type']].format(**fault['ctx'])}.")
        if fault["type"] == "finite_number":
            return UserError(f"{shown} is not a finite number.")
    choices = [word for word in _words(annotation) if word != "null"]
    if not {*choices} & {*EXPECTED.values()} and choices != ["true", "false"]:
        return UserError(f"{shown} is unknown: use one of {', '.join(choices)}."
                         f"{did_you_mean(show_value(value), choices)}")
    example = f", {key}=[...]" if "a list" in choices else ""
    return UserError(f"{shown} has the wrong type: it must be {expected(annotation)}{example}.")


def _find_key(kind: type[Section], loc: Sequence[int | str]) -> tuple[str, Any]:
    """Return the key that the place of an error leads to, and its type."""
    key = ""
    annotation: Any = kind
    for part in loc:
        if isinstance(part, int):
            key += f"[{part}]"
            lists = [member for member in _members(annotation) if get_origin(member) is list]
            annotation = get_args(lists[0])[0] if lists else Any
        elif section := _section_of(annotation):  # else it is the name of a union's member
            key += f".{part}"
            annotation = next((field.annotation for name, field in section.model_fields.items()
                               if (field.alias or name) == part), Any)
    return key.removeprefix("."), annotation


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a type is, or is if it is not null."""
    return next((member for member in _members(annotation) if hasattr(member, "model_fields")), None)


def _members(annotation: Any) -> list[Any]:
    """Return the types that a union offers, their constraints left out."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [inner for member in get_args(annotation) for inner in _members(member)]
    return [annotation]


def _words(annotation: Any) -> list[str]:
    """Return the values that a type takes, in words."""
    words: list[str] = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            words += map(show_value, get_args(member))
        else:
            words += ["true", "false"] if member is bool else [EXPECTED.get(get_origin(member) or member, "any value")]
    return sorted(words, key="auto".__ne__)


def expected(annotation: Any) -> str:
    """Return which values a type takes: "auto or a whole number"."""
    return " or ".join(_words(annotation))


def _no_value(key: str) -> str:
    return f"{key} has no value: give it one, {key}=..."


def _keys(values: Any) -> list[str]:
    return [key for key, _ in walk(values)]


def _schema_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        if section := _section_of(field.annotation):
            yield from _schema_keys(section, f"{key}.")
