"""Pictures from the web: http and https only, from public addresses, of limited size and within limited time."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Container
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    BaseHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    UnknownHandler,
)

from isc import __version__
from isc.errors import InputError

MOST_BYTES = 20_000_000  # of a picture's file
STALL = 10.0  # seconds without an answer after which a download is given up
LONGEST = 60.0  # seconds that a download may take
BLOCK = 1 << 16  # bytes read at once
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # IPv4 addresses behind a gateway, in the last four bytes


def is_url(text: str) -> bool:
    """Return whether a suspect is named by a URL of any scheme."""
    return "://" in text


def fetch_picture(url: str, *, hosts: Container[str] | None = None) -> bytes:
    """Return the bytes at an http or https URL.

    Every address is checked before it is connected to, also after redirects: a name of the local network, or of this
    machine, is refused, and so is one that is not among `hosts`, if they are given. Proxies are not used. Raises
    InputError for another scheme, a refused address, more than MOST_BYTES, or no answer in time.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url}: expected http:// or https://")
    deadline = time.monotonic() + LONGEST
    try:
        with _opener(hosts).open(Request(url, headers={"User-Agent": f"isc/{__version__}"}), timeout=STALL) as answer:
            return _read(answer, deadline)
    except InputError as error:
        raise InputError(f"{url}: {error}") from error
    except HTTPError as error:
        raise InputError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{url}: cannot be fetched ({reason})") from error


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    data = bytearray()
    while block := answer.read1(BLOCK):
        data += block
        if len(data) > MOST_BYTES:
            raise InputError(f"is larger than {MOST_BYTES / 1e6:.0f} MB; expected a picture")
        if time.monotonic() > deadline:
            raise InputError(f"took longer than {LONGEST:.0f} s; {len(data):,} bytes had come")
    return bytes(data)


def _opener(hosts: Container[str] | None) -> OpenerDirector:
    """Return an opener of http and https alone: urllib's usual one also opens files, ftp and data, and uses proxies."""
    opener = OpenerDirector()
    for handler in (_Http, _Https, HTTPRedirectHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor, UnknownHandler):
        opener.add_handler(handler())
    if hosts is not None:
        opener.add_handler(_OnlyHosts(hosts))
    return opener


class _OnlyHosts(BaseHandler):
    """Refuses every request, also after a redirect, to a host that is not among those allowed."""

    def __init__(self, hosts: Container[str]) -> None:
        self._hosts = hosts

    def http_request(self, req: Request) -> Request:
        host = urlsplit(req.full_url).hostname
        if host not in self._hosts:
            raise InputError(f"{host}: is not one of the allowed hosts")
        return req

    https_request = http_request


def connect(host: str, port: int, timeout: float | None) -> socket.socket:
    """Connect to a public address of the host. Raises InputError if one of its addresses is not public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, address in found:
        if not is_public(str(address[0])):
            raise InputError(f"{host}: its address {address[0]} is not a public one; expected a server of the internet")
    error: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(address)  # the checked address, not the name, which might change its mind
            return connection
        except OSError as failure:
            connection.close()
            error = failure
    raise error


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet, also one of IPv4 that is written as IPv6."""
    one = ipaddress.ip_address(address)
    if isinstance(one, ipaddress.IPv6Address):
        inside = one.ipv4_mapped or one.sixtofour or (one.teredo[1] if one.teredo else None)
        if one in NAT64:
            inside = ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
    return one.is_global and not (one.is_multicast or one.is_reserved)


class _HttpConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = connect(self.host, self.port, self.timeout)


class _HttpsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        plain = connect(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _Http(HTTPHandler):
    def http_open(self, req: Request) -> Any:
        return self.do_open(_HttpConnection, req)


class _Https(HTTPSHandler):
    def https_open(self, req: Request) -> Any:
        return self.do_open(_HttpsConnection, req)
