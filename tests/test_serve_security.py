"""Refusals that the other files do not show: guessed tokens, revoked sessions, forms without their secret, secrets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isc.cli.main import main
from isc.errors import InputError
from isc.serve.api.app import create_app, shielded
from isc.serve.kinds import Role
from isc.serve.settings import Caps, read_settings
from isc.serve.tokens import create_token, revoke_token
from tests.serving import PHOTOS, Service, settings_in
from tests.test_serve_api import _problem, _sent, client_of


@pytest.fixture
def service(tmp_path):
    one = Service.made(replace(settings_in(tmp_path), caps=Caps(guesses=3)))
    yield one
    one.close()


def _wrong(at):
    return {"Authorization": f"Bearer isc_guess{at}"}


def test_tokens_cannot_be_guessed_for_long(service):
    create_token(service.database, "ann", Role.admin)
    client = client_of(service)
    statuses = [client.get("/api/me", headers=_wrong(at)).status_code for at in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    answer = client.post("/login", data={"token": "isc_guess"})  # the page counts with the API
    assert "too many" in _problem(answer, 429)
    assert int(answer.headers["retry-after"]) > 0


def test_a_session_ends_with_its_token(service):
    token = create_token(service.database, "ann", Role.review)
    create_token(service.database, "bob", Role.admin)  # without any token, whoever sits before the machine may enter
    client = client_of(service)
    assert client.post("/login", data={"token": token}).status_code == 200
    assert client.get("/review").status_code == 200
    assert revoke_token(service.database, "ann")
    assert (
        client.get("/review", headers={"accept": "text/html"}, follow_redirects=False).headers["location"] == "/login"
    )
    _problem(client.get("/api/suggestions"), 401)


@pytest.mark.parametrize(
    "path", ["/ui/review/1", "/ui/batch", "/ui/history/1", "/ui/captions/1", "/ui/captions/1/undo", "/ui/retry/1"]
)
def test_every_form_of_the_page_needs_the_secret_of_its_session(service, path):
    token = create_token(service.database, "ann", Role.admin)
    client = client_of(service)
    client.post("/login", data={"token": token})
    form = {"decision": "accept", "chosen": "1", "right": "accept"}
    assert "X-CSRF-Token" in _problem(client.post(path, data=form), 403)
    assert "origin" in _problem(client.post(path, data=form, headers={"Origin": "https://evil.example"}), 403)


def test_an_uploader_sees_neither_pages_nor_pictures_of_others(service):
    tokens = {role: create_token(service.database, role.value, role) for role in (Role.upload, Role.review)}
    clients = {role: client_of(service, Authorization=f"Bearer {token}") for role, token in tokens.items()}
    sent = _sent(clients[Role.review], PHOTOS[0])
    assert sent.status_code == 202
    number = sent.json()["images"][0]["id"]
    own = (f"/images/{number}", f"/pictures/{number}/preview.jpg", f"/pictures/{number}/original")
    pages = ("/", "/review", "/captions", "/images", "/providers")
    for path in (*own, *pages, "/api/agreement", "/api/export", "/api/statistics"):
        assert "expected review" in _problem(clients[Role.upload].get(path), 403), path
        assert clients[Role.review].get(path).status_code == 200, path
    _problem(clients[Role.upload].post(f"/api/images/{number}/captions", json={"text": "x"}), 403)
    _problem(clients[Role.upload].put("/api/suggestions/1/rating", json={"right": "accept"}), 403)


def test_the_process_that_decodes_sees_no_secret(service, monkeypatch):
    monkeypatch.setenv("ISC_SERVE_WEBHOOK_SECRET", "top-secret")
    service.take(PHOTOS[0])
    service.worker.drain()
    process = service.worker.context.examiner.reader._process
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"top-secret" not in environment
    assert "ISC_SERVE_WEBHOOK_SECRET" in os.environ


def test_a_problem_is_a_page_for_a_browser_and_json_for_a_program(service):
    client = client_of(service)
    page = client.get("/images/77", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "image 77: is not there" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "image 77" in _problem(client.get("/images/77"), 404)


@pytest.mark.parametrize("url", ["postgresql://me:secret@db/isc", "mysql://me:secret@db/isc"])
def test_a_password_in_a_file_or_on_the_command_line_is_refused_without_repeating_it(url, tmp_path):
    (tmp_path / "s.toml").write_text(f'database = "{url}"\n')
    with pytest.raises(InputError, match=r"s\.toml: database: holds a password; .* ISC_SERVE_DATABASE") as caught:
        read_settings(tmp_path / "s.toml", data=tmp_path)
    assert "secret" not in str(caught.value)
    command = [sys.executable, "-m", "isc.cli.main", "serve", "--database", url, "--data", str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "--database: holds a password" in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "d").exists()


def _answered(service, path, headers, parts):
    """Send a POST of these parts of a body; return (status, headers, parts that were read)."""
    app = shielded(create_app(service.settings, service.database))
    sent, read = [], []

    async def receive():
        if len(read) == len(parts):
            return {"type": "http.disconnect"}
        read.append(parts[len(read)])
        return {"type": "http.request", "body": read[-1], "more_body": len(read) < len(parts)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
             "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("9.9.9.9", 1),
             "server": ("localhost", 8008), "headers": [(b"host", b"localhost:8008"), *headers]}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    begun = next(one for one in sent if one["type"] == "http.response.start")
    return begun["status"], dict(begun["headers"]), len(read)


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
FORM = (b"content-type", b"multipart/form-data; boundary=x")


def test_a_form_is_not_read_before_its_sender_is_known(service):
    token = create_token(service.database, "ann", Role.upload).encode()
    parts = [PART, *[bytes(1000)] * 50]
    assert _answered(service, "/api/images", [FORM], parts)[::2] == (401, 0)
    wrong = (b"authorization", b"Bearer isc_guess")
    assert _answered(service, "/api/images", [FORM, wrong], parts)[::2] == (401, 0)
    known = (b"authorization", b"Bearer " + token)
    assert _answered(service, "/api/images", [FORM, known], parts)[2] == len(parts)
    assert _answered(service, "/api/images", [FORM, known, (b"origin", b"http://evil.example")], parts)[::2] == (403, 0)


def test_a_form_is_not_read_above_the_rate_of_its_sender(service):
    limited = Service(replace(service.settings, caps=Caps(uploads=1)), service.database)
    client = client_of(limited)
    assert _sent(client, PHOTOS[0]).status_code == 202
    seen = []

    async def receive():
        seen.append(1)
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/images", "query_string": b"", "client": ("9.9.9.9", 1),
             "headers": [(b"host", b"localhost"), FORM]}  # fmt: skip
    asyncio.run(client.app(scope, receive, send))
    assert (sent[0]["status"], seen) == (429, [])
    assert b"retry-after" in dict(sent[0]["headers"])


@pytest.mark.parametrize("length", [b"-1", b"many", b"1e3", b"0x10", b"", "²".encode()])
def test_a_length_that_is_no_number_is_refused(service, length):
    status, headers, read = _answered(service, "/api/votes", [(b"content-length", length)], [b"{}"])
    assert (status, headers[b"content-type"], read) == (400, b"application/problem+json", 0)


def test_a_body_in_chunks_is_counted(service):
    small = Service(replace(service.settings, caps=Caps(bytes=1000, batch=1)), service.database)
    parts = [PART, *[bytes(100_000)] * 50]
    status, _, read = _answered(small, "/api/images", [FORM, (b"transfer-encoding", b"chunked")], parts)
    assert status == 413
    assert read < 20  # as soon as it is above the limit
    lying = [FORM, (b"content-length", b"10")]
    assert _answered(small, "/api/images", lying, parts)[0] == 413
    assert _answered(small, "/api/images", [FORM, (b"content-length", b"1001001")], parts)[::2] == (413, 0)


def test_one_more_web_process_that_others_can_reach_needs_a_token_too(tmp_path, capsys, monkeypatch):
    started = []
    monkeypatch.setattr("isc.serve.api.app.run_web", lambda *_, **__: started.append(1))
    with pytest.raises(SystemExit) as ended:
        main(["serve", "web", "--data", str(tmp_path), "--host", "0.0.0.0"])
    assert ended.value.code == 2
    assert "there is no token" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize(
    "text",
    ['[webhooks]\nmine = "https://me:top-secret@example.org/hook"', '[webhooks]\nmine = "https://top-secret@example.org"',
     '[providers.vision]\nurl = "https://me:top-secret@example.org/"',
     '[providers.vision]\nurl = "https://example.org/"\nfeedback = "https://me:top-secret@example.org/"'],
)  # fmt: skip
def test_a_secret_in_a_url_of_the_settings_is_refused_without_repeating_it(text, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(
        InputError, match=r"s\.toml: (webhooks\.mine|providers\.vision\.(url|feedback)): the URL"
    ) as caught:
        read_settings(tmp_path / "s.toml", data=tmp_path)
    assert "top-secret" not in str(caught.value)
