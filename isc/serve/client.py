"""A client of the service for Python programs; it needs the standard library and httpx."""

from __future__ import annotations

import json
import mimetypes
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isc.errors import InputError

OPEN = 600.0  # seconds that `results` waits for answers


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

    def upload(self, picture: str | Path) -> dict[str, Any]:
        """Upload a file; return its id, SHA-256, and whether it is new. Raises InputError if it is refused."""
        path = Path(picture)
        with path.open("rb") as file:
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            answer = self._asked("POST", "/api/images", files=[("files", (path.name, file, kind))])
        accepted: dict[str, Any] = answer["images"][0]
        return accepted

    def results(self, image: int, *, wait: float = OPEN) -> dict[str, Any]:
        """Return what was said about a picture, when all providers have answered or `wait` seconds have passed."""
        end = time.monotonic() + wait
        while True:
            found: dict[str, Any] = self._asked("GET", f"/api/images/{image}/results")
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

    def suggestions(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Yield suggestions page by page; `filters` are those of GET /api/suggestions, such as state and kind."""
        cursor = None
        while True:
            page = self._asked("GET", "/api/suggestions", params={**filters, **({"cursor": cursor} if cursor else {})})
            yield from page["items"]
            if (cursor := page["next"]) is None:
                return

    def vote(self, votes: Mapping[int, str]) -> list[dict[str, Any]]:
        """Vote: {suggestion: accept, reject, unsure or undo}; all are recorded, or none."""
        body = {"votes": [{"suggestion": one, "decision": decision} for one, decision in votes.items()]}
        items: list[dict[str, Any]] = self._asked("POST", "/api/votes", json=body)["items"]
        return items

    def statistics(self) -> list[dict[str, Any]]:
        """Return acceptance and calibration by provider and kind."""
        found: list[dict[str, Any]] = self._asked("GET", "/api/statistics")
        return found

    def _asked(self, method: str, path: str, **options: Any) -> Any:
        answer = self._http.request(method, path, **options)
        if answer.is_success:
            return answer.json()
        kind = answer.headers.get("content-type", "")
        said = answer.json()["detail"] if kind.startswith("application/problem+json") else answer.text[:200]
        raise InputError(f"{method} {path}: {answer.status_code} {said}")
