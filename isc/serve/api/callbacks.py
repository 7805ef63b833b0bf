"""Callbacks of providers whose results come later."""

from __future__ import annotations

import json
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Body, Depends, Header, Request
from fastapi import Path as InPath
from starlette.concurrency import run_in_threadpool

from isc.serve.api.images import Shared
from isc.serve.api.models import Counted
from isc.serve.api.problems import ApiProblem, answers
from isc.serve.api.state import State
from isc.serve.kinds import RequestState
from isc.serve.providers.base import Limits
from isc.serve.providers.callback import is_signed, results_of_callback
from isc.serve.requests import failed, take_submitted
from isc.serve.results import Nonsense
from isc.serve.schema import provider, request
from isc.serve.storing import store

router = APIRouter(prefix="/api", tags=["providers"])
TRIES = 5  # a worker that looks for answers may take the request up in between
Job = Annotated[str, InPath(pattern="^[0-9a-f]{32}$")]


async def signed(
    http: Request, signature: Annotated[str, Header(alias="X-Signature-256", max_length=100)] = ""
) -> None:
    """Refuse a body that was not signed with the common secret."""
    if not is_signed(await http.body(), signature):
        raise ApiProblem(401, "X-Signature-256 is not that of this body with ISC_SERVE_CALLBACK_SECRET")


@router.post("/callbacks/{job}", response_model=Counted, responses=answers(404), dependencies=[Depends(signed)])
async def called_back(state: Shared, job: Job, body: Annotated[dict[str, Any], Body()]) -> Counted:
    """Take the results of a job: labels, captions, numbers, or an error. The same callback twice is one."""
    return await run_in_threadpool(_take, state, job, body)


def _take(state: State, job: str, body: dict[str, Any]) -> Counted:
    with state.database.reading() as connection:
        row = connection.execute(
            sa.select(request.c.provider_id, request.c.state, provider.c.name)
            .join(provider, provider.c.id == request.c.provider_id)
            .where(request.c.external_id == job)
        ).first()
    if row is None:
        raise ApiProblem(404, "no such job")
    if row.state in (RequestState.done, RequestState.superseded):
        return Counted(count=0)
    try:
        answer = results_of_callback(json.loads(json.dumps(body)))
    except (Nonsense, TypeError) as error:
        raise ApiProblem(422, f"body: {error}") from error
    for _ in range(TRIES):
        held = take_submitted(state.database, row.provider_id, limit=1, every=0, job=job)
        if not held:
            return Counted(count=0)
        if isinstance(answer, Exception):
            failed(state.database, held[0], answer, Limits())
            return Counted(count=1)
        if store(state.database, state.settings, held[0], row.name, answer):
            return Counted(count=1)
    raise ApiProblem(503, "another process holds the request; call back again", headers={"Retry-After": "5"})
