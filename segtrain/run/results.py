"""Write the files of a run: config.yaml, results.json, tables and figures; and read results.json."""

import csv
import importlib.metadata
import io
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from segtrain.config.overrides import CONFIG
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.files import read_json, write_file, write_text
from segtrain.terminal import percent, printable, table

if TYPE_CHECKING:
    from segtrain.config.schema import Config  # slow to import: --help must not wait for it

RESULTS = "results.json"
DISTRIBUTION = "segtrain-cli"  # as pyproject.toml calls the package


class Results(TypedDict, total=False):
    """The main scores of results.json: fractions, None where one is not defined."""

    task: str
    dataset: str
    split: str
    checkpoint: str
    epoch: int
    step: int
    seconds: float
    num_images: int
    loss: float | None
    miou: float | None
    macc: float | None
    pacc: float | None
    fwiou: float | None
    iiou: float | None
    iou_per_class: dict[str, float | None]
    acc_per_class: dict[str, float | None]
    confusion_matrix: list[list[int]]
    params: int
    macs: int | None


def read_results(path: Path, *, with_scores: bool = False) -> dict[str, Any]:
    """Read a results.json, or that of a run directory.

    Raises:
        UserError: If it cannot be read, is too large, or does not hold results; `with_scores`: of classes.
    """
    path = path / RESULTS if path.is_dir() else path
    results = read_json(path)
    if not isinstance(results, dict):
        raise UserError(f"{path} does not hold results written by segtrain: remove it, or choose another run.")
    if with_scores and not isinstance(results.get("iou_per_class"), dict):
        raise UserError(f"{path} does not hold scores of classes: choose a run of task=train, evaluate or score.")
    _check(results, path, is_complete=False)
    return results


def check_scores(results: Mapping[str, Any], path: Path) -> None:
    """Raise UserError unless results with scores of classes, of a file, are complete and of the right types."""
    _check(results, path, is_complete=True)


def _check(results: Mapping[str, Any], path: Path, *, is_complete: bool) -> None:
    from segtrain.run.file_schemas import Results, ScoredResults  # slow to import: --help must not wait for it
    from segtrain.schemas import check_content

    check_content(ScoredResults if is_complete else Results, results, path, "remove it, or choose another run")


def write_results(run_dir: Path, results: Mapping[str, Any]) -> None:
    """Write results.json, of plain values without NaN, from the first of several processes."""
    if process_group.is_main():
        text = json.dumps({"file_format": 1, **results}, indent=1, allow_nan=False)
        write_text(run_dir / RESULTS, f"{text}\n")


def _describe_machine(device: str) -> str:
    import torch  # slow, as the next: `segtrain --help` must not wait for it

    from segtrain.profiling import machine_name

    cores = f"{os.cpu_count()} CPU cores"
    return f"{machine_name(torch.device('cpu' if device == 'auto' else device))}, {cores}"


def write_config(run_dir: Path, cfg: "Config[Any]", change: Callable[[str], str] = str) -> None:
    """Write config.yaml, from the first of several processes: every value, overrides, versions.

    `change` is applied to its text.
    """
    import yaml

    if process_group.is_main():
        write_text(run_dir / CONFIG, change(yaml.safe_dump(
            {**cfg.plain(), "overrides": list(cfg.overrides),
             "versions": {**versions(), "machine": _describe_machine(cfg.runtime.device)}}, sort_keys=False)))


def versions(*packages: str) -> dict[str, str | None]:
    """Return the versions of Python, segtrain, its main dependencies and further packages, and the git commit.

    None stands for a package that is not installed, and for the commit where segtrain is not run from a checkout.
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("segtrain", "torch", "torchvision", "albumentations", "numpy", *packages):
        try:
            found[name] = importlib.metadata.version(DISTRIBUTION if name == "segtrain" else name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    here = Path(__file__).resolve().parents[1]
    found["git_commit"] = None
    if (here.parent / ".git").exists():
        try:
            asked = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"],
                                   capture_output=True, text=True, timeout=10)
            found["git_commit"] = asked.stdout.strip() or None
        except (OSError, subprocess.TimeoutExpired):
            pass
    return found


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file: a header, then a line for each row; None is an empty cell."""
    write_text(path, csv_text([columns, *([row[name] for name in columns] for row in rows)]))


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Write rows as CSV; None is empty, and numbers keep all their digits. Text is that of `csv_cell`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """Escape the text of a cell: control characters, and by an apostrophe what a spreadsheet would take for a formula.

    Numbers stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    if text[:1] not in ("=", "+", "-", "@"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def write_figure(path: Path, figure: Any) -> None:
    """Write a figure of matplotlib as PNG."""
    write_file(path, lambda file: figure.savefig(file, format="png"))


def write_confusion(run_dir: Path, matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> None:
    """Draw a confusion matrix, K x K, as percent of its rows (confusion_matrix.png) and in pixels (*_pixels.png)."""
    from segtrain.visualize import draw_confusion  # slow to import: --help must not wait for it

    for name, in_pixels in (("confusion_matrix.png", False), ("confusion_matrix_pixels.png", True)):
        write_figure(run_dir / name, draw_confusion(matrix, class_names, in_pixels=in_pixels))


def results_table(results: Mapping[str, Any]) -> str:
    """Write the scores of results.json as a table, in percent; n/a where a score is not defined."""
    columns = {"IoU %": ("iou_per_class", "miou"), "acc %": ("acc_per_class", "macc"),
               "iIoU %": ("iiou_per_class", "iiou")}
    if "boundary_miou" in results:  # an evaluation
        columns |= {"precision %": ("precision_per_class", "mprecision"), "Dice %": ("dice_per_class", "mdice"),
                    "boundary IoU %": ("boundary_iou_per_class", "boundary_miou")}
    rows = [[name, *(percent((results[key] or {}).get(name)) for key, _ in columns.values())]
            for name in results["iou_per_class"]]
    means = ["mean", *(percent(results[key]) for _, key in columns.values())]
    lines = [table([["class", *columns], *rows, [], means]), ""]
    loss = "" if results["loss"] is None else f", loss {results['loss']:.4f}"
    lines.append(f"pixel accuracy {percent(results['pacc'])} %, "
                 f"frequency-weighted IoU {percent(results['fwiou'])} %{loss}")
    if results.get("ece") is not None:
        ends = results["miou_interval"]
        spread = "" if ends is None else ", mIoU of resampled images {} to {} % (95 %)".format(*map(percent, ends))
        lines.append(f"expected calibration error {percent(results['ece'])} %{spread}")
    fold = "" if results.get("fold") is None else f" (fold {results['fold']})"
    lines.append(f"{results['num_images']} images of {results['dataset']} {results['split']}{fold}, "
                 "one confusion matrix over all of them")
    if results["iiou_source"] is None:
        lines.append("iIoU: not defined, there are no instance maps; "
                     "dataset.instances=components counts connected regions instead.")
    elif results["iiou_source"] == "components":
        lines.append("iIoU: connected regions of the target counted as instances.")
    return "\n".join(lines)
