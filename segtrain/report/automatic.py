"""Reports that nobody asked for by name: what goes wrong with them must not spoil what was done."""

import logging
from collections.abc import Callable
from pathlib import Path

from segtrain.errors import UserError
from segtrain.report.run_page import write_run
from segtrain.report.sweep_page import write_sweep

log = logging.getLogger("segtrain")


def report_run(run_dir: Path) -> Path | None:
    """Write the report of a finished run; log why not if that fails, and return None then."""
    return _tried(write_run, run_dir)


def report_sweep(sweep_dir: Path) -> Path | None:
    """Write the report of a finished sweep; log why not if that fails, and return None then."""
    return _tried(write_sweep, sweep_dir)


def _tried(write: Callable[[Path], tuple[Path, list[str]]], folder: Path) -> Path | None:
    try:
        return write(folder)[0]
    except UserError as error:
        log.warning("warning: no report was written: %s", error)
    except Exception:  # a bug of the report; what it reports on is done and stays as it is
        log.warning("warning: no report of %s was written, all else is; a bug of segtrain:", folder, exc_info=True)
    return None
