"""The page that asks three questions about each caption, and lets people write a better one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse

from isc.errors import InputError
from isc.serve.api.guard import Caller, Reviewing
from isc.serve.api.images import ImageId, Shared
from isc.serve.api.models import Suggestion
from isc.serve.api.pages import AHEAD, Name, queue_of
from isc.serve.api.problems import ApiProblem
from isc.serve.api.queries import one_suggestion, written_of
from isc.serve.api.render import render
from isc.serve.api.state import State
from isc.serve.captions import rate, standing_answers, write_caption
from isc.serve.kinds import Decision, Kind, Question
from isc.serve.votes import Reviewer

router = APIRouter()
Choice = Annotated[Decision | None, Form()]


@router.get("/captions")
def captions(http: Request, state: Shared, caller: Reviewing, provider: Name = None) -> HTMLResponse:
    """One caption after the other, with its picture and the three questions."""
    return _card(http, state, caller, provider or "", "captions.html")


@router.post("/ui/captions/{suggestion_id}")
def answer_questions(
    http: Request, state: Shared, caller: Reviewing, *, suggestion_id: ImageId, right: Choice = None,
    helpful: Choice = None, encyclopaedic: Choice = None, text: Annotated[str, Form(max_length=2000)] = "",
    provider: Name = None,
) -> HTMLResponse:  # fmt: skip
    """Record the answers and the corrected caption, if it is another one, and show the next."""
    with state.database.reading() as connection:
        one = one_suggestion(connection, suggestion_id)
    if one.caption is None:
        raise ApiProblem(404, f"suggestion {suggestion_id}: is no caption")
    given = zip(Question, (right, helpful, encyclopaedic), strict=True)
    said = {question: answer for question, answer in given if answer is not None}
    if text.split() and text.split() != one.caption.text.split():
        try:
            write_caption(state.database, caller.name, one.image.id, text, language=one.caption.language)
        except InputError as error:
            raise ApiProblem(422, str(error)) from error
    rate(state.database, state.settings, Reviewer(caller.name, caller.holder.trusted), suggestion_id, said)
    return _card(http, state, caller, provider or "", "caption_card.html", last=suggestion_id)


@router.post("/ui/captions/{suggestion_id}/undo")
def answer_again(
    http: Request, state: Shared, caller: Reviewing, *, suggestion_id: ImageId, provider: Name = None
) -> HTMLResponse:
    """Take the answers back, and show the caption again with them filled in."""
    with state.database.reading() as connection:
        one = one_suggestion(connection, suggestion_id)
        before = standing_answers(connection, suggestions=[suggestion_id])
    mine = {question: said[caller.name] for (_, question), said in before.items() if caller.name in said}
    reviewer = Reviewer(caller.name, caller.holder.trusted)
    rate(state.database, state.settings, reviewer, suggestion_id, dict.fromkeys(Question, Decision.undo))
    return _card(http, state, caller, provider or "", "caption_card.html", first=one, answers=mine)


def _card(
    http: Request, state: State, caller: Caller, provider: str, template: str, *, first: Suggestion | None = None,
    last: int | None = None, answers: dict[Question, Decision] | None = None,
) -> HTMLResponse:  # fmt: skip
    chosen: dict[str, Any] = {"order": "priority", "kind": Kind.caption, "provider": provider, "mine": False}
    found = queue_of(state, caller, chosen, AHEAD)
    if first is not None:
        found = [first, *(one for one in found if one.id != first.id)]
    with state.database.reading() as connection:
        written = written_of(connection, found[0].image.id) if found else []
    return HTMLResponse(
        render(http, template, caller=caller, found=found, written=written, last=last, chosen=chosen,
               answers=answers or {}, questions=list(Question))
    )  # fmt: skip
