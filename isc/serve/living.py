"""The index of a worker, kept in step with the descriptors in the database.

The table of descriptors is the truth, and an index on the worker's disk only makes it quick to search: it can be
removed at any time. A worker writes its own descriptors before it reads those of others; of two copies that arrive at
once, at least the one written later therefore finds the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from isc.data.descriptors import Descriptors
from isc.data.files import write_text
from isc.errors import InputError
from isc.search.index.index import Index, is_index
from isc.serve.database import Database, column_pairs, insert_ignoring, trying_again
from isc.serve.schema import descriptor, image, removal

Vectors = npt.NDArray[np.float32]
PAGE = 20_000  # descriptors read at once
OVERLAP = 2_000  # ids looked at again: a transaction may commit after one that began later
WAIT = 60.0  # seconds for another worker that writes the index
PLACE = "place.json"


@dataclass(frozen=True)
class Near:
    """The nearest pictures of one row: their numbers and distances, the nearest first."""

    images: list[int]
    distances: list[float]


class LivingIndex:
    """The index in a folder; several workers of one machine share it."""

    def __init__(
        self, database: Database, folder: Path, *, model: str, dim: int, provenance: Mapping[str, str]
    ) -> None:
        self._database, self.path, self.model = database, folder, model
        self._provenance = dict(provenance)
        if not is_index(folder):
            try:
                Index.create(folder, dim=dim, provenance=provenance)
            except InputError:
                if not is_index(folder):  # another worker may have made it just now
                    raise
        self._index = Index.open(folder)
        self._index.manifest.check("the model of the service", dim, provenance)

    def __len__(self) -> int:
        with self._index.snapshot() as now:
            return len(now)

    def put(self, vectors: Mapping[int, Vectors]) -> None:
        """Write the descriptors of pictures into the database; those that are there stay."""

        def write() -> None:
            with self._database.writing() as connection:
                there = set(connection.scalars(sa.select(image.c.id).where(image.c.id.in_(list(vectors)))))
                for number, vector in vectors.items():
                    if number in there:
                        row = {"image_id": number, "model": self.model, "vector": vector.astype("<f4").tobytes()}
                        insert_ignoring(connection, descriptor, row)

        trying_again(write)

    def follow(self) -> None:
        """Bring the index in step with the database, a page at a time."""
        while self._follow_page():
            pass

    def _follow_page(self) -> bool:
        """Take over a page of changes; return whether there may be more."""
        new, gone, last, more = self._changes()
        if new or gone:
            self._alone(lambda: self._apply(new, gone))
        if new or gone or more:
            write_text(self.path / PLACE, json.dumps(last))
        return more

    def nearest(self, rows: Vectors, *, k: int) -> list[Near]:
        """Return the nearest pictures of each row [N, D]."""
        ids = np.array([str(row) for row in range(len(rows))], dtype=object)
        with self._index.snapshot() as now:
            if not len(now):
                return [Near([], []) for _ in rows]
            found = now.knn(Descriptors(ids, rows), k=k, provenance=self._provenance)
        near = [Near([], []) for _ in rows]
        distances = np.sqrt(np.maximum(0.0, -found.score.astype(np.float64)))
        for query, reference, distance in zip(found.query, found.reference, distances, strict=True):
            row = near[int(found.query_ids[query])]
            row.images.append(int(found.reference_ids[reference]))
            row.distances.append(float(distance))
        return near

    def _changes(self) -> tuple[list[int], list[int], dict[str, int], bool]:
        """Return the ids of new descriptor rows, the pictures that are gone, the place that this leads to, and whether
        the page was full.
        """
        place = (
            json.loads((self.path / PLACE).read_text()) if (self.path / PLACE).exists() else {"added": 0, "removed": 0}
        )
        with self._database.reading() as connection:
            added = sa.select(descriptor.c.id, descriptor.c.image_id).where(
                descriptor.c.model == self.model, descriptor.c.id > place["added"] - OVERLAP
            )
            rows = column_pairs(connection, added.order_by(descriptor.c.id).limit(PAGE))
            removed = sa.select(removal.c.id, removal.c.image_id).where(removal.c.id > place["removed"] - OVERLAP)
            gone = column_pairs(connection, removed.order_by(removal.c.id).limit(PAGE))
        known = self._known([*rows.values(), *gone.values()])
        dropped = set(gone.values())
        new = [number for number, who in rows.items() if who not in known and who not in dropped]
        last = {"added": max([place["added"], *rows]), "removed": max([place["removed"], *gone])}
        return new, sorted(dropped & known), last, PAGE in (len(rows), len(gone))

    def _known(self, images: Sequence[int]) -> set[int]:
        from isc.search.index.storage import present

        with self._index.snapshot() as now:
            return {int(one) for one in present(now.database, map(str, images))} if len(now) else set()

    def _apply(self, new: Sequence[int], gone: Sequence[int]) -> None:
        with self._index.writer() as writer:
            if new:
                with self._database.reading() as connection:
                    rows = connection.execute(
                        sa.select(descriptor.c.image_id, descriptor.c.vector).where(
                            descriptor.c.id.between(new[0], new[-1]), descriptor.c.model == self.model
                        )
                    ).all()
                if rows:
                    vectors = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(len(rows), -1)
                    ids = np.array([str(number) for number, _ in rows], dtype=object)
                    writer.add(Descriptors(ids, vectors), provenance=self._provenance, skip_existing=True)
            if gone:
                writer.remove(map(str, gone), missing_ok=True)

    def _alone(self, change: Callable[[], None]) -> None:
        """Change the index as its only writer, after those before."""
        end = time.monotonic() + WAIT
        while True:
            try:
                return change()
            except InputError as error:
                if "one writer at a time" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(0.02)
