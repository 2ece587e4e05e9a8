"""Measure the data path: images a second on one core, and what checking many files takes in time and memory.

    python scripts/data_speed.py                                          # the embedded street scenes
    python scripts/data_speed.py dataset=camvid dataset.root=/data/CamVid
    python scripts/data_speed.py --files 100 10000                        # 10,000 small images, written and removed

Without --files: one process, one thread reads samples of the training split (from file to train ids), and augments them
with crop_flip and with strong. The three take turns, a round each, so that a machine whose speed drifts slows them
alike; the median of the rounds counts. The first round, after which the disk cache holds the files, does not. Time is
the processor's, which other programs on the machine do not lengthen by taking turns with this one.

With --files: for each number, task=doctor and the beginning of a training (it reads every file, then makes one step of
ENet, crop 64x64) run in a process of their own. Memory is what they need at most beyond the loaded program.
Other arguments are overrides as for segtrain.
"""

import argparse
import logging
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from segtrain.config import build
from segtrain.config.compose import compose_config
from segtrain.profiling import MemoryMeter
from segtrain.tasks import doctor
from segtrain.training.state import build_state
from segtrain.training.step import train_step

ROUNDS, SAMPLES = 15, 32
SIZE, CLASSES, VAL_EVERY = (64, 96), 5, 5  # of the many small images


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, nargs="*", default=[], help="numbers of image and mask pairs")
    given, overrides = arguments.parse_known_args()
    if given.files:
        for number in given.files:
            many_files(number, overrides)
    else:
        one_core(overrides)


def one_core(overrides: list[str]) -> None:
    """Print the images a second that one thread reads, and reads and augments."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    data = build.dataset(compose_config(overrides), "train")
    crop_flip = build.augmentation(compose_config([*overrides, "augmentation=crop_flip"]))
    strong = build.augmentation(compose_config([*overrides, "augmentation=strong"]))
    indices = [int(place) for place in np.linspace(0, len(data.names) - 1, min(SAMPLES, len(data.names)))]
    kept = [data.read(index) for index in indices]
    variants: dict[str, Callable[[int, tuple[int, int]], object]] = {
        "read": lambda place, key: data.read(indices[place]),
        "crop_flip, from memory": lambda place, key: crop_flip(kept[place].image, kept[place].target, key),
        "strong, from memory": lambda place, key: strong(kept[place].image, kept[place].target, key),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(ROUNDS + 1):
        for name, run in variants.items():
            started = time.process_time()
            for place in range(len(indices)):
                run(place, (turn, place))
            if turn:
                seconds[name].append((time.process_time() - started) / len(indices))
    height, width = kept[0].target.shape
    crop = compose_config(overrides).dataset.crop
    print(f"images of {width}x{height}, crop {crop[1]}x{crop[0]}, one thread, median of {ROUNDS} rounds of "
          f"{len(indices)} images")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name in ("crop_flip", "strong"):
        medians[f"read and {name}"] = medians["read"] + medians[f"{name}, from memory"]
    for name, median in medians.items():
        print(f"{name:<24} {1000 * median:7.2f} ms  {1 / median:8.1f} images/s")


def many_files(number: int, overrides: list[str]) -> None:
    """Print what the doctor and the beginning of a training take for so many images."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        write_images(root, number)
        given = ["dataset=folder", f"dataset.root={root}", "dataset.crop=[64,64]", "runtime.workers=0", "model=enet",
                 *overrides]
        for name, task, more in (("doctor", run_doctor, ["task=doctor"]),
                                 ("training, dataset.cache=true", begin, ["dataset.cache=true"]),
                                 ("training, dataset.cache=false", begin, ["dataset.cache=false"])):
            # spawned, not forked: what this process holds must not count
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                seconds, processor, peak = pool.submit(measured, task, [*given, *more], Path(folder, name)).result()
            memory = "n/a" if peak is None else f"{peak / 2**20:.0f} MiB"
            print(f"{number} images and masks of {SIZE[1]}x{SIZE[0]}, {name}: {seconds:.1f} s "
                  f"({processor:.1f} s of the processor's), {number / seconds:.0f} images/s, {memory}")


def write_images(root: Path, number: int) -> None:
    """Write images of smooth random patches, each its own, and masks of as many; every fifth is for val."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
    (root / "classes.csv").write_text("name\n" + "".join(f"class {train_id}\n" for train_id in range(CLASSES)))
    for index in range(number):
        split = "train" if index % VAL_EVERY else "val"
        patches = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        target = rng.integers(0, CLASSES, (8, 12), dtype=np.uint8)
        for kind, values, how in (("images", patches, cv2.INTER_LINEAR), ("masks", target, cv2.INTER_NEAREST)):
            cv2.imwrite(str(root / split / kind / f"{index:06d}.png"),
                        cv2.resize(values, SIZE[::-1], interpolation=how))


def measured(task: Callable[[Any, Path], None], overrides: list[str],
             run_dir: Path) -> tuple[float, float, int | None]:
    """Run a task in this process, which does nothing else: its seconds, the processor's, and the bytes at most."""
    logging.disable()
    run_dir.mkdir()
    cfg = compose_config(overrides)
    meter = MemoryMeter(torch.device("cpu"))
    meter.reset()
    started, before = time.perf_counter(), time.process_time()
    task(cfg, run_dir)
    return time.perf_counter() - started, time.process_time() - before, meter.peak()


def run_doctor(cfg: Any, run_dir: Path) -> None:
    """Run the doctor."""
    doctor.run(cfg, run_dir)


def begin(cfg: Any, run_dir: Path) -> None:
    """Begin a training, as far as its first step."""
    state = build_state(cfg, run_dir)
    state.set_training_mode()
    train_step(state.model, [next(state.loader.batches(0))], state.loss_fn, state.optimizer, state.scheduler,
               state.normalize, device=state.device)


if __name__ == "__main__":
    main()
