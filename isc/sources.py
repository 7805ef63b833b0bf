"""Photos from folders, list files and tar shards: listed once, numbered in the order of their ids, read by number.

A `Listing` of N photos holds their names as one block of bytes and a few numbers a photo, about 20 bytes and the name
itself, so that tens of millions fit into memory, and is handed to other processes in parts.
"""

from __future__ import annotations

import csv
import functools
import glob
import hashlib
import itertools
import os
import re
import stat
import tarfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from isc.descriptors import id_problem
from isc.errors import InputError
from isc.images import MAX_BYTES, SUFFIXES, Pixels, has_image_suffix, image_files, read_bytes, read_image

IntArray = npt.NDArray[np.int64]

KINDS = "a folder, a photo, a list (.txt, .csv), a .tar, or a pattern of such (shards/{000..127}.tar, shards/*.tar)"
MAX_NAMES = 1_000_000  # that one pattern with braces may stand for
OPEN_TARS = 32  # a process
MEMBER = "::"  # between a tar and its member

_BLOCK = 65536  # photos that are handled at a time
_PACKED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_TAR_BLOCK = 512


class _Place(NamedTuple):
    """Where photos lie: a folder, or a tar file. `stamp` is the size and time of change of a tar, () of a folder."""

    path: str  # absolute, so that workers with another working directory find it
    shown: str  # as the user wrote it
    stamp: tuple[int, ...] = ()

    def shown_file(self, file: str) -> str:
        if self.stamp:
            return f"{self.shown}{MEMBER}{file}"
        return file if self.shown == "." else os.path.join(self.shown, file)  # noqa: PTH118 -- a Path for each is slow


class _Photo(NamedTuple):
    """What a source tells of one photo. `tail` is the file name less the id in front, or, where it does not begin with
    the id, a NUL and the whole name. `offset` and `size` say where in a tar it lies."""

    id: str
    tail: str
    place: _Place
    offset: int = -1
    size: int = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Listing:
    """N photos, numbered 0…N−1 in the order of their ids (by code point), which are distinct.

    It can be pickled and works in forked and spawned processes, and in threads. It holds names, not photos: what has
    become unreadable since is told by `read`. Made by `list_photos`.
    """

    _text: npt.NDArray[np.uint8]  # of all photos, one after another: id + tail
    _ends: IntArray  # [N + 1] where in `_text` that of each photo ends, after a leading 0
    _id_lengths: npt.NDArray[np.uint32]  # [N] in bytes
    _place: npt.NDArray[np.uint32]  # [N] numbers among `_places`
    _places: tuple[_Place, ...]
    _extents: IntArray | None  # [N, 2] offset and size in the tar, −1 where there is none; None without any tar

    def __len__(self) -> int:
        return len(self._id_lengths)

    def id_of(self, row: int) -> str:
        """The id of a photo; IndexError outside 0…N−1."""
        return self._bytes(row)[: self._id_lengths[row]].decode()

    def ids(self, rows: Iterable[int]) -> list[str]:
        """The ids of these photos, in this order."""
        return [self.id_of(row) for row in rows]

    @property
    def longest_id(self) -> int:
        """The length of the longest id, in bytes of UTF-8; 0 of no photos."""
        return int(self._id_lengths.max(initial=0))

    def where(self, row: int) -> str:
        """The photo for people: its path, or SHARD.tar::member; relative where the source was given so."""
        return self._place_of(row).shown_file(self._file(row))

    def file(self, row: int) -> str:
        """The same with an absolute path: what the column `file` of a list takes, wherever the list lies."""
        place = self._place_of(row)
        return place._replace(shown=place.path).shown_file(self._file(row))

    def data(self, row: int) -> bytes:
        """The bytes of the photo's file; InputError where they cannot be read."""
        place = self._place_of(row)
        if not place.stamp:
            return read_bytes(Path(self.file(row)), name=self.where(row))
        offset, size = self._extent(row)
        return _read_member(place, offset, size, name=self.where(row))

    def read(self, row: int) -> Pixels:
        """The picture as `isc.images.read_image` gives it, uint8 [H, W, 3]; InputError where it cannot be read."""
        if self._place_of(row).stamp:
            return read_image(self.data(row), name=self.where(row))
        return read_image(Path(self.file(row)), name=self.where(row))

    def part(self, rows: range) -> Listing:
        """The photos of these rows alone, numbered from 0; small to pickle. `rows` lies within 0…N and has step 1."""
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
        """What identifies the list: the SHA-256 of all ids, file names and sizes, as `isc.images.list_hash` has it.
        The sizes of files that lie in folders are looked up now."""
        digest = hashlib.sha256()
        for start in range(0, len(self), _BLOCK):
            digest.update("".join(map(self._identity, range(start, min(start + _BLOCK, len(self))))).encode())
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
        """The path below its folder, or the member of its tar."""
        text, length = self._bytes(row), self._id_lengths[row]
        return (text[length + 1 :] if text[length : length + 1] == b"\0" else text).decode()

    def _place_of(self, row: int) -> _Place:
        return self._places[int(self._place[row])]

    def _extent(self, row: int) -> tuple[int, int]:
        if self._extents is None:
            return -1, -1
        offset, size = self._extents[row].tolist()
        return offset, size


def _file_size(path: str) -> int:
    """In bytes; −1 where there is no such file, which is found unreadable later."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 -- a Path for each of millions is slow
    except OSError:
        return -1


def list_photos(sources: Sequence[str | Path] | str | Path, *, key: str = "images") -> Listing:
    """The photos of all these sources together, by id.

    A source is one of these; `key` is what messages call it:

    * a folder, with all below it; links are followed, hidden files left out. Id: the path below the folder without its
      suffix.
    * a photo. Id: its name without suffix.
    * a list, LIST.txt: a path a line, relative ones to the list's folder; blank lines and lines that start with # are
      skipped. Id: the path as written, without suffix and leading slash.
    * a table, LIST.csv: a header that holds `id` and `file`, further columns are ignored; `file` is a path as above,
      or SHARD.tar::member. The FILE.failures.csv of an extraction is one.
    * a tar file, WebDataset's shards among them; never unpacked. Photos alone count, by their suffix. Id: the member's
      path without suffix.
    * a pattern of any of these: `shards/{000..127}.tar`, `{a,b}/photos`, `shards/*.tar`. What exists under the very
      name comes first.

    Raises InputError where a source cannot be listed, an id is unusable, two photos share one, or there is no photo.
    A file that a list names is not looked for here; where it is missing, reading it fails.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    photos = itertools.chain.from_iterable(_source(one, key) for text in given for one in _expanded(str(text), key))
    listing = _packed(photos)
    if not len(listing):
        what = f"expected files ending in {', '.join(sorted(SUFFIXES))}" if given else f"expected {KINDS}"
        raise InputError(f"{key}={', '.join(map(str, given))}: holds no image; {what}")
    return listing


# --- what a source holds ---------------------------------------------------------------------------------------------


def _expanded(text: str, key: str) -> Iterator[str]:
    """The paths that a source stands for."""
    if os.path.lexists(text):
        yield text
        return
    for name in _braces_expanded(text, key):
        if os.path.lexists(name) or not glob.has_magic(name):
            yield name
            continue
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 -- Path.glob takes no absolute pattern
        if not found:
            raise InputError(f"{key}={name}: matches no file; expected {KINDS}")
        yield from found


def _braces_expanded(text: str, key: str) -> list[str]:
    names, end = [""], 0
    for braces in _BRACES.finditer(text):
        choices = _choices(braces[1])
        if len(names) * len(choices) > MAX_NAMES:
            raise InputError(f"{key}={text}: stands for more than {MAX_NAMES:,} files; expected fewer")
        names = [f"{name}{text[end : braces.start()]}{choice}" for name in names for choice in choices]
        end = braces.end()
    return [name + text[end:] for name in names]


def _choices(inside: str) -> list[str]:
    """`000..127` stands for numbers, as wide as the first is written; `a,b` for each of its parts."""
    numbers = _NUMBERS.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = map(int, numbers.groups())
    return [f"{number:0{len(numbers[1])}}" for number in range(first, min(last, first + MAX_NAMES) + 1)]


def _source(text: str, key: str) -> Iterator[_Photo]:
    """The photos of one folder, file, list or tar, in any order."""
    path, mode = Path(text), _mode(text, key)
    if stat.S_ISDIR(mode):
        return _of_folder(path, key)
    if not stat.S_ISREG(mode):
        raise InputError(f"{key}={text}: is neither a folder nor a file; expected {KINDS}")
    if text.lower().endswith(_PACKED):
        raise InputError(
            f"{key}={text}: is compressed, so its photos cannot be reached one by one; unpack it to a .tar"
        )
    readers = {".txt": _of_list, ".csv": _of_table, ".tar": _of_tar}
    if path.suffix.lower() in readers:
        return readers[path.suffix.lower()](path)
    if has_image_suffix(text):
        return iter([_photo_of(path.name, _folder(path.parent), told=text)])
    raise InputError(f"{key}={text}: is of no known kind; expected {KINDS}")


def _mode(text: str, key: str) -> int:
    """Of the file or folder that a source is, followed through links."""
    try:
        return os.stat(text).st_mode  # noqa: PTH116 -- Path takes an empty text for the working directory
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(f"{key}={text}: no such folder or file; expected {KINDS}") from error
    except OSError as error:
        raise InputError(f"{key}={text}: cannot be read ({error.strerror}); expected {KINDS}") from error


def _folder(path: Path) -> _Place:
    return _Place(os.path.abspath(path), str(path))  # noqa: PTH100 -- Path.absolute keeps ".."


def _photo_of(file: str, place: _Place, *, told: str) -> _Photo:
    """A photo whose id is its file name, as far as that is usable; `told` is where it was found, for the message."""
    clean = file
    while clean.startswith("./"):
        clean = clean[2:].lstrip("/")
    photo_id = clean.lstrip("/").rpartition(".")[0]
    if problem := id_problem(photo_id):
        raise InputError(f"{told if told.isprintable() else repr(told)}: id {photo_id!r} {problem}")
    return _Photo(photo_id, _tail(photo_id, file), place)


def _tail(photo_id: str, file: str) -> str:
    return file[len(photo_id) :] if file.startswith(photo_id) else f"\0{file}"


def _of_folder(path: Path, key: str) -> Iterator[_Photo]:
    place = _folder(path)
    for name in image_files(path, key=key):
        photo_id, dot, suffix = name.rpartition(".")
        if problem := id_problem(photo_id):
            raise InputError(f"{str(Path(path, name))!r}: id {photo_id!r} {problem}")
        yield _Photo(photo_id, dot + suffix, place)


def _of_list(path: Path) -> Iterator[_Photo]:
    here, root = _folder(path.parent), _Place("/", "/")
    for row, line in _lines(path):
        file = line.rstrip("\r\n")
        if not file.strip() or file.startswith("#"):
            continue
        if not has_image_suffix(file):
            what = f"expected a photo, a file ending in {', '.join(sorted(SUFFIXES))}"
            raise InputError(f"{path}: row {row}: {file!r}; {what}")
        place = root if file.startswith("/") else here
        yield _photo_of(file.lstrip("/"), place, told=f"{path}: row {row}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, line ends kept."""
    row = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for row, line in enumerate(file, 1):
                yield row, line
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text after row {row}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _of_table(path: Path) -> Iterator[_Photo]:
    here, root, tars = _folder(path.parent), _Place("/", "/"), _Tars()
    for row, photo_id, file in _table_rows(path):
        if problem := id_problem(photo_id):
            raise InputError(f"{path}: row {row}: id {photo_id!r} {problem}")
        tar, _, member = file.partition(f".tar{MEMBER}")
        if member:
            yield tars.photo(photo_id, Path(here.shown, f"{tar}.tar"), member, told=f"{path}: row {row}")
        elif not file.strip("/") or "\0" in file:
            raise InputError(f"{path}: row {row}: id {photo_id!r} has the file {file!r}; expected a path")
        else:
            yield _Photo(photo_id, _tail(photo_id, file.lstrip("/")), root if file.startswith("/") else here)


def _table_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(row, id, file) of a table; the header is row 1."""
    rows = csv.reader((line for _, line in _lines(path)), strict=True)
    row = 1
    try:
        header = next(rows, [])
        if "id" not in header or "file" not in header:
            raise InputError(f"{path}: row 1 is {','.join(header)!r}; expected a header with the columns id and file")
        at_id, at_file = header.index("id"), header.index("file")
        for row, fields in enumerate(rows, 2):
            if fields and len(fields) != len(header):
                raise InputError(f"{path}: row {row}: {len(fields)} fields; expected {len(header)} as in the header")
            if fields:
                yield row, fields[at_id], fields[at_file]
    except csv.Error as error:
        raise InputError(f"{path}: after row {row}: {error}; expected a CSV file") from error


class _Tars:
    """The members of the tar files that a table names, each indexed once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Place, dict[str, tuple[int, int]]]] = {}

    def photo(self, photo_id: str, path: Path, member: str, *, told: str) -> _Photo:
        if path not in self._known:
            self._known[path] = _tar_place(path), {name: (at, size) for name, at, size in _members(path)}
        place, members = self._known[path]
        if member not in members:
            raise InputError(f"{told}: id {photo_id!r}: {path} has no member {member!r}; expected one that it holds")
        return _Photo(photo_id, _tail(photo_id, member), place, *members[member])


def _of_tar(path: Path) -> Iterator[_Photo]:
    place = _tar_place(path)
    for name, offset, size in _members(path):
        if has_image_suffix(name) and not _is_hidden(name):
            photo = _photo_of(name, place, told=place.shown_file(name))
            yield photo._replace(offset=offset, size=size)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))


def _tar_place(path: Path) -> _Place:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return _folder(path)._replace(stamp=(state.st_size, state.st_mtime_ns))


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of the regular files in a tar, read from its headers alone.

    Where the last member is cut short, it is told as its header says; any other damage is an InputError.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            before, end = -1, path.stat().st_size
            # where the data of the last member is cut short, there is no next header to look for
            while tar.offset <= end and (member := tar.next()) is not None:
                if member.size < 0 or member.offset <= before:
                    raise InputError(f"{path}: is damaged at byte {member.offset:,}; fetch it again")
                before = member.offset
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps a kilobyte of each
                if member.issparse():
                    raise InputError(
                        f"{path}{MEMBER}{member.name}: is stored as a sparse file; repack without --sparse"
                    )
                if member.isreg():
                    yield member.name, member.offset_data, member.size
            _check_end(path, tar.offset)
    except tarfile.TarError as error:
        raise InputError(f"{path}: is no tar file, or a damaged one ({error}); fetch or pack it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _check_end(path: Path, offset: int) -> None:
    """InputError unless the members end where the tar does: tarfile takes a damaged header for the end, and does not
    look for what `cat` put behind it."""
    with path.open("rb") as file:
        file.seek(offset)
        if not file.read(_TAR_BLOCK).strip(b"\0"):
            if not file.read(_BLOCK).strip(b"\0"):
                return
            raise InputError(
                f"{path}: goes on after its end at byte {offset:,}, as joined tar files do; give each alone"
            )
    raise InputError(f"{path}: is damaged at byte {offset:,}; fetch or pack it again")


# --- reading members -------------------------------------------------------------------------------------------------


class _OpenTar:
    """A tar file that can be read at any place by many threads and forked processes: none of them moves a position."""

    def __init__(self, place: _Place) -> None:
        self._file = os.open(place.path, os.O_RDONLY)
        self.size = os.fstat(self._file).st_size

    def read(self, offset: int, size: int) -> bytes:
        pieces, left = [], size
        while left and (piece := os.pread(self._file, left, offset + size - left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


_open_tar = functools.lru_cache(maxsize=OPEN_TARS)(_OpenTar)  # one in use outlives its place in the cache


def _read_member(place: _Place, offset: int, size: int, *, name: str) -> bytes:
    if size > MAX_BYTES:
        raise InputError(f"{name}: {size:,} bytes; expected at most {MAX_BYTES:,}")
    try:
        tar = _open_tar(place)
        if tar.size != place.stamp[0]:
            raise InputError(f"{name}: the tar file has changed since it was listed; start again")
        data = tar.read(offset, size)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({type(error).__name__}: {error.strerror})") from error
    if len(data) < size:
        raise InputError(f"{name}: the tar file ends after {len(data):,} of its {size:,} bytes; fetch it again")
    return data


# --- packing ---------------------------------------------------------------------------------------------------------


def _packed(photos: Iterable[_Photo]) -> Listing:
    """The photos in the order of their ids; InputError where two share one."""
    text, ends, id_lengths = bytearray(), array("q", [0]), array("I")
    places: dict[_Place, int] = {}
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
    """These pieces of the text one after another."""
    pieces = np.empty(int((ends - starts).sum()), np.uint8)
    view, done = memoryview(text.data), 0
    for block in range(0, len(starts), _BLOCK):
        here = slice(block, block + _BLOCK)
        spans = zip(starts[here].tolist(), ends[here].tolist(), strict=True)
        joined = b"".join([view[start:end] for start, end in spans])
        pieces[done : done + len(joined)] = np.frombuffer(joined, np.uint8)
        done += len(joined)
    return pieces


def _order(text: npt.NDArray[np.uint8], starts: IntArray, lengths: IntArray) -> tuple[IntArray, tuple[int, int] | None]:
    """The N pieces of the text that begin at `starts`, sorted by their bytes, which hold no NUL: row numbers [N]; and
    two rows that are equal, or None. UTF-8 sorts as its code points do.

    Eight bytes of all are compared at a time; then only rows that still tie go on, each among those it ties with.
    """
    padded = np.append(text, np.zeros(8, np.uint8))
    words: npt.NDArray[np.uint64] = np.ndarray((len(text) + 1,), ">u8", padded, strides=(1,))
    order = np.arange(len(starts))
    at = order.copy()  # the positions in `order` that are not settled
    group = np.zeros(len(starts), np.int64)  # for each of those, the position where the rows begin that it ties with
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


_KEEP = np.array([((1 << 8 * kept) - 1) << 8 * (8 - kept) for kept in range(9)], np.uint64)  # the first bytes of a word
