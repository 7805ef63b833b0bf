"""The chunk maxima in Triton, for NVIDIA GPUs: the scores stay in registers, and only their maxima are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 64  # references of one maximum
WIDEST, PART = 256, 64  # numbers of a vector that a program holds at once: all, or a part of a longer one
# of one product; with WARPS and STAGES no register is kept in memory (tests/test_device_search.py compiles it)
QUERIES, REFERENCES = 128, 128
STRIP = 16  # products of a program, one after the other, with the same queries
WARPS, STAGES = 8, 2


# fmt: off
@triton.jit  # type: ignore[untyped-decorator]
def maxima_kernel(  # type: ignore[no-untyped-def]  # noqa: ANN201, PLR0917
    queries, references, query_half, reference_half, out, num_queries, num_references, out_stride,  # noqa: ANN001
    DIM: tl.constexpr, BLOCK: tl.constexpr, Q: tl.constexpr, R: tl.constexpr,  # noqa: N803
    CHUNK: tl.constexpr, STRIP: tl.constexpr,  # noqa: N803
):
    """Write the largest q·r − ‖q‖²/2 − ‖r‖²/2 of each query and chunk of references, for STRIP tiles of references.

    Vectors are rows of DIM numbers, a multiple of BLOCK; `num_references` is a multiple of R.
    """
    row = tl.program_id(0) * Q + tl.arange(0, Q)
    inside = row < num_queries
    step = tl.arange(0, BLOCK)
    at = queries + row.to(tl.int64)[:, None] * DIM + step[None, :]
    mine = tl.load(query_half + row, mask=inside, other=0.0)
    if DIM == BLOCK:
        q = tl.load(at, mask=inside[:, None], other=0.0)
    for number in tl.range(0, STRIP):
        tile = tl.minimum(tl.program_id(1) * STRIP + number, num_references // R - 1)  # the last one again, at the end
        column = tile * R + tl.arange(0, R)
        there = references + column.to(tl.int64)[None, :] * DIM + step[:, None]
        if DIM == BLOCK:
            score = tl.dot(q, tl.load(there), input_precision="ieee")
        else:
            score = tl.zeros([Q, R], tl.float32)
            for start in tl.range(0, DIM, BLOCK):
                part = tl.load(at + start, mask=inside[:, None], other=0.0)
                score = tl.dot(part, tl.load(there + start), score, input_precision="ieee")
        score = score - tl.load(reference_half + column)[None, :] - mine[:, None]
        best = tl.max(tl.reshape(score, [Q, R // CHUNK, CHUNK]), axis=2)
        chunk = tile * (R // CHUNK) + tl.arange(0, R // CHUNK)
        place = out + row.to(tl.int64)[:, None] * out_stride + chunk[None, :]
        tl.store(place, best, mask=inside[:, None])

# fmt: on


def launch(queries: Tensor, query_half: Tensor, references: Tensor, reference_half: Tensor, out: Tensor) -> None:
    """Queue the kernel for queries [Q, D] and references [R, D] on a GPU; `out` float32 [Q, R / CHUNK] may be a slice.

    D is a power of two up to WIDEST, or a multiple of it; R a multiple of REFERENCES.
    """
    num_queries, dim = queries.shape
    grid = (-(-num_queries // QUERIES), -(-len(references) // (REFERENCES * STRIP)))
    maxima_kernel[grid](
        queries, references, query_half, reference_half, out, num_queries, len(references), out.stride(0),
        **constants(dim), num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip


def constants(dim: int) -> dict[str, Any]:
    """Return the compile-time constants of the kernel for vectors of `dim` numbers."""
    sizes = {"Q": QUERIES, "R": REFERENCES, "CHUNK": CHUNK, "STRIP": STRIP}
    return sizes | {"DIM": dim, "BLOCK": dim if dim <= WIDEST else PART}
