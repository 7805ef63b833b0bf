"""Distributed training: several processes, started by torchrun, train one model. A single process needs no group."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from isc.errors import InputError

PATIENCE = timedelta(hours=6)  # the other processes wait while the first one validates


def rank() -> int:
    """Return the rank of this process in the group; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes in the group; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def on_this_machine() -> int:
    """Return the number of processes of the group on this machine; 1 without a group."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1


def join_group(device: torch.device) -> torch.device:
    """Join the group that torchrun's environment variables describe, if any, and return the device of this process.

    Raises InputError if this machine has no GPU for the process.
    """
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
    """Block until every process of the group has reached this call."""
    if dist.is_initialized():
        dist.barrier()


class _Gather(torch.autograd.Function):
    """The concatenation of the rows of all ranks, in rank order, with gradient.

    Every rank computes the whole loss, so the gradient of its own rows is complete. It is multiplied by the world size
    because the weight gradients are averaged over the ranks afterwards.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        start = rank() * ctx.count
        return gradients[0][start : start + ctx.count] * world_size()


def gather(rows: Tensor, *, views: int = 2) -> Tensor:
    """Gather the rows [views · B, …] of all ranks into [views · B · ranks, …], with gradient, as SSCD does.

    The order is that of a single process: all first views, then all second views, and so on. B is equal on all ranks.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    each = len(rows) // views
    return gathered.view(world_size(), views, each, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, with a single all-reduce."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def synchronised(backbone: nn.Module) -> nn.Module:
    """Replace the batch norms of a backbone of timm by layers with the statistics of all ranks; return the backbone.

    torch's own converter would drop the activations inside timm's batch norms.
    """
    converted: nn.Module = convert_sync_batchnorm(backbone)
    return converted


def gather_objects(value: Any) -> list[Any]:
    """Return the values of all ranks, in rank order; for small objects that are not tensors."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
