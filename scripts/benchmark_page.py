"""Measure networks in parts, and write docs/reference/benchmark.md with its picture.

    python scripts/export_table.py --keep onnx pidnet_s stdc1                   # the exported files
    python scripts/benchmark_page.py measure --seconds 50 --onnx onnx           # repeat until nothing is left
    python scripts/benchmark_page.py write

What is measured is kept in docs/reference/benchmark.json; `measure` goes on with what is not there yet, and starts
nothing after --seconds. Parameters, MACs, latency and training are those of task=benchmark; files are run with
onnxruntime and, where it can, OpenCV, of which the faster counts.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from segtrain import cli
from segtrain.export.verify import load_in_onnxruntime, load_in_opencv

DOCS = Path(__file__).parents[1] / "docs"
PAGE, RECORD, PICTURE = (DOCS / name for name in ("reference/benchmark.md", "reference/benchmark.json",
                                                  "images/networks.png"))
# mIoU in % on Cityscapes val that the papers, or the originals' code, claim (docs/reference/models.md); None: no claim
CLAIMED = {
    "fast_scnn": 68.6, "efficientvit_seg_b0": 75.65, "pp_liteseg_t": 77.04, "ddrnet_23_slim": 77.8, "stdc1": 74.5,
    "pidnet_s": 78.8, "regseg": 77.76, "segformer_b0": 76.54, "bisenetv2": 73.4, "lraspp": None, "enet": None,
    "linknet": None, "efficientvit_seg_b1": 80.55, "pp_liteseg_b": 79.04, "stdc2": 77.0, "segformer_b1": 78.56,
    "ddrnet_23": 79.5, "pidnet_m": 79.9, "pidnet_l": None,
}
SIZES = ((360, 480), (512, 1024))  # (height, width)
REPEATS = 9  # runs of an exported file
HEAD = ("model", "parameters", "GMACs", "training, images/s", "latency, ms", "exported file, ms", "its runtime",
        "claimed mIoU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "write"))
    parser.add_argument("--seconds", type=float, default=50, help="start nothing after so many seconds")
    parser.add_argument("--onnx", type=Path, help="the folder of the exported files, NAME.onnx")
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if options.what == "write":
        write(record)
        return
    end = time.monotonic() + options.seconds
    for size in SIZES:
        for name in CLAIMED:
            found = record.setdefault(name, {}).setdefault(f"{size[1]}x{size[0]}", {})
            path = None if options.onnx is None else options.onnx / f"{name}.onnx"
            if time.monotonic() < end and "latency_ms" not in found:
                found |= measure(name, size)
                RECORD.write_text(json.dumps(record, indent=1) + "\n")
            if time.monotonic() < end and path is not None and path.exists() and "file_ms" not in found:
                found["file_ms"] = measure_file(path, size)
                RECORD.write_text(json.dumps(record, indent=1) + "\n")


def measure(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Run task=benchmark in this process, which has imported torch already, and return its figures."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        sys.argv = ["segtrain", "task=benchmark", f"model={name}", "model.num_classes=19", "task.batch_size=2",
                    f"task.size=[{size[0]},{size[1]}]", "task.repeats=9", "task.seconds=1.5", "runtime.device=cpu",
                    f"hydra.run.dir={folder}/run"]
        try:
            cli.main()
        finally:
            results = json.loads(Path(folder, "run/results.json").read_text())
    return {key: results[key] for key in ("params", "train_params", "macs", "latency_ms", "train_images_per_second",
                                          "machine", "threads", "versions")}


def measure_file(path: Path, size: tuple[int, int]) -> dict[str, float]:
    """Return the median milliseconds of an exported file on one image, for each runtime that can run it."""
    image = np.zeros((1, 3, *size), dtype=np.float32)
    found = {}
    for runtime, load in (("onnxruntime", load_in_onnxruntime), ("OpenCV", load_in_opencv)):
        try:
            run = load(path)
            run(image)
        except Exception:  # runtimes raise errors of their own kinds; docs/reference/export.md has the reasons
            continue
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            run(image)
            taken.append(1000 * (time.perf_counter() - started))
        found[runtime] = statistics.median(taken)
    return found


def write(record: dict[str, Any]) -> None:
    """Write the page and the picture."""
    one = next(found for sizes in record.values() for found in sizes.values() if found)
    parts = [PROLOGUE.format(machine=one["machine"], threads=one["threads"], torch=torch.__version__)]
    for size in SIZES:
        key = f"{size[1]}x{size[0]}"
        measured = [(name, sizes[key]) for name, sizes in record.items() if sizes.get(key)]
        if measured:
            parts.append("\n".join([f"## {key}\n", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|",
                                    *(row(*pair) for pair in sorted(measured, key=lambda pair: pair[1]["latency_ms"])),
                                    ""]))
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    draw(record)


def row(name: str, found: dict[str, Any]) -> str:
    """Write the row of a network."""
    files = found.get("file_ms") or {}
    best = min(files, key=lambda runtime: files[runtime]) if files else ""
    cells = [f"`{name}`", f"{found['params']:,}", f"{found['macs'] / 1e9:.2f}",
             f"{found['train_images_per_second']:.2f}", f"{found['latency_ms']:.0f}",
             f"{files[best]:.0f}" if best else "", best, "" if CLAIMED[name] is None else f"{CLAIMED[name]}"]
    return "| " + " | ".join(cells) + " |"


def draw(record: dict[str, Any]) -> None:
    """Draw the claimed accuracy against the latency that was measured, at the first size."""
    key = f"{SIZES[0][1]}x{SIZES[0][0]}"
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, claimed in CLAIMED.items():
        found = record.get(name, {}).get(key)
        if claimed is None or not found:
            continue
        latency = min([found["latency_ms"], *(found.get("file_ms") or {}).values()])
        axes.scatter(latency, claimed, s=4 * found["params"] / 1e5, alpha=0.5)
        axes.annotate(name, (latency, claimed), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.set(xscale="log", xlabel=f"latency of the faster of eager and exported, ms, one image of {key} on this CPU",
             ylabel="mIoU % on Cityscapes val, as claimed", title="Claimed accuracy and measured latency")
    ticks = [20, 50, 100, 200, 500]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


PROLOGUE = """# Benchmark

Written by `scripts/benchmark_page.py`. Measured on {threads} threads of a CPU ({machine}) with torch {torch}, float32,
19 classes; this CPU has no bfloat16 instructions. *Training* is a step with two images; *latency* and *exported file*
are medians for one image, of torch, and of the faster of onnxruntime and OpenCV. The machine is virtual: figures may be
off by a fifth. *Claimed* is the mIoU in % on Cityscapes val of
[the papers or the originals](models.md#real-time-networks), at their own size and with their pretraining; it has not
been reproduced here.

![Claimed accuracy against measured latency](../images/networks.png)
"""


if __name__ == "__main__":
    main()
