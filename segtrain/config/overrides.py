"""The command line that a saved config came from, or another that gives the same config."""

import contextlib
import importlib.resources
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain.config import check

# settled by the machine without changing a result, or by the command itself
LEFT_OUT = ("resume", "runtime.workers", "runtime.trusted", "versions")
PASSES = 4  # a value may change what others follow, as dataset.crop does the augmentation's


def command(saved: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return a command whose config is the saved one, with as few overrides as may be.

    Groups are recognised by their classes. The rest is set value by value, and the outcome composed and compared.

    Args:
        saved: A run's config.yaml as plain values.

    Returns:
        The command as a shell reads it; the keys that it does not bring back, as those of a removed option.
    """
    chosen = [f"{group}={name}" for group, name in _groups(saved) if name != _default(group)]
    given: dict[str, str] = {}
    differing: dict[str, str | None] = {}
    with _hydra(), contextlib.suppress(HydraException, OmegaConfBaseException):  # then what still differs is returned
        for _ in range(PASSES):
            composed = compose("config", [*chosen, *given.values()])
            differing = dict(_differences(_plain(composed), saved))
            raw: Any = OmegaConf.to_container(composed)
            new = {key: text for key, text in differing.items() if text is not None and key not in given}
            if not new:
                break
            given |= {key: text for key, text in new.items() if not _follows(raw, key)} or new
    words = ["segtrain", *chosen, *given.values()]
    return " ".join(shlex.quote(word) for word in words), sorted(differing)


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Let configs be composed: within the command by its own search path, elsewhere from the package."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_module("segtrain.conf", version_base="1.3"):
        yield


def _plain(composed: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): each for key, each in plain.items()}


# ---- which file of each group


def _groups(saved: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each group and the file of it that is nearest to what was saved."""
    for group in ("task", *check.OPEN_GROUPS):
        found = saved.get(group)
        if not isinstance(found, Mapping):
            continue
        scores = {name: _likeness(content, found) for name, content in _files(group).items()}
        best = max(scores.values(), default=0)
        names = [name for name, score in scores.items() if score == best]
        default = _default(group)
        yield group, default if default in names or not names or best <= 0 else names[0]


def _files(group: str) -> dict[str, dict[str, Any]]:
    """Return the files of a group that the package brings, by name."""
    folder = importlib.resources.files("segtrain.conf") / group
    files: dict[str, dict[str, Any]] = {}
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        inside = [("", entry)] if entry.is_file() else [(f"{entry.name}/", each) for each in entry.iterdir()]
        for prefix, path in inside:
            if path.name.endswith(".yaml"):
                files[prefix + path.name.removesuffix(".yaml")] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return files


def _default(group: str) -> str:
    """Return the file of a group that config.yaml names."""
    text = (importlib.resources.files("segtrain.conf") / "config.yaml").read_text(encoding="utf-8")
    return str(next(entry[group] for entry in yaml.safe_load(text)["defaults"]
                    if isinstance(entry, dict) and group in entry))


def _likeness(content: Mapping[str, Any], saved: Mapping[str, Any]) -> int:
    """Count the values that a file shares with a saved group, less those in which they differ; 0: another class."""
    mark = "_target_" if "_target_" in content else "name" if set(content) >= {"name"} else None
    if mark is not None and content[mark] != saved.get(mark):
        return 0
    one, other = (dict(_leaves(each)) for each in (content, saved))
    same = sum(key in other and (one[key] == other[key] or "${" in str(one[key])) for key in one)
    return max(1, 1000 + same - len(one.keys() ^ other.keys())) if same or one == other else 0


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, each in node.items():
        if isinstance(each, Mapping) and each:
            yield from _leaves(each, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", each


# ---- value by value


def _differences(composed: Mapping[str, Any], saved: Mapping[str, Any],
                 prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield the keys in which a composed config is not the saved one, and the override that settles each.

    A run that is older than a key lacks it. Such keys keep their present values; None stands for their override.
    """
    is_fixed = prefix.split(".")[0] in ("train", "runtime", "task")
    is_same_class = composed.get("_target_") is not None and composed.get("_target_") == saved.get("_target_")
    for name in dict.fromkeys([*composed, *saved]):
        key = f"{prefix}{name}"
        if key in LEFT_OUT or (key in check.SETTLED and composed.get(name) in (None, "auto")):
            continue
        if name not in saved:
            if composed[name] is not None and check.FORMERLY.get(key) != composed[name]:
                yield key, None if is_fixed or is_same_class else f"~{key}"
        elif name not in composed:
            yield key, f"+{key}={_text(saved[name])}"
        elif isinstance(composed[name], Mapping) and isinstance(saved[name], Mapping):
            yield from _differences(composed[name], saved[name], f"{key}.")
        elif composed[name] != saved[name]:
            yield key, f"{key}={_text(saved[name])}"


def _follows(raw: Any, key: str) -> bool:
    """Say whether a key's value, as composed and not resolved, is an interpolation."""
    for part in key.split("."):
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return isinstance(raw, str) and "${" in raw


def _text(value: Any) -> str:
    """Write a value so that Hydra reads the same."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(each) for each in value) + "]"
    text = str(value)
    is_plain = re.fullmatch(r"[A-Za-z_/.][\w/.+-]*", text) and not re.fullmatch(r"(?i)null|true|false|nan|inf", text)
    return text if is_plain else QuotedString(text, Quote.single).with_quotes()
