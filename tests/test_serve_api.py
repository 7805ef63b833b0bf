"""The API: what it accepts, what it refuses, and that every refusal is a problem (RFC 9457)."""

from __future__ import annotations

import io
import json
import logging
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from isc.cli.main import main
from isc.errors import InputError
from isc.find import fetch
from isc.serve import schema
from isc.serve.api.app import create_app, shielded
from isc.serve.api.rates import Rates
from isc.serve.intake import NewImage, take_in
from isc.serve.kinds import Role
from isc.serve.logs import JsonLines
from isc.serve.requests import lease, register
from isc.serve.results import CopyMatch
from isc.serve.settings import Caps
from isc.serve.storing import store
from isc.serve.tokens import create_token, digest, revoke_token
from tests.serving import PHOTOS, Service, settings_in

ORIGIN = "http://localhost:8008"


class Said:
    """A provider as the registry sees it."""

    version = "1"
    kinds = frozenset(("copy",))


@pytest.fixture
def service(tmp_path):
    one = Service.made(replace(settings_in(tmp_path), folders=(tmp_path / "allowed",)))
    register(one.database, {"said": Said()})
    yield one
    one.close()


def client_of(service, **headers):
    app = create_app(service.settings, service.database)
    return TestClient(shielded(app), base_url=ORIGIN, headers=headers, raise_server_exceptions=False)


@pytest.fixture
def client(service):
    return client_of(service)


def _problem(answer, status):
    """Check that an answer is a problem of this status, and return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == status
    return said["detail"]


def _sent(client, *photos, **options):
    files = [
        ("files", (getattr(one, "name", "x.jpg"), one.read_bytes() if isinstance(one, Path) else one)) for one in photos
    ]
    return client.post("/api/images", files=files, **options)


def _suggest(service, count=3):
    """Make `count` suggestions of differing scores, and return their ids by priority."""
    numbers = register(service.database, {"said": Said()})
    new = [NewImage(f"{at:064x}", 10, f"{at}.jpg", None, "local" if at % 2 else "other") for at in range(count + 1)]
    images = [number for number, _ in take_in(service.database, new)]
    held = lease(service.database, [numbers["said"]], limit=count, seconds=60)
    for at, one in enumerate(held):
        match = CopyMatch(other=images[-1], distance=0.3, probability=0.5 + 0.4 * at / count, verdict="perhaps")
        assert store(service.database, service.settings, one, "said", [match])
    order = sa.select(schema.suggestion.c.id).order_by(schema.suggestion.c.priority.desc())
    return [row.id for row in service.rows(order)]


def test_an_upload_is_accepted_at_once_and_the_same_picture_twice_is_one(client, service):
    answer = _sent(client, PHOTOS[0], PHOTOS[1])
    assert answer.status_code == 202
    first, second = answer.json()["images"]
    assert client.get(first["results"]).json()["open"] == 1
    again = _sent(client, PHOTOS[0]).json()["images"][0]
    assert (again["id"], again["new"]) == (first["id"], False)
    assert second["new"]
    assert service.files.path(first["sha256"]).read_bytes() == PHOTOS[0].read_bytes()


def test_what_is_no_picture_or_too_large_is_refused_and_not_kept(service):
    service = Service(replace(service.settings, caps=Caps(bytes=50_000, pixels=500_000, batch=2)), service.database)
    client = client_of(service)
    assert "no picture" in _problem(_sent(client, b"<svg onload=alert(1)>"), 415)
    assert "empty" in _problem(_sent(client, b""), 415)
    assert "above 50,000 bytes" in _problem(_sent(client, PHOTOS[0].read_bytes() + bytes(60_000)), 413)
    assert "at most 2" in _problem(_sent(client, *PHOTOS[:3]), 413)
    bomb = cv2.imencode(".png", np.zeros((1000, 1000), np.uint8))[1].tobytes()
    assert "pixels" in _problem(_sent(client, bomb), 413)
    mixed = _sent(client, PHOTOS[0], b"text").json()
    assert [len(mixed["images"]), mixed["refused"][0]["reason"][:10]] == [1, "no picture"]
    kept = [path for path in (service.settings.data / "pictures").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [PHOTOS[0].read_bytes()]
    large = bytes(2_000_001)
    _problem(client.post("/api/votes", content=large), 413)
    _problem(client.post("/api/votes", content=iter([large])), 413)


def test_the_queue_comes_by_priority_and_by_pages_and_votes_leave_it(client, service):
    numbers = _suggest(service, 5)
    page = client.get("/api/suggestions?limit=2").json()
    assert [one["id"] for one in page["items"]] == numbers[:2]
    following = client.get("/api/suggestions", params={"limit": 9, "cursor": page["next"]}).json()
    assert [one["id"] for one in following["items"]] == numbers[2:]
    assert following["next"] is None
    assert client.put(f"/api/suggestions/{numbers[0]}/vote", json={"decision": "accept"}).json()["state"] == "accepted"
    assert not client.put(f"/api/suggestions/{numbers[0]}/vote", json={"decision": "accept"}).json()["new"]
    client.put(f"/api/suggestions/{numbers[1]}/vote", json={"decision": "unsure"})
    left = [one["id"] for one in client.get("/api/suggestions").json()["items"]]
    assert left == numbers[2:]
    assert client.delete(f"/api/suggestions/{numbers[0]}/vote").json()["state"] == "unreviewed"
    record = client.get(f"/api/suggestions/{numbers[0]}").json()["votes"]
    assert [one["decision"] for one in record] == ["accept", "undo"]
    batch = [{"suggestion": one, "decision": "reject"} for one in numbers[2:]]
    assert len(client.post("/api/votes", json={"votes": batch}).json()["items"]) == 3
    lines = [json.loads(line) for line in client.get("/api/export").text.splitlines()]
    assert [one["state"] for one in lines] == ["rejected"] * 3
    figures = client.get("/api/statistics").json()[0]
    assert figures["acceptance"]["decided"] == 3
    mine = client.get("/api/suggestions?mine=true&state=rejected").json()["items"]
    assert {one["image"]["uploader"] for one in mine} == {"local"}


def test_a_batch_with_an_unknown_suggestion_records_nothing(client, service):
    number = _suggest(service, 1)[0]
    votes = [{"suggestion": number, "decision": "accept"}, {"suggestion": 999, "decision": "accept"}]
    assert "999" in _problem(client.post("/api/votes", json={"votes": votes}), 404)
    assert service.rows(sa.select(schema.vote)) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/images/77", 404), ("GET", "/api/images/77/results", 404), ("DELETE", "/api/images/77", 404),
        ("GET", "/api/suggestions/77", 404), ("GET", "/api/suggestions?cursor=xx", 422), ("GET", "/nothing", 404),
        ("GET", "/api/images/0", 422), ("GET", "/api/suggestions?order=best", 422), ("PATCH", "/api/images", 405),
        ("GET", "/pictures/77/preview.jpg", 404), ("DELETE", "/api/lists/7", 404), ("GET", "/api/imports/7", 404),
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_problem(client, method, path, status):
    _problem(client.request(method, path), status)


def test_roles(service):
    client = client_of(service)
    tokens = {role: create_token(service.database, role.value, role) for role in Role}
    assert "no token" in _problem(client.get("/api/me"), 401)
    assert "unknown" in _problem(client.get("/api/me", headers={"Authorization": "Bearer isc_wrong"}), 401)
    clients = {role: client_of(service, Authorization=f"Bearer {token}") for role, token in tokens.items()}
    assert _sent(clients[Role.upload], PHOTOS[0]).status_code == 202
    theirs = _sent(clients[Role.admin], PHOTOS[1]).json()["images"][0]["id"]
    _problem(clients[Role.upload].get(f"/api/images/{theirs}/results"), 404)
    assert len(clients[Role.upload].get("/api/images").json()["items"]) == 1
    assert "expected review" in _problem(clients[Role.upload].get("/api/suggestions"), 403)
    _problem(clients[Role.upload].get("/api/events"), 403)
    assert clients[Role.review].get("/api/suggestions").status_code == 200
    assert "expected admin" in _problem(clients[Role.review].delete(f"/api/images/{theirs}"), 403)
    for path in ("/api/requests/retry", "/api/lists", "/api/imports", "/api/providers/said/again", "/api/outbox/retry"):
        _problem(clients[Role.review].post(path, json={}), 403)
    assert clients[Role.admin].delete(f"/api/images/{theirs}").status_code == 204
    assert revoke_token(service.database, "upload")
    _problem(clients[Role.upload].get("/api/me"), 401)
    stored = {row.digest for row in service.rows(sa.select(schema.token.c.digest))}
    assert stored == {digest(one) for one in tokens.values()}
    with pytest.raises(InputError, match="is taken"):
        create_token(service.database, "upload", Role.admin)


def test_sessions_need_their_csrf_secret_and_end(service):
    token = create_token(service.database, "ann", Role.review)
    client = client_of(service)
    number = _suggest(service, 1)[0]
    assert client.get("/", headers={"accept": "text/html"}, follow_redirects=False).headers["location"] == "/login"
    assert client.post("/login", data={"token": "wrong"}).status_code == 401
    entered = client.post("/login", data={"token": token}, follow_redirects=False)
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = client.get("/review")
    csrf = page.text.partition('name="csrf" content="')[2].partition('"')[0]
    assert len(csrf) > 30
    body = {"decision": "accept"}
    assert "X-CSRF-Token" in _problem(client.put(f"/api/suggestions/{number}/vote", json=body), 403)
    _problem(client.put(f"/api/suggestions/{number}/vote", json=body, headers={"X-CSRF-Token": "x"}), 403)
    assert client.put(f"/api/suggestions/{number}/vote", json=body, headers={"X-CSRF-Token": csrf}).status_code == 200
    client.post("/logout", headers={"X-CSRF-Token": csrf})
    _problem(client.get("/api/me", headers={"cookie": entered.headers["set-cookie"].partition(";")[0]}), 401)


def test_other_sites_and_other_hosts_are_refused(client):
    _problem(client.post("/api/votes", json={}, headers={"Origin": "https://evil.example"}), 403)
    _problem(client.post("/api/votes", json={}, headers={"Origin": "null"}), 403)
    _problem(client.post("/api/votes", json={}, headers={"Sec-Fetch-Site": "cross-site"}), 403)
    _problem(client.post("/login", data={"token": "x"}, headers={"Origin": "https://evil.example"}), 403)
    assert "Host" in _problem(client.get("/", headers={"Host": "evil.example"}), 403)
    _problem(client.post("/api/votes", json={"votes": []}, headers={"Origin": ORIGIN}), 422)


def test_rates_are_limited(service):
    limited = Service(replace(service.settings, caps=Caps(calls=5, uploads=1)), service.database)
    client = client_of(limited)
    assert _sent(client, PHOTOS[0]).status_code == 202
    answer = _sent(client, PHOTOS[1])
    assert "uploads a minute" in _problem(answer, 429)
    assert int(answer.headers["retry-after"]) > 0
    statuses = [client.get("/api/me").status_code for _ in range(6)]
    assert statuses[-1] == 429
    rates = Rates()
    assert [rates.take("a", 2) > 0 for _ in range(3)] == [False, False, True]
    assert rates.take("b", 2) == 0


def test_every_answer_has_the_headers_and_pictures_cannot_run_scripts(client):
    number = _sent(client, PHOTOS[0]).json()["images"][0]["id"]
    for path in ("/", "/api/me", "/nothing", "/static/page.js", f"/pictures/{number}/preview.jpg"):
        answer = client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert "unsafe" not in answer.headers["content-security-policy"], path
    preview = client.get(f"/pictures/{number}/preview.jpg?side=100")
    assert preview.headers["content-type"] == "image/jpeg"
    assert "sandbox" in preview.headers["content-security-policy"]
    assert cv2.imdecode(np.frombuffer(preview.content, np.uint8), 1) is not None
    original = client.get(f"/pictures/{number}/original")
    assert original.headers["content-disposition"].startswith("attachment")
    assert original.headers["content-type"] == "application/octet-stream"
    assert original.content == PHOTOS[0].read_bytes()


def test_urls_are_fetched_from_allowed_hosts_alone(service, monkeypatch):
    hops = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            hops.append(self.path)
            self.send_response(302 if self.path == "/away" else 200)
            if self.path == "/away":
                self.send_header("Location", f"http://127.0.0.2:{port}/photo.jpg")
            self.end_headers()
            self.wfile.write(PHOTOS[0].read_bytes())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    allowed = Service(replace(service.settings, fetch_hosts=frozenset(("127.0.0.1",))), service.database)
    client = client_of(allowed)

    def asked(url):
        return client.post("/api/images/from-url", json={"url": url})

    _problem(asked("http://169.254.169.254/meta"), 403)
    _problem(asked("ftp://127.0.0.1/x"), 422)
    assert "not a public one" in _problem(asked(f"http://127.0.0.1:{port}/photo.jpg"), 502)
    assert hops == []
    monkeypatch.setattr(fetch, "is_public", lambda _: True)
    assert asked(f"http://127.0.0.1:{port}/photo.jpg").status_code == 202
    assert "not one of the allowed hosts" in _problem(asked(f"http://127.0.0.1:{port}/away"), 502)
    assert hops == ["/photo.jpg", "/away"]
    server.shutdown()


def test_imports_stay_in_the_allowed_folders(client, service, tmp_path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "link").symlink_to("/etc")
    for path in ("/etc", str(tmp_path / "allowed/../.."), str(tmp_path / "allowed/link")):
        _problem(client.post("/api/imports", json={"path": path}), 403)
    answer = client.post("/api/imports", json={"path": str(tmp_path / "allowed")})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


def test_blocked_pictures_are_refused_and_lists_are_kept(client):
    sent = _sent(client, PHOTOS[0]).json()["images"][0]
    client.delete(f"/api/images/{sent['id']}")
    entry = client.post("/api/lists", json={"action": "block", "value": sent["sha256"]})
    assert entry.status_code == 201
    assert (
        client.post("/api/lists", json={"action": "block", "value": sent["sha256"]}).json()["id"] == entry.json()["id"]
    )
    for value in ("S000.jpg", sent["sha256"][1:], sent["sha256"].upper()):
        assert "value" in _problem(client.post("/api/lists", json={"action": "block", "value": value}), 422)
    assert "block list" in _problem(_sent(client, PHOTOS[0]), 403)
    mixed = _sent(client, PHOTOS[1], PHOTOS[0])
    assert mixed.status_code == 202
    assert [one["name"] for one in mixed.json()["images"]] == [PHOTOS[1].name]
    assert [one["name"] for one in mixed.json()["refused"]] == [PHOTOS[0].name]
    assert "block list" in mixed.json()["refused"][0]["reason"]
    assert client.delete(f"/api/lists/{entry.json()['id']}").status_code == 204
    assert _sent(client, PHOTOS[0]).status_code == 202


def test_a_full_disk_and_a_database_away_are_said_plainly_and_end(service, monkeypatch):
    client = client_of(service)
    real = service.files.keep

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isc.serve.files.PictureFiles.keep", full)
    assert "disk is full" in _problem(_sent(client, PHOTOS[0]), 503)
    monkeypatch.setattr("isc.serve.files.PictureFiles.keep", lambda self, *a, **k: real(*a, **k))
    assert _sent(client, PHOTOS[0]).status_code == 202
    path = Path(service.database.engine.url.database)
    service.database.close()
    path.rename(path.with_suffix(".away"))
    path.mkdir()
    answer = client.get("/api/images")
    assert "database cannot be reached" in _problem(answer, 503)
    assert answer.headers["retry-after"] == "5"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200
    path.rmdir()
    path.with_suffix(".away").rename(path)
    assert client.get("/readyz").status_code == 200


def test_logs_have_no_secrets(service):
    token = create_token(service.database, "ann", Role.admin)
    text = f"Bearer {token} postgresql://me:secret@host/db isc_session={token}x"
    said = JsonLines("web").format(logging.LogRecord("isc", 20, "", 0, text, (), None))
    assert token not in said
    assert "secret" not in said
    assert json.loads(said)["level"] == "info"


def test_metrics_count_what_is_there(client, service):
    _suggest(service, 2)
    text = client.get("/metrics").text
    assert 'isc_suggestions{kind="copy",state="unreviewed"} 2.0' in text
    assert 'isc_requests{provider="said",state="queued",version="1"} 1.0' in text


def test_serving_others_without_a_token_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--data", str(tmp_path), "--host", "0.0.0.0"])
    assert ended.value.code == 2
    assert "there is no token" in capsys.readouterr().err


def test_settings_are_checked(tmp_path, capsys):
    for text in ("port = -1", "nonsense = 1", "[review.copy]\nshow = 2", "[review.cat]\n", "[caps]\nbytes = 0", "= x",
                 "[providers.mine]\nuse = 'no.such:Class'"):  # fmt: skip
        path = tmp_path / "serve.toml"
        path.write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(["serve", "--data", str(tmp_path / "data"), "--config", str(path)])
        assert ended.value.code == 2, text
        error = capsys.readouterr().err
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error


def test_an_upload_is_whole_or_absent(service):
    class Breaking(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise ConnectionError("gone")
            return super().read(100)

    with pytest.raises(ConnectionError):
        service.files.keep(Breaking(PHOTOS[0].read_bytes()), most=10**7)
    assert [one for one in service.settings.data.rglob("*") if one.is_file() and "pictures" in one.parts] == []
