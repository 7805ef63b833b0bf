"""The torch kernel: matrix products, on GPUs by their tensor cores. torch is imported only when a kernel is made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from isc.errors import InputError, needing
from isc.search.kernels.numpy_kernel import U32, Indices, Scores, Tile, Vectors, expansion_error, gamma

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 256  # references whose best score is compared first


def cuda_devices() -> list[str]:
    """Return the names of the GPUs that torch sees; an empty list without torch."""
    try:
        import torch
    except ImportError:
        return []
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


class TorchKernel:
    """Kernel with one worker per device.

    float16 and bfloat16 filter with a margin for their rounding; pairs that pass are scored again in float32, so that
    `Tile.error` is that of float32 with every dtype.
    """

    def __init__(self, devices: list[str], *, dtype: str, cells: int) -> None:
        with needing("engine=torch", extra="train"):
            import torch

        self._torch = torch
        self._devices = [torch.device(name) for name in devices]
        self._type: torch.dtype = getattr(torch, dtype)
        self._cells = cells
        self.workers = len(devices)
        self.columns = max(CHUNK, min(65536, cells // 4096 // CHUNK * CHUNK))

    @contextlib.contextmanager
    def session(self, _workers: int) -> Iterator[None]:
        """Disable TF32 and sums in reduced precision, as `_rounding` assumes."""
        flags = self._torch.backends.cuda.matmul
        names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
        before = {name: getattr(flags, name) for name in names}
        for name in names:
            setattr(flags, name, False)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(flags, name, value)

    def load(self, queries: Vectors) -> None:
        self._queries = [Operand.of(self._torch, queries, device, self._type, +1) for device in self._devices]

    def rows(self, columns: int) -> int:
        return max(1, self._cells // (-(-columns // CHUNK) * CHUNK))

    def prepare(self, references: Vectors, worker: int) -> Operand:
        return Operand.of(self._torch, references, self._devices[worker], self._type, -1)

    def tile(self, queries: slice, prepared: Operand, worker: int) -> Tile:
        torch, side = self._torch, self._queries[worker].take(queries)
        error = expansion_error(side.vectors.shape[1], side.length, prepared.length)
        return TorchTile(torch, side.operand @ prepared.operand.T, side, prepared, error, _rounding(side, prepared))


@dataclass
class Operand:
    """Vectors [N, D] on a device, and their operand [N, D + 4] in a product that gives complete scores.

    The operand is (q, h, h', 1, 1) for queries and (r, −1, −1, −h, −h') for references, with ‖·‖²/2 = h + h', each in
    the product's dtype.
    """

    vectors: Tensor
    half: Tensor
    operand: Tensor
    length: float  # the largest ‖v‖
    residue: float  # the largest ‖v − rounded v‖
    lost: float  # the largest error of h + h'

    @classmethod
    def of(cls, torch: ModuleType, vectors: Vectors, device: Any, kind: Any, sign: int) -> Operand:
        values = torch.from_numpy(np.require(vectors, requirements=["C", "W"])).to(
            device
        )  # torch warns about read-only memory maps
        half = (values * values).sum(dim=1) * 0.5
        length = float((2 * half.max().double()).sqrt())
        if kind == torch.float16 and not length <= 150:
            raise InputError(f"descriptors are {length:.1e} long; float16 expects at most 150: use another engine")
        rounded, high = values.to(kind), half.to(kind)
        low = (half - high.float()).to(kind)
        one = torch.ones_like(high)
        parts = (high, low, one, one) if sign > 0 else (-one, -one, -high, -low)
        operand = torch.cat([rounded, torch.stack(parts, dim=1)], dim=1)
        padding = (-len(values) % CHUNK if sign < 0 else 0, -operand.shape[1] % 8)
        if any(padding):
            operand = torch.nn.functional.pad(operand, (0, padding[1], 0, padding[0]))
        if padding[0]:
            operand[len(values) :, values.shape[1] + 2] = -6e4  # no pair with a padding row is near
        residue = (values - rounded.float()).norm(dim=1).max()
        lost = (half - high.float() - low.float()).abs().max()
        return cls(values, half, operand, length, 1.001 * float(residue), 1.001 * float(lost))

    def take(self, rows: slice) -> Operand:
        part = self.vectors[rows], self.half[rows], self.operand[rows]
        return Operand(*part, self.length, self.residue, self.lost)


def _rounding(queries: Operand, references: Operand) -> float:
    """Return a bound on |product of rounded operands − float32 score|, before the product itself is rounded.

    |q·r − q̃·r̃| ≤ ‖q − q̃‖ ‖r‖ + ‖q̃‖ ‖r − r̃‖ by Cauchy and Schwarz; plus the error of h + h'; plus the error of a
    sum of D + 4 products, which tensor cores add in float32 and may truncate instead of rounding (2u per term).
    """
    a, b = queries, references
    product = a.residue * b.length + (a.length + a.residue) * b.residue + a.lost + b.lost
    longest = a.length + a.residue + b.length + b.residue
    return product + gamma(a.operand.shape[1] + 3, 2 * U32) * longest**2 / 2


@dataclass
class TorchTile:
    """Scores [n, m] in the product's dtype; m is padded to whole chunks with pairs that reach no threshold."""

    torch: ModuleType
    scores: Tensor
    queries: Operand
    references: Operand
    error: float
    rounding: float

    def nth(self, count: int) -> float | None:
        scores = self.scores[:, : len(self.references.vectors)].reshape(-1)
        if count > scores.numel():
            return None
        return float(self._surely(scores.topk(count, sorted=False).values.min().item()))

    def nth_of_rows(self, count: int) -> Scores | None:
        columns = len(self.references.vectors)
        if count > columns:
            return None
        least = self.scores[:, :columns].float().topk(count, dim=1, sorted=False).values.amin(dim=1)
        return np.asarray(self._surely(least.cpu().numpy()), np.float32)

    def _surely(self, score: Any) -> Any:
        """Return a lower bound of the float32 score whose rounded value is `score`."""
        unit = self.torch.finfo(self.scores.dtype).eps / 2
        return score - abs(score) * 2 * unit - self.rounding - 2 * self.error

    def above(self, least: Scores) -> tuple[Indices, Indices, Scores]:
        torch, scores = self.torch, self.scores
        bound = torch.from_numpy(least - np.float32(self.rounding + 2 * self.error)).to(scores.dtype)
        # rounding is monotonic: a score that reaches `bound` still reaches it when both are rounded; the bound is one
        # step lower, because a device may not round to the nearest
        bound = torch.nextafter(bound, torch.full_like(bound, -torch.inf))
        bound = bound.clamp(min=-torch.finfo(scores.dtype).max).to(scores.device)
        chunks = scores.view(len(scores), -1, CHUNK)
        row, chunk = (chunks.amax(dim=2) >= bound[:, None]).nonzero(as_tuple=True)
        hit, at = (chunks[row, chunk] >= bound[row, None]).nonzero(as_tuple=True)
        row, column = row[hit], chunk[hit] * CHUNK + at
        real = column < len(self.references.vectors)
        row, column = row[real], column[real]
        return row.cpu().numpy(), column.cpu().numpy(), self._float32(row, column).cpu().numpy()

    def _float32(self, row: Tensor, column: Tensor) -> Tensor:
        parts = [
            (self.queries.vectors[r] * self.references.vectors[c]).sum(dim=1)
            - self.queries.half[r]
            - self.references.half[c]
            for r, c in zip(self.torch.split(row, 1 << 20), self.torch.split(column, 1 << 20), strict=True)
        ]
        return self.torch.cat(parts) if parts else self.queries.half[:0]
