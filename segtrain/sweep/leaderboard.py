"""Keep the leaderboard of a sweep: a row for each job, sorted, and summaries over seeds.

The files are rewritten after every job, whichever process ran it.
"""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtrain.config.overrides import unquote
from segtrain.errors import UserError
from segtrain.files import locked, read_json, write_text
from segtrain.metrics import comparison
from segtrain.run.results import csv_text, read_results
from segtrain.terminal import percent

NAME = "leaderboard.json"
SEEDS = "leaderboard_seeds.json"  # a file of its own: NAME is a list of jobs
# Keys whose values repeat one training, and what the values are called.
REPEATS = {"seed": "seeds", "dataset.fold": "folds", "dataset.holdout": "folds"}


@dataclass(frozen=True)
class Column:
    """A figure of results.json."""

    name: str  # its key
    title: str = ""  # its head in the terminal; "" leaves it to the files
    text: Callable[[Any], str] = str  # writes a value for the terminal
    is_minor: bool = False  # whether the terminal shows it only where rows are sorted by it

    @property
    def descending(self) -> bool:
        """Whether the highest value comes first."""
        return comparison.better(self.name) == "maximize"

    def format(self, value: Any) -> str:
        return "n/a" if value is None else self.text(value)


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f}"


SCORES = (
    Column("miou", "mIoU %", percent),
    Column("iiou", "iIoU %", percent),
    Column("macc", "mean accuracy %", percent, is_minor=True),
    Column("pacc", "pixel accuracy %", percent, is_minor=True),
    Column("fwiou", "fw IoU %", percent, is_minor=True),
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
    Column("images_per_second", "images/s", "{:.2f}".format),
    Column("memory_bytes", "MiB", _mebibytes),
    Column("train_images_per_second", "train img/s", "{:.2f}".format),
    Column("train_memory_bytes", "train MiB", _mebibytes),
)
CHECKS = (
    Column("errors", "errors"),
    Column("warnings", "warnings"),
    Column("num_images", "images"),
)


def columns_of(task: str) -> tuple[Column, ...]:
    """Return the figures that a task's table compares; rows are sorted by the first unless they ask for another."""
    return {"benchmark": COSTS, "doctor": CHECKS}.get(task, SCORES)


def sort_column(rows: Sequence[Mapping[str, Any]], task: str) -> Column:
    """Return the column that rows of a task are sorted by: what all of them ask for, else the task's first."""
    known = {column.name: column for column in columns_of(task)}
    asked = {row["sort"] for row in rows if row.get("sort") in known}
    return known[asked.pop()] if len(asked) == 1 else columns_of(task)[0]


def update(sweep_dir: Path, run_dir: Path, task: str, overrides: Sequence[str], *, sort: str | None = None,
           error: str | None = None) -> list[dict[str, Any]]:
    """Add a job to the leaderboard of its sweep; several processes may do so at once.

    Args:
        sort: The column to sort by; None: the task's first.
        error: Why the job failed; None if it did not.

    Returns:
        The rows of all jobs, the best first.

    Raises:
        UserError: If the files cannot be written, or existing ones were not written by segtrain.
    """
    path = sweep_dir / NAME
    results = read_results(run_dir) if error is None else {}
    with locked(path):
        others = [row for row in read_rows(path) if row["job"] != run_dir.name] if path.exists() else []
        row = {"file_format": 1, "job": run_dir.name, "status": "failed" if error else "done", "task": task,
               "settings": _settings(overrides),
               **{column.name: results.get(column.name) for column in columns_of(task)},
               "table": _find_table(results, others, sweep_dir, task) if error is None else None, "sort": sort,
               "overrides": " ".join(overrides), "error": error}
        tasks = dict.fromkeys(row["task"] for row in [*others, row])
        rows = [placed for name in tasks
                for placed in sort_rows([row for row in [*others, row] if row["task"] == name], name)]
        write_text(path, json.dumps(rows, indent=1) + "\n")
        write_text(path.with_suffix(".csv"), _csv(rows))
        seeds = summarize_repeats(rows, lambda row: read_results(sweep_dir / row["job"]))
        if seeds:
            write_text(sweep_dir / SEEDS, json.dumps(seeds, indent=1) + "\n")
        else:
            (sweep_dir / SEEDS).unlink(missing_ok=True)
    return rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read leaderboard.json; UserError if segtrain did not write it."""
    from segtrain.schemas import check_content  # slow to import: --help must not wait for it
    from segtrain.sweep.file_schemas import Rows

    rows = read_json(path)
    check_content(Rows, rows, path, "remove it, or choose another hydra.sweep.dir=")
    return rows


def read_score(path: Path, monitor: str) -> float | None:
    """Return one score of a results.json."""
    return read_results(path).get(monitor)


def find_differing_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that differ between the jobs."""
    keys = dict.fromkeys(key for row in rows for key in row["settings"])
    return [key for key in keys if len({row["settings"].get(key) for row in rows}) > 1]


def sort_rows(rows: Sequence[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """Sort rows of a task by their column, best first: comparable jobs together, failed ones last."""
    column = sort_column(rows, task)

    def place(row: dict[str, Any]) -> tuple[bool, int, bool, float, str]:
        value = row.get(column.name)
        return (row["status"] == "failed", row.get("table") or 0, value is None,
                0 if value is None else -value if column.descending else value, row["job"])

    return sorted(rows, key=place)


def summarize_repeats(rows: Sequence[Mapping[str, Any]],
                      read: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summarize the jobs that differ in seed and fold alone, best mean first; those without scores are left out.

    Args:
        rows: The jobs.
        read: Returns the results.json of a row; of folds the confusion matrices are added up.

    Returns:
        A mapping for each group of such jobs: `settings` without seed and fold, `table`, `seeds`, `folds`, `failed`
        (how many jobs), under each figure's name `mean`, `std` (of the sample: divided by n - 1; None for one value)
        and `n`, over the jobs for which it is defined, and `pooled_miou`, of the added matrices of all its jobs; None
        without folds. Nothing if no group has two seeds or two folds.
    """
    scored = [row for row in rows if columns_of(row["task"]) is SCORES]
    failed = [_without_repeats(row) for row in scored if row["status"] == "failed"]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in scored:
        if row["status"] == "done":
            groups.setdefault(json.dumps([_without_repeats(row), row.get("table")], sort_keys=True), []).append(row)
    found: list[dict[str, Any]] = []
    for group in groups.values():
        settings = _without_repeats(group[0])
        repeats = {name: [row["settings"][key] for row in group for key in REPEATS
                          if REPEATS[key] == name and key in row["settings"]] for name in ("seeds", "folds")}
        found.append({
            "settings": settings, "table": group[0].get("table"), **repeats, "failed": failed.count(settings),
            "pooled_miou": _pool(group, read) if len(set(repeats["folds"])) > 1 else None,
            **{column.name: _spread([row.get(column.name) for row in group])
               for column in SCORES if column.name not in ("epoch", "params")}})
    if not any(len(set(summary[name])) > 1 for summary in found for name in ("seeds", "folds")):
        return []
    best = sort_column(scored, "train")
    return sorted(found, key=lambda summary: (summary[best.name]["mean"] is None,
                                              (summary[best.name]["mean"] or 0) * (-1 if best.descending else 1)))


def _without_repeats(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in row["settings"].items() if key not in REPEATS}


def _pool(group: Sequence[Mapping[str, Any]],
          read: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> float | None:
    """Return the mIoU over all jobs of a group; None where a job's folder is gone."""
    try:
        found = [read(row) for row in group]
    except UserError:
        return None
    return comparison.pool_miou(found) if all("confusion_matrix" in results for results in found) else None


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return {"mean": statistics.fmean(known) if known else None,
            "std": statistics.stdev(known) if len(known) > 1 else None, "n": len(known)}


def _settings(overrides: Sequence[str]) -> dict[str, str]:
    """Return what a job's overrides set, by key; a key that they delete has no value."""
    found = {}
    for override in overrides:
        key, _, value = override.partition("=")
        found[key.lstrip("+~")] = unquote(value)
    return found


def _find_table(results: Mapping[str, Any], others: Sequence[Mapping[str, Any]], sweep_dir: Path, task: str) -> int:
    """Return the number of the table that a job belongs to: scores of different tables cannot be compared."""
    incomparable: set[int] = set()
    unread: set[int] = set()  # tables with jobs whose folder is gone
    for row in others:
        number = row.get("table")
        if row["task"] != task or number is None or number in incomparable:
            continue
        try:
            other = read_results(sweep_dir / row["job"])
        except UserError:  # another job of its table will do
            unread.add(number)
            continue
        if not all(isinstance(either.get("iou_per_class"), dict) for either in (results, other)):
            return number
        if not comparison.differences(other, results, across_folds=True)[0]:
            return number
        incomparable.add(number)
    if unread - incomparable:
        return min(unread - incomparable)
    return 1 + max((row.get("table") or 0 for row in others if row["task"] == task), default=0)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV; the keys in which the jobs differ are columns left of the figures."""
    names = dict.fromkeys(name for row in rows for name in row)
    first, last = ("job", "status"), ("table", "overrides", "error")
    figures = [name for name in names if name not in (*first, *last, "file_format", "settings", "sort")]
    keys = find_differing_keys(rows)
    heads = [f"{key} (set)" if key in names else key for key in keys]
    return csv_text([[*first, *heads, *figures, *last],
                     *([*map(row.get, first), *map(row["settings"].get, keys), *map(row.get, figures),
                        *map(row.get, last)] for row in rows)])
