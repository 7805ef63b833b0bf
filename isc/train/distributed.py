"""Several processes that train one model, as torchrun starts them; one process alone is a group of one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from isc.errors import InputError

PATIENCE = timedelta(hours=6)  # the others wait while the first process validates


def rank() -> int:
    """This process's number in the group; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Processes in the group; 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def on_this_machine() -> int:
    """Processes of the group on this machine; 1 alone."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def join_group(device: torch.device) -> torch.device:
    """Join the group that torchrun's environment describes, if any; this process's own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return device
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise InputError(
                f"process {local} of this machine has no GPU; use --nproc_per_node={torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return device


def leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Return when every process of the group has come here."""
    if dist.is_initialized():
        dist.barrier()


class _Gather(torch.autograd.Function):
    """The rows of all ranks in rank order. Every rank computes the whole loss, so the slope of its own rows is
    complete; it is multiplied by the world size because the ranks' slopes of the weights are averaged afterwards."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        start = rank() * ctx.count
        return slopes[0][start : start + ctx.count] * world_size()


def gather(rows: Tensor, *, views: int = 2) -> Tensor:
    """The views of this rank's photos [views · B, …] → those of all ranks [views · B · ranks, …], with gradient (SSCD
    gathers its negatives so), in the order of one process alone: all first views, then all second ones, and so on.
    Equal B on all ranks."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    each = len(rows) // views
    return gathered.view(world_size(), views, each, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, in one message."""
    if world_size() == 1:
        return
    slopes = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([slope.flatten() for slope in slopes])
    dist.all_reduce(flat)
    flat /= world_size()
    means = torch.split(flat, [slope.numel() for slope in slopes])
    for slope, mean in zip(slopes, means, strict=True):
        slope.copy_(mean.view_as(slope))


def gather_objects(value: Any) -> list[Any]:
    """The values of all ranks, in rank order; for the few small things that are no tensors."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
