"""Find what of a saved configuration differs from the values in conf/."""

from collections.abc import Mapping
from typing import Any

from segtrain.config.overrides import flatten
from segtrain.config.packaged import CONF, list_files, read_file

OWN = ("checkpoint", "resume", "rerun")  # which name a run or its input, and set nothing


def list_changed_settings(config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the keys whose values are not the defaults, with both values.

    A group stands for itself where another file of it was chosen: its keys are compared with that file's. What is
    computed from other keys, and what `auto` was settled to, is left out.
    """
    found: list[tuple[str, Any, Any]] = []
    fixed = read_file("", "config") or {}
    chosen = {group: name for entry in fixed.pop("defaults", ()) if isinstance(entry, Mapping)
              for group, name in entry.items() if isinstance(name, str)}
    for group, name in chosen.items():
        node, default = config.get(group), read_file(group, name)
        if not isinstance(node, Mapping) or default is None:
            continue
        file, values = _find_file(group, node, name)
        if file != name:
            found.append((group, file or node.get("_target_"), name))
        known = {**flatten(fixed.get(group) or {}), **flatten(values)}
        found += _differences(flatten(node), known, f"{group}.")
    sections = {key: value for key, value in fixed.items() if key not in (*chosen, *OWN, "hydra")}
    own = {key: value for key, value in config.items() if key in sections}
    return found + _differences(flatten(own), flatten(sections), "")


def _differences(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> list[tuple[str, Any, Any]]:
    return [(prefix + key, value, defaults.get(key)) for key, value in values.items()
            if value != defaults.get(key) and not _is_open(defaults.get(key)) and not key.endswith("_target_")]


def _is_open(default: Any) -> bool:
    return isinstance(default, str) and (default == "auto" or "${" in default)


def _find_file(group: str, node: Mapping[str, Any], default: str) -> tuple[str | None, Mapping[str, Any]]:
    """Return the file of a group that comes nearest to its content, and its values; the default one where they tie."""
    if not (CONF / group).is_dir():
        return None, {}
    own, targets = flatten(node), _targets(node)
    named = [name for name in dict.fromkeys((default, *list_files(group)))  # YAML is slow to read: not all files are
             if all(str(target) in (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
                    for target in targets.values())]
    files = {name: read_file(group, name) or {} for name in named}
    alike = {name: flatten(values) for name, values in files.items() if _targets(values) == targets}
    if not alike:
        return None, {}
    nearest = min(alike, key=lambda name: len(_differences(own, alike[name], "")))
    return nearest, files[nearest]


def _targets(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(node).items() if key.endswith("_target_") or key == "name"}
