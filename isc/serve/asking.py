"""Calls to providers: pictures go out, answers are stored, and every failure is counted where it belongs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from isc.serve.circuit import Circuit
from isc.serve.database import Database, DatabaseAway
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, AnyProvider, LaterProvider, Limits, Provider, Unavailable
from isc.serve.providers.context import Context
from isc.serve.reading import Unreadable
from isc.serve.requests import Leased, failed, note_jobs, submitted, take_submitted
from isc.serve.results import Nonsense
from isc.serve.settings import Settings
from isc.serve.storing import store

log = logging.getLogger(__name__)
Value = TypeVar("Value")


class TooSlow(Unavailable):
    """A provider that did not answer within its limit."""


@dataclass(frozen=True)
class Lane:
    """One provider of a worker, its number in the table, and the calls that it may have at once."""

    name: str
    number: int
    provider: AnyProvider
    circuit: Circuit
    slots: threading.Semaphore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", threading.Semaphore(self.limits.concurrency))

    @property
    def limits(self) -> Limits:
        return self.provider.limits


@dataclass(frozen=True)
class Call:
    """A call that runs now: when it must have returned, and the requests it is about."""

    lane: Lane
    held: Sequence[Leased]
    until: float
    polled: bool


class Asking:
    """Asks the providers of a worker; may be called from any thread."""

    def __init__(self, database: Database, settings: Settings, context: Context) -> None:
        self._database, self._settings, self._context = database, settings, context
        self._calls: dict[int, Call] = {}

    def ask(self, lane: Lane, held: Sequence[Leased]) -> None:
        """Ask a provider about pictures, and store its answers; the failures are put back."""
        pictures = [self._picture(one) for one in held]
        try:
            if isinstance(lane.provider, LaterProvider):
                self._submit(lane, held, pictures)
                return
            assert isinstance(lane.provider, Provider)
            with self._timed(lane, held):
                answers = lane.provider.describe(pictures)
            _check_count(answers, pictures)
        except DatabaseAway:
            raise
        except Exception as error:
            self._failed(lane, held, error)
            return
        for one, answer in _failures_last(held, answers):
            self._take(lane, one, answer)

    def _submit(self, lane: Lane, held: Sequence[Leased], pictures: Sequence[Picture]) -> None:
        """Send pictures to a provider that answers later."""
        provider = lane.provider
        assert isinstance(provider, LaterProvider)
        named = zip(held, map(provider.job_of, pictures), strict=True)
        note_jobs(self._database, [(one, name) for one, name in named if name is not None])
        with self._timed(lane, held):
            jobs = provider.submit(pictures)
        _check_count(jobs, pictures)
        for one, job in _failures_last(held, jobs):
            if isinstance(job, Exception):
                self._put_back(lane, one, job)
            else:
                submitted(self._database, one, job)
                lane.circuit.succeeded()

    def poll(self, lane: Lane) -> bool:
        """Ask a later provider for the answers that are due; those that it was too late for are put back.

        While its circuit is open it is left alone, but what is too late is put back all the same.
        """
        provider = lane.provider
        assert isinstance(provider, LaterProvider)
        held = take_submitted(self._database, lane.number, limit=lane.limits.batch, every=provider.poll_every)
        answers = [None] * len(held) if not held or lane.circuit.is_open() else self._polled(lane, provider, held)
        for one, answer in _failures_last(held, answers):
            if answer is not None:
                self._take(lane, one, answer)
            elif one.started < time.time() - provider.give_up:
                failed(self._database, one, TooSlow(f"no answer within {provider.give_up:g} s"), lane.limits)
        return any(answer is not None for answer in answers)

    def _polled(self, lane: Lane, provider: LaterProvider, held: Sequence[Leased]) -> Sequence[Answer | None]:
        """Return the answers of a poll. If one of several jobs may be the cause of a failure, each is polled alone."""
        jobs = [one.external_id or "" for one in held]
        try:
            with self._timed(lane, held, polled=True):
                answers = provider.poll(jobs)
            _check_count(answers, jobs)
        except DatabaseAway:
            raise
        except Unavailable as error:
            lane.circuit.failed(error)
        except Exception as error:
            if len(held) > 1:
                return [answer for one in held for answer in self._polled(lane, provider, [one])]
            log.warning("provider %s failed when it was polled: %s", lane.name, error)
            failed(self._database, held[0], error, lane.limits, polled=True)
        else:
            return answers
        return [None] * len(held)

    def _take(self, lane: Lane, one: Leased, answer: Answer) -> None:
        """Store the answer about one picture."""
        if isinstance(answer, Exception):
            self._put_back(lane, one, answer)
            return
        store(self._database, self._settings, one, lane.name, answer)
        lane.circuit.succeeded()

    def _put_back(self, lane: Lane, one: Leased, error: Exception) -> None:
        if isinstance(error, Unavailable):
            lane.circuit.failed(error)
        failed(self._database, one, error, lane.limits)

    def _failed(self, lane: Lane, held: Sequence[Leased], error: Exception) -> None:
        """Put a batch back. If one of several pictures may be the cause, each is tried alone first."""
        if not isinstance(error, Unavailable | Unreadable) and len(held) > 1 and isinstance(lane.provider, Provider):
            for one in held:
                self.ask(lane, [one])
            return
        log.warning("provider %s failed for %d pictures: %s", lane.name, len(held), error)
        lane.circuit.failed(error)
        for one in held:
            failed(self._database, one, error, lane.limits)

    def end_late(self) -> bool:
        """Put back the requests of a call that has not returned in time; return whether there was one."""
        for call in list(self._calls.values()):
            if time.monotonic() > call.until:
                error = TooSlow(f"no answer within {call.lane.limits.seconds:g} s")
                log.error("provider %s: %s; this worker ends and is started again", call.lane.name, error)
                call.lane.circuit.failed(error)
                for one in call.held:
                    failed(self._database, one, error, call.lane.limits, polled=call.polled)
                return True
        return False

    def _picture(self, one: Leased) -> Picture:
        return Picture(one.image_id, one.sha256, self._context.place(one.sha256, one.path), self._context.examiner)

    @contextmanager
    def _timed(self, lane: Lane, held: Sequence[Leased], *, polled: bool = False) -> Iterator[None]:
        """Note the call of this thread while it runs."""
        key = threading.get_ident()
        self._calls[key] = Call(lane, held, time.monotonic() + lane.limits.seconds, polled)
        try:
            yield
        finally:
            self._calls.pop(key, None)


def _check_count(answers: Sequence[object], asked: Sequence[object]) -> None:
    """Raise Nonsense unless there is an answer for each thing that was asked."""
    if len(answers) != len(asked):
        raise Nonsense(f"{len(answers)} answers for {len(asked)} pictures")


def _failures_last(held: Sequence[Leased], answers: Sequence[Value]) -> list[tuple[Leased, Value]]:
    """Return the requests with their answers, so that a success does not close the circuit that a failure opens."""
    return sorted(zip(held, answers, strict=True), key=lambda pair: isinstance(pair[1], Exception))
