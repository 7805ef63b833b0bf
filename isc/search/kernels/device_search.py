"""Exact search on GPUs, or on a CPU by torch: one pass over all pairs that leaves the maxima of chunks alone.

    Let c be the Nth largest maximum of the chunks, and e the error bound of the maxima. The N chunks hold N distinct
    pairs with true scores of at least c − e, so the true Nth best score is at least c − e, every pair of the answer has
    a computed score of at least c − 2e, and so has its chunk. For the k best of each query the same holds in its row.

The chunks that remain are scored again in float32, by groups of queries that share a chunk; their pairs within the
bounds again in float64 from the differences, with additions in one order on every device (`squared_distances`). So the
answer is that of a CPU, byte for byte. The pass itself never waits for the host. Several GPUs share the references.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isc.errors import needing
from isc.search.kernels.chunk_maxima import CHUNK, TILE, chunk_maxima
from isc.search.kernels.device_rows import Bounds, Rows, bounds, kept_bytes, reference_rows
from isc.search.kernels.wanted import BestOfAll, BestOfEach, Pairs, Wanted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Vectors = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
Done = Callable[[int], None]

GROUP = 32  # queries that are scored against one chunk at a time
CANDIDATES = 1 << 20  # chunks that are scored again before the thresholds are raised
SHARES = {"references": 0.5, "maxima": 0.2, "groups": 0.1}  # of the memory
PAIRS = 1 << 18  # distances computed at a time


def cuda_devices() -> list[str]:
    """Return the names of the GPUs that torch sees; an empty list without torch."""
    try:
        import torch
    except ImportError:
        return []
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


@dataclass(frozen=True)
class Answer:
    """Pairs [M] in the order of the answer: query and reference rows, and squared distances."""

    query: Numbers
    reference: Numbers
    distance: Distances


class DeviceSearch:
    """Exact search on some devices; `half` multiplies in float16, and `memory` limits its bytes on a CPU."""

    def __init__(self, devices: list[str], *, half: bool, memory: int) -> None:
        with needing("engine=torch", extra="train"):
            import torch

        self._devices = [torch.device(name) for name in devices]
        self._kind = torch.float16 if half else torch.float32
        self._memory = memory

    def best_pairs(self, queries: Vectors, references: Vectors, *, num_pairs: int, done: Done | None = None) -> Answer:
        """Return the `num_pairs` nearest pairs, or all if there are fewer, by (distance, query, reference).

        queries [Q, D] and references [R, D]; `done` is called with further numbers of compared pairs. Raises InputError
        if the vectors are too long for the arithmetic.
        """
        return self._found(queries, references, BestOfAll(num_pairs), done)

    def nearest(self, queries: Vectors, references: Vectors, *, k: int, done: Done | None = None) -> Answer:
        """Return the `k` ≤ R nearest references of each query, by (query, distance, reference); as `best_pairs`."""
        return self._found(queries, references, BestOfEach(k), done)

    def _found(self, queries: Vectors, references: Vectors, wanted: Wanted, done: Done | None) -> Answer:
        shares = _shares(len(references), len(self._devices))
        searches = [
            _Search(device, self._kind, self._room(device), wanted, done or (lambda _: None))
            for device, _ in zip(self._devices, shares, strict=False)
        ]
        with _exact_products():
            if len(shares) == 1:
                best = searches[0].run(queries, references, shares[0])
            else:
                with ThreadPoolExecutor(len(shares)) as threads:
                    jobs = [
                        threads.submit(one.run, queries, references, part)
                        for one, part in zip(searches, shares, strict=True)
                    ]
                    found = [job.result() for job in jobs]
                best = found[0]
                for other in found[1:]:
                    best = wanted.settled(best.joined(other))
        return Answer(*(part.cpu().numpy() for part in (best.query, best.reference, best.distance)))

    def _room(self, device: torch.device) -> int:
        """Return the bytes that a search may use: on a GPU what is free, what torch holds unused, and kept references.

        So a search that follows another divides the references as that one did, and finds the kept ones.
        """
        import torch

        if device.type != "cuda":
            return self._memory
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused + kept_bytes(device)


def _shares(count: int, devices: int) -> list[slice]:
    """Divide `count` references into at most `devices` ranges of whole tiles, nearly equal."""
    each = max(1, -(-count // (devices * TILE))) * TILE
    return [slice(first, min(first + each, count)) for first in range(0, max(count, 1), each)]


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Disable TF32 and sums in reduced precision, as the bounds assume."""
    import torch

    flags = torch.backends.cuda.matmul
    names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    before = {name: getattr(flags, name) for name in names}
    for name in names:
        setattr(flags, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(flags, name, value)


@dataclass
class _Search:
    """A search on one device."""

    device: torch.device
    kind: torch.dtype
    room: int  # bytes
    wanted: Wanted
    done: Done

    def run(self, queries: Vectors, references: Vectors, part: slice) -> Pairs:
        """Return the best pairs with the references of `part`, numbered as in all references."""
        import torch

        # Triton launches on a thread's current device, whatever device the tensors are on
        with torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext():
            return self._best(queries, references, part)

    def _best(self, queries: Vectors, references: Vectors, part: slice) -> Pairs:
        import torch

        dim = queries.shape[1]
        sizes = torch.zeros(0, dtype=self.kind).element_size()
        each = max(TILE, int(SHARES["references"] * self.room) // ((4 + sizes) * dim + 4) // TILE * TILE)
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        best = Pairs(none, none, none.double())
        mine = self._queries(queries)
        keep = each >= part.stop - part.start  # several blocks have no room beside each other
        for first in range(part.start, part.stop, each):
            rows = slice(first, min(first + each, part.stop))
            block = reference_rows(references, rows, device=self.device, kind=self.kind, keep=keep)
            chunks = len(block.vectors) // CHUNK
            step = max(1, min(int(SHARES["maxima"] * self.room) // (6 * chunks), (1 << 30) // chunks))
            for start in range(0, len(queries), step):
                some = mine.take(slice(start, min(start + step, len(queries))))
                best = self._block(some, block, references[rows], best, first=start, column=first)
            del block  # before the next takes its place
        return best

    def _queries(self, queries: Vectors) -> Rows:
        """Return the queries on the device."""
        rows = Rows.empty(len(queries), queries.shape[1], device=self.device, kind=self.kind, multiple=1)
        for _ in rows.ready(queries):
            pass
        return rows

    def _block(self, queries: Rows, block: Rows, vectors: Vectors, best: Pairs, *, first: int, column: int) -> Pairs:
        """Return `best` with the pairs of these queries, from row `first` on, and references, from `column` on."""
        import torch

        maxima = torch.empty(len(queries.vectors), len(block.vectors) // CHUNK, device=self.device)
        for rows in block.ready(vectors):
            out = maxima[:, rows.start // CHUNK : rows.stop // CHUNK]
            part = block.take(rows)
            chunk_maxima(queries.operand, queries.half, part.operand, part.half, out)
            self.done(queries.number * min(rows.stop, block.number) - queries.number * min(rows.start, block.number))
        limits = bounds(queries, block)
        least = self.wanted.of_chunks(maxima).expand(queries.number)
        known, late = self.wanted.of_settled(best, first, queries.number)
        passing = _lowered(torch.maximum(least, known), 2 * limits.maxima)
        row, chunk = (maxima >= passing[:, None]).nonzero(as_tuple=True)
        score = maxima[row, chunk]
        del maxima
        for start in range(0, len(row), CANDIDATES):
            piece = slice(start, start + CANDIDATES)
            some, where, reached = row[piece], chunk[piece], score[piece]
            if len(best):
                known, late = self.wanted.of_settled(best, first, queries.number)
                high = reached >= _lowered(torch.maximum(least, known), 2 * limits.maxima)[some]
                stays = (high & (where * CHUNK + column < late[some])).nonzero()[:, 0]
                some, where = some[stays], where[stays]
            bar = _lowered(torch.maximum(least, known), limits.maxima + limits.float32)
            found = self._pairs(queries, block, some, where, bar=bar, limits=limits)
            if len(found):
                best = self.wanted.settled(
                    best.joined(Pairs(found.query + first, found.reference + column, found.distance))
                )
        return best

    def _pairs(self, queries: Rows, block: Rows, row: Tensor, chunk: Tensor, *, bar: Tensor, limits: Bounds) -> Pairs:
        """Return the pairs of these queries and chunks that may belong to the answer, with exact distances."""
        import torch

        parts = [
            _reaching(queries, block, slots, chunks, bar) for slots, chunks in self._groups(queries, block, row, chunk)
        ]
        none = row[:0]
        at, column, score = (
            (torch.cat(part) for part in zip(*parts, strict=True)) if parts else (none, none, none.float())
        )
        least = self.wanted.of_pairs(at, score, queries.number).expand(queries.number)
        high = (score >= _lowered(least, 2 * limits.float32)[at]).nonzero()[:, 0]
        at, column = at[high], column[high]
        return Pairs(at, column, distances(queries.vectors, block.vectors, at, column))

    def _groups(self, queries: Rows, block: Rows, row: Tensor, chunk: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield groups of candidates that share a chunk: rows [G, GROUP], Q where there is none, and chunks [G].

        Their number is bounded by what the host knows, so that it need not ask the device.
        """
        import torch

        order = torch.argsort(chunk, stable=True)
        row, chunk = row[order], chunk[order]
        rank = torch.arange(len(chunk), device=chunk.device) - torch.searchsorted(chunk, chunk)
        group = (rank % GROUP == 0).cumsum(0) - 1
        count = min(len(row), len(row) // GROUP + len(block.vectors) // CHUNK)
        slots = torch.full((count, GROUP), queries.number, device=row.device)
        slots[group, rank % GROUP] = row
        chunks = torch.zeros(count, dtype=torch.int64, device=row.device)
        chunks[group] = chunk
        dim = queries.vectors.shape[1]
        each = 4 * ((GROUP + CHUNK) * dim + 4 * GROUP * CHUNK)
        step = max(1, int(SHARES["groups"] * self.room) // each)
        yield from zip(torch.split(slots, step), torch.split(chunks, step), strict=True)


def _reaching(queries: Rows, block: Rows, slots: Tensor, chunks: Tensor, bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, columns and float32 scores of the pairs of some groups that reach the bar [Q] of their query."""
    import torch

    real = slots < queries.number
    at = torch.where(real, slots, 0)
    references = block.vectors.view(-1, CHUNK, block.vectors.shape[1])[chunks]
    score = torch.bmm(queries.vectors[at], references.transpose(1, 2))
    score -= queries.half[at][:, :, None]
    score -= block.half.view(-1, CHUNK)[chunks][:, None, :]
    high = (score >= torch.where(real, bar[at], torch.inf)[:, :, None]) & (score > -torch.inf)
    group, slot, place = high.nonzero(as_tuple=True)
    return slots[group, slot], chunks[group] * CHUNK + place, score[group, slot, place]


def _lowered(score: Tensor, by: float) -> Tensor:
    """Return float32 bounds just below score − by."""
    import torch

    low = (score.double() - by).float()
    return torch.nextafter(low, torch.full_like(low, -torch.inf))


def distances(queries: Tensor, references: Tensor, query: Tensor, reference: Tensor) -> Tensor:
    """Return ‖q − r‖² of the given pairs [M] in float64, with the bits of `numpy_kernel.squared_distances`."""
    import torch

    parts: list[Any] = [torch.zeros(0, dtype=torch.float64, device=queries.device)]
    for one, two in zip(torch.split(query, PAIRS), torch.split(reference, PAIRS), strict=True):
        square = queries[one].double()
        square -= references[two].double()
        square *= square
        width = square.shape[1]
        while width > 1:
            half = (width + 1) // 2
            square[:, : width - half] += square[:, half:width]
            width = half
        parts.append(square[:, 0])
    return torch.cat(parts)
