"""Write the parameters and multiply-adds of every network into what `segtrain models` shows; measured columns stay.

    python scripts/network_table.py
"""

import csv
import io
from pathlib import Path

import torch
from torch import nn

from segtrain.api import build_model
from segtrain.commands.models import COLUMNS, NETWORKS
from segtrain.config.packaged import list_files
from segtrain.profiling import measure_cost

SIZE, CLASSES = (360, 480), 12
PATH = Path(__file__).parents[1] / "segtrain" / "commands" / NETWORKS


def updated() -> str:
    """Return the text of the file as it should be, without building any weights."""
    with PATH.open(encoding="utf-8", newline="") as file:
        former = {row["model"]: row for row in csv.DictReader(file)}
    rows = []
    for name in [*list_files("model"), *(f"torchvision/{name}" for name in list_files("model/torchvision"))]:
        row = {**dict.fromkeys(COLUMNS, ""), **former.get(name, {}), "model": name}
        if name != "smp":  # needs a package that may not be there
            cost = measure_cost(_build(name), SIZE, 3)
            if cost["macs"] is None:  # EfficientViT-Seg has autocast, which there is none of for tensors without values
                cost = measure_cost(build_model(name, CLASSES), SIZE, 3)
            row |= {"params": str(cost["params"]),
                    "gmacs": "" if cost["macs"] is None else f"{cost['macs'] / 1e9:.2f}"}
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _build(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return build_model(name, CLASSES).eval()
    except RuntimeError:  # it reads values while it is built, as of a linspace
        return build_model(name, CLASSES).eval()


if __name__ == "__main__":
    PATH.write_text(updated(), encoding="utf-8")
