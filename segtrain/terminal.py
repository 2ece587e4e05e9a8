"""Write for terminals: colors, aligned tables, percent, and text without control characters."""

import io
import logging
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TextIO

RED, YELLOW, END = "\x1b[31m", "\x1b[33m", "\x1b[0m"


def open_streams() -> None:
    """Let closed standard streams lead to nowhere, and show text that a stream's encoding lacks as escapes.

    Without its own, the number of a closed stream would be that of the next file that is opened.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shell(*words: object) -> str:
    """Write a command of segtrain so that it can be pasted into a shell, whichever names its paths have."""
    return shlex.join(["segtrain", *map(str, words)])


def takes_colors(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with colors whose user wants them (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def color_prefix(text: str, color: str, stream: TextIO) -> str:
    """Color the word and colon that a text starts with ("warning: ...") if the stream takes colors."""
    return re.sub(r"^[a-z]+:", rf"{color}\g<0>{END}", text) if takes_colors(stream) else text


def complain(text: str) -> None:
    """Print an error message on standard error."""
    print(color_prefix(text, RED, sys.stderr), file=sys.stderr)


@contextmanager
def silent_completion() -> Iterator[None]:
    """Hide messages while a shell completes a line: an incomplete line is often wrong."""
    asks = "-sc" in sys.argv and any(argument.startswith("query=") for argument in sys.argv)
    with redirect_stderr(io.StringIO()) if asks else nullcontext():
        yield


def printable(text: str, *, keep: str = "") -> str:
    """Escape control characters and invisible ones, such as \\x1b, \\n, \\u202e, except those in `keep`."""
    return "".join(letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode()
                   for letter in text)


class PrintableFormatter(logging.Formatter):
    """Escape control characters in log messages, which hold names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class TerminalFormatter(PrintableFormatter):
    """Write the messages alone, and color warnings if the stream takes colors."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__("%(message)s")
        self._stream = stream

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return color_prefix(text, YELLOW, self._stream) if record.levelno >= logging.WARNING else text


def percent(fraction: float | None, digits: int = 2) -> str:
    """Write a fraction in percent, without the sign; n/a for None."""
    return "n/a" if fraction is None else f"{100 * fraction:.{digits}f}"


def format_duration(seconds: float | None) -> str:
    """Write a duration: 42 s, 3 min 20 s, 5 h 07 min."""
    if seconds is None:
        return "n/a"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 100:
        return f"{minutes} min {round(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def table(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Align the cells of rows in columns: the `left` ones left, all others right; an empty row draws a rule."""
    widths = [max(map(len, column)) for column in zip(*filter(None, rows), strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join("  ".join(cell.ljust(width) if number in left else cell.rjust(width) for number, (cell, width)
                               in enumerate(zip(row, widths, strict=True))).rstrip() if row else rule for row in rows)
