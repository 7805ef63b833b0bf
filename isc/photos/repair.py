"""Small damage to JPEG and PNG files that takes no pixel: a missing end mark, a wrong checksum beside the picture."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Decode = Callable[[bytes], Pixels]

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])")  # but for those without a length
_FILLINGS = (b"", b"\x55", b"\x24\x92\x49", b"\xe1\x5a\x0f\x99\x3c")  # what may follow a scan: no FF, no regular code
_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})  # chunks of a PNG that its pixels depend on


def ends_with_mark(tail: bytes) -> bool:
    """Return whether the last bytes of a JPEG are its end mark, but for zeros and line feeds."""
    return tail.rstrip(b"\0\n").endswith(b"\xff\xd9")


def lacks_end(data: bytes) -> bool:
    """Return whether a JPEG has no end mark. Pillow may not notice, if zeros follow where a half file ends."""
    return not ends_with_mark(data) and all(marker != _END_OF_IMAGE for marker, _ in _segments(data))


def jpeg_without_end(data: bytes, decode: Decode) -> Pixels | None:
    """Decode a JPEG that lacks its end mark alone; None if any pixel depends on what is missing.

    All scans have to be there. Then the file is decoded several times, with other bytes in the place of what is
    missing: if any pixel of the last scan is not in the file, the decoder takes it from these bytes. Zeros at the end,
    if more than two, may stand for what is missing, and do not count.
    """
    body = data.rstrip(b"\0")
    if not _has_all_scans(body):
        return None
    least = 1 if body.endswith(b"\xff") else 0  # FF 00 is an FF of the picture; after it, it does no harm
    stripped = len(data) - len(body)
    for zeros in range(least, max(least, stripped if stripped <= 2 else 0) + 1):
        if (found := _same_whatever_follows(body + bytes(zeros), decode)) is not None:
            return found
    return None


def _same_whatever_follows(body: bytes, decode: Decode) -> Pixels | None:
    restart = max((body.rfind(bytes((0xFF, 0xD0 + number))), number) for number in range(8))
    following = restart[1] + 1 if restart[0] >= 0 else 0
    found: Pixels | None = None
    for filling in _FILLINGS:
        parts = (filling * 64 + bytes((0xFF, 0xD0 + (following + step) % 8)) for step in range(16))
        pixels = decode(body + (b"".join(parts) if filling else b"") + b"\xff\xd9")
        if found is not None and not np.array_equal(found, pixels):
            return None
        found = pixels
    return found


def png_without_damaged_extras(data: bytes) -> bytes | None:
    """Return a PNG without the chunks that no pixel depends on and that are damaged; None if that leaves no picture.

    Texts, times, sizes and colour profiles are such chunks. A chunk with a wrong checksum that holds pixels, a palette
    or transparency stays damaged.
    """
    if not data.startswith(PNG):
        return None
    kept = [
        data[start:end] for start, end, kind, sound in _chunks(data) if kind in _KEPT or (kind == b"eXIf" and sound)
    ]
    return PNG + b"".join(kept) if kept else None


def has_several_scans(head: bytes) -> bool:
    """Return whether a JPEG's decoder has to hold the whole picture as coefficients, from its first bytes.

    So it is with progressive files, and with files whose first scan does not have all components.
    """
    components = 0
    for marker, content in _segments(head):
        if marker == 0xC2:
            return True
        if marker in _FRAMES and len(content) > 5:
            components = content[5]
        if marker == _START_OF_SCAN:
            return bool(content) and content[0] < components
    return True


def _has_all_scans(data: bytes) -> bool:
    """Return whether the scans of a JPEG give every bit of every coefficient of every component.

    A progressive scan has the coefficients `first` to `last` of its components, down to bit `low`.
    """
    lowest: dict[tuple[int, int], int] = {}
    components: list[int] = []
    progressive = False
    for marker, content in _segments(data):
        if marker in _FRAMES and len(content) > 5:
            progressive = marker == 0xC2
            components = list(content[6::3])
        elif marker == _START_OF_SCAN and content and len(content) >= 4 + 2 * content[0]:
            scanned = list(content[1 : 1 + 2 * content[0] : 2])
            first, last, bits = content[1 + 2 * content[0] : 4 + 2 * content[0]]
            coefficients = range(first, min(last, 63) + 1) if progressive else range(64)
            lowest |= {(one, at): bits & 15 if progressive else 0 for one in scanned for at in coefficients}
    return bool(components) and all(lowest.get((one, at)) == 0 for one in components for at in range(64))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, content) of the segments of a JPEG, to the end mark; the coded pixels between are skipped."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        length = int.from_bytes(data[at : at + 2], "big")
        if marker != _END_OF_IMAGE and (length < 2 or at + length > len(data)):
            return
        yield marker, data[at + 2 : at + length]
        if marker == _END_OF_IMAGE:
            return
        at += length


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes, bool]]:
    """Yield (start, end, kind, whether the checksum is right) of the chunks of a PNG, as far as they are whole."""
    at = len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            return
        sound = zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        yield at, end, data[at + 4 : at + 8], sound
        at = end
