"""Train many short epochs, or many short jobs, in one process, and show whether memory, files and threads grow.

    python scripts/long_run.py DIR                  # 500 epochs of one run
    python scripts/long_run.py DIR --jobs 20        # a sweep of 20 jobs

Prints what the process held after every tenth of them, and the slopes over the second half, which must be flat. The log
must hold no line that a progress bar redrew. Runs on Linux.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from segtrain import cli
from segtrain.tasks import train

SETTINGS = ("model=enet", "dataset.height=32", "dataset.width=48", "dataset.num_train=2", "dataset.num_val=1",
            "dataset.crop=[32,32]", "train.batch_size=2", "runtime.threads=1", "train.examples=1")
COLUMNS = ("memory MiB", "open files", "threads")


def held() -> tuple[float, int, int]:
    """Return what this process holds: resident memory in MiB, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list(Path("/proc/self/fd").iterdir())),
            len(list(Path("/proc/self/task").iterdir())))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a new folder for the run or the sweep")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1, help="jobs of a sweep, of two epochs each")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    args = parser.parse_args()
    samples: list[tuple[float, int, int]] = []
    is_sweep = args.jobs > 1
    target = "run" if is_sweep else "_track"  # called once a job, or once an epoch
    original = getattr(train, target)

    def noted(*values: object) -> object:
        result = original(*values)
        samples.append(held())
        return result

    setattr(train, target, noted)
    scale = (f"seed=range({args.jobs})", "train.epochs=2", f"hydra.sweep.dir={args.folder}") if is_sweep else (
        f"train.epochs={args.epochs}", "train.val_every=5", "train.save_every=50", f"hydra.run.dir={args.folder}")
    sys.argv = ["segtrain", *(["-m"] if is_sweep else []), *SETTINGS, f"runtime.workers={args.workers}", *scale]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
    table = np.array(samples)
    unit = "job" if is_sweep else "epoch"
    print(f"{unit:>5}" + "".join(f"  {column:>12}" for column in COLUMNS))
    for number in range(0, len(table), max(1, len(table) // 10)):
        print(f"{number + 1:>5}" + "".join(f"  {value:>12.1f}" for value in table[number]))
    half = table[len(table) // 2:]
    slopes = [np.polyfit(np.arange(len(half)), half[:, column], 1)[0] for column in range(len(COLUMNS))]
    print("slope" + "".join(f"  {slope:>12.4f}" for slope in slopes) + f"   a {unit}, over the second half")
    redrawn = [path for path in args.folder.rglob("*.log") if "\r" in path.read_text()]
    print(f"logs with redrawn lines: {len(redrawn)}")


if __name__ == "__main__":
    main()
