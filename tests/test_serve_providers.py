"""Providers of all kinds against real servers that misbehave: slow, down, busy, and full of nonsense."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from isc.errors import InputError
from isc.photos.decode import read_image
from isc.serve import schema
from isc.serve.api.app import create_app, shielded
from isc.serve.kinds import RequestState
from isc.serve.picture import Picture
from isc.serve.providers.base import Busy, LaterProvider, Limits, Provider, Refused, Unavailable
from isc.serve.providers.callback import SECRET, CallbackProvider, signature
from isc.serve.providers.mapping import MappingProvider
from isc.serve.providers.registry import build
from isc.serve.providers.vision import VisionProvider
from isc.serve.results import Caption, Label, Nonsense, Number
from isc.serve.settings import ProviderSettings
from tests.serving import PHOTOS, Service, settings_in


class Servant:
    """A server whose answers a test chooses; it keeps the requests."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[bytes], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"{}")
        self.trickle = 0.0
        servant = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                servant.seen.append((dict(self.headers), body))
                status, headers, said = servant.answer(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                for at in range(len(said)):
                    time.sleep(servant.trickle)
                    self.wfile.write(said[at : at + 1])
                    self.wfile.flush()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def says(self, value: object, status: int = 200, **headers: str) -> None:
        self.answer = lambda _: (status, headers, json.dumps(value).encode())


@pytest.fixture
def servant():
    one = Servant()
    yield one
    one.server.shutdown()


@pytest.fixture
def picture():
    return Picture(1, "a" * 64, PHOTOS[0])


def test_vision_reads_labels_and_texts_and_sends_the_picture(servant, picture, monkeypatch):
    monkeypatch.setenv("VISION_KEY", "top-secret")
    provider = VisionProvider(url=servant.url, key_env="VISION_KEY")
    texts = [{"description": "STOP", "locale": "en"}, {"description": "S"}]
    labels = [{"description": "fish", "score": 0.9, "mid": "/m/0ch_cf"}]
    servant.says({"responses": [{"labelAnnotations": labels, "textAnnotations": texts}]})
    assert provider.describe([picture]) == [[Label("fish", 0.9), Caption("STOP", "en")]]
    headers, body = servant.seen[0]
    assert headers["X-Goog-Api-Key"] == "top-secret"
    assert base64.b64decode(json.loads(body)["requests"][0]["image"]["content"]) == PHOTOS[0].read_bytes()
    servant.says({"responses": [{"error": {"code": 3, "message": "bad image"}}]})
    assert isinstance(provider.describe([picture])[0], Refused)
    servant.says({"responses": [{"error": {"code": 14, "message": "later"}}]})
    assert isinstance(provider.describe([picture])[0], Unavailable)
    for nonsense in ({"responses": [{"labelAnnotations": [{"description": "x", "score": 7}]}]}, {"responses": [[1]]},
                     {"responses": [{"labelAnnotations": [{}]}]}):  # fmt: skip
        servant.says(nonsense)
        assert isinstance(provider.describe([picture])[0], Nonsense)
    servant.says({"responses": []})
    with pytest.raises(Nonsense):
        provider.describe([picture])
    monkeypatch.delenv("VISION_KEY")
    with pytest.raises(InputError, match="VISION_KEY is not set"):
        VisionProvider(url=servant.url, key_env="VISION_KEY")


def test_any_json_is_read_by_a_mapping(servant, picture):
    provider = MappingProvider(
        url=servant.url,
        scale=100,
        labels={"items": "result.tags", "name": "tag.en", "score": "confidence"},
        numbers={"items": "result", "classifier": "kind", "value": "value"},
    )
    servant.says({"result": {"tags": [{"tag": {"en": "cat"}, "confidence": 40}], "kind": "adult", "value": -3}})
    assert provider.describe([picture]) == [[Label("cat", 0.4), Number("adult", -3.0)]]
    assert servant.seen[0][1] == PHOTOS[0].read_bytes()
    servant.says({"other": 1})
    assert isinstance(provider.describe([picture])[0], Nonsense)
    with pytest.raises(InputError, match="expected items, name, score"):
        MappingProvider(url=servant.url, labels={"items": "x"})


@pytest.mark.parametrize(
    ("status", "headers", "kind", "wait"),
    [(429, {"Retry-After": "7"}, Busy, 7), (429, {}, Busy, 30), (503, {"Retry-After": "2"}, Busy, 2),
     (429, {"Retry-After": "soon"}, Busy, 30), (503, {}, Unavailable, None), (500, {}, Unavailable, None),
     (302, {"Location": "http://127.0.0.1:1/"}, Unavailable, None), (403, {}, Refused, None)],
)  # fmt: skip
def test_statuses_become_failures_of_their_kind(servant, picture, status, headers, kind, wait):
    provider = VisionProvider(url=servant.url)
    servant.says({}, status, **headers)
    with pytest.raises(kind) as raised:
        provider.describe([picture])
    assert type(raised.value) is kind
    assert wait is None or raised.value.retry_after == wait


def test_a_retry_after_may_be_a_date(servant, picture):
    servant.says({}, 429, **{"Retry-After": formatdate(time.time() + 90, usegmt=True)})
    with pytest.raises(Busy) as raised:
        VisionProvider(url=servant.url).describe([picture])
    assert 85 < raised.value.retry_after <= 91


def test_a_repeated_call_has_the_same_idempotency_key_and_another_one_another(servant, picture):
    other, mapping = replace(picture, sha256="b" * 64), {"items": "", "name": "n", "score": "s"}
    servant.says({"responses": [{}]})

    def key(provider, one):
        list(getattr(provider, "describe", getattr(provider, "submit", None))([one]))
        return servant.seen[-1][0]["Idempotency-Key"]

    made = [
        lambda version: VisionProvider(url=servant.url, version=version),
        lambda version: MappingProvider(url=servant.url, version=version, labels=mapping),
        lambda version: CallbackProvider(url=servant.url, version=version, service="http://localhost:1"),
    ]
    for provider in made:
        first = key(provider("1"), picture)
        assert len(first) == 64
        assert key(provider("1"), picture) == first
        assert key(provider("1"), other) != first
        assert key(provider("2"), picture) != first


def test_slow_bytes_nonsense_and_silence_end_in_time(servant, picture):
    provider = VisionProvider(url=servant.url, seconds=1.0)
    servant.says({"responses": [{}], "filler": "x" * 60})
    servant.trickle = 0.05
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="no whole answer"):
        provider.describe([picture])
    assert time.monotonic() - begun < 2
    servant.trickle = 0
    servant.answer = lambda _: (200, {}, b"<html>")
    with pytest.raises(Nonsense, match="no JSON"):
        provider.describe([picture])
    with pytest.raises(Unavailable):
        VisionProvider(url="http://127.0.0.1:1/").describe([picture])


class Slow(Provider):
    """A provider that never answers in time."""

    version = "slow"
    limits = Limits(batch=1, seconds=0.2)

    def describe(self, pictures):
        raise Unavailable("down")


class Picky(Provider):
    """A provider that breaks on one picture of a batch."""

    version = "picky"

    def __init__(self, *, bad: str) -> None:
        self.bad = bad

    def describe(self, pictures):
        if any(one.sha256 == self.bad for one in pictures):
            raise RuntimeError("a bug")
        return [[Label("fine", 0.9)] for _ in pictures]


def _with(tmp_path, *providers):
    base = settings_in(tmp_path)
    chosen = {one.name: one for one in providers}
    return Service.made(replace(base, providers=chosen))


@pytest.mark.slow
def test_a_provider_that_is_down_hurts_no_other_and_its_circuit_opens(tmp_path):
    here = "tests.test_serve_providers:Slow"
    service = _with(tmp_path, ProviderSettings("down", here), ProviderSettings("quality", "quality"))
    service.take(*PHOTOS[:12])
    service.worker.drain()
    rows = service.rows(
        sa.select(schema.provider.c.name, schema.request.c.state, schema.request.c.attempts)
        .join(schema.provider, schema.provider.c.id == schema.request.c.provider_id)
    )  # fmt: skip
    assert {row.state for row in rows if row.name == "quality"} == {RequestState.done}
    waiting = [row for row in rows if row.name == "down"]
    assert {row.state for row in waiting} == {RequestState.queued}
    assert Limits().failures <= sum(row.attempts for row in waiting) < 12  # most pictures were not even tried
    assert service.rows(sa.select(schema.circuit.c.reason))[0].reason == "down"
    service.close()


def test_one_bad_picture_of_a_batch_fails_alone(tmp_path):
    from isc.find.photos import file_state

    bad = file_state(PHOTOS[2]).sha256
    service = _with(tmp_path, ProviderSettings("picky", "tests.test_serve_providers:Picky", {"bad": bad}))
    images = service.take(*PHOTOS[:4])
    service.worker.drain()
    states = {row.image_id: (row.state, row.error) for row in service.rows(sa.select(schema.request))}
    assert states[images[2]] == (RequestState.queued, "RuntimeError: a bug")
    assert [states[one][0] for one in images if one != images[2]] == [RequestState.done] * 3
    service.close()


class Polled(LaterProvider):
    """A provider that answers when it is polled for the second time."""

    version = "polled"
    poll_every = 0.0

    def __init__(self) -> None:
        self.polls = 0

    def submit(self, pictures):
        return [f"job-{one.id}" for one in pictures]

    def poll(self, jobs):
        self.polls += 1
        return [[Label("late", 0.8)] if self.polls > 1 else None for _ in jobs]


def test_a_provider_may_be_polled(tmp_path):
    service = _with(tmp_path, ProviderSettings("polled", "tests.test_serve_providers:Polled"))
    service.take(PHOTOS[0])
    service.worker.drain()
    assert service.rows(sa.select(schema.request.c.state))[0].state == RequestState.submitted
    lane = service.worker.lanes()[0]
    assert [service.worker.asking.poll(lane) for _ in range(3)] == [False, True, False]
    assert service.rows(sa.select(schema.label.c.name))[0].name == "late"
    service.close()


def test_results_may_come_by_a_signed_callback_once(tmp_path, servant, monkeypatch):
    monkeypatch.setenv(SECRET, "common secret")
    options = {"url": servant.url, "service": "http://localhost:8008"}
    service = _with(tmp_path, ProviderSettings("later", "callback", options))
    service.take(PHOTOS[0])
    service.worker.drain()
    sent = json.loads(servant.seen[0][1])
    client = TestClient(shielded(create_app(service.settings, service.database)), base_url="http://localhost:8008")
    body = json.dumps(
        {"labels": [{"name": "boat", "score": 0.7}], "numbers": [{"classifier": "n", "value": 2}]}
    ).encode()

    def called(content, key="common secret"):
        headers = {"X-Signature-256": signature(content, key), "Content-Type": "application/json"}
        return client.post(sent["callback"].removeprefix("http://localhost:8008"), content=content, headers=headers)

    assert called(body, "wrong").status_code == 401
    assert called(b'{"labels": [{"name": "x", "score": 9}]}').status_code == 422
    assert called(body).json() == {"count": 1}
    assert called(body).json() == {"count": 0}
    assert [row.name for row in service.rows(sa.select(schema.label.c.name))] == ["boat"]
    signed = {"X-Signature-256": signature(b"{}", "common secret"), "Content-Type": "application/json"}
    assert client.post("/api/callbacks/" + "0" * 32, content=b"{}", headers=signed).status_code == 404
    service.close()


@pytest.mark.parametrize("use", ["nothing", "no.such:Class", "json:loads", "isc.serve.picture:Picture"])
def test_a_class_that_is_no_provider_is_refused(use, tmp_path):
    service = _with(tmp_path)
    with pytest.raises(InputError, match="provider mine"):
        build(ProviderSettings("mine", use), service.worker.context)
    with pytest.raises(InputError, match="provider mine"):
        build(ProviderSettings("mine", "vision", {"colour": "red"}), service.worker.context)
    service.close()


@pytest.mark.parametrize("use", ["objects", "unsafe", "text"])
def test_the_providers_of_packages_say_something_true(use, tmp_path):
    service = _with(tmp_path)
    try:
        provider = build(ProviderSettings(use, use), service.worker.context)
    except InputError as error:
        pytest.skip(str(error))
    if use == "objects":
        person = read_image(next(one for one in PHOTOS if one.name == "S027.jpg"))
        said = provider.results(person)[0]
        assert (said.name, said.wikidata) == ("person", "Q215627")
        assert said.score == pytest.approx(0.68, abs=0.05)
    elif use == "unsafe":
        assert provider.results(read_image(PHOTOS[0]))[0].value < 0.1
    else:
        import cv2
        import numpy as np

        sign = np.full((120, 600, 3), 255, np.uint8)
        cv2.putText(sign, "KEEP LEFT 42", (20, 80), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (0, 0, 0), 3)
        assert "KEEP LEFT 42" in provider.results(sign)[0].text
        assert provider.results(np.full((120, 600, 3), 255, np.uint8)) == []
    service.close()
