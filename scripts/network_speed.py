"""Time the training step of every network by precision and memory layout, and against its convolutions alone.

    python scripts/network_speed.py linknet enet --batch 4 --size 320 480
    python scripts/network_speed.py --precision fp32 bf16

Each row is a network in one setting: seconds of a step (forward, cross-entropy, backward, RMSprop; the median after a
warm-up), images a second, the share of that time that its convolutions take alone at the same shapes, forward and
backward, and their rate; in the last column the gain over float32 in channels_last. Rows are added
to a JSON file; --operators lists what else the time of a step goes to.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.api import build_model
from segtrain.inference.forward import autocast
from segtrain.losses import CrossEntropy
from segtrain.profiling import machine_name

NETWORKS = ["linknet", "linknet_preact", "mobilenetv2_unet", "enet", "unet", "segnet", "fcn8_separable",
            "fc_densenet67"]
CPU, CLASSES = torch.device("cpu"), 11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names of conf/model")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 480), help="height and width")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--operators", action="store_true", help="list the operators that take longest")
    parser.add_argument("--output", type=Path, default=Path("network_speed.json"))
    options = parser.parse_args()
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    for name in options.networks or NETWORKS:
        for precision in options.precision:
            for channels_last in (True, False):
                rows.append(measure(name, precision, channels_last, options))
                options.output.write_text(json.dumps(rows, indent=1) + "\n")
                print(f"{name} {precision}{'' if channels_last else ' not channels_last'}: "
                      f"{rows[-1]['seconds']:.3f} s", flush=True)
    print(markdown(rows))


def measure(name: str, precision: str, channels_last: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Time one network in one setting."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.manual_seed(0)
    network = build_model(name, CLASSES).train()
    network.to(memory_format=layout)
    shape = (options.batch, *options.size)
    images = torch.randn(options.batch, 3, *options.size).to(memory_format=layout)
    targets = torch.randint(CLASSES, shape, dtype=torch.uint8)
    loss_fn, optimizer = CrossEntropy(), torch.optim.RMSprop(network.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(CPU, precision):
            logits = network(images)
        (loss_fn(logits, targets) / targets.numel()).sum().backward()
        optimizer.step()

    calls = note_convolutions(network, step)
    seconds = statistics.median(time_each(step, options.steps))
    alone, flops = 0.0, 0.0
    for layer, x in calls:
        alone += time_convolution(layer, x, layout, precision)
        flops += count_flops(layer, x.shape)
    if options.operators:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            step()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))
    return {"network": name, "precision": precision, "channels_last": channels_last, "batch": options.batch,
            "size": list(options.size), "seconds": seconds, "images_per_second": options.batch / seconds,
            "convolutions": alone / seconds, "gflops": flops / alone / 1e9, "machine": machine_name(CPU),
            "threads": torch.get_num_threads(), "torch": torch.__version__}


def time_each(run: Callable[[], None], times: int) -> list[float]:
    """Return the seconds of each of some runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return taken


def note_convolutions(network: nn.Module, step: Callable[[], None]) -> list[tuple[nn.Module, Tensor]]:
    """Make a step, which warms up, and return its convolutions with a stand-in for what each was given."""
    calls: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        given = torch.empty(args[0].shape, dtype=args[0].dtype, device="meta").requires_grad_(args[0].requires_grad)
        calls.append((layer, given))

    hooks = [layer.register_forward_hook(note) for layer in network.modules()
             if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    step()
    for hook in hooks:
        hook.remove()
    return calls


def time_convolution(layer: nn.Module, given: Tensor, layout: torch.memory_format, precision: str) -> float:
    """Return the seconds of a convolution alone, forward and backward, the better of two runs after a warm-up."""
    x = torch.randn(given.shape).to(given.dtype).to(memory_format=layout).requires_grad_(given.requires_grad)

    def run() -> None:
        with autocast(CPU, precision):
            output = layer(x)
        output.backward(torch.ones_like(output))

    run()
    return min(time_each(run, 2))


def count_flops(layer: nn.Module, given: torch.Size) -> float:
    """Return the operations of a convolution, forward and backward."""
    pixels = given if isinstance(layer, nn.ConvTranspose2d) else copy.deepcopy(layer).to("meta")(
        torch.empty(given, device="meta")).shape
    weights = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 4)
    return 3 * 2.0 * weights * given[0] * pixels[2] * pixels[3]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = ["| network | precision | channels_last | s/step | images/s | convolutions alone | their GFLOP/s | gain |",
             "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        base = next((other["seconds"] for other in rows if other["network"] == row["network"]
                     and (other["precision"], other["channels_last"]) == ("fp32", True)), None)
        gain = "" if base is None else f"{base / row['seconds']:.2f}"
        lines.append(f"| `{row['network']}` | {row['precision']} | {'yes' if row['channels_last'] else 'no'} | "
                     f"{row['seconds']:.3f} | {row['images_per_second']:.2f} | {100 * row['convolutions']:.0f} % | "
                     f"{row['gflops']:.0f} | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
