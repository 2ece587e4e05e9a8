"""A network that several processes train together; with one process nothing here does anything."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segtrain.distributed import process_group
from segtrain.errors import UserError


def wrap(network: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
    """Wrap a network, of several processes, so that backward passes average its gradients over them.

    BatchNorm's statistics are each process's own; those of the first one count (`share_buffers`).

    Args:
        network: On this process's device; the same in all processes. With sync_batchnorm, changed in place.
        sync_batchnorm: Whether BatchNorm takes its means over the images of all processes; UserError on a CPU.
    """
    if not process_group.is_started():
        return network
    device = next(network.parameters()).device
    if sync_batchnorm:
        if device.type != "cuda":
            raise UserError(f"runtime.sync_batchnorm=true on {device.type}: torch synchronises BatchNorm on GPUs only; "
                            "set runtime.sync_batchnorm=false.")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    # torch has renamed what keeps it from sending the buffers in every step
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    if device.type == "cuda":
        return DistributedDataParallel(network, device_ids=[device], **{option: False})  # type: ignore[arg-type]
    # After its first step torch would lay out the gradients anew, in the order in which they came, and with the layout
    # the order of additions over three and more processes changes: a resumed run would differ from an unbroken one in
    # the last bits. It does not where it looks for unused parameters; GPUs, where it is not promised, do without.
    return DistributedDataParallel(network, find_unused_parameters=True, **{option: False})  # type: ignore[arg-type]


def gradients_held(model: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Keep a backward pass's gradients in this process where more batches of the step follow."""
    return nullcontext() if not process_group.is_started() or is_last else model.no_sync()  # type: ignore[operator]


def check_gradients(model: nn.Module) -> None:
    """Raise UserError for a parameter that a step leaves without gradient: other processes would wait for it."""
    if not process_group.is_started():
        return
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            name = name.removeprefix("_orig_mod.").removeprefix("module.")
            raise UserError(f"the parameter {name} of the network has no part in the loss, which several processes "
                            "cannot share: take it out of the network, call requires_grad_(False) on it, or train in "
                            "one process.")


def share_buffers(network: nn.Module) -> None:
    """Give every process the buffers (BatchNorm's statistics) of the first one."""
    if not process_group.is_started():
        return
    for buffer in network.buffers():
        dist.broadcast(buffer, src=0)


def reseed(seed: int, step: int) -> None:
    """Seed torch's generator for a step (dropout) in all processes but the first: only its state is in checkpoints."""
    if process_group.is_main():
        return
    mixed = np.random.SeedSequence([seed, step, process_group.rank()]).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0]) >> 1)
