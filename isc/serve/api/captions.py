"""The routes of captions: answers to the three questions, captions that people write, and how far reviewers agree."""

from __future__ import annotations

from fastapi import APIRouter, Response

from isc.errors import InputError
from isc.serve.agreement import Agreement, agreements
from isc.serve.api.bodies import NewCaption, NewRating
from isc.serve.api.guard import Reviewing
from isc.serve.api.images import ImageId, Shared
from isc.serve.api.models import VoteResult, WrittenCaption
from isc.serve.api.problems import ApiProblem, answers
from isc.serve.captions import rate, write_caption
from isc.serve.kinds import Decision, Question
from isc.serve.votes import Reviewer

router = APIRouter(prefix="/api", tags=["captions"])


@router.put("/suggestions/{suggestion_id}/rating", response_model=VoteResult, responses=answers(404))
def rate_caption(state: Shared, caller: Reviewing, suggestion_id: ImageId, body: NewRating) -> VoteResult:
    """Answer questions about a caption. The answer to `right` is the vote as well; the same answer twice is one."""
    said = {question: answer for question in Question if (answer := getattr(body, question)) is not None}
    if not said:
        raise ApiProblem(422, f"no answer; expected one of {', '.join(Question)}")
    reviewer = Reviewer(caller.name, caller.holder.trusted)
    done = rate(state.database, state.settings, reviewer, suggestion_id, said)
    return VoteResult(suggestion=done.suggestion, state=done.state, new=done.new)


@router.delete("/suggestions/{suggestion_id}/rating", response_model=VoteResult, responses=answers(404))
def take_rating_back(state: Shared, caller: Reviewing, suggestion_id: ImageId) -> VoteResult:
    """Take one's answers about a caption back; they stay in the record."""
    reviewer = Reviewer(caller.name, caller.holder.trusted)
    done = rate(state.database, state.settings, reviewer, suggestion_id, dict.fromkeys(Question, Decision.undo))
    return VoteResult(suggestion=done.suggestion, state=done.state, new=done.new)


@router.post(
    "/images/{image_id}/captions", status_code=201, response_model=WrittenCaption, responses=answers(404),
)  # fmt: skip
def write(state: Shared, caller: Reviewing, image_id: ImageId, body: NewCaption, answer: Response) -> WrittenCaption:
    """Write a caption, or correct one. It counts from now on; what providers say does not replace it."""
    try:
        one = write_caption(state.database, caller.name, image_id, body.text, language=body.language)
    except LookupError as error:
        raise ApiProblem(404, str(error)) from error
    except InputError as error:
        raise ApiProblem(422, str(error)) from error
    answer.headers["Location"] = f"/api/images/{image_id}/results"
    return WrittenCaption(text=one.text, language=one.language, writer=one.writer, created=one.created)


@router.get("/agreement", response_model=list[Agreement], responses=answers())
def agreement(state: Shared, _: Reviewing) -> list[Agreement]:
    """Return how far reviewers agree about captions, by provider, version and question."""
    with state.database.reading() as connection:
        return agreements(connection)
