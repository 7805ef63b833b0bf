"""Pictures come in, and go again: uploads, imports, and deletion everywhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.database import Database, insert_ignoring, trying_again
from isc.serve.files import PictureFiles
from isc.serve.kinds import ImageState
from isc.serve.requests import IMPORTED, UPLOADED, ask, current_providers
from isc.serve.schema import descriptor, event, image, listing, removal

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
    found = connection.execute(
        sa.select(listing.c.value).where(listing.c.action == "block", listing.c.value.in_(hashes)).limit(1)
    ).scalar()
    if found is not None:
        raise Blocked(f"the picture {found[:12]} stands on the block list")


def import_files(database: Database, files: Iterable[tuple[str, Path]]) -> int:
    """Take in files that stay where they are, given as (SHA-256, absolute path); return the number of new ones."""
    count, waiting = 0, []
    for digest, path in files:
        waiting.append(NewImage(digest, path.stat().st_size, path.name, str(path)))
        if len(waiting) == TOGETHER:
            count += sum(fresh for _, fresh in take_in(database, waiting, priority=IMPORTED))
            waiting = []
    return count + (sum(fresh for _, fresh in take_in(database, waiting, priority=IMPORTED)) if waiting else 0)


def delete_image(database: Database, files: PictureFiles, number: int) -> bool:
    """Remove a picture, its results, suggestions, votes and descriptor; return whether it was there.

    The indexes of the workers follow the table `removal`, and searches never show a picture that is not in its table.
    """

    def write() -> str | None:
        with database.writing() as connection:
            digest = connection.execute(sa.select(image.c.sha256).where(image.c.id == number)).scalar()
            if digest is None:
                return None
            now = time.time()
            connection.execute(sa.delete(event).where(event.c.image_id == number))
            connection.execute(sa.delete(descriptor).where(descriptor.c.image_id == number))
            connection.execute(sa.delete(image).where(image.c.id == number))
            connection.execute(sa.insert(removal).values(image_id=number, created=now))
            return str(digest)

    digest = trying_again(write)
    if digest is None:
        return False
    files.remove(digest)
    return True
