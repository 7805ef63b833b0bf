"""Rows of the database as the values of the API."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.api.models import (
    CaptionResult,
    Copy,
    Image,
    LabelResult,
    NumberResult,
    ProductResult,
    ProviderRequest,
    ProviderState,
    Reason,
    Results,
    Said,
    Suggestion,
    Vote,
    WrittenCaption,
)
from isc.serve.api.problems import ApiProblem
from isc.serve.captions import written_captions
from isc.serve.kinds import Decision, Kind, SuggestionState
from isc.serve.reasons import reason_text
from isc.serve.requests import OPEN
from isc.serve.schema import RESULTS, circuit, image, number, provider, request, suggestion, vote
from isc.serve.statistics import backlogs

Row = Any  # of SQLAlchemy, by the names of its columns
PREVIEW = "/pictures/{}/preview.jpg"
SHOP = "/pictures/shop/{}.jpg"


def cursor_of(*key: float | int) -> str:
    """Return the cursor of the rows after this key; its form is nobody's business."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def key_of(cursor: str, length: int) -> list[float]:
    """Return the key of a cursor. Raises ApiProblem for a text that is none."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        key = None
    usable = isinstance(key, list) and len(key) == length
    if not usable or not all(isinstance(one, int | float) and abs(one) < 2**53 for one in key):
        raise ApiProblem(422, "cursor: expected one that an answer gave as next")
    return list(key)


def image_of(row: Row) -> Image:
    return Image(
        id=row.id, sha256=row.sha256, name=row.name, bytes=row.bytes, width=row.width, height=row.height, pdq=row.pdq,
        state=row.state, reason=reason_of(row.reason, row.reason_values), uploader=row.uploader,
        first_seen=row.first_seen, preview=PREVIEW.format(row.id),
    )  # fmt: skip


def reason_of(text: str | None, values: dict[str, Any] | None) -> Reason | None:
    """Return a stored reason, with its English text."""
    if text is None:
        return None
    key = None if values is None else text
    return Reason(text=reason_text(text, values), key=key, values=values or {})


def one_image(connection: Connection, number: int) -> Row:
    """Return the row of a picture. Raises ApiProblem 404."""
    row = connection.execute(sa.select(image).where(image.c.id == number)).first()
    if row is None:
        raise ApiProblem(404, f"image {number}: is not there")
    return row


def requests_where(
    connection: Connection, *conditions: sa.ColumnElement[bool], limit: int = 500
) -> list[ProviderRequest]:
    rows = connection.execute(
        sa.select(request, provider.c.name, provider.c.version)
        .join(provider, provider.c.id == request.c.provider_id)
        .where(*conditions)
        .order_by(request.c.id)
        .limit(limit)
    )
    return [
        ProviderRequest(
            id=row.id, image=row.image_id, provider=row.name, version=row.version, state=row.state,
            attempts=row.attempts, error=row.error, created=row.created, finished=row.finished,
        )
        for row in rows
    ]  # fmt: skip


def results_of(connection: Connection, number_of_image: int) -> Results:
    """Return all that was said about a picture. Raises ApiProblem 404."""
    row = one_image(connection, number_of_image)
    asked = requests_where(connection, request.c.image_id == number_of_image)
    return Results(
        image=image_of(row),
        open=sum(one.state in OPEN for one in asked),
        copies=_said(connection, Kind.copy, number_of_image, lambda one: copy_of(connection, one)),
        labels=_said(connection, Kind.label, number_of_image, label_of),
        captions=_said(connection, Kind.caption, number_of_image, caption_of),
        products=_said(connection, Kind.product, number_of_image, product_of),
        written=written_of(connection, number_of_image),
        numbers=_said(connection, Kind.number, number_of_image, number_of),
        requests=asked,
    )


def _said(connection: Connection, kind: Kind, image_id: int, shape: Callable[[Row], Any]) -> list[Any]:
    table = RESULTS[kind]
    beside = (suggestion.c.kind == kind) & (suggestion.c.result_id == table.c.id)
    who = (provider.c.name.label("who"), provider.c.version.label("version"))
    state = (suggestion.c.id.label("suggestion_id"), suggestion.c.state, suggestion.c.why, suggestion.c.why_values)
    rows = connection.execute(
        sa.select(table, *who, *state)
        .join(request, request.c.id == table.c.request_id)
        .join(provider, provider.c.id == request.c.provider_id)
        .outerjoin(suggestion, beside)
        .where(table.c.image_id == image_id)
        .order_by(table.c.id)
    ).all()
    return [
        Said(provider=row.who, version=row.version, suggestion=row.suggestion_id, state=row.state,
             why=reason_of(row.why, row.why_values), result=shape(row))
        for row in rows
    ]  # fmt: skip


def copy_of(connection: Connection, row: Row) -> Copy:
    return Copy(
        other=image_of(one_image(connection, row.other_id)), distance=row.distance, probability=row.probability,
        verdict=row.verdict, image_region=row.image_region, other_region=row.other_region, mirrored=row.mirrored,
        evidence=row.evidence,
    )  # fmt: skip


def label_of(row: Row) -> LabelResult:
    return LabelResult(name=row.name, wikidata=row.wikidata, score=row.score)


def caption_of(row: Row) -> CaptionResult:
    return CaptionResult(text=row.text, language=row.language, score=row.score)


def product_of(row: Row) -> ProductResult:
    return ProductResult(
        item_id=row.item_id, title=row.title, item_kind=row.item_kind, probability=row.probability, region=row.region,
        picture=row.picture, preview=SHOP.format(row.picture_id), evidence=row.evidence,
    )  # fmt: skip


def written_of(connection: Connection, image_id: int) -> list[WrittenCaption]:
    """Return the captions that people wrote about a picture, the last one of each language."""
    return [
        WrittenCaption(text=one.text, language=one.language, writer=one.writer, created=one.created)
        for one in written_captions(connection, image_id=image_id)
    ]


def number_of(row: Row) -> NumberResult:
    return NumberResult(classifier=row.classifier, value=row.value)


SUGGESTIONS = sa.select(suggestion, provider.c.name.label("who"), provider.c.version).join(
    provider, provider.c.id == suggestion.c.provider_id
)


def suggestion_of(connection: Connection, row: Row) -> Suggestion:
    """Return a suggestion with its picture and its result."""
    table = RESULTS[row.kind]
    found = connection.execute(sa.select(table).where(table.c.id == row.result_id)).one()
    return Suggestion(
        id=row.id, kind=row.kind, state=row.state, why=reason_of(row.why, row.why_values), audit=row.audit,
        score=row.score, priority=row.priority, provider=row.who, version=row.version, created=row.created,
        image=image_of(one_image(connection, row.image_id)),
        copy_match=copy_of(connection, found) if row.kind == Kind.copy else None,
        label=label_of(found) if row.kind == Kind.label else None,
        caption=caption_of(found) if row.kind == Kind.caption else None,
        product=product_of(found) if row.kind == Kind.product else None,
    )  # fmt: skip


def one_suggestion(connection: Connection, number_of_suggestion: int) -> Suggestion:
    """Return a suggestion. Raises ApiProblem 404."""
    row = connection.execute(SUGGESTIONS.where(suggestion.c.id == number_of_suggestion)).first()
    if row is None:
        raise ApiProblem(404, f"suggestion {number_of_suggestion}: is not there")
    return suggestion_of(connection, row)


def votes_of(connection: Connection, number_of_suggestion: int) -> list[Vote]:
    rows = connection.execute(sa.select(vote).where(vote.c.suggestion_id == number_of_suggestion).order_by(vote.c.id))
    return [Vote(reviewer=r.reviewer, decision=r.decision, trusted=r.trusted, created=r.created) for r in rows]


def queue(
    connection: Connection,
    *,
    state: SuggestionState,
    order: str,
    kind: Kind | None,
    provider_name: str | None,
    mine_of: str | None,
    reviewer: str,
    after: str | None,
    limit: int,
) -> tuple[list[Suggestion], str | None]:
    """Return a page of suggestions and the cursor of the next one.

    Of unreviewed ones those are left out that the reviewer has voted on already: another person is needed for them.
    """
    sorting: dict[str, tuple[sa.ColumnElement[Any], bool]] = {
        "priority": (suggestion.c.priority, True),
        "random": (suggestion.c.shuffle, False),
        "newest": (suggestion.c.created, True),
    }
    column, falling = sorting[order]
    wanted = SUGGESTIONS.where(suggestion.c.state == state)
    if kind is not None:
        wanted = wanted.where(suggestion.c.kind == kind)
    if provider_name is not None:
        wanted = wanted.where(provider.c.name == provider_name)
    if mine_of is not None:
        wanted = wanted.join(image, image.c.id == suggestion.c.image_id).where(image.c.uploader == mine_of)
    if state is SuggestionState.unreviewed:
        wanted = wanted.where(~_voted(reviewer))
    if after is not None:
        value, number_of_row = key_of(after, 2)
        beyond = column < value if falling else column > value
        wanted = wanted.where(beyond | ((column == value) & (suggestion.c.id > int(number_of_row))))
    by = column.desc() if falling else column.asc()
    rows = connection.execute(wanted.order_by(by, suggestion.c.id).limit(limit + 1)).all()
    items = [suggestion_of(connection, row) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return items, None if last is None else cursor_of(getattr(last, column.key or ""), last.id)


def _voted(reviewer: str) -> sa.ColumnElement[bool]:
    """Return whether the reviewer's last vote about a suggestion stands."""
    mine = (vote.c.suggestion_id == suggestion.c.id) & (vote.c.reviewer == reviewer)
    last = sa.select(vote.c.decision).where(mine).order_by(vote.c.number.desc()).limit(1).scalar_subquery()
    return sa.func.coalesce(last, Decision.undo.value) != Decision.undo.value


def provider_states(connection: Connection) -> list[ProviderState]:
    """Return all providers with their queues."""
    facts = {(row.name, row.version): row for row in connection.execute(sa.select(provider))}
    open_until = {row.name: row for row in connection.execute(sa.select(circuit))}
    now = time.time()
    found = []
    for one in backlogs(connection):
        row, breaker = facts[one.provider, one.version], open_until.get(one.provider)
        found.append(
            ProviderState(
                provider=one.provider, version=one.version, current=row.current, kinds=row.kinds, states=one.states,
                oldest_seconds=one.oldest, latency_p50=one.latency_p50, latency_p99=one.latency_p99,
                circuit_open_seconds=max(0.0, breaker.open_until - now) if breaker else 0.0,
                circuit_reason=breaker.reason if breaker else None,
            )
        )  # fmt: skip
    return found


def numbers_of(connection: Connection, image_ids: Sequence[int], classifier: str) -> dict[int, float]:
    """Return the numbers of one classifier by picture."""
    wanted = (number.c.image_id.in_(image_ids)) & (number.c.classifier == classifier)
    rows = connection.execute(sa.select(number.c.image_id, number.c.value).where(wanted))
    return {row.image_id: row.value for row in rows}
