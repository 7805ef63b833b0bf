"""A worker: it leases requests, asks providers, and stores what they say. Each group of providers has its threads."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from threadpoolctl import threadpool_limits

from isc.errors import InputError
from isc.serve.asking import Asking, Lane
from isc.serve.circuit import Circuit
from isc.serve.database import Database, DatabaseAway
from isc.serve.forgetting import Removals
from isc.serve.providers.base import LaterProvider, Provider
from isc.serve.providers.context import Context
from isc.serve.providers.registry import build
from isc.serve.requests import give_back, lease, register, versions_in_use
from isc.serve.settings import Settings
from isc.serve.versions import renew

log = logging.getLogger(__name__)

IDLE = (0.05, 0.5)  # seconds between two looks at the queue: after work, and at most
AWAY = 2.0  # seconds before the database is tried again
GRACE = 10.0  # seconds of a lease beyond the limit of a call
CHECK = 10.0  # seconds between two looks whether versions are still those in use, and pictures were removed
STUCK = 75  # exit status of a worker that ended itself because a provider did not return


class Worker:
    """Works for some providers until it is stopped; `run` blocks."""

    def __init__(self, settings: Settings, providers: Sequence[str] | None = None) -> None:
        self.settings = settings
        self.database = Database(settings.database)
        self.context = Context(self.database, settings)
        wanted = settings.providers if providers is None else {name: settings.providers[name] for name in providers}
        self._providers = {name: build(one, self.context) for name, one in wanted.items()}
        self._stop = threading.Event()
        self._removals = Removals(self.database)
        self.asking = Asking(self.database, settings, self.context)

    def run(self) -> None:
        """Work until `stop` is called. A database that is away is waited for.

        Products of small matrices take one core each: threads of BLAS that wait for a core that others use double the
        time of comparing two pictures. The search for descriptors has threads of its own.

        Raises InputError as soon as the service uses another version of one of the providers.
        """
        lanes = self.lanes()
        threads = [threading.Thread(target=self._loop, args=(one,), daemon=True) for one in self._loops(lanes)]
        for thread in threads:
            thread.start()
        try:
            with threadpool_limits(1, user_api="blas"):
                self._watch()
        finally:
            self.stop()
            end = time.monotonic() + max((one.limits.seconds for one in lanes), default=0)
            for thread in threads:
                thread.join(max(0.1, end - time.monotonic()))
            self.context.examiner.reader.close()

    def lanes(self) -> list[Lane]:
        """Return the providers with their numbers and circuits, when the database knows them.

        Raises InputError if the service uses another version of one.
        """
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

    def _loops(self, lanes: Sequence[Lane]) -> list[Callable[[], bool]]:
        """Return what the threads of this worker do: rounds of each group, and polls of each later provider."""
        groups: dict[str, list[Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.provider.group, []).append(lane)
        loops: list[Callable[[], bool]] = []
        for group in groups.values():
            loops += [partial(self._round, group)] * max(one.limits.concurrency for one in group)
        loops.append(partial(self._forget, lanes))
        return loops + [partial(self.asking.poll, one) for one in lanes if isinstance(one.provider, LaterProvider)]

    def _registered(self) -> dict[str, int]:
        """Return the ids of the providers, of which those that the service does not know yet are in use from now on."""
        while not self._stop.is_set():
            try:
                known = self._in_use()
                if missing := {name: one for name, one in self._providers.items() if name not in known}:
                    register(self.database, missing, alone=False)
                    known = self._in_use()
                self._check_versions(known)
                return {name: known[name][0] for name in self._providers}
            except DatabaseAway as error:
                log.error("the database is away (%s); trying again", error)
                self._stop.wait(AWAY)
        return {}

    def _in_use(self) -> dict[str, tuple[int, str]]:
        with self.database.reading() as connection:
            return versions_in_use(connection)

    def _check_versions(self, known: dict[str, tuple[int, str]]) -> None:
        """Raise InputError if the service uses another version of a provider: answers would be stored as of that."""
        for name, one in self._providers.items():
            if name in known and known[name][1] != one.version:
                raise InputError(
                    f"provider {name}: the service uses version {known[name][1]}, this worker has {one.version}; "
                    "expected the package, the model and the settings of isc serve"
                )

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
        """Lease one batch for the providers of a group, and ask each of them; return whether there was work.

        A provider that has as many calls as it may have is left out.
        """
        free = [lane for lane in lanes if lane.slots.acquire(blocking=False)]
        try:
            return self._asked({lane.number: lane for lane in free if not lane.circuit.is_open()})
        finally:
            for lane in free:
                lane.slots.release()

    def _asked(self, ready: dict[int, Lane]) -> bool:
        limit = sum(lane.limits.batch for lane in ready.values())
        seconds = sum(lane.limits.seconds for lane in ready.values()) + GRACE
        held = lease(self.database, list(ready), limit=limit, seconds=seconds) if ready else []
        for number, lane in ready.items():
            mine = [one for one in held if one.provider_id == number]
            for start in range(0, len(mine), lane.limits.batch):
                batch = mine[start : start + lane.limits.batch]
                if self._stop.is_set() or not lane.circuit.admits():
                    give_back(self.database, batch)
                    continue
                self.asking.ask(lane, batch)
        return bool(held)

    def _forget(self, lanes: Sequence[Lane]) -> bool:
        """Forget removed pictures, every few seconds."""
        if not self._stop.wait(CHECK):
            self.forget(lanes)
        return False

    def forget(self, lanes: Sequence[Lane]) -> None:
        """Drop what this process, its providers and their caches hold of removed pictures."""
        self.context.forget(digest for _, digest in self._removals.since())
        for lane in lanes:
            if isinstance(lane.provider, Provider):
                lane.provider.forget()

    def _watch(self) -> None:
        """Wait until this worker is stopped.

        It ends its own process if a provider does not return: its requests count an attempt, and others take them up.
        Raises InputError if its versions are no longer those in use.
        """
        due = time.monotonic() + CHECK
        while not self._stop.wait(0.5):
            if self.asking.end_late():
                logging.shutdown()
                os._exit(STUCK)
            if time.monotonic() > due:
                due = time.monotonic() + CHECK
                with suppress(DatabaseAway):
                    self._check_versions(self._in_use())


def run_worker(settings: Settings, providers: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT. Raises InputError if it has another version of a provider than in use."""
    worker = Worker(settings, providers)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: worker.stop())
    worker.run()
