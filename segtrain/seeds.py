"""Mean and spread of the jobs of a sweep that differ in their seed alone."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


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
