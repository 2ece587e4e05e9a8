"""How long something takes, how much memory it takes at most, and how much there is."""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

LEAST_RUNS = 3  # timed runs of whatever takes long


def timed(run: Callable[[], object], device: torch.device, *, warmup: int, repeats: int, seconds: float) -> list[float]:
    """Time a function again and again.

    Args:
        run: What to time; a device's work is waited for.
        device: Where it runs.
        warmup: Runs before the first that counts.
        repeats: Most runs that count.
        seconds: No run is started after so many seconds of counted runs, once there are 3.

    Returns:
        The seconds of each run.
    """
    for _ in range(warmup):
        run()
    _wait(device)
    taken: list[float] = []
    while len(taken) < repeats and (len(taken) < LEAST_RUNS or sum(taken) < seconds):
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
    """Tell how much more memory is in use at most than when the meter was made.

    On a CUDA device it is the memory of tensors; on a CPU it is the memory of the whole process, which Linux tells.
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
        """Forget the peak so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif not _forget_peak():
            self._before = None

    def peak(self) -> int | None:
        """Return the bytes of the peak since the last reset; None where the system does not tell."""
        if self._device.type == "cuda":
            now: int | None = torch.cuda.max_memory_allocated(self._device)
        else:
            now = _resident("VmHWM")
        return None if now is None or self._before is None else max(0, now - self._before)


def _return_free_memory() -> None:
    """Give back what the process holds and does not use, so that later needs are not met from it unseen."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)  # of the GNU C library; others have none


def _forget_peak() -> bool:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now
        return True
    return False


def _resident(name: str) -> int | None:
    """Return a figure of the process's memory in bytes."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def free_memory(device: torch.device) -> int:
    """Return the bytes of memory that can be had on a device, 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError, ValueError, IndexError):  # Linux counts in what its own file cache would give up
        return 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
