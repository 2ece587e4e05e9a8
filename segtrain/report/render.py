"""Fill the templates of a report and write its file."""

import base64
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from segtrain.errors import UserError
from segtrain.files import write_text
from segtrain.terminal import format_duration, percent, printable

log = logging.getLogger(__name__)

NAME = "report.html"
SCRIPTS = ("vendor/uPlot.LICENSE", "vendor/uPlot.iife.min.js",
           *(f"templates/{name}.js" for name in ("tables", "page", "charts", "viewer", "sweep")))
STYLES = ("vendor/uPlot.min.css", "templates/report.css")


def write_page(path: Path, template: str, content: dict[str, Any]) -> None:
    """Fill a template of this package and write the page whole or not at all.

    Content is escaped, control characters too, unless it is Markup. The page's Content-Security-Policy allows no
    loading, and no script but its own.

    Raises:
        UserError: If it cannot be written.
    """
    loader = jinja2.PackageLoader("segtrain.report")
    environment = jinja2.Environment(loader=loader, autoescape=True, finalize=_escape_controls,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "seconds": format_duration, "number": format_number,
                            "bar": format_bar, "breakable": make_breakable}
    script, style = ("\n".join(_read(name) for name in names) for names in (SCRIPTS, STYLES))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_text(path, environment.get_template(template).render(
        **content, script=Markup(script), style=Markup(style), script_hash=digest))


def _read(name: str) -> str:
    """Return the text of a file of this package; a licence as a comment."""
    text = Path(__file__).parent.joinpath(name).read_text(encoding="utf-8")
    return f"/*\n{text}*/" if name.endswith("LICENSE") else text


def _escape_controls(value: Any) -> Any:
    return printable(value, keep="\n\t") if type(value) is str else value


def try_report(write: Callable[[Path], tuple[Path, list[str]]], folder: Path) -> Path | None:
    """Write the report of a finished run or sweep by `write_run` or `write_sweep`, and return its file.

    A failure is logged, and None is returned: the run itself is complete.
    """
    try:
        return write(folder)[0]
    except UserError as error:
        log.warning("warning: no report was written: %s", error)
    except Exception:
        log.warning("warning: no report of %s was written, all else is; a bug of segtrain:", folder, exc_info=True)
    return None


def format_bar(fraction: float | None) -> str:
    """Write a fraction as the length of a bar, clipped to 0..1."""
    return f"{min(max(fraction or 0, 0), 1):.3f}"


def make_breakable(name: str) -> Markup:
    """Allow line breaks between the parts of a long name."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split(r"(?<=[,_/])", printable(name)))


def format_number(value: float | None, form: str = ",.0f") -> str:
    """Write a number in a format; n/a for None."""
    return "n/a" if value is None else format(value, form)


