"""What can be refused before torch is imported, which takes seconds: the classes of the groups need it."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from segtrain.config.overrides import OPEN_GROUPS
from segtrain.config.packaged import read_file
from segtrain.config.schema import Config, DatasetSection
from segtrain.errors import UserError, install_extra, show_value

LOGGERS = {"wandb", "mlflow", "trackio"}  # whose packages are called so
READ_DATA = ("train", "doctor", "rasterize", "score")


def refuse_early(cfg: Config[Any], choices: Mapping[str, str]) -> None:
    """Check what a command sets in the groups, as far as their files tell.

    Args:
        cfg: The config, with the overrides that made it.
        choices: The file of each group.

    Raises:
        UserError: For text where the group's file has a number or a flag, a dataset without its folder, or a logger
            whose package is not installed.
    """
    for key, value in _given_texts(cfg.overrides):
        group, _, name = key.partition(".")
        if group not in OPEN_GROUPS or (group == "dataset" and name in DatasetSection.model_fields):
            continue
        default: Any = read_file(group, choices.get(group, ""))
        for part in name.split("."):
            default = default.get(part) if isinstance(default, dict) else None
        if isinstance(default, bool | int | float):
            needed = "true or false" if isinstance(default, bool) else "a number"
            raise UserError(f"{key}={value} has the wrong type: it must be {needed}, such as {show_value(default)}.")
    for name in LOGGERS & cfg.logger.model_fields_set:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"logger={name} needs the package {name}: {install_extra('loggers')}.")
    uses_saved = any((cfg.resume, cfg.rerun, cfg.checkpoint))
    if cfg.task.name in READ_DATA and not uses_saved and cfg.dataset.arguments.get("root", "") is None:
        raise UserError(f"dataset.root is needed: the folder that holds the data of dataset={choices.get('dataset')}, "
                        "dataset.root=/data/x")


def _given_texts(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys that were given text, and the text; interpolations can only be told later."""
    parser = OverridesParser.create()
    for override in overrides:
        parsed = parser.parse_override(override) if not override.startswith("--") else None
        value = None if parsed is None else parsed.value()
        if parsed is not None and isinstance(value, str) and "${" not in value:
            yield parsed.key_or_group, value
