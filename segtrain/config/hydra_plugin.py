"""What a command line could have meant: the keys of the config and the files of its groups, as Hydra finds them."""

import contextlib
import re
import sys
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType

from segtrain.config import check


def all_keys() -> list[str]:
    """Return every key of the config under the groups that the command line chooses, and the groups."""
    chosen = [argument for argument in sys.argv[1:] if argument.split("=", 1)[0] in (*check.OPEN_GROUPS, "task")]
    for overrides in ([*_own_files(), *chosen], []):
        GlobalHydra.instance().clear()
        with contextlib.suppress(Exception), initialize_config_module("segtrain.conf", version_base="1.3"):
            return [*check.known_keys(compose("config", overrides)), *check.RECIPE_GROUPS]
    return []


def _own_files() -> list[str]:
    """Return the override that makes --config-dir known where Hydra does not read the command line."""
    found = re.search(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.+)", "\n".join(sys.argv[1:]))
    return [f"hydra.searchpath=['file://{Path(found[1]).absolute()}']"] if found else []


def files_in_folders(group: str) -> list[str]:
    """Return the files of a group that stand in folders of it, as folder/name."""
    GlobalHydra.instance().clear()
    with contextlib.suppress(Exception), initialize_config_module("segtrain.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return [f"{folder}/{name}" for folder in loader.get_group_options(group, ObjectType.GROUP)
                for name in loader.get_group_options(f"{group}/{folder}")]
    return []
