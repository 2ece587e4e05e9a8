"""Write the leaderboard of a sweep for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtrain.errors import UserError
from segtrain.metrics import comparison
from segtrain.run.results import read_results
from segtrain.sweep import leaderboard
from segtrain.terminal import percent, printable, table

Rows = Sequence[Mapping[str, Any]]


def format_leaderboard(sweep_dir: Path) -> str:
    """Write the leaderboard of a sweep: a table for each task, and for each group of comparable jobs.

    Raises:
        UserError: If its leaderboard.json was not written by segtrain.
    """
    path = sweep_dir / leaderboard.NAME
    rows = leaderboard.read_rows(path)
    keys = leaderboard.find_differing_keys(rows)
    parts = []
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for task in tasks:
        own = [row for row in rows if row["task"] == task]
        title = f"task={task}\n" if len(tasks) > 1 else ""
        if len({row["table"] for row in own if row["status"] == "done"}) < 2:
            parts.append(title + format_jobs(own, task, keys))
        else:
            parts += [title + part for part in _format_groups(sweep_dir, own, task, keys)]
    repeats = leaderboard.summarize_repeats(rows, lambda row: read_results(sweep_dir / row["job"]))
    if repeats:
        parts.append(f"over {name_repeats(repeats)}: mean ± sample standard deviation\n{format_repeats(repeats, rows)}")
    parts.append(f"leaderboard: {printable(str(path.with_suffix('.csv')))}")
    return printable("\n\n".join(parts), keep="\n")


def format_jobs(rows: Rows, task: str, keys: Sequence[str] = ()) -> str:
    """Write jobs of one task as a table; a job's folder is shown unless the keys in which they differ are its name."""
    shown = _shown_columns(rows, task)
    is_named = bool(keys) and all(row["job"] == ",".join(f"{key}={value}" for key, value in row["settings"].items()
                                                         if key in keys) for row in rows)
    lines = [[*([] if is_named else ["job"]), *keys, *(column.title for column in shown), ""]]
    for row in rows:
        lines.append([*([] if is_named else [row["job"]]), *(_short(row["settings"].get(key)) for key in keys),
                      *(column.format(row.get(column.name)) for column in shown),
                      f"failed: {row['error']}" if row["status"] == "failed" else ""])
    return _align(lines, len(shown))


def name_repeats(repeats: Rows) -> str:
    """Return over what `leaderboard.summarize_repeats` took its means: "seeds", "folds" or "seeds and folds"."""
    return " and ".join(name for name in ("seeds", "folds") if any(len(set(group[name])) > 1 for group in repeats))


def format_repeats(repeats: Rows, rows: Rows) -> str:
    """Write what `leaderboard.summarize_repeats` returns for rows as a table."""
    keys = [key for key in leaderboard.find_differing_keys(rows) if key not in leaderboard.REPEATS]
    monitor = leaderboard.sort_column(rows, "train").name
    shown = [column for column in _shown_columns(rows, "train") if column.name in repeats[0]]
    has_tables = len({group["table"] for group in repeats}) > 1
    is_pooled = any(group["pooled_miou"] is not None for group in repeats)
    heads = [*(["pooled mIoU %"] if is_pooled else []), *(column.title for column in shown)]
    lines = [[*(["table"] if has_tables else []), *keys, "n", *heads, ""]]
    for group in repeats:
        pooled = [percent(group["pooled_miou"])] if is_pooled else []
        lines.append([*([str(group["table"])] if has_tables else []),
                      *(_short(group["settings"].get(key)) for key in keys), str(group[monitor]["n"]), *pooled,
                      *(format_spread(column, group[column.name]) for column in shown),
                      f"({group['failed']} failed)" if group["failed"] else ""])
    return _align(lines, len(heads))


def format_spread(column: leaderboard.Column, spread: Mapping[str, Any]) -> str:
    """Write a mean and, of several values, its standard deviation, in the column's unit."""
    mean = column.format(spread["mean"])
    return mean if spread["std"] is None else f"{mean} ± {column.format(spread['std'])}"


def _format_groups(sweep_dir: Path, rows: Rows, task: str, keys: Sequence[str]) -> list[str]:
    """Write a table for each group of comparable jobs, and why the groups cannot be compared."""
    parts, first = [], None
    for number in sorted({row["table"] for row in rows if row["table"] is not None}):
        group = [row for row in rows if row["table"] == number]
        title = f"table {number}"
        try:
            results = read_results(sweep_dir / group[0]["job"], with_scores=True)
        except UserError:  # the job's folder is gone
            results = None
        if results:
            title += f": {results.get('dataset')} {results.get('split')}, {len(results['iou_per_class'])} classes"
        if results and first:
            differing, _ = comparison.differences(first, results, across_folds=True)
            title += f"\nnot comparable with table 1: {'; '.join(differing)}"
        first = first or results
        parts.append(f"{title}\n{format_jobs(group, task, keys)}")
    failed = [row for row in rows if row["status"] == "failed"]
    return [*parts, *([format_jobs(failed, task, keys)] if failed else [])]


def _shown_columns(rows: Rows, task: str) -> list[leaderboard.Column]:
    monitor = leaderboard.sort_column(rows, task).name
    return [column for column in leaderboard.columns_of(task)
            if column.title and (not column.is_minor or column.name == monitor)]


def _align(lines: Sequence[Sequence[str]], num_figures: int) -> str:
    """Align the settings and the last column left, the figures right."""
    width = len(lines[0])
    return table(lines, left=(*range(width - num_figures - 1), width - 1))


def _short(value: str | None) -> str:
    """Shorten a long number that was set for a job; nothing if it was not set."""
    try:
        return f"{float(value):.5g}" if value is not None and len(value) > 10 else value or ""
    except ValueError:
        return value or ""
