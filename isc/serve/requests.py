"""The requests to providers. Their table is the truth: whoever holds a lease may work, and a lost lease is taken up."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.database import Database, insert_ignoring, trying_again
from isc.serve.kinds import ImageState, RequestState
from isc.serve.providers.base import AnyProvider, Busy, Limits, Refused
from isc.serve.reasons import Why
from isc.serve.schema import event, image, provider, request

BACK_OFF = 2.0  # seconds before the second attempt; each further one waits twice as long
LONGEST = 600.0  # seconds between two attempts
UPLOADED, IMPORTED, AGAIN = 20, 10, 5  # priorities: a person waits for uploads
OPEN = (RequestState.queued, RequestState.leased, RequestState.submitted)
UNANSWERED = (*OPEN, RequestState.dead)


@dataclass(frozen=True)
class Leased:
    """A request that this worker holds until its lease ends."""

    id: int
    image_id: int
    provider_id: int
    sha256: str
    path: str | None
    attempts: int
    lease: str
    external_id: str | None
    started: float


def register(database: Database, providers: Mapping[str, AnyProvider], *, alone: bool = True) -> dict[str, int]:
    """Write the providers in use into their table, and return their ids; earlier versions stay, no longer current.

    If they are `alone`, no others are in use from now on.
    """

    def write() -> dict[str, int]:
        with database.writing() as connection:
            if alone:
                connection.execute(sa.update(provider).where(provider.c.name.not_in(providers)).values(current=False))
            return {name: _registered(connection, name, one) for name, one in providers.items()}

    return dict(trying_again(write))


def _registered(connection: Connection, name: str, one: AnyProvider) -> int:
    facts = {"name": name, "version": one.version, "kinds": sorted(one.kinds), "current": True,
             "first_seen": time.time()}  # fmt: skip
    insert_ignoring(connection, provider, facts)
    same = (provider.c.name == name) & (provider.c.version == one.version)
    connection.execute(sa.update(provider).where(provider.c.name == name).values(current=same))
    return int(connection.execute(sa.select(provider.c.id).where(same)).scalar_one())


def current_providers(connection: Connection) -> dict[str, int]:
    """Return {name: id} of the providers that new pictures are sent to."""
    rows = connection.execute(sa.select(provider.c.name, provider.c.id).where(provider.c.current))
    return {row.name: row.id for row in rows}


def versions_in_use(connection: Connection) -> dict[str, tuple[int, str]]:
    """Return {name: (id, version)} of the providers that new pictures are sent to."""
    rows = connection.execute(sa.select(provider.c.name, provider.c.id, provider.c.version).where(provider.c.current))
    return {row.name: (int(row.id), str(row.version)) for row in rows}


def ask(connection: Connection, image_ids: Sequence[int], provider_ids: Sequence[int], *, priority: int) -> int:
    """Request an answer about each picture from each provider; a request that is there already stays as it is."""
    now = time.time()
    return sum(
        insert_ignoring(
            connection,
            request,
            {"image_id": one, "provider_id": who, "state": RequestState.queued, "priority": priority, "attempts": 0,
             "run_after": now, "created": now},
        )
        for one in image_ids
        for who in provider_ids
    )  # fmt: skip


def lease(database: Database, provider_ids: Sequence[int], *, limit: int, seconds: float) -> list[Leased]:
    """Take up to `limit` requests for `seconds`: those whose lease has ended, and queued ones that are due.

    The most urgent pictures come first, all requests of a picture together. Requests about pictures that cannot be read
    are left alone.
    """
    now, ticket = time.time(), secrets.token_hex(16)
    with database.reading() as connection:  # without the lock of a writer
        if not _due(connection, provider_ids, now=now, limit=1):
            return []

    def take() -> list[Leased]:
        with database.writing() as connection:
            ids = _due(connection, provider_ids, now=now, limit=limit, lock=database.kind != "sqlite")
            values = {"state": RequestState.leased, "lease": ticket, "lease_until": now + seconds, "started": now,
                      "attempts": request.c.attempts + 1}  # fmt: skip
            connection.execute(sa.update(request).where(request.c.id.in_(ids)).values(values))
            return _held(connection, request.c.lease == ticket)

    return list(trying_again(take))


def _due(
    connection: Connection, provider_ids: Sequence[int], *, now: float, limit: int, lock: bool = False
) -> list[int]:
    """Return the ids of at most `limit` requests that may be leased.

    Each provider's queue is read in the order of its index, one priority after the other, so that a long backlog, of
    this provider or of another one, is not sorted for each lease.
    """
    columns = (request.c.priority, request.c.image_id, request.c.id)
    ended = sa.select(*columns).where(
        request.c.state == RequestState.leased, request.c.lease_until < now, request.c.provider_id.in_(provider_ids)
    )
    found = connection.execute(_locked(ended.limit(limit), lock)).all()
    for number in provider_ids:
        mine = (request.c.provider_id == number) & (request.c.state == RequestState.queued)
        below: sa.ColumnElement[bool] = sa.true()
        left = limit
        while left > 0:
            top = connection.scalar(sa.select(sa.func.max(request.c.priority)).where(mine, below))
            if top is None:
                break
            due = sa.select(*columns).where(mine, request.c.priority == top, request.c.run_after <= now)
            rows = connection.execute(_locked(due.order_by(request.c.image_id).limit(left), lock)).all()
            found, left, below = [*found, *rows], left - len(rows), request.c.priority < top
    return [row.id for row in sorted(found, key=lambda row: (-row.priority, row.image_id, row.id))[:limit]]


def _locked(wanted: sa.Select[Any], lock: bool) -> sa.Select[Any]:
    return wanted.with_for_update(skip_locked=True) if lock else wanted


def _held(connection: Connection, condition: sa.ColumnElement[bool]) -> list[Leased]:
    columns = (request.c.id, request.c.image_id, request.c.provider_id, image.c.sha256, image.c.path,
               request.c.attempts, request.c.lease, request.c.external_id, request.c.started)  # fmt: skip
    rows = connection.execute(
        sa.select(*columns)
        .join(image, image.c.id == request.c.image_id)
        .where(condition)
        .order_by(request.c.priority.desc(), request.c.image_id, request.c.id)
    )
    return [Leased(*row) for row in rows]


def close(connection: Connection, held: Leased, state: RequestState, **values: Any) -> bool:
    """Give the request another state if the lease is still held; return False if someone else has taken it up.

    The caller's transaction writes the results too, so that they are written once.
    """
    done = connection.execute(
        sa.update(request)
        .where(request.c.id == held.id, request.c.lease == held.lease, request.c.state.in_(UNANSWERED))
        .values(state=state, lease=None, lease_until=None, **values)
    )
    return bool(done.rowcount)


def failed(database: Database, held: Leased, error: Exception, limits: Limits, *, polled: bool = False) -> RequestState:
    """Put a request back, to be tried again after a while; after its last attempt it is a dead letter.

    One that was `polled` in vain counts an attempt for it, and is polled again: the provider has the picture.
    """
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
    tried = held.attempts + polled
    dead = isinstance(error, Refused) or _unreadable(error) or tried >= limits.attempts
    if isinstance(error, Busy):
        dead = False
    again = RequestState.submitted if polled else RequestState.queued
    state = RequestState.dead if dead else again
    wait = error.retry_after if isinstance(error, Busy) else back_off(tried)
    attempts = tried - 1 if isinstance(error, Busy) else tried

    def write() -> None:
        with database.writing() as connection:
            now = time.time()
            finished = now if dead else None
            if not close(
                connection, held, state, error=reason, run_after=now + wait, attempts=attempts, finished=finished
            ):
                return
            if _unreadable(error):
                connection.execute(
                    sa.update(image)
                    .where(image.c.id == held.image_id, image.c.state == ImageState.active)
                    .values(state=ImageState.unreadable, **_reason(error))
                )
            if dead:
                said = {"request": held.id, "provider_id": held.provider_id, "error": reason}
                connection.execute(
                    sa.insert(event).values(image_id=held.image_id, kind="failed", body=said, created=now)
                )

    trying_again(write)
    return state


def _unreadable(error: Exception) -> bool:
    from isc.serve.reading import Unreadable

    return isinstance(error, Unreadable)


def _reason(error: Exception) -> dict[str, object]:
    """Return the columns of a picture that cannot be read."""
    why = getattr(error, "why", None)
    return why.of_image() if isinstance(why, Why) else {"reason": str(error)[:500], "reason_values": None}


def back_off(attempts: int) -> float:
    """Return the seconds to wait before the next attempt: doubled each time, of which a random half is left out."""
    return float(min(LONGEST, BACK_OFF * 2 ** max(0, attempts - 1))) * random.uniform(0.5, 1)


def give_back(database: Database, held: Sequence[Leased]) -> None:
    """Put requests back that were not worked on; the attempt does not count."""

    def write() -> None:
        with database.writing() as connection:
            for one in held:
                close(connection, one, RequestState.queued, attempts=max(0, one.attempts - 1), run_after=time.time())

    if held:
        trying_again(write)


def note_jobs(database: Database, jobs: Sequence[tuple[Leased, str]]) -> None:
    """Note the ids under which a provider will get the pictures, so that one that calls back at once is known."""

    def write() -> None:
        with database.writing() as connection:
            for one, job in jobs:
                mine = (request.c.id == one.id) & (request.c.lease == one.lease)
                connection.execute(sa.update(request).where(mine).values(external_id=job))

    if jobs:
        trying_again(write)


def submitted(database: Database, held: Leased, job: str) -> None:
    """Note that the provider has the picture, under its own id of the job."""

    def write() -> None:
        with database.writing() as connection:
            close(connection, held, RequestState.submitted, external_id=job, run_after=time.time())

    trying_again(write)


def take_submitted(
    database: Database, provider_id: int, *, limit: int, every: float, job: str | None = None
) -> list[Leased]:
    """Lease submitted requests that are due to be polled, or the one whose job called back.

    A provider may call back before its receipt is noted, or after it was given up.
    """
    now, ticket = time.time(), secrets.token_hex(16)
    due = (request.c.state == RequestState.submitted) & (request.c.run_after <= now - every)
    if job is not None:
        due = (request.c.external_id == job) & request.c.state.in_(UNANSWERED)
    wanted = sa.select(request.c.id).where(request.c.provider_id == provider_id, due)

    with database.reading() as connection:  # without the lock of a writer
        if connection.execute(wanted.limit(1)).first() is None:
            return []

    def take() -> list[Leased]:
        with database.writing() as connection:
            ids = list(connection.scalars(wanted.limit(limit)))
            values = {"lease": ticket, "run_after": now}
            connection.execute(sa.update(request).where(request.c.id.in_(ids)).values(values))
            return _held(connection, request.c.lease == ticket)

    return list(trying_again(take))


def send_again(connection: Connection, *, request_ids: Sequence[int] = (), provider_name: str | None = None) -> int:
    """Queue dead letters again, these or all of a provider, and return their number.

    Those of a provider that is in use no more stay: nobody would answer.
    """
    in_use = sa.select(provider.c.id).where(provider.c.current)
    chosen: Any = request.c.id.in_(request_ids)
    if provider_name is not None:
        chosen, in_use = sa.true(), in_use.where(provider.c.name == provider_name)
    values = {"state": RequestState.queued, "attempts": 0, "run_after": time.time(), "error": None, "finished": None}
    dead = (request.c.state == RequestState.dead) & request.c.provider_id.in_(in_use)
    asked = sa.update(request).where(dead, chosen).values(values)
    return int(connection.execute(asked).rowcount)
