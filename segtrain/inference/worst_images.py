"""Draw the images of a split that were predicted worst."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from segtrain.data.base import Dataset
from segtrain.files import write_file
from segtrain.inference.sliding_window import PredictFn
from segtrain.terminal import percent
from segtrain.visualize import draw_errors, shrink


def draw_worst(folder: Path, data: Dataset, rows: Sequence[Mapping[str, Any]], predict: PredictFn, count: int) -> None:
    """Draw the images of lowest mIoU: input, target, prediction, errors; the file names begin with rank and mIoU.

    Args:
        folder: Made if there is anything to draw.
        data: The split.
        rows: The scores of each image, as of `scoring.image_rows`. Images without a valid pixel are left out.
        predict: uint8 (1, H, W, C) -> logits (1, K, H, W). The few images are predicted once more, so that memory need
            not hold the predictions of a whole split.
        count: Most images.
    """
    scored = [index for index, row in enumerate(rows) if row["miou"] is not None]
    for rank, index in enumerate(sorted(scored, key=lambda index: rows[index]["miou"])[:count], 1):
        folder.mkdir(exist_ok=True)
        row, sample = rows[index], data.read(index)
        pred = predict(torch.tensor(sample.image)[None]).argmax(1)[0].cpu().numpy()
        image, target = shrink(sample.image, sample.target)
        notes = [f"IoU {percent(row[f'iou/{label.name}'])} %" for label in data.labels]
        miou, pacc = (percent(row[name]) for name in ("miou", "pacc"))
        title = f"{row['name']}\nmIoU {miou} %, pixel accuracy {pacc} %"
        figure = draw_errors(image, target, shrink(sample.image, pred.astype("uint8"))[1], data.labels, notes, title)
        name = re.sub(r"[^\w.-]", "_", row["name"]).encode()[-100:].decode(errors="ignore")
        path = folder / f"{rank:0{len(str(count))}d}_miou_{100 * row['miou']:05.2f}_{name}.png"
        write_file(path, partial(figure.savefig, format="png"))
