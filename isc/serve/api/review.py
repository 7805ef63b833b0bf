"""The routes of review: the queue, votes, and their record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from isc.serve.api.bodies import NewVote, NewVotes
from isc.serve.api.guard import Caller, Reviewing
from isc.serve.api.images import Cursor, ImageId, Limit, Shared
from isc.serve.api.models import (
    Suggestion,
    SuggestionHistory,
    Suggestions,
    VoteResult,
    VoteResults,
)
from isc.serve.api.problems import answers
from isc.serve.api.queries import one_suggestion, queue, votes_of
from isc.serve.api.state import State
from isc.serve.api.streams import ExportedDecision, stream_of
from isc.serve.feedback import decided_lines
from isc.serve.kinds import Decision, Kind, SuggestionState
from isc.serve.votes import Reviewer, cast

router = APIRouter(prefix="/api", tags=["review"])
LINES = stream_of("application/x-ndjson", ExportedDecision, "One JSON object a line.")


@router.get("/suggestions", response_model=Suggestions, responses=answers())
def list_suggestions(
    state: Shared,
    caller: Reviewing,
    *,
    suggestion_state: Annotated[SuggestionState, Query(alias="state")] = SuggestionState.unreviewed,
    order: Annotated[str, Query(pattern="^(priority|random|newest)$")] = "priority",
    kind: Kind | None = None,
    provider: Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9_-]+$")] = None,
    mine: bool = False,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Suggestions:
    """Return suggestions: the unreviewed ones by priority, unless something else is asked for.

    `mine` are those about pictures that the caller uploaded. What the caller has voted on already is left out of the
    unreviewed ones.
    """
    with state.database.reading() as connection:
        items, following = queue(
            connection,
            state=suggestion_state,
            order=order,
            kind=kind,
            provider_name=provider,
            mine_of=caller.name if mine else None,
            reviewer=caller.name,
            after=cursor,
            limit=limit,
        )
    return Suggestions(items=items, next=following)


@router.get("/suggestions/{suggestion_id}", response_model=SuggestionHistory, responses=answers(404))
def get_suggestion(state: Shared, _: Reviewing, suggestion_id: ImageId) -> SuggestionHistory:
    """Return a suggestion with the record of its votes."""
    with state.database.reading() as connection:
        found: Suggestion = one_suggestion(connection, suggestion_id)
        return SuggestionHistory(suggestion=found, votes=votes_of(connection, suggestion_id))


@router.put("/suggestions/{suggestion_id}/vote", response_model=VoteResult, responses=answers(404))
def vote(state: Shared, caller: Reviewing, suggestion_id: ImageId, body: NewVote) -> VoteResult:
    """Vote on a suggestion. The same vote twice is one; another one later replaces it, and both stay in the record."""
    return _cast(state, caller, {suggestion_id: body.decision})[0]


@router.delete("/suggestions/{suggestion_id}/vote", response_model=VoteResult, responses=answers(404))
def undo(state: Shared, caller: Reviewing, suggestion_id: ImageId) -> VoteResult:
    """Take one's vote back."""
    return _cast(state, caller, {suggestion_id: Decision.undo})[0]


@router.post("/votes", response_model=VoteResults, responses=answers(404))
def vote_batch(state: Shared, caller: Reviewing, body: NewVotes) -> VoteResults:
    """Vote on several suggestions: all votes are recorded, or none. Of two about one suggestion the last counts."""
    return VoteResults(items=_cast(state, caller, {one.suggestion: one.decision for one in body.votes}))


def _cast(state: State, caller: Caller, votes: dict[int, Decision]) -> list[VoteResult]:
    reviewer = Reviewer(caller.name, caller.holder.trusted)
    done = cast(state.database, state.settings, reviewer, votes)
    return [VoteResult(suggestion=one.suggestion, state=one.state, new=one.new) for one in done]


@router.get("/export", response_class=Response, responses={**LINES, **answers()})
def export(state: Shared, _: Reviewing, after: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0) -> Response:
    """Return all decided suggestions after this id with their votes, one JSON object a line."""

    def lines() -> Iterator[str]:
        yield from decided_lines(state.database, after=after)

    return StreamingResponse(lines(), media_type="application/x-ndjson")
