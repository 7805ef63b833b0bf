"""A worker: it leases requests, asks providers, and stores what they say. Each provider has lanes of its own."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from isc.serve.database import Database, DatabaseAway
from isc.serve.files import PictureFiles
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, AnyProvider, Busy, LaterProvider, Limits, Provider, Unavailable
from isc.serve.providers.context import Context
from isc.serve.providers.registry import build
from isc.serve.reading import Unreadable
from isc.serve.requests import (
    Circuit,
    Leased,
    current_providers,
    failed,
    give_back,
    lease,
    register,
    submitted,
    take_submitted,
)
from isc.serve.results import Nonsense
from isc.serve.settings import Settings
from isc.serve.storing import store
from isc.serve.versions import renew

log = logging.getLogger(__name__)

IDLE = (0.05, 0.5)  # seconds between two looks at the queue: after work, and at most
AWAY = 2.0  # seconds before the database is tried again
GRACE = 10.0  # seconds of a lease beyond the limit of a call
STUCK = 75  # exit status of a worker that ended itself because a provider did not return


class TooSlow(Unavailable):
    """A provider that did not answer within its limit."""


@dataclass(frozen=True)
class Lane:
    """One provider of a worker, and its number in the table."""

    name: str
    number: int
    provider: AnyProvider
    circuit: Circuit

    @property
    def limits(self) -> Limits:
        return self.provider.limits


class Worker:
    """Works for some providers until it is stopped; `run` blocks."""

    def __init__(self, settings: Settings, providers: Sequence[str] | None = None) -> None:
        self.settings = settings
        self.database = Database(settings.database)
        self.context = Context(self.database, settings)
        wanted = settings.providers if providers is None else {name: settings.providers[name] for name in providers}
        self._providers = {name: build(one, self.context) for name, one in wanted.items()}
        self._stop = threading.Event()
        self._calls: dict[int, tuple[float, list[Leased], Lane]] = {}
        self._files = PictureFiles(settings.data / "pictures")

    def run(self) -> None:
        """Work until `stop` is called. A database that is away is waited for."""
        lanes = self.lanes()
        groups: dict[str, list[Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.provider.group, []).append(lane)
        loops: list[Callable[[], bool]] = []
        for group in groups.values():
            loops += [partial(self._round, group)] * max(one.limits.concurrency for one in group)
            loops += [partial(self._poll, one) for one in group if isinstance(one.provider, LaterProvider)]
        threads = [threading.Thread(target=self._loop, args=(one,), daemon=True) for one in loops]
        for thread in threads:
            thread.start()
        while not self._stop.wait(0.5):
            self._watch()
        end = time.monotonic() + max((one.limits.seconds for one in lanes), default=0)
        for thread in threads:
            thread.join(max(0.1, end - time.monotonic()))
        self.context.examiner.reader.close()

    def lanes(self) -> list[Lane]:
        """Return the providers with their numbers and circuits, when the database knows them."""
        numbers = self._registered()
        return [
            Lane(name, numbers[name], self._providers[name], Circuit(self.database, name, self._providers[name].limits))
            for name in numbers
        ]

    def stop(self) -> None:
        """End after the calls that run now."""
        self._stop.set()

    def drain(self) -> int:
        """Work on what is due until nothing is left, in this thread, and return the number of calls."""
        lanes = self.lanes()
        count = 0
        while self._round(lanes):
            count += 1
        return count

    def register_all(self) -> list[list[str]]:
        """Write the providers into their table, ask new versions again, and return the names of each group."""
        register(self.database, self._providers)
        for name, one in self._providers.items():
            if count := renew(self.database, name, one):
                log.info("provider %s has a new version; %d requests are made anew", name, count)
        groups: dict[str, list[str]] = {}
        for name, one in self._providers.items():
            groups.setdefault(one.group, []).append(name)
        return list(groups.values())

    def _current(self) -> dict[str, int]:
        with self.database.reading() as connection:
            return current_providers(connection)

    def _registered(self) -> dict[str, int]:

        while not self._stop.is_set():
            try:
                known = self._current()
                if self._providers.keys() <= known.keys():
                    return {name: known[name] for name in self._providers}
                return register(self.database, self._providers)
            except DatabaseAway as error:
                log.error("the database is away (%s); trying again", error)
                self._stop.wait(AWAY)
        return {}

    def _loop(self, once: Callable[[], bool]) -> None:
        """Do rounds; after an empty one wait, longer each time."""
        wait = IDLE[0]
        away = False
        while not self._stop.is_set():
            try:
                worked = once()
                if away:
                    log.warning("the database is back")
                away = False
            except DatabaseAway as error:
                if not away:
                    log.error("the database is away (%s); work waits", error)
                away = True
                self._stop.wait(AWAY)
                continue
            except Exception:
                log.exception("a round of work failed; its requests are taken up again when their lease ends")
                worked = False
                self._stop.wait(1.0)
            wait = IDLE[0] if worked else min(IDLE[1], wait * 1.5)
            if not worked:
                self._stop.wait(wait)

    def _round(self, lanes: Sequence[Lane]) -> bool:
        """Lease one batch for the providers of a group, and ask each of them; return whether there was work."""
        ready = {lane.number: lane for lane in lanes if lane.circuit.closed()}
        limit = sum(lane.limits.batch for lane in ready.values())
        seconds = sum(lane.limits.seconds for lane in ready.values()) + GRACE
        held = lease(self.database, list(ready), limit=limit, seconds=seconds) if ready else []
        for number, lane in ready.items():
            mine = [one for one in held if one.provider_id == number]
            for start in range(0, len(mine), lane.limits.batch):
                batch = mine[start : start + lane.limits.batch]
                if self._stop.is_set() or not lane.circuit.closed():
                    give_back(self.database, batch)
                    continue
                self._ask(lane, batch)
        return bool(held)

    def _ask(self, lane: Lane, held: Sequence[Leased]) -> None:
        """Ask a provider about pictures, and store its answers; the failures are put back."""
        pictures = [self._picture(one) for one in held]
        key = threading.get_ident()
        self._calls[key] = (time.monotonic() + lane.limits.seconds, list(held), lane)
        try:
            if isinstance(lane.provider, LaterProvider):
                self._submitted(lane, held, lane.provider.submit(pictures))
                return
            assert isinstance(lane.provider, Provider)
            answers = lane.provider.describe(pictures)
            if len(answers) != len(pictures):
                raise Nonsense(f"{len(answers)} answers for {len(pictures)} pictures")
        except DatabaseAway:
            raise
        except Exception as error:
            self._failed(lane, held, error)
            return
        finally:
            self._calls.pop(key, None)
        for one, answer in zip(held, answers, strict=True):
            self._take(lane, one, answer)

    def _take(self, lane: Lane, one: Leased, answer: Answer) -> None:
        """Store the answer about one picture."""
        if isinstance(answer, Exception):
            if isinstance(answer, Unavailable):
                lane.circuit.failed(answer)
            failed(self.database, one, answer, lane.limits)
            return
        store(self.database, self.settings, one, lane.name, answer)
        lane.circuit.succeeded()

    def _failed(self, lane: Lane, held: Sequence[Leased], error: Exception) -> None:
        """Put a batch back. If one of several pictures may be the cause, each is tried alone first."""
        if not isinstance(error, Unavailable | Unreadable) and len(held) > 1 and isinstance(lane.provider, Provider):
            for one in held:
                self._ask(lane, [one])
            return
        log.warning("provider %s failed for %d pictures: %s", lane.name, len(held), error)
        lane.circuit.failed(error)
        for one in held:
            failed(self.database, one, error, lane.limits)

    def _submitted(self, lane: Lane, held: Sequence[Leased], jobs: Sequence[str | Exception]) -> None:
        for one, job in zip(held, jobs, strict=True):
            if isinstance(job, Exception):
                failed(self.database, one, job, lane.limits)
            else:
                submitted(self.database, one, job)
                lane.circuit.succeeded()

    def _poll(self, lane: Lane) -> bool:
        """Ask a later provider for the answers that are due."""
        provider = lane.provider
        assert isinstance(provider, LaterProvider)
        held = take_submitted(self.database, lane.number, limit=lane.limits.batch, every=provider.poll_every)
        if not held:
            return False
        try:
            answers = provider.poll([one.external_id or "" for one in held])
        except (Busy, Unavailable) as error:
            lane.circuit.failed(error)
            return False
        for one, answer in zip(held, answers, strict=True):
            if answer is not None:
                self._take(lane, one, answer)
            elif one.started < time.time() - provider.give_up:
                failed(self.database, one, TooSlow(f"no answer within {provider.give_up:g} s"), lane.limits)
        return any(answer is not None for answer in answers)

    def _picture(self, one: Leased) -> Picture:
        return Picture(one.image_id, one.sha256, self.context.place(one.sha256, one.path), self.context.examiner)

    def _watch(self) -> None:
        """End this process if a provider does not return: its requests count an attempt, and others take them up."""
        for until, held, lane in list(self._calls.values()):
            if time.monotonic() > until:
                error = TooSlow(f"no answer within {lane.limits.seconds:g} s")
                log.error("provider %s: %s; this worker ends and is started again", lane.name, error)
                lane.circuit.failed(error)
                for one in held:
                    failed(self.database, one, error, lane.limits)
                logging.shutdown()
                os._exit(STUCK)


def run_worker(settings: Settings, providers: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    worker = Worker(settings, providers)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: worker.stop())
    worker.run()
