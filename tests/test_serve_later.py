"""Providers whose results come later: failures of sending and of polling end, and an early callback is not lost."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from isc.serve import schema
from isc.serve.api import callbacks
from isc.serve.api.app import create_app, shielded
from isc.serve.kinds import RequestState
from isc.serve.providers.base import Busy, LaterProvider, Limits, Unavailable
from isc.serve.providers.callback import SECRET, signature
from isc.serve.requests import take_submitted
from isc.serve.results import Label
from isc.serve.settings import ProviderSettings
from tests.serving import PHOTOS, Service, settings_in

HERE = "tests.test_serve_later:Moody"
SAYS = {"labels": [{"name": "boat", "score": 0.7}]}
ORIGIN = "http://localhost:8008"


class Moody(LaterProvider):
    """A provider whose `submit` and `poll` a test replaces."""

    version = "moody"
    poll_every = 0.0
    limits = Limits(batch=4, seconds=5.0, attempts=3, failures=2)

    def submit(self, pictures):
        return [f"job-{one.id}" for one in pictures]

    def poll(self, jobs):
        return [[Label("late", 0.8)] for _ in jobs]


@pytest.fixture
def service(database_url, tmp_path):
    settings = settings_in(tmp_path, database_url, providers={"moody": ProviderSettings("moody", HERE)})
    one = Service.made(settings)
    yield one
    one.close()


@pytest.fixture
def lane(service):
    (one,) = service.worker.lanes()
    return one


def _rows(service):
    return service.rows(sa.select(schema.request).order_by(schema.request.c.id))


def _due(service):
    """Let everything that waits be due now."""
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.request).values(run_after=0.0))
        connection.execute(sa.update(schema.circuit).values(open_until=0.0))


def test_failures_of_sending_open_the_circuit_and_a_429_pauses_all_requests(service, lane):
    service.take(*PHOTOS[:3])
    lane.provider.submit = lambda pictures: [Busy("429", retry_after=60), *("job-1", "job-2")][: len(pictures)]
    service.worker._round([lane])
    assert [row.state for row in _rows(service)] == [RequestState.queued, *[RequestState.submitted] * 2]
    assert lane.circuit.is_open()  # although two of three were taken
    (until,) = service.rows(sa.select(schema.circuit.c.open_until))[0]
    assert 50 < until - time.time() <= 60
    _due(service)
    lane.provider.submit = lambda pictures: [Unavailable("down") for _ in pictures]
    service.take(*PHOTOS[3:5])
    service.worker._round([lane])
    assert lane.circuit.is_open()
    assert service.rows(sa.select(schema.circuit.c.reason))[0].reason == "down"


def test_a_poll_that_breaks_ends_as_a_dead_letter_and_hurts_no_other_job(service, lane):
    service.take(*PHOTOS[:2])
    service.worker._round([lane])

    def poll(jobs):
        if "job-1" in jobs:
            raise RuntimeError("a bug")
        return [[Label("late", 0.8)] for _ in jobs]

    lane.provider.poll = poll
    assert service.worker.asking.poll(lane)
    first, second = _rows(service)
    assert (first.state, first.error, first.attempts) == (RequestState.submitted, "RuntimeError: a bug", 2)
    assert second.state == RequestState.done
    _due(service)
    assert not service.worker.asking.poll(lane)
    assert _rows(service)[0].state == RequestState.dead


def test_a_poll_of_a_wrong_count_counts_too(service, lane):
    service.take(PHOTOS[0])
    service.worker._round([lane])
    lane.provider.poll = lambda _: []
    for _ in range(2):
        service.worker.asking.poll(lane)
        _due(service)
    (row,) = _rows(service)
    assert (row.state, row.error) == (RequestState.dead, "Nonsense: 0 answers for 1 pictures")


@pytest.mark.parametrize("circuit_opens", [False, True])
def test_what_is_too_late_is_given_up_although_polling_fails(service, lane, circuit_opens):
    service.take(PHOTOS[0])
    service.worker._round([lane])
    polls = []

    def poll(jobs):
        polls.append(jobs)
        raise Unavailable("down")

    lane.provider.poll = poll
    for _ in range(3 if circuit_opens else 1):
        service.worker.asking.poll(lane)
    assert lane.circuit.is_open() is circuit_opens
    assert len(polls) == (2 if circuit_opens else 1)  # an open circuit costs no call
    assert _rows(service)[0].state == RequestState.submitted
    lane.provider.give_up = -1.0
    service.worker.asking.poll(lane)
    (row,) = _rows(service)
    assert (row.state, row.error) == (RequestState.queued, "TooSlow: no answer within -1 s")


def test_a_poll_that_does_not_return_in_time_is_seen(service, lane):
    service.take(PHOTOS[0])
    service.worker._round([lane])
    lane.provider.limits = replace(Moody.limits, seconds=0.001)
    seen = []

    def poll(jobs):
        time.sleep(0.05)
        seen.append(service.worker.asking.end_late())  # as the thread that watches does
        return [None for _ in jobs]

    lane.provider.poll = poll
    service.worker.asking.poll(lane)
    assert seen == [True]
    (row,) = _rows(service)
    assert (row.state, row.attempts) == (RequestState.submitted, 2)
    assert "TooSlow" in row.error


def _calling_back(service, monkeypatch, servant_url="http://127.0.0.1:1/"):
    """Return a service with a callback provider, its lane, and how a callback is sent."""
    monkeypatch.setenv(SECRET, "common secret")
    options = {"url": servant_url, "service": ORIGIN}
    settings = replace(service.settings, providers={"later": ProviderSettings("later", "callback", options)})
    other = Service(settings, service.database)
    client = TestClient(shielded(create_app(settings, service.database)), base_url=ORIGIN)
    content = json.dumps(SAYS).encode()
    headers = {"X-Signature-256": signature(content, "common secret"), "Content-Type": "application/json"}
    (lane,) = other.worker.lanes()
    return other, lane, lambda job: client.post(f"/api/callbacks/{job}", content=content, headers=headers)


def test_a_callback_may_come_before_sending_has_ended(service, monkeypatch):
    other, lane, call_back = _calling_back(service, monkeypatch)
    other.take(*PHOTOS[:2])
    answers = []

    def submit(pictures):
        jobs = [lane.provider.job_of(one) for one in pictures]
        answers.append(call_back(jobs[0]))
        return jobs

    lane.provider.submit = submit
    other.worker._round([lane])
    assert [(one.status_code, one.json()) for one in answers] == [(200, {"count": 1})]
    assert [row.state for row in _rows(other)] == [RequestState.done, RequestState.submitted]
    assert [row.name for row in other.rows(sa.select(schema.label.c.name))] == ["boat"]
    other._worker.context.examiner.reader.close()


def test_a_callback_whose_request_is_polled_meanwhile_is_stored_all_the_same(service, monkeypatch):
    other, lane, call_back = _calling_back(service, monkeypatch)
    other.take(PHOTOS[0])
    lane.provider.submit = lambda pictures: [lane.provider.job_of(one) for one in pictures]
    other.worker._round([lane])
    stored, losing = callbacks.store, [1]

    def store(database, *rest):
        if losing and losing.pop():
            take_submitted(database, lane.number, limit=1, every=0)  # a worker takes the request up
        return stored(database, *rest)

    monkeypatch.setattr(callbacks, "store", store)
    job = _rows(other)[0].external_id
    assert call_back(job).json() == {"count": 1}
    assert _rows(other)[0].state == RequestState.done
    assert call_back(job).json() == {"count": 0}
    other._worker.context.examiner.reader.close()


def test_a_callback_that_cannot_be_stored_is_asked_for_again(service, monkeypatch):
    other, lane, call_back = _calling_back(service, monkeypatch)
    other.take(PHOTOS[0])
    lane.provider.submit = lambda pictures: [lane.provider.job_of(one) for one in pictures]
    other.worker._round([lane])
    monkeypatch.setattr(callbacks, "store", lambda *_: False)
    answer = call_back(_rows(other)[0].external_id)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    other._worker.context.examiner.reader.close()
