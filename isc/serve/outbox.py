"""The outbox: messages to the outside, written with what they tell of, and delivered in order, again until received."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from isc.serve.database import Database, insert_ignoring, trying_again
from isc.serve.schema import lease, outbox
from isc.serve.settings import WEBHOOK_SECRET, Settings

WEBHOOK, FEEDBACK = "webhook:", "feedback:"  # destinations begin with one of these
ATTEMPTS = 12  # refusals (4xx) after which a message waits for a person
HELD = 60.0  # seconds that one process delivers to a destination before others may
SECONDS = 10.0  # for one delivery


@dataclass(frozen=True)
class Message:
    """A message: its place in the order, its idempotency key, and its body."""

    id: int
    key: str
    body: Mapping[str, Any]
    attempts: int


class NotDelivered(Exception):
    """The receiver has not confirmed a message; `refused` if it answered that it never will."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


def enqueue(connection: Connection, destination: str, key: str, body: Mapping[str, Any]) -> None:
    """Write a message in the transaction of what it tells of; one of the same key is written once."""
    now = time.time()
    row = {"destination": destination, "key": key, "body": dict(body), "state": "waiting", "attempts": 0,
           "run_after": now, "created": now}  # fmt: skip
    insert_ignoring(connection, outbox, row)


def addresses(settings: Settings) -> dict[str, str]:
    """Return the URL of each destination."""
    hooks = {f"{WEBHOOK}{name}": url for name, url in settings.webhooks.items()}
    return hooks | {f"{FEEDBACK}{name}": one.feedback for name, one in settings.providers.items() if one.feedback}


def deliver(database: Database, urls: Mapping[str, str], send: Callable[[str, Message], None], *, holder: str) -> int:
    """Deliver what is due to each destination, in order, and return the number delivered.

    One process at a time serves a destination, and no message overtakes one before it. A message that was delivered but
    not noted, because the process was killed in between, is sent again with the same key, by which the receiver knows
    it.
    """
    count = 0
    for destination, url in urls.items():
        if _waiting(database, destination) is None or not _take(database, f"outbox:{destination}", holder):
            continue
        end = time.monotonic() + HELD / 2
        while time.monotonic() < end and (message := _waiting(database, destination)) is not None:
            try:
                send(url, message)
            except NotDelivered as error:
                _note(database, message, error)
                break
            _note(database, message, None)
            count += 1
        _release(database, f"outbox:{destination}", holder)
    return count


def _waiting(database: Database, destination: str) -> Message | None:
    """Return the first message that was not delivered, if it is due."""
    columns = (outbox.c.id, outbox.c.key, outbox.c.body, outbox.c.attempts, outbox.c.run_after)
    wanted = sa.select(*columns).where(outbox.c.state == "waiting", outbox.c.destination == destination)
    with database.reading() as connection:
        row = connection.execute(wanted.order_by(outbox.c.id).limit(1)).first()
    return None if row is None or row.run_after > time.time() else Message(*row[:4])


def _note(database: Database, message: Message, error: NotDelivered | None) -> None:
    from isc.serve.requests import back_off

    now = time.time()
    attempts = message.attempts + 1
    values: dict[str, Any] = {"attempts": attempts}
    if error is None:
        values |= {"state": "delivered", "delivered": now, "error": None}
    else:
        dead = error.refused and attempts >= ATTEMPTS
        values |= {
            "error": str(error)[:500],
            "run_after": now + back_off(attempts),
            "state": "dead" if dead else "waiting",
        }

    def write() -> None:
        with database.writing() as connection:
            connection.execute(sa.update(outbox).where(outbox.c.id == message.id).values(values))

    trying_again(write)


def _take(database: Database, name: str, holder: str) -> bool:
    """Take a lease by its name, if nobody else holds it."""
    now = time.time()

    def write() -> bool:
        with database.writing() as connection:
            insert_ignoring(connection, lease, {"name": name, "holder": holder, "until": 0.0})
            free = (lease.c.holder == holder) | (lease.c.until < now)
            taken = sa.update(lease).where(lease.c.name == name, free).values(holder=holder, until=now + HELD)
            return bool(connection.execute(taken).rowcount)

    return bool(trying_again(write))


def _release(database: Database, name: str, holder: str) -> None:
    def write() -> None:
        with database.writing() as connection:
            mine = (lease.c.name == name) & (lease.c.holder == holder)
            connection.execute(sa.update(lease).where(mine).values(until=0.0))

    trying_again(write)


def post(url: str, message: Message) -> None:
    """Send a message by HTTP, signed if the environment has a key. Raises NotDelivered."""
    import httpx

    content = json.dumps({"id": message.key, **message.body}, ensure_ascii=False, sort_keys=True).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": message.key}
    if key := os.environ.get(WEBHOOK_SECRET):
        headers["X-Signature-256"] = "sha256=" + hmac.new(key.encode(), content, hashlib.sha256).hexdigest()
    try:
        answer = httpx.post(url, content=content, headers=headers, timeout=SECONDS, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}") from error
    if not answer.is_success:
        final = 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429)
        raise NotDelivered(f"HTTP {answer.status_code}", refused=final)


def new_holder() -> str:
    """Return a name for this process as the holder of leases."""
    return secrets.token_hex(16)
