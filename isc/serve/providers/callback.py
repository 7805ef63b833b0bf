"""A provider that takes pictures, and calls back with its results when it has them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, LaterProvider, Limits, Refused
from isc.serve.providers.calls import call, key_of, secret
from isc.serve.providers.mapping import KINDS, results_by
from isc.serve.results import Nonsense

SECRET = "ISC_SERVE_CALLBACK_SECRET"  # the environment variable of the key that signs callbacks
PLAIN = {  # where results stand in the body of a callback
    "labels": {"items": "labels", "name": "name", "score": "score", "wikidata": "wikidata"},
    "captions": {"items": "captions", "text": "text", "language": "language", "score": "score"},
    "numbers": {"items": "numbers", "classifier": "classifier", "value": "value"},
}


class CallbackProvider(LaterProvider):
    """Sends `{"job", "callback", "image"}` to a URL; the results come to `callback`, signed with the common secret."""

    name = "callback"
    kinds: ClassVar[frozenset[Kind]] = frozenset(KINDS.values())

    def __init__(
        self, *, url: str, service: str, version: str = "1", key_env: str | None = None, seconds: float = 30.0,
        give_up: float = 86_400.0,
    ) -> None:  # fmt: skip
        self.url, self.service, self.version, self.give_up = url, service.rstrip("/"), f"callback-{version}", give_up
        key = secret(key_env)
        self._headers = {"Authorization": key} if key else {}
        self.limits = Limits(batch=4, concurrency=1, seconds=seconds)

    def job_of(self, picture: Picture) -> str:
        """Return an id of ours, which is the same when the picture is sent again."""
        return hashlib.sha256(f"{self.url} {self.version} {picture.sha256}".encode()).hexdigest()[:32]

    def submit(self, pictures: Sequence[Picture]) -> Sequence[str | Exception]:
        return [self._submitted(one) for one in pictures]

    def _submitted(self, picture: Picture) -> str | Exception:
        job = self.job_of(picture)
        body = {
            "job": job,
            "callback": f"{self.service}/api/callbacks/{job}",
            "image": base64.b64encode(picture.data).decode(),
        }
        try:
            seconds = self.limits.seconds * 0.8 / self.limits.batch
            key = key_of(self.url, self.version, [picture])
            call(self.url, seconds=seconds, key=key, headers=self._headers, json=body)
        except Exception as error:
            return error
        return job

    def poll(self, jobs: Sequence[str]) -> Sequence[Answer | None]:
        """Return nothing: the results come by themselves."""
        return [None for _ in jobs]


def signature(body: bytes, key: str) -> str:
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def is_signed(body: bytes, given: str) -> bool:
    """Return whether a callback was signed with the common secret; without a secret none is."""
    key = os.environ.get(SECRET)
    return bool(key) and hmac.compare_digest(signature(body, key or ""), given)


def results_of_callback(said: Any) -> Answer:
    """Return the results of a callback's body, or the error that it reports. Raises Nonsense for another shape."""
    if not isinstance(said, dict):
        raise Nonsense("a callback that is no JSON object")
    if error := said.get("error"):
        return Refused(str(error)[:300])
    kinds = {kind: PLAIN[kind] for kind in PLAIN if said.get(kind)}
    filled = {
        kind: [{"wikidata": None, "language": None, "score": None, **one} for one in said[kind]] for kind in kinds
    }
    return list(results_by(kinds, filled))
