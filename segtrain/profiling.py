"""Measure the cost of a network: parameters, multiply-adds (MACs), time and memory."""

import ctypes
import gc
import os
import platform
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segtrain.terminal import table


def measure_cost(network: nn.Module, image_size: tuple[int, int], in_channels: int) -> dict[str, int | None]:
    """Count a network's trainable parameters, `params`, and the multiply-adds of one image, `macs`, in evaluation.

    Auxiliary heads, which evaluation leaves out, count in neither. The multiply-adds are those of convolutions and
    matrix products without their biases; None if an operator cannot be counted. `image_size` is (height, width).
    """
    params = count_parameters(network, aux=False)
    try:
        macs: int | None = _counted_pass(network, image_size, in_channels).get_total_flops() // 2
    except RuntimeError:  # the counter does not know an operator, or the size does not fit
        macs = None
    return {"params": params, "macs": macs}


def count_parameters(network: nn.Module, *, aux: bool) -> int:
    """Count a network's trainable parameters, with or without those of its auxiliary heads, the module `aux`."""
    return sum(parameter.numel() for name, parameter in network.named_parameters()
               if parameter.requires_grad and (aux or not name.startswith("aux.")))


@contextmanager
def keep_modes(network: nn.Module) -> Iterator[None]:
    """Restore the training mode of every module of a network."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def keep_state(network: nn.Module) -> Iterator[None]:
    """Restore what a pass in training mode changes: modes, buffers such as BatchNorm's statistics, random state."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    devices = {tensor.device for tensor in (*network.parameters(), *network.buffers()) if tensor.device.type == "cuda"}
    try:
        with keep_modes(network), torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def _counted_pass(network: nn.Module, image_size: tuple[int, int], in_channels: int) -> FlopCounterMode:
    """Run a network in evaluation mode on one blank image and count its operations."""
    image = torch.zeros(1, in_channels, *image_size, device=next(network.parameters()).device)
    with keep_modes(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()
        network(image)
    return counter


@dataclass
class Layer:
    """One layer of a network.

    Attributes:
        name: Its name in the network, such as encoder.layer1.0.conv1.
        kind: Its class.
        output_shape: (C, H, W) of one image; of its last use, if it is used several times.
        params: Its trainable parameters.
        macs: As of `measure_cost`, over all its uses.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


def list_layers(network: nn.Module, image_size: tuple[int, int], in_channels: int) -> list[Layer]:
    """List the layers of a network in the order in which an image passes them.

    Operations of a forward function that are not modules (sums, concatenations, interpolation) have no row.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def noting(name: str):
        def note(module: nn.Module, args: tuple, output: object) -> None:
            if isinstance(output, Tensor):
                shapes.pop(name, None)
                shapes[name] = tuple(output.shape[1:])
        return note

    found = {name: module for name, module in network.named_modules() if not any(True for _ in module.children())}
    hooks = [module.register_forward_hook(noting(name)) for name, module in found.items()]
    try:
        counter = _counted_pass(network, image_size, in_channels)
    finally:
        for hook in hooks:
            hook.remove()
    flops, root = counter.get_flop_counts(), type(network).__name__
    return [
        Layer(name, type(found[name]).__name__, shape,
              sum(p.numel() for p in found[name].parameters() if p.requires_grad),
              sum(flops.get(f"{root}.{name}", {}).values()) // 2)
        for name, shape in shapes.items()
    ]


def format_layers(rows: Sequence[Layer]) -> str:
    """Return the layers as a table with a line of sums."""
    cells = [(row.name, row.kind, "x".join(map(str, row.output_shape)), f"{row.params:,}", f"{row.macs / 1e6:,.1f}")
             for row in rows]
    sums = ("sum", "", "", f"{sum(row.params for row in rows):,}", f"{sum(row.macs for row in rows) / 1e6:,.1f}")
    return table([("layer", "kind", "output CxHxW", "parameters", "MMACs"), (), *cells, (), sums], left=(0, 1, 2))


class _LiveBytes(TorchDispatchMode):
    """Track the memory of the tensors created in this mode that are alive, and its peak."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return output

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._alive:
            self._alive.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def measure_bytes_per_pixel(network: nn.Module, in_channels: int, side: int = 128) -> float | None:
    """Measure the peak memory of the tensors of one forward pass in bytes per pixel, the image included.

    Workspaces inside an operator are not counted. None if an operator cannot be measured.
    """
    image = torch.zeros(1, in_channels, side, side, device=next(network.parameters()).device)
    try:
        with keep_modes(network), torch.no_grad(), _LiveBytes() as live:
            network.eval()
            network(image)
    except (RuntimeError, NotImplementedError):
        return None
    return (live.peak + image.nbytes) / side**2


MIN_RUNS = 3  # even if one takes long


def time_runs(run: Callable[[], object], device: torch.device, *, warmup: int, repeats: int, seconds: float,
              ) -> list[float]:
    """Return the seconds of up to `repeats` runs of a function, the device's work included, after `warmup` runs.

    No run starts after this many seconds of timed runs, once there are 3.
    """
    for _ in range(warmup):
        run()
    _wait(device)
    taken: list[float] = []
    while len(taken) < repeats and (len(taken) < MIN_RUNS or sum(taken) < seconds):
        started = time.perf_counter()
        run()
        _wait(device)
        taken.append(time.perf_counter() - started)
    return taken


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class MemoryMeter:
    """Measure the growth of peak memory since the meter was created.

    On a CUDA device this is the memory of tensors, on a CPU the memory of the whole process, as Linux reports it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.conv2d(torch.zeros(1, 8, 8, 8, device=device), torch.zeros(8, 8, 3, 3, device=device))  # loads libraries
        _return_free_memory()
        self._before: int | None
        if device.type == "cuda":
            self._before = torch.cuda.memory_allocated(device)
        else:
            self._before = _resident("VmRSS") if device.type == "cpu" else None

    def reset(self) -> None:
        """Reset the peak."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif not _forget_peak():
            self._before = None

    def peak(self) -> int | None:
        """Return the bytes of the peak since the last reset; None where the system does not report it."""
        if self._device.type == "cuda":
            now: int | None = torch.cuda.max_memory_allocated(self._device)
        else:
            now = _resident("VmHWM")
        return None if now is None or self._before is None else max(0, now - self._before)


def _return_free_memory() -> None:
    """Return unused memory to the system, so that later allocations show as growth."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # of the GNU C library; others have none


def _forget_peak() -> bool:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now
        return True
    return False


def _resident(name: str) -> int | None:
    """Return an entry of the process's memory status, in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def used_memory(device: torch.device) -> int:
    """Return the bytes that this process holds on a device now; 0 where the system does not report it."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident("VmRSS") or 0


def free_memory(device: torch.device) -> int:
    """Return the bytes of free memory of a device; 0 where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, ValueError, IndexError):  # Linux includes reclaimable file cache
        return 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def machine_name(device: torch.device) -> str:
    """Return the name of the processor or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
