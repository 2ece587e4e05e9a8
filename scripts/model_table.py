"""Print a sweep's table of costs as Markdown, as docs/reference/models.md shows it.

    segtrain -m task=benchmark model=linknet,unet,enet hydra.sweep.dir=multirun/costs
    python scripts/model_table.py multirun/costs --sort latency_ms
"""

import argparse
import sys
from pathlib import Path

from segtrain.sweep.leaderboard import COSTS, NAME, read_rows, sort_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="a folder with leaderboard.json")
    parser.add_argument("--sort", choices=[column.name for column in COSTS], default="params")
    options = parser.parse_args()
    path = options.sweep / NAME
    if not path.is_file():
        sys.exit(f"{path} does not exist: give the folder of a sweep with task=benchmark.")
    shown = [column for column in COSTS if column.title]
    print("| model | " + " | ".join(column.title for column in shown) + " |")
    print("|---" * (len(shown) + 1) + "|")
    for row in sort_rows([{**row, "sort": options.sort} for row in read_rows(path)], "benchmark"):
        if row["status"] == "failed":
            continue
        values = [(column, row[column.name]) for column in shown]
        cells = ["" if value is None else column.text(value) for column, value in values]
        name = next((word.removeprefix("model=") for word in row["overrides"].split() if word.startswith("model=")),
                    row["job"])
        print("| `" + name + "` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
