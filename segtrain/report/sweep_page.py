"""Write the report of a sweep, or of any folder of runs."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from segtrain.config.overrides import flatten
from segtrain.config.saved import config_of
from segtrain.errors import UserError, list_first, show_value
from segtrain.metrics import comparison
from segtrain.report.charts import MOST_LINES, Chart, Repeats, make_chart
from segtrain.report.images import embed_examples
from segtrain.report.read_run import Run, is_run, read_run
from segtrain.report.render import NAME, write_page
from segtrain.report.run_page import explain_policy
from segtrain.sweep import leaderboard
from segtrain.sweep.table import format_spread, name_repeats
from segtrain.terminal import printable

MOST_PICTURED = 40  # runs in the table of images
COSTS = (("million parameters", "params", 1e-6), ("GMACs an image", "macs", 1e-9), ("minutes", "seconds", 1 / 60))
MEANS = {"miou": "mIoU", "iiou": "iIoU", "macc": "mean accuracy", "pacc": "pixel accuracy"}

@dataclass(eq=False)
class Job:
    """A job of a sweep.

    Attributes:
        name: The name of its folder.
        run: The content of its folder; None if it cannot be read.
        error: Why it failed; None if it did not.
        overrides: Its overrides, without those that all jobs share.
        settings: All its overrides by key; {} where the sweep has no leaderboard.
        link: The relative address of its own report, if it has one.
    """

    name: str
    run: Run | None
    error: str | None
    overrides: str
    settings: dict[str, str] = field(default_factory=dict)
    link: str | None = None

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        return "finished" if self.run is not None and self.run.is_finished else "not finished"

    @property
    def results(self) -> dict[str, Any]:
        return (self.run.results if self.run is not None else None) or {}


def is_sweep(folder: Path) -> bool:
    """Return whether a directory holds runs and is not one itself."""
    return folder.is_dir() and not is_run(folder) and (
        (folder / leaderboard.NAME).is_file() or bool(job_folders(folder)))


def job_folders(folder: Path) -> list[Path]:
    """Return the run directories of a sweep. Links that lead out of it are left alone."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and is_run(path) and not _leads_out(path)]


def _leads_out(path: Path) -> bool:
    return not path.resolve().is_relative_to(path.parent.resolve())


def write_sweep(folder: Path, output: Path | None = None) -> tuple[Path, list[str]]:
    """Write the report of a sweep to `output`, default report.html in its directory; return the file and its warnings.

    It links to the reports of the sweep's jobs.

    Raises:
        UserError: If no job trained, evaluated or scored, or the file cannot be written.
    """
    path = output or folder / NAME
    jobs, warnings = _read_jobs(folder)
    if not jobs:
        raise UserError(f"{folder} holds no run that a report could show: {warnings[0] if warnings else 'it is empty'}")
    comparable = _group_comparable(jobs)
    for job in jobs:
        report = folder / job.name / NAME
        if report.is_file():
            job.link = _address(report, path.parent)
    if len(comparable) > 1:
        warnings.append(f"Not all runs were scored alike: there are {len(comparable)} tables, and scores of different "
                        "tables cannot be compared.")
        warnings += _explain_groups(comparable)
    warnings += [warning for group in comparable for warning in _compare_iiou(group)]
    groups = [_gather(number, group, warnings) for number, group in enumerate(comparable, 1)]
    write_page(path, "sweep.html", {
        "title": folder.resolve().name, "folder": str(folder), "warnings": warnings, "num_jobs": len(jobs),
        "groups": groups,
        "others": [job for job in jobs if not job.results],
        "num_failed": sum(job.error is not None for job in jobs),
        "num_open": sum(job.status == "not finished" for job in jobs),
    })
    return path, warnings


def _address(report: Path, start: Path) -> str:
    """Return a relative address where there is one: a sweep may be moved as a whole."""
    try:
        return quote(os.fsencode(report.resolve().relative_to(start.resolve()).as_posix()))
    except ValueError:
        return report.resolve().as_uri()


def _read_jobs(folder: Path) -> tuple[list[Job], list[str]]:
    """Return all jobs, the best first, and why folders could not be read."""
    path = folder / leaderboard.NAME
    rows = {row["job"]: row for row in (leaderboard.read_rows(path) if path.is_file() else [])}
    strays = [path for path in sorted(folder.iterdir()) if _leads_out(path)]
    names = list(dict.fromkeys([*(path.name for path in job_folders(folder)), *rows]))
    names = [name for name in names if folder / name not in strays]
    words = {name: rows.get(name, {}).get("overrides", "").split() for name in names}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    jobs, unread = [], [f"{path} is a link out of the sweep's directory and is left out: put its target in its place."
                        for path in strays if path.is_dir()]
    for name in names:
        row = rows.get(name, {})
        run = None
        try:
            run = read_run(folder / name)
        except UserError as error:
            if row.get("status") != "failed":
                unread.append(str(error))
                continue
        why = row.get("error") if row.get("status") == "failed" and not (run and run.is_finished) else None
        own = [word for word in words[name] if word not in shared and word not in name]
        jobs.append(Job(name, run, why, " ".join(own), row.get("settings", {})))
    by = _find_monitor(jobs)
    sign = -1 if by.descending else 1
    return sorted(jobs, key=lambda job: (job.results.get(by.name) is None, sign * (job.results.get(by.name) or 0),
                                         job.name)), unread


def _find_monitor(jobs: Sequence[Job]) -> leaderboard.Column:
    """Return the score to sort jobs by: train.monitor where all trainings share it, else the mIoU."""
    asked = [{"sort": (job.run.settings.get("train") or {}).get("monitor")} for job in jobs
             if job.run is not None and job.run.settings and job.run.task == "train"]
    return leaderboard.sort_column(asked, "train")


def _summarize_repeats(jobs: Sequence[Job], sort: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the keys that jobs of one table differ in, seeds and folds aside, and their figures over those."""
    rows = [{"task": "train", "status": "done", "settings": job.settings, "sort": sort, **job.results}
            for job in jobs if job.settings and job.status == "finished"]
    keys = [key for key in leaderboard.find_differing_keys(rows) if key not in leaderboard.REPEATS]
    return keys, leaderboard.summarize_repeats(rows, lambda row: row)


def _group_comparable(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group the jobs with scores by what may be compared, their iIoU aside."""
    groups: list[list[Job]] = []
    for job in jobs:
        if not job.results:
            continue
        for group in groups:
            if not comparison.differences(group[0].results, job.results, across_folds=True)[0]:
                group.append(job)
                break
        else:
            groups.append([job])
    return groups


def _explain_groups(groups: Sequence[Sequence[Job]]) -> list[str]:
    """Explain for each group but the first what differs from the most similar group before it."""
    explained = []
    for number, group in enumerate(groups[1:], 2):
        found = [comparison.differences(other[0].results, group[0].results, across_folds=True)[0]
                 for other in groups[:number - 1]]
        nearest = min(range(len(found)), key=lambda place: len(found[place]))
        names = list_first([job.name for job in group], 3)
        explained.append(f"Table {number} ({names}) is apart from table {nearest + 1}: {'; '.join(found[nearest])}.")
    return explained


def _compare_iiou(jobs: Sequence[Job]) -> list[str]:
    """Return a warning if not all jobs that were scored alike have the same iIoU."""
    for job in jobs[1:]:
        differing, _ = comparison.iiou_differences(jobs[0].results, job.results)
        if differing:
            return [f"{_title(jobs)}: the iIoU of {jobs[0].name} and {job.name} cannot be compared: "
                    f"{'; '.join(differing)}."]
    return []


def _title(jobs: Sequence[Job]) -> str:
    first = jobs[0].results
    return f"{first.get('dataset')} {first.get('split')}, {len(first['iou_per_class'])} classes"


def _gather(number: int, jobs: Sequence[Job], warnings: list[str]) -> dict[str, Any]:
    """Gather what sweep.html shows of jobs that were scored alike."""
    first = jobs[0].results
    counts = [job.results.get("num_images", 0) for job in jobs]
    sizes = sorted({min(counts), max(counts)})  # folds differ by an image
    monitor = _find_monitor(jobs)
    columns = [column for column in leaderboard.SCORES if any(job.results.get(column.name) is not None for job in jobs)
               and (column.name not in ("pacc", "fwiou") or column.name == monitor.name)]
    repeat_keys, repeats = _summarize_repeats(jobs, monitor.name)
    return {
        "number": number, "name": _title(jobs), "num_images": " to ".join(map(str, sizes)),
        "policy": explain_policy(first), "jobs": jobs, "has_overrides": any(job.overrides for job in jobs),
        "monitor": monitor, "repeat_keys": repeat_keys, "repeats": repeats, "over": name_repeats(repeats),
        "mean_and_std": format_spread,
        "has_open": any(job.status != "finished" for job in jobs), "columns": columns,
        "classes": list(first["iou_per_class"]), "charts": _charts(jobs), "most_lines": MOST_LINES,
        "costs": _cost_charts(jobs, monitor), "comparison": _comparison(jobs) if len(jobs) > 1 else None,
        "pictures": _pictures(jobs, warnings),
    }


def _charts(jobs: Sequence[Job]) -> dict[str, list[Chart]]:
    """Overlay the curves of runs: every run, and the means of those that differ in seed and fold alone."""
    runs = {job: job.run for job in jobs if job.run is not None and job.run.epochs}
    drawn = dict(islice(runs.items(), MOST_LINES))
    charts: dict[str, list[Chart]] = {"runs": [], "means": []}
    groups = _group_repeats(list(runs))
    for title, key, scale, unit in (("validation mIoU, %", "val/miou", 100, "%"),
                                    ("training loss", "train/loss", 1, ""), ("validation loss", "val/loss", 1, "")):
        lines = [run.line(key, style, job.name) for style, (job, run) in enumerate(drawn.items())]
        means = [Repeats(label, [runs[job].line(key) for job in group]).mean_line(style)
                 for style, (label, group) in enumerate(islice(groups.items(), MOST_LINES))]
        for name, of in (("runs", lines), ("means", means if len(groups) < len(runs) else [])):
            chart = make_chart(title, of, scale=scale, unit=unit)
            if chart is not None and any(sum(y is not None for y in line.y) > 1 for line in of):
                charts[name].append(chart)  # a single point is in the table
    return {name: found for name, found in charts.items() if found}


def _group_repeats(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Group jobs that differ in seed and fold alone, by what else differs."""
    differing = leaderboard.find_differing_keys([{"settings": job.settings} for job in jobs])
    keys = [key for key in differing if key not in leaderboard.REPEATS]
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        name = ",".join(f"{key}={job.settings[key]}" for key in keys if key in job.settings)
        groups.setdefault((name or "all") if job.settings else job.name, []).append(job)
    return groups


def _cost_charts(jobs: Sequence[Job], score: leaderboard.Column) -> dict[str, str]:
    """Return, as JSON for sweep.js, a score against each cost that differs between the runs."""
    found = {}
    for title, key, factor in COSTS:
        points = [(factor * job.results[key], job.results[score.name], job.name) for job in jobs
                  if job.results.get(key) and job.results.get(score.name) is not None]
        if len({cost for cost, _, _ in points}) > 1:
            factor = 1 if score.name == "loss" else 100
            found[title] = json.dumps({"x_name": title, "y_name": score.title or score.name, "points": [
                {"x": float(f"{cost:.5g}"), "y": float(f"{factor * value:.5g}"), "label": printable(name)}
                for cost, value, name in sorted(points)]})
    return found


def _comparison(jobs: Sequence[Job]) -> str:
    """Return the scores and the differing settings of runs, as JSON for sweep.js."""
    configs = [flatten(config_of(job.run.settings)) if job.run is not None else {} for job in jobs]
    keys = [key for key in dict.fromkeys(key for config in configs for key in config)
            if key != "task.sort" and len({repr(config.get(key)) for config in configs}) > 1]
    return json.dumps([{
        "name": printable(job.name), "means": list(MEANS.values()),
        "scores": {**{title: job.results.get(key) for key, title in MEANS.items() if job.results.get(key) is not None},
                   **{printable(name): iou for name, iou in job.results["iou_per_class"].items()}},
        "settings": {printable(key): printable(show_value(config[key])) for key in keys if key in config},
    } for job, config in zip(jobs, configs, strict=True)])


def _pictures(jobs: Sequence[Job], warnings: list[str]) -> dict[str, Any] | None:
    """Return the examples of the runs side by side: those that the first run with any has."""
    rows: list[dict[str, Any]] = []
    heads: dict[str, tuple[str, str, str]] = {}
    for job in islice((job for job in jobs if job.run is not None), MOST_PICTURED):
        try:
            examples = embed_examples(job.run.folder) if job.run is not None else {}
        except UserError as error:
            warnings.append(str(error))
            continue
        heads = heads or examples
        if examples:
            rows.append({"job": job, "images": [(name, examples[name][2] if name in examples else None)
                                                for name in heads]})
    return {"heads": heads, "rows": rows} if len(rows) > 1 else None
