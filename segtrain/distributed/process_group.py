"""Several processes, started by torchrun: which one this is, and what they tell each other.

In a single process, with or without torchrun, nothing here does anything. Objects and decisions go over a gloo group of
the CPUs, so that they never wait for a GPU; gradients over nccl between GPUs, over gloo between CPUs. torch is imported
only where it is needed: `--help` does not wait for it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from segtrain.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# What the first process does alone, such as reading a dataset, may take hours. A dead process closes its connection.
CONTROL_TIMEOUT = timedelta(days=7)
COMMON_ERROR = 3.0  # seconds in which the first process reports what all have met, and torchrun ends the others


# ---- who this process is


def is_asked() -> bool:
    """Return whether torchrun has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_started() -> bool:
    """Return whether this is one of several processes that have met."""
    return _control_group.cache_info().currsize > 0


def is_restarted() -> bool:
    """Return whether torchrun has started the job anew (--max-restarts)."""
    return is_asked() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ["WORLD_SIZE"]) if is_started() else 1


def rank() -> int:
    """Return the number of this process, starting at 0."""
    return int(os.environ["RANK"]) if is_started() else 0


def is_main() -> bool:
    """Return whether this is the process that writes the run's files."""
    return rank() == 0


def is_first() -> bool:
    """Return whether this is the first process that torchrun has started, or the only one; known before they meet."""
    return os.environ.get("RANK", "0") == "0"


def local_world_size() -> int:
    """Return the number of processes that share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_started() else 1


def own_gpu() -> int:
    """Return the number of this process's GPU, as one of several; UserError if there are fewer GPUs than processes."""
    import torch

    count = torch.cuda.device_count()
    if local_world_size() > count > 0:
        raise UserError(f"{local_world_size()} processes on a machine with {count} GPUs: start torchrun with "
                        f"--nproc-per-node={count}, or use runtime.device=cpu.")
    return int(os.environ["LOCAL_RANK"])


# ---- start and end


def start() -> None:
    """Meet the other processes; UserError if torchrun's environment is incomplete, or they do not find each other."""
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, but {', '.join(missing)} is not: start several "
                        "processes with torchrun, or unset WORLD_SIZE.")
    # torch warns of looking for unused parameters (`ddp.wrap`) in a way that Python's filters do not see
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    import torch.distributed as dist

    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        _control_group()
    except RuntimeError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"process {os.environ['RANK']} does not find the others at {where} "
                        f"({(str(error).splitlines() or [''])[0][:200]}): start them anew, all with the same "
                        "--rdzv-endpoint, which every machine must reach.") from error


@cache
def _control_group() -> Any:
    """Return the group for objects and decisions; `start` makes it."""
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)


def finish() -> None:
    """Wait for the others, and leave the group."""
    if not is_started():
        return
    import torch.distributed as dist

    all_gather(None)
    dist.destroy_process_group()
    _control_group.cache_clear()


def is_peer_loss(error: BaseException) -> bool:
    """Return whether an error means that another process is gone."""
    if not is_started() or not isinstance(error, RuntimeError):
        return False
    import torch.distributed as dist

    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        sign in text for sign in ("connection closed by peer", "connection reset by peer", "broken pipe",
                                  "gloo/transport", "nccl", "connection was likely closed"))


# ---- what they tell each other


def broadcast(value: T) -> T:
    """Return the first process's value."""
    if not is_started():
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control_group())
    return box[0]


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, in their order."""
    if not is_started():
        return [value]
    import torch.distributed as dist

    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value, group=_control_group())
    return box


def in_image_order(indices: Sequence[int], *columns: Sequence[Any]) -> list[list[Any]]:
    """Return columns over the images of all processes, in the images' order.

    Args:
        indices: The numbers of this process's images, increasing; no other process has them.
        columns: Something about each of these images, on the CPU.
    """
    if not is_started():
        return [list(column) for column in columns]
    rows = [row for part in all_gather(list(zip(indices, *columns, strict=True))) for row in part]
    rows.sort(key=lambda row: row[0])
    return [[row[number + 1] for row in rows] for number in range(len(columns))]


def summed(tensor: "Tensor") -> "Tensor":
    """Add a tensor up over the processes, on its device."""
    if not is_started():
        return tensor
    import torch.distributed as dist

    total = tensor.clone()
    dist.all_reduce(total)
    return total


@contextmanager
def main_first() -> Iterator[None]:
    """Let the first process run a block before the others, so that downloads are done once."""
    if not is_main():
        all_gather(None)
    yield
    if is_main():
        all_gather(None)
