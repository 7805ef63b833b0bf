"""Pictures come in: uploads and imports."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.database import Database, insert_ignoring, trying_again
from isc.serve.kinds import ImageState
from isc.serve.requests import IMPORTED, UPLOADED, ask, current_providers
from isc.serve.schema import event, image, listing

log = logging.getLogger(__name__)
TOGETHER = 500  # imported pictures in one transaction


class Blocked(Exception):
    """A picture that stands on the block list."""


@dataclass(frozen=True)
class NewImage:
    """A picture to be taken in; `path` for a file that stays where it is."""

    sha256: str
    bytes: int
    name: str
    path: str | None = None
    uploader: str | None = None
    width: int | None = None
    height: int | None = None


def take_in(database: Database, new: Sequence[NewImage], *, priority: int = UPLOADED) -> list[tuple[int, bool]]:
    """Write pictures and their requests to all current providers; return (id, whether it is new) of each.

    A picture that is there already is asked about only what was not asked before. Raises Blocked, and writes nothing,
    for one on the block list.
    """

    def write() -> list[tuple[int, bool]]:
        with database.writing() as connection:
            _refuse_blocked(connection, [one.sha256 for one in new])
            asked = list(current_providers(connection).values())
            return [_written(connection, one, asked, priority) for one in new]

    return list(trying_again(write))


def _written(connection: Connection, one: NewImage, asked: Sequence[int], priority: int) -> tuple[int, bool]:
    now = time.time()
    facts = {"sha256": one.sha256, "path": one.path, "name": one.name[:255], "bytes": one.bytes, "width": one.width,
             "height": one.height, "state": ImageState.active, "uploader": one.uploader, "first_seen": now}  # fmt: skip
    fresh = insert_ignoring(connection, image, facts)
    number = int(connection.execute(sa.select(image.c.id).where(image.c.sha256 == one.sha256)).scalar_one())
    ask(connection, [number], asked, priority=priority)
    if fresh:
        connection.execute(sa.insert(event).values(image_id=number, kind="received", body={}, created=now))
    return number, fresh


def _refuse_blocked(connection: Connection, hashes: Sequence[str]) -> None:
    for found in sorted(_blocked(connection, hashes)):
        raise Blocked(on_block_list(found))


def _blocked(connection: Connection, hashes: Sequence[str]) -> set[str]:
    wanted = sa.select(listing.c.value).where(listing.c.action == "block", listing.c.value.in_(hashes))
    return set(connection.scalars(wanted))


def blocked(database: Database, hashes: Sequence[str]) -> set[str]:
    """Return those of the SHA-256 that stand on the block list."""
    with database.reading() as connection:
        return _blocked(connection, hashes)


def on_block_list(sha256: str) -> str:
    """Return why a picture is not taken in."""
    return f"the picture {sha256[:12]} stands on the block list"


def import_files(database: Database, files: Iterable[tuple[str, Path]]) -> int:
    """Take in files that stay where they are, given as (SHA-256, absolute path); return the number of new ones.

    Files on the block list are left out.
    """
    count = 0
    for group in _groups(files):
        refused = blocked(database, [digest for digest, _ in group])
        for digest, path in group:
            if digest in refused:
                log.warning("%s: %s; it is left out", path, on_block_list(digest))
        new = [one for digest, path in group if digest not in refused and (one := _file(digest, path)) is not None]
        count += sum(fresh for _, fresh in take_in(database, new, priority=IMPORTED))
    return count


def _groups(files: Iterable[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    rest = iter(files)
    while group := list(islice(rest, TOGETHER)):
        yield group


def _file(digest: str, path: Path) -> NewImage | None:
    """Return a file to be taken in, None if it is gone since it was listed."""
    try:
        return NewImage(digest, path.stat().st_size, path.name, str(path))
    except OSError as error:
        log.warning("%s: cannot be read (%s); it is left out", path, error.strerror or error)
        return None
