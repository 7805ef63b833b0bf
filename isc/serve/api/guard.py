"""Who may do what: tokens, sessions, origins, hosts, rates and sizes. Every refusal is a problem."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isc.serve.api.problems import ApiProblem, database_away, problem
from isc.serve.api.state import State, state_of
from isc.serve.database import DatabaseAway
from isc.serve.kinds import Role
from isc.serve.settings import LOCAL
from isc.serve.tokens import Holder, any_token, holder_of, session_of

COOKIE = "isc_session"
CALLER = "isc.caller"  # the key of an ASGI scope under which a sender that is known already stands
SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
SMALL_BODY = 2_000_000  # bytes of a request that uploads nothing
OWNER = Holder(0, "local", Role.admin, trusted=True)  # on a machine without tokens, whoever sits before it

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"content-security-policy": CSP.encode(),
    b"cache-control": b"no-store",
}

bearer = HTTPBearer(auto_error=False, description="An API token: isc serve token NAME --role ROLE")
cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="The session of the page.")


@dataclass(frozen=True)
class Caller:
    """Whoever calls; `csrf` is the session's secret for forms, empty for a token."""

    holder: Holder
    csrf: str = ""

    @property
    def name(self) -> str:
        return self.holder.name


def caller_of(
    request: Request,
    state: Annotated[State, Depends(state_of)],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)] = None,
    session: Annotated[str | None, Security(cookie)] = None,
) -> Caller:
    """Return whoever calls. Raises ApiProblem: 401 unknown, 403 from another site, 429 too often."""
    before: Caller | None = request.scope.get(CALLER)  # of an upload, at the door
    if before is not None:
        return before
    _refuse_other_sites(request)
    caller = _known(request, state, token.credentials if token else None, session)
    who = caller.name if caller.holder is not OWNER or caller.csrf else f"{caller.name}@{_address(request)}"
    _refuse_too_often(state, "calls", who, state.settings.caps.calls)
    return caller


def _known(request: Request, state: State, token: str | None, session: str | None) -> Caller:
    if token is not None:
        holder = holder_of(state.database, token)
        if holder is None:
            _refuse_too_often(state, "guesses", _address(request), state.settings.caps.guesses)
            raise ApiProblem(401, "an unknown or revoked token", headers={"WWW-Authenticate": "Bearer"})
        return Caller(holder)
    if session is not None and (found := session_of(state.database, session)) is not None:
        holder, csrf = found
        if request.method not in SAFE and not hmac.compare_digest(request.headers.get("x-csrf-token", ""), csrf):
            raise ApiProblem(403, "the header X-CSRF-Token is not that of the session; reload the page")
        return Caller(holder, csrf)
    if state.settings.local and not any_token(state.database):
        return Caller(OWNER)
    raise ApiProblem(401, "no token; expected Authorization: Bearer TOKEN", headers={"WWW-Authenticate": "Bearer"})


def _refuse_other_sites(request: Request) -> None:
    """Refuse what a page of another site sends: browsers name the origin of everything that changes something."""
    if request.method in SAFE:
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ApiProblem(403, f"from the origin {origin[:100]}; expected this site")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ApiProblem(403, "from another site; expected this one")


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _refuse_too_often(state: State, what: str, who: str, a_minute: int) -> None:
    wait = state.rates.take(f"{what}:{who}", a_minute)
    if wait > 0:
        raise _too_often(what, a_minute, wait)


def _too_often(what: str, a_minute: int, wait: float) -> ApiProblem:
    return ApiProblem(429, f"more than {a_minute} {what} a minute", headers={"Retry-After": str(int(wait) + 1)})


def may(role: Role) -> object:
    """Return a dependency that requires a role."""

    def required(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if caller.holder.role.rank < role.rank:
            raise ApiProblem(403, f"the token has the role {caller.holder.role}; expected {role}")
        return caller

    return Depends(required)


Uploader = Annotated[Caller, may(Role.upload)]
Reviewing = Annotated[Caller, may(Role.review)]
Admin = Annotated[Caller, may(Role.admin)]


def count_uploads(state: State, caller: Caller) -> None:
    """Count an upload. Raises ApiProblem 429 above the limit."""
    _refuse_too_often(state, "uploads", caller.name, state.settings.caps.uploads)


def _admit_upload(scope: Scope, state: State) -> None:
    """Note whoever uploads in the scope of the request, before its body is read. Raises ApiProblem."""
    request = Request(scope)
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    token = HTTPAuthorizationCredentials(scheme=scheme, credentials=secret) if scheme.lower() == "bearer" else None
    caller = caller_of(request, state, token, request.cookies.get(COOKIE))
    most = state.settings.caps.uploads
    if (wait := state.rates.wait(f"uploads:{caller.name}", most)) > 0:
        raise _too_often("uploads", most, wait)
    scope[CALLER] = caller


class Shield:
    """ASGI middleware: hosts, sizes of bodies, who may upload, and the headers of every answer.

    `uploads` is the limit of an upload's body; it is read only when its sender is known.
    """

    def __init__(self, app: ASGIApp, state: State, *, uploads: int) -> None:
        self._app, self._state, self._uploads = app, state, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sending = _adding_headers(send)
        most = self._uploads if _is_upload(scope) else SMALL_BODY
        refusal = self._refused_by_headers(scope, most)
        if refusal is None and _is_upload(scope):
            refusal = await run_in_threadpool(self._refused_upload, scope)
        if refusal is not None:
            await refusal(scope, receive, sending)
            return
        body = _Body(receive, sending, most)
        await self._app(scope, body.receive, body.send)
        if body.too_large:
            await _too_large(most)(scope, receive, sending)

    def _refused_by_headers(self, scope: Scope, most: int) -> Response | None:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if self._state.settings.local and _host(headers.get(b"host", b"").decode("latin-1")) not in LOCAL:
            return problem(403, "the Host header names another machine; expected localhost")
        if not length.isdigit():
            return problem(400, f"Content-Length {length[:20].decode('latin-1')!r}; expected a number of bytes")
        return _too_large(most) if int(length) > most else None

    def _refused_upload(self, scope: Scope) -> Response | None:
        try:
            _admit_upload(scope, self._state)
        except ApiProblem as error:
            return problem(error.status, error.detail, headers=error.headers)
        except DatabaseAway as error:
            return database_away(error)
        return None


def _is_upload(scope: Scope) -> bool:
    return bool(scope["path"] == "/api/images" and scope["method"] == "POST")


def _too_large(most: int) -> Response:
    return problem(413, f"a body above {most:,} bytes; expected a smaller one")


class _Body:
    """A body that comes without its length: it is counted, and above the limit the app's answer is left out."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._left = receive, send, most
        self.too_large = self._answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0 and not self._answered:
                self.too_large = True
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if not self.too_large:
            self._answered = True
            await self._send(message)


def _host(text: str) -> str:
    """Return the name in a Host header, without its port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].lower()


def _adding_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *((k, v) for k, v in HEADERS.items() if k not in there)]
        await send(message)

    return sending
