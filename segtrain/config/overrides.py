"""The overrides of a command line: which keys they set, and how they are laid over a saved config."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segtrain.errors import UserError

CONFIG = "config.yaml"  # of a run: its config and overrides
OPEN_GROUPS = ("model", "optim", "scheduler", "loss", "dataset", "augmentation")  # whose files may name any class
RECIPE_GROUPS = ("experiment", "search", "debug")  # they set values of other sections and leave no section of their own
CONFIG_DIR = "--config-dir"  # stands among the overrides, for the groups that they name may be in it
MISSING = object()


def override_key(override: str) -> str:
    """Return the dotted key an override sets: "+model@x.depth=3" gives "model"."""
    key = override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]
    return key.replace("/", ".")


def unquote(text: str) -> str:
    """Return the value of an override without the quotes, and the backslashes, that it may have for Hydra."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        return text
    return re.sub(rf"(\\+)({text[0]}|$)", lambda found: found[1][:len(found[1]) // 2] + found[2], text[1:-1])


def merge_overrides(former: Iterable[str], new: Iterable[str]) -> list[str]:
    """Return the overrides of one command that does what two did in turn: of the same key the later counts."""
    merged = list(former)
    for override in new:
        key = override_key(override)
        merged = [other for other in merged if not f"{override_key(other)}.".startswith(f"{key}.")]
        merged.append(override)
    return merged


def lay_over(saved: Mapping[str, Any], composed: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Put what the command line overrides on top of a saved config.

    A group override (model=fcn8) replaces the group, a value override (train.epochs=9) its value; everything else
    stays as saved. The composed config supplies the values, so that interpolations and group files count.

    Args:
        saved: The config of a run or of a checkpoint, as plain values.
        composed: This command's own config, its interpolations in place; only the overridden keys are read.
        overrides: The command line's, e.g. ["model=fcn8", "train.epochs=9"]; a key alone counts as well.

    Returns:
        Plain values, and interpolations of the command's own, which read the saved values around them.

    Raises:
        UserError: For experiment= and debug=, which set many values at once.
    """
    result = dict(saved)
    for override in overrides:
        key = override_key(override)
        if key == CONFIG_DIR:
            continue
        if key in RECIPE_GROUPS:
            raise UserError(f"{override} cannot be laid over a saved run: name the single values to change instead.")
        result = _laid(result, key.split("."), composed)
        for other in _followers(composed, key):
            if dict(walk(result)).get(other) is not None:
                result = _laid(result, other.split("."), composed)
    return result


def _laid(node: dict[str, Any], path: Sequence[str], values: Any) -> dict[str, Any]:
    """Return nested values with what others hold at a path, or without it where they have nothing."""
    name, *rest = path
    own, other = node.get(name, MISSING), values.get(name, MISSING) if isinstance(values, Mapping) else MISSING
    if rest and isinstance(own, dict) and (other is MISSING or isinstance(other, Mapping)):
        return {**node, name: _laid(own, rest, other)}
    if other is not MISSING:
        return {**node, name: other}
    return node if rest else {key: value for key, value in node.items() if key != name}


def _followers(values: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield the keys whose value is an interpolation of a key: the augmentation's crop follows dataset.crop."""
    for other, value in walk(values):
        if isinstance(value, str) and re.search(rf"\$\{{{re.escape(key)}[}}\[]", value):
            yield other


def walk(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings, sections before what is in them."""
    for name, value in node.items():
        yield f"{prefix}{name}", value
        if isinstance(value, Mapping):
            yield from walk(value, f"{prefix}{name}.")


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys, sections left out."""
    return {key: value for key, value in walk(node, prefix) if not isinstance(value, Mapping)}


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys whose values differ between two configs, with both; None where one has no such key."""
    one, other = flatten(before), flatten(now)
    return {key: (one.get(key), other.get(key)) for key in {**other, **one} if one.get(key) != other.get(key)}


def expand_home(value: Any) -> Any:
    """Return a value with the home directory for each ~ that a text in it begins with, however deep."""
    if isinstance(value, str):
        return str(Path(value).expanduser()) if value == "~" or value.startswith("~/") else value
    if isinstance(value, dict):
        return {name: expand_home(item) for name, item in value.items()}
    return [expand_home(item) for item in value] if isinstance(value, list) else value
