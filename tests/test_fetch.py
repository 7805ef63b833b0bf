"""Pictures from the web: what is fetched from a real server, and what is refused."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from isc.errors import InputError
from isc.find import fetch
from isc.find.fetch import fetch_picture, is_public, is_url
from tests.conftest import SAMPLE

PHOTO = (SAMPLE / "S000.jpg").read_bytes()


class Answers(BaseHTTPRequestHandler):
    """/photo is a photo, /large never ends, /slow drips, /to?URL redirects there."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/to":
            self.send_response(302)
            self.send_header("Location", query)
            self.end_headers()
        elif path == "/large":
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                self.wfile.write(bytes(1 << 16))
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            while not self.server.stopping.wait(0.05):
                self.wfile.write(b"x")
                self.wfile.flush()
        elif path == "/photo":
            self.send_response(200)
            self.send_header("Content-Length", str(len(PHOTO)))
            self.end_headers()
            self.wfile.write(PHOTO)
        elif path == "/silent":
            self.server.stopping.wait(5)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A reader that goes away is no news."""


@pytest.fixture
def server() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Answers) as server:
        server.stopping = threading.Event()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.stopping.set()
        server.shutdown()


@pytest.fixture
def local(monkeypatch) -> None:
    """Addresses of this machine pass."""
    monkeypatch.setattr(fetch, "is_public", lambda _: True)


def test_a_picture_is_fetched_also_after_a_redirect(server, local):
    assert fetch_picture(f"{server}/photo") == PHOTO
    assert fetch_picture(f"{server}/to?{server}/photo") == PHOTO
    assert fetch_picture(f"{server}/to?/photo") == PHOTO


def test_proxies_are_not_asked(server, local, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert fetch_picture(f"{server}/photo") == PHOTO


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nowhere", "the server answers 404"),
        ("/large", "is larger than 20 MB; expected a picture"),
        ("/slow", "took longer than 0 s"),
        ("/silent", "cannot be fetched (timed out)"),
        ("/to?ftp://127.0.0.1/x", "cannot be fetched"),
        ("/to?file:///etc/passwd", "not allowed"),
    ],
)
def test_what_is_no_picture_of_usual_size_and_speed_is_refused(server, local, monkeypatch, path, said):
    monkeypatch.setattr(fetch, "STALL", 0.5)
    if path == "/slow":
        monkeypatch.setattr(fetch, "LONGEST", 0.3)
    with pytest.raises(InputError) as error:
        fetch_picture(server + path)
    assert said in str(error.value)
    assert str(error.value).startswith(server + path)
    assert "\n" not in str(error.value)


def test_addresses_of_this_machine_are_refused_also_after_redirects(server, monkeypatch):
    for url in (server, server.replace("127.0.0.1", "localhost"), server.replace("127.0.0.1", "2130706433")):
        with pytest.raises(InputError, match=r"its address (127\.0\.0\.1|::1) is not a public one"):
            fetch_picture(f"{url}/photo")
    asked = []

    def public_once(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    monkeypatch.setattr(fetch, "is_public", public_once)
    with pytest.raises(InputError, match="not a public one"):
        fetch_picture(f"{server}/to?{server}/photo")
    assert len(asked) == 2


def test_the_address_that_was_checked_is_the_one_connected_to(server, monkeypatch):
    """A name that answers otherwise the second time (DNS rebinding) is looked up once."""
    port = int(server.rpartition(":")[2])
    calls = []

    def lookup(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        calls.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert fetch_picture("http://pictures.example/photo") == PHOTO
    assert calls == ["pictures.example"]


@pytest.mark.parametrize("url", ["ftp://h/x.jpg", "file:///etc/passwd", "data://text/plain,x", "http://", "http://[x/"])
def test_other_schemes_and_broken_addresses_are_refused(url):
    assert is_url(url)
    with pytest.raises(InputError):
        fetch_picture(url)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001:db8::1"),
    ],
)
def test_addresses_that_are_not_of_the_internet(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet(address):
    assert is_public(address)
