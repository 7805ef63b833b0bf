"""Importing folders of photos, and indexes of `isc index`, whose descriptors are taken over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from isc.errors import InputError
from isc.find.file_table import read_states
from isc.find.photos import absolute, file_state
from isc.photos.folders import image_files
from isc.search.index.index import Index, is_index
from isc.serve.database import Database, column_pairs, insert_ignoring, trying_again
from isc.serve.intake import Blocked, import_files
from isc.serve.schema import descriptor, folder_import, image

log = logging.getLogger(__name__)
LEASE = 120.0  # seconds of an import between two signs of life
GROUP = 200  # photos between two signs of life
ROWS = 1_000  # descriptors in one transaction


def import_path(database: Database, path: Path, *, weights: str, beat: Callable[[], None] | None = None) -> int:
    """Take in a folder's photos, or an index's, and return the number of new ones.

    Files that cannot be read, or stand on the block list, are left out. `beat` is called now and then while this runs.

    Raises InputError for a path that is neither, or an index of another model.
    """
    if is_index(path):
        return _import_index(database, path, weights=weights, beat=beat or _silent)
    if not path.is_dir():
        raise InputError(f"{path}: is no folder and no index; expected one of them")
    return import_files(database, _beating(_hashed(path), beat or _silent))


def _silent() -> None:
    """Tell nobody that an import goes on."""


def _beating(files: Iterable[tuple[str, Path]], beat: Callable[[], None]) -> Iterator[tuple[str, Path]]:
    for count, one in enumerate(files):
        if count % GROUP == 0:
            beat()
        yield one


def _hashed(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in sorted(image_files(folder, key="folder")):
        place = Path(absolute(folder / name))
        try:
            yield file_state(place).sha256, place
        except OSError as error:
            log.warning("%s: cannot be read (%s); it is left out", place, error.strerror or error)


def _import_index(database: Database, path: Path, *, weights: str, beat: Callable[[], None]) -> int:
    """Take over an index: its photos by the hashes that it keeps, and its descriptors."""
    index = Index.open(path)
    theirs = index.manifest.provenance.get("weights_sha256")
    if theirs != weights:
        raise InputError(f"{path}: made with weights {str(theirs)[:12]}; the service has {weights[:12]}")
    states = read_states(path)
    files = ((state.sha256, Path(name)) for name, state in states.items() if Path(name).is_file())
    count = import_files(database, _beating(files, beat))
    with index.snapshot() as now:
        descriptors = now.descriptors()
    for start in range(0, len(descriptors), ROWS):
        beat()
        part = slice(start, start + ROWS)
        _put(database, [states[one].sha256 for one in descriptors.ids[part] if one in states],
             descriptors.vectors[part][[one in states for one in descriptors.ids[part]]], weights)  # fmt: skip
    return count


def _put(
    database: Database, hashes: list[str], vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]], weights: str
) -> None:
    def write() -> None:
        with database.writing() as connection:
            wanted = sa.select(image.c.sha256, image.c.id).where(image.c.sha256.in_(hashes))
            ids = column_pairs(connection, wanted)
            for digest, vector in zip(hashes, vectors, strict=True):
                if digest in ids:
                    row = {"image_id": ids[digest], "model": weights, "vector": vector.astype("<f4").tobytes()}
                    insert_ignoring(connection, descriptor, row)

    trying_again(write)


def next_import(database: Database, *, weights: str) -> bool:
    """Do one import that is asked for, or that a killed process left; return whether there was one.

    One that cannot be done has failed, and is not tried again.
    """
    now = time.time()
    free = folder_import.c.state.in_(("queued", "leased")) & (folder_import.c.lease_until < now)

    def take() -> sa.Row[tuple[object, ...]] | None:
        with database.writing() as connection:
            row = connection.execute(sa.select(folder_import).where(free).limit(1).with_for_update()).first()
            if row is not None:
                _note(connection, row.id, state="leased", lease_until=now + LEASE)
            return row

    with database.reading() as connection:
        if connection.execute(sa.select(folder_import.c.id).where(free).limit(1)).first() is None:
            return False
    row = trying_again(take)
    if row is None:
        return False

    def beat() -> None:
        with database.writing() as connection:
            _note(connection, row.id, lease_until=time.time() + LEASE)

    try:
        done = {"state": "done", "found": import_path(database, Path(row.path), weights=weights, beat=beat)}
    except (InputError, Blocked, OSError) as error:
        done = {"state": "failed", "error": str(error)}
    with database.writing() as connection:
        _note(connection, row.id, finished=time.time(), **done)
    return True


def _note(connection: sa.Connection, number: int, **values: object) -> None:
    connection.execute(sa.update(folder_import).where(folder_import.c.id == number).values(values))
