"""Matches by PDQ hashes: two pictures whose hashes differ in few of 256 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from isc.serve.kinds import ImageState, Kind
from isc.serve.living import OVERLAP
from isc.serve.pdq import MATCH, USABLE
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Provider
from isc.serve.providers.context import Context
from isc.serve.reading import Unreadable
from isc.serve.results import CopyMatch, Hash, Number, Result
from isc.serve.schema import image

Hashes = npt.NDArray[np.uint64]
TOLD = 20  # matches of one picture that are told, the nearest first
BLOCK = 1 << 20  # hashes compared at once


class PdqProvider(Provider):
    """Finds pictures of the collection with nearly the same PDQ hash; the hashes are kept with the pictures."""

    name = "pdq"
    version = f"pdq-within-{MATCH}"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.copy, Kind.number))
    group = "pixels"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._table = HashTable()

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        answers: list[Answer] = []
        for picture in pictures:
            try:
                examined = picture.examined
            except Unreadable as error:
                answers.append(error)
                continue
            results: list[Result] = [Hash(examined.pdq), Number("pdq_quality", examined.pdq_quality)]
            if examined.pdq_quality >= USABLE:
                results += self._matches(picture.id, examined.pdq)
            answers.append(results)
        return answers

    def _matches(self, number: int, digits: str) -> list[CopyMatch]:
        """Return the matches of a hash, which is written first: of two that arrive at once, one finds the other."""
        with self._context.database.writing() as connection:
            connection.execute(sa.update(image).where(image.c.id == number).values(pdq=digits))
        self._follow()
        found = [(bits, other) for bits, other in self._table.near(digits, within=MATCH) if other != number]
        with self._context.database.reading() as connection:
            wanted = sa.select(image.c.id).where(image.c.id.in_([other for _, other in found]))
            there = set(connection.scalars(wanted.where(image.c.state != ImageState.unreadable)))
        told = [(bits, other) for bits, other in found if other in there][:TOLD]
        return [_match(bits, other) for bits, other in told]

    def _follow(self) -> None:
        """Read the hashes of new pictures. A picture gets its hash once, soon after its number."""
        with self._context.database.reading() as connection:
            wanted = sa.select(image.c.id, image.c.pdq).where(
                image.c.id > self._table.last - OVERLAP, image.c.pdq.is_not(None)
            )
            self._table.add([(number, digits) for number, digits in connection.execute(wanted)])


def _match(bits: int, other: int) -> CopyMatch:
    evidence = {"method": "PDQ", "bits": bits, "of": 256}
    return CopyMatch(other=other, distance=bits, probability=None, verdict="perhaps", evidence=evidence)


class HashTable:
    """Hashes of 256 bits in memory, 40 bytes a picture, and the pictures they belong to."""

    def __init__(self) -> None:
        self._hashes: Hashes = np.zeros((1024, 4), np.uint64)
        self._images = np.zeros(1024, np.int64)
        self._known: set[int] = set()
        self.last = 0

    def __len__(self) -> int:
        return len(self._known)

    def add(self, rows: Sequence[tuple[int, str]]) -> None:
        """Add (picture, hash as 64 hexadecimal digits); pictures that are known are left out."""
        new = [(number, digits) for number, digits in rows if number not in self._known]
        while len(self) + len(new) > len(self._images):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._images = np.concatenate([self._images, np.zeros_like(self._images)])
        start = len(self)
        for at, (number, digits) in enumerate(new, start):
            self._hashes[at] = _words(digits)
            self._images[at] = number
            self.last = max(self.last, number)
        self._known.update(number for number, _ in new)

    def near(self, digits: str, *, within: int) -> list[tuple[int, int]]:
        """Return (differing bits, picture) of all hashes at most `within` bits away, the nearest first."""
        word, count = _words(digits), len(self)
        found: list[tuple[int, int]] = []
        for start in range(0, count, BLOCK):
            part = self._hashes[start : min(start + BLOCK, count)]
            bits = _counted(part ^ word)
            rows = np.flatnonzero(bits <= within)
            found += [(int(bits[row]), int(self._images[start + row])) for row in rows]
        return sorted(found)


def _words(digits: str) -> Hashes:
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _counted(words: Hashes) -> npt.NDArray[np.int64]:
    """Return the number of set bits of each row [N, 4]."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words).sum(axis=1, dtype=np.int64))
    return np.asarray(np.unpackbits(words.view(np.uint8), axis=1).sum(axis=1, dtype=np.int64))
