"""Fill the templates of a report and write its file."""

import base64
import hashlib
import importlib.resources
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from segtrain.errors import UserError
from segtrain.files import write_text
from segtrain.terminal import percent

log = logging.getLogger(__name__)

NAME = "report.html"


def write_page(path: Path, template: str, content: dict[str, Any]) -> None:
    """Fill a template of this package and write the page whole or not at all.

    What the templates get is escaped, unless it is Markup. The page may load nothing, and run no script but its own:
    its policy says so to the browser.

    Raises:
        UserError: If it cannot be written.
    """
    environment = jinja2.Environment(loader=jinja2.PackageLoader("segtrain.report"), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "seconds": format_duration, "number": format_number,
                            "bar": format_bar, "breakable": make_breakable}
    script, style = (_file(name) for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_text(path, environment.get_template(template).render(
        **content, script=Markup(script), style=Markup(style), script_hash=digest))


def try_report(write: Callable[[Path], tuple[Path, list[str]]], folder: Path) -> Path | None:
    """Write the report of a finished run or sweep; a failure is logged and does not spoil what was done.

    Args:
        write: `run_page.write_run` or `sweep_page.write_sweep`.
        folder: The run's or the sweep's directory.

    Returns:
        The file, or None if it could not be written.
    """
    try:
        return write(folder)[0]
    except UserError as error:
        log.warning("warning: no report was written: %s", error)
    except Exception:
        log.warning("warning: no report of %s was written, all else is; a bug of segtrain:", folder, exc_info=True)
    return None


def _file(name: str) -> str:
    return (importlib.resources.files("segtrain.report") / "templates" / name).read_text(encoding="utf-8")


def format_bar(fraction: float | None) -> str:
    """Write the length of a bar for a fraction, as a share of the longest."""
    return f"{min(max(fraction or 0, 0), 1):.3f}"


def make_breakable(name: str) -> Markup:
    """Let a long name be broken where its parts end."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split(r"(?<=[,_/])", name))


def format_number(value: float | None, form: str = ",.0f") -> str:
    """Write a number as a format says."""
    return "n/a" if value is None else format(value, form)


def format_duration(seconds: float | None) -> str:
    """Write seconds so that they are read at a glance: 42 s, 3 min 20 s, 5 h 07 min."""
    if seconds is None:
        return "n/a"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 100:
        return f"{minutes} min {round(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
