"""Refusals that the other files do not show: guessed tokens, revoked sessions, forms without their secret, secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isc.errors import InputError
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


@pytest.mark.parametrize("path", ["/ui/review/1", "/ui/batch", "/ui/captions/1", "/ui/captions/1/undo", "/ui/retry/1"])
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
