"""Draw curves as SVG within a page, in the page's colors and fonts."""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

# The lines' colors are the page's variables --line-1 to --line-6, which differ in light and dark. With the dashes that
# makes 24 lines that can be told apart, also by color-blind readers.
NUM_COLORS = 6
DASHES: tuple[tuple[int, ...], ...] = ((), (5, 2), (1, 2), (7, 2, 1, 2))
MOST_LINES = NUM_COLORS * len(DASHES)
SIZE = (4.4, 2.7)  # inches of 72 units

_INK, _MUTED, _GRID = "#010203", "#010204", "#010205"  # what matplotlib draws, to be replaced by the page's variables
_LINES = [f"#0102{16 + number:02x}" for number in range(NUM_COLORS)]
_VARIABLES = {_INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--grid)",
              **{color: f"var(--line-{number})" for number, color in enumerate(_LINES, 1)}}


@dataclass(frozen=True)
class Line:
    """A line of a chart; points whose y is None are left out.

    Attributes:
        style: Its color and dash, 0..MOST_LINES-1.
        label: Its name in the chart's legend; "" for no entry.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    style: int
    label: str = ""


def draw_chart(name: str, title: str, lines: Sequence[Line], *, scale: float = 1, log: bool = False,
               marked: float | None = None) -> Markup | None:
    """Draw lines over the epochs; None if no line has a value.

    Args:
        name: Unique in the page, of letters.
        title: What the values are; shown above, and read out.
        lines: A line without any value is left out.
        scale: Factor of the values.
        log: Whether the values are on a logarithmic scale; all must be above 0 then.
        marked: An epoch to mark by a dotted line.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    shown = [line for line in lines if any(y is not None for y in line.y)]
    if not shown:
        return None
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, "axes.edgecolor": _MUTED,
                "text.color": _INK, "axes.labelcolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED,
                "text.parse_math": False, "axes.formatter.use_mathtext": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a chart too small for its ticks is still drawn
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for line in shown:
            points = [(x, scale * y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
            axes.plot(*zip(*points, strict=True), color=_LINES[line.style % NUM_COLORS],
                      dashes=DASHES[line.style // NUM_COLORS] or (None, None), linewidth=1.6,
                      marker="o" if len(points) < 3 else None, markersize=3.5, label=line.label)
        if marked is not None:
            axes.axvline(marked, color=_MUTED, linewidth=1, dashes=(1, 2))
        if log:
            axes.set_yscale("log")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        first, last = (pick(x for line in shown for x in line.x) for pick in (min, max))
        margin = 0.04 * (last - first) or 0.5
        axes.set_xlim(first - margin, last + margin)  # the same in all charts of a run, whatever they lack
        axes.grid(color=_GRID, linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        if any(line.label for line in shown):
            figure.legend(loc="outside lower center", ncols=len(shown), frameon=False, fontsize=9, handlelength=2.4)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _embed(text.getvalue(), name, title)


def draw_sparkline(values: Sequence[float | None]) -> Markup:
    """Draw the curve of a fraction, 0 to 1, in the size of a word."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    points = " ".join(f"{100 * number / (len(known) - 1):.1f},{20 - 19 * min(max(value, 0), 1):.1f}"
                      for number, value in enumerate(known))
    return Markup('<svg class="spark" viewBox="0 0 100 21" preserveAspectRatio="none" aria-hidden="true">'
                  '<polyline points="{}"/></svg>').format(points)


def draw_swatch(style: int) -> Markup:
    """Draw a piece of a line in its color and dash, for a legend."""
    dashes = ",".join(str(2 * length) for length in DASHES[style // NUM_COLORS]) or "none"
    return Markup('<svg class="swatch" viewBox="0 0 34 8" aria-hidden="true"><line x1="0" y1="4" x2="34" y2="4" '
                  'stroke-width="3" style="stroke: var(--line-{})" stroke-dasharray="{}"/></svg>').format(
                      style % NUM_COLORS + 1, dashes)


def _embed(svg: str, name: str, title: str) -> Markup:
    """Make an SVG file of matplotlib part of a page: no declarations, unique ids, the page's colors and fonts."""
    opening, body = svg[svg.index("<svg"):].split(">", 1)
    (view_box,) = re.findall(r'viewBox="([^"]*)"', opening)
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body.replace("xlink:href", "href"))
    body = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", body)
    body = re.sub(r"font(?:-family)?: (?![\d.]+px)[^;\"]*; ?", "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, variable)
    return Markup('<svg class="chart" role="img" aria-label="{} over the epochs" viewBox="{}">{}').format(
        title, view_box, Markup(body))
