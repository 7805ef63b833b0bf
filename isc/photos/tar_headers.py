"""Headers of tar files (POSIX ustar and pax, GNU, and the older form without a mark), read one block at a time.

Python's tarfile takes a tar that was cut between two members for a whole one, and a damaged header in the middle for
its end. It follows chains of headers by recursion, and reads the length that a header states into memory.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from isc.errors import InputError

TAR_BLOCK = 512  # bytes
MAX_EXTENSION = 16 << 20  # bytes of one pax header or long name; longer ones are damage
MAX_EXTENSIONS = 16  # such headers in front of one member
MAX_PADDING = 4 << 20  # bytes of zeros behind the end mark: the largest record of any tar program is a megabyte
LARGEST = (1 << 63) - 1  # bytes; no file is longer
_RECORD = re.compile(rb"([0-9]{1,20}) ")
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"xX", b"g"
_FOLDERS_AND_DEVICES = b"3456"
_HARD_LINK, _SYMBOLIC_LINK, _SPARSE = b"1", b"2", b"S"


class Member(NamedTuple):
    """A regular file in a tar: the offset of its data and its size, in bytes; or a link, with its target."""

    name: str
    offset: int
    size: int
    target: str | None = None


class _DamageError(Exception):
    """A fault of a header."""


def members(path: Path) -> Iterator[Member]:
    """Yield the regular files and the links of a tar, in their order, from the headers alone.

    The target of a link is a path in the tar. Raises InputError if the tar cannot be read, is damaged, cut short
    anywhere before its end mark, or joined to another, and for a sparse file.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise InputError(f"{path}: is no regular file; expected a tar file")
            yield from _Reader(path, file, state.st_size).members()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Reader:
    """A walk over the headers of one tar of `end` bytes."""

    def __init__(self, path: Path, file: BinaryIO, end: int) -> None:
        self.path, self.file, self.end = path, file, end
        self.everywhere: dict[str, str] = {}  # what a global pax header says of all later members

    def members(self) -> Iterator[Member]:
        at, said, long = 0, dict[str, str](), dict[bytes, str]()
        extensions = 0
        while (header := self._header(at)) is not None:
            kind, data = header[156:157], at + TAR_BLOCK
            try:
                size = _number(header[124:136])
                if kind in (_LONG_NAME, _LONG_LINK) or kind in _PAX or kind == _PAX_GLOBAL:
                    extensions += 1
                    content = self._extension(data, size, extensions)
                    if kind in (_LONG_NAME, _LONG_LINK):
                        long[kind] = _text(content.split(b"\0", 1)[0])
                    else:
                        (self.everywhere if kind == _PAX_GLOBAL else said).update(_pax_records(content))
                else:
                    facts = self._facts(header, said, long)
                    size = _decimal(facts["size"]) if "size" in facts else size
                    yield from self._member(kind, data, size, facts)
                    said, long, extensions = {}, {}, 0
                    size = 0 if kind in (_HARD_LINK, _SYMBOLIC_LINK) or kind in _FOLDERS_AND_DEVICES else size
            except _DamageError as damage:
                raise InputError(f"{self.path}: is damaged at byte {at:,} ({damage}); fetch or pack it again") from None
            at = data + -(-size // TAR_BLOCK) * TAR_BLOCK
        if extensions:
            raise InputError(f"{self.path}: ends after the name of a member; fetch it again")

    def _header(self, at: int) -> bytes | None:
        """Return the header at this byte, None at the end mark, a block of zeros that zeros alone follow."""
        block = self._read(at, TAR_BLOCK)
        if len(block) < TAR_BLOCK:
            what = f"is cut short: ends at byte {self.end:,} without the end mark of a tar" if at else "is no tar file"
            raise InputError(f"{self.path}: {what}; fetch or pack it again")
        if block.strip(b"\0"):
            if _has_right_sum(block):
                return block
            what = f"is damaged at byte {at:,}" if at else "is no tar file, or a damaged one"
            raise InputError(f"{self.path}: {what} (the sum of its header is wrong); fetch or pack it again")
        padding = self._read(at, MAX_PADDING)
        if padding.strip(b"\0"):
            raise InputError(
                f"{self.path}: goes on after its end at byte {at:,}, as joined tar files do; give each alone"
            )
        if self.end > at + MAX_PADDING:
            raise InputError(f"{self.path}: holds zeros alone from byte {at:,} on; fetch it again, it is not whole")
        return None

    def _read(self, at: int, size: int) -> bytes:
        self.file.seek(at)
        return self.file.read(size)

    def _extension(self, at: int, size: int, extensions: int) -> bytes:
        if size > MAX_EXTENSION or extensions > MAX_EXTENSIONS:
            raise _DamageError(f"header {extensions} in front of one member, of {size:,} bytes")
        content = self._read(at, size)
        if len(content) < size:
            raise _DamageError("its end is missing")
        return content

    def _facts(self, header: bytes, said: dict[str, str], long: dict[bytes, str]) -> dict[str, str]:
        """Return what all headers of a member say: its `path`, its `linkpath`, and more from pax headers."""
        short = {"path": _name(header), "linkpath": _text(header[157:257].split(b"\0", 1)[0])}
        extended = {"path": long.get(_LONG_NAME), "linkpath": long.get(_LONG_LINK)} | self.everywhere | said
        return short | {key: value for key, value in extended.items() if value}

    def _member(self, kind: bytes, data: int, size: int, facts: dict[str, str]) -> Iterator[Member]:
        name = facts["path"]
        if kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in facts):
            raise InputError(f"{self.path}::{name!r}: is stored as a sparse file; repack without --sparse")
        if kind in _FOLDERS_AND_DEVICES or (kind in b"\x000" and name.endswith("/")):
            return
        if kind in (_HARD_LINK, _SYMBOLIC_LINK):
            target = facts["linkpath"]
            yield Member(name, -1, -1, target if kind == _HARD_LINK else _seen_from(name, target))
            return
        if data + size > self.end:
            left = max(0, self.end - data)
            raise InputError(
                f"{self.path}::{name!r}: the tar file ends after {left:,} of its {size:,} bytes; fetch it again"
            )
        yield Member(name, data, size)


def _seen_from(name: str, target: str) -> str:
    """Return the path in the tar of the target of a symbolic link; an absolute one stays."""
    return os.path.normpath(os.path.join(os.path.dirname(name), target))  # noqa: PTH118, PTH120 -- no file of the disk


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""  # GNU keeps times there
    return _text(prefix + b"/" + name if prefix else name)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _has_right_sum(header: bytes) -> bool:
    """Compare the header's sum, of unsigned or, as old programs have it, of signed bytes; the sum counts as blanks."""
    try:
        given = _number(header[148:156])
    except _DamageError:
        return False
    others = header[:148] + b" " * 8 + header[156:]
    return given in (sum(others), sum(byte - 256 if byte > 127 else byte for byte in others))


def _number(field: bytes) -> int:
    """Read a number of a header: octal digits, or with the first bit set a binary number."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or number > LARGEST:
            raise _DamageError("a number is negative or above 2^63")
        return number
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise _DamageError(f"{digits!r} is no octal number")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text, re.ASCII) or int(text) > LARGEST:
        raise _DamageError(f"a pax header states the size {text[:40]!r}")
    return int(text)


def _pax_records(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of a pax header's records `LENGTH KEY=VALUE`, each ended by a line feed."""
    at = 0
    while at < len(content) and content[at]:
        length = _RECORD.match(content, at)
        end = at + int(length[1]) if length else 0
        if length is None or not length.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise _DamageError("a record of its pax header has a wrong length")
        key, equals, value = content[length.end() : end - 1].partition(b"=")
        if not equals:
            raise _DamageError("a record of its pax header has no =")
        yield _text(key), _text(value)
        at = end
