"""Deletion everywhere: in the database, and in the caches of every machine, which follow the table of removals."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.data.files import write_text
from isc.serve.database import Database, trying_again
from isc.serve.files import PictureFiles
from isc.serve.kept_features import KeptFeatures
from isc.serve.kinds import Kind
from isc.serve.schema import copy_match, descriptor, event, image, outbox, removal, suggestion

PLACE = "removed.json"  # in the cache: the last removal that this machine has followed
CLOCKS = 60.0  # seconds by which the clocks of machines may differ
OVERLAP = 100  # removals looked at again: a transaction may commit after one that began later


def delete_image(database: Database, files: PictureFiles, number: int) -> bool:
    """Remove a picture, and all that names it; return whether it was there.

    These are its results, suggestions, votes, descriptors and events, the pairs in which it is the other picture, and
    messages to the outside. The machines follow the table `removal`, which keeps its file for a while, and searches
    never show a picture that is not in its table.
    """

    def write() -> str | None:
        with database.writing() as connection:
            row = connection.execute(sa.select(image.c.sha256, image.c.path).where(image.c.id == number)).first()
            if row is None:
                return None
            _forget_events(connection, number, row.sha256)
            pairs = sa.select(copy_match.c.id).where(copy_match.c.other_id == number)
            copies = (suggestion.c.kind == Kind.copy) & suggestion.c.result_id.in_(pairs)
            connection.execute(sa.delete(suggestion).where(copies))
            connection.execute(sa.delete(descriptor).where(descriptor.c.image_id == number))
            connection.execute(sa.delete(image).where(image.c.id == number))
            gone = {"image_id": number, "created": time.time(), "sha256": row.sha256, "path": row.path}
            connection.execute(sa.insert(removal).values(gone))
            return str(row.sha256)

    digest = trying_again(write)
    if digest is None:
        return False
    files.remove(digest)
    return True


def _forget_events(connection: Connection, number: int, digest: str) -> None:
    """Remove the events of a picture, decisions of others that name it, and messages about it."""
    connection.execute(sa.delete(event).where(event.c.image_id == number))
    decided = (event.c.kind == "decided") & sa.cast(event.c.body, sa.Text).contains(digest)
    connection.execute(sa.delete(event).where(decided))
    connection.execute(sa.delete(outbox).where(sa.cast(outbox.c.body, sa.Text).contains(digest)))


def forget_removed(database: Database, cache: Path, files: PictureFiles) -> int:
    """Remove the features of removed pictures from this machine's cache; return the number of removals followed."""
    place = cache / PLACE
    last = int(json.loads(place.read_text())) if place.exists() else 0
    with database.reading() as connection:
        if int(connection.scalar(sa.select(sa.func.max(removal.c.id))) or 0) <= last:
            return 0
        known = removal.c.sha256.is_not(None) & (removal.c.id > last - OVERLAP)
        rows = connection.execute(sa.select(removal).where(known).order_by(removal.c.id)).all()
    KeptFeatures(cache / "features").forget([Path(row.path or files.path(row.sha256)) for row in rows])
    if rows:
        write_text(place, json.dumps(rows[-1].id))
    return len(rows)


class Removals:
    """The pictures that were removed since this was made: a process holds something of them in its memory, maybe."""

    def __init__(self, database: Database) -> None:
        self._database, self._began = database, time.time()
        self._last: int | None = None

    def since(self) -> list[tuple[int, str | None]]:
        """Return (number, SHA-256 if it is still known) of removed pictures; the last ones are told again and again."""
        new = removal.c.created > self._began - CLOCKS if self._last is None else removal.c.id > self._last - OVERLAP
        wanted = sa.select(removal.c.id, removal.c.image_id, removal.c.sha256).where(new)
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
        if rows:
            self._last = max([self._last or 0, *(row.id for row in rows)])
        return [(row.image_id, row.sha256) for row in rows]


def drop_other_indexes(folder: Path) -> None:
    """Remove the indexes beside this one: they are of other weights, and nobody follows removals in them."""
    for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if other != folder and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
