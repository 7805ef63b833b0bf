"""Reasons are keys of the catalogue: they are shown in the reader's language, and old texts as they are."""

from __future__ import annotations

import string

import pytest
import sqlalchemy as sa

from isc.serve import catalogue, reasons, schema
from isc.serve.kinds import Kind
from isc.serve.reasons import Why
from isc.serve.requests import lease, register
from isc.serve.results import Label
from isc.serve.settings import Review
from isc.serve.storing import store
from tests.serving import PHOTOS, Service, settings_in
from tests.test_serve_api import client_of

MADE = [one for one in vars(reasons).values() if isinstance(one, Why)]
MADE += [reasons.below(0.123, 0.5), reasons.listed("dog"), reasons.rarely_accepted(1, 20), reasons.slow_to_decode(2.5)]


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("label",))


@pytest.fixture
def service(tmp_path):
    """A service with a picture about which two labels were said: one is withheld, one was in an old version."""
    one = Service.made(settings_in(tmp_path, review={Kind.label: Review(show=0, withhold=0.5, audit=0)}))
    one.take(PHOTOS[0])
    number = register(one.database, {"said": Said()})["said"]
    one.take(PHOTOS[0])
    (held,) = lease(one.database, [number], limit=1, seconds=60)
    assert store(one.database, one.settings, held, "said", [Label("cat", 0.3), Label("dog", 0.8)])
    with one.database.writing() as connection:
        old = sa.update(schema.suggestion).where(schema.suggestion.c.score == 0.8)
        connection.execute(old.values(state="withheld", why="said long ago"))
    yield one
    one.close()


@pytest.fixture
def german(tmp_path, monkeypatch):
    """A catalogue of one text that lies beside the English one."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "en.toml").write_bytes((catalogue.TEXTS / "en.toml").read_bytes())
    (folder / "de.toml").write_text('why_below = "{score:.2f} liegt unter {limit:g}"\nwhy_by_person = "von Hand"\n')
    monkeypatch.setattr(catalogue, "TEXTS", folder)
    catalogue.texts_of.cache_clear()
    yield {"accept-language": "de"}
    catalogue.texts_of.cache_clear()


def test_every_reason_has_a_text_with_its_values_in_braces():
    texts = catalogue.texts_of("en")
    assert len(MADE) == len({one.key for one in MADE}) == sum(key.startswith("why_") for key in texts)
    for one in MADE:
        assert {name for _, name, _, _ in string.Formatter().parse(texts[f"why_{one.key}"]) if name} == set(one.values)
    assert reasons.reason_text("below", {"score": 0.123, "limit": 0.5}) == "score 0.12 is below 0.5"


def test_the_api_gives_the_key_the_values_and_an_english_text(service, german):
    found = client_of(service).get("/api/images/1/results", headers=german).json()["labels"]
    assert [one["why"] for one in found] == [
        {"text": "score 0.30 is below 0.5", "key": "below", "values": {"score": 0.3, "limit": 0.5}},
        {"text": "said long ago", "key": None, "values": {}},
    ]


def test_the_page_says_reasons_in_the_language_of_the_reader(service, german):
    client = client_of(service)
    assert client.put("/api/images/1/state", json={"state": "negative"}).json()["reason"]["key"] == "by_person"
    in_german, in_english = ("0.30 liegt unter 0.5", "von Hand"), ("score 0.30 is below 0.5", "set by a person")
    for headers, texts in ((german, in_german), ({}, in_english)):
        page = client.get("/images/1", headers=headers).text
        assert all(text in page for text in (*texts, "said long ago"))
