"""The store of features of a service: a damaged one is said in one line, and stops nothing."""

from __future__ import annotations

import logging
import sqlite3

import pytest
import sqlalchemy as sa

from isc.serve import kept_features, schema
from isc.serve.kept_features import KeptFeatures
from isc.serve.kinds import RequestState
from tests.serving import PHOTOS, Service, edited, settings_in
from tests.test_serve_api import client_of


def _of_another_version(path):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")


def _damaged(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 40_000)


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "said"), [(_of_another_version, "another version of isc"), (_damaged, "is damaged")])
def test_the_service_goes_on_without_the_store_and_with_it_again(tmp_path, monkeypatch, caplog, spoil, said):
    service = Service.made(settings_in(tmp_path))
    service.take(PHOTOS[0])
    service.worker.drain()
    path = service.settings.cache_folder / "features" / "features.sqlite"
    service.close()
    assert path.stat().st_size > 50_000
    for one in path.parent.glob("features.sqlite?*"):
        one.unlink()
    spoil(path)
    service = Service.made(service.settings)
    with caplog.at_level(logging.ERROR):
        (copy,) = service.take(edited(PHOTOS[0]))
        service.take(edited(PHOTOS[0], crop=0.1))
        service.worker.drain()
        deleted = client_of(service).delete(f"/api/images/{copy}")
    lines = [one.message for one in caplog.records if "features.sqlite" in one.message]
    assert said in lines[0]
    assert "remove it" in lines[0]
    assert len(set(lines)) == 1
    assert len(lines) == 2  # of the worker, and of the web process
    assert deleted.status_code == 204
    assert {row.state for row in service.rows(sa.select(schema.request.c.state))} == {RequestState.done}
    assert service.rows(sa.select(schema.copy_match))
    path.unlink()
    monkeypatch.setattr(kept_features, "AGAIN", 0.0)
    service.worker.context.features._due = 0.0  # a minute has passed
    service.take(PHOTOS[1])
    service.worker.drain()
    assert path.stat().st_size > 50_000
    service.close()


def test_a_file_in_place_of_the_folder_is_said_too(tmp_path, caplog):
    (tmp_path / "features").write_text("no folder")
    with caplog.at_level(logging.ERROR):
        assert KeptFeatures(tmp_path / "features").get_many([]) == {}
    assert "is a file" in caplog.text
