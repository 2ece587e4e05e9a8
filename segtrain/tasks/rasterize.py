"""Write the masks of a dataset as PNG files of train ids, whatever its annotations are."""

import csv
import io
import logging
from functools import partial
from pathlib import Path

from tqdm import tqdm

from segtrain.config import build
from segtrain.config.schema import Config, RasterizeTask
from segtrain.data.base import Dataset
from segtrain.data.class_identity import match_splits
from segtrain.data.color_masks import to_hex
from segtrain.data.label_files import FileForm, make_folder, write_label_map
from segtrain.data.threads import map_in_order
from segtrain.errors import UserError
from segtrain.files import write_text
from segtrain.labels import Label
from segtrain.run.results import write_config, write_results

log = logging.getLogger(__name__)
CLASSES = "classes.csv"


def run(cfg: Config[RasterizeTask], run_dir: Path) -> float | None:
    """Write cfg.task.output/<split>/<name>.png and classes.csv, which dataset=folder reads."""
    if cfg.task.output is None:
        raise UserError("task.output is needed: the folder for the masks, task.output=/data/masks")
    output = Path(cfg.task.output).expanduser()
    if output.is_dir() and any(output.iterdir()) and not (output / CLASSES).is_file():
        raise UserError(f"task.output={output} is not empty, and does not hold masks of an earlier command: choose "
                        "another folder.")
    required = list(cfg.task.splits or ("train", "val"))
    opened = {split: build.dataset(cfg, split) for split in required}
    if cfg.task.splits is None:
        try:
            opened["test"] = build.dataset(cfg, "test")
        except UserError as error:
            log.info("test is left out: %s", error)
    first = required[0]
    labels = opened[first].labels
    opened = {split: match_splits(data, labels, split, first) for split, data in opened.items()}
    used = {path.resolve() for data in opened.values() for index in range(len(data.names)) for path in data.paths(index)
            if path is not None}
    make_folder(output)
    counts = {}
    for split, data in opened.items():
        places = map_in_order(partial(_write, output / split, data, used), len(data.names))
        counts[split] = sum(1 for _ in tqdm(places, desc=split, total=len(data.names), unit="mask", leave=False,
                                            disable=None))
    for remark in dict.fromkeys(remark for data in opened.values() for remark in data.remarks()):
        log.warning("warning: %s", remark)
    write_text(output / CLASSES, format_classes(labels))
    write_config(run_dir, cfg)
    write_results(run_dir, {
        "task": "rasterize", "dataset": build.dataset_name(cfg), "output": str(output), "masks": counts,
        "classes": [label.name for label in labels]})
    log.info("masks (%s) of %d classes: %s", ", ".join(f"{split} {count}" for split, count in counts.items()),
             len(labels), output)
    return None


def _write(folder: Path, data: Dataset, used: set[Path], index: int) -> None:
    path = folder / f"{data.names[index]}.png"
    if path.resolve() in used:
        raise UserError(f"task.output would overwrite {path}, a file of the dataset: choose another folder.")
    write_label_map(path, data.read(index).target, data.labels, FileForm())


def format_classes(labels: tuple[Label, ...]) -> str:
    """Return the classes as the text of a class file."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "label_id", "color", "has_instances"])
    for label in labels:
        table.writerow([label.name, label.train_id, to_hex(label.color), str(label.has_instances).lower()])
    return text.getvalue()
