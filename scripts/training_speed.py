"""Compare the speed of the whole training loop with the bare step that it wraps, side by side in one process.

    python scripts/training_speed.py                                  # streets drawn at 480x360, crop 480x320, batch 8
    python scripts/training_speed.py dataset=camvid dataset.root=/data/CamVid

Three variants take turns, a step each, so that a machine whose speed drifts slows them alike:
  whole loop          what `segtrain` runs: loading, augmentation, copy, normalisation, step, reading of the loss
  bare step           the same network and optimizer on one resident, normalised batch
  not channels_last   the bare step in PyTorch's default memory layout
Prints the median seconds a step, images per second and the ratios to the bare step, and the peak memory of the
process (which holds all three). Arguments are overrides as for segtrain.
"""

import copy
import itertools
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from segtrain.config import build
from segtrain.config.compose import compose_config
from segtrain.inference.forward import autocast
from segtrain.losses import mean_loss
from segtrain.training.state import TrainingState, build_state
from segtrain.training.step import train_step

WARM_UP, STEPS = 3, 20
DEFAULTS = ["dataset.crop=[320,480]", "train.batch_size=8", "runtime.compile=false"]
STREETS = ["dataset.height=360", "dataset.width=480", "dataset.num_train=80", "dataset.num_val=1"]


def main() -> None:
    overrides = sys.argv[1:]
    streets = [] if any(override.startswith("dataset=") for override in overrides) else STREETS
    cfg = compose_config([*DEFAULTS, *streets, *overrides])
    with tempfile.TemporaryDirectory() as folder:
        training = build_state(cfg, Path(folder))
    variants = {
        "whole loop": whole_loop(training),
        "bare step": bare_steps(training, torch.channels_last),
        "not channels_last": bare_steps(training, torch.contiguous_format),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(WARM_UP + STEPS):
        for name, steps in variants.items():
            started = time.perf_counter()
            next(steps)
            if training.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)

    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, {training.device}, {cfg.runtime.precision}")
    print(f"{type(training.model).__name__}, batch {cfg.train.batch_size}, crop {list(cfg.dataset.crop)}, "
          f"median of {STEPS} steps")
    bare = statistics.median(seconds["bare step"])
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = statistics.median(b / v for b, v in zip(seconds["bare step"], values, strict=True))
        print(f"{name:<18} {median:7.3f} s/step  {cfg.train.batch_size / median:7.2f} images/s  "
              f"{bare / median:5.2f} x bare (median of pairs {ratio:.2f})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def whole_loop(training: TrainingState) -> Iterator[None]:
    """Step through epoch after epoch as tasks/train.py does."""
    cfg = training.cfg
    training.model.train()
    for epoch in itertools.count():
        for batch in training.loader.batches(epoch):
            step = train_step(
                training.model, [batch], training.loss_fn, training.optimizer, training.scheduler, training.normalize,
                device=training.device, precision=cfg.runtime.precision, scaler=training.scaler)
            if training.device.type == "cpu":
                step.loss.item()
            yield


def bare_steps(training: TrainingState, memory_format: torch.memory_format) -> Iterator[None]:
    """Repeat forward, loss, backward and update on one batch."""
    cfg, device = training.cfg, training.device
    network = copy.deepcopy(training.model).to(memory_format=memory_format).train()
    optimizer = build.optimizer(cfg, network, device)
    batch = next(training.loader.batches(0))
    images = training.normalize(batch.images.to(device)).contiguous(memory_format=memory_format)
    targets = batch.targets.to(device)
    normalizers = training.loss_fn.normalizer(targets)
    while True:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, cfg.runtime.precision):
            logits = network(images)
        mean_loss(training.loss_fn(logits, targets), normalizers).backward()
        optimizer.step()
        yield


if __name__ == "__main__":
    main()
