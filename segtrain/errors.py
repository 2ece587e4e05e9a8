"""Errors for which users get one message instead of a traceback, and hints for those messages."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class UserError(Exception):
    """Stop with one readable message that names the file or key at fault and the remedy.

    The command line prints the message without a traceback and exits with code 2.

    `files` are all the files at fault, where the message names the first of several.
    """

    def __init__(self, message: str, files: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.files = list(files)


class Stopped(BaseException):
    """A signal asked the run to end: its state is saved, and the command line exits with 128 + signal.

    This is not an Exception: code that catches those, as a sweep does to continue with its next job, must not catch it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def show_value(value: Any) -> str:
    """Write a value as YAML does, on one line: null, true, [1, 2]."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {show_value(item)}' for key, item in value.items())}}}"
    return str(value)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to a misspelt one, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def list_first(items: Sequence[str], most: int = 5) -> str:
    """Join the first items of a list for a message: "a, b, c and 7 more"."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def unknown_class(key: str, name: str, names: Sequence[str]) -> UserError:
    """Return the error that a key names what is none of the classes `names`."""
    return UserError(f"{key}: {name} is not a class; the classes are {list_first(names, 20)}."
                     f"{did_you_mean(name, names)}")


def list_part(what: str, items: Sequence[str]) -> str:
    """Write a part of a message, "missing: a, b; ", or nothing if there are no items."""
    return f"{what}: {list_first(items)}; " if items else ""


def install_extra(extra: str) -> str:
    """Return the command that installs an optional dependency; segtrain is installed from its source, not an index."""
    return f"pip install '.[{extra}]' in the folder of segtrain's source"
