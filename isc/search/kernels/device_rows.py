"""Vectors on a device: rounded operands for fast products, exact rows for the second look, and bounds of the rounding.

References come through two pinned buffers: one is copied to the GPU while the other is filled, and while the GPU
computes. Within `keeping_references` they stay on their devices for the next search.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.search.kernels.chunk_maxima import CHUNK, TILE, padded_dim
from isc.search.kernels.numpy_kernel import U32, expansion_error, gamma

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Vectors = npt.NDArray[np.float32]

PIECE = 1 << 23  # numbers of a pinned buffer, 32 MB
LONGEST = 6e4  # the largest length of a vector in float16
ADDITIONS = 1.1  # per product: those of a tensor core's accumulator beside the product's own


@dataclass
class Rows:
    """N vectors on a device, as an operand of products.

    vectors   float32 [M, D], the vectors; rows from N on are zero
    operand   [M, D'] in the product's type, rounded and padded by zeros
    half      float32 [M], ‖v‖²/2; +∞ from N on, so that no pair with such a row is near
    lengths   float32 [2]: the largest ‖v‖, and the largest ‖v − rounded v‖ so far
    """

    number: int
    vectors: Tensor
    operand: Tensor
    half: Tensor
    lengths: Tensor
    filled: int = 0

    @classmethod
    def empty(cls, number: int, dim: int, *, device: torch.device, kind: torch.dtype, multiple: int) -> Rows:
        import torch

        size = -(-number // multiple) * multiple
        return cls(
            number,
            torch.zeros(size, dim, device=device),
            torch.zeros(size, padded_dim(dim), device=device, dtype=kind),
            torch.full((size,), torch.inf, device=device),
            torch.zeros(2, device=device),
        )

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.vectors, self.operand, self.half))

    def put(self, first: int, values: Tensor) -> None:
        """Fill the rows from `first` on with float32 [n, D] of the same device, without waiting for it."""
        import torch

        rows = slice(first, first + len(values))
        self.vectors[rows] = values
        self.operand[rows, : values.shape[1]] = values
        self.half[rows] = (values * values).sum(dim=1) * 0.5
        rounded = self.operand[rows, : values.shape[1]].float()
        longest = (2 * self.half[rows].max()).sqrt()
        lost = (values - rounded).norm(dim=1).max()
        self.lengths = torch.maximum(self.lengths, torch.stack([longest, lost]))
        self.filled = rows.stop

    def ready(self, vectors: Vectors) -> Iterator[slice]:
        """Fill the rows from an array [N, D], and yield the ranges of rows, whole tiles, that may be multiplied.

        What is queued after a range is yielded sees it filled. Filled rows are yielded at once.
        """
        if self.filled == self.number:
            yield slice(0, len(self.vectors))
            return
        done = 0
        for first, values in _uploaded(vectors, self.vectors.device):
            self.put(first, values)
            end = len(self.vectors) if self.filled == self.number else self.filled // TILE * TILE
            if end > done:
                yield slice(done, end)
                done = end

    def take(self, rows: slice) -> Rows:
        """Return some of the rows, as views."""
        part = self.vectors[rows], self.operand[rows], self.half[rows]
        return Rows(len(part[0]), *part, self.lengths, len(part[0]))


def _uploaded(vectors: Vectors, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, rows on the device) of an array on disk or in memory, in pieces of whole tiles."""
    import torch

    step = max(1, PIECE // vectors.shape[1] // TILE) * TILE
    starts = range(0, len(vectors), step)
    if device.type != "cuda":
        for first in starts:
            yield first, torch.from_numpy(np.array(vectors[first : first + step], np.float32, order="C"))
        return
    copies: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    shape = (min(step, len(vectors)), vectors.shape[1])
    buffers = [(torch.empty(shape, pin_memory=True), torch.cuda.Event()) for _ in range(2)]  # type: ignore[no-untyped-call]
    for number, first in enumerate(starts):
        buffer, copied = buffers[number % 2]
        copied.synchronize()  # the copy before the last out of this buffer; at first nothing
        piece = vectors[first : first + step]
        there = buffer[: len(piece)]
        if piece.flags.writeable:
            there.copy_(torch.from_numpy(piece))  # by several threads
        else:
            np.copyto(there.numpy(), piece)  # torch warns about read-only memory maps
        with torch.cuda.stream(copies):
            values = there.to(device, non_blocking=True)
            copied.record(copies)
        computes = torch.cuda.current_stream(device)
        computes.wait_stream(copies)
        values.record_stream(computes)
        yield first, values


@dataclass(frozen=True)
class Bounds:
    """Bounds on |computed − true score|: of the chunks' maxima, and of scores in float32."""

    maxima: float
    float32: float


def bounds(queries: Rows, references: Rows) -> Bounds:
    """Return the bounds for these filled rows; the one wait for the device of a search's first pass.

    |q·r − q̃·r̃| ≤ ‖q − q̃‖ ‖r‖ + ‖q̃‖ ‖r − r̃‖ by Cauchy and Schwarz. A sum of D products errs by γ of its terms and of
    the additions of the accumulator: tensor cores add groups of products in float32 and may truncate (2u a term).
    Raises InputError if the vectors are too long for the arithmetic.
    """
    import torch

    a, lost_a, b, lost_b = (1.001 * x for x in torch.cat([queries.lengths, references.lengths]).tolist())
    if queries.operand.dtype == torch.float16 and not max(a, b) <= LONGEST:
        raise InputError(f"descriptors are {max(a, b):.1e} long; float16 expects at most {LONGEST:g}: use engine=torch")
    dim = queries.vectors.shape[1]
    exact = expansion_error(dim, a, b)
    product = lost_a * b + (a + lost_a) * lost_b
    terms = math.ceil(ADDITIONS * (dim + 4))
    return Bounds(product + gamma(terms, 2 * U32) * (a + lost_a + b + lost_b) ** 2 / 2, 2 * exact)


@dataclass
class _Kept:
    """References that stay on their devices, by (device, first row, rows): the array they came from, and the rows."""

    on: int = 0
    rows: dict[tuple[str, int, int, str], tuple[Vectors, Rows]] = field(default_factory=dict)


_KEPT = _Kept()


@contextlib.contextmanager
def keeping_references() -> Iterator[None]:
    """Keep references on their devices between the searches inside; their arrays must not change meanwhile."""
    _KEPT.on += 1
    try:
        yield
    finally:
        _KEPT.on -= 1
        if not _KEPT.on:
            _KEPT.rows.clear()


def kept_bytes(device: torch.device) -> int:
    """Return the bytes of the references that are kept on the device: a search reuses them, or takes their room."""
    return sum(rows.nbytes for key, (_, rows) in _KEPT.rows.items() if key[0] == str(device))


def reference_rows(
    vectors: Vectors, part: slice, *, device: torch.device, kind: torch.dtype, keep: bool = True
) -> Rows:
    """Return the rows of `part` of an array on the device: those of an earlier search if they are kept, else empty.

    `keep` says whether the device has room to keep them.
    """
    key = (str(device), part.start, part.stop, str(kind))
    known = _KEPT.rows.get(key)
    if known is not None and known[0] is vectors:
        return known[1]
    for other in [other for other in _KEPT.rows if other[0] == key[0]]:  # the room is for the newest
        if other == key or _KEPT.rows[other][0] is not vectors:
            del _KEPT.rows[other]
    made = Rows.empty(part.stop - part.start, vectors.shape[1], device=device, kind=kind, multiple=TILE)
    if _KEPT.on and keep:
        _KEPT.rows[key] = vectors, made
    return made


assert TILE % CHUNK == 0
