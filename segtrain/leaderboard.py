"""The table of a sweep: one row a job, rewritten after every job."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtrain.errors import UserError
from segtrain.explain import printable
from segtrain.files import write_text
from segtrain.foreign import read_json


@dataclass(frozen=True)
class Column:
    """A figure of results.json.

    Attributes:
        name: Its key.
        title: Its head in the terminal; "" leaves it to the files.
        text: How a value is written there.
        descending: Whether the highest comes first.
    """

    name: str
    title: str = ""
    text: Callable[[Any], str] = str
    descending: bool = False


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f}"


SCORES = (
    Column("miou", "mIoU %", _percent, descending=True),
    Column("iiou", "iIoU %", _percent, descending=True),
    Column("macc", descending=True),
    Column("loss", "val loss", "{:.4f}".format),
    Column("epoch"),
    Column("params", "params", "{:,}".format),
    Column("seconds", "seconds", "{:.0f}".format),
)
COSTS = (
    Column("params", "params", "{:,}".format),
    Column("macs", "GMACs", lambda value: f"{value / 1e9:.2f}"),
    Column("flops"),
    Column("latency_ms", "ms", "{:.1f}".format),
    Column("latency_p95_ms", "ms p95", "{:.1f}".format),
    Column("images_per_second", "images/s", "{:.2f}".format, descending=True),
    Column("memory_bytes", "MiB", _mebibytes),
    Column("train_images_per_second", "train img/s", "{:.2f}".format, descending=True),
    Column("train_memory_bytes", "train MiB", _mebibytes),
)
CHECKS = (
    Column("errors", "errors"),
    Column("warnings", "warnings"),
    Column("num_images", "images"),
)


def columns(task: str) -> tuple[Column, ...]:
    """Return the figures that a task's table compares; the first is the one it is sorted by."""
    return {"benchmark": COSTS, "doctor": CHECKS}.get(task, SCORES)


def update(sweep_dir: Path, run_dir: Path, task: str, overrides: Sequence[str], *, sort: str | None = None,
           error: str | None = None) -> None:
    """Enter a job into leaderboard.json and leaderboard.csv of its sweep and print the table.

    Args:
        sweep_dir: The sweep's directory.
        run_dir: The job's directory below it.
        task: What the job does, such as train.
        overrides: What the job overrides.
        sort: The column to sort by, best first; None: the task's first.
        error: Why it failed; None if it did not.
    """
    path = sweep_dir / "leaderboard.json"
    rows = _read_rows(path, task) if path.exists() else []
    results = read_json(run_dir / "results.json") if error is None else {}
    row = {"job": run_dir.name, "status": "failed" if error else "done",
           **{column.name: results.get(column.name) for column in columns(task)},
           "overrides": " ".join(overrides), "error": error}
    rows = sorted_rows([other for other in rows if other["job"] != row["job"]] + [row], task, sort)
    write_text(path, json.dumps(rows, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path.with_suffix(".csv"), text.getvalue())
    print(f"\n{printable(table(rows, task), keep=chr(10))}\n\nleaderboard: {path.with_suffix('.csv')}", flush=True)


def _read_rows(path: Path, task: str) -> list[dict[str, Any]]:
    """Read the rows of the jobs before this one; UserError if segtrain did not write them."""
    rows = read_json(path)
    figures = [column.name for column in columns(task)]
    for row in rows if isinstance(rows, list) else [None]:
        if (not isinstance(row, dict) or not isinstance(row.get("job"), str) or "error" not in row
                or row.get("status") not in ("done", "failed")
                or not all(isinstance(row.get(name), int | float | None) for name in figures)):
            raise UserError(f"{path} is no table of a sweep of task={task}: remove it, or choose another "
                            "hydra.sweep.dir=.")
    return rows


def sorted_rows(rows: Sequence[dict[str, Any]], task: str, sort: str | None = None) -> list[dict[str, Any]]:
    """Sort rows by a column, best first; those without a value come last."""
    column = next(each for each in columns(task) if sort in (None, each.name))

    def place(row: dict[str, Any]) -> tuple[bool, float, str]:
        value = row.get(column.name)
        return value is None, (0 if value is None else -value if column.descending else value), row["job"]

    return sorted(rows, key=place)


def table(rows: Sequence[dict[str, Any]], task: str) -> str:
    """Write the rows for a terminal."""
    shown = [column for column in columns(task) if column.title]
    cells = [["job", *(column.title for column in shown)]]
    for row in rows:
        values = [(column, row.get(column.name)) for column in shown]
        cells.append([row["job"], *("n/a" if value is None else column.text(value) for column, value in values)])
    widths = [max(len(line[number]) for line in cells) for number in range(len(cells[0]))]
    failures = ["", *(f"  failed: {row['error']}" if row["status"] == "failed" else "" for row in rows)]
    return "\n".join(
        "  ".join([f"{line[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in
                                                zip(line[1:], widths[1:], strict=True))]) + failure
        for line, failure in zip(cells, failures, strict=True))


def read_score(path: Path, monitor: str) -> float | None:
    """Return one score of a results.json."""
    results = read_json(path)
    score = results.get(monitor) if isinstance(results, dict) else ""
    if not isinstance(score, int | float | None):
        raise UserError(f"{path} holds no results of segtrain: remove it, or choose another run.")
    return score
