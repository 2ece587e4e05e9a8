"""Read a dataset once and report what is wrong with it, what it holds, and what to set for it."""

import logging
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from segtrain.config import build
from segtrain.config.schema import Config, DoctorTask
from segtrain.data.base import Dataset
from segtrain.data.class_identity import match_splits
from segtrain.data.doctor.findings import ERROR, WARNING, Finding, find_all
from segtrain.data.doctor.inspection import read_split, summarize
from segtrain.data.doctor.report import format_findings, format_tables, recommend
from segtrain.data.statistics import check_instances
from segtrain.data.survey import Split
from segtrain.errors import UserError
from segtrain.files import write_text
from segtrain.run.results import write_config, write_figure, write_results
from segtrain.terminal import shell
from segtrain.visualize import draw_samples, shrink

log = logging.getLogger(__name__)

EXAMPLES = "examples.png"
CHECKED = Path("conf", "dataset", "checked.yaml")  # below the run directory


def run(cfg: Config[DoctorTask], run_dir: Path) -> float | None:
    """Check cfg.dataset; write results.json, examples.png and conf/dataset/checked.yaml; return the number of warnings.

    Raises:
        UserError: If training would fail with this dataset; the report has been written.
    """
    started = time.perf_counter()
    opened, faults, left_out = _open(cfg)
    if "train" in opened:
        with suppress(UserError):  # what is wrong with the images is found below
            cfg = build.measure(cfg, opened["train"], list(opened.values()))
    splits = []
    for name, data in opened.items():
        images = read_split(data, cfg.dataset.instances)
        seen = list(tqdm(images, desc=name, total=len(data.names), unit="image", leave=False, disable=None))
        is_part = any(fault.splits == [name] for fault in faults)  # whose remark is its error
        splits.append(Split(name, data.labels, seen, [] if is_part else data.remarks()))
    findings, leaks = find_all(splits, opened, cfg.dataset.crop, cfg.task.near_distance,
                               find_unused=cfg.train.num_images is None and not faults, others=faults)
    num_images = sum(len(split.seen) for split in splits)
    seconds = time.perf_counter() - started

    train = next((split for split in splits if split.name == "train"), None)
    advice = None if train is None else recommend(train) | _list_measured(cfg)
    errors, warnings = ([finding for finding in findings if finding.severity == severity]
                        for severity in (ERROR, WARNING))
    results = {
        "task": "doctor", "dataset": build.dataset_name(cfg), "settings": cfg.dataset.plain(),
        "errors": len(errors), "warnings": len(warnings), "num_images": num_images, "seconds": seconds,
        "images_per_second": num_images / seconds, "left_out": left_out,
        "splits": {split.name: summarize(split) for split in splits}, "leaks": leaks, "advice": advice,
        "findings": [asdict(finding) for finding in findings],
    }
    _draw(cfg, run_dir, opened, splits)
    if not errors:
        if train is not None and advice is not None and advice["crop"] is not None:
            _write_checked(cfg, run_dir / CHECKED, len(train.labels), advice)
        write_config(run_dir, cfg)
    write_results(run_dir, results)
    log.info("%s\n%s", format_tables(results), format_findings(findings))
    log.info("\nreport: %s", run_dir / "results.json")
    if (run_dir / EXAMPLES).exists():
        log.info("examples: %s", run_dir / EXAMPLES)
    if errors:
        more = f" ({len(errors)} errors)" if len(errors) > 1 else ""
        raise UserError(f"training would fail: {errors[0].message}{more} The whole report: {run_dir / 'results.json'}")
    if (run_dir / CHECKED).exists():
        log.info("settings: %s; train with them: %s", run_dir / CHECKED,
                 shell("--config-dir", run_dir / CHECKED.parts[0], "dataset=checked"))
    return float(len(warnings))


def _open(cfg: Config[DoctorTask]) -> tuple[dict[str, Dataset], list[Finding], dict[str, str]]:
    """Build the splits; return them by name, the faults of those that fail, and why optional ones were left out."""
    required = list(cfg.task.splits or ("train", "val"))
    if len(set(required)) < len(required):
        raise UserError(f"task.splits={required} names a split twice.")
    opened: dict[str, Dataset] = {}
    findings: list[Finding] = []
    left_out: dict[str, str] = {}
    for split in [*required, *(() if cfg.task.splits else ("test",))]:
        try:
            data = build.dataset(cfg, split)
            check_instances(data.labels, cfg.dataset.instances)
            first = next(iter(opened), split)
            opened[split] = match_splits(data, opened.get(first, data).labels, split, first)
        except UserError as error:
            if split not in required:
                left_out[split] = str(error)
                continue
            findings.append(Finding(ERROR, "split", [split], str(error), error.files))
            if error.files:  # where only masks are missing, the others can be looked at
                with suppress(UserError):
                    opened[split] = build.dataset(cfg, split, skip_without_mask=True)
    return opened, findings, left_out


def _list_measured(cfg: Config[DoctorTask]) -> dict[str, Any]:
    """Return what dataset.channels leaves to be measured; empty for RGB, or if it could not be."""
    return {key: getattr(cfg.dataset, key) for key in build.UNMEASURED} if (
        cfg.dataset.channels is not None and not build.list_unmeasured(cfg)) else {}


def _write_checked(cfg: Config[DoctorTask], path: Path, num_classes: int, advice: dict[str, Any]) -> None:
    """Write the dataset's section with what was found, to be used with --config-dir."""
    found = {"num_classes": num_classes, "crop": advice["crop"], "mean": advice["mean"]}
    if "range" in advice:
        found |= {"dtype": advice["dtype"], "range": advice["range"]}
    if min(advice["std"]) > 0:  # else all images are of one colour
        found["std"] = advice["std"]
    text = yaml.safe_dump({**cfg.dataset.plain(), **found}, sort_keys=False, allow_unicode=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    imagenet = "" if "range" in advice else (
        " An encoder with ImageNet weights wants ImageNet's\n# values: dataset.mean=auto dataset.std=auto")
    write_text(path, f"# Found by task=doctor: {', '.join(found)}.{imagenet}\n{text}")


def _draw(cfg: Config[DoctorTask], run_dir: Path, opened: dict[str, Dataset], splits: list[Split]) -> None:
    """Draw some samples of each split, evenly spaced, with a legend of the classes."""
    rows = []
    for split in splits:
        usable = [index for index, seen in enumerate(split.seen) if seen.content is not None]
        places = np.linspace(0, len(usable) - 1, min(cfg.task.examples, len(usable))).round().astype(int)
        for index in dict.fromkeys(usable[place] for place in places):
            sample = opened[split.name].read(index)
            rows.append((f"{split.name}: {opened[split.name].names[index]}", *shrink(
                opened[split.name].form.draw(sample.image), sample.target)))
    if not rows:
        return
    first = next(split for split in splits if split.usable)
    pixels = summarize(first)["class_pixels"]
    total = sum(pixels.values()) or 1
    notes = [f"{100 * count / total:.2f} %" for count in pixels.values()]
    figure = draw_samples(rows, first.labels, notes, f"shares of the labelled pixels of {first.name}")
    write_figure(run_dir / EXAMPLES, figure)
