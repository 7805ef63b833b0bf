"""An updatable index: a folder of descriptors whose images can be added, replaced and removed at any time.

    manifest.json    the model and the dimension of the descriptors; written once
    index.sqlite     the row of each id, and the number of committed rows
    vectors-G.f32    the rows themselves; generation G ends when it is compacted
    writer.lock      held by the one process that writes, and names it

Every change is complete and on disk when it is acknowledged, even if its process is killed right after; a change
without acknowledgement has happened completely or not at all. Any number of readers may read; each sees one consistent
state.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from isc.data.descriptors import Descriptors
from isc.data.files import make_folder
from isc.data.matches import Matches
from isc.errors import InputError
from isc.runtime.progress import Report
from isc.search.index.manifest import Manifest, read_manifest, write_manifest
from isc.search.index.snapshot import Snapshot, snapshot
from isc.search.index.storage import MANIFEST, create_database, named, sync, vectors_path
from isc.search.index.writer import Writer, writing


@dataclass(frozen=True)
class Stats:
    """Statistics of an index: `bytes` is its size on disk, `dead_rows` counts the rows of removed and replaced images.

    `model` is the model that makes more descriptors; `created` and `changed` are in UTC.
    """

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
    """An index on disk, opened by its manifest; each read uses a snapshot of its own."""

    path: Path
    manifest: Manifest

    @classmethod
    def create(cls, path: Path, *, dim: int, provenance: Mapping[str, str], model: str | None = None) -> Index:
        """Create an empty index, completely or not at all.

        `provenance` is that of the descriptors to come (`isc.data.read_provenance`, `isc.model.files.describe`);
        `model` names the model that `isc index add` applies to photos. Raises InputError if `path` exists.
        """
        if path.exists() or path.is_symlink():
            raise InputError(f"{path}: is there already; expected a new path")
        if dim < 1:
            raise InputError(f"dim={dim}; expected at least 1")
        manifest = Manifest.of(dim, provenance, model)
        beside = path.parent / f".{path.name}.{os.getpid()}.part"
        with named(path):
            make_folder(path.parent)
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
        """Return a context with the right to change the index. Raises InputError, naming the holder, if it is taken."""
        return writing(self.path, self.manifest)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Return a context with one state of the index to read; writers neither change it nor wait for it."""
        return snapshot(self.path, self.manifest)

    def knn(
        self, queries: Descriptors, *, k: int, provenance: Mapping[str, str], progress: Report | None = None
    ) -> Matches:
        """Run `Snapshot.knn` on the current state of the index."""
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
    """Return whether this is a folder with a manifest."""
    return (path / MANIFEST).is_file()


def read_index(path: Path) -> tuple[Descriptors, dict[str, str]]:
    """Return all descriptors, sorted by id, and their provenance.

    `read_descriptors` and `read_provenance` return the same for a file.
    """
    index = Index.open(path)
    with index.snapshot() as now:
        return now.descriptors(), dict(index.manifest.provenance)
