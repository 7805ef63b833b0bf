"""A client of the service for Python programs; it needs the standard library and httpx.

What it returns are the answers of the API as they come; `client_types` says what is in them.
"""

from __future__ import annotations

import json
import mimetypes
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isc.errors import InputError
from isc.serve.client_types import Accepted, ProviderFigures, Results, Suggestion, VoteResult, WrittenCaption

OPEN = 600.0  # seconds that `results` waits for answers
LATER = (429, 503)  # statuses after which the same call is tried again
TRIES = 5
PAUSE = 1.0  # seconds before the next try, if the answer does not say how many


class Client:
    """Uploads pictures, reads results, and votes.

    with Client("http://127.0.0.1:8008", token="isc_…") as service:
        picture = service.upload("suspect.jpg")
        print(service.results(picture["id"])["copies"])
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def upload(self, picture: str | Path) -> Accepted:
        """Upload a file; return its id, SHA-256, and whether it is new. Raises InputError if it is refused."""
        path = Path(picture)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        answer = self._asked("POST", "/api/images", files=[("files", (path.name, path.read_bytes(), kind))])
        accepted: Accepted = answer["images"][0]
        return accepted

    def results(self, image: int, *, wait: float = OPEN) -> Results:
        """Return what was said about a picture, when all providers have answered or `wait` seconds have passed."""
        end = time.monotonic() + wait
        while True:
            found: Results = self._asked("GET", f"/api/images/{image}/results")
            if not found["open"] or time.monotonic() > end:
                return found
            time.sleep(0.2)

    def events(self, image: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (kind, body) of events as they happen, of one picture or of all."""
        params = {} if image is None else {"image": image}
        with self._http.stream("GET", "/api/events", params=params, timeout=None) as answer:
            answer.raise_for_status()
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield kind, json.loads(line.removeprefix("data: "))

    def queue(self, **filters: Any) -> Iterator[Suggestion]:
        """Yield suggestions page by page: the unreviewed ones by priority, unless `filters` say otherwise.

        `filters` are those of GET /api/suggestions: state, order, kind, provider, mine, limit.
        """
        cursor = None
        while True:
            page = self._asked("GET", "/api/suggestions", params={**filters, **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            if (cursor := page["next"]) is None:
                return

    def vote(self, votes: Mapping[int, str]) -> list[VoteResult]:
        """Vote: {suggestion: accept, reject, unsure or undo}; all are recorded, or none."""
        body = {"votes": [{"suggestion": one, "decision": decision} for one, decision in votes.items()]}
        items: list[VoteResult] = self._asked("POST", "/api/votes", json=body)["items"]
        return items

    def rate(self, suggestion: int, **answers: str) -> VoteResult:
        """Answer `right`, `helpful` or `encyclopaedic` about a caption: accept (yes), reject (no), or unsure."""
        done: VoteResult = self._asked("PUT", f"/api/suggestions/{suggestion}/rating", json=answers)
        return done

    def write_caption(self, image: int, text: str, *, language: str | None = None) -> WrittenCaption:
        """Write a caption of a picture, or correct one."""
        body = {"text": text, "language": language}
        written: WrittenCaption = self._asked("POST", f"/api/images/{image}/captions", json=body)
        return written

    def export(self, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield every decided suggestion after this number with its votes."""
        for line in self._answer("GET", "/api/export", params={"after": after}).iter_lines():
            yield json.loads(line)

    def statistics(self) -> list[ProviderFigures]:
        """Return acceptance and calibration by provider and kind."""
        found: list[ProviderFigures] = self._asked("GET", "/api/statistics")
        return found

    def _asked(self, method: str, path: str, **options: Any) -> Any:
        return self._answer(method, path, **options).json()

    def _answer(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer of the service. One that is busy or away is asked again; every call may be repeated."""
        for left in range(TRIES - 1, -1, -1):
            answer = self._http.request(method, path, **options)
            if answer.status_code not in LATER or not left:
                break
            time.sleep(float(answer.headers.get("retry-after", PAUSE)))
        if answer.is_success:
            return answer
        kind = answer.headers.get("content-type", "")
        said = answer.json()["detail"] if kind.startswith("application/problem+json") else answer.text[:200]
        raise InputError(f"{method} {path}: {answer.status_code} {said}")
