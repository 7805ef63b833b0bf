"""Deletion everywhere: after it, no table, file, index or cache of any machine names the picture."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from isc.match.verification.feature_store import FeatureStore, photo_key
from isc.serve import schema
from isc.serve.api.app import create_app, shielded
from isc.serve.files import PictureFiles
from isc.serve.keeper import REMOVED_KEPT, tidy
from isc.serve.kinds import Decision, Kind
from isc.serve.settings import ProviderSettings
from isc.serve.worker import Worker
from tests.serving import PHOTOS, Service, edited, settings_in

ORIGIN = "http://localhost:8008"


@pytest.fixture
def service(database_url, tmp_path):
    settings = replace(
        settings_in(tmp_path, database_url), cache=tmp_path / "one", webhooks={"mine": "http://127.0.0.1:1/"},
        providers={"copy": ProviderSettings("copy", "copy", feedback="http://127.0.0.1:1/"),
                   "pdq": ProviderSettings("pdq", "pdq"), "quality": ProviderSettings("quality", "quality")},
    )  # fmt: skip
    one = Service.made(settings)
    yield one
    one.close()


def _named(service, digest):
    """Return the tables of which a row names the picture."""
    return {
        table.name
        for table in schema.metadata.sorted_tables
        for row in service.rows(sa.select(table))
        if digest in str(tuple(row))
    }


def _features(cache, path):
    key = photo_key(path)
    store = FeatureStore(cache / "features")
    found = store.get_many([key])
    store.close()
    return len(found)


@pytest.mark.slow
def test_a_picture_is_removed_from_every_store_of_every_machine(service, tmp_path):
    (first,) = service.take(PHOTOS[0])
    service.worker.drain()
    (second,) = service.take(edited(PHOTOS[0]))
    service.worker.drain()
    other = Worker(replace(service.settings, cache=tmp_path / "two"))  # of another machine
    other.context.index.follow()
    path = service.files.path(service.rows(sa.select(schema.image.c.sha256).where(schema.image.c.id == first))[0][0])
    digest, key = path.name, photo_key(path)
    features = FeatureStore(tmp_path / "one" / "features").get_many([key])
    FeatureStore(tmp_path / "two" / "features").put_many(features)
    (tmp_path / "two" / "index" / "earlier").mkdir()
    (tmp_path / "two" / "index" / "earlier" / "vectors").write_bytes(b"of other weights")
    client = TestClient(shielded(create_app(service.settings, service.database)), base_url=ORIGIN)
    match = service.rows(sa.select(schema.suggestion).where(schema.suggestion.c.kind == Kind.copy))[0]
    assert match.image_id == second  # so that the suggestion is one of the other picture
    vote = client.put(f"/api/suggestions/{match.id}/vote", json={"decision": Decision.accept})
    assert vote.json()["state"] == "accepted"
    assert client.get(f"/pictures/{first}/preview.jpg").status_code == 200
    assert client.post(f"/api/images/{first}/captions", json={"text": "a fish"}).status_code == 201
    assert _named(service, digest) == {"image", "event", "outbox"}
    assert [_features(tmp_path / name, path) for name in ("one", "two")] == [1, 1]

    content = path.read_bytes()
    assert client.delete(f"/api/images/{first}").status_code == 204
    assert not path.exists()
    assert _named(service, digest) == {"removal"}
    assert client.get("/api/suggestions", params={"state": "accepted"}).json()["items"] == []
    assert client.get(f"/api/images/{second}/results").status_code == 200
    assert [one for one in (service.settings.data / "previews").rglob("*") if one.is_file()] == []
    for worker, features_left in ((service.worker, 0), (other, 1)):  # those of the web machine are gone already
        assert worker._providers["copy"].forget() == features_left
        assert len(worker.context.index) == 1
    path.parent.mkdir(parents=True)
    path.write_bytes(content)  # so that a key of the same path can be asked for
    stored = [FeatureStore(tmp_path / name / "features") for name in ("one", "two")]
    assert [one.get_many([key]) for one in stored] == [{}, {}]
    assert [one.name for one in (tmp_path / "two" / "index").iterdir()] == [other.context.index.path.name]
    with service.database.writing() as connection:
        connection.execute(sa.update(schema.removal).values(created=time.time() - REMOVED_KEPT - 1))
    tidy(service.database, PictureFiles(service.settings.data / "pictures"))
    assert _named(service, digest) == set()
    other.database.close()


@pytest.mark.slow
def test_a_machine_that_was_away_follows_all_removals(service, tmp_path):
    images = service.take(*PHOTOS[:3])
    service.worker.drain()
    client = TestClient(shielded(create_app(service.settings, service.database)), base_url=ORIGIN)
    other = Worker(replace(service.settings, cache=tmp_path / "two"))
    other.context.index.follow()
    for number in images[:2]:
        assert client.delete(f"/api/images/{number}").status_code == 204
    other._providers["copy"].forget()
    assert len(other.context.index) == 1
    assert (tmp_path / "two" / "removed.json").read_text().strip() == "2"
    other.database.close()


@pytest.mark.slow
def test_a_worker_that_runs_keeps_nothing_of_a_removed_picture_in_memory(service):
    first, second = service.take(*PHOTOS[:2])
    lanes = service.worker.lanes()
    service.worker.drain()
    table, held = service.worker._providers["pdq"]._table, service.worker.context.examiner._held
    columns = (schema.image.c.id, schema.image.c.pdq, schema.image.c.sha256)
    facts = {row.id: row for row in service.rows(sa.select(*columns))}
    assert table.near(facts[first].pdq, within=0) == [(0, first)]
    assert set(held) == {facts[first].sha256, facts[second].sha256}
    client = TestClient(shielded(create_app(service.settings, service.database)), base_url=ORIGIN)
    assert client.delete(f"/api/images/{first}").status_code == 204
    service.worker.forget(lanes)
    assert table.near(facts[first].pdq, within=256) == [(bits(facts), second)]
    assert set(held) == {facts[second].sha256}
    (again,) = service.take(PHOTOS[0])  # a picture of the same hash may come back
    service.worker.drain()
    service.worker.forget(lanes)
    assert table.near(facts[first].pdq, within=0) == [(0, again)]


def bits(facts):
    one, other = (int(row.pdq, 16) for row in facts.values())
    return (one ^ other).bit_count()
