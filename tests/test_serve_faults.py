"""Faults: the worker, the server and the database are killed while pictures arrive; nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from isc.serve import schema
from isc.serve.database import Database
from tests.serving import PHOTOS, edited, free_port, server

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ISC_SERVE_KILLS", "1"))  # of each kind; 20 in the measurement of docs/results.md
CLIENTS = 2
PATIENCE = 300.0  # seconds for what takes seconds on a machine that does nothing else
PAGE = {"accept": "text/html"}


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Running:
    """`isc serve` in a process of its own."""

    def __init__(self, folder: Path, url: str | None, config: Path | None = None) -> None:
        self.port, self.folder, self.url = free_port(), folder, url
        self.address = f"http://127.0.0.1:{self.port}"
        self.config = ["--config", str(config)] if config else []
        self.log = folder.parent / f"{folder.name}.log"
        self.start()

    def start(self) -> None:
        environment = {**os.environ, **({"ISC_SERVE_DATABASE": self.url} if self.url else {})}
        command = [sys.executable, "-m", "isc.cli.main", "serve", "--data", str(self.folder), "--port", str(self.port)]
        end = time.monotonic() + PATIENCE
        while _listens(self.port):
            assert time.monotonic() < end, "the processes of a killed service did not end"
            time.sleep(0.1)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *self.config], env=environment, stderr=log, stdout=log)
        self.wait_until_ready()

    def wait_until_ready(self, seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if httpx.get(f"{self.address}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def children(self, word: str) -> list[int]:
        """Return the ids of the processes of the tree whose command has this word after `serve`."""
        found = []
        for line in subprocess.run(
            ["ps", "--ppid", str(self.process.pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
        ).stdout.splitlines():
            number, _, command = line.strip().partition(" ")
            if f" serve {word} " in command:
                found.append(int(number))
        return found

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)


@pytest.fixture(params=["sqlite", "postgresql"])
def running(request, tmp_path):
    if request.param == "sqlite":
        one = Running(tmp_path / "data", None)
        one.backend = None
        yield one
        one.stop()
        return
    for backend in server("postgresql"):
        one = Running(tmp_path / "data", backend.new_database())
        one.backend = backend
        yield one
        one.stop()


class Clients:
    """Clients that upload different pictures until they are told to stop, and remember what was acknowledged."""

    def __init__(self, address: str) -> None:
        self.address, self.acknowledged, self.stop = address, {}, threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self.threads = [threading.Thread(target=self._upload) for _ in range(CLIENTS)]
        for one in self.threads:
            one.start()

    def _next(self) -> bytes:
        with self._lock:
            self._number += 1
            number = self._number
        return edited(PHOTOS[number % len(PHOTOS)], crop=0.02 + 0.001 * (number % 200), mirror=number % 2 == 0)

    def _upload(self) -> None:
        pause = 0.25 * max(2, KILLS)  # so that a long run leaves no backlog that takes longer than itself
        while not self.stop.wait(pause):
            data = self._next()
            for _ in range(200):
                try:
                    answer = httpx.post(f"{self.address}/api/images", files=[("files", ("x.jpg", data))], timeout=30)
                    if answer.status_code == 202:
                        one = answer.json()["images"][0]
                        self.acknowledged[one["id"]] = one["sha256"]
                        break
                    assert answer.status_code in (429, 503), answer.text
                except httpx.HTTPError:
                    pass
                if self.stop.wait(0.2):
                    return

    def end(self) -> dict[int, str]:
        self.stop.set()
        for one in self.threads:
            one.join()
        return self.acknowledged


def _when(look, otherwise):
    """Wait until `look()` returns something true, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)
    return found


def _kill(running, what):
    if what == "database":
        running.backend.kill()
        time.sleep(0.5)
        running.backend.start()
    elif what == "service":
        running.process.kill()  # its processes see that it is gone, and end
        running.process.wait()
        running.start()
    else:
        for pid in _when(lambda: running.children(what), f"no process of the kind {what} runs"):
            os.kill(pid, signal.SIGKILL)


def _drained(database):
    """Wait until no request is open; the end comes nearer only while none is answered."""
    open_ = sa.select(sa.func.count()).where(schema.request.c.state.in_(("queued", "leased")))
    left, end = None, 0.0
    while left != 0:
        with database.reading() as connection:
            before, left = left, connection.execute(open_).scalar_one()
        if before is None or left < before:
            end = time.monotonic() + PATIENCE
        assert time.monotonic() < end, f"{left} requests were never answered"
        time.sleep(0.3)


def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(running):
    rng = random.Random(5)
    clients = Clients(running.address)
    kinds = ["worker", "web", "service", *(["database"] if running.backend else [])]
    for what in kinds:
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.5))
            _kill(running, what)
        running.wait_until_ready()
    time.sleep(1)
    acknowledged = clients.end()
    assert len(acknowledged) > 5
    database = Database(running.url or f"sqlite:///{running.folder}/serve.sqlite")
    with database.writing() as connection:  # the leases of the dead would end by themselves, in minutes
        leased = sa.update(schema.request).where(schema.request.c.state == "leased")
        connection.execute(leased.values(lease_until=0.0))
    _drained(database)
    with database.reading() as connection:
        images = dict(map(tuple, connection.execute(sa.select(schema.image.c.id, schema.image.c.sha256))))
        asked = connection.execute(sa.select(schema.request.c.image_id, schema.request.c.state)).all()
        numbers = connection.execute(
            sa.select(schema.number.c.image_id, schema.number.c.classifier, sa.func.count()).group_by(
                schema.number.c.image_id, schema.number.c.classifier
            )
        ).all()
        matches = connection.execute(
            sa.select(sa.func.count()).select_from(schema.copy_match)
            .group_by(schema.copy_match.c.request_id, schema.copy_match.c.image_id, schema.copy_match.c.other_id)
        ).all()  # fmt: skip
    assert acknowledged.items() <= images.items()
    assert {state for _, state in asked} == {"done"}
    assert len(asked) == 3 * len(images)
    assert {count for *_, count in numbers} == {1}
    assert len(numbers) == 6 * len(images)
    assert {count for (count,) in matches} <= {1}
    for digest in acknowledged.values():
        assert (running.folder / "pictures" / digest[:2] / digest[2:4] / digest).stat().st_size > 0
    database.close()


def test_it_stops_gracefully_and_a_stream_of_events_ends(tmp_path):
    running = Running(tmp_path / "data", None)
    kinds: list[str] = []

    def listen():
        with httpx.stream("GET", f"{running.address}/api/events", timeout=60) as answer:
            kinds.extend(line for line in answer.iter_lines() if line.startswith("event: "))

    thread = threading.Thread(target=listen)
    thread.start()
    time.sleep(1)
    httpx.post(f"{running.address}/api/images", files=[("files", ("x.jpg", PHOTOS[0].read_bytes()))])
    _when(lambda: kinds.count("event: answered") == 3, "the providers did not answer")
    begun = time.monotonic()
    assert running.stop() == 0
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - begun < 60
    assert kinds.count("event: received") == 1
    assert kinds.count("event: answered") == 3
    assert "Traceback" not in running.log.read_text()


STUCK = '''
import time
from isc.serve import Limits, Number, Provider

class Stuck(Provider):
    """A provider that never returns for the first picture."""
    version = "1"
    limits = Limits(batch=1, seconds=1.0, attempts=2)

    def describe(self, pictures):
        if pictures[0].id == 1:
            time.sleep(3600)
        return [[Number("said", 1.0)] for _ in pictures]
'''


def test_a_provider_that_never_returns_ends_as_a_dead_letter_and_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "stuck.py").write_text(STUCK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    config = tmp_path / "serve.toml"
    config.write_text('[providers.stuck]\nuse = "stuck:Stuck"\n')
    running = Running(tmp_path / "data", None, config)
    for photo in PHOTOS[:2]:
        httpx.post(f"{running.address}/api/images", files=[("files", ("x.jpg", photo.read_bytes()))])
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        states = {
            (one["image"], one["provider"]): (one["state"], one["error"])
            for image in (1, 2)
            for one in httpx.get(f"{running.address}/api/images/{image}/results", timeout=30).json()["requests"]
        }
        if states[1, "stuck"][0] == "dead" and states[2, "stuck"][0] == "done":
            break
        time.sleep(0.5)
    assert running.stop() == 0
    assert states[1, "stuck"] == ("dead", "TooSlow: no answer within 1 s")
    assert states[2, "stuck"][0] == "done"
    assert {states[image, name][0] for image in (1, 2) for name in ("copy", "pdq", "quality")} == {"done"}


def _sent(running, photo):
    return httpx.post(f"{running.address}/api/images", files=[("files", ("x.jpg", photo.read_bytes()))], timeout=60)


def _page(running):
    return httpx.get(f"{running.address}/", headers=PAGE, timeout=60)


def _states(running, image):
    return {one["state"] for one in httpx.get(f"{running.address}/api/images/{image}/results").json()["requests"]}


def test_a_full_disk_is_said_plainly_and_is_over_when_it_ends(tmp_path):
    """The data folder lies on a file system of its own, which a file fills to the last byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    running = None
    try:
        running = Running(disk / "data", None)
        taken = _sent(running, PHOTOS[0])
        assert taken.status_code == 202
        with (disk / "filler").open("wb") as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(1 << 16))
        ready = httpx.get(f"{running.address}/readyz")
        assert (ready.status_code, ready.json()["problems"]) == (503, ["the disk is almost full"])
        refused = _sent(running, PHOTOS[1])
        assert refused.status_code == 503
        assert "disk is full" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert "disk is almost full" in _page(running).text
        (disk / "filler").unlink()
        assert httpx.get(f"{running.address}/readyz").status_code == 200
        assert "disk is almost full" not in _page(running).text
        again = _sent(running, PHOTOS[1])
        assert again.status_code == 202
        for one in (taken, again):
            number = one.json()["images"][0]["id"]
            _when(lambda number=number: _states(running, number) == {"done"}, "what was taken in was not answered")
    finally:
        if running is not None:
            running.stop()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def postgresql():
    yield from server("postgresql")


def test_a_database_that_is_away_is_said_plainly_and_is_over_when_it_is_back(tmp_path, postgresql):
    running = Running(tmp_path / "data", postgresql.new_database())
    taken = _sent(running, PHOTOS[0])
    postgresql.kill()
    ready = httpx.get(f"{running.address}/readyz", timeout=60)
    assert (ready.status_code, ready.json()["problems"]) == (503, ["the database cannot be reached"])
    refused = _sent(running, PHOTOS[1])
    assert refused.status_code == 503
    assert "database cannot be reached" in refused.json()["detail"]
    page = _page(running)
    assert page.status_code == 503
    assert "database cannot be reached" in page.text
    assert 'http-equiv="refresh"' in page.text
    postgresql.start()
    _when(lambda: httpx.get(f"{running.address}/readyz", timeout=60).status_code == 200, "not ready again")
    assert _page(running).status_code == 200
    number = taken.json()["images"][0]["id"]
    _when(lambda: _states(running, number) == {"done"}, "what was taken in was not answered")
    assert _sent(running, PHOTOS[1]).status_code == 202
    assert running.stop() == 0
