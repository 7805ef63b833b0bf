"""Approximate Euclidean search by faiss's own `index_factory` texts: IVF, PQ, HNSW, and what they are combined to.

An index is trained on training descriptors, filled with references, and searched, or saved as a folder:

    index.json      what it is made of, and the size and SHA-256 of the files beside it
    index.faiss     faiss's own file, opened as a memory map
    lists.ivfdata   inverted lists that were larger than memory when they were built (`build_on_disk`)

Only files that are as they were written reach faiss, which a damaged one can crash. A list that an index gives may lack
true neighbours; the distances of those it does give are exact where the vectors are at hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from isc import __version__
from isc.config import Device
from isc.descriptors import Descriptors, Matches, non_finite_row
from isc.errors import InputError
from isc.io import atomic_folder, check_same_dim, write_json
from isc.progress import Report
from isc.search.faiss_kernel import faiss_gpus
from isc.search.kernels import squared_distances

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Distances = npt.NDArray[np.float64]
Lists = tuple[Indices, Indices, Distances]

FORMAT = "isc-approximate-1"
CARD, INDEX, LISTS = "index.json", "index.faiss", "lists.ivfdata"
BLOCK = 1 << 16  # rows that go to faiss at once
QUERIES, CELLS = 1024, 1 << 22  # queries, and (query, candidate) cells, that are searched at once
SAMPLED = 64  # rows of each doubling of a set that tell it from another
ENOUGH = 39  # training rows for each centroid below which faiss warns
FACTOR = 4  # candidates, for each neighbour wanted, whose distances are computed again
ROW_ID = 8  # bytes, beside a code in an inverted list


@dataclass(frozen=True)
class Card:
    """What an index is made of: `count` references of `dim` numbers, known by a hash over some of their rows."""

    factory: str
    dim: int
    count: int
    seed: int
    training_sha256: str
    references_sha256: str


class Approximate:
    """An index that fills up: not a frozen value, since a second one may not fit in memory. One thread at a time."""

    def __init__(self, index: Any, card: Card, *, sealed: str = "", on_gpu: bool = False) -> None:
        """`sealed` says why the index takes no more references, where it does not."""
        self._index, self._card, self._sealed, self._on_gpu = index, card, sealed, on_gpu
        self._sample = hashlib.sha256()
        self._space = _faiss().GpuParameterSpace() if on_gpu else _faiss().ParameterSpace()
        self._defaults = dict(self._accepted())

    @classmethod
    def train(cls, factory: str, training: Vectors, *, seed: int = 0) -> Approximate:
        """An empty index. `factory` is faiss's, for example OPQ32,IVF4096,PQ32 or HNSW32; or CAGRA, CAGRA64 (the edges
        of a node) in a build of faiss with cuVS.

        `training` [T, D] must not be the references: the challenge wants statistics from training descriptors alone.
        The same seed, threads and faiss give the same index, but for graphs, which several threads build as they come.
        Raises InputError for a text that faiss does not know, and for fewer rows than it has centroids.
        """
        training = _checked("training", training)
        dim = training.shape[1]
        lists = re.search(r"IVF(\d+)", factory)
        if lists and not 1 <= int(lists[1]) <= len(training):  # before faiss makes room for them
            raise InputError(
                f"index={factory}: {lists[1]} lists from {len(training)} training descriptors; "
                f"expected 1…{len(training)} lists, or better {ENOUGH} descriptors for each"
            )
        card = Card(factory, dim, 0, seed, hashlib.sha256(training.data).hexdigest(), "")
        if factory.startswith("CAGRA"):
            return cls(_cagra(factory, dim), card, on_gpu=True)
        faiss = _faiss()
        with _named(f"index={factory}: faiss makes none of {dim} numbers; expected one like OPQ32,IVF4096,PQ32"):
            index = faiss.index_factory(dim, factory, faiss.METRIC_L2)
        with _seeded(index, seed) as most, _named(f"index={factory}: not trained by {len(training)} descriptors"):
            if len(training) < most:
                raise InputError(
                    f"index={factory}: {most} centroids, {len(training)} training descriptors; expected more"
                )
            if len(training) < ENOUGH * most:
                log.warning("%d training descriptors; better %d for index=%s", len(training), ENOUGH * most, factory)
            index.train(training)
        return cls(index, card)

    @property
    def card(self) -> Card:
        return self._card

    def __len__(self) -> int:
        return self._card.count

    def add(self, vectors: Vectors, *, progress: Report | None = None) -> None:
        """Append references [N, D], perhaps a memory map; they become the next N rows."""
        if self._sealed:
            raise InputError(f"{self._sealed}; train and fill another to add references")
        if self._card.factory.startswith("CAGRA"):
            self._require(len(self) == 0, "CAGRA makes its graph at once; expected all references in one call")
            self._add(vectors)
            return
        for start in range(0, len(vectors), BLOCK):
            self._add(vectors[start : start + BLOCK])
            if progress:
                progress(min(start + BLOCK, len(vectors)), len(vectors))

    def _add(self, vectors: Vectors) -> None:
        block = _checked("references", vectors, self._card.dim)
        with _named(f"index={self._card.factory}: takes no references"):
            self._index.add(block)
        self._count(block)

    def _count(self, block: Vectors) -> None:
        _sample(self._sample, block, len(self))
        count = len(self) + len(block)
        self._card = replace(self._card, count=count, references_sha256=self._sample.hexdigest())

    def knn(
        self,
        queries: Vectors,
        *,
        k: int,
        search: str = "",
        vectors: Vectors | None = None,
        factor: int = FACTOR,
        progress: Report | None = None,
    ) -> Lists:
        """Lists of up to k neighbours as query numbers, rows and squared distances [M], in this order.

        `search` sets faiss's parameters for this call: `nprobe=32`, `efSearch=64`, also several with commas; where it
        does not, √lists are probed, and efSearch is 64. A list is shorter than k where fewer references exist, or lie
        in the lists that were probed. Distances are those of the index, approximate where it compresses. With the
        references' own `vectors` [N, D], perhaps a memory map, the k nearest of factor · k candidates are chosen by
        their distances in float64.
        """
        queries = _checked("queries", queries, self._card.dim)
        for name, value in {"k": k, "factor": factor}.items():
            if value < 1:
                raise InputError(f"{name}={value}; expected at least 1")
        self._require(len(self) > 0, "holds no references; expected at least one")
        if vectors is not None:
            self.check_references(vectors)
        candidates = min(len(self), k if vectors is None else factor * k)
        step = min(QUERIES, max(1, CELLS // candidates))
        self._configure(search)
        found: list[Lists] = []
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            with _named(f"index={self._card.factory}: not searched for {candidates} neighbours"):
                near, row = self._index.search(block, candidates)
            filled = row.ravel() >= 0
            query = np.repeat(np.arange(len(block)), candidates)[filled]
            row = row.ravel()[filled].astype(np.int64)
            if vectors is None:
                distance = np.maximum(near.ravel()[filled].astype(np.float64), 0)
            else:
                distance = squared_distances(block, vectors, query, row)
            query, row, distance = _first_of_each(query, row, distance, k)
            found.append((query + start, row, distance))
            if progress:
                progress(start + len(block), len(queries))
        query, row, distance = zip(*found, strict=True)
        return np.concatenate(query), np.concatenate(row), np.concatenate(distance)

    def check_references(self, vectors: Vectors) -> None:
        """Raises InputError unless these are the vectors that the index was filled with, in their order."""
        if vectors.shape != (len(self), self._card.dim):
            known = f"{len(self)} × {self._card.dim}"
            raise InputError(f"references are {_shape(vectors)}, those of the index {known}; expected the same")
        sample = hashlib.sha256()
        _sample(sample, vectors, 0)
        if sample.hexdigest() != self._card.references_sha256:
            raise InputError("references are not those of the index, or in another order; expected the same")

    def save(self, folder: Path) -> None:
        """Write the index as a folder, whole or not at all; its files of an earlier index are replaced."""
        self._require(len(self) > 0, "holds no references; expected at least one")
        if self._sealed:
            raise InputError(f"{self._sealed}; only an index that was filled here can be saved")
        with atomic_folder(folder, owned=(LISTS,)) as beside:
            _write(beside, self._on_cpu(), self._card)

    def to(self, device: Device) -> Approximate:
        """The index on all GPUs, its rows divided among them; with `auto` where faiss sees any and has such an index.

        Raises InputError where `cuda` is asked for and it is not possible.
        """
        faiss = _faiss()
        if device is Device.cpu or self._on_gpu or (device is Device.auto and not faiss_gpus()):
            return self
        if not faiss_gpus():
            raise InputError("device=cuda: faiss sees no GPU; expected device=cpu, or a build of faiss with CUDA")
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        try:
            with _named(f"index={self._card.factory}: not for GPUs"):
                index = faiss.index_cpu_to_all_gpus(self._index, options)
        except InputError as error:
            if device is not Device.auto:
                raise
            log.info("%s; it stays on the CPU", error)
            return self
        moved = Approximate(index, self._card, sealed=f"index={self._card.factory}: is on the GPUs", on_gpu=True)
        moved._defaults = self._defaults
        return moved

    def _on_cpu(self) -> Any:
        if not self._on_gpu:
            return self._index
        faiss = _faiss()
        index = faiss.IndexHNSWCagra()
        index.base_level_only = True  # the graph as it is; nothing is added to it any more
        self._index.copyTo(index)
        return index

    def _accepted(self) -> Iterator[tuple[str, float]]:
        """Our defaults for the parameters that the index has."""
        lists = _lists(self._index)
        effort = {"nprobe": round(lists.nlist**0.5) if lists else 1, "efSearch": 64}
        for name, value in effort.items():
            with contextlib.suppress(RuntimeError):
                self._space.set_index_parameter(self._index, name, value)
                yield name, value

    def _configure(self, search: str) -> None:
        for name, value in (self._defaults | parse_search(search)).items():
            with _named(f"search={search}: index={self._card.factory} has no such parameter"):
                self._space.set_index_parameter(self._index, name, value)

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise InputError(f"index={self._card.factory}: {what}")


def load(folder: Path, *, mmap: bool = True, verify: bool = True) -> Approximate:
    """A saved index, to be searched; with `mmap` its pages are read when they are needed, and shared by processes.

    Inverted lists on disk stay there. Without `verify` the files' sizes are compared, but not their hashes, which takes
    one reading of each. Raises InputError for a folder that is no index, a file cut short, changed or exchanged.
    """
    card, files = _read_card(folder)
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; {CARD} names it: build the index again")
        if (found := path.stat().st_size) != size:
            raise InputError(f"{path}: has {found} bytes of {size}: cut short, or another's; build the index again")
        if verify and _sha256(path) != digest:
            raise InputError(f"{path}: is not as it was written; build the index again")
    faiss = _faiss()
    if LISTS in files:
        flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY
    else:
        flags = faiss.IO_FLAG_MMAP_IFC if mmap else 0
    with (
        _named(f"{folder / INDEX}: this faiss cannot read it"),
        _hushed() if LISTS in files else contextlib.nullcontext(),
    ):
        index = faiss.read_index(str(folder / INDEX), flags)
    if (index.ntotal, index.d) != (card.count, card.dim):
        raise InputError(f"{folder / INDEX}: holds {index.ntotal} × {index.d}, {CARD} says {card.count} × {card.dim}")
    return Approximate(index, card, sealed=f"{folder}: is a saved index")


def build_on_disk(
    folder: Path,
    trained: Approximate,
    blocks: Iterable[Vectors],
    *,
    memory_gb: float = 2.0,
    progress: Report | None = None,
) -> Approximate:
    """Fill inverted lists that need not fit in memory: the index of `folder`, which may be moved as a whole.

    `trained` is empty, and stays so. `blocks` are the references, one after the other, each as small as the caller
    likes; what waits in memory takes at most `memory_gb`. On the disk the work takes twice the room of its result.
    `progress` hears of the rows so far, and of as many in all.
    """
    lists = _lists(trained._index)
    if lists is None or not _plain(trained._index) or len(trained):
        factory = trained.card.factory
        raise InputError(f"index={factory}: expected an empty IVF index, without fs or refinement, for lists on disk")
    if not memory_gb > 0:
        raise InputError(f"memory_gb={memory_gb}: expected a size above 0")
    shard_rows = max(1, int(memory_gb * 1e9 / (2 * (lists.code_size + ROW_ID))))  # lists double as they grow
    faiss = _faiss()
    with atomic_folder(folder) as beside:
        shards = beside / "shards"
        shards.mkdir()
        filled = Approximate(faiss.clone_index(trained._index), trained.card)
        paths: list[Path] = []
        for part in _parts(blocks, min(BLOCK, -(-shard_rows // 8))):
            block = _checked("references", part, trained.card.dim)
            filled._index.add_with_ids(block, np.arange(len(filled), len(filled) + len(block)))
            filled._count(block)
            if filled._index.ntotal >= shard_rows:
                paths.append(_flush(filled._index, shards))
            if progress:
                progress(len(filled), len(filled))
        if filled._index.ntotal:
            paths.append(_flush(filled._index, shards))
        filled._require(len(filled) > 0, "no references; expected at least one")
        _merge(filled._index, paths, beside / LISTS)
        shutil.rmtree(shards)
        _write(beside, filled._index, filled.card)
        del filled
    return load(folder, verify=False)


def open_index(
    index: str,
    references: Vectors,
    *,
    training: Vectors | None = None,
    seed: int = 0,
    device: Device = Device.cpu,
    progress: Report | None = None,
) -> Approximate:
    """The index that `index` names, of these references: a saved folder, or a factory text, trained on `training`.

    Raises InputError where the folder's references are others, and where a text comes without training descriptors.
    """
    if Path(index).exists():
        saved = load(Path(index))
        saved.check_references(references)
        return saved.to(device)
    if training is None:
        raise InputError(f"index={index}: no such folder; a factory text needs training=T.h5 to be trained on")
    made = Approximate.train(index, training, seed=seed)
    made.add(references, progress=progress)
    return made.to(device)


def approximate_pairs(
    queries: Descriptors,
    references: Descriptors,
    *,
    index: Approximate,
    num_pairs: int | None = None,
    k: int | None = None,
    search: str = "",
    factor: int = FACTOR,
    progress: Report | None = None,
) -> Matches:
    """The best `num_pairs` over all queries together, or the best `k` of each, among what the index finds.

    Scores are exact, −‖q − r‖²; the set of pairs is not complete: a pair that the index misses is missing, and there
    are fewer than asked for where the lists give no more. No list is cut where it could still give a pair of the best
    `num_pairs`: such lists are asked for again, four times as long.
    """
    check_same_dim(queries, references)
    if (num_pairs is None) == (k is None):
        raise InputError(f"num_pairs={num_pairs} and k={k}; expected one of them")
    asked, exist = (k, len(references)) if num_pairs is None else (num_pairs, len(queries) * len(references))
    if asked is None or not 1 <= asked <= exist:
        raise InputError(f"{'num_pairs' if k is None else 'k'}={asked}: expected 1…{exist}, as many as there are")

    def lists(rows: Indices, length: int) -> Lists:
        query, row, distance = index.knn(
            queries.vectors[rows], k=length, search=search, vectors=references.vectors, factor=factor, progress=progress
        )
        return rows[query], row, distance

    if k is not None:
        query, row, distance = lists(np.arange(len(queries)), k)
    else:
        query, row, distance = _best(lists, len(queries), len(references), asked)
    order = np.lexsort((row, query, distance))
    score = (0.0 - distance[order]).astype(np.float32)
    return Matches(queries.ids, references.ids, query[order], row[order], score)


def _best(lists: Any, num_queries: int, num_references: int, num_pairs: int) -> Lists:
    query, row, distance = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    unfinished = np.arange(num_queries)
    length = min(num_references, 2 * -(-num_pairs // num_queries))
    while len(unfinished):
        kept = ~np.isin(query, unfinished)  # their longer lists give the others again
        q, r, d = lists(unfinished, length)
        reached = np.bincount(q, minlength=num_queries) == length  # as long as allowed: cut, perhaps
        end = np.zeros(num_queries)
        np.maximum.at(end, q, d)
        query, row, distance = np.r_[query[kept], q], np.r_[row[kept], r], np.r_[distance[kept], d]
        best = np.lexsort((row, query, distance))[:num_pairs]
        query, row, distance = query[best], row[best], distance[best]
        bound = distance[-1] if len(distance) == num_pairs else np.inf
        unfinished = np.flatnonzero(reached & (end <= bound)) if length < num_references else np.zeros(0, np.int64)
        length = min(num_references, 4 * length)
    return query, row, distance


def parse_search(search: str) -> dict[str, float]:
    """`nprobe=32,efSearch=64` as names and numbers. Raises InputError where a part is not NAME=NUMBER above 0."""
    values: dict[str, float] = {}
    for part in filter(None, search.split(",")):
        found = re.fullmatch(r"([A-Za-z_]+)=(\d+(?:\.\d+)?)", part.strip())
        if not found or not 0 < float(found[2]) < 2**31 or found[1] in values:
            raise InputError(f"search={search}: {part!r}; expected parameters like nprobe=32,efSearch=64, each once")
        values[found[1]] = float(found[2])
    return values


# --- files -----------------------------------------------------------------------------------------------------------


def _write(folder: Path, index: Any, card: Card) -> None:
    with _named(f"{folder.parent}: the index cannot be written"):
        _faiss().write_index(index, str(folder / INDEX))
    paths = [path for path in (folder / INDEX, folder / LISTS) if path.exists()]
    files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths}
    made = {"code_version": __version__, "faiss": _faiss().__version__}
    write_json(folder / CARD, {"format": FORMAT} | asdict(card) | made | {"files": files})


def _read_card(folder: Path) -> tuple[Card, Mapping[str, tuple[int, str]]]:
    """The card, and of each file its bytes and hash."""
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the folder of a saved index")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): (int(one["bytes"]), str(one["sha256"])) for name, one in told["files"].items()}
        values: dict[str, Any] = {one.name: (int if one.type == "int" else str)(told[one.name]) for one in fields(Card)}
        card = Card(**values)
        known = told["format"] == FORMAT and INDEX in files and files.keys() <= {INDEX, LISTS}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); build the index again") from error
    if not known:
        raise InputError(f"{path}: of format {told['format']!r}; expected {FORMAT}: build the index again")
    return card, files


def _flush(index: Any, folder: Path) -> Path:
    """Write what a shard holds, and empty it."""
    path = folder / f"{len(list(folder.iterdir())):06}.faiss"
    with _named(f"{folder}: a part of the index cannot be written"):
        _faiss().write_index(index, str(path))
    index.reset()
    return path


def _merge(index: Any, shards: Iterable[Path], path: Path) -> None:
    """Give `index` the lists of all shards together, in one file that is mapped."""
    faiss = _faiss()
    parts = [faiss.read_index(str(shard), faiss.IO_FLAG_MMAP) for shard in shards]
    pointers = faiss.InvertedListsPtrVector()
    for part in parts:
        pointers.push_back(faiss.extract_index_ivf(part).invlists)
    lists = faiss.extract_index_ivf(index)
    needed, free = sum(part.ntotal for part in parts) * (lists.code_size + ROW_ID), shutil.disk_usage(path.parent).free
    if needed > free:  # a full disk under a mapped file would end the process
        raise InputError(f"{path.parent}: {free / 1e9:.3g} GB free; the lists need {needed / 1e9:.3g}")
    with _named(f"{path.parent}: the lists cannot be written"), _hushed():
        on_disk = faiss.OnDiskInvertedLists(lists.nlist, lists.code_size, str(path))
        count = on_disk.merge_from_multiple(pointers.data(), pointers.size(), False)
    on_disk.filename = path.name  # beside the index, wherever that is
    lists.replace_invlists(on_disk, True)
    on_disk.this.disown()
    index.ntotal = lists.ntotal = count


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- faiss -----------------------------------------------------------------------------------------------------------


def _faiss() -> ModuleType:
    import faiss

    loaded: ModuleType = faiss
    return loaded


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """faiss's errors as ours, in one line without its file names."""
    try:
        yield
    except RuntimeError as error:
        reason = re.split(r"\.(?:cpp|cu|h|cuh):\d+: ", str(error).strip() or type(error).__name__)[-1]
        reason = " ".join(re.sub(r"^Error: '.*?' failed: ", "", reason).split())
        raise InputError(f"{what} ({reason})") from error


def _lists(index: Any) -> Any | None:
    """The inverted file inside an index, or None."""
    return _faiss().try_extract_index_ivf(index)


def _plain(index: Any) -> bool:
    """Whether all that an IVF index knows of its references lies in lists of arrays."""
    faiss = _faiss()
    outer, lists = faiss.downcast_index(index), faiss.downcast_index(_lists(index))
    return (
        isinstance(outer, faiss.IndexIVF | faiss.IndexPreTransform)
        and isinstance(faiss.downcast_InvertedLists(lists.invlists), faiss.ArrayInvertedLists)
        and not isinstance(lists, faiss.IndexIVFPQR)
    )


@contextlib.contextmanager
def _seeded(index: Any, seed: int) -> Iterator[int]:
    """The most centroids of a clustering that training runs. All are seeded, and kept from warning each for itself."""
    faiss = _faiss()
    sizes, rotations = [0], []
    for part in _layers(index):
        if isinstance(part, faiss.OPQMatrix):  # its own clustering is made while it trains, unless it is given one
            part.pq = faiss.ProductQuantizer(part.d_out, part.M, 8)
            rotations.append((part, part.pq))
        quantizer: Any = getattr(part, "pq", None)
        for clustered in (part, quantizer):
            if hasattr(clustered, "cp"):
                clustered.cp.seed, clustered.cp.min_points_per_centroid = seed, 1
                sizes.append(part.nlist if clustered is part else clustered.ksub)
    try:
        yield max(sizes)
    finally:
        for rotation, _ in rotations:
            rotation.pq = None


def _layers(index: Any) -> Iterator[Any]:
    """The index, its transforms, and the indexes inside it, down to the one that holds the codes."""
    faiss = _faiss()
    index = faiss.downcast_index(index)
    yield index
    if isinstance(index, faiss.IndexPreTransform):
        yield from (faiss.downcast_VectorTransform(index.chain.at(at)) for at in range(index.chain.size()))
    for inner in ("index", "base_index", "storage"):
        if hasattr(index, inner):
            yield from _layers(getattr(index, inner))


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Nothing that faiss prints about its lists on disk reaches standard output."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    kept = os.dup(1)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def _cagra(factory: str, dim: int) -> Any:
    faiss = _faiss()
    degree = re.fullmatch(r"CAGRA(\d*)", factory)
    if not degree:
        raise InputError(f"index={factory}: expected CAGRA, or CAGRA64 for 64 edges a node")
    if not hasattr(faiss, "GpuIndexCagra") or not faiss_gpus():
        raise InputError(f"index={factory}: needs an NVIDIA GPU and the package faiss-gpu-cuvs; without, use HNSW32")
    config = faiss.GpuIndexCagraConfig()
    config.graph_degree = int(degree[1] or 64)
    config.intermediate_graph_degree = 2 * config.graph_degree
    resources = faiss.StandardGpuResources()
    with _named(f"index={factory}: not made"):
        index = faiss.GpuIndexCagra(resources, dim, faiss.METRIC_L2, config)
    index.resources = resources  # lives as long as the index
    return index


# --- arrays ----------------------------------------------------------------------------------------------------------


def _checked(name: str, vectors: Vectors, dim: int | None = None) -> Vectors:
    """Contiguous float32 [N, D], as faiss takes it."""
    if vectors.ndim != 2 or 0 in vectors.shape or (dim is not None and vectors.shape[1] != dim):
        raise InputError(f"{name} are {_shape(vectors)}; expected N × {dim or 'D'} numbers, N ≥ 1")
    vectors = np.ascontiguousarray(vectors, np.float32)
    if (row := non_finite_row(vectors)) is not None:
        raise InputError(f"{name}: row {row} has NaN or infinite values; expected finite float32")
    return vectors


def _shape(vectors: Vectors) -> str:
    return " × ".join(map(str, vectors.shape))


def _sample(hashed: Any, vectors: Vectors, first: int) -> None:
    """Feed some rows of a whole set, of which `vectors` are the rows from `first` on: 64 of every doubling, so that two
    thousand rows tell a billion from another set or another order."""
    end = first + len(vectors)
    octaves = (np.arange(1 << at, 2 << at, max(1, (1 << at) // SAMPLED)) for at in range(end.bit_length()))
    rows = np.concatenate([[0], *octaves])
    rows = rows[(rows >= first) & (rows < end)] - first
    hashed.update(np.ascontiguousarray(vectors[rows], np.float32).data)


def _parts(blocks: Iterable[Vectors], rows: int) -> Iterator[Vectors]:
    for block in blocks:
        for start in range(0, len(block), rows):
            yield block[start : start + rows]


def _first_of_each(query: Indices, row: Indices, distance: Distances, k: int) -> Lists:
    """The k nearest of each query, in order; at equal distances the earlier row comes first."""
    order = np.lexsort((row, distance, query))
    query, row, distance = query[order], row[order], distance[order]
    count = np.bincount(query)
    rank = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    first = rank < k
    return query[first], row[first], distance[first]
