"""segtrain runs: a table of the runs in outputs/ and multirun/."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from segtrain.errors import UserError
from segtrain.metrics import comparison
from segtrain.run.listing import RUNS, SWEEPS, Listed, describe_run, find_runs
from segtrain.terminal import percent, printable, table

SORTED_BY = ("when", "run", "task", "model", "data", "miou", "iiou", "loss", "state")


def main(arguments: Sequence[str]) -> None:
    """Print the table; UserError if a folder that was named is not there."""
    parser = argparse.ArgumentParser("segtrain runs", description="List the runs below some folders.")
    parser.add_argument("folders", nargs="*", type=Path, help=f"where to look; default: {RUNS} and {SWEEPS}")
    parser.add_argument("--sort", choices=SORTED_BY, default="when", help="the column to sort by; default: when")
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects, scores as fractions")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name folders that hold runs, or none for {RUNS} and {SWEEPS}.")
    roots = options.folders or [root for root in (Path(RUNS), Path(SWEEPS)) if root.is_dir()]
    runs = sort_runs([describe_run(folder) for root in roots for folder in find_runs(root)], options.sort)
    if options.json:
        print(json.dumps([run.as_row() for run in runs], indent=1))
    elif not runs:
        where = " and ".join(str(root) for root in roots) or f"{RUNS} and {SWEEPS} of {Path.cwd()}"
        print(f"There is no run in {where}.")
    else:
        print(printable(_format(runs), keep="\n"))


def sort_runs(runs: Sequence[Listed], column: str) -> list[Listed]:
    """Sort runs by a column of the table: the newest first, the best score first, names by the alphabet."""
    rows = [(run, run.as_row()[column]) for run in runs]
    known, unknown = [row for row in rows if row[1] is not None], [run for run, value in rows if value is None]
    is_descending = column == "when" or comparison.better(column) == "maximize"
    return [*(run for run, _ in sorted(known, key=lambda row: row[1], reverse=is_descending)), *unknown]


def _format(runs: Sequence[Listed]) -> str:
    def score(run: Listed) -> str:
        return percent(run.scores.get("miou")) if run.scores.get("iou_per_class") else ""

    rows = [[str(run.folder), time.strftime("%Y-%m-%d %H:%M", time.localtime(run.when)), run.task or "",
             run.model or "", f"{run.data or ''} {run.scores.get('split') or ''}".strip(), score(run), run.state]
            for run in runs]
    return table([["run", "when", "task", "model", "data", "mIoU %", "state"], [], *rows], left=(0, 1, 2, 3, 4, 6))
