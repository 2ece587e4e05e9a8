"""Files that are written whole or not at all.
What comes out of files that others may have written: read with limits, and plain, before anything is made of it.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from segtrain.errors import UserError


def write_whole(path: Path, write: Callable[[BinaryIO], object],
                before_naming: Callable[[], object] = lambda: None) -> None:
    """Write to a temporary file, force it to the disk, and only then give it its name.

    Args:
        path: The file; its folder must exist.
        write: Called with the temporary file, open for writing bytes.
        before_naming: Called when the temporary file is complete, just before it gets its name.

    Raises:
        UserError: If it cannot be written; an earlier file of that name is intact.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # it may be a link to anywhere
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        before_naming()
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns some write errors into RuntimeError
        temporary.unlink(missing_ok=True)
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"{path} cannot be written ({reason}): make room or choose another folder with hydra.run.dir= "
                        "(hydra.sweep.dir= for a sweep); what was written before is intact.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; UserError if it cannot be written."""
    write_whole(path, lambda file: file.write(text.encode()))


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
