"""Server-sent events: one reader of the table of events, and a queue for each page that listens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool

from isc.serve.database import Database, DatabaseAway
from isc.serve.schema import event

EVERY = 0.15  # seconds between two looks at the table
OVERLAP = 200  # ids looked at again: a transaction may commit after one that began later
ALIVE = 15.0  # seconds after which a comment is sent, so that nobody on the way gives up
FULL = 1000  # events that a listener may be behind


@dataclass(eq=False)
class Listener:
    """A page that listens to the events of one picture, or of all (None)."""

    image: int | None
    queue: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(FULL))
    behind: bool = False


class Broker:
    """Reads new events while somebody listens."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._seen: dict[int, None] = {}
        self._last = 0
        self.closing = False

    async def listen(self, image: int | None, *, after: int | None) -> AsyncIterator[str]:
        """Yield the events as text: those after the id `after`, if it is given, and then each new one."""
        listener = Listener(image)
        self._listeners.add(listener)
        try:
            if self._task is None or self._task.done():
                self._last = await run_in_threadpool(self._newest)
                self._task = asyncio.create_task(self._watch())
            told: set[int] = set()
            live = self._last - OVERLAP  # what is later comes by the queue as well
            if after is not None:
                async for one in self._missed(after, image):
                    if one["id"] > live:
                        told.add(one["id"])
                    yield _text(one)
            yield ": listening\n\n"
            while not self.closing and not listener.behind:
                try:
                    one = await asyncio.wait_for(listener.queue.get(), ALIVE)
                except TimeoutError:
                    yield ": alive\n\n"
                    continue
                if one["id"] not in told:
                    yield _text(one)
        finally:
            self._listeners.discard(listener)

    async def _missed(self, after: int, image: int | None) -> AsyncIterator[dict[str, Any]]:
        """Yield the events after an id up to now, however many, a page at a time."""
        while not self.closing:
            page = await run_in_threadpool(self._since, after, image)
            for one in page:
                yield one
            if len(page) < FULL:
                return
            after = page[-1]["id"]

    def close(self) -> None:
        """Let every listener end at its next event, and wake it."""
        self.closing = True
        for listener in list(self._listeners):
            if not listener.queue.full():
                listener.queue.put_nowait({"id": 0, "image": 0, "kind": "closing", "body": {}, "created": time.time()})

    async def _watch(self) -> None:
        while self._listeners and not self.closing:
            try:
                new = await run_in_threadpool(self._since, self._last - OVERLAP, None)
            except DatabaseAway:
                await asyncio.sleep(1.0)
                continue
            for one in new:
                if one["id"] > self._last - OVERLAP and one["id"] not in self._seen:
                    self._seen[one["id"]] = None
                    self._give(one)
            self._last = max([self._last, *(one["id"] for one in new)])
            while len(self._seen) > 4 * OVERLAP:
                self._seen.pop(next(iter(self._seen)))
            await asyncio.sleep(EVERY)

    def _give(self, one: dict[str, Any]) -> None:
        for listener in list(self._listeners):
            if listener.image in (None, one["image"]):
                if listener.queue.full():
                    listener.behind = True  # its stream ends; the page asks again with Last-Event-ID
                else:
                    listener.queue.put_nowait(one)

    def _newest(self) -> int:
        """Return the newest id; the ones before it are not new to anybody."""
        with self._database.reading() as connection:
            rows = connection.scalars(sa.select(event.c.id).order_by(event.c.id.desc()).limit(OVERLAP)).all()
        self._seen.update(dict.fromkeys(rows))
        return max(rows, default=0)

    def _since(self, after: int, image: int | None) -> list[dict[str, Any]]:
        wanted = sa.select(event).where(event.c.id > after).order_by(event.c.id).limit(FULL)
        if image is not None:
            wanted = wanted.where(event.c.image_id == image)
        with self._database.reading() as connection:
            return [
                {"id": row.id, "image": row.image_id, "kind": row.kind, "body": row.body, "created": row.created}
                for row in connection.execute(wanted)
            ]


def _text(one: dict[str, Any]) -> str:
    data = json.dumps({"image": one["image"], **one["body"], "at": one["created"]}, ensure_ascii=False)
    return f"id: {one['id']}\nevent: {one['kind']}\ndata: {data}\n\n"
