"""Server-sent events: whoever was away gets all that was missed, and then what is new, each once."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import sqlalchemy as sa
import uvicorn

from isc.serve import schema
from isc.serve.api.admin import EventPlace
from isc.serve.api.app import create_app, shielded
from isc.serve.api.broker import OVERLAP, Place
from tests.serving import Service, free_port, settings_in

COUNT = 1_500  # more than one page of the broker


@pytest.fixture
def service(tmp_path):
    one = Service.made(settings_in(tmp_path))
    _tell(one, range(1, COUNT + 1))
    yield one
    one.close()


@pytest.fixture
def address(service):
    app = create_app(service.settings, service.database)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(shielded(app), port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://localhost:{port}/api/events"
    app.state.shared.broker.close()
    server.should_exit = True
    thread.join(10)


def _tell(service, numbers):
    now = time.time()
    rows = [{"id": n, "image_id": n % 3 + 1, "kind": "answered", "body": {"n": n}, "created": now} for n in numbers]
    with service.database.writing() as connection:
        connection.execute(sa.insert(schema.event), rows)


class Stream:
    """A stream of events that is read a part at a time; `place` is the last id that it sent."""

    def __init__(self, answer):
        self._lines = answer.iter_lines()
        self.place = ""

    def until(self, last):
        """Return the numbers of the next events up to this one; None stands for the end of those that were missed."""
        found = []
        for line in self._lines:
            if line.startswith("id: "):
                self.place = line[4:]
            if line.startswith("data: "):
                found.append(json.loads(line[6:])["n"])
            if (last is None and line == ": listening") or (found and found[-1] == last):
                break
        return found


@contextmanager
def _opened(address, place=None, **params):
    headers = {} if place is None else {"Last-Event-ID": place}
    with httpx.stream("GET", address, timeout=20, headers=headers, params=params) as answer:
        yield Stream(answer)


def _heard(address, until, service, **options):
    """Return the events that a stream tells up to `until`; that one is written when all before are told."""
    with _opened(address, **options) as stream:
        missed = stream.until(None)
        _tell(service, [until])
        return [*missed, *stream.until(until)]


def test_an_event_that_is_written_late_is_told_live_and_after_a_break(service, address):
    with _opened(address) as stream:
        assert stream.until(None) == []
        _tell(service, [COUNT + 5])
        assert stream.until(COUNT + 5) == [COUNT + 5]
        _tell(service, [COUNT + 2])  # its transaction began before the other one
        assert stream.until(COUNT + 2) == [COUNT + 2]
    _tell(service, [COUNT + 3, COUNT + 8])
    with _opened(address, stream.place) as again:
        assert again.until(None) == [COUNT + 3, COUNT + 8]
        _tell(service, [COUNT + 7])
        assert again.until(COUNT + 7) == [COUNT + 7]
    with _opened(address, after=again.place) as third:
        _tell(service, [COUNT + 1, COUNT + 9])
        assert [*third.until(None), *third.until(COUNT + 9)] == [COUNT + 1, COUNT + 9]


def test_of_one_picture_late_events_are_told_too_and_none_twice(service, address):
    mine = 1  # events whose number can be divided by 3
    with service.database.writing() as connection:
        facts = {"id": mine, "sha256": "a" * 64, "name": "a.jpg", "bytes": 1, "state": "active", "first_seen": 0.0}
        connection.execute(sa.insert(schema.image).values(facts))
    with _opened(address, image=mine) as stream:
        stream.until(None)
        _tell(service, [1503, 1505, 1509])
        assert stream.until(1509) == [1503, 1509]
    _tell(service, [1506, 1507, 1512])
    with _opened(address, stream.place, image=mine) as again:
        assert again.until(None) == [1506, 1512]
    with _opened(address, again.place, image=mine) as third:
        assert third.until(None) == []


def test_a_place_comes_back_from_its_text():
    rng = random.Random(2)
    for _ in range(200):
        place, told = Place(start := rng.randrange(300)), set(range(start + 1))
        for _ in range(rng.randrange(400)):
            number = rng.randrange(max(1, place.last - OVERLAP), place.last + 3)
            place.add(number)
            told.add(number)
        again = Place.read(str(place))
        assert re.fullmatch(EventPlace, str(place))
        for one in range(max(1, place.last - OVERLAP), place.last + 5):
            assert place.knows(one) == again.knows(one) == (one in told)


def test_all_missed_events_come_before_the_new_ones(service, address):
    assert _heard(address, COUNT + 1, service, after=0) == list(range(1, COUNT + 2))


def test_a_stream_goes_on_after_the_last_event_that_was_received(service, address):
    assert _heard(address, COUNT + 1, service, place="120", after=3) == list(range(121, COUNT + 2))


def test_without_a_place_only_new_events_come(service, address):
    assert _heard(address, COUNT + 1, service) == [COUNT + 1]
