"""What comes out of files that others may have written: read with limits, and plain, before anything is made of it."""

import json
from pathlib import Path
from typing import Any

import yaml

from segtrain.errors import UserError

MAX_BYTES = 1_000_000  # a config has a few thousand
MAX_DEPTH = 20
OPENING = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken,
           yaml.BlockMappingStartToken)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file; UserError if it cannot be read or is larger than any file of its kind."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise UserError(f"{path} is larger than {max_bytes:,} bytes, so segtrain did not write it: remove it, or "
                            "choose another folder.")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or choose another folder.") from error


def read_yaml_text(path: Path) -> str:
    """Read a YAML file's text; refuse aliases, a few of which stand for more values than memory holds, and depth.

    Raises:
        UserError: If it cannot be read or is no YAML.
    """
    text = read_text(path)
    depth = 0
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):  # token by token: no deeper than it is let
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if depth > MAX_DEPTH:
                raise UserError(f"{path} is nested too deep for a configuration: choose one that segtrain wrote.")
            if isinstance(token, yaml.AliasToken):
                raise UserError(f"{path} has YAML aliases (*name), which segtrain does not write: put the values in "
                                "their places.")
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return text


def read_json(path: Path, max_bytes: int = 100 * MAX_BYTES) -> Any:
    """Read a JSON file; UserError if it is none."""
    try:
        return json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): remove it, or choose another folder.") from error


def check_plain(config: Any, where: str) -> None:
    """Check that a saved config is a mapping of plain values.

    segtrain saves every value settled. An interpolation in a file was put there by hand, and would be resolved on the
    machine of whoever reads it: ${oc.env:TOKEN} would write a secret into the next run's files.

    Raises:
        UserError: Names `where`, and the key.
    """
    if not isinstance(config, dict):
        raise UserError(f"{where} holds no configuration: choose one that segtrain wrote.")
    _check_value(config, "", where)


def _check_value(value: Any, key: str, where: str) -> None:
    if key.count(".") + key.count("[") > MAX_DEPTH:
        raise UserError(f"{where}: {key[:100]}... is nested too deep for a configuration.")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise UserError(f"{where}: {key or 'the configuration'} has the key {str(name)[:100]}, which is no "
                                "text: choose one that segtrain wrote.")
            _check_value(inner, f"{key}.{name}" if key else name, where)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_value(inner, f"{key}[{number}]", where)
    elif not isinstance(value, str | int | float | None):
        raise UserError(f"{where}: {key} is a {type(value).__name__}, which no configuration holds: choose one that "
                        "segtrain wrote.")
    elif isinstance(value, str) and "${" in value:
        raise UserError(f"{where}: {key}={value[:100]} is an interpolation, but a saved configuration holds settled "
                        f"values only: set it on the command line, {key}=...")
