"""Gather the data of the charts, which charts.js draws in the browser."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segtrain.terminal import printable

# The lines' colors are the page's variables --line-1 to --line-6, which differ in light and dark. With charts.js' four
# dashes that makes 24 lines that can be told apart, also by color-blind readers.
MOST_LINES = 24
MOST_VALUES = 20_000  # of a chart: a page of many epochs and classes stays small


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        x: Rising.
        y: None where it has no value.
        style: Its color and dash; from MOST_LINES on they are those of earlier lines again.
        label: Its name in the chart's legend; "" for the chart's title.
        band: The lower and the upper ends of an area around it.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    style: int
    label: str = ""
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None


@dataclass(frozen=True)
class Chart:
    """A chart of the page.

    Attributes:
        title: What its values are.
        data: What charts.js draws, as JSON.
        step: Every how many epochs it has a point.
    """

    title: str
    data: str
    step: int


def make_chart(title: str, lines: Sequence[Line], *, scale: float = 1, unit: str = "", log: bool = False,
               marked: float | None = None) -> Chart | None:
    """Gather lines over the epochs; None if no line has a value.

    Args:
        scale: Factor of the values.
        unit: "%" writes two decimals.
        log: Whether the values are on a logarithmic scale; all must be above 0 then.
        marked: An epoch to mark by a dotted line.
    """
    shown = [line for line in lines if any(y is not None for y in line.y)]
    if not shown:
        return None
    epochs = sorted({x for line in shown for x in line.x})
    step = -(-len(epochs) * len(shown) // MOST_VALUES)
    kept = epochs[::-step][::-1]  # the last one is kept

    def column(line: Line, values: Sequence[float | None]) -> list[float | None]:
        known = dict(zip(line.x, values, strict=True))
        return [None if (value := known.get(x)) is None else float(f"{scale * value:.5g}") for x in kept]

    drawn = []
    for line in shown:
        entry: dict[str, Any] = {"label": printable(line.label), "style": line.style, "y": column(line, line.y)}
        if line.band is not None:
            entry |= {key: column(line, values) for key, values in zip(("low", "high"), line.band, strict=True)}
        drawn.append(entry)
    data = {"x": kept, "x_name": "epoch", "unit": unit, "log": log, "marked": marked, "lines": drawn}
    return Chart(title, json.dumps(data, separators=(",", ":")), step)


@dataclass(frozen=True)
class Repeats:
    """Runs that differ in seed and fold alone: their mean, and the band between the lowest and the highest of them."""

    label: str
    lines: Sequence[Line] = field(default_factory=list)

    def mean_line(self, style: int) -> Line:
        """Return the mean of the lines where all of them have a value, and the band."""
        columns = [dict(zip(line.x, line.y, strict=True)) for line in self.lines]
        common = sorted(x for x in columns[0] if all(column.get(x) is not None for column in columns))
        values = np.array([[column[x] for x in common] for column in columns], float)  # (runs, epochs)
        if len(columns) == 1:
            return Line(common, values[0].tolist(), style, self.label)
        return Line(common, values.mean(0).tolist(), style, f"{self.label} (mean of {len(columns)})",
                    (values.min(0).tolist(), values.max(0).tolist()))
