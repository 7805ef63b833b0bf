"""Downloads of published weights, checked by SHA-256 and kept in a cache."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from isc.data.files import atomic_path
from isc.errors import InputError
from isc.runtime.progress import progress

PUBLISHED = "an SSCD *.torchvision.pt or an isc_*.pth.tar of the ISC21 winner"
BLOCK = 1 << 20  # bytes read at once
STALL = 60.0  # seconds without an answer after which a download is given up


def is_url(location: str) -> bool:
    """Return whether the location is a URL, which `fetch` downloads or refuses."""
    return "://" in location


def fetch(location: str) -> Path:
    """Return the file at `FILE`, `FILE#sha256=HEX` or `https://…#sha256=HEX`; a URL must have its checksum.

    A download is put into the cache folder only if its checksum is right, and is checked again before every use. Raises
    InputError if the file is missing, cannot be fetched, or has another checksum.
    """
    place, _, given = location.partition("#sha256=")
    expected = given.lower()
    if given and not re.fullmatch(r"[0-9a-f]{64}", expected):
        raise InputError(f"{location}: sha256={given}; expected 64 hexadecimal digits")
    if not is_url(place):
        path = Path(place) if given else Path(location)
        if not path.is_file():
            raise InputError(f"{path}: no such file; expected {PUBLISHED}, or https://…#sha256=HEX")
        if given:
            _check_sha256(path, expected, place)
        return path
    _check_scheme(place)
    if not given:
        raise InputError(f"{place}: no checksum; add #sha256=HEX, the file's SHA-256, so that it is what you mean")
    return _from_cache(place, expected)


def cache_folder() -> Path:
    """Return the cache folder: `isc` in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isc"


def _from_cache(url: str, expected: str) -> Path:
    """Return the file of this checksum in the cache; download it if it is absent or has changed."""
    name = Path(urlsplit(url).path).name or "download"
    path = cache_folder() / f"{expected[:16]}-{name}"
    if not path.is_file() or _sha256(path) != expected:
        with atomic_path(path) as beside:
            with beside.open("wb") as file:
                _download(url, file)
            _check_sha256(beside, expected, url)
    return path


def _check_sha256(path: Path, expected: str, place: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise InputError(f"{place}: its SHA-256 is {found}; expected {expected}; not used, get the file again")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_scheme(url: str) -> None:
    parts = _asking(url, lambda: urlsplit(url))
    if not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))):
        raise InputError(f"{url}: only https is fetched; download the file yourself and give its path")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _StayOnHttps(HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917  the library's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, file: IO[bytes]) -> None:
    """Append the content of the URL to the file.

    Errors of the download become InputError; those of `file` stay OSError.
    """
    opener = build_opener(_StayOnHttps)
    with (
        _asking(url, lambda: opener.open(url, timeout=STALL)) as answer,
        progress(f"download {urlsplit(url).path.rpartition('/')[2]}", "bytes") as report,
    ):
        done, total = 0, int(answer.headers.get("Content-Length") or 0)
        while block := _asking(url, lambda: answer.read(BLOCK)):
            file.write(block)
            done += len(block)
            report(done, max(total, done))


def _asking(url: str, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{url}: cannot be fetched ({reason}); download the file yourself and give its path"
        ) from error
