"""The table of a sweep: one row a job, rewritten after every job."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segtrain.files import write_text

COLUMNS = ("job", "status", "miou", "iiou", "macc", "loss", "epoch", "params", "seconds", "overrides", "error")


def update(sweep_dir: Path, run_dir: Path, overrides: Sequence[str], error: str | None = None) -> None:
    """Enter a job into leaderboard.json and leaderboard.csv of its sweep and print the table.

    Args:
        sweep_dir: The sweep's directory.
        run_dir: The job's directory below it.
        overrides: What the job overrides.
        error: Why it failed; None if it did not.
    """
    path = sweep_dir / "leaderboard.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    results = _read(run_dir / "results.json") if error is None else {}
    row = {"job": run_dir.name, "status": "failed" if error else "done", "overrides": " ".join(overrides),
           "error": error, **{name: results.get(name) for name in COLUMNS[2:9]}}
    rows = [other for other in rows if other["job"] != row["job"]] + [{name: row[name] for name in COLUMNS}]
    rows.sort(key=lambda each: (each["miou"] is None, -(each["miou"] or 0), each["job"]))
    write_text(path, json.dumps(rows, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path.with_suffix(".csv"), text.getvalue())
    print(f"\n{table(rows)}\n\nleaderboard: {path.with_suffix('.csv')}", flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows for a terminal, best mIoU first, scores in percent."""
    width = max(3, *(len(row["job"]) for row in rows))
    lines = [f"{'job':<{width}}  {'mIoU %':>6}  {'iIoU %':>6}  {'val loss':>8}  {'seconds':>7}"]
    for row in rows:
        miou, iiou = ("n/a" if row[name] is None else f"{100 * row[name]:.2f}" for name in ("miou", "iiou"))
        loss = "n/a" if row["loss"] is None else f"{row['loss']:.4f}"
        seconds = "n/a" if row["seconds"] is None else f"{row['seconds']:.0f}"
        failure = f"  failed: {row['error']}" if row["status"] == "failed" else ""
        lines.append(f"{row['job']:<{width}}  {miou:>6}  {iiou:>6}  {loss:>8}  {seconds:>7}{failure}")
    return "\n".join(lines)


def read_score(path: Path, monitor: str) -> float | None:
    """Return one score of a results.json."""
    return _read(path).get(monitor)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
