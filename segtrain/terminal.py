"""What terminals are sent: colours only where they are wanted, and nothing into a line that is being completed."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from typing import TextIO

RED, YELLOW, END = "\x1b[31m", "\x1b[33m", "\x1b[0m"


def takes_colors(stream: TextIO) -> bool:
    """Say whether a stream is a terminal that shows colours, and whose user wants them (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def marked(text: str, color: str, stream: TextIO) -> str:
    """Colour the word and the colon that a text starts with, as in "warning: ...", if the stream takes colours."""
    return re.sub(r"^[a-z]+:", rf"{color}\g<0>{END}", text) if takes_colors(stream) else text


def complain(text: str) -> None:
    """Print an error's message."""
    print(marked(text, RED, sys.stderr), file=sys.stderr)


@contextmanager
def silent_completion() -> Iterator[None]:
    """Keep messages from the terminal while a shell asks how a line may go on: what is half typed is often wrong."""
    asks = "-sc" in sys.argv and any(each.startswith("query=") for each in sys.argv)
    with redirect_stderr(io.StringIO()) if asks else nullcontext():
        yield


def printable(text: str, *, keep: str = "") -> str:
    """Return a text with what a terminal would obey, or a reader not see, written as an escape: \\x1b, \\n, \\u202e.

    Args:
        text: May hold names of files, which may hold anything.
        keep: Characters to leave alone, such as "\\n".
    """
    return "".join(each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
                   for each in text)


class Printable(logging.Formatter):
    """Write what terminals obey as escapes: messages hold names of files, and those may hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class Marked(Printable):
    """The same for a stream that may be a terminal: warnings stand out there."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__("%(message)s")
        self._stream = stream

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return marked(text, YELLOW, self._stream) if record.levelno >= logging.WARNING else text


def percent(fraction: float | None) -> str:
    """Write a fraction in percent with two decimals."""
    return "n/a" if fraction is None else f"{100 * fraction:.2f}"
