"""The leaderboard of a sweep for the terminal: what differs between the jobs, their figures, means over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtrain.errors import UserError
from segtrain.files import read_json
from segtrain.metrics import comparison
from segtrain.sweep import leaderboard
from segtrain.terminal import printable

Rows = Sequence[Mapping[str, Any]]


def text(sweep_dir: Path) -> str:
    """Write the leaderboard of a sweep: a table for each task, and for each lot of jobs that were scored alike.

    Raises:
        UserError: If its leaderboard.json is not segtrain's.
    """
    path = sweep_dir / leaderboard.NAME
    rows = leaderboard.read_rows(path)
    keys = leaderboard.differing(rows)
    parts = []
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for task in tasks:
        own = [row for row in rows if row["task"] == task]
        title = f"task={task}\n" if len(tasks) > 1 else ""
        if len({row.get("table") for row in own if row["status"] == "done"}) < 2:
            parts.append(title + table(own, task, keys))
        else:
            parts += [title + each for each in _apart(sweep_dir, own, task, keys)]
    found = leaderboard.over_seeds(rows)
    if found:
        parts.append("over seeds: mean ± standard deviation of the sample\n" + seeds_table(found, rows))
    return printable("\n\n".join(parts), keep="\n") + f"\n\nleaderboard: {path.with_suffix('.csv')}"


def table(rows: Rows, task: str, keys: Sequence[str] = ()) -> str:
    """Write rows of one task.

    Args:
        rows: Of a leaderboard.
        task: Whose figures are shown.
        keys: What differs between the jobs. A job's folder is shown where it is not named by that.
    """
    by = leaderboard.sort_column(rows, task)
    shown = [column for column in leaderboard.columns(task)
             if column.title and (not column.is_minor or column.name == by.name)]
    is_named = bool(keys) and all(row["job"] == ",".join(f"{key}={value}" for key, value in row["settings"].items()
                                                         if key in keys) for row in rows)
    lines = [[*([] if is_named else ["job"]), *keys, *(column.title for column in shown)]]
    for row in rows:
        name = [] if is_named else [row["job"]]
        lines.append([*name, *(_setting(row["settings"].get(key)) for key in keys),
                      *(_figure(column, row.get(column.name)) for column in shown)])
    ends = ["", *(f"  failed: {row['error']}" if row["status"] == "failed" else "" for row in rows)]
    return _aligned(lines, len(lines[0]) - len(shown), ends)


def seeds_table(found: Rows, rows: Rows) -> str:
    """Write what leaderboard.over_seeds says of rows."""
    by = leaderboard.sort_column(rows, "train")
    keys = [key for key in leaderboard.differing(rows) if key != "seed"]
    shown = [column for column in leaderboard.SCORES if column.title and column.name in found[0]
             and (not column.is_minor or column.name == by.name)]
    has_tables = len({each["table"] for each in found}) > 1
    lines = [[*(["table"] if has_tables else []), *keys, "n", *(column.title for column in shown)]]
    for each in found:
        number = [str(each["table"])] if has_tables else []
        lines.append([*number, *(_setting(each["settings"].get(key)) for key in keys), str(each[by.name]["n"]),
                      *(mean_and_std(column, each[column.name]) for column in shown)])
    ends = ["", *(f"  ({each['failed']} failed)" if each["failed"] else "" for each in found)]
    return _aligned(lines, len(lines[0]) - len(shown), ends)


def mean_and_std(column: leaderboard.Column, spread: Mapping[str, Any]) -> str:
    """Write a mean and its standard deviation, which one value has not, in the column's unit."""
    if spread["mean"] is None:
        return "n/a"
    return column.text(spread["mean"]) + ("" if spread["std"] is None else f" ± {column.text(spread['std'])}")


def _apart(sweep_dir: Path, rows: Rows, task: str, keys: Sequence[str]) -> list[str]:
    """Write a table for each lot of jobs that were scored alike, and say why they cannot be compared."""
    parts, first = [], None
    for number in sorted({row["table"] for row in rows if row["table"] is not None}):
        chosen = [row for row in rows if row["table"] == number]
        results = _results(sweep_dir / chosen[0]["job"])
        title = f"table {number}"
        if results:
            title += f": {results.get('dataset')} {results.get('split')}, {len(results['iou_per_class'])} classes"
        if results and first:
            title += f"\nnot to be compared with table 1: {'; '.join(comparison.differences(first, results)[0])}"
        first = first or results
        parts.append(f"{title}\n{table(chosen, task, keys)}")
    failed = [row for row in rows if row["status"] == "failed"]
    return [*parts, *([table(failed, task, keys)] if failed else [])]


def _results(run_dir: Path) -> dict[str, Any]:
    """Read the scores of a job; {} if they are gone."""
    try:
        results = read_json(run_dir / "results.json")
    except UserError:
        return {}
    return results if isinstance(results, dict) and isinstance(results.get("iou_per_class"), dict) else {}


def _setting(value: str | None) -> str:
    """Write what was set for a job, a long number in short; nothing if it was not set."""
    try:
        return f"{float(value):.5g}" if value is not None and len(value) > 10 else value or ""
    except ValueError:
        return value or ""


def _figure(column: leaderboard.Column, value: Any) -> str:
    return "n/a" if value is None else column.text(value)


def _aligned(lines: Sequence[Sequence[str]], num_left: int, ends: Sequence[str]) -> str:
    """Put cells in columns: the first ones flush left, the others right."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" if number < num_left else f"{cell:>{width}}"
                               for number, (cell, width) in enumerate(zip(line, widths, strict=True))) + end
                     for line, end in zip(lines, ends, strict=True))
