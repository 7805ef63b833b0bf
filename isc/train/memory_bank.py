"""The cross-batch memory: a ring buffer of embeddings of earlier steps, stored in module buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isc.train.losses import ABSENT


class Memory(nn.Module):
    """The newest `size` embeddings [size, dim] and the photo numbers [size, labels] that they show.

    Stored embeddings carry no gradient (Wang et al., "Cross-Batch Memory", arXiv:1912.06798). `size` may be 0.
    """

    embeddings: Tensor
    instances: Tensor
    written: Tensor

    def __init__(self, size: int, dim: int, *, labels: int = 1) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("instances", torch.full((size, labels), ABSENT))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))  # rows ever stored
        self._filled = 0  # min(written, size), known without asking the device
        self.register_load_state_dict_post_hook(_count_again)  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return self._filled

    def contents(self) -> tuple[Tensor, Tensor] | None:
        """Return a copy of the stored (embeddings [M, dim], instances [M, labels]), or None if the memory is empty."""
        count = len(self)
        return (self.embeddings[:count].clone(), self.instances[:count].clone()) if count else None

    @torch.no_grad()
    def push(self, embeddings: Tensor, instances: Tensor) -> None:
        """Store rows [N, dim] with their photo numbers [N] or [N, L], over the oldest rows."""
        size = len(self.embeddings)
        if not size:
            return
        rows, shows = embeddings.detach()[-size:], instances[-size:]
        shows = shows if shows.ndim == 2 else shows[:, None]
        places = (self.written + torch.arange(len(rows), device=rows.device)) % size
        self.embeddings[places] = rows.to(self.embeddings.dtype)
        self.instances[places] = ABSENT
        self.instances[places, : shows.shape[1]] = shows
        self.written += len(rows)
        self._filled = min(size, self._filled + len(rows))


def _count_again(memory: nn.Module, _incompatible: object) -> None:
    assert isinstance(memory, Memory)
    memory._filled = min(int(memory.written), len(memory.embeddings))
