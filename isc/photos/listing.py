"""A listing of photos, numbered in the order of their ids and read by number."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.photos.decode import Pixels, read_bytes, read_image
from isc.photos.place import BLOCK, ListedPhoto, Place
from isc.photos.tar import read_member

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Listing:
    """A listing of N photos, numbered 0…N−1 in the order of their distinct ids (by code point).

    It can be pickled and works in forked and spawned processes, and in threads. It holds names, not photos: `read`
    raises InputError for a photo that has become unreadable. Made by `list_photos`.
    """

    _text: npt.NDArray[np.uint8]  # id + tail of all photos, one after another
    _ends: IntArray  # [N + 1] end of each photo's part of `_text`, after a leading 0
    _id_lengths: npt.NDArray[np.uint32]  # [N] in bytes
    _place: npt.NDArray[np.uint32]  # [N] positions in `_places`
    _places: tuple[Place, ...]
    _extents: IntArray | None  # [N, 2] offset and size in the tar in bytes, −1 in a folder; None without any tar

    def __len__(self) -> int:
        return len(self._id_lengths)

    def id_of(self, row: int) -> str:
        """Return the id of a photo. Raises IndexError outside 0…N−1."""
        return self._bytes(row)[: self._id_lengths[row]].decode()

    def ids(self, rows: Iterable[int] | None = None) -> list[str]:
        """Return the ids of the photos in `rows`, in this order; without `rows`, of all."""
        return [self.id_of(row) for row in (range(len(self)) if rows is None else rows)]

    @property
    def longest_id(self) -> int:
        """The length of the longest id in bytes of UTF-8; 0 without photos."""
        return int(self._id_lengths.max(initial=0))

    def where(self, row: int) -> str:
        """Return the photo's path, or SHARD.tar::member, for messages; relative if the source was given so."""
        return self._place_of(row).shown_file(self._file(row))

    def file(self, row: int) -> str:
        """Return the photo's absolute path, or SHARD.tar::member, for the column `file` of a table in any folder."""
        place = self._place_of(row)
        return place._replace(shown=place.path).shown_file(self._file(row))

    def data(self, row: int) -> bytes:
        """Read the bytes of the photo's file. Raises InputError if they cannot be read."""
        place = self._place_of(row)
        if not place.stamp:
            return read_bytes(Path(self.file(row)), name=self.where(row))
        offset, size = self._extent(row)
        return read_member(place, offset, size, name=self.where(row))

    def read(self, row: int) -> Pixels:
        """Decode the picture as `read_image` does, uint8 [H, W, 3]. Raises InputError if it cannot be read."""
        if self._place_of(row).stamp:
            return read_image(self.data(row), name=self.where(row))
        return read_image(Path(self.file(row)), name=self.where(row))

    def part(self, rows: range) -> Listing:
        """Return a listing with these rows only, numbered from 0; small to pickle.

        Raises ValueError unless `rows` lies within 0…N and has step 1.
        """
        if rows.step != 1 or not 0 <= rows.start <= max(rows.start, rows.stop) <= len(self):
            raise ValueError(f"{rows} of {len(self)} photos; expected rows of step 1 within them")
        here = slice(rows.start, max(rows.start, rows.stop))
        first, last = int(self._ends[here.start]), int(self._ends[here.stop])
        used, place = np.unique(self._place[here], return_inverse=True)
        return Listing(
            _text=self._text[first:last],
            _ends=self._ends[here.start : here.stop + 1] - first,
            _id_lengths=self._id_lengths[here],
            _place=place.astype(np.uint32),
            _places=tuple(self._places[number] for number in used),
            _extents=None if self._extents is None else self._extents[here],
        )

    def sha256(self) -> str:
        """Return the hash that identifies the list: the SHA-256 of ids, file names and file sizes in bytes.

        The same photos in a folder and in a tar have the same hash. The sizes of files in folders are looked up at the
        call; a missing file has the size −1.
        """
        digest = hashlib.sha256()
        for start in range(0, len(self), BLOCK):
            digest.update("".join(map(self._identity, range(start, min(start + BLOCK, len(self))))).encode())
        return digest.hexdigest()

    def _identity(self, row: int) -> str:
        file, (_, size) = self._file(row), self._extent(row)
        if size < 0 and not self._place_of(row).stamp:
            size = _file_size(self.file(row))
        return f"{self.id_of(row)},{file.rpartition('/')[2]},{size}\n"

    def _bytes(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} photos")
        return self._text[self._ends[row] : self._ends[row + 1]].tobytes()

    def _file(self, row: int) -> str:
        """Return the path below the photo's folder, or its member name in the tar."""
        text, length = self._bytes(row), self._id_lengths[row]
        return (text[length + 1 :] if text[length : length + 1] == b"\0" else text).decode()

    def _place_of(self, row: int) -> Place:
        return self._places[int(self._place[row])]

    def _extent(self, row: int) -> tuple[int, int]:
        if self._extents is None:
            return -1, -1
        offset, size = self._extents[row].tolist()
        return offset, size


def _file_size(path: str) -> int:
    """Return the size in bytes; −1 if there is no such file, which is reported as unreadable later."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 -- a Path for each of millions is slow
    except OSError:
        return -1


def packed(photos: Iterable[ListedPhoto]) -> Listing:
    """Build a listing of the photos, sorted by id. Raises InputError if two photos have the same id."""
    text, ends, id_lengths = bytearray(), array("q", [0]), array("I")
    places: dict[Place, int] = {}
    numbers, extents, last, number = array("I"), array("q"), None, 0
    for photo_id, tail, place, offset, size in photos:
        if place is not last:
            last, number = place, places.setdefault(place, len(places))
        name = photo_id.encode()
        text += name
        text += tail.encode()
        ends.append(len(text))
        id_lengths.append(len(name))
        numbers.append(number)
        extents.append(offset)
        extents.append(size)
    has_tars = any(place.stamp for place in places)
    listing = Listing(
        _text=np.frombuffer(text, np.uint8),
        _ends=np.frombuffer(ends, np.int64),
        _id_lengths=np.frombuffer(id_lengths, np.uint32),
        _place=np.frombuffer(numbers, np.uint32),
        _places=tuple(places),
        _extents=np.frombuffer(extents, np.int64).reshape(-1, 2) if has_tars else None,
    )
    del extents
    return _sorted(listing)


def _sorted(listing: Listing) -> Listing:
    order, twice = _order(listing._text, listing._ends[:-1], listing._id_lengths.astype(np.int64))
    if twice is not None:
        one, two = map(listing.where, twice)
        raise InputError(f"{one} and {two} would both get the id {listing.id_of(twice[0])!r}; rename one")
    if (order[1:] > order[:-1]).all():
        return listing
    starts, ends = listing._ends[:-1][order], listing._ends[1:][order]
    return Listing(
        _text=_gathered(listing._text, starts, ends),
        _ends=np.append(0, np.cumsum(ends - starts)),
        _id_lengths=listing._id_lengths[order],
        _place=listing._place[order],
        _places=listing._places,
        _extents=None if listing._extents is None else listing._extents[order],
    )


def _gathered(text: npt.NDArray[np.uint8], starts: IntArray, ends: IntArray) -> npt.NDArray[np.uint8]:
    """Join the pieces of the text from `starts` to `ends`."""
    pieces = np.empty(int((ends - starts).sum()), np.uint8)
    view, done = memoryview(text.data), 0
    for block in range(0, len(starts), BLOCK):
        here = slice(block, block + BLOCK)
        spans = zip(starts[here].tolist(), ends[here].tolist(), strict=True)
        joined = b"".join([view[start:end] for start, end in spans])
        pieces[done : done + len(joined)] = np.frombuffer(joined, np.uint8)
        done += len(joined)
    return pieces


def _order(text: npt.NDArray[np.uint8], starts: IntArray, lengths: IntArray) -> tuple[IntArray, tuple[int, int] | None]:
    """Sort the N pieces of the text that begin at `starts` by their bytes, which hold no NUL.

    Returns the row numbers [N], and two rows that are equal, or None. UTF-8 sorts like its code points. Eight bytes of
    each row are compared at a time; then only tied rows continue, each within its group of ties.
    """
    padded = np.append(text, np.zeros(8, np.uint8))
    words: npt.NDArray[np.uint64] = np.ndarray((len(text) + 1,), ">u8", padded, strides=(1,))
    order = np.arange(len(starts))
    at = order.copy()  # the positions in `order` that are not final yet
    group = np.zeros(len(starts), np.int64)  # for each position in `at`, the first position of its group of ties
    for depth in range(0, int(lengths.max(initial=0)), 8):
        rows = order[at]
        left = (lengths[rows] - depth).clip(0, 8)
        word = words[(starts[rows] + depth).clip(max=len(text))].astype(np.uint64) & _KEEP[left]
        sorting = np.lexsort((word, group))
        order[at], word = rows[sorting], word[sorting]
        ties = (group[1:] == group[:-1]) & (word[1:] == word[:-1])
        first = np.append(True, ~ties)
        group = np.maximum.accumulate(np.where(first, at, 0))
        unsettled = np.append(ties, False) | ~first
        at, group = at[unsettled], group[unsettled]
        if not len(at):
            return order, None
    return order, (int(order[at[0]]), int(order[at[1]])) if len(at) > 1 else None


_KEEP = np.array([((1 << 8 * kept) - 1) << 8 * (8 - kept) for kept in range(9)], np.uint64)  # masks of a word's bytes
