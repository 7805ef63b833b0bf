"""HTTP calls to providers: limits of time and size, and each kind of failure by its name."""

from __future__ import annotations

import email.utils
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from isc.errors import InputError
from isc.serve.picture import Picture
from isc.serve.providers.base import Busy, Refused, Unavailable
from isc.serve.results import Nonsense

MOST = 5_000_000  # bytes of an answer
WAIT = 30.0  # seconds to wait after a 429 that does not say how long
LONGEST = 3_600.0  # of what a Retry-After may ask for


def secret(name: str | None) -> str | None:
    """Return the value of an environment variable that a provider names. Raises InputError if it is not set."""
    if name is None:
        return None
    value = os.environ.get(name)
    if not value:
        raise InputError(f"the environment variable {name} is not set; a provider needs it as its key")
    return value


def key_of(url: str, version: str, pictures: Sequence[Picture]) -> str:
    """Return the key by which a provider knows a call that is repeated: a hash of provider, version and pictures."""
    parts = [url, version, *(one.sha256 for one in pictures)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def call(url: str, *, seconds: float, key: str, headers: Mapping[str, str], **body: Any) -> Any:
    """Send a POST, and return the JSON of the answer.

    `key` goes along as `Idempotency-Key`: a worker that is killed before it notes an answer asks again. `seconds`
    limits the whole call, however slowly bytes come. Raises Busy for 429 and for 503 with Retry-After, Unavailable for
    other errors of the server or of the network, Refused for other 4xx, Nonsense for what is no JSON.
    """
    import httpx

    end = time.monotonic() + seconds
    try:
        with (
            httpx.Client(timeout=min(seconds, 10.0), follow_redirects=False, trust_env=False) as client,
            client.stream("POST", url, headers={**headers, "Idempotency-Key": key}, **body) as answer,
        ):
            data = bytearray()
            for part in answer.iter_bytes():
                data += part
                if len(data) > MOST:
                    raise Nonsense(f"an answer above {MOST:,} bytes")
                if time.monotonic() > end:
                    raise Unavailable(f"no whole answer within {seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    _check(answer.status_code, answer.headers.get("retry-after"))
    try:
        return httpx.Response(200, content=bytes(data)).json()
    except ValueError as error:
        raise Nonsense(f"an answer that is no JSON: {bytes(data[:60])!r}") from error


def _check(status: int, retry_after: str | None) -> None:
    if status == 429 or (status == 503 and retry_after):
        raise Busy(f"HTTP {status}", retry_after=_seconds(retry_after))
    if status >= 500 or status in (408, 425) or 300 <= status < 400:
        raise Unavailable(f"HTTP {status}")
    if status >= 400:
        raise Refused(f"HTTP {status}")


def _seconds(retry_after: str | None) -> float:
    """Return the seconds that a Retry-After asks for: a number, or a date."""
    if retry_after is None:
        return WAIT
    if retry_after.strip().isdigit():
        return min(LONGEST, float(retry_after))
    try:
        at = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except ValueError:
        return WAIT
    return min(LONGEST, max(1.0, at - time.time()))
