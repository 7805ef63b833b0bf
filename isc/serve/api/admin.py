"""The routes of operation: providers, dead letters, lists, statistics, the outbox, events, health."""

from __future__ import annotations

import time
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Header, Query, Response
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, StreamingResponse

from isc.serve.api.bodies import Again, NewListing, Retry
from isc.serve.api.broker import Place
from isc.serve.api.guard import Admin, Reviewing, Uploader
from isc.serve.api.health import troubles
from isc.serve.api.images import Cursor, ImageId, Limit, Shared, seen
from isc.serve.api.models import (
    MOST_ID,
    Counted,
    Health,
    ListEntry,
    Listings,
    Me,
    Message,
    Messages,
    ProviderRequests,
    ProviderStates,
)
from isc.serve.api.problems import ApiProblem, answers
from isc.serve.api.queries import cursor_of, key_of, provider_states, requests_where
from isc.serve.api.streams import EventData, stream_of
from isc.serve.database import insert_ignoring, trying_again
from isc.serve.kinds import Kind, RequestState, Role
from isc.serve.requests import send_again
from isc.serve.schema import listing, outbox, request
from isc.serve.statistics import ProviderFigures, Window, figures
from isc.serve.versions import ask_again

router = APIRouter(prefix="/api", tags=["operation"])
open_router = APIRouter(tags=["operation"])
ProviderName = Annotated[str, InPath(max_length=64, pattern="^[A-Za-z0-9_-]+$")]
EventPlace = r"^[0-9]{1,15}(-[0-9a-f]{1,50})?$"  # the id of an event, as it was sent
Time = Annotated[float | None, Query(ge=0, le=10**11, allow_inf_nan=False)]
EVENTS = stream_of("text/event-stream", EventData, "Server-sent events; the data of each is JSON.")


@router.get("/me", response_model=Me, responses=answers())
def me(caller: Uploader) -> Me:
    """Return whoever calls."""
    return Me(name=caller.name, role=caller.holder.role, trusted=caller.holder.trusted)


@router.get("/events", response_class=Response, responses={**EVENTS, **answers(404)})
def events(
    state: Shared,
    caller: Uploader,
    image: Annotated[int | None, Query(ge=1, le=MOST_ID)] = None,
    after: Annotated[str | None, Query(pattern=EventPlace)] = None,
    last_event_id: Annotated[str | None, Header(pattern=EventPlace)] = None,
) -> Response:
    """Stream events: `received`, `answered`, `failed`, `decided`, `state`, `caption`; of one picture, or of all.

    Those of all are for reviewers. `after`, or the header Last-Event-ID, is the id of the last event that was received:
    all that was not told until then comes first. An uploader names its picture.
    """
    if image is not None:
        with state.database.reading() as connection:
            seen(connection, caller, image)
    elif caller.holder.role is Role.upload:
        raise ApiProblem(403, "the events of all pictures are for reviewers; expected image=ID")
    since = last_event_id or after
    place = None if since is None else Place.read(since)
    return StreamingResponse(state.broker.listen(image, after=place), media_type="text/event-stream")


@router.get("/providers", response_model=ProviderStates, responses=answers())
def providers(state: Shared, _: Reviewing) -> ProviderStates:
    """Return all providers with their queues, latencies and circuits."""
    with state.database.reading() as connection:
        return ProviderStates(items=provider_states(connection))


@router.post("/providers/{name}/again", response_model=Counted, responses=answers(404))
def again(state: Shared, _: Admin, name: ProviderName, body: Again) -> Counted:
    """Ask the version of a provider that is in use about pictures that an earlier one has described."""
    count = ask_again(state.database, name, body.which)
    if count is None:
        raise ApiProblem(404, f"provider {name}: is not in use")
    return Counted(count=count)


@router.get("/statistics", response_model=list[ProviderFigures], responses=answers())
def statistics(
    state: Shared, _: Reviewing, *, days: Annotated[int, Query(ge=1, le=366)] = 30, since: Time = None,
    until: Time = None,
) -> list[ProviderFigures]:  # fmt: skip
    """Return acceptance, calibration, latency and decisions by provider, version, kind and day.

    `since` and `until` (seconds since 1970) leave out what was decided, answered or suggested before and after.
    """
    with state.database.reading() as connection:
        return figures(connection, days=days, window=Window(since, until))


@router.get("/requests", response_model=ProviderRequests, responses=answers())
def list_requests(
    state: Shared,
    _: Reviewing,
    request_state: Annotated[RequestState, Query(alias="state")] = RequestState.dead,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ProviderRequests:
    """List requests, the dead letters unless another state is asked for."""
    conditions = [request.c.state == request_state]
    if cursor is not None:
        conditions.append(request.c.id > int(key_of(cursor, 1)[0]))
    with state.database.reading() as connection:
        found = requests_where(connection, *conditions, limit=limit + 1)
    following = cursor_of(found[limit - 1].id) if len(found) > limit else None
    return ProviderRequests(items=found[:limit], next=following)


@router.post("/requests/retry", response_model=Counted, responses=answers())
def retry(state: Shared, _: Admin, body: Retry) -> Counted:
    """Send dead letters again; without ids and provider, none."""

    def write() -> int:
        with state.database.writing() as connection:
            return send_again(connection, request_ids=body.ids, provider_name=body.provider)

    return Counted(count=trying_again(write))


@router.get("/lists", response_model=Listings, responses=answers())
def lists(state: Shared, _: Reviewing) -> Listings:
    """Return the block list and the withhold list."""
    with state.database.reading() as connection:
        return Listings(items=[_entry(row) for row in connection.execute(sa.select(listing).order_by(listing.c.id))])


@router.post("/lists", status_code=201, response_model=ListEntry, responses=answers())
def add_to_list(state: Shared, _: Admin, body: NewListing) -> ListEntry:
    """Put a value on a list; one that is there stays as it is."""
    kind = Kind.label.value if body.action == "withhold" else "image"
    row = {"action": body.action, "kind": kind, "value": body.value, "note": body.note, "created": time.time()}

    def write() -> ListEntry:
        with state.database.writing() as connection:
            insert_ignoring(connection, listing, row)
            same = (listing.c.action == body.action) & (listing.c.value == body.value)
            return _entry(connection.execute(sa.select(listing).where(same)).one())

    result: ListEntry = trying_again(write)
    return result


@router.delete("/lists/{entry_id}", status_code=204, response_class=Response, responses=answers(404))
def remove_from_list(state: Shared, _: Admin, entry_id: ImageId) -> Response:
    """Remove an entry of a list."""

    def write() -> int:
        with state.database.writing() as connection:
            return int(connection.execute(sa.delete(listing).where(listing.c.id == entry_id)).rowcount)

    if not trying_again(write):
        raise ApiProblem(404, f"entry {entry_id}: is not there")
    return Response(status_code=204)


def _entry(row: sa.Row[tuple[object, ...]]) -> ListEntry:
    return ListEntry(id=row.id, action=row.action, kind=row.kind, value=row.value, note=row.note, created=row.created)


@router.get("/outbox", response_model=Messages, responses=answers())
def messages(
    state: Shared,
    _: Admin,
    message_state: Annotated[str, Query(alias="state", pattern="^(waiting|delivered|dead)$")] = "waiting",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Messages:
    """List messages to providers and webhooks."""
    wanted = sa.select(outbox).where(outbox.c.state == message_state).order_by(outbox.c.id).limit(limit + 1)
    if cursor is not None:
        wanted = wanted.where(outbox.c.id > int(key_of(cursor, 1)[0]))
    with state.database.reading() as connection:
        rows = connection.execute(wanted).all()
    items = [
        Message(id=r.id, destination=r.destination, key=r.key, state=r.state, attempts=r.attempts, error=r.error,
                created=r.created, delivered=r.delivered)
        for r in rows[:limit]
    ]  # fmt: skip
    return Messages(items=items, next=cursor_of(rows[limit - 1].id) if len(rows) > limit else None)


@router.post("/outbox/retry", response_model=Counted, responses=answers())
def retry_messages(state: Shared, _: Admin) -> Counted:
    """Send the messages again that their receivers refused."""

    def write() -> int:
        with state.database.writing() as connection:
            values = {"state": "waiting", "attempts": 0, "run_after": time.time()}
            return int(connection.execute(sa.update(outbox).where(outbox.c.state == "dead").values(values)).rowcount)

    return Counted(count=trying_again(write))


@open_router.get("/healthz", response_model=Health)
def healthz() -> Health:
    """Say that this process runs."""
    return Health(status="ok")


@open_router.get("/readyz", response_model=Health, responses={503: {"model": Health}})
def readyz(state: Shared) -> Response:
    """Say whether uploads can be taken in: the database answers, and the disk has room."""
    problems = troubles(state)
    body = Health(status="ok" if not problems else "not ready", problems=problems)
    return JSONResponse(body.model_dump(), 200 if not problems else 503)
