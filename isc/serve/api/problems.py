"""Errors of the API as problem details (RFC 9457)."""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from isc.serve.database import DatabaseAway
from isc.serve.intake import Blocked
from isc.serve.votes import NoSuggestion

log = logging.getLogger(__name__)
MEDIA = "application/problem+json"
AWAY = "the database cannot be reached or written; nothing was changed, try again"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Problem(BaseModel):
    """A problem of a request (RFC 9457)."""

    type: str = Field("about:blank", description="The kind of problem.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong with this request, and what was expected.")


class ApiProblem(Exception):
    """An error that ends a request with this status."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the problems of a route that asks who calls: these, and those of all such routes."""
    return problems(400, 401, 403, 422, 429, 503, *statuses)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of problems by their status."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted(set(statuses))
    }


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None) -> Response:
    content = Problem(type="about:blank", title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(content.model_dump(), status, headers, media_type=MEDIA)


def database_away(error: Exception) -> Response:
    """Return the problem of a database that is away."""
    log.error("the database is away: %s", error)
    return problem(503, AWAY, headers={"Retry-After": "5"})


def answer_to(request: Request, status: int, detail: str, *, headers: dict[str, str] | None = None) -> Response:
    """Return a problem: a page for whoever opens one in a browser, else problem details."""
    if request.method != "GET" or not _wants_page(request):
        return problem(status, detail, headers=headers)
    from isc.serve.api.render import render

    again = (headers or {}).get("Retry-After")
    html = render(request, "problem.html", caller=None, status=status, detail=detail, again=again)
    return HTMLResponse(html, status, headers)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api")


def install(app: FastAPI) -> None:
    """Let every error of the app end as a problem."""

    def of_api(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiProblem)
        if error.status == 401 and request.method == "GET" and _wants_page(request):
            return RedirectResponse("/login", 303)
        return answer_to(request, error.status, error.detail, headers=error.headers)

    def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        detail = error.detail if error.detail != phrase else f"{request.method} {request.url.path}: {phrase.lower()}"
        return answer_to(request, error.status_code, str(detail)[:500], headers=dict(error.headers or {}))

    def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer_to(request, 422, f"{where}: {first['msg']}"[:500])

    def of_database(request: Request, error: Exception) -> Response:
        log.error("the database is away: %s", error)
        return answer_to(request, 503, AWAY, headers={"Retry-After": "5"})

    def of_disk(request: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        if error.errno not in FULL:
            raise error
        log.error("the disk is full or read-only: %s", error)
        detail = "the disk is full or cannot be written; nothing was kept, try again later"
        return answer_to(request, 503, detail, headers={"Retry-After": "60"})

    def of_bug(request: Request, _: Exception) -> Response:
        return answer_to(request, 500, "something went wrong here; the log of the service says what")

    app.add_exception_handler(ApiProblem, of_api)
    app.add_exception_handler(Exception, of_bug)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(DatabaseAway, of_database)
    app.add_exception_handler(OSError, of_disk)
    app.add_exception_handler(Blocked, lambda _, error: problem(403, str(error)))
    app.add_exception_handler(NoSuggestion, lambda _, error: problem(404, str(error)))
