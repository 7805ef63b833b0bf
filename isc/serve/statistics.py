"""Figures for the dashboards: acceptance with its interval, calibration of scores against votes, latency, backlog."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.evaluate.metrics import wilson
from isc.serve.database import column_pairs
from isc.serve.kinds import RequestState, SuggestionState
from isc.serve.schema import outbox, provider, request, suggestion

BINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
LATENCIES = 2_000  # last answers that a provider's latency is taken from
DAY = 86_400.0


@dataclass(frozen=True)
class Acceptance:
    """The share of decided suggestions that were accepted, with the interval of 95 %."""

    accepted: int
    decided: int
    share: float | None
    low: float
    high: float

    @classmethod
    def of(cls, accepted: int, decided: int) -> Acceptance:
        low, high = wilson(accepted, decided) if decided else (0.0, 1.0)
        return cls(accepted, decided, accepted / decided if decided else None, low, high)


@dataclass(frozen=True)
class Bin:
    """Decided suggestions with a score in [low, high): their number, and the share that was accepted."""

    low: float
    high: float
    decided: int
    accepted: int
    mean_score: float | None


@dataclass(frozen=True)
class Day:
    """The decisions of one day (UTC, as YYYY-MM-DD)."""

    day: str
    accepted: int
    rejected: int


@dataclass(frozen=True)
class Latency:
    """The seconds from request to answer below which half, and 99 in 100, of the last answers lie, and their number."""

    p50: float | None
    p99: float | None
    answers: int


@dataclass(frozen=True)
class ProviderFigures:
    """The figures of one version of a provider and one kind.

    `audit` is the acceptance of withheld suggestions that were shown at random.
    """

    provider: str
    version: str
    current: bool
    kind: str
    states: dict[str, int]
    acceptance: Acceptance
    audit: Acceptance
    calibration: list[Bin]
    days: list[Day]
    latency: Latency


@dataclass(frozen=True)
class Backlog:
    """The requests of a provider by state, the age of the oldest one that waits, and its latency in seconds."""

    provider: str
    version: str
    states: dict[str, int]
    oldest: float | None
    latency_p50: float | None
    latency_p99: float | None


@dataclass(frozen=True)
class Window:
    """A span of time, [since, until) in seconds since 1970; None: without that end."""

    since: float | None = None
    until: float | None = None

    def holds(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Return the condition that a time lies in it."""
        begun = sa.true() if self.since is None else column >= self.since
        return begun & (sa.true() if self.until is None else column < self.until)


ALWAYS = Window()


def figures(connection: Connection, *, days: int = 30, window: Window = ALWAYS) -> list[ProviderFigures]:
    """Return the figures of every provider and kind that has suggestions.

    Acceptance and calibration are of what was decided in the window, latency of what was answered in it, and the states
    of what was suggested in it. The last `days` are counted from its end.
    """
    pairs = connection.execute(
        sa.select(provider.c.id, provider.c.name, provider.c.version, provider.c.current, suggestion.c.kind)
        .join(suggestion, suggestion.c.provider_id == provider.c.id)
        .distinct()
        .order_by(provider.c.name, provider.c.id, suggestion.c.kind)
    ).all()
    return [_figures(connection, row, days, window) for row in pairs]


def _figures(connection: Connection, row: Any, days: int, window: Window) -> ProviderFigures:
    mine = (suggestion.c.provider_id == row.id) & (suggestion.c.kind == row.kind)
    suggested = mine & window.holds(suggestion.c.created)
    counted = sa.select(suggestion.c.state, sa.func.count()).where(suggested).group_by(suggestion.c.state)
    states = column_pairs(connection, counted)
    mine = mine & window.holds(suggestion.c.decided)
    decided = mine & suggestion.c.state.in_((SuggestionState.accepted, SuggestionState.rejected))
    accepted = suggestion.c.state == SuggestionState.accepted
    tally = (sa.func.coalesce(sa.func.sum(sa.case((accepted, 1), else_=0)), 0), sa.func.count())
    usual = connection.execute(sa.select(*tally).where(decided, sa.not_(suggestion.c.audit))).one()
    audited = connection.execute(sa.select(*tally).where(decided, suggestion.c.audit)).one()
    return ProviderFigures(
        provider=row.name,
        version=row.version,
        current=bool(row.current),
        kind=row.kind,
        states=states,
        acceptance=Acceptance.of(int(usual[0]), int(usual[1])),
        audit=Acceptance.of(int(audited[0]), int(audited[1])),
        calibration=_calibration(connection, decided, accepted),
        days=_days(connection, decided, accepted, since=(window.until or time.time()) - days * DAY),
        latency=_latency(connection, row.id, window),
    )


def _calibration(
    connection: Connection, decided: sa.ColumnElement[bool], accepted: sa.ColumnElement[bool]
) -> list[Bin]:
    tenth = sa.func.least if connection.dialect.name != "sqlite" else sa.func.min
    number = tenth(sa.func.floor(suggestion.c.score * 10), 9).label("bin")
    rows = connection.execute(
        sa.select(
            number, sa.func.count(), sa.func.sum(sa.case((accepted, 1), else_=0)), sa.func.avg(suggestion.c.score)
        )
        .where(decided)
        .group_by(number)
    )
    found = {int(at): (int(count), int(yes), float(mean)) for at, count, yes, mean in rows}
    return [Bin(BINS[at], BINS[at + 1], *found[at]) for at in sorted(found)]


def _days(
    connection: Connection, decided: sa.ColumnElement[bool], accepted: sa.ColumnElement[bool], *, since: float
) -> list[Day]:
    number = sa.func.floor(suggestion.c.decided / DAY).label("day")
    rows = connection.execute(
        sa.select(number, sa.func.count(), sa.func.sum(sa.case((accepted, 1), else_=0)))
        .where(decided, suggestion.c.decided >= since)
        .group_by(number)
        .order_by(number)
    )
    return [
        Day(time.strftime("%Y-%m-%d", time.gmtime(float(day) * DAY)), int(yes), int(count) - int(yes))
        for day, count, yes in rows
    ]


def backlogs(connection: Connection) -> list[Backlog]:
    """Return the state of the queue of every provider."""
    found = []
    for number, name, version in connection.execute(
        sa.select(provider.c.id, provider.c.name, provider.c.version).order_by(provider.c.name, provider.c.id)
    ).all():
        mine = request.c.provider_id == number
        counted = sa.select(request.c.state, sa.func.count()).where(mine).group_by(request.c.state)
        states = column_pairs(connection, counted)
        waiting = mine & request.c.state.in_((RequestState.queued, RequestState.leased))
        oldest = connection.execute(sa.select(sa.func.min(request.c.created)).where(waiting)).scalar()
        taken = _latency(connection, number, ALWAYS)
        age = None if oldest is None else time.time() - oldest
        found.append(Backlog(name, version, states, age, taken.p50, taken.p99))
    return found


def _latency(connection: Connection, provider_id: int, window: Window) -> Latency:
    last = connection.execute(
        sa.select(request.c.finished - request.c.created)
        .where(request.c.provider_id == provider_id, request.c.state == RequestState.done)
        .where(window.holds(request.c.finished))
        .order_by(request.c.id.desc())
        .limit(LATENCIES)
    )
    taken = sorted(float(seconds) for (seconds,) in last)
    return Latency(_quantile(taken, 0.5), _quantile(taken, 0.99), len(taken))


def undelivered(connection: Connection) -> dict[str, int]:
    """Return the number of messages of the outbox by state."""
    counted = sa.select(outbox.c.state, sa.func.count()).group_by(outbox.c.state)
    return column_pairs(connection, counted)


def _quantile(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None
