"""The nearest other photos of each photo, which batches take as hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_rows(vectors: Tensor, count: int, *, block: int = 4096) -> Tensor:
    """The `count` < N nearest other rows of each of the unit vectors [N, D]: [N, count], nearest first."""
    found = []
    for first in range(0, len(vectors), block):
        similarity = vectors[first : first + block] @ vectors.T
        rows = torch.arange(len(similarity), device=vectors.device)
        similarity[rows, first + rows] = -torch.inf
        found.append(similarity.topk(count, dim=1).indices)
    return torch.cat(found)
