"""Choose precision, memory layout and torch.compile on a CPU by a short trial of the training step itself."""

import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import cast

import torch
from torch import nn

from segtrain.config import build
from segtrain.config.check import settle_values
from segtrain.config.schema import Settled, TrainTask
from segtrain.data.loading import Batch
from segtrain.distributed import process_group
from segtrain.profiling import keep_state
from segtrain.training.state import TrainingState
from segtrain.training.step import train_step

log = logging.getLogger(__name__)

MIN_PIXELS = 1e7  # a run that sees fewer is over before a trial has paid for itself
MIN_SECONDS, SHARE = 5.0, 0.02  # what a trial may take: so many seconds, or so much of the expected run
COMPILE_SECONDS = 90.0  # that torch.compile takes on a CPU
ROUNDS = 2  # timed steps of each setting
GAIN = 1.05  # that makes a switch: less could be noise, and the same command would not choose alike twice


@dataclass(frozen=True)
class Setting:
    """Keys of runtime."""

    precision: str
    channels_last: bool
    compile: bool

    def __str__(self) -> str:
        return "".join((self.precision, "" if self.channels_last else " not channels_last",
                        " compiled" if self.compile else ""))


def choose_runtime(state: TrainingState) -> None:
    """Settle the open switches of a state that has not been trained yet, if its device is a CPU and its run long.

    Its config, the layout of its model and its normalization follow the choice. Nothing else changes: neither weights,
    nor BatchNorm's statistics, nor random state. Several processes try together, as they will train, and take the
    choice of the first.
    """
    cfg, device = state.cfg, state.device
    best = Setting(cfg.runtime.precision, cfg.runtime.channels_last, cfg.runtime.compile)
    switches: list[dict[str, object]] = []
    if "precision" in state.open_switches and build.has_bf16(device):
        switches.append({"precision": "bf16"})
    if "channels_last" in state.open_switches:
        switches.append({"channels_last": False})
    if "compile" in state.open_switches and build.can_compile(device):
        switches.append({"compile": True})
    images = state.total_steps * cfg.train.batch_size * cfg.train.accumulate
    if device.type != "cpu" or not switches or images * math.prod(state.crop) < MIN_PIXELS:
        return

    started = time.perf_counter()
    seconds: dict[Setting, float] = {}
    with keep_state(state.model):
        time_step(state, best)  # warms up
        step_seconds = process_group.broadcast(time_step(state, best))
        expected = min(state.total_steps * step_seconds, 60 * (cfg.train.max_minutes or math.inf))
        budget = max(MIN_SECONDS, SHARE * expected)
        for switch in switches:
            spent = process_group.broadcast(time.perf_counter() - started)
            cost = (2 * ROUNDS + 1) * step_seconds + (COMPILE_SECONDS if "compile" in switch else 0.0)
            if spent + cost > budget:
                continue
            other = replace(best, **switch)  # type: ignore[arg-type]
            try:
                seconds |= _compare(state, best, other)
            except RuntimeError as error:
                if "memory" in str(error):
                    raise
                log.info("%s fails here: %s", other, " ".join(str(error).split())[:200])
                continue
            if seconds[best] >= GAIN * seconds[other]:
                best = other
    _apply(state, best)
    if seconds:
        log.info("trial of %.1f s, seconds a step: %s; chosen: %s", time.perf_counter() - started,
                 ", ".join(f"{setting} {value:.3f}" for setting, value in seconds.items()), best)


def _compare(state: TrainingState, one: Setting, other: Setting) -> dict[Setting, float]:
    """Return the seconds of a step under two settings, which take turns, as the first process measures them."""
    time_step(state, other)  # warms up, or compiles
    rounds = [(time_step(state, one), time_step(state, other)) for _ in range(ROUNDS)]
    best = [min(seconds) for seconds in zip(*rounds, strict=True)]
    return process_group.broadcast(dict(zip((one, other), best, strict=True)))


def time_step(state: TrainingState, setting: Setting) -> float:
    """Return the seconds of a step on random images, which leaves the weights as they are."""
    _apply(state, setting)
    cfg, generator = state.cfg, torch.Generator().manual_seed(0)
    shape = (cfg.train.batch_size, *state.crop)
    images = torch.randint(256, (*shape, len(cfg.dataset.mean)), dtype=torch.uint8, generator=generator)
    targets = torch.randint(cfg.dataset.num_classes, shape, dtype=torch.uint8, generator=generator)
    batches = [Batch(images, targets, list(range(cfg.train.batch_size)))] * cfg.train.accumulate
    model = cast(nn.Module, torch.compile(state.model)) if setting.compile else state.model
    optimizer = torch.optim.SGD((weight for weight in state.model.parameters() if weight.requires_grad), lr=0.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    state.set_training_mode()
    started = time.perf_counter()
    step = train_step(model, batches, state.train_loss_fn, optimizer, scheduler, state.normalize, device=state.device,
                      precision=cfg.runtime.precision, teacher=state.teacher, allows_update=lambda step: False)
    step.loss.item()
    taken = time.perf_counter() - started
    optimizer.zero_grad(set_to_none=True)
    return taken


def _apply(state: TrainingState, setting: Setting) -> None:
    cfg: Settled[TrainTask] = settle_values(
        state.cfg, {f"runtime.{name}": value for name, value in asdict(setting).items()})
    if cfg.runtime.channels_last != state.cfg.runtime.channels_last:
        for network in (state.model, state.ema):
            if network is not None:
                build.lay_out(network, cfg)
        state.normalize = build.normalize(cfg, state.device)
    state.cfg = cfg
