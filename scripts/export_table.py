"""Export every network of conf/model/ to ONNX, run the files, and print docs/reference/export.md's table.

    python scripts/export_table.py                          # all
    python scripts/export_table.py linknet unet --size 360 480

Weights are random, and BatchNorm has learned the statistics of street scenes. Each network has a process of its own,
one thread, and embedded street scenes of three sizes: --size, one of odd sides with two images, one in portrait.
`differ` is the largest difference of a logit from torch's as a share of the logits' standard deviation, `same` the
least share of pixels of the same class, both over the three sizes; "no" stands before what task=export would not
take for rounding, or before what the runtime said. Times are medians of up to 10 runs of one image of
--size; the runtimes take turns, so within a row they can be compared even on a busy machine.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segtrain.config import build
from segtrain.config.compose import compose_config
from segtrain.data.streets import draw_scene
from segtrain.export.onnx import write_onnx
from segtrain.export.program import ModelWithPreprocessing, reuses_pooling_indices, trace_program
from segtrain.export.verify import (
    as_input,
    compare,
    load_in_onnxruntime,
    load_in_opencv,
    make_batches,
    measure_ms,
)
from segtrain.inference.forward import make_predict_fn

CONF = Path(__file__).parents[1] / "conf" / "model"
HEAD = ("model", "size", "file, MiB", "onnxruntime: differ", "same", "OpenCV: differ", "same", "torch, ms",
        "onnxruntime, ms", "OpenCV, ms")
SCENES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names as after model=; all")
    parser.add_argument("--size", nargs=2, type=int, default=[240, 320], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--keep", type=Path, help="a folder for the files, NAME.onnx")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # measure here, print JSON
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.models[0], (options.size[0], options.size[1]), options.keep)))
        return
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|", flush=True)
    for name in options.models or sorted(path.relative_to(CONF).with_suffix("").as_posix()
                                         for path in CONF.rglob("*.yaml")):
        command = [sys.executable, __file__, "--one", name, "--size", *map(str, options.size),
                   *(["--keep", str(options.keep)] if options.keep else [])]
        done = subprocess.run(command, capture_output=True, text=True)
        print(row(name, options.size, json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else
              f"| `{name}` | failed: {done.stderr.strip().splitlines()[-1:]} |", flush=True)


def measured(name: str, size: tuple[int, int], keep: Path | None = None) -> dict[str, Any]:
    """Export one network and run it; return the figures of its row."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    composed = compose_config([f"model={name}", "runtime.device=cpu"])
    device = build.device(composed)
    assert composed.dataset.num_classes is not None
    cfg = build.settle(composed, device, num_classes=composed.dataset.num_classes, cached_in_memory=True)
    network = build.model(cfg, pretrained=False)
    images = [draw_scene(0, "val", index, *size)[0] for index in range(SCENES)]
    normalize = build.normalize(cfg, device)
    learn_statistics(network, normalize(torch.tensor(np.stack(images))[:, ::2, ::2].contiguous()))
    predict = make_predict_fn(network, normalize, device=device)
    model = ModelWithPreprocessing(network, cfg.dataset.mean, cfg.dataset.std, labels=False)
    program = trace_program(model, None, name)
    pooling_indices = reuses_pooling_indices(program)
    network.to(memory_format=torch.channels_last)
    batches = make_batches(images, None)
    logits = [predict(torch.tensor(batch)).numpy() for batch in batches]
    found: dict[str, Any] = {}
    calls: dict[str, Callable[[], object]] = {"torch": lambda: predict(torch.tensor(batches[0]))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(path, program, {}, labels=False, target=name)
        found["bytes"] = path.stat().st_size
        if keep is not None:
            (keep / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, keep / f"{name}.onnx")
        for runtime, make in (("onnxruntime", load_in_onnxruntime), ("opencv", load_in_opencv)):
            try:
                run = make(path)
                checks = [compare(run(as_input(batch, False)), expected, pooling_indices=pooling_indices)
                          for batch, expected in zip(batches, logits, strict=True)]
            except Exception as error:  # runtimes raise errors of their own kinds
                found[runtime] = " ".join(str(error).split())
                continue
            found[runtime] = [asdict(check) for check in checks]
            calls[runtime] = partial(run, as_input(batches[0], False))
        found["ms"] = measure_ms(calls)
    return found


def learn_statistics(network: nn.Module, images: torch.Tensor) -> None:
    """Let BatchNorm take the statistics of a batch, as a trained network's would fit its data."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches, here of one
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(images)
    network.eval()


def row(name: str, size: list[int], found: dict[str, Any]) -> str:
    """Write a network's row."""
    cells = [f"`{name}`", f"{size[1]}x{size[0]}", f"{found['bytes'] / 2**20:.1f}"]
    for runtime in ("onnxruntime", "opencv"):
        checks = found[runtime]
        if isinstance(checks, str):
            reason = re.sub(r"^OpenCV\S+ \S+ error: (\([^)]*\) ?)?", "", checks)  # not the place in its source
            cells += [f"no: {reason[:100].strip()}", ""]
            continue
        same = min(check["agreement"] for check in checks)
        marked = "" if all(check["passed"] for check in checks) else "no: "
        cells += [f"{marked}{max(check['max_relative'] for check in checks):.0e}",
                  "100 %" if same == 1 else "> 99.99 %" if same > 0.9999 else f"{100 * same:.2f} %"]
    cells += [f"{found['ms'][runtime]:.0f}" if runtime in found["ms"] else ""
              for runtime in ("torch", "onnxruntime", "opencv")]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
