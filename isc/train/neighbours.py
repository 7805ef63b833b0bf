"""The nearest other photos of each photo, used as hard negatives in batches."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_rows(vectors: Tensor, count: int, *, block: int = 4096) -> Tensor:
    """Return the rows [N, count] of the `count` < N nearest other vectors of each unit vector [N, D], nearest first.

    This is not `isc.search.exact.nearest`, which may load faiss: its OpenMP must not meet torch's in one process.
    """
    found = []
    for first in range(0, len(vectors), block):
        similarity = vectors[first : first + block] @ vectors.T
        rows = torch.arange(len(similarity), device=vectors.device)
        similarity[rows, first + rows] = -torch.inf
        found.append(similarity.topk(count, dim=1).indices)
    return torch.cat(found)
