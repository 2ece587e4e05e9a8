"""segtrain models: a table of the networks, with what they cost and what was measured."""

import argparse
import csv
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from segtrain.commands import encoders
from segtrain.errors import UserError, did_you_mean
from segtrain.terminal import table

NETWORKS = "networks.csv"  # beside this file; scripts/network_table.py updates it
COLUMNS = ("model", "params", "gmacs", "latency_ms", "train_images_per_second", "miou")
TITLES = ("model", "parameters", "GMACs", "latency, ms", "training, images/s", "mIoU %")
NOTES = """
With 12 classes; GMACs and times of an image of 480x360, on one thread of a CPU; mIoU: CamVid val after 100 steps, from
scratch, which does not rank trained networks. docs/reference/models.md has sources, docs/reference/results.md the
recipe. An empty cell was not measured. segtrain benchmark model=NAME measures here."""


def main(arguments: Sequence[str]) -> None:
    """Print the table of networks; after the word encoders, that of encoders."""
    if arguments[:1] == ["encoders"]:
        encoders.main(arguments[1:])
        return
    parser = argparse.ArgumentParser("segtrain models", description="List the networks. `segtrain models encoders` "
                                     "lists the encoders.")
    parser.add_argument("words", nargs="*", help="list only networks whose names contain one of these")
    parser.add_argument("--sort", choices=COLUMNS, default="model", help="the column to sort by; default: model")
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")
    options = parser.parse_args(arguments)
    rows = read_networks()
    found = [row for row in rows if not options.words or any(word in row["model"] for word in options.words)]
    if not found:
        raise UserError(f"no network is called {' or '.join(options.words)}."
                        f"{did_you_mean(options.words[0], [row['model'] for row in rows])}")
    is_descending = options.sort in ("miou", "train_images_per_second")
    found.sort(key=lambda row: (row[options.sort] is None, _order(row[options.sort], is_descending)))
    if options.json:
        print(json.dumps(found, indent=1))
        return
    cells = [[row["model"], f"{row['params']:,}", *("" if row[name] is None else f"{row[name]:g}"
                                                    for name in COLUMNS[2:])] for row in found]
    print(table([TITLES, [], *cells]))
    print(NOTES)


def read_networks() -> list[dict[str, Any]]:
    """Return a row for each network: numbers by COLUMNS, None for what was not measured."""
    text = files("segtrain.commands").joinpath(NETWORKS).read_text(encoding="utf-8")
    return [{name: value if name == "model" else _number(value) for name, value in row.items()}
            for row in csv.DictReader(text.splitlines())]


def _number(text: str) -> float | int | None:
    return None if not text else int(text) if text.isdigit() else float(text)


def _order(value: Any, is_descending: bool) -> Any:
    return 0 if value is None else -value if is_descending else value
