"""From a node to an object: call what `_target_` names with the node's other values, all of them checked first.

The signature of the target is the schema: names, annotated types, and the nearest name for one that is misspelt.
A config out of a checkpoint or a run directory may come from others: it may build only what TRUSTED lists.
"""

import importlib
import inspect
import math
import re
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import albumentations
import pydantic
import torch
from torch import nn

from segtrain import losses
from segtrain.config.check import replace_values
from segtrain.config.overrides import override_key
from segtrain.config.schema import Config, TaskT
from segtrain.data.base import Dataset
from segtrain.data.mixes import Mix
from segtrain.errors import UserError, did_you_mean, show_value
from segtrain.models.blocks import UnknownNameError

SPELLED = {"lr": "learning rate", "eps": "epsilon", "betas": "beta"}  # arguments as messages of torch.optim call them


def call(node: Mapping[str, Any], key: str, *, given: Mapping[str, Any] | None = None,
         known: Iterable[str] = ()) -> Any:
    """Call a node's target with its values, nested nodes first.

    Args:
        key: The node's place in the config, for messages.
        given: Further arguments that no config can hold.
        known: Further names to suggest for a misspelt one.

    Raises:
        UserError: Names the key and the remedy: an unknown target, a misspelt or missing argument, a value of the wrong
            type, or whatever ValueError or TypeError the target itself raises.
    """
    path = node.get("_target_")
    if not isinstance(path, str):
        raise UserError(f"{key}._target_ has no value, but {key} needs the class or function to build it with.")
    target = locate(path, key)
    given = dict(given or {})
    arguments = {name: nested(value, f"{key}.{name}") for name, value in node.items() if name != "_target_"}
    parameters = _parameters(target)
    if parameters is not None:
        hints = _hints(target)
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        names = [name for name, parameter in parameters.items() if name not in given and _is_named(parameter)]
        for name, value in arguments.items():
            if name in given or (name not in names and not takes_any):
                raise UserError(f"{key}.{name} is not an argument of {path}.{did_you_mean(name, [*names, *known])}")
            arguments[name] = _checked(value, hints.get(name, Any), f"{key}.{name}")
        for name in names:
            if parameters[name].default is inspect.Parameter.empty and name not in arguments:
                raise UserError(f"{key}.{name} has no value, but {path} needs it: {key}.{name}=...")
    return guarded(key, lambda: target(**arguments, **given), node)


def target_parameters(node: Mapping[str, Any], key: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a node's target; none where it has no target, or that has no signature."""
    path = node.get("_target_")
    return (_parameters(locate(path, key)) if isinstance(path, str) else None) or {}


def nested(value: Any, key: str) -> Any:
    """Call every node with a target inside a value."""
    if isinstance(value, dict):
        if "_target_" in value:
            return call(value, key)
        return {name: nested(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [nested(item, f"{key}[{number}]") for number, item in enumerate(value)]
    return value


def guarded(key: str, function: Callable[[], Any], arguments: Mapping[str, Any]) -> Any:
    """Call a function; the ValueError or TypeError it raises about its arguments becomes a UserError.

    Raises:
        UserError: Names the key of the argument at fault where the function's message tells which it is, else `key`.
    """
    try:
        return function()
    except (ValueError, TypeError) as error:
        for wrapped in (error, error.__cause__):  # albumentations wraps them
            if isinstance(wrapped, pydantic.ValidationError):
                first = wrapped.errors()[0]
                where = ".".join([key, *(str(part) for part in first["loc"][:1])])
                raise UserError(f"{where}={show_value(first['input'])}: {first['msg']}.") from error
        text = " ".join(str(error).partition("\nException raised from")[0].split())[:500]  # torch adds where in its C++
        if isinstance(error, UnknownNameError):
            text += did_you_mean(error.name, error.known)
        name = _named_argument(text, arguments)
        if name is None:
            raise UserError(f"{key}: {text}") from error
        shown = show_value(arguments[name])
        reason = re.sub(rf"^{name}(=\S+)?[: ]+", "", text)  # the message begins with it already
        raise UserError(f"{key}.{name}={shown}: {reason}") from error


def _named_argument(text: str, arguments: Mapping[str, Any]) -> str | None:
    """Return the argument that an error's text names first; None if it names none that a config can hold."""
    places = {}
    for name, value in arguments.items():
        found = re.search(rf"\b({name}|{SPELLED.get(name, name)})\b", text, re.IGNORECASE)
        if found and isinstance(value, str | int | float | list | tuple | None):
            places[name] = found.start()
    return min(places, key=places.__getitem__, default=None)


def locate(path: str, key: str) -> Callable[..., Any]:
    """Import the class or function that a dotted path names.

    Raises:
        UserError: If there is none, or its module cannot be imported.
    """
    first, *names = path.split(".")
    found = _import(first, key, path, ())
    where = first
    for name in names:
        where = f"{where}.{name}"
        found = getattr(found, name) if hasattr(found, name) else _import(where, key, path, dir(found))
    if not callable(found):
        raise UserError(f"{key}._target_={path} is not a class or function.")
    return found


def _import(module: str, key: str, path: str, siblings: Iterable[str]) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise UserError(f"{key}._target_={path} cannot be imported ({error}): check its spelling, and that its package "
                        "is installed, on PYTHONPATH or in the current directory."
                        f"{did_you_mean(module.rpartition('.')[2], siblings)}") from error
    except Exception as error:  # the user's own module may raise anything while it is imported
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{key}._target_={path} cannot be imported: {type(error).__name__}: {error} "
                        f"({line.filename}, line {line.lineno}).") from error


def targets(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the key and path of every `_target_` of a node, however deep."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, str(node["_target_"])
        for name, value in node.items():
            yield from targets(value, f"{key}.{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets(value, f"{key}[{number}]")


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return a target's parameters; None where it has no signature, as some builtins."""
    try:
        return inspect.signature(target).parameters
    except (ValueError, TypeError):
        return None


def _is_named(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # a signature that cannot be read is left to the target itself
        return {}


def _checked(value: Any, hint: Any, key: str) -> Any:
    """Return a value as its annotation wants it, a list as a tuple where it says so."""
    shown = show_value(value)
    kinds = {hint, *typing.get_args(hint)}
    if isinstance(value, bool) and {int, float} & kinds and not {bool, Any, object} & kinds:  # pydantic takes it as 1
        raise UserError(f"{key}={shown} has the wrong type: a number is needed.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value} is not a finite number.")
    try:
        # A name of digits (dataset.root=2024) is a number to YAML.
        adapter = pydantic.TypeAdapter(
            hint, config={"arbitrary_types_allowed": True, "coerce_numbers_to_str": True})
    except (pydantic.PydanticUserError, pydantic.errors.PydanticSchemaGenerationError):
        return value
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        raise UserError(f"{key}={shown} has the wrong type: {error.errors()[0]['msg']}.") from error


# ---- trust

# What a file may name: defined in these packages, and of this kind; None is a function.
TRUSTED = {
    "model": (("segtrain.models", "torchvision.models"), nn.Module),
    "optim": (("torch.optim",), torch.optim.Optimizer),
    "scheduler": (("segtrain.optim",), None),
    "loss": (("segtrain.losses",), losses.Loss),
    "dataset": (("segtrain.data",), Dataset),
    "augmentation": (("albumentations", "segtrain.data"), (albumentations.BasicTransform, Mix)),
}


def check_trust(config: Mapping[str, Any], overrides: Iterable[str], trusted: Iterable[str]) -> None:
    """Check that a config out of a checkpoint or a run directory names only what it may build.

    Args:
        config: The config as plain values; the rest of it need not be in order.
        overrides: The command line's overrides; what is chosen there is the user's own and not checked.
        trusted: The user's own packages, of which anything may be built (runtime.trusted on the command line).

    Raises:
        UserError: Names the key and the option that allows it. Nothing outside the trusted packages was imported.
    """
    chosen = tuple(f"{override_key(override)}." for override in overrides)
    own = tuple(f"{package}." for package in trusted)
    for group, (packages, kind) in TRUSTED.items():
        for key, path in targets(config.get(group), group):
            if f"{key}._target_.".startswith(chosen) or _is_trusted(path, key, packages, kind, own):
                continue
            raise UserError(
                f"{key}._target_={path} in the saved configuration is not among what may be built from a file "
                f"({', '.join(packages)}): if it is your own code, pass runtime.trusted=[{path.split('.')[0]}].")


def _is_trusted(path: str, key: str, packages: Iterable[str], kind: type | tuple[type, ...] | None,
                own: tuple[str, ...]) -> bool:
    """Return whether a `_target_` out of a file leads to something that may be built.

    Nothing outside the packages is imported, and what the path leads to must be defined in them:
    torch.serialization.os would lead elsewhere.
    """
    inside = tuple(f"{package}." for package in packages)
    if not path.startswith(inside + own):
        return False
    found = locate(path, key)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    module = f"{found.__module__}."
    if module.startswith(own):
        return True
    if not module.startswith(inside):
        return False
    if kind is None:
        return inspect.isfunction(found)
    made = found if inspect.isclass(found) else _hints(found).get("return")
    return inspect.isclass(made) and issubclass(made, kind)


def without_download(cfg: Config[TaskT], overrides: Iterable[str] = ()) -> Config[TaskT]:
    """Return a config whose dataset fetches nothing, unless the command line says so: where data are written is not
    for a file to choose.
    """
    is_chosen = any("dataset.download.".startswith(f"{override_key(override)}.") for override in overrides)
    return cfg if is_chosen or not cfg.dataset.arguments.get("download") else replace_values(
        cfg, {"dataset.download": False})
