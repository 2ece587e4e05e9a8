"""Write what a run or a sweep found as one HTML file."""

import logging
from pathlib import Path

from segtrain.config.overrides import CONFIG
from segtrain.config.schema import Config, ReportTask
from segtrain.errors import UserError
from segtrain.report.run_page import write_run
from segtrain.report.sweep_page import is_sweep, job_folders, write_sweep
from segtrain.run.results import write_config, write_results

log = logging.getLogger(__name__)


def run(cfg: Config[ReportTask], run_dir: Path) -> None:
    """Write report.html of the run or the sweep in cfg.task.run, and those of a sweep's jobs.

    Raises:
        UserError: If the directory holds no run with scores, or a file cannot be written.
    """
    task = cfg.task
    if task.run is None:
        raise UserError("task.run is needed: the directory of a run or of a sweep, task.run=outputs/first")
    folder = Path(task.run)
    if not folder.is_dir():
        raise UserError(f"task.run={task.run} is not a directory: give that of a run or of a sweep.")
    output = None if task.output is None else Path(task.output)
    if output is not None and not output.parent.is_dir():
        raise UserError(f"task.output={task.output} cannot be written: {output.parent} is not a directory.")
    evaluation = None if task.evaluation is None else Path(task.evaluation)
    if is_sweep(folder):
        if evaluation is not None:
            raise UserError(f"task.evaluation={task.evaluation} is for the report of one run, and {folder} is a sweep.")
        jobs = [job for job in job_folders(folder) if (job / CONFIG).is_file()] if task.jobs else []
        for job in jobs:
            _write_job(job)
        path, warnings = write_sweep(folder, output)
    else:
        path, warnings = write_run(folder, output, evaluation)
    for warning in warnings:
        log.warning("warning: %s", warning)
    write_config(run_dir, cfg)
    write_results(run_dir, {"task": "report", "report": str(path), "warnings": warnings})
    log.info("report: %s", path)


def _write_job(folder: Path) -> None:
    """Write a job's report; one that has none of its own to show is left to the sweep's."""
    try:
        write_run(folder)
    except UserError as error:
        log.warning("warning: no report of %s: %s", folder.name, error)
