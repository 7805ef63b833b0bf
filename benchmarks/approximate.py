"""Approximate search compared with exact search on the same vectors: recall, time and bytes.

    python -m benchmarks.approximate [--descriptors PHOTOS.h5] [--references 200000]

Recall on random vectors means nothing, and a million photos are not available. So `Photos` makes any number of
descriptors from real ones, and copies that are as far from their photos as AugLy's edits were.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import isc
from benchmarks import save, seconds
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_descriptors
from isc.data.matches import Matches
from isc.search.approximate.files import build_on_disk, load
from isc.search.approximate.index import Approximate
from isc.search.approximate.pairs import approximate_pairs
from isc.search.exact import best_pairs, nearest

ROOT = Path(__file__).parent.parent
SAMPLE = Path(isc.__file__).parent / "sample"
NUM_QUERIES, K = 1000, 10
# with this value, made descriptors are as far from their nearest neighbour as the 17,381 real ones: the median of the
# squared distance is 0.9
SPREAD = 0.75
# squared distances between 600 of AugLy's copies and their photos, by isc_small: (share of the copies, distance)
COPIES = ((0, 0.01), (0.05, 0.09), (0.1, 0.15), (0.25, 0.31), (0.5, 0.62), (0.75, 0.97), (0.9, 1.31), (1, 1.82))
PART = {"training": slice(0, 2), "references": slice(2, 9), "distractors": slice(9, 10)}  # tenths of the real photos

Vectors = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Photos:
    """Real descriptors [n, D] of unit length and the 16 neighbours of each [n, 16], from which others are made.

    A made descriptor lies between a real one and one of its 16 neighbours, at most half way. It is then moved by SPREAD
    times the difference of two random real descriptors divided by √2, which has the covariance of the real set, and
    scaled to length 1.
    """

    vectors: Vectors
    neighbours: Pairs

    @classmethod
    def of(cls, vectors: Vectors, part: str) -> Photos:
        tenths = PART[part]
        chosen = vectors[np.isin(np.arange(len(vectors)) % 10, np.arange(10)[tenths])]
        return cls(chosen, nearest(chosen, chosen, k=min(17, len(chosen)))[0][:, 1:])

    def make(self, rows: int, *, seed: int) -> Iterator[Vectors]:
        """Yield blocks of at most 65,536 made descriptors, `rows` in all.

        With the same seed, the first rows of a longer run are those of a shorter one.
        """
        for number, start in enumerate(range(0, rows, 1 << 16)):
            rng = np.random.default_rng([seed, number])
            count = 1 << 16
            near, one, two = rng.integers(len(self.vectors), size=(3, count))
            other = self.neighbours[near, rng.integers(self.neighbours.shape[1], size=count)]
            share = rng.uniform(0, 0.5, size=(count, 1)).astype(np.float32)
            moved = np.float32(SPREAD / 2**0.5) * (self.vectors[one] - self.vectors[two])
            yield unit((1 - share) * self.vectors[near] + share * self.vectors[other] + moved)[: rows - start]

    def copies(self, originals: Vectors, *, seed: int) -> Vectors:
        """Return one copy of each original [n, D].

        Its squared distance is drawn from COPIES; its direction is the difference of two random real descriptors.
        """
        rng = np.random.default_rng(seed)
        distance = np.interp(rng.uniform(size=(len(originals), 1)), *zip(*COPIES, strict=True))
        one = rng.integers(len(self.vectors), size=len(originals))
        two = (one + rng.integers(1, len(self.vectors), size=len(originals))) % len(self.vectors)  # another photo
        away = (self.vectors[one] - self.vectors[two]).astype(np.float64)
        away = unit(away - np.einsum("nd,nd->n", away, originals)[:, None] * originals)
        cosine = 1 - distance / 2  # ‖q − r‖² = 2 − 2 cos
        return unit(cosine * originals + np.sqrt(1 - cosine**2) * away)


def real_descriptors(path: Path | None) -> Vectors:
    """Return the descriptors of a file; without a path, those of the sample photos by isc_small."""
    if path is not None:
        return read_descriptors(path).vectors
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "sample.h5"
        command = [sys.executable, str(ROOT / "extract.py"), f"images={SAMPLE}", f"output={output}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return read_descriptors(output).vectors


def queries_of(real: Vectors, references: Vectors, number: int = NUM_QUERIES) -> tuple[Vectors, Pairs]:
    """Return `number` queries, and the reference rows of the copies among them.

    The first half are copies of evenly spaced references, the others are photos without a copy.
    """
    photos = Photos.of(real, "distractors")
    originals = np.linspace(0, len(references) - 1, number // 2).astype(np.int64)
    others = np.concatenate(list(photos.make(number - len(originals), seed=3)))
    return np.concatenate([photos.copies(references[originals], seed=4), others]), originals


def named(vectors: Vectors, letter: str) -> Descriptors:
    return Descriptors([f"{letter}{row:07}" for row in range(len(vectors))], vectors)


def say(what: str, since: float) -> None:
    print(f"{time.perf_counter() - since:6.0f} s  {what}", flush=True)


def trials(lists: int) -> dict[str, list[tuple[str, int]]]:
    """Return the searches for each factory text of faiss: (search options, candidates ranked again per neighbour).

    With 0 candidates nothing is ranked again, and the distances are those of the codes.
    """
    few, more, many = (f"nprobe={max(1, lists // share)}" for share in (64, 16, 4))
    return {
        f"IVF{lists},Flat": [(few, 0), (more, 0), (many, 0)],
        f"IVF{lists},SQ8": [(more, 0)],
        f"IVF{lists},PQ32np": [(more, 0), (few, 4), (more, 4), (many, 4)],
        f"OPQ32,IVF{lists},PQ32np": [(more, 0), (few, 4), (more, 4)],
        f"IVF{lists},PQ64x4fsr": [(more, 0), (more, 4), (many, 16)],
        "PQ32x4fs": [("", 0), ("", 4), ("", 16)],
        "SQ8": [("", 0)],
        "HNSW32": [("efSearch=32", 0), ("efSearch=128", 0)],
    }


@dataclass(frozen=True)
class SearchResult:
    """The shares (0…1) of the exact answers that one search found, and its time in seconds."""

    first: float
    first_k: float
    copies: float
    pairs: float
    seconds: float


@dataclass(frozen=True)
class Trial:
    """Queries and references of all searches, the rows of the copies' originals [C], and the exact answers.

    `row` [Q, K] holds the nearest references of each query, `best` the best pairs of all queries together.
    """

    queries: Descriptors
    references: Descriptors
    originals: Pairs
    row: Pairs
    best: Matches
    exact: SearchResult

    @classmethod
    def of(cls, queries: Vectors, references: Vectors, originals: Pairs) -> Trial:
        row, _ = nearest(queries, references, k=K)
        took = seconds(lambda: nearest(queries, references, k=K), repeats=3)
        copies = float((row[: len(originals)] == originals[:, None]).any(axis=1).mean())
        sets = named(queries, "Q"), named(references, "R")
        best = best_pairs(*sets, num_pairs=K * len(queries))
        return cls(*sets, originals, row, best, SearchResult(1, 1, copies, 1, took))

    def ask(self, index: Approximate, search: str, *, again: int) -> SearchResult:
        queries, references = self.queries.vectors, self.references.vectors

        def once() -> tuple[Pairs, Pairs, npt.NDArray[np.float64]]:
            given = references if again else None
            return index.knn(queries, k=K, search=search, vectors=given, factor=max(1, again))

        query, row, _ = once()
        found, offset = query * len(references) + row, np.arange(len(queries)) * len(references)
        first = found[np.r_[True, query[1:] != query[:-1]]]
        factor = max(1, again)  # the best pairs are always ranked again
        pairs = approximate_pairs(
            self.queries, self.references, index=index, num_pairs=len(self.best), search=search, factor=factor
        )
        return SearchResult(
            float(np.isin(offset + self.row[:, 0], first).mean()),
            float(np.isin(offset[:, None] + self.row, found).mean()),
            float(np.isin(offset[: len(self.originals)] + self.originals, found).mean()),
            float(np.isin(self.best.keys(), pairs.keys()).mean()),
            seconds(once, repeats=3),
        )

    def told(self, found: SearchResult, *, size: float) -> dict[str, object]:
        """Return the measured columns of the table; `size` is in bytes."""
        return {
            "recall@1": f"{found.first:.3f}",
            f"recall@{K}": f"{found.first_k:.3f}",
            f"copies in {K}": f"{found.copies:.3f}",
            f"best {len(self.best):,} pairs": f"{found.pairs:.3f}",
            "ms a query": f"{1000 * found.seconds / len(self.queries):.3f}",
            "exact search = 1": f"{found.seconds / self.exact.seconds:.3f}",
            "bytes an image": f"{size / len(self.references):.0f}",
        }


def measured(trial: Trial, training: Vectors, lists: int, began: float) -> Iterator[dict[str, object]]:
    """Yield a row for each search of each index, loaded as a memory map.

    IVF…,PQ32np is measured a second time, with its lists on disk.
    """
    references = trial.references.vectors
    for factory, searches in trials(lists).items():
        start = time.perf_counter()
        empty = Approximate.train(factory, training)
        trained = time.perf_counter() - start
        for place in ("", " on disk") if factory.startswith("IVF") and factory.endswith("np") else ("",):
            with tempfile.TemporaryDirectory() as folder:
                path, start = Path(folder) / "index", time.perf_counter()
                if place:
                    blocks = (references[at : at + 50_000] for at in range(0, len(references), 50_000))
                    build_on_disk(path, Approximate.train(factory, training), blocks, memory_gb=0.005)
                    built = time.perf_counter() - start
                else:
                    empty.add(references)
                    built = trained + time.perf_counter() - start
                    empty.save(path)
                size = sum(file.stat().st_size for file in path.iterdir())
                index = load(path)
                for search, again in searches:
                    what = {"index": factory + place, "search": search, "ranked again": f"{again} ×" if again else ""}
                    told = trial.told(trial.ask(index, search, again=again), size=size)
                    yield what | told | {"built in s": f"{built:.0f}"}
        say(factory, began)


def made_beside_real(real: Vectors) -> list[dict[str, object]]:
    """Return the recall on real descriptors and on as many made ones, in indexes of the same kind.

    The queries are photos without a copy; recall counts the ten nearest references of each.
    """
    parts = {part: Photos.of(real, part) for part in PART}
    made = {
        part: np.concatenate(list(photos.make(len(photos.vectors), seed=seed)))
        for seed, (part, photos) in enumerate(parts.items(), 1)
    }
    rows: list[dict[str, object]] = []
    for name, sets in (("real", {part: photos.vectors for part, photos in parts.items()}), ("made", made)):
        queries, references = sets["distractors"], sets["references"]
        lists = max(1, min(64, len(sets["training"]) // 39))
        index = Approximate.train(f"IVF{lists},Flat", sets["training"])
        index.add(references)
        true, distance = nearest(queries, references, k=K)
        row: dict[str, object] = {"descriptors": name, "references": f"{len(references):,}"}
        row["‖q − r‖² to the nearest, median"] = f"{np.median(distance[:, 0]):.3f}"
        for probes in sorted({max(1, lists // 16), max(1, lists // 4)}):
            query, found, _ = index.knn(queries, k=K, search=f"nprobe={probes}")
            here = np.isin(np.arange(len(queries))[:, None] * len(references) + true, query * len(references) + found)
            row[f"recall@{K}, {probes} of {lists} lists"] = f"{here.mean():.3f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptors", type=Path, help="of real photos, by isc_small; those of the sample if absent")
    parser.add_argument("--references", type=int, default=200_000)
    options = parser.parse_args()
    began = time.perf_counter()
    real = real_descriptors(options.descriptors)
    lists = 1 << round(np.log2(2 * options.references**0.5))
    training = np.concatenate(list(Photos.of(real, "training").make(40 * lists, seed=1)))
    references = np.concatenate(list(Photos.of(real, "references").make(options.references, seed=2)))
    save("approximate_made", made_beside_real(real))
    say(f"made {len(references):,} references of {len(real):,} real descriptors", began)
    queries, originals = queries_of(real, references)
    trial = Trial.of(queries, references, originals)
    say("searched exactly", began)
    exact: dict[str, object] = {"index": "exact", "search": "", "ranked again": ""}
    exact |= trial.told(trial.exact, size=references.nbytes) | {"built in s": ""}
    save("approximate", [exact, *measured(trial, training, lists, began)])


if __name__ == "__main__":
    main()
