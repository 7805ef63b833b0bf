"""The page, rendered here: forms and fragments of HTML; everything else is the API."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from isc.serve.agreement import agreements
from isc.serve.api.guard import COOKIE, Admin, Caller, Reviewing, Uploader, _refuse_other_sites
from isc.serve.api.health import disk_is_full
from isc.serve.api.images import Cursor, ImageId, Shared
from isc.serve.api.models import Suggestion
from isc.serve.api.problems import ApiProblem
from isc.serve.api.queries import (
    cursor_of,
    image_of,
    one_suggestion,
    provider_states,
    queue,
    requests_where,
    results_of,
    votes_of,
)
from isc.serve.api.render import render
from isc.serve.api.state import State
from isc.serve.database import trying_again
from isc.serve.kinds import Decision, Kind, RequestState, Role, SuggestionState
from isc.serve.requests import send_again
from isc.serve.schema import image, listing, outbox, request, suggestion, vote
from isc.serve.statistics import figures
from isc.serve.tokens import DAYS, begin_session, end_session, holder_of
from isc.serve.votes import Reviewer, cast

router = APIRouter()
AHEAD = 3  # suggestions whose pictures are loaded before they are shown
GRID = 12  # suggestions of a batch
PAGE = 60  # pictures of a page
Order = Annotated[str, Query(pattern="^(priority|random|newest)$")]
Name = Annotated[str | None, Query(max_length=64, pattern="^[A-Za-z0-9_-]*$")]
KindName = Annotated[str | None, Query(pattern="^(copy|label|caption|product|)$")]


@router.get("/login")
def login_page(http: Request) -> HTMLResponse:
    return HTMLResponse(render(http, "login.html", caller=None, wrong=False))


@router.post("/login")
def login(http: Request, state: Shared, token: Annotated[str, Form(max_length=200)]) -> Response:
    """Begin a session for the holder of a token."""
    _refuse_other_sites(http)
    address = http.client.host if http.client else "unknown"
    if state.rates.take(f"guesses:{address}", state.settings.caps.guesses) > 0:
        raise ApiProblem(429, "too many attempts", headers={"Retry-After": "60"})
    holder = holder_of(state.database, token.strip())
    if holder is None:
        return HTMLResponse(render(http, "login.html", caller=None, wrong=True), 401)
    session = begin_session(state.database, holder)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE, session.secret, max_age=int(DAYS), httponly=True, samesite="strict", secure=not state.settings.local
    )
    return answer


@router.post("/logout")
def logout(http: Request, state: Shared, _: Uploader) -> Response:
    end_session(state.database, http.cookies.get(COOKIE, ""))
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/")
def home(http: Request, state: Shared, caller: Reviewing) -> HTMLResponse:
    """Drop pictures, and see their copies."""
    with state.database.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(image)).scalar_one()
        waiting = connection.execute(
            sa.select(sa.func.count()).where(suggestion.c.state == SuggestionState.unreviewed)
        ).scalar_one()
    return HTMLResponse(
        render(http, "home.html", caller=caller, count=count, waiting=waiting, full=disk_is_full(state))
    )


@router.get("/ui/images/{image_id}/results")
def results_fragment(http: Request, state: Shared, caller: Reviewing, image_id: ImageId) -> HTMLResponse:
    with state.database.reading() as connection:
        return HTMLResponse(render(http, "results.html", caller=caller, found=results_of(connection, image_id)))


@router.get("/review")
def review(
    http: Request, state: Shared, caller: Reviewing, *, order: Order = "priority", kind: KindName = None,
    provider: Name = None, mine: bool = False, view: Annotated[str, Query(pattern="^(one|grid)$")] = "one",
) -> HTMLResponse:  # fmt: skip
    """The queue: one suggestion after the other, or a grid of several."""
    chosen = {"order": order, "kind": kind or "", "provider": provider or "", "mine": mine, "view": view}
    found = queue_of(state, caller, chosen, GRID if view == "grid" else AHEAD)
    with state.database.reading() as connection:
        names = sorted({one.provider for one in provider_states(connection) if one.current})
    return HTMLResponse(
        render(
            http, "review.html", caller=caller, found=found, chosen=chosen, providers=names, orders=ORDERS, last=None
        )
    )


ORDERS = ("priority", "random", "newest")


def queue_of(state: State, caller: Caller, chosen: dict[str, Any], limit: int) -> list[Suggestion]:
    """Return the next suggestions for a reviewer, by the order and filters that were chosen."""
    with state.database.reading() as connection:
        items, _ = queue(
            connection, state=SuggestionState.unreviewed, order=chosen["order"],
            kind=Kind(chosen["kind"]) if chosen["kind"] else None, provider_name=chosen["provider"] or None,
            mine_of=caller.name if chosen["mine"] else None, reviewer=caller.name, after=None, limit=limit,
        )  # fmt: skip
    return items


@router.post("/ui/review/{suggestion_id}")
def decide(
    http: Request, state: Shared, caller: Reviewing, *, suggestion_id: ImageId, decision: Annotated[Decision, Form()],
    order: Order = "priority", kind: KindName = None, provider: Name = None, mine: bool = False,
) -> HTMLResponse:  # fmt: skip
    """Vote, and show the next suggestion; after an undo, the same one again."""
    cast(state.database, state.settings, Reviewer(caller.name, caller.holder.trusted), {suggestion_id: decision})
    chosen = {"order": order, "kind": kind or "", "provider": provider or "", "mine": mine, "view": "one"}
    found = queue_of(state, caller, chosen, AHEAD)
    if decision is Decision.undo:
        with state.database.reading() as connection:
            again = one_suggestion(connection, suggestion_id)
        found = [again, *(one for one in found if one.id != suggestion_id)]
    last = None if decision is Decision.undo else suggestion_id
    return HTMLResponse(render(http, "card.html", caller=caller, found=found, chosen=chosen, last=last))


@router.post("/ui/batch")
def decide_batch(
    http: Request, state: Shared, caller: Reviewing, *, decision: Annotated[Decision, Form()],
    chosen: Annotated[list[int], Form(max_length=100)], order: Order = "priority", kind: KindName = None,
    provider: Name = None, mine: bool = False,
) -> HTMLResponse:  # fmt: skip
    """Vote on the chosen suggestions of the grid, and show the next ones."""
    cast(state.database, state.settings, Reviewer(caller.name, caller.holder.trusted), dict.fromkeys(chosen, decision))
    filters = {"order": order, "kind": kind or "", "provider": provider or "", "mine": mine, "view": "grid"}
    found = queue_of(state, caller, filters, GRID)
    last = [] if decision is Decision.undo else chosen
    return HTMLResponse(render(http, "grid.html", caller=caller, found=found, chosen=filters, last=last))


@router.get("/images")
def gallery(http: Request, state: Shared, caller: Reviewing, cursor: Cursor = None) -> HTMLResponse:
    from isc.serve.api.queries import key_of

    wanted = sa.select(image).order_by(image.c.id.desc()).limit(PAGE + 1)
    if cursor is not None:
        wanted = wanted.where(image.c.id < int(key_of(cursor, 1)[0]))
    with state.database.reading() as connection:
        rows = connection.execute(wanted).all()
    following = cursor_of(rows[PAGE - 1].id) if len(rows) > PAGE else None
    items = [image_of(row) for row in rows[:PAGE]]
    return HTMLResponse(render(http, "gallery.html", caller=caller, items=items, following=following))


@router.get("/images/{image_id}")
def history(http: Request, state: Shared, caller: Reviewing, image_id: ImageId) -> HTMLResponse:
    """A picture's whole history: what was said, by whom, and who decided what."""
    with state.database.reading() as connection:
        found = results_of(connection, image_id)
        about = connection.scalars(
            sa.select(suggestion.c.id).where(suggestion.c.image_id == image_id).order_by(suggestion.c.id)
        ).all()
        record = [(one_suggestion(connection, one), votes_of(connection, one)) for one in about]
    return HTMLResponse(render(http, "image.html", caller=caller, found=found, record=record))


@router.post("/ui/history/{suggestion_id}")
def decide_again(
    http: Request, state: Shared, caller: Reviewing, *, suggestion_id: ImageId, decision: Annotated[Decision, Form()]
) -> HTMLResponse:
    """Vote on a suggestion in the history of its picture, whatever was decided before, and show its record."""
    cast(state.database, state.settings, Reviewer(caller.name, caller.holder.trusted), {suggestion_id: decision})
    with state.database.reading() as connection:
        one, votes = one_suggestion(connection, suggestion_id), votes_of(connection, suggestion_id)
    return HTMLResponse(render(http, "entry.html", caller=caller, one=one, votes=votes))


@router.get("/providers")
def dashboard(http: Request, state: Shared, caller: Reviewing) -> HTMLResponse:
    with state.database.reading() as connection:
        states, numbers = provider_states(connection), figures(connection)
        dead = requests_where(connection, request.c.state == RequestState.dead, limit=50)
        votes = connection.execute(sa.select(sa.func.count()).select_from(vote)).scalar_one()
        refused = connection.execute(sa.select(outbox).where(outbox.c.state == "dead").limit(50)).all()
        entries = connection.execute(sa.select(listing).order_by(listing.c.id.desc()).limit(200)).all()
        agreed = agreements(connection)
    return HTMLResponse(
        render(http, "providers.html", caller=caller, states=states, figures=numbers, dead=dead, votes=votes,
               agreed=agreed, refused=refused, entries=entries, may_send=caller.holder.role is Role.admin)
    )  # fmt: skip


@router.post("/ui/retry/{request_id}")
def resend(state: Shared, _: Admin, request_id: ImageId) -> Response:
    """Send one dead letter again."""

    def write() -> int:
        with state.database.writing() as connection:
            return send_again(connection, request_ids=[request_id])

    trying_again(write)
    return RedirectResponse("/providers", 303)
