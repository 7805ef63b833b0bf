"""Votes: the record of what reviewers said; a suggestion's state follows from it, and only a new vote changes it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.database import Database, trying_again
from isc.serve.kinds import Decision, Kind, SuggestionState, Verification
from isc.serve.outbox import FEEDBACK, WEBHOOK, enqueue
from isc.serve.schema import RESULTS, event, image, provider, suggestion, vote
from isc.serve.settings import Settings

DECIDED = {Decision.accept: SuggestionState.accepted, Decision.reject: SuggestionState.rejected}


@dataclass(frozen=True)
class Reviewer:
    """A person who votes, by the name of the token."""

    name: str
    trusted: bool = False


@dataclass(frozen=True)
class Voted:
    """The result of a vote: the state of the suggestion now, and whether the vote was new."""

    suggestion: int
    state: SuggestionState
    new: bool


class NoSuggestion(LookupError):
    """A suggestion that is not there."""


def cast(database: Database, settings: Settings, reviewer: Reviewer, votes: Mapping[int, Decision]) -> list[Voted]:
    """Record the votes of a reviewer by suggestion, all or none. A vote like the reviewer's last one is the same vote.

    Raises NoSuggestion.
    """

    def write() -> list[Voted]:
        with database.writing() as connection:
            return [record_vote(connection, settings, reviewer, number, votes[number]) for number in sorted(votes)]

    return list(trying_again(write))


def record_vote(
    connection: Connection, settings: Settings, reviewer: Reviewer, number: int, decision: Decision
) -> Voted:
    """Record one vote within a transaction, and give the suggestion the state that follows. Raises NoSuggestion."""
    one = connection.execute(sa.select(suggestion).where(suggestion.c.id == number).with_for_update()).first()
    if one is None:
        raise NoSuggestion(f"suggestion {number}: is not there")
    mine = (vote.c.suggestion_id == number) & (vote.c.reviewer == reviewer.name)
    last = connection.execute(
        sa.select(vote.c.decision, vote.c.number).where(mine).order_by(vote.c.number.desc()).limit(1)
    ).first()
    before = last.decision if last else Decision.undo
    if decision == before:
        return Voted(number, SuggestionState(one.state), new=False)
    now = time.time()
    count = last.number + 1 if last else 1
    row = {"suggestion_id": number, "reviewer": reviewer.name, "number": count, "decision": decision,
           "trusted": reviewer.trusted, "created": now}  # fmt: skip
    key = connection.execute(sa.insert(vote).values(row)).inserted_primary_key
    state = verified(
        _standing(connection, number), settings.rules(Kind(one.kind)).verified_by, SuggestionState(one.state)
    )
    if state != one.state:
        decided = now if state in DECIDED.values() else None
        connection.execute(sa.update(suggestion).where(suggestion.c.id == number).values(state=state, decided=decided))
        _tell(connection, settings, one, state, vote_id=key[0] if key else 0)
    return Voted(number, state, new=True)


@dataclass(frozen=True)
class Standing:
    """The last vote of a reviewer about a suggestion."""

    decision: Decision
    trusted: bool


def _standing(connection: Connection, number: int) -> list[Standing]:
    """Return the last vote of every reviewer, the latest last; those taken back are left out."""
    rows = connection.execute(
        sa.select(vote.c.reviewer, vote.c.decision, vote.c.trusted)
        .where(vote.c.suggestion_id == number)
        .order_by(vote.c.id)
    ).all()
    last: dict[str, Standing] = {}
    for reviewer, decision, trusted in rows:
        last.pop(reviewer, None)
        last[reviewer] = Standing(Decision(decision), bool(trusted))
    return [one for one in last.values() if one.decision is not Decision.undo]


def verified(standing: Sequence[Standing], rule: Verification, now: SuggestionState) -> SuggestionState:
    """Return the state that the standing votes give a suggestion.

    Of conflicting votes under the rule `one` the latest counts. Without enough votes a decided suggestion is open
    again, a withheld or hidden one stays so.
    """
    said = [one for one in standing if one.decision in DECIDED]
    if rule is Verification.trusted:
        said = [one for one in said if one.trusted]
    if said and rule is not Verification.two:
        return DECIDED[said[-1].decision]
    for decision, state in DECIDED.items():
        others = sum(one.decision is not decision for one in said)
        if len(said) - others >= 2 + others:
            return state
    return SuggestionState.unreviewed if now in DECIDED.values() else now


def _tell(
    connection: Connection, settings: Settings, one: sa.Row[tuple[object, ...]], state: SuggestionState, *, vote_id: int
) -> None:
    """Tell the page, the webhooks and the provider of a new state, in the same transaction."""
    body = verdict_body(connection, one, state)
    now = time.time()
    told = {"sha256" if key == "image" else key: value for key, value in body.items()}
    connection.execute(sa.insert(event).values(image_id=one.image_id, kind="decided", body=told, created=now))
    for name in settings.webhooks:
        enqueue(connection, f"{WEBHOOK}{name}", f"{name}:decided:{vote_id}", {"event": "decided", **body})
    who = str(body["provider"])
    own = settings.providers.get(who)
    if own is not None and own.feedback:
        enqueue(connection, f"{FEEDBACK}{who}", f"{who}:verdict:{vote_id}", {"event": "verdict", **body})


def verdict_body(connection: Connection, one: sa.Row[tuple[object, ...]], state: SuggestionState) -> dict[str, object]:
    """Return the facts on a suggestion: the pictures by SHA-256, the result, and the state."""
    table = RESULTS[one.kind]
    found = connection.execute(sa.select(table).where(table.c.id == one.result_id)).mappings().one()
    who = connection.execute(
        sa.select(provider.c.name, provider.c.version).where(provider.c.id == one.provider_id)
    ).one()
    digest = sa.select(image.c.sha256)
    hidden = ("id", "request_id", "image_id", "other_id", "picture_id")
    body: dict[str, object] = {
        "suggestion": one.id,
        "kind": one.kind,
        "state": str(state),
        "provider": who.name,
        "version": who.version,
        "image": connection.execute(digest.where(image.c.id == one.image_id)).scalar(),
        "result": {key: value for key, value in found.items() if key not in hidden},
    }
    if "other_id" in found:
        body["other"] = connection.execute(digest.where(image.c.id == found["other_id"])).scalar()
    return body
