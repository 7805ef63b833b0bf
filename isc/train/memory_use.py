"""The memory of a training step: parts of a batch one after the other, and a trial before a run starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from isc.errors import InputError
from isc.train.augment.trace import POINTS
from isc.train.dataset import Batch
from isc.train.losses import ABSENT
from isc.train.memory_bank import Memory

MOMENTS = 2  # tensors of each weight's size that an optimiser keeps at most


def in_parts(function: Callable[[Tensor], Any], pictures: Tensor, model: nn.Module, *, size: int) -> Any:
    """Apply a function of `model` to pictures [B, …], whose activations are held for `size` pictures at a time.

    The forward pass keeps the results alone; the backward pass computes the activations of each part again. So the
    loss sees the whole batch at the memory of a part, for one more forward pass (Gao et al., "Scaling Deep Contrastive
    Learning Batch Size under Memory Limited Setup", arXiv:2101.06983; Chen et al., arXiv:1604.06174).

    Outputs and gradients are those of the whole batch, except that batch norms in training mode use the statistics of
    a part; the parts are of nearly one size. size 0, or at least B, means the whole batch at once. The results of the
    parts, tensors or tuples of them, are joined.
    """
    if not 0 < size < len(pictures):
        return function(pictures)

    def contexts() -> tuple[Any, Any]:
        return nullcontext(), unchanged_statistics(model)

    found = [
        checkpoint(function, part, use_reentrant=False, context_fn=contexts, determinism_check="none")
        for part in pictures.tensor_split(-(-len(pictures) // size))
    ]
    if isinstance(found[0], Tensor):
        return torch.cat(found)
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Keep the running statistics of the batch norms of a model in training mode as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(module.momentum, module.num_batches_tracked) for module in norms]
    for module in norms:
        module.momentum = 0.0  # the old value × 1 + the new one × 0
        if module.num_batches_tracked is not None:
            module.num_batches_tracked = module.num_batches_tracked.clone()
    try:
        yield
    finally:
        for module, (momentum, tracked) in zip(norms, before, strict=True):
            module.momentum, module.num_batches_tracked = momentum, tracked


@contextmanager
def naming_memory(what: str, *, pictures: int, micro_batch: int) -> Iterator[None]:
    """Turn a lack of GPU memory into an InputError that names the option; `pictures` are those of a step."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        part = 1 << max(0, (min(pictures, micro_batch or pictures) - 1).bit_length() - 1)
        raise InputError(
            f"{what}: {pictures} pictures do not fit into the GPU's memory; set train.micro_batch={part} or less, "
            "which computes as many at a time, lower train.batch_size, or use more GPUs"
        ) from error


def black_batch(photos: int, hard_views: int, *, size: int, traced: bool) -> Batch:
    """Return a batch of black pictures in the shapes of a step, each of a photo of its own."""
    views, count = photos * (1 + hard_views), photos * hard_views
    first = torch.arange(photos).repeat(1 + hard_views)
    places = torch.full((count, POINTS, POINTS, 2), 0.5) if traced else None
    pictures = torch.zeros(views, 3, size, size, dtype=torch.uint8)
    return Batch(pictures, torch.stack([first, torch.full_like(first, ABSENT)], dim=1), [], places)


def full_memory(memory: Memory) -> tuple[Tensor, Tensor] | None:
    """Return copies of all rows of the memory, used or not; None if it has no rows."""
    return (memory.embeddings.clone(), memory.instances.clone()) if len(memory.embeddings) else None


def try_gradients(
    gradients: Callable[[Batch], None], model: nn.Module, memory: Memory, *, batch: Batch, what: str, micro_batch: int
) -> None:
    """Compute the gradients of a batch once, beside an optimiser's memory, and leave model and memory as they were.

    Raises InputError, which names `what` and the option, if the memory of the GPU is too small: so a run ends at its
    start and not in the middle.
    """
    device = next(model.parameters()).device
    kept = {name: value.clone() for name, value in memory.state_dict().items()}
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        naming_memory(what, pictures=len(batch.views), micro_batch=micro_batch),
        unchanged_statistics(model),
    ):
        room = [torch.empty_like(parameter) for parameter in model.parameters() for _ in range(MOMENTS)]
        gradients(batch)
    del room
    model.zero_grad(set_to_none=True)
    memory.load_state_dict(kept)
