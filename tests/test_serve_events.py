"""Server-sent events: whoever was away gets all that was missed, and then what is new, each once."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
import sqlalchemy as sa
import uvicorn

from isc.serve import schema
from isc.serve.api.app import create_app, shielded
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
    rows = [{"image_id": n % 3 + 1, "kind": "answered", "body": {"n": n}, "created": now} for n in numbers]
    with service.database.writing() as connection:
        connection.execute(sa.insert(schema.event), rows)


def _heard(address, until, service, **options):
    """Return the ids that a stream tells up to `until`; a further event is written when all before are told."""
    found, new = [], False
    with httpx.stream("GET", address, timeout=20, **options) as answer:
        for line in answer.iter_lines():
            if line == ": listening" and not new:
                new = True
                _tell(service, [until])
            if line.startswith("id: "):
                found.append(int(line[4:]))
                if found[-1] >= until:
                    return found
    return found


def test_all_missed_events_come_before_the_new_ones(service, address):
    assert _heard(address, COUNT + 1, service, params={"after": 0}) == list(range(1, COUNT + 2))


def test_a_stream_goes_on_after_the_last_event_that_was_received(service, address):
    headers = {"Last-Event-ID": "120"}
    assert _heard(address, COUNT + 1, service, headers=headers, params={"after": 3}) == list(range(121, COUNT + 2))


def test_without_a_place_only_new_events_come(service, address):
    assert _heard(address, COUNT + 1, service) == [COUNT + 1]
