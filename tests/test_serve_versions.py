"""New versions of providers: what they take over, what they ask again, and which worker may answer."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from isc.errors import InputError
from isc.serve import schema
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Decision, RequestState, SuggestionState
from isc.serve.providers.base import Limits, Provider, Refused
from isc.serve.requests import current_providers, failed, lease, register, send_again, submitted
from isc.serve.results import CopyMatch, Label
from isc.serve.settings import ProviderSettings
from isc.serve.storing import store
from isc.serve.supervisor import prepare_import
from isc.serve.versions import ask_again, renew
from isc.serve.votes import Reviewer, cast
from isc.serve.worker import Worker
from tests.serving import PHOTOS, Service, settings_in

HERE = "tests.test_serve_versions:Said"


class Said(Provider):
    """A provider of the version that a test gives it; versions of one letter can be compared."""

    kinds = frozenset(("copy", "label"))

    def __init__(self, version: str = "a1") -> None:
        self.version = version

    def comparable_with(self, version):
        return version[0] == self.version[0]

    def describe(self, pictures):
        return [[Label(self.version, 0.9)] for _ in pictures]


@pytest.fixture
def service(database_url, tmp_path):
    one = Service.made(settings_in(tmp_path, database_url))
    yield one
    one.close()


def _taken(service, count):
    """Take `count` pictures in for version a1, and return (image ids, provider id)."""
    number = register(service.database, {"said": Said()})["said"]
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg") for at in range(count)]
    return [one for one, _ in take_in(service.database, new)], number


def _renewed(service, version):
    one = Said(version)
    number = register(service.database, {"said": one})["said"]
    return number, renew(service.database, "said", one)


def _states(service, number):
    wanted = sa.select(schema.request.c.image_id, schema.request.c.state)
    return dict(map(tuple, service.rows(wanted.where(schema.request.c.provider_id == number))))


def test_a_new_version_takes_over_what_no_version_has_answered(service):
    images, first = _taken(service, 5)
    done, leased, sent, dead = lease(service.database, [first], limit=4, seconds=600)
    assert store(service.database, service.settings, done, "said", [])
    submitted(service.database, sent, "job-1")
    assert failed(service.database, dead, Refused("no"), Limits()) is RequestState.dead
    second, count = _renewed(service, "a2")
    assert count == 4
    assert _states(service, second) == dict.fromkeys(images[1:], RequestState.queued)
    left = {state for image, state in _states(service, first).items() if image != done.image_id}
    assert left == {RequestState.superseded}
    assert not store(service.database, service.settings, leased, "said", [Label("late", 0.9)])
    assert len(lease(service.database, [second], limit=9, seconds=60)) == 4
    assert _renewed(service, "a2") == (second, 0)  # each start does this again
    assert service.rows(sa.select(schema.label)) == []


def test_a_version_that_is_used_again_takes_its_requests_back(service):
    images, first = _taken(service, 2)
    second, _ = _renewed(service, "a2")
    assert _renewed(service, "a1") == (first, 2)
    assert _states(service, first) == dict.fromkeys(images, RequestState.queued)
    assert set(_states(service, second).values()) == {RequestState.superseded}


def test_all_pictures_are_asked_again_when_descriptions_cannot_be_compared(service):
    images, first = _taken(service, 3)
    for one in lease(service.database, [first], limit=3, seconds=60):
        assert store(service.database, service.settings, one, "said", [])
    alone = take_in(service.database, [NewImage("e" * 64, 10, "e.jpg")])[0][0]
    second, count = _renewed(service, "a2")
    assert count == 1  # what a1 has described still serves
    assert _states(service, second) == {alone: RequestState.queued}
    third, count = _renewed(service, "b1")
    assert count == 4
    assert _states(service, third) == dict.fromkeys([*images, alone], RequestState.queued)
    assert _renewed(service, "b1") == (third, 0)


def test_suggestions_of_the_old_version_go_when_the_new_one_answers_and_decided_ones_stay(service):
    images, first = _taken(service, 3)
    held = lease(service.database, [first], limit=3, seconds=60)
    for one, other in zip(held, (1, 2, 0), strict=True):
        pair = CopyMatch(other=images[other], distance=1.0, probability=0.9, verdict="copy")
        assert store(service.database, service.settings, one, "said", [pair])
    numbers = list(map(tuple, service.rows(sa.select(schema.suggestion.c.image_id, schema.suggestion.c.id))))
    cast(service.database, service.settings, Reviewer("ann"), {dict(numbers)[images[2]]: Decision.accept})
    second, count = _renewed(service, "a2")
    assert count == 2
    columns = (schema.suggestion.c.image_id, schema.suggestion.c.provider_id, schema.suggestion.c.state,
               schema.suggestion.c.why)  # fmt: skip
    assert {row.state for row in service.rows(sa.select(*columns))} == {
        SuggestionState.unreviewed, SuggestionState.accepted
    }  # fmt: skip
    new = next(one for one in lease(service.database, [second], limit=9, seconds=60) if one.image_id == images[1])
    pair = CopyMatch(other=images[0], distance=1.0, probability=0.8, verdict="copy")
    assert store(service.database, service.settings, new, "said", [pair])
    rows = {(row.image_id, row.provider_id): row for row in service.rows(sa.select(*columns))}
    assert rows[images[0], first].state == SuggestionState.hidden  # the same pair the other way round
    assert rows[images[1], first].state == SuggestionState.hidden
    assert rows[images[1], first].why == "renewed"
    assert rows[images[2], first].state == SuggestionState.accepted
    assert rows[images[1], second].state == SuggestionState.unreviewed


def test_dead_letters_of_a_provider_that_is_not_in_use_are_not_revived(service):
    _, first = _taken(service, 1)
    (one,) = lease(service.database, [first], limit=1, seconds=60)
    failed(service.database, one, Refused("no"), Limits())
    register(service.database, {"other": Said()})
    with service.database.writing() as connection:
        assert send_again(connection, provider_name="said") == 0
        assert send_again(connection, request_ids=[one.id]) == 0
    register(service.database, {"said": Said()})
    with service.database.writing() as connection:
        assert send_again(connection, request_ids=[one.id]) == 1


def test_pictures_with_decisions_or_all_are_asked_again_on_demand(service):
    _, first = _taken(service, 3)
    for one in lease(service.database, [first], limit=3, seconds=60):
        assert store(service.database, service.settings, one, "said", [Label("cat", 0.9)])
    (chosen, *_) = (row.id for row in service.rows(sa.select(schema.suggestion.c.id)))
    cast(service.database, service.settings, Reviewer("ann"), {chosen: Decision.accept})
    register(service.database, {"said": Said("a2")})
    assert ask_again(service.database, "said", "decided") == 1
    assert ask_again(service.database, "said", "all") == 2
    assert ask_again(service.database, "nobody") is None


def _running(tmp_path, *names):
    """Return a service with providers of these names, all of version a1."""
    settings = replace(settings_in(tmp_path), providers={name: ProviderSettings(name, HERE) for name in names})
    return Service.made(settings)


def test_a_worker_of_another_version_than_the_service_stops_and_says_so(tmp_path, monkeypatch):
    service = _running(tmp_path, "said")
    worker = service.worker
    options = {"said": replace(service.settings.providers["said"], options={"version": "a2"})}
    other = Worker(replace(service.settings, providers=options))
    with pytest.raises(InputError, match="provider said: the service uses version a1, this worker has a2"):
        other.run()
    monkeypatch.setattr("isc.serve.worker.CHECK", 0.0)
    ended = []

    def run():
        try:
            worker.run()
        except InputError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    register(service.database, {"said": Said("a2")})
    thread.join(30)
    assert not thread.is_alive()
    assert "the service uses version a2, this worker has a1" in ended[0]
    service.close()


def test_a_worker_for_one_provider_leaves_the_others_in_use(tmp_path):
    service = _running(tmp_path, "one", "two")
    _ = service.worker
    more = replace(service.settings, providers={**service.settings.providers, "new": ProviderSettings("new", HERE)})
    assert [lane.name for lane in Worker(more, ["new"]).lanes()] == ["new"]
    with service.database.reading() as connection:
        assert set(current_providers(connection)) == {"one", "two", "new"}
    service.close()


def test_an_import_without_the_settings_of_the_service_switches_no_provider_off(tmp_path):
    service = _running(tmp_path, "one", "two")
    _ = service.worker
    prepare_import(replace(service.settings, providers={"three": ProviderSettings("three", HERE)})).close()
    with service.database.reading() as connection:
        assert set(current_providers(connection)) == {"one", "two"}
    service.close()
    fresh = replace(settings_in(tmp_path / "fresh"), providers={"three": ProviderSettings("three", HERE)})
    database = prepare_import(fresh)
    with database.reading() as connection:
        assert set(current_providers(connection)) == {"three"}
    database.close()


class Counting(Provider):
    """A provider that notes how many of its calls run at once."""

    version = "counting"
    running, most = 0, 0
    lock = threading.Lock()

    def describe(self, pictures):
        kind = type(self)
        with kind.lock:
            kind.running += 1
            kind.most = max(kind.most, kind.running)
        time.sleep(0.05)
        with kind.lock:
            kind.running -= 1
        return [[] for _ in pictures]


class Single(Counting):
    """One call at a time."""

    group = "mixed"
    limits = Limits(batch=1, concurrency=1)


class Several(Counting):
    """Three calls at a time."""

    group = "mixed"
    limits = Limits(batch=1, concurrency=3)


def test_each_provider_of_a_group_has_its_own_number_of_calls_at_once(tmp_path):
    here = "tests.test_serve_versions"
    chosen = {name: ProviderSettings(name, f"{here}:{name}") for name in ("Single", "Several")}
    service = Service.made(replace(settings_in(tmp_path), providers=chosen))
    service.take(*PHOTOS[:12])
    thread = threading.Thread(target=service.worker.run)
    thread.start()
    end = time.monotonic() + 60
    while service.rows(sa.select(schema.request.c.id).where(schema.request.c.state != "done")):
        assert time.monotonic() < end
        time.sleep(0.05)
    service.worker.stop()
    thread.join(30)
    assert Single.most == 1
    assert 1 < Several.most <= 3
    service.database.close()


def test_providers_of_other_machines_share_no_thread_and_no_process(tmp_path):
    options = {"url": "http://127.0.0.1:1/"}
    mapped = {**options, "labels": {"items": "x", "name": "n", "score": "s"}}
    chosen = {
        "vision": ProviderSettings("vision", "vision", options),
        "tags": ProviderSettings("tags", "http", mapped),
        "slow": ProviderSettings("slow", "callback", {**options, "service": "http://localhost:8008"}),
    }
    service = Service.made(replace(settings_in(tmp_path), providers=chosen))
    worker = Worker(service.settings)
    assert worker.register_all() == [["vision"], ["tags"], ["slow"]]
    service.close()
