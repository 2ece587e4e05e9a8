"""What the report of a sweep shows, or of any folder of runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from segtrain.errors import UserError
from segtrain.metrics import comparison
from segtrain.report.charts import MOST_LINES, Line, chart, swatch
from segtrain.report.read_run import Run, is_run, read_run
from segtrain.report.render import NAME, write_page
from segtrain.report.run_page import policy
from segtrain.sweep import leaderboard, table


@dataclass
class Job:
    """A job of a sweep.

    Attributes:
        name: Its folder's.
        run: What its folder says; None if it says nothing that can be read.
        error: Why it failed; None if it did not.
        overrides: What it was started with, without what all jobs share.
        settings: The same by key, whether shared or not; {} where the sweep has no leaderboard.
        link: The address of its own report from the sweep's; None if it has none.
        style: Of its line in the charts; None if it is not drawn.
    """

    name: str
    run: Run | None
    error: str | None
    overrides: str
    settings: dict[str, str] = field(default_factory=dict)
    link: str | None = None
    style: int | None = None

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
        (folder / "leaderboard.json").is_file() or any(is_run(each) for each in folder.iterdir() if each.is_dir()))


def job_folders(folder: Path) -> list[Path]:
    """Return the run directories of a sweep."""
    return [each for each in sorted(folder.iterdir()) if each.is_dir() and is_run(each)]


def write_sweep(folder: Path, output: Path | None = None) -> tuple[Path, list[str]]:
    """Write the report of a sweep; it links to those of its jobs that exist.

    Args:
        folder: The sweep's directory.
        output: The file; None: report.html in the sweep's directory.

    Returns:
        The file, and the warnings that it shows.

    Raises:
        UserError: If no job trained, evaluated or scored, or the file cannot be written.
    """
    path = output or folder / NAME
    jobs, unread = _jobs(folder)
    if not jobs:
        raise UserError(f"{folder} holds no run that a report could show: {unread[0] if unread else 'it is empty'}")
    alike = _alike(jobs)
    groups = [_group(number, jobs_alike) for number, jobs_alike in enumerate(alike, 1)]
    others = [job for job in jobs if not job.results]
    warnings = list(unread)
    for job in jobs:
        report = folder / job.name / NAME
        if report.is_file():
            job.link = _address(report, path.parent)
    if len(groups) > 1:
        warnings.append(f"Not all runs were scored alike: there are {len(groups)} tables, and scores of different "
                        "tables cannot be compared.")
        warnings += _why_apart(alike)
    for group in groups:
        warnings += group.pop("warnings")
    num_failed = sum(job.error is not None for job in jobs)
    num_open = sum(job.status == "not finished" for job in jobs)
    write_page(path, "sweep.html", {
        "title": folder.resolve().name, "folder": str(folder), "groups": groups, "others": others, "warnings": warnings,
        "num_jobs": len(jobs), "num_failed": num_failed, "num_open": num_open,
    })
    return path, warnings


def _address(report: Path, start: Path) -> str:
    """Return a relative address where there is one, for a sweep may be moved as a whole."""
    try:
        return quote(report.resolve().relative_to(start.resolve()).as_posix())
    except ValueError:
        return report.resolve().as_uri()


def _jobs(folder: Path) -> tuple[list[Job], list[str]]:
    """Read all jobs, the best first; and say which folders could not be read."""
    table = {row["job"]: row for row in _leaderboard(folder / "leaderboard.json")}
    names = list(dict.fromkeys([*(path.name for path in job_folders(folder)), *table]))
    words = {name: str(table.get(name, {}).get("overrides") or "").split() for name in names}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    jobs, unread = [], []
    for name in names:
        row = table.get(name, {})
        run = None
        try:
            run = read_run(folder / name)
        except UserError as error:
            if row.get("status") != "failed":
                unread.append(str(error))
                continue
        why = row.get("error") if row.get("status") == "failed" and not (run and run.is_finished) else None
        own = [word for word in words[name] if word not in shared and word not in name]
        jobs.append(Job(name, run, why, " ".join(own), row.get("settings") or {}))
    by = _monitor(jobs)
    sign = -1 if by.descending else 1
    return sorted(jobs, key=lambda job: (job.results.get(by.name) is None, sign * (job.results.get(by.name) or 0),
                                         job.name)), unread


def _monitor(jobs: Sequence[Job]) -> leaderboard.Column:
    """Return the score to sort jobs by: what all trainings of them are monitored by, else the mIoU."""
    asked = [{"sort": (job.run.settings.get("train") or {}).get("monitor")} for job in jobs
             if job.run is not None and job.run.settings and job.run.task == "train"]
    return leaderboard.sort_column(asked, "train")


def _over_seeds(jobs: Sequence[Job]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the keys that jobs of one table differ in, the seed aside, and their figures over the seeds."""
    rows = [{"task": "train", "status": "done", "settings": job.settings, "sort": _monitor(jobs).name, **job.results}
            for job in jobs if job.settings and job.status == "finished"]
    keys = [key for key in leaderboard.find_differing_keys(rows) if key != "seed"]
    return keys, leaderboard.summarize_seeds(rows)


def _leaderboard(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return leaderboard.read_rows(path)
    except UserError as error:
        raise UserError(f"{path} is no leaderboard that segtrain wrote ({error}): delete it, the runs tell the rest."
                        ) from error


def _alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Put the jobs with scores into groups that were scored alike, but for their iIoU."""
    groups: list[list[Job]] = []
    for job in jobs:
        if not job.results:
            continue
        for group in groups:
            if not _apart(group[0], job):
                group.append(job)
                break
        else:
            groups.append([job])
    return groups


def _apart(one: Job, other: Job) -> list[str]:
    """Say what keeps the scores of two jobs from being compared, but for their iIoU."""
    of_iiou = comparison.iiou_differences(one.results, other.results)
    return [each for each in comparison.differences(one.results, other.results)[0] if each not in of_iiou]


def _why_apart(groups: Sequence[Sequence[Job]]) -> list[str]:
    """Say of each group but the first what keeps it from the one before that is nearest to it."""
    said = []
    for number, group in enumerate(groups[1:], 2):
        found = [_apart(other[0], group[0]) for other in groups[:number - 1]]
        nearest = min(range(len(found)), key=lambda place: len(found[place]))
        names = ", ".join([*(job.name for job in group[:3]), *(["..."] if len(group) > 3 else [])])
        said.append(f"Table {number} ({names}) is apart from table {nearest + 1}: {'; '.join(found[nearest])}.")
    return said


def _group(number: int, jobs: Sequence[Job]) -> dict[str, Any]:
    """Return what is shown of jobs that were scored alike."""
    first = jobs[0].results
    name = f"{first.get('dataset')} {first.get('split')}, {len(first['iou_per_class'])} classes"
    warnings = []
    for job in jobs[1:]:
        differing = comparison.iiou_differences(first, job.results)
        if differing:
            warnings.append(f"{name}: the iIoU of {jobs[0].name} and {job.name} cannot be compared: "
                            f"{'; '.join(differing)}.")
            break
    drawn = [job for job in jobs if job.run is not None and job.run.epochs][:MOST_LINES]
    for style, job in enumerate(drawn):
        job.style = style
    monitor = _monitor(jobs)
    columns = [column for column in leaderboard.SCORES if any(job.results.get(column.name) is not None for job in jobs)
               and (column.name not in ("pacc", "fwiou") or column.name == monitor.name)]
    seed_keys, over_seeds = _over_seeds(jobs)
    classes = list(first["iou_per_class"])
    return {
        "number": number, "name": name, "num_images": first.get("num_images"), "policy": policy(first), "jobs": jobs,
        "has_overrides": any(job.overrides for job in jobs),
        "monitor": monitor, "seed_keys": seed_keys, "over_seeds": over_seeds, "mean_and_std": table.format_spread,
        "has_open": any(job.status != "finished" for job in jobs), "columns": columns, "classes": classes,
        "charts": _charts(number, drawn), "drawn": drawn, "warnings": warnings,
        "swatches": {job.name: swatch(job.style or 0) for job in drawn},
    }


def _charts(number: int, jobs: Sequence[Job]) -> list[Any]:
    """Overlay the curves of jobs."""
    wanted = (("miou", "validation mIoU, %", "val/miou", 100), ("train", "training loss", "train/loss", 1),
              ("val", "validation loss", "val/loss", 1))
    charts = []
    for name, title, key, scale in wanted:
        lines = []
        for job in jobs:
            assert job.run is not None
            assert job.style is not None
            values = [None if (value := row.get(key)) is None else scale * value for row in job.run.epochs]
            if any(value is not None for value in values):
                lines.append(Line([row["epoch"] or 0 for row in job.run.epochs], values, job.style))
        if any(sum(value is not None for value in line.y) > 1 for line in lines):  # else the table says it all
            charts.append(chart(f"{name}{number}", title, lines))
    return charts
