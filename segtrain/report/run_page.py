"""Write the report of one run."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segtrain.config.defaults import list_changed_settings
from segtrain.config.saved import config_of
from segtrain.errors import UserError, show_value
from segtrain.report.charts import Chart, make_chart
from segtrain.report.images import Viewer, embed_images
from segtrain.report.read_run import Run, read_run
from segtrain.report.render import NAME, write_page
from segtrain.terminal import format_duration, shell
from segtrain.visualize import MOST_NUMBERED

MOST_ROWS = 60       # epochs in the table of numbers
MOST_CONFUSED = 15   # pairs of classes in the list of confusions
SUMMARIZED = {"model": ("encoder", "name", "architecture", "pretrained"), "dataset": ("root",),
              "loss": ("class_weights",), "optim": ("lr", "weight_decay"), "scheduler": ("power", "warmup_epochs")}


def write_run(folder: Path, output: Path | None = None, evaluation: Path | None = None) -> tuple[Path, list[str]]:
    """Write the report of a run to `output`, default report.html in its directory; return the file and its warnings.

    The scores and worst images of `evaluation`, the directory of an evaluation of its checkpoint, are shown too.

    Raises:
        UserError: If one of the directories is not a run with scores of classes, or the file cannot be written.
    """
    run = read_run(folder)
    evaluated = None if evaluation is None else read_run(evaluation)
    if evaluated is not None and (evaluated.task == "train" or evaluated.results is None):
        raise UserError(f"task.evaluation={evaluation} holds no finished evaluation: give the directory of a run of "
                        "task=evaluate.")
    if evaluated is not None:
        evaluated.colors = evaluated.colors or run.colors
    path = output or folder / NAME
    content = _gather(run, evaluated)
    write_page(path, "run.html", content)
    return path, content["warnings"]


def _gather(run: Run, evaluated: Run | None) -> dict[str, Any]:
    """Gather the content of the template run.html."""
    results, names = run.results or {}, run.class_names
    unread: list[str] = []
    evaluated_viewer = None if evaluated is None else _embed(evaluated.folder, unread)
    matrix = results.get("confusion_matrix")
    epochs_done = int(run.epochs[-1]["epoch"] or 0) if run.epochs else 0
    return {
        "title": run.folder.resolve().name, "folder": str(run.folder), "run": run,
        "results": results, "epochs": (run.settings.get("train") or {}).get("epochs"),
        "status": _status(run, epochs_done), "policy": explain_policy(results), "facts": _facts(run),
        "charts": _charts(run), "class_chart": _class_chart(run), "rows": _choose_rows(run),
        "classes": _classes(run, names),
        "matrix": _matrix(matrix, names), "num_classes": len(names), "confused": _confused(matrix, names),
        "viewer": evaluated_viewer or _embed(run.folder, unread), "evaluated_viewer": evaluated_viewer,
        "evaluated": evaluated, "changed": _changed(run.settings),
        "evaluated_classes": [] if evaluated is None else _classes(evaluated, evaluated.class_names),
        "cost": _cost(run), "environment": _environment(run), "command": _command(run.settings),
        "yaml": yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True) if run.settings else "",
        "warnings": [*run.remarks, *unread, *_warnings(run, evaluated)],
    }


def _embed(folder: Path, unread: list[str]) -> Viewer | None:
    """Return the images of a run; why they cannot be read is added to a list."""
    try:
        return embed_images(folder)
    except UserError as error:
        unread.append(str(error))
        return None


def _changed(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(key, show_value(value), show_value(default))
            for key, value, default in list_changed_settings(config_of(settings))]


def explain_policy(results: Mapping[str, Any]) -> list[str]:
    """Explain what the scores of a results.json mean, in sentences; none without results."""
    if not results:
        return []
    known, ious = results.get("policy") or {}, results["iou_per_class"]
    absent = [name for name, iou in ious.items() if iou is None]
    sentences = [
        f"mIoU is the mean of the IoU of {len(ious) - len(absent)} classes, IoU = TP / (TP + FP + FN).",
        f"All counts come from one confusion matrix over the {results['num_images']} images of {results['dataset']} "
        f"{results['split']}, added up before anything is divided. No score is a mean over images or batches.",
        f"Void pixels ({known.get('ignore_index', 255)}) are in no score. Predictions are scored at the resolution of "
        "the label files.",
    ]
    if absent:
        sentences.append(f"In neither targets nor predictions, and so left out of the means: {', '.join(absent)}.")
    source = results.get("iiou_source")
    if source is None:
        sentences.append("iIoU, in which every object counts the same, is not defined: objects were not distinguished.")
    else:
        objects = {"components": "Objects are connected regions of the target.",
                   "instances": "Objects come from instance maps."}.get(source, "")
        sentences.append("iIoU weighs pixels so that every object of a class counts the same, small or large; it is "
                         f"the mean over the classes that have objects. {objects}")
    inference = results.get("inference") or {}
    if inference.get("window"):
        sentences.append("Sliding window: {}x{} pixels, overlapping by at least {:.0%}.".format(
            *inference["window"], inference["overlap"]))
    if inference.get("flip"):
        sentences.append("Flip TTA: logits were averaged with those of the horizontally flipped image.")
    if (scales := inference.get("scales")) and scales != [1]:
        sentences.append(f"Logits were averaged over the scales {', '.join(f'{scale:g}' for scale in scales)}.")
    if results.get("boundary_band"):
        sentences.append(f"Boundary IoU counts only pixels within {results['boundary_band']:.3g} of the image's "
                         "diagonal from another class.")
    if results.get("miou_interval"):
        sentences.append("The interval of the mIoU holds 95 % of the values that resampling the images gives; it knows "
                         "nothing of other seeds, and frames of one video make it narrower than it should be.")
    return sentences


def _status(run: Run, epochs_done: int) -> str:
    if run.is_finished:
        return "finished"
    if not epochs_done:
        return "not finished: no epoch is complete"
    return f"not finished: {epochs_done} epoch{'s' if epochs_done > 1 else ''} so far"


def _warnings(run: Run, evaluated: Run | None) -> list[str]:
    """Return what to bear in mind when reading the scores."""
    found = []
    if not run.is_finished:
        has_scores = "; the scores are those of the best checkpoint so far" if run.results else ""
        found.append(f"The run is not finished{has_scores}." + (
            f" Go on with: {shell(f'resume={run.folder}')}" if run.task == "train" and run.settings else ""))
    if run.results is not None:
        never = [name for name, iou in run.results["iou_per_class"].items() if iou == 0]
        if never:
            found.append(f"Classes without a correct pixel: {', '.join(never)}. They count in the mIoU as 0.")
    if evaluated is not None:
        of = (evaluated.results or {}).get("checkpoint")
        if of is None or Path(of).resolve().parent.parent != run.folder.resolve():
            found.append(f"The evaluation {evaluated.folder} scored {of or 'label files'}, which is not a checkpoint "
                         "in this run's directory.")
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return what was trained, on what, and how, in short."""
    settings = run.settings
    ended = None if run.begun is None or run.ended is None else run.ended - run.begun
    found = [] if run.begun is None else [("begun", f"{run.begun:%Y-%m-%d %H:%M}" + (
        f", ended {format_duration(ended.total_seconds())} later" if ended else ""))]
    machine = (settings.get("versions") or {}).get("machine")
    found += [("machine", machine)] if machine else []
    found += [(group, _summarize(settings[group], keys)) for group, keys in SUMMARIZED.items()
             if "_target_" in (settings.get(group) or {})]
    if "augmentation" in settings:
        found.append(("augmentation", ", ".join(settings["augmentation"]) or "none"))
    train = settings.get("train") or {}
    if run.task == "train" and train:
        crop = (settings.get("dataset") or {}).get("crop") or ["n/a"]
        found.append(("training", f"{train.get('epochs')} epochs, batch size {train.get('batch_size')}"
                      + (f" x {train['accumulate']}" if train.get("accumulate", 1) > 1 else "")
                      + f", crops {'x'.join(map(str, crop))}, best by {train.get('monitor')}, "
                      f"seed {settings.get('seed')}"))
    return found


def _summarize(node: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Name an object by its class, the losses that it adds up, and some of its settings."""
    nodes = [node, *(node.get("losses") or {}).values()]
    classes = [str(part["_target_"]).rsplit(".", 1)[-1] for part in nodes
               if isinstance(part, Mapping) and "_target_" in part]
    return ", ".join([*classes, *(f"{key} {node[key]}" for key in keys if node.get(key) is not None)])


def _charts(run: Run) -> list[Chart]:
    best = run.results.get("epoch") if run.results else None

    rates = [rate for row in run.epochs if (rate := row.get("train/lr"))]

    def make(title: str, columns: dict[str, str], **options: Any) -> Chart | None:
        lines = [run.line(key, style, label) for style, (key, label) in enumerate(columns.items())]
        return make_chart(title, lines, marked=best, **options)

    charts = (
        make("loss", {"train/loss": "training", "val/loss": "validation"}),
        make("validation scores, %", {"val/miou": "mIoU", "val/iiou": "iIoU", "val/macc": "mean accuracy"}, scale=100,
             unit="%"),
        make("learning rate", {"train/lr": ""}, log=bool(rates) and max(rates) > 100 * min(rates)),
        make("training images per second", {"train/images_per_second": ""}),
    )
    return [chart for chart in charts if chart is not None]


def _class_chart(run: Run) -> Chart | None:
    """Return the IoU of each class over the epochs."""
    lines = [run.line(f"val/iou/{name}", style, name) for style, name in enumerate(run.class_names)]
    return make_chart("IoU of each class, %", lines, scale=100, unit="%",
                      marked=run.results.get("epoch") if run.results else None)


def _choose_rows(run: Run) -> list[dict[str, float | None]]:
    """Return epochs with scores for the table: all, or evenly spaced ones."""
    scored = [row for row in run.epochs if row.get("val/miou") is not None] or run.epochs
    places = np.linspace(0, len(scored) - 1, min(MOST_ROWS, len(scored))).round().astype(int)
    return [scored[place] for place in dict.fromkeys(places)]


def _classes(run: Run, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each class: its scores, how often it occurs, its IoU over the epochs."""
    results = run.results or {}
    matrix = results.get("confusion_matrix")
    targets = [sum(row) for row in matrix] if matrix else None
    last = next((row for row in reversed(run.epochs) if row.get("val/miou") is not None), {})

    def of(key: str, name: str) -> float | None:
        return (results.get(key) or {}).get(name)

    def share(counts: Sequence[int] | None, place: int) -> float | None:
        return None if counts is None or not sum(counts) else counts[place] / sum(counts)

    trained = run.class_pixels if run.class_pixels is not None and len(run.class_pixels) == len(names) else None
    return [{"name": name, "color": " ".join(map(str, run.colors[name])) if name in run.colors else None,
             "iou": of("iou_per_class", name) if results else last.get(f"val/iou/{name}"),
             "acc": of("acc_per_class", name), "precision": of("precision_per_class", name),
             "dice": of("dice_per_class", name), "boundary": of("boundary_iou_per_class", name),
             "iiou": of("iiou_per_class", name), "share": share(targets, place),
             "train_share": share(trained, place), "drawn": of("drawn_shares", name)}
            for place, name in enumerate(names)]


def _matrix(matrix: Sequence[Sequence[int]] | None, names: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the confusion matrix as shares of its rows; None if there is none, or it is too large to be read."""
    if not matrix or len(names) > MOST_NUMBERED:
        return None
    return [{"name": name, "pixels": sum(row), "shares": [count / sum(row) if sum(row) else None for count in row]}
            for name, row in zip(names, matrix, strict=True)]


def _confused(matrix: Sequence[Sequence[int]] | None, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of classes that cost most pixels."""
    counts = np.asarray(matrix or [[0]], dtype=np.int64)
    wrong = counts - np.diag(np.diag(counts))
    total = int(wrong.sum())
    places = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [np.unravel_index(place, wrong.shape) for place in places]
    return [{"target": names[row], "pred": names[column], "pixels": int(wrong[row, column]),
             "of_target": wrong[row, column] / counts[row].sum(), "of_errors": wrong[row, column] / total}
            for row, column in pairs if wrong[row, column] > 0]


def _cost(run: Run) -> dict[str, Any]:
    results = run.results or {}
    speeds, waits = ([value for row in run.epochs if (value := row.get(key)) is not None]
                     for key in ("train/images_per_second", "train/data_wait"))
    best = run.folder / "checkpoints" / "best.pt"
    return {"params": results.get("params"), "macs": results.get("macs"),
            "seconds": results.get("seconds"), "scored_per_second": results.get("images_per_second"),
            "trained_per_second": float(np.median(speeds)) if speeds else None,
            "waited": float(np.median(waits)) if waits else None,
            "checkpoint_bytes": best.stat().st_size if best.is_file() else None}


def _environment(run: Run) -> list[tuple[str, str]]:
    runtime = run.settings.get("runtime") or {}
    names = {"device": "device", "precision": "precision", "compile": "torch.compile", "channels_last": "channels_last",
             "workers": "loader processes", "threads": "CPU threads"}
    versions = {name: value for name, value in (run.settings.get("versions") or {}).items() if name != "machine"}
    rows = chain(((title, runtime[key], "all") for key, title in names.items() if key in runtime),
                 ((name.replace("_", " "), value, "not known") for name, value in versions.items()))
    return [(name, {None: missing, True: "yes", False: "no"}[value] if value is None or isinstance(value, bool)
             else str(value)) for name, value, missing in rows]


def _command(settings: Mapping[str, Any]) -> str:
    """Return the command of a run, quoted for a shell."""
    return shell(*settings["overrides"]) if settings else ""
