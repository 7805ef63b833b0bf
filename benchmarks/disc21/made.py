"""Made descriptors with the challenge's ids, and their ground truth, in the files that match.py takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.approximate import Pairs, Photos, Vectors
from isc.data.csv_files import write_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import write_descriptor_blocks

SEED = 21
QUERIES, REFERENCES = "queries.h5", "references.h5"
GROUND_TRUTH = "ground_truth.csv"


@dataclass(frozen=True)
class Size:
    """Numbers of queries and references; a fifth of the queries, at random places, copy different references."""

    queries: int
    references: int

    @property
    def copies(self) -> int:
        return self.queries // 5

    @property
    def pairs(self) -> int:
        """The predictions of either track: ten per query (500,000 in the challenge), or all pairs if fewer."""
        return min(10 * self.queries, self.queries * self.references)


def query_ids(count: int) -> list[str]:
    return [f"Q{number:05d}" for number in range(count)]


def reference_ids(rows: range) -> list[str]:
    return [f"R{number:06d}" for number in rows]


@dataclass(frozen=True)
class Plan:
    """The copied pairs: rows of queries [C] and of references [C], in the order of the references."""

    query: Pairs
    reference: Pairs

    @classmethod
    def of(cls, size: Size) -> Plan:
        rng = np.random.default_rng([SEED, 0])
        reference = np.sort(rng.choice(size.references, size.copies, replace=False))
        return cls(rng.permutation(size.queries)[: size.copies], reference)


def make(work: Path, size: Size, real: Vectors) -> None:
    """Write queries.h5, references.h5 and ground_truth.csv; the same bytes every time."""
    plan, provenance = Plan.of(size), {"model": "made", "weights_sha256": _digest(real)}
    originals = np.empty((size.copies, real.shape[1]), np.float32)
    write_descriptor_blocks(
        work / REFERENCES,
        _references(size, real, plan.reference, originals),
        rows=size.references,
        id_bytes=7,
        provenance=provenance,
    )
    blocks = _queries(size, real, plan.query, originals)
    write_descriptor_blocks(work / QUERIES, blocks, rows=size.queries, id_bytes=6, provenance=provenance)
    copied = dict(zip(plan.query.tolist(), reference_ids_of(plan.reference), strict=True))
    write_ground_truth(
        work / GROUND_TRUTH, [(name, copied.get(row, "")) for row, name in enumerate(query_ids(size.queries))]
    )


def reference_ids_of(rows: npt.NDArray[np.int64]) -> list[str]:
    return [f"R{row:06d}" for row in rows.tolist()]


def _references(size: Size, real: Vectors, copied: Pairs, originals: Vectors) -> Iterator[Descriptors]:
    """Yield the references in blocks, and write the vectors of the `copied` rows into `originals`."""
    start = 0
    for vectors in Photos.of(real, "references").make(size.references, seed=SEED):
        rows = range(start, start + len(vectors))
        here = slice(*np.searchsorted(copied, (rows.start, rows.stop)))
        originals[here] = vectors[copied[here] - start]
        yield Descriptors(reference_ids(rows), vectors)
        start = rows.stop


def _queries(size: Size, real: Vectors, places: Pairs, originals: Vectors) -> Iterator[Descriptors]:
    """Yield one block: the copies at `places`, and photos without a copy at all others."""
    photos = Photos.of(real, "distractors")
    vectors = np.concatenate(list(photos.make(size.queries, seed=SEED + 1)))
    vectors[places] = photos.copies(originals, seed=SEED + 2)
    yield Descriptors(query_ids(size.queries), vectors)


def _digest(real: Vectors) -> str:
    return hashlib.sha256(np.ascontiguousarray(real).tobytes()).hexdigest()
