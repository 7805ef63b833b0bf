"""A picture as providers see it: its facts, and its pixels when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isc.photos.decode import Pixels
    from isc.serve.reading import Examined, Reader

HELD = 128  # examined pictures that a worker keeps for its other providers


class Examiner:
    """Examines pictures in a process of their own, and keeps the last ones for the next provider of the worker."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._held: OrderedDict[str, Examined] = OrderedDict()
        self._lock = threading.Lock()

    def examine(self, sha256: str, path: Path) -> Examined:
        """Return what the picture gives. Raises Unreadable if it cannot be decoded."""
        with self._lock:
            found = self._held.get(sha256)
        found = found or self.reader.examine(path)
        with self._lock:
            self._held[sha256] = found
            self._held.move_to_end(sha256)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return found

    def forget(self, hashes: Iterable[str | None]) -> None:
        """Drop pictures by their SHA-256."""
        with self._lock:
            for one in hashes:
                if one is not None:
                    self._held.pop(one, None)


@dataclass(frozen=True)
class Picture:
    """A picture of the collection: its number, its SHA-256, and its file."""

    id: int
    sha256: str
    path: Path
    examiner: Examiner | None = None

    @property
    def examined(self) -> Examined:
        """The result of decoding; the picture is decoded when this is first asked. Raises Unreadable."""
        assert self.examiner is not None, "this worker has no process that decodes"
        return self.examiner.examine(self.sha256, self.path)

    @property
    def pixels(self) -> Pixels:
        """The picture, uint8 [h, w, 3] RGB, upright, shrunk to at most 1024 pixels a side. Raises Unreadable."""
        return self.examined.pixels

    @property
    def data(self) -> bytes:
        """The bytes of its file. Raises OSError if it is gone."""
        return self.path.read_bytes()
