"""Server-sent events: one reader of the table of events, and a queue for each page that listens.

An event may be written after one with a larger id: its transaction began first and ended later. So the id that a stream
sends with an event is a place: the largest id that was told, and which of those just before it were told as well. Who
comes back with its last place is told of all others.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool

from isc.serve.database import Database, DatabaseAway
from isc.serve.schema import event

EVERY = 0.15  # seconds between two looks at the table
OVERLAP = 200  # ids looked at again: a transaction may commit after one that began later
ALIVE = 15.0  # seconds after which a comment is sent, so that nobody on the way gives up
FULL = 1000  # events that a listener may be behind


@dataclass
class Place:
    """Ids of the events that a listener was told: `last`, and of the `OVERLAP` before it those in `told`; None: all."""

    last: int
    told: set[int] | None = None

    @classmethod
    def read(cls, text: str) -> Place:
        """Return the place of an id that was sent: a number, maybe with a dash and the bits of those before it."""
        number, _, bits = text.partition("-")
        last = int(number)
        if not bits:
            return cls(last)
        marks = int(bits, 16)
        return cls(last, {last - 1 - at for at in range(OVERLAP) if marks >> at & 1})

    def knows(self, number: int) -> bool:
        """Return whether an event was told, or is older than what is still looked at."""
        if number >= self.last or self.told is None:
            return number <= self.last
        return number in self.told or number < max(1, self.last - OVERLAP)

    def add(self, number: int) -> None:
        """Note that an event was told."""
        last, before = max(self.last, number), self.last
        near = range(max(1, last - OVERLAP), last)
        self.told = {one for one in near if (one <= before and self.knows(one)) or one == number}
        self.last = last

    def __str__(self) -> str:
        marks = sum(1 << at for at in range(OVERLAP) if self.knows(self.last - 1 - at))
        return str(self.last) if marks == (1 << OVERLAP) - 1 else f"{self.last}-{marks:x}"


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
        self._beginning = asyncio.Lock()
        self._seen: dict[int, None] = {}
        self._last = 0
        self.closing = False

    async def listen(self, image: int | None, *, after: Place | None) -> AsyncIterator[str]:
        """Yield the events as text: those that a place does not know, if one is given, and then each new one."""
        listener = Listener(image)
        self._listeners.add(listener)
        try:
            await self._begin()
            live = self._last - OVERLAP  # what is later comes by the queue as well
            missed: set[int] = set()
            place = after or Place(self._last, {one for one in self._seen if one < self._last})
            if after is not None:
                async for one in self._missed(after, image):
                    if one["id"] > live:
                        missed.add(one["id"])
                    yield _text(one, place)
            yield ": listening\n\n"
            while not self.closing and not listener.behind:
                try:
                    one = await asyncio.wait_for(listener.queue.get(), ALIVE)
                except TimeoutError:
                    yield ": alive\n\n"
                    continue
                if one["id"] not in missed:
                    yield _text(one, place)
        finally:
            self._listeners.discard(listener)

    async def _begin(self) -> None:
        """Let events be read, if nobody listened before."""
        async with self._beginning:
            if self._task is None or self._task.done():
                newest = await run_in_threadpool(self._newest)
                self._seen = dict.fromkeys(newest)
                self._last = max(newest, default=0)
                self._task = asyncio.create_task(self._watch())

    async def _missed(self, place: Place, image: int | None) -> AsyncIterator[dict[str, Any]]:
        """Yield the events that a place does not know up to now, however many, a page at a time."""
        known = replace(place, told=None if place.told is None else set(place.told))
        after = place.last if place.told is None else place.last - OVERLAP - 1
        while not self.closing:
            page = await run_in_threadpool(self._since, after, image)
            for one in page:
                if not known.knows(one["id"]):
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

    def _newest(self) -> list[int]:
        """Return the newest ids; they are not new to anybody."""
        with self._database.reading() as connection:
            return list(connection.scalars(sa.select(event.c.id).order_by(event.c.id.desc()).limit(2 * OVERLAP)))

    def _since(self, after: int, image: int | None) -> list[dict[str, Any]]:
        wanted = sa.select(event).where(event.c.id > after).order_by(event.c.id).limit(FULL)
        if image is not None:
            wanted = wanted.where(event.c.image_id == image)
        with self._database.reading() as connection:
            return [
                {"id": row.id, "image": row.image_id, "kind": row.kind, "body": row.body, "created": row.created}
                for row in connection.execute(wanted)
            ]


def _text(one: dict[str, Any], place: Place) -> str:
    """Return an event as it is sent, and note in the place that it was told."""
    place.add(one["id"])
    data = json.dumps({**one["body"], "image": one["image"], "at": one["created"]}, ensure_ascii=False)
    return f"id: {place}\nevent: {one['kind']}\ndata: {data}\n\n"
