"""Photos from folders, list files, tables and tar shards, as one listing."""

from __future__ import annotations

import csv
import glob
import itertools
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from os.path import normpath
from pathlib import Path

from isc.data.ids import id_problem
from isc.errors import InputError
from isc.photos.folders import SUFFIXES, has_image_suffix, image_ids
from isc.photos.listing import Listing, packed
from isc.photos.place import MEMBER, ListedPhoto, Place
from isc.photos.tar import tar_stamp
from isc.photos.tar_headers import Member, members

log = logging.getLogger(__name__)

KINDS = "a folder, a photo, a list (.txt, .csv), a .tar, or a pattern of such (shards/{000..127}.tar, shards/*.tar)"
MAX_NAMES = 1_000_000  # names that one pattern with braces may expand to
_PACKED = (".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst")
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def list_photos(sources: Sequence[str | Path] | str | Path, *, key: str = "images") -> Listing:
    """List the photos of all sources together, sorted by id.

    `key` is the name of the sources in messages. A source is one of the following:

    * a folder with everything below it; links are followed, hidden files are left out. Id: the path below the folder
      without its suffix.
    * a photo. Id: its name without suffix.
    * a list, LIST.txt: one path per line, absolute or relative to the list's folder; blank lines and lines that start
      with # are skipped. Id: the path as written, without suffix and leading slash.
    * a table, LIST.csv: its header has `id` and `file`, further columns are ignored; `file` is a path as above, or
      SHARD.tar::member. The FILE.failures.csv of an extraction is such a table.
    * a tar file, e.g. a shard of WebDataset; it is never unpacked. Only members with the suffix of a photo count. Id:
      the member's path without suffix.
    * a pattern: `shards/{000..127}.tar`, `{a,b}/photos`, `shards/*.tar`. An existing path of exactly this name has
      priority.

    Raises InputError if a source cannot be listed, an id is unusable, two photos have the same id, or there is no
    photo. The files of a list are not checked here; reading a missing file fails.
    """
    given = _separate(sources)
    photos = itertools.chain.from_iterable(_source(one, key) for text in given for one in _expanded(str(text), key))
    listing = packed(photos)
    if not len(listing):
        what = f"expected files ending in {', '.join(sorted(SUFFIXES))}" if given else f"expected {KINDS}"
        raise InputError(f"{key}={shown_sources(sources)}: holds no image; {what}")
    return listing


def shown_sources(sources: Sequence[str | Path] | str | Path) -> str:
    """Return the sources as messages show them, joined by commas."""
    return ", ".join(map(str, _separate(sources)))


def _separate(sources: Sequence[str | Path] | str | Path) -> list[str | Path]:
    return [sources] if isinstance(sources, str | Path) else list(sources)


def _expanded(text: str, key: str) -> Iterator[str]:
    """Yield the paths that a source expands to. Raises InputError if a pattern matches no file."""
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
    """Expand `000..127` as bash does, and `a,b` to its parts.

    A range counts up or down. If one of its ends begins with 0, all numbers get the digits of the longer end.
    """
    ends = _NUMBERS.fullmatch(inside)
    if ends is None:
        return inside.split(",")
    first, last = map(int, ends.groups())
    step = 1 if first <= last else -1
    digits = max(map(len, ends.groups())) if any(len(end) > 1 and end[0] == "0" for end in ends.groups()) else 1
    return [f"{number:0{digits}}" for number in range(first, last + step, step)[: MAX_NAMES + 1]]


def _source(text: str, key: str) -> Iterator[ListedPhoto]:
    """List the photos of one folder, file, list or tar, in any order. Raises InputError for anything else."""
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
    """Return the mode of a source's file or folder, after links. Raises InputError if it cannot be read."""
    try:
        return os.stat(text).st_mode  # noqa: PTH116 -- Path takes an empty text for the working directory
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise InputError(f"{key}={text}: no such folder or file; expected {KINDS}") from error
    except OSError as error:
        raise InputError(f"{key}={text}: cannot be read ({error.strerror}); expected {KINDS}") from error


def _folder(path: Path) -> Place:
    return Place(os.path.abspath(path), str(path))  # noqa: PTH100 -- Path.absolute keeps ".."


def _photo_of(file: str, place: Place, *, told: str) -> ListedPhoto:
    """Return the photo with the id of its file name; `told` is its origin, for the message.

    Raises InputError if the id is not usable.
    """
    clean = file
    while clean.startswith("./"):
        clean = clean[2:].lstrip("/")
    photo_id = clean.lstrip("/").rpartition(".")[0]
    if problem := id_problem(photo_id):
        raise InputError(f"{told if told.isprintable() else repr(told)}: id {photo_id!r} {problem}")
    return ListedPhoto(photo_id, _tail(photo_id, file), place)


def _tail(photo_id: str, file: str) -> str:
    return file[len(photo_id) :] if file.startswith(photo_id) else f"\0{file}"


def _of_folder(path: Path, key: str) -> Iterator[ListedPhoto]:
    place = _folder(path)
    for photo_id, name in image_ids(path, key=key):
        yield ListedPhoto(photo_id, name[len(photo_id) :], place)


def _of_list(path: Path) -> Iterator[ListedPhoto]:
    here, root = _folder(path.parent), Place("/", "/")
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
    """Yield the lines of a text file with their numbers from 1; the line ends are kept."""
    row = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for row, line in enumerate(file, 1):
                yield row, line
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text after row {row}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _of_table(path: Path) -> Iterator[ListedPhoto]:
    here, root, tars = _folder(path.parent), Place("/", "/"), _Tars()
    for row, photo_id, file in _table_rows(path):
        if problem := id_problem(photo_id):
            raise InputError(f"{path}: row {row}: id {photo_id!r} {problem}")
        tar, _, member = file.partition(f".tar{MEMBER}")
        if member:
            yield tars.photo(photo_id, Path(here.shown, f"{tar}.tar"), member, told=f"{path}: row {row}")
        elif not file.strip("/") or "\0" in file:
            raise InputError(f"{path}: row {row}: id {photo_id!r} has the file {file!r}; expected a path")
        else:
            yield ListedPhoto(photo_id, _tail(photo_id, file.lstrip("/")), root if file.startswith("/") else here)


def _table_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (row, id, file) of a table; the header is row 1. Raises InputError with the row of an error."""
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
    """The members of the tar files that a table names; each tar is indexed once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Place, dict[str, Member]]] = {}

    def photo(self, photo_id: str, path: Path, member: str, *, told: str) -> ListedPhoto:
        if path not in self._known:
            found = {one.name: one for one in _with_links(path, lambda _: True)}
            self._known[path] = _tar_place(path), found
        place, known = self._known[path]
        if member not in known:
            raise InputError(f"{told}: id {photo_id!r}: {path} has no member {member!r}; expected one that it holds")
        _, offset, size, _ = known[member]
        return ListedPhoto(photo_id, _tail(photo_id, member), place, offset, size)


def _of_tar(path: Path) -> Iterator[ListedPhoto]:
    place = _tar_place(path)
    for name, offset, size, _ in _with_links(path, lambda name: has_image_suffix(name) and not _is_hidden(name)):
        photo = _photo_of(name, place, told=place.shown_file(name))
        yield photo._replace(offset=offset, size=size)


def _with_links(path: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the members of the wanted names; a link to a member has the data of that member.

    A link to anything else is logged and left out. The headers are read once more if there are links.
    """
    links = []
    for member in members(path):
        if wanted(member.name):
            if member.target is None:
                yield member
            else:
                links.append(member)
    names = {normpath(link.target) for link in links if link.target}
    found = {normpath(one.name): one for one in members(path) if normpath(one.name) in names} if links else {}
    for link in links:
        held = found.get(normpath(link.target)) if link.target else None
        if held is None or held.target is not None:
            log.warning("left out: %s%s%s: a link to %r, which the tar does not hold", path, MEMBER, *link[::3])
        else:
            yield held._replace(name=link.name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))


def _tar_place(path: Path) -> Place:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return _folder(path)._replace(stamp=tar_stamp(state))
