"""Measure the cost of a network: parameters, multiply-adds, speed, memory."""

import logging
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from segtrain.config import build
from segtrain.config.schema import BenchmarkTask, Config, Settled
from segtrain.data.loading import Batch
from segtrain.data.transforms import Normalize
from segtrain.errors import UserError, did_you_mean
from segtrain.inference.forward import autocast
from segtrain.inference.sanity_check import check_logits
from segtrain.losses import CrossEntropy
from segtrain.profiling import (
    MemoryMeter,
    count_parameters,
    format_layers,
    list_layers,
    machine_name,
    measure_cost,
    time_runs,
)
from segtrain.run.results import versions, write_config, write_results
from segtrain.sweep import leaderboard
from segtrain.training.step import train_step

log = logging.getLogger(__name__)

WARMUP = 2  # untimed runs


def run(cfg: Config[BenchmarkTask], run_dir: Path) -> float | None:
    """Measure cfg.model on random images and write results.json; return the median latency in milliseconds."""
    num_classes = cfg.model.get("num_classes", cfg.dataset.num_classes)
    if num_classes is None:
        raise UserError("the number of classes is open, and no data is read for a benchmark: "
                        "give it, dataset.num_classes=...")
    sortable = [column.name for column in leaderboard.COSTS]
    if cfg.task.sort not in sortable:
        raise UserError(f"task.sort={cfg.task.sort} is not a column of the table: use one of {', '.join(sortable)}."
                        f"{did_you_mean(cfg.task.sort, sortable)}")
    device = build.device(cfg)
    settled = build.settle(cfg, device, num_classes=cfg.dataset.num_classes or num_classes, cached_in_memory=True)
    build.warn_of_emulation(settled, device)
    return _measure(settled, device, num_classes, run_dir)


def _measure(cfg: Settled[BenchmarkTask], device: torch.device, num_classes: int, run_dir: Path) -> float:
    meter = MemoryMeter(device)
    torch.manual_seed(cfg.seed)
    network = build.lay_out(build.model(cfg, pretrained=False).to(device), cfg)
    size, in_channels = cfg.task.size, cfg.model.get("in_channels", 3)
    check_logits(network, cfg.model["_target_"], size, in_channels=in_channels, num_classes=num_classes)

    name, costs = type(network).__name__, measure_cost(network, size, in_channels)
    layers = list_layers(network, size, in_channels) if cfg.task.layers else None
    if layers is not None:
        log.info("%s\n", format_layers(layers))
    log.info("measuring %s on %s, %s, images of %dx%d", name, machine_name(device), cfg.runtime.precision, *size)
    compiled = cast(nn.Module, torch.compile(network)) if cfg.runtime.compile else network
    results = {
        "task": "benchmark", "model": name, "size": list(size), "batch_size": cfg.task.batch_size,
        "device": cfg.runtime.device, "precision": cfg.runtime.precision, "channels_last": cfg.runtime.channels_last,
        "compile": cfg.runtime.compile,
        "machine": machine_name(device), "threads": torch.get_num_threads(), "versions": versions(),
        "params": costs["params"], "train_params": count_parameters(network, aux=True), "macs": costs["macs"],
        "flops": None if costs["macs"] is None else 2 * costs["macs"],
        **_measure_inference(cfg, compiled, device, in_channels, meter),
        **_measure_training(cfg, network, compiled, device, in_channels, meter),
        "layers": None if layers is None else [asdict(layer) for layer in layers],
    }
    write_config(run_dir, cfg)
    write_results(run_dir, results)
    log.info("\n%s\n\nresults: %s", _summarize(results), run_dir / "results.json")
    return results["latency_ms"]


def _measure_inference(cfg: Settled[BenchmarkTask], network: nn.Module, device: torch.device, in_channels: int,
                       meter: MemoryMeter) -> dict[str, Any]:
    """Time the forward pass on images that are on the device already, normalized."""

    @torch.inference_mode()
    def time_forward(batch_size: int) -> list[float]:
        images = torch.randn(batch_size, in_channels, *cfg.task.size, device=device)
        images = images.to(memory_format=build.memory_format(cfg))

        def forward() -> None:
            with autocast(device, cfg.runtime.precision):  # anew each time: it keeps the weights it has cast
                network(images)

        return _time(cfg, forward, device)

    network.eval()
    meter.reset()
    latencies = time_forward(1)
    memory = meter.peak()
    batches = time_forward(cfg.task.batch_size)
    return {
        "latency_ms": 1000 * statistics.median(latencies),
        "latency_p95_ms": 1000 * float(np.quantile(latencies, 0.95, method="inverted_cdf")),
        "latency_runs": len(latencies),
        "images_per_second": cfg.task.batch_size / statistics.median(batches), "batch_runs": len(batches),
        "memory_bytes": memory,
    }


def _measure_training(cfg: Settled[BenchmarkTask], network: nn.Module, compiled: nn.Module, device: torch.device,
                      in_channels: int, meter: MemoryMeter) -> dict[str, Any]:
    """Time whole training steps on a batch that is on the device already: no loading, no augmentation."""
    if not cfg.task.train:
        return {"train_images_per_second": None, "train_runs": None, "train_memory_bytes": None}
    network.train()
    shape = (cfg.task.batch_size, *cfg.task.size)
    images = torch.randint(0, 256, (*shape, in_channels), dtype=torch.uint8)
    targets = torch.zeros(shape, dtype=torch.uint8)  # the classes do not change the work
    batch = Batch(images.to(device), targets.to(device), list(range(cfg.task.batch_size)))
    normalize = Normalize([0.0] * in_channels, [1.0] * in_channels, device, cfg.runtime.channels_last)
    optimizer = build.optimizer(cfg, network, device)
    scaler = torch.amp.GradScaler(device.type, enabled=cfg.runtime.precision == "fp16")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    meter.reset()
    loss_fn = build.training_loss(cfg, network, CrossEntropy())
    taken = _time(cfg, lambda: train_step(compiled, [batch], loss_fn, optimizer, scheduler, normalize,
                                          device=device, precision=cfg.runtime.precision, scaler=scaler), device)
    return {"train_images_per_second": cfg.task.batch_size / statistics.median(taken), "train_runs": len(taken),
            "train_memory_bytes": meter.peak()}


def _time(cfg: Config[BenchmarkTask], function: Callable[[], object], device: torch.device) -> list[float]:
    return time_runs(function, device, warmup=WARMUP, repeats=cfg.task.repeats, seconds=cfg.task.seconds)


def _summarize(results: dict[str, Any]) -> str:
    """Write the figures, one a line, with their units."""

    def in_mib(value: int | None) -> str:
        return "n/a" if value is None else f"{value / 2**20:,.0f} MiB"

    height, width = results["size"]
    batch, macs = results["batch_size"], results["macs"]
    work = "not countable" if macs is None else f"{macs / 1e9:.2f} GMACs = {2 * macs / 1e9:.2f} GFLOPs"
    lines = [
        ("parameters", f"{results['params']:,}" + (f", in training {results['train_params']:,}"
                                                   if results["train_params"] != results["params"] else "")),
        ("one image", f"{work} at {width}x{height}"),
        ("latency", f"{results['latency_ms']:.1f} ms median, {results['latency_p95_ms']:.1f} ms 95th percentile "
                    f"({results['latency_runs']} runs)"),
        ("throughput", f"{results['images_per_second']:.2f} images/s at batch {batch}"),
        ("memory", f"{in_mib(results['memory_bytes'])} at batch 1"),
    ]
    if results["train_images_per_second"] is not None:
        lines.append(("training", f"{results['train_images_per_second']:.2f} images/s at batch {batch}, "
                                  f"{in_mib(results['train_memory_bytes'])}"))
    return "\n".join(f"{name:<11} {text}" for name, text in lines)
