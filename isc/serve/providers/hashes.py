"""Matches by PDQ hashes: two pictures whose hashes differ in few of 256 bits."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from isc.serve.forgetting import Removals
from isc.serve.kinds import ImageState, Kind, RequestState
from isc.serve.living import OVERLAP
from isc.serve.pdq import MATCH, USABLE
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Provider
from isc.serve.providers.context import Context
from isc.serve.reading import Unreadable
from isc.serve.results import CopyMatch, Hash, Number
from isc.serve.schema import image, number, request

Hashes = npt.NDArray[np.uint64]
TOLD = 20  # matches of one picture that are told, the nearest first
LOOKED_AT = 1_000  # nearest hashes of which those of pictures that are there are told
BLOCK = 1 << 20  # hashes in one piece of memory
COMPARED = 1 << 14  # hashes compared at once; divides BLOCK, and what a comparison makes stays in the cache
PAGE = 20_000  # hashes read at once


class PdqProvider(Provider):
    """Finds pictures of the collection with nearly the same PDQ hash; the hashes are kept with the pictures."""

    name = "pdq"
    version = f"pdq-within-{MATCH}"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.copy, Kind.number))
    group = "pixels"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._table = HashTable()
        self._noted: int | None = None  # the last row of numbers that was read
        self._removals = Removals(context.database)
        self._alone = threading.Lock()  # a page of hashes is read and added before removals are looked at

    def forget(self) -> int:
        """Drop the hashes of removed pictures from the memory of this process, and return their number."""
        with self._alone:
            return self._table.remove(number_of_image for number_of_image, _ in self._removals.since())

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        answers: list[Answer] = []
        usable: dict[int, str] = {}
        for picture in pictures:
            try:
                examined = picture.examined
            except Unreadable as error:
                answers.append(error)
                continue
            answers.append([Hash(examined.pdq), Number("pdq_quality", examined.pdq_quality)])
            if examined.pdq_quality >= USABLE:
                usable[picture.id] = examined.pdq
        matches = self._matches(usable)
        return [
            [*answer, *matches.get(picture.id, ())] if not isinstance(answer, Exception) else answer
            for picture, answer in zip(pictures, answers, strict=True)
        ]

    def _matches(self, hashes: Mapping[int, str]) -> dict[int, list[CopyMatch]]:
        """Return the matches of hashes by picture.

        The hashes are written first: of two that arrive at once, one finds the other.
        """
        if not hashes:
            return {}
        with self._context.database.writing() as connection:
            for number_of_image, digits in hashes.items():
                connection.execute(sa.update(image).where(image.c.id == number_of_image).values(pdq=digits))
        self._follow()
        return {one: self._near(one, digits) for one, digits in hashes.items()}

    def _near(self, own: int, digits: str) -> list[CopyMatch]:
        with self._alone:
            near = self._table.near(digits, within=MATCH)
        found = [(bits, other) for bits, other in near if other != own][:LOOKED_AT]
        with self._context.database.reading() as connection:
            wanted = sa.select(image.c.id).where(image.c.id.in_([other for _, other in found]))
            there = set(connection.scalars(wanted.where(image.c.state != ImageState.unreadable)))
        told = [(bits, other) for bits, other in found if other in there][:TOLD]
        return [_match(bits, other) for bits, other in told]

    def _follow(self) -> None:
        """Read the hashes that are new: first all, then those of pictures that are described now, or were since.

        A picture may get its hash long after its number: an import waits behind uploads. The leased ones are read
        before the described ones, so that none falls in between.
        """
        if self._noted is None:
            with self._context.database.reading() as connection:
                self._noted = int(connection.scalar(sa.select(sa.func.max(number.c.id))) or 0)
            self._read(sa.select(image.c.id, image.c.id, image.c.pdq), image.c.id, after=0)
        described_now = sa.select(request.c.id, image.c.id, image.c.pdq).join(image, image.c.id == request.c.image_id)
        self._read(described_now.where(request.c.state == RequestState.leased), request.c.id, after=0)
        described = sa.select(number.c.id, image.c.id, image.c.pdq).join(image, image.c.id == number.c.image_id)
        described = described.where(number.c.classifier == "pdq_quality")
        self._noted = self._read(described, number.c.id, after=self._noted - OVERLAP, last=self._noted)

    def _read(self, wanted: sa.Select[Any], key: sa.ColumnElement[int], *, after: int, last: int = 0) -> int:
        """Add the hashes of a query (key, picture, hash) after a key, a page at a time; return the last key."""
        while True:
            page = wanted.where(key > after, image.c.pdq.is_not(None)).order_by(key).limit(PAGE)
            with self._alone:
                with self._context.database.reading() as connection:
                    rows = connection.execute(page).all()
                self._table.add([(number_of_image, digits) for _, number_of_image, digits in rows])
            if rows:
                after = rows[-1][0]
                last = max(last, after)
            if len(rows) < PAGE:
                return last


def _match(bits: int, other: int) -> CopyMatch:
    evidence = {"method": "PDQ", "bits": bits, "of": 256}
    return CopyMatch(other=other, distance=bits, probability=None, verdict="perhaps", evidence=evidence)


class HashTable:
    """Hashes of 256 bits in memory, 40 bytes a picture and a bit for each number, and the pictures they belong to.

    They lie in blocks, so that growing copies nothing.
    """

    def __init__(self) -> None:
        self._hashes: list[Hashes] = []
        self._images: list[npt.NDArray[np.int64]] = []
        self._known = np.zeros(1024, np.uint8)  # a bit for each picture's number
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: Sequence[tuple[int, str]]) -> None:
        """Add (picture, hash as 64 hexadecimal digits); pictures that are known are left out."""
        numbers, first = np.unique(np.array([one for one, _ in rows], np.int64), return_index=True)
        new = ~self._knows(numbers)
        numbers, first = numbers[new], first[new]
        if not len(numbers):
            return
        hashes = _words("".join(rows[at][1] for at in first)).reshape(-1, 4)
        np.bitwise_or.at(self._known, numbers >> 3, _bit(numbers))
        done = 0
        while done < len(numbers):
            at = self._count % BLOCK
            if at == 0:
                self._hashes.append(np.empty((BLOCK, 4), np.uint64))  # pages of memory come when they are written
                self._images.append(np.empty(BLOCK, np.int64))
            part = slice(done, done + BLOCK - at)
            count = len(numbers[part])
            self._hashes[-1][at : at + count], self._images[-1][at : at + count] = hashes[part], numbers[part]
            self._count += count
            done += count

    def remove(self, pictures: Iterable[int]) -> int:
        """Remove the hashes of pictures, and return how many were there.

        The last rows take their places, so that the blocks stay full, and no bit of a removed hash stays in memory.
        """
        numbers = np.unique(np.fromiter(pictures, np.int64))
        gone = numbers[self._knows(numbers)]
        if not len(gone):
            return 0
        places = [
            block * BLOCK + row
            for block, images in enumerate(self._images)
            for row in np.flatnonzero(np.isin(images[: self._count - block * BLOCK], gone)).tolist()
        ]
        for place in reversed(places):
            self._drop(place)
        np.bitwise_and.at(self._known, gone >> 3, ~_bit(gone))
        return len(gone)

    def _drop(self, place: int) -> None:
        """Let the last row take this place, and drop a block that is empty then."""
        (block, row), (end, last) = divmod(place, BLOCK), divmod(self._count - 1, BLOCK)
        self._hashes[block][row], self._images[block][row] = self._hashes[end][last], self._images[end][last]
        self._hashes[end][last], self._images[end][last] = 0, 0
        self._count -= 1
        if last == 0:
            self._hashes.pop()
            self._images.pop()

    def _knows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return for each picture whether it is known; there is room for the bits of all from now on."""
        most = int(numbers.max(initial=0))
        if most >> 3 >= len(self._known):
            self._known = np.concatenate([self._known, np.zeros((most >> 3) + 1, np.uint8)])
        return np.asarray(self._known[numbers >> 3] & _bit(numbers), bool)

    def near(self, digits: str, *, within: int) -> list[tuple[int, int]]:
        """Return (differing bits, picture) of all hashes at most `within` bits away, the nearest first."""
        word = _words(digits)
        found: list[tuple[int, int]] = []
        for start in range(0, self._count, COMPARED):
            block, first = divmod(start, BLOCK)
            last = first + min(COMPARED, self._count - start)
            bits = _counted(self._hashes[block][first:last] ^ word)
            rows = np.flatnonzero(bits <= within)
            found += zip(bits[rows].tolist(), self._images[block][first + rows].tolist(), strict=True)
        return sorted(found)


def _bit(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    return np.asarray(np.left_shift(1, numbers & 7), np.uint8)


def _words(digits: str) -> Hashes:
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _counted(words: Hashes) -> npt.NDArray[np.uint16]:
    """Return the number of set bits of each row [N, 4], 0…256."""
    if not hasattr(np, "bitwise_count"):
        return np.asarray(np.unpackbits(words.view(np.uint8), axis=1).sum(axis=1, dtype=np.uint16))
    first, second, third, fourth = np.bitwise_count(words).T  # of 8 bits; a sum of two, at most 128, is too
    return np.asarray(np.add(first + second, third + fourth, dtype=np.uint16))
