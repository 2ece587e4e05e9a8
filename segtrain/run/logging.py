"""The log of a run: to the terminal, and to a file in the run directory."""

import contextlib
import logging
import sys
from pathlib import Path

from segtrain.files import own_copy
from segtrain.terminal import PrintableFormatter, TerminalFormatter

log = logging.getLogger("segtrain")


class _Handler(logging.Handler):
    """Report once that the log cannot be written; the run goes on."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            with contextlib.suppress(OSError):
                print(f"segtrain: the log cannot be written ({error})", file=sys.stderr)


class _Console(_Handler, logging.StreamHandler):
    pass


class _File(_Handler, logging.FileHandler):
    pass


def start_log(path: Path) -> None:
    """Send the log to the terminal and to a file of the run, and no longer to the files of an earlier job."""
    stop_log()
    own_copy(path)
    log.setLevel(logging.INFO)
    log.propagate = False
    console = _Console(sys.stdout)
    console.setFormatter(TerminalFormatter(sys.stdout))
    file = _File(path, encoding="utf-8")
    file.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(console)
    log.addHandler(file)


def stop_log() -> None:
    """Close the files of the log."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        with contextlib.suppress(OSError):  # has been reported
            handler.close()


def log_failure(error: Exception, message: str | None) -> None:
    """Write to the log's file why a job failed, with its traceback unless the user gets a message.

    The terminal is left out: the command line prints the message at its end.
    """
    trace = None if message is not None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message or "a bug of segtrain:", (), trace)
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
