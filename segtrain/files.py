"""Read and write files safely: atomic writes, one lock, and limits on untrusted text, JSON and YAML."""

import contextlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock, Timeout

from segtrain.errors import UserError

log = logging.getLogger("segtrain")

OTHER_RUN_DIR = ("make room or choose another folder with hydra.run.dir= (hydra.sweep.dir= for a sweep); what was "
                 "written before is intact")


@contextmanager
def atomic_path(path: Path, temporary_name: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside a file; it is renamed to the file at the end, or removed after an error.

    The file's folder must exist. The default of `temporary_name` is the file's name and ".tmp".
    """
    temporary = path.with_name(temporary_name or f"{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # it may be a link to anywhere
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def refuse_unwritable(path: Path, remedy: str = OTHER_RUN_DIR) -> Iterator[None]:
    """Turn errors of the file system while `path` is written into a UserError; `remedy` ends its message.

    Raises:
        UserError: If the block raises an OSError, or the RuntimeError that torch.save makes of some of them.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"{path} cannot be written ({reason}): {remedy}.") from error


def write_file(path: Path, write: Callable[[BinaryIO], object], *, remedy: str = OTHER_RUN_DIR,
               before_rename: Callable[[], object] = lambda: None, temporary_name: str | None = None) -> None:
    """Write a file completely or not at all: under a temporary name, flushed to the disk, then renamed.

    Args:
        path: The file; its folder must exist.
        write: Called with the temporary file, open for writing bytes.
        remedy: Ends the error message.
        before_rename: Called when the temporary file is complete.
        temporary_name: A unique one where several processes may write the same file.

    Raises:
        UserError: If it cannot be written; an earlier file of that name is intact.
    """
    with refuse_unwritable(path, remedy), atomic_path(path, temporary_name) as temporary:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        before_rename()


def own_copy(path: Path) -> None:
    """Give a file that is about to be appended to content of its own, if it is a link or has other names (hard links).

    Raises:
        UserError: If it is not a regular file.
    """
    if not os.path.lexists(path):
        return
    with refuse_unwritable(path, "remove it"), open_regular(path) as file:
        content = file.read() if path.is_symlink() or path.stat().st_nlink > 1 else None
    if content is not None:
        write_file(path, lambda file: file.write(content))


def remove_alias(path: Path) -> None:
    """Remove a file that is about to be opened for writing, and that is a link, has other names, or is not regular."""
    with contextlib.suppress(FileNotFoundError):
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            path.unlink()


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading that others may have made: a pipe, a socket or a device would block or never end.

    Raises:
        OSError: If it is not a regular file, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file but a folder, a pipe, a socket or a device")
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path) -> None:
    """Raise OSError unless a path is a regular file that can be opened; see `open_regular`."""
    open_regular(path).close()


def is_utf8(path: Path) -> bool:
    """Return whether a path is text that libraries can take; on Linux a name may be of any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all; parts of names that are not UTF-8 are written as escapes.

    Raises:
        UserError: If it cannot be written.
    """
    write_file(path, lambda file: file.write(text.encode(errors="backslashreplace")))


@contextmanager
def locked(path: Path, remedy: str = OTHER_RUN_DIR) -> Iterator[None]:
    """Wait for the lock of a file or folder among processes, and hold it; UserError if it cannot be written.

    The lock is a hidden file beside the path, which stays. The system frees it when its process ends.
    """
    name = path.with_name(f".{path.name}.lock")
    lock = FileLock(name)
    with refuse_unwritable(name, remedy):
        remove_alias(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s is in use by another process: waiting for it", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


MAX_BYTES = 1_000_000  # a config has a few thousand
MAX_DEPTH = 20
MAX_VALUES = 20_000
OPENING = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken,
           yaml.BlockMappingStartToken)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def read_text(path: Path, max_bytes: int = MAX_BYTES, remedy: str = "restore it, or choose another folder") -> str:
    """Read a text file; UserError if it cannot be read or is larger than any file of its kind."""
    try:
        with open_regular(path) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise UserError(f"{path} is larger than {max_bytes:,} bytes, too large for a file of its kind: {remedy}.")
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy}.") from error


def read_yaml_text(path: Path) -> str:
    """Read a YAML file's text; UserError if it is not YAML, is nested too deep, or has aliases, which may expand."""
    text = read_text(path)
    depth = values = 0
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):  # token by token, without recursion
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            values += isinstance(token, yaml.ScalarToken)
            if values > MAX_VALUES:
                raise UserError(f"{path} has more than {MAX_VALUES:,} values, too many for a configuration: choose one "
                                "that segtrain wrote.")
            if depth > MAX_DEPTH:
                raise UserError(f"{path} is nested too deep for a configuration: choose one that segtrain wrote.")
            if isinstance(token, yaml.AliasToken):
                raise UserError(f"{path} has YAML aliases (*name), which segtrain does not write: put the values in "
                                "their places.")
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return text


def read_json(path: Path, max_bytes: int = 100 * MAX_BYTES) -> Any:
    """Read a JSON file; UserError if it cannot be read or is not JSON."""
    try:
        return json.loads(read_text(path, max_bytes))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): remove it, or choose another folder.") from error


def check_plain(config: Any, where: str) -> None:
    """Check that a saved config is a mapping of plain values; UserError names the file `where` and the key.

    segtrain saves resolved values only. An interpolation was added by hand, and would be resolved on the reader's
    machine: ${oc.env:TOKEN} would write a secret into the next run's files.
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
                raise UserError(f"{where}: {key or 'the configuration'} has the key {str(name)[:100]}, which is "
                                "not text: choose one that segtrain wrote.")
            _check_value(inner, f"{key}.{name}" if key else name, where)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_value(inner, f"{key}[{number}]", where)
    elif not isinstance(value, str | int | float | None):
        raise UserError(f"{where}: {key} is a {type(value).__name__}, which no configuration holds: choose one that "
                        "segtrain wrote.")
    elif isinstance(value, str) and "${" in value:
        raise UserError(f"{where}: {key}={value[:100]} is an interpolation, but a saved configuration holds resolved "
                        f"values only: set it on the command line, {key}=...")
