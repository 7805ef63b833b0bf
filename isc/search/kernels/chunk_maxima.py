"""The best score of every query among every chunk of 64 references: all that the first pass of a GPU writes.

    maximum(q, chunk) = max over the references r of the chunk of q·r − ‖q‖²/2 − ‖r‖²/2

With 64 references a chunk this is 1/64 of the scores, so that the pass is bound by its products and not by memory.
torch is imported inside functions alone, for whoever chooses it or has a GPU.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 64  # references of one maximum
TILE = 128  # the number of rows of an operand is a multiple of it
WIDEST = 256  # numbers of a vector that the kernel holds at once
CELLS = {"cpu": 1 << 22, "cuda": 1 << 28}  # scores that torch makes at a time
LARGE = (9, 10)  # compute capabilities with the 200 KB of fast memory a processor that the kernel takes


def padded_dim(dim: int) -> int:
    """Return the length of an operand's rows: a power of two from 16 on, beyond WIDEST a multiple of it."""
    return -(-dim // WIDEST) * WIDEST if dim > WIDEST else max(16, 1 << (dim - 1).bit_length())


def chunk_maxima(queries: Tensor, query_half: Tensor, references: Tensor, reference_half: Tensor, out: Tensor) -> None:
    """Write the maxima into `out` float32 [Q, R / 64], which may be a slice of columns; nothing waits for a GPU.

    queries [Q, D] and references [R, D] are float16, bfloat16 or float32, with products added in float32; D is as
    `padded_dim` gives it, R a multiple of TILE. The halves, float32 [Q] and [R], hold ‖v‖²/2, +∞ for a row that is
    none.
    """
    if queries.element_size() == 2 and _by_triton(str(queries.device)):
        from isc.search.kernels.triton_maxima import launch

        launch(queries, query_half, references, reference_half, out)
        return
    maxima_by_torch(queries, query_half, references, reference_half, out)


def maxima_by_torch(
    queries: Tensor, query_half: Tensor, references: Tensor, reference_half: Tensor, out: Tensor
) -> None:
    """Compute what `chunk_maxima` does with torch's own products, CELLS scores at a time."""
    step = max(1, CELLS.get(queries.device.type, CELLS["cuda"]) // len(references))
    side = references if queries.is_cuda and queries.element_size() == 2 else references.float()
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        score = _product(queries[rows], side)
        score -= query_half[rows, None]
        score -= reference_half
        out[rows] = score.view(len(score), -1, CHUNK).amax(dim=2)


def _product(queries: Tensor, references: Tensor) -> Tensor:
    """Return q·r in float32 [Q, R]."""
    import torch

    if references.element_size() == 2:
        return torch.mm(queries, references.T, out_dtype=torch.float32)
    return queries.float() @ references.T


@functools.cache
def _by_triton(device: str) -> bool:
    """Return whether the kernel runs there: on a GPU with Triton and room for it, or where Triton is interpreted."""
    import torch

    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    if not device.startswith("cuda"):
        return os.environ.get("TRITON_INTERPRET") == "1"
    return torch.cuda.get_device_capability(device)[0] in LARGE
