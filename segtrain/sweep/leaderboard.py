"""Mean and spread of the jobs of a sweep that differ in their seed alone.
The table of a sweep: one row a job, rewritten after every job, whichever process ran it.
"""

import contextlib
import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from segtrain.errors import UserError
from segtrain.files import read_json, write_text
from segtrain.metrics import comparison


def summaries(rows: Sequence[Mapping[str, Any]], figures: Sequence[str], *, sort: str,
              descending: bool) -> list[dict[str, Any]]:
    """Summarize the jobs that differ in their seed alone.

    Args:
        rows: Jobs: `settings` (what was set for the job, by key), `status`, the figures, and `table`, which is the same
            number for jobs whose scores may be compared.
        figures: The names of the figures to summarize.
        sort: The one to sort by, best first.
        descending: Whether its highest is the best.

    Returns:
        A mapping for each group of such jobs: `settings` without the seed, `table`, `seeds`, `failed` (how many jobs),
        and under each figure's name `mean`, `std` (of a sample: divided by n - 1; None for one value) and `n`, over the
        jobs for which it is defined. Nothing if no group has two seeds.
    """
    done = [row for row in rows if row["status"] == "done"]
    failed = [_without_seed(row) for row in rows if row["status"] == "failed"]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in done:
        groups.setdefault(json.dumps([_without_seed(row), row.get("table")], sort_keys=True), []).append(row)
    found: list[dict[str, Any]] = [
        {"settings": _without_seed(group[0]), "table": group[0].get("table"),
         "seeds": [row["settings"].get("seed") for row in group], "failed": failed.count(_without_seed(group[0])),
         **{name: _spread([row.get(name) for row in group]) for name in figures}} for group in groups.values()]
    if not any(len(set(each["seeds"])) > 1 for each in found):
        return []
    return sorted(found, key=lambda each: (each[sort]["mean"] is None,
                                           (each[sort]["mean"] or 0) * (-1 if descending else 1)))


def _without_seed(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in row["settings"].items() if key != "seed"}


def _spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return {"mean": statistics.fmean(known) if known else None,
            "std": statistics.stdev(known) if len(known) > 1 else None, "n": len(known)}


NAME = "leaderboard.json"
SEEDS = "leaderboard_seeds.json"  # apart from the jobs: NAME is a list of them, and its readers take each for a job


@dataclass(frozen=True)
class Column:
    """A figure of results.json.

    Attributes:
        name: Its key.
        title: Its head in the terminal; "" leaves it to the files.
        text: How a value is written there.
        descending: Whether the highest comes first.
        is_minor: Whether the terminal shows it only where rows are sorted by it.
    """

    name: str
    title: str = ""
    text: Callable[[Any], str] = str
    descending: bool = False
    is_minor: bool = False


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f}"


SCORES = (
    Column("miou", "mIoU %", _percent, descending=True),
    Column("iiou", "iIoU %", _percent, descending=True),
    Column("macc", "mean accuracy %", _percent, descending=True, is_minor=True),
    Column("pacc", "pixel accuracy %", _percent, descending=True, is_minor=True),
    Column("fwiou", "fw IoU %", _percent, descending=True, is_minor=True),
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


def sort_column(rows: Sequence[Mapping[str, Any]], task: str) -> Column:
    """Return the column that rows of a task are sorted by: what all of them ask for, else the task's first."""
    known = {column.name: column for column in columns(task)}
    asked = {row["sort"] for row in rows if row.get("sort") in known}
    return known[asked.pop()] if len(asked) == 1 else columns(task)[0]


def update(sweep_dir: Path, run_dir: Path, task: str, overrides: Sequence[str], *, sort: str | None = None,
           error: str | None = None) -> list[dict[str, Any]]:
    """Enter a job into the files of its sweep; several processes may do so at once.

    Args:
        sweep_dir: The sweep's directory.
        run_dir: The job's directory below it.
        task: What the job does, such as train.
        overrides: What the job overrides.
        sort: The column to sort by, best first; None: the task's first.
        error: Why it failed; None if it did not.

    Returns:
        The rows of all jobs, the best first.

    Raises:
        UserError: If the files cannot be written, or those that are there are not segtrain's.
    """
    path = sweep_dir / NAME
    results = _results(run_dir) if error is None else {}
    with locked(sweep_dir):
        others = [row for row in read_rows(path) if row["job"] != run_dir.name] if path.exists() else []
        row = {"job": run_dir.name, "status": "failed" if error else "done", "task": task,
               "settings": _settings(overrides), **{column.name: results.get(column.name) for column in columns(task)},
               "table": _table(results, others, sweep_dir, task) if error is None else None, "sort": sort,
               "overrides": " ".join(overrides), "error": error}
        rows = [each for name in dict.fromkeys(row["task"] for row in [*others, row])
                for each in sorted_rows([one for one in [*others, row] if one["task"] == name], name)]
        write_text(path, json.dumps(rows, indent=1) + "\n")
        write_text(path.with_suffix(".csv"), _csv(rows))
        _write_seeds(sweep_dir, rows)
    return rows


@contextlib.contextmanager
def locked(sweep_dir: Path) -> Iterator[None]:
    """Wait for the other processes that write the files of a sweep, and keep them waiting."""
    path = sweep_dir / ".leaderboard.lock"
    if path.is_symlink():
        path.unlink()  # it may lead anywhere
    lock = FileLock(path)
    try:
        lock.acquire()
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): make room or choose another "
                        "hydra.sweep.dir=.") from error
    try:
        yield
    finally:
        lock.release()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a sweep's jobs; UserError if segtrain did not write them."""
    rows = read_json(path)
    for row in rows if isinstance(rows, list) else [None]:
        if not (isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("job", "status"))
                and row["status"] in ("done", "failed") and isinstance(row.get("error", 0), str | None)
                and isinstance(row.get("overrides", ""), str) and isinstance(row.get("task", ""), str)
                and isinstance(row.get("sort"), str | None) and isinstance(row.get("table"), int | None)
                and _is_plain(row.get("settings", {}))
                and all(isinstance(row.get(column.name), int | float | None)
                        for column in columns(row.get("task", "train")))):
            raise UserError(f"{path} is no table of a sweep as segtrain writes it: remove it, or choose another "
                            "hydra.sweep.dir=.")
        row.setdefault("task", "train")  # of a sweep that is older than these keys
        row.setdefault("settings", _settings(row.get("overrides", "").split()))
        row.setdefault("table", 1 if row["status"] == "done" else None)
    return rows


def _is_plain(settings: Any) -> bool:
    return isinstance(settings, dict) and all(isinstance(value, str) for value in settings.values())


def _settings(overrides: Sequence[str]) -> dict[str, str]:
    """Return what a job's overrides set, by key; a key that they delete has no value."""
    found = {}
    for override in overrides:
        key, _, value = override.partition("=")
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""  # for Hydra
        found[key.lstrip("+~")] = value[1:-1] if is_quoted else value
    return found


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that were not set alike for all jobs."""
    keys = dict.fromkeys(key for row in rows for key in row["settings"])
    return [key for key in keys if len({row["settings"].get(key) for row in rows}) > 1]


def sorted_rows(rows: Sequence[dict[str, Any]], task: str, sort: str | None = None) -> list[dict[str, Any]]:
    """Sort rows of a task by a column, best first: those whose scores may be compared together, failed ones last."""
    column = next((each for each in columns(task) if each.name == sort), sort_column(rows, task))

    def place(row: dict[str, Any]) -> tuple[bool, int, bool, float, str]:
        value = row.get(column.name)
        return (row["status"] == "failed", row.get("table") or 0, value is None,
                0 if value is None else -value if column.descending else value, row["job"])

    return sorted(rows, key=place)


def _results(run_dir: Path) -> dict[str, Any]:
    results = read_json(run_dir / "results.json")
    if not isinstance(results, dict):
        raise UserError(f"{run_dir / 'results.json'} holds no results of segtrain: remove it, or choose another run.")
    return results


def _table(results: Mapping[str, Any], others: Sequence[Mapping[str, Any]], sweep_dir: Path, task: str) -> int:
    """Return the number of the table that a job belongs to: scores of different tables cannot be compared."""
    unlike: set[int] = set()
    unread: set[int] = set()  # of jobs whose folder is gone
    for row in others:
        number = row.get("table")
        if row["task"] != task or number is None or number in unlike:
            continue
        try:
            other = _results(sweep_dir / row["job"])
        except UserError:  # another of its table will do
            unread.add(number)
            continue
        if not all(isinstance(each.get("iou_per_class"), dict) for each in (results, other)) or comparison.are_alike(
                other, results):
            return number
        unlike.add(number)
    if unread - unlike:
        return min(unread - unlike)
    return 1 + max((row.get("table") or 0 for row in others if row["task"] == task), default=0)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV; what differs between the jobs has columns of its own, left of the figures."""
    keys = {key: f"{key} (set)" if key in {name for row in rows for name in row} else key for key in differing(rows)}
    names = dict.fromkeys(name for row in rows for name in row if name not in ("job", "status", "settings", "sort"))
    last = ("table", "overrides", "error")
    text = io.StringIO()
    heads = ["job", "status", *keys.values(), *(name for name in names if name not in last), *last]
    writer = csv.DictWriter(text, heads, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**row, **{keys[key]: value for key, value in row["settings"].items() if key in keys}}
                     for row in rows)
    return text.getvalue()


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Summarize jobs with scores that differ in their seed alone; nothing where there are none."""
    scored = [row for row in rows if columns(row["task"]) is SCORES]
    best = sort_column(scored, "train")
    names = [column.name for column in SCORES if column.name not in ("epoch", "params")]
    return summaries(scored, names, sort=best.name, descending=best.descending)


def _write_seeds(sweep_dir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    found = over_seeds(rows)
    if found:
        write_text(sweep_dir / SEEDS, json.dumps(found, indent=1) + "\n")
    else:
        (sweep_dir / SEEDS).unlink(missing_ok=True)


def read_score(path: Path, monitor: str) -> float | None:
    """Return one score of a results.json."""
    results = read_json(path)
    score = results.get(monitor) if isinstance(results, dict) else ""
    if not isinstance(score, int | float | None):
        raise UserError(f"{path} holds no results of segtrain: remove it, or choose another run.")
    return score
