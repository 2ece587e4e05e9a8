"""From what Hydra composed, or a run saved, to a typed config: every fixed key is checked, each fault named."""

import contextlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from segtrain.config.messages import unknown_key, value_error
from segtrain.config.overrides import walk
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
RANGES = {"greater_than_equal": ("ge", "small: it must be at least"), "greater_than": ("gt", "small: it must be above"),
          "less_than_equal": ("le", "large: it must be at most"), "less_than": ("lt", "large: it must be below")}
EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null",
            list: "a list", dict: "a mapping",
            tuple: "[height, width]"}


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
    """Check the types of the values that the jobs of a sweep have, one by one.

    Values out of range and contradictions are left to the jobs, of which the others are run.

    Args:
        tree: What all jobs have, as Hydra composed it.
        swept: Keys and values of jobs.

    Raises:
        UserError: Names the first key at fault.
    """
    plain: Any = OmegaConf.to_container(tree)
    for key, value in [("seed", plain.get("seed")), *swept]:
        changed = OmegaConf.create(plain)
        OmegaConf.update(changed, key, value, merge=False, force_add=True)
        with contextlib.suppress(RefusedValueError):
            check_config(changed)


def replace_values(cfg: Config[TaskT], values: Mapping[str, Any]) -> Config[TaskT]:
    """Return a config with other values under dotted keys; what interpolates them follows.

    Raises:
        UserError: If a value is not allowed there.
    """
    return _checked(_replaced(cfg, values), cfg.overrides, Config)


def settle_values(cfg: Config[TaskT], values: Mapping[str, Any]) -> Settled[TaskT]:
    """Do as `replace_values`, for the values that leave nothing open."""
    return _checked(_replaced(cfg, values), cfg.overrides, Settled)


def _replaced(cfg: Config[Any], values: Mapping[str, Any]) -> DictConfig:
    tree = cfg._tree.copy()
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
    cfg = _validated(kind, values, "")
    cfg._tree, cfg._overrides = tree, tuple(overrides)
    return cfg


def _resolved(tree: DictConfig) -> dict[str, Any]:
    """Return plain values, every interpolation resolved."""
    try:
        plain: Any = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        _check_dataset(tree)  # which other sections interpolate: what is wrong there comes first
        raise UserError(value_error(error, lambda: known_keys(tree))) from error
    _check_all_there(plain)
    return plain


def _check_all_there(values: Mapping[str, Any], prefix: str = "") -> None:
    for key, value in walk(values, prefix):
        if value == "???":  # OmegaConf's mark
            raise UserError(_no_value(key))


def _check_dataset(tree: DictConfig) -> None:
    try:
        values: Any = OmegaConf.to_container(tree.dataset, resolve=True)
    except OmegaConfBaseException:
        return
    except ValueError:  # not a section
        values = tree.dataset
    if not isinstance(values, dict):
        raise UserError(_no_section("dataset", values))
    _check_all_there(values, "dataset.")
    _validated(DatasetSection, values, "dataset.")


def _validated(kind: type[SectionT], values: Any, prefix: str) -> SectionT:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        is_range = any(fault["type"] in RANGES for fault in error.errors(include_url=False))
        raise (RefusedValueError if is_range else UserError)(_explained(error, kind, values, prefix)) from None


# ---- what to say of a fault


def _explained(error: ValidationError, kind: type[Section], values: Any, prefix: str) -> str:
    """Return the message of the first key at fault."""
    faults = [(*_place(kind, fault["loc"]), fault) for fault in error.errors(include_url=False)]
    path, annotation, first = next((fault for fault in faults if fault[2]["type"] != "missing"), faults[0])
    same = [fault for other, _, fault in faults if other == path]  # of the members of a union
    key = prefix + _dotted(path)
    if first["type"] == "extra_forbidden":
        known = [f"{prefix}{name}" for name in (*_schema_keys(kind), *known_keys(values))]
        return unknown_key(key, lambda: [name for name in known if name != key])
    if first["type"] == "missing":
        return _no_value(key)
    value = first["input"]
    if first["type"] in ("model_type", "model_attributes_type", "dict_type", "dataclass_type"):
        return _no_section(key, value)
    fault = next((fault for fault in same if fault["type"] in (*RANGES, "finite_number", "value_error")), first)
    shown = f"{key}={show_value(value)}"
    if fault["type"] == "value_error":
        return f"{shown} {fault['ctx']['error']}."
    if fault["type"] in RANGES:
        limit, said = RANGES[fault["type"]]
        return f"{shown} is too {said} {fault['ctx'][limit]:g}."
    if fault["type"] == "finite_number":
        return f"{shown} is not a finite number."
    choices = _choices(annotation)
    if choices:
        return f"{shown} is unknown: use one of {', '.join(choices)}.{did_you_mean(show_value(value), choices)}"
    example = f", {key}=[...]" if any(typing.get_origin(member) is list for member in _members(annotation)) else ""
    return f"{shown} has the wrong type: it must be {expected(annotation)}{example}."


def _place(kind: type[BaseModel], loc: Sequence[int | str]) -> tuple[tuple[int | str, ...], Any]:
    """Return the key that the place of an error leads to, without the names of a union's members, and its type."""
    path: list[int | str] = []
    annotation: Any = kind
    for part in loc:
        fields = getattr(annotation, "model_fields", None)
        if fields is not None:
            by_key = {field.alias or name: field for name, field in fields.items()}
            field = by_key.get(str(part))
            annotation = Any if field is None else Annotated[(field.annotation, *field.metadata)] if (
                field.metadata) else field.annotation
            path.append(part)
        elif isinstance(part, int):
            inside = [typing.get_args(member) for member in _members(annotation) if typing.get_origin(member) is list]
            annotation = inside[0][0] if inside else Any
            path.append(part)
    return tuple(path), annotation


def _members(annotation: Any) -> list[Any]:
    """Return the types that a union offers, their constraints left out."""
    if typing.get_origin(annotation) is Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in typing.get_args(annotation) for inner in _members(member)]
    return [annotation]


def _choices(annotation: Any) -> list[str]:
    """Return the values that a type offers, if those are all it takes."""
    names: list[str] = []
    for member in _members(annotation):
        if typing.get_origin(member) is Literal:
            names += map(show_value, typing.get_args(member))
        elif member is bool:
            names += ["true", "false"]
        elif member is not type(None):
            return []
    return sorted(names, key="auto".__ne__) if names != ["true", "false"] else []


def expected(annotation: Any) -> str:
    """Say which values a type takes."""
    said: list[str] = []
    for member in _members(annotation):
        origin = typing.get_origin(member)
        if origin is Literal:
            said += map(show_value, typing.get_args(member))
        else:
            said.append(EXPECTED.get(origin or member, "any value"))
    return " or ".join(sorted(said, key="auto".__ne__))


def _dotted(path: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _no_value(key: str) -> str:
    return f"{key} has no value: give it one, {key}=..."


def _no_section(key: str, value: Any) -> str:
    return (f"{key}={show_value(value)} has the wrong type: it is a section, set its values one by one, "
            f"{key}.name=...")


# ---- keys


def known_keys(tree: Any) -> list[str]:
    """Return every key of nested values in dotted form, sections included."""
    values: Any = OmegaConf.to_container(tree) if isinstance(tree, DictConfig) else tree
    return [key for key, _ in walk(values)]


def _schema_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _schema_keys(field.annotation, f"{key}.")
