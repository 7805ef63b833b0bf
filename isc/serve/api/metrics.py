"""Metrics in the text form of Prometheus, read from the tables: they are the same whichever process is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Response
from sqlalchemy.engine import Connection

from isc.serve.api.guard import Caller, caller_of
from isc.serve.api.images import Shared
from isc.serve.api.problems import answers
from isc.serve.api.queries import provider_states
from isc.serve.schema import image, suggestion, vote
from isc.serve.statistics import undelivered

router = APIRouter(tags=["operation"])
MEDIA = "text/plain; version=0.0.4; charset=utf-8"
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}
}


@router.get("/metrics", response_class=Response, responses={**TEXT, **answers()})
def metrics(state: Shared, _: Annotated[Caller, Depends(caller_of)]) -> Response:
    """Return the counts of pictures, requests, suggestions, votes and messages, and the latency of each provider."""
    with state.database.reading() as connection:
        return Response(exposition(connection), media_type=MEDIA)


def exposition(connection: Connection) -> bytes:
    """Return all metrics in Prometheus' text form."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, about: str, labels: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], float]]) -> None:
        one = Gauge(f"isc_{name}", about, labels, registry=registry)
        for values, number in rows:
            (one.labels(*values) if labels else one).set(number)

    gauge("images", "Pictures by state.", ("state",), _counts(connection, image.c.state))
    gauge(
        "suggestions",
        "Suggestions by kind and state.",
        ("kind", "state"),
        _counts(connection, suggestion.c.kind, suggestion.c.state),
    )
    gauge("votes", "Votes by decision.", ("decision",), _counts(connection, vote.c.decision))
    gauge(
        "outbox",
        "Messages to the outside by state.",
        ("state",),
        [((k,), n) for k, n in undelivered(connection).items()],
    )
    states = provider_states(connection)
    who = ("provider", "version")
    gauge("requests", "Requests by provider and state.", (*who, "state"),
          [((s.provider, s.version, k), n) for s in states for k, n in s.states.items()])  # fmt: skip
    for name, about in (
        ("oldest_seconds", "Age of the oldest request that waits."),
        ("latency_p50", "Seconds from request to answer: the middle of the last answers."),
        ("latency_p99", "Seconds from request to answer: 99 in 100 of the last answers are faster."),
        ("circuit_open_seconds", "Seconds until a provider is asked again."),
    ):
        rows = [((s.provider, s.version), value) for s in states if (value := getattr(s, name)) is not None]
        gauge(f"provider_{name}", about, who, rows)
    found: bytes = generate_latest(registry)
    return found


def _counts(connection: Connection, *columns: sa.Column[str]) -> list[tuple[tuple[str, ...], float]]:
    rows = connection.execute(sa.select(*columns, sa.func.count()).group_by(*columns))
    return [(tuple(map(str, row[:-1])), float(row[-1])) for row in rows]
