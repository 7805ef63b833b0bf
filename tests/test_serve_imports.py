"""Imports in the background: done, failed, with blocked files, and taken up after a kill."""

from __future__ import annotations

import shutil
import time

import pytest
import sqlalchemy as sa

from isc.find.index import Index
from isc.find.photos import file_state
from isc.serve import importing, intake, schema
from isc.serve.importing import import_path, next_import
from isc.serve.intake import Blocked
from tests.serving import PHOTOS, Service, settings_in


@pytest.fixture
def service(tmp_path):
    one = Service.made(settings_in(tmp_path))
    yield one
    one.close()


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for one in PHOTOS[:3]:
        shutil.copy(one, place)
    return place


def _ask(service, path, **values):
    row = {"path": str(path), "state": "queued", "found": 0, "lease_until": 0.0, "created": time.time(), **values}
    with service.database.writing() as connection:
        connection.execute(sa.insert(schema.folder_import).values(row))


def _asked(service):
    return service.rows(sa.select(schema.folder_import))[0]


def _block(service, photo):
    row = {"action": "block", "kind": "image", "value": file_state(photo).sha256, "created": time.time()}
    with service.database.writing() as connection:
        connection.execute(sa.insert(schema.listing).values(row))


def test_an_import_is_done_once(service, folder):
    assert not next_import(service.database, weights="w")
    _ask(service, folder)
    assert next_import(service.database, weights="w")
    assert (_asked(service).state, _asked(service).found) == ("done", 3)
    assert _asked(service).finished is not None
    assert not next_import(service.database, weights="w")


def test_an_import_of_no_folder_has_failed_and_is_not_tried_again(service, tmp_path):
    _ask(service, tmp_path / "nothing")
    assert next_import(service.database, weights="w")
    assert _asked(service).state == "failed"
    assert "is no folder and no index" in _asked(service).error
    assert not next_import(service.database, weights="w")


def test_a_blocked_file_and_one_that_goes_are_left_out_and_the_others_come(service, folder, monkeypatch):
    _block(service, PHOTOS[1])
    state = importing.file_state

    def hashed(place):
        found = state(place)
        if place.name == PHOTOS[2].name:
            place.unlink()
        return found

    monkeypatch.setattr(importing, "file_state", hashed)
    _ask(service, folder)
    assert next_import(service.database, weights="w")
    assert (_asked(service).state, _asked(service).found) == ("done", 1)
    assert [row.name for row in service.rows(sa.select(schema.image.c.name))] == [PHOTOS[0].name]


def test_a_file_that_is_blocked_at_the_same_moment_fails_its_import_once(service, folder, monkeypatch):
    _block(service, PHOTOS[1])
    monkeypatch.setattr(intake, "blocked", lambda *_: set())
    with pytest.raises(Blocked):
        import_path(service.database, folder, weights="w")
    _ask(service, folder)
    assert next_import(service.database, weights="w")
    assert _asked(service).state == "failed"
    assert "block list" in _asked(service).error
    assert not next_import(service.database, weights="w")


def test_an_import_that_a_killed_process_left_is_taken_up_when_its_lease_ends(service, folder):
    _ask(service, folder, state="leased", lease_until=time.time() + 60)
    assert not next_import(service.database, weights="w")
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.folder_import).values(lease_until=time.time() - 1))
    assert next_import(service.database, weights="w")
    assert (_asked(service).state, _asked(service).found) == ("done", 3)


def test_an_import_gives_signs_of_life_while_it_runs(service, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "GROUP", 2)
    monkeypatch.setattr(importing, "ROWS", 2)
    beats = []
    assert import_path(service.database, folder, weights="w", beat=lambda: beats.append(1)) == 3
    assert len(beats) == 2
    index = Index(tmp_path / "made.index")
    index.add(*PHOTOS[3:8])
    weights = service.worker.context.weights
    beats.clear()
    assert import_path(service.database, tmp_path / "made.index", weights=weights, beat=lambda: beats.append(1)) == 5
    assert len(beats) == 3 + 3  # of files, and of descriptors
