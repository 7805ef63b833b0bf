"""An index that lives: a folder of descriptors that takes, replaces and removes images at any time.

    manifest.json    which model the descriptors are of, and how many numbers each has; written once
    index.sqlite     which row belongs to which id, and how many rows are committed
    vectors-G.f32    the rows themselves; generation G ends when it is compacted
    writer.lock      held by the one process that writes, which it names

Every change is whole and on the disk when it is acknowledged, also if its process is killed the moment after; a change
that was not acknowledged has happened whole or not at all. Each of any number of readers sees one consistent state.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from isc.data.descriptors import Descriptors
from isc.data.matches import Matches
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.search.index.manifest import Manifest, read_manifest, require_one_row_each, write_manifest
from isc.search.index.snapshot import Snapshot, snapshot
from isc.search.index.storage import MANIFEST, create_database, named, sync, vectors_path
from isc.search.index.writer import BATCH, Added, Writer, already_there, writing

__all__ = [
    "BATCH",
    "Added",
    "Index",
    "Manifest",
    "Snapshot",
    "Stats",
    "Writer",
    "already_there",
    "is_index",
    "read_index",
    "require_one_row_each",
]


@dataclass(frozen=True)
class Stats:
    """What an index holds. `model` is what more descriptors are made with, `bytes` its size on the disk, `dead_rows`
    those of removed and replaced images, `changed` and `created` are UTC."""

    images: int
    dim: int
    model: str | None
    provenance: Mapping[str, str]
    bytes: int
    rows: int
    dead_rows: int
    generation: int
    created: str
    changed: str


@dataclass(frozen=True)
class Index:
    """An index on the disk, opened by its manifest; every reading is of a snapshot of its own."""

    path: Path
    manifest: Manifest

    @classmethod
    def create(cls, path: Path, *, dim: int, provenance: Mapping[str, str], model: str | None = None) -> Index:
        """Make an empty index, whole or not at all. `provenance` is that of the descriptors to come (`isc.data.
        read_provenance`, `isc.model.files.describe`); `model` names what makes them, for `isc-index add` of photos.
        Raises InputError where `path` exists."""
        if path.exists() or path.is_symlink():
            raise InputError(f"{path}: is there already; expected a new path")
        if dim < 1:
            raise InputError(f"dim={dim}; expected at least 1")
        manifest = Manifest.of(dim, provenance, model)
        beside = path.parent / f".{path.name}.{os.getpid()}.part"
        with named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.mkdir()
                write_manifest(beside, manifest)
                create_database(beside)
                vectors_path(beside, 0).touch()
                sync(vectors_path(beside, 0))
                sync(beside)
                beside.rename(path)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                raise
            sync(path.parent)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> Index:
        return cls(path, read_manifest(path))

    def writer(self) -> AbstractContextManager[Writer]:
        """The right to change the index, until the context ends; InputError naming the holder where it is taken."""
        return writing(self.path, self.manifest)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """One state of the index to read from, until the context ends; no writer changes it or waits for it."""
        return snapshot(self.path, self.manifest)

    def knn(
        self, queries: Descriptors, *, k: int, provenance: Mapping[str, str], progress: Report | None = None
    ) -> Matches:
        """`Snapshot.knn` of the index as it is now."""
        with self.snapshot() as now:
            return now.knn(queries, k=k, provenance=provenance, progress=progress)

    def stats(self) -> Stats:
        with self.snapshot() as now, named(self.path):
            state, manifest = now.state, self.manifest
            size = sum(file.stat().st_size for file in self.path.iterdir() if not file.name.endswith("-shm"))
        return Stats(
            images=state.live,
            dim=manifest.dim,
            model=manifest.model,
            provenance=manifest.provenance,
            bytes=size,
            rows=state.rows,
            dead_rows=state.dead,
            generation=state.generation,
            created=manifest.created,
            changed=state.changed,
        )


def is_index(path: Path) -> bool:
    """Whether this is a folder with a manifest."""
    return (path / MANIFEST).is_file()


def read_index(path: Path) -> tuple[Descriptors, dict[str, str]]:
    """All descriptors in the order of their ids, and their provenance, as `read_descriptors` and `read_provenance` give
    those of a file."""
    index = Index.open(path)
    with index.snapshot() as now:
        return now.descriptors(), dict(index.manifest.provenance)
