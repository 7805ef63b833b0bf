"""A new version of a provider: what it takes over from the earlier ones, and what it is asked again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.database import Database, trying_again
from isc.serve.kinds import RequestState, SuggestionState
from isc.serve.providers.base import AnyProvider
from isc.serve.requests import AGAIN, UNANSWERED, ask
from isc.serve.schema import image, provider, request, suggestion

TOGETHER = 500  # pictures in one transaction
STATES = {
    "open": (SuggestionState.unreviewed,),
    "decided": (SuggestionState.accepted, SuggestionState.rejected),
}
REPLACED = "a newer version was asked instead"


def renew(database: Database, name: str, one: AnyProvider) -> int:
    """Let the current version of a provider take over what its earlier versions leave; return its new requests.

    These are the pictures that no version has answered, those with open suggestions, and, if the earlier descriptions
    cannot be compared with the new ones, all pictures. What is taken over already stays as it is, so that this may be
    done at every start.
    """
    taken = take_over(database, name) + (ask_again(database, name) or 0)
    return taken + _ask_incomparable(database, name, one)


def take_over(database: Database, name: str) -> int:
    """Ask the current version about pictures that no earlier one has answered, and close those requests.

    Returns the number of requests that were closed.
    """
    with database.reading() as connection:
        current, earlier = _versions(connection, name)
    if current is None or not earlier:
        return 0
    left = (request.c.provider_id.in_(earlier)) & (request.c.state.in_(UNANSWERED))

    def write() -> int:
        with database.writing() as connection:
            columns = (request.c.id, request.c.image_id, request.c.state, request.c.priority)
            rows = connection.execute(sa.select(*columns).where(left).order_by(request.c.id).limit(TOGETHER)).all()
            for row in rows:
                urgency = AGAIN if row.state == RequestState.dead else row.priority
                _asked_once(connection, row.image_id, current, priority=urgency)
            closed = {"state": RequestState.superseded, "lease": None, "lease_until": None, "error": REPLACED,
                      "finished": time.time()}  # fmt: skip
            ids = [row.id for row in rows]
            connection.execute(sa.update(request).where(request.c.id.in_(ids), left).values(closed))
            return len(rows)

    count = 0
    while done := int(trying_again(write)):
        count += done
    return count


def _asked_once(connection: Connection, image_id: int, provider_id: int, *, priority: int) -> None:
    """Request an answer, also if this version was replaced before it gave one, and is in use again."""
    if not ask(connection, [image_id], [provider_id], priority=priority):
        mine = (request.c.image_id == image_id) & (request.c.provider_id == provider_id)
        again = {"state": RequestState.queued, "attempts": 0, "run_after": time.time(), "error": None, "finished": None}
        replaced = sa.update(request).where(mine, request.c.state == RequestState.superseded)
        connection.execute(replaced.values(again))


def _versions(connection: Connection, name: str) -> tuple[int | None, list[int]]:
    """Return the ids of a provider's current version, None if it is not in use, and of the others."""
    wanted = sa.select(provider.c.id, provider.c.current).where(provider.c.name == name)
    rows = connection.execute(wanted).all()
    current = next((row.id for row in rows if row.current), None)
    return current, [row.id for row in rows if row.id != current]


def ask_again(database: Database, name: str, which: str = "open") -> int | None:
    """Ask the current version of a provider about pictures of its earlier versions; None if it is not in use.

    `which` are the pictures with open suggestions, with decided ones, or all. What earlier versions said stays theirs.
    Returns the number of new requests.
    """
    with database.reading() as connection:
        current, earlier = _versions(connection, name)
    if current is None:
        return None
    if which == "all":
        return _ask_about(database, current, sa.true())
    described = sa.select(suggestion.c.image_id).where(
        suggestion.c.provider_id.in_(earlier), suggestion.c.state.in_(STATES[which])
    )
    return _ask_about(database, current, image.c.id.in_(described))


def _ask_incomparable(database: Database, name: str, one: AnyProvider) -> int:
    """Ask about all pictures that only versions have described whose descriptions the current one cannot compare."""
    with database.reading() as connection:
        rows = connection.execute(sa.select(provider).where(provider.c.name == name)).all()
    current = next((row.id for row in rows if row.current), None)
    usable = [row.id for row in rows if row.current or one.comparable_with(row.version)]
    if current is None or len(usable) == len(rows):
        return 0
    served, described = request.alias(), request.alias()
    usably = sa.exists().where(served.c.image_id == image.c.id, served.c.provider_id.in_(usable))
    others = described.c.provider_id.in_([row.id for row in rows if row.id not in usable])
    return _ask_about(database, current, sa.exists().where(described.c.image_id == image.c.id, others) & ~usably)


def _ask_about(database: Database, current: int, condition: sa.ColumnElement[bool]) -> int:
    """Ask a version about the pictures of a condition that it was not asked about yet, the newest first."""
    return sum(
        int(trying_again(partial(_write, database, part, current)))
        for part in _pages(database, sa.select(image.c.id).where(condition, ~_asked(current)))
    )


def _asked(current: int) -> sa.ColumnElement[bool]:
    mine = request.alias()
    return sa.exists().where(mine.c.image_id == image.c.id, mine.c.provider_id == current)


def _pages(database: Database, wanted: sa.Select[Any]) -> Iterator[list[int]]:
    """Yield the ids of pictures, the newest first, a page at a time."""
    below: sa.ColumnElement[bool] = sa.true()
    while True:
        with database.reading() as connection:
            page = list(connection.scalars(wanted.where(below).order_by(image.c.id.desc()).limit(TOGETHER)))
        if not page:
            return
        yield page
        below = image.c.id < page[-1]


def _write(database: Database, part: list[int], current: int) -> int:
    with database.writing() as connection:
        return ask(connection, part, [current], priority=AGAIN)
