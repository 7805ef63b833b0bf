"""The photo files that a user names: files, and folders with everything below them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isc.errors import InputError
from isc.photos.folders import SUFFIXES, has_image_suffix, image_files


@dataclass(frozen=True)
class PhotoFiles:
    """Photos by id, the absolute path of the file; `shown` is each file's path as the user wrote it.

    `unusable` holds (path, reason) of each file that has no usable name.
    """

    files: Mapping[str, Path]
    unusable: tuple[tuple[str, str], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.files)

    def shown(self, photo: str) -> str:
        """Return the path of a photo as the user wrote it; another name, or that of an earlier call, stays as it is."""
        return str(self.files[photo]) if photo in self.files and photo[:1] == "/" else photo


def photo_files(sources: Sequence[str | os.PathLike[str]], *, what: str = "photos") -> PhotoFiles:
    """List the photos of files and folders, each file once, in the order of `sources` and, in a folder, by name.

    Hidden files are left out, and of folders all files that are no pictures. Raises InputError for a missing path, a
    file of another kind, or if there is no photo at all.
    """
    files: dict[str, Path] = {}
    unusable: list[tuple[str, str]] = []
    for source in map(Path, sources):
        for path in _of_source(source, what):
            name = absolute(path)
            try:
                name.encode()
            except UnicodeEncodeError:
                unusable.append((name.encode(errors="backslashreplace").decode(), "its name is not UTF-8 text"))
                continue
            files.setdefault(name, path)
    if not files and not unusable:
        places = ", ".join(map(str, sources)) or "nothing"
        raise InputError(f"{what} {places}: no photo there; expected files that end in {', '.join(sorted(SUFFIXES))}")
    return PhotoFiles(files, tuple(unusable))


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the absolute path without `.` and `..`; links are not followed."""
    return os.path.abspath(path)  # noqa: PTH100  Path.resolve follows links


def below(folder: str | os.PathLike[str]) -> str:
    """Return the beginning of the absolute paths of all files below the folder."""
    return absolute(folder).rstrip("/") + "/"


def _of_source(source: Path, what: str) -> Iterator[Path]:
    if source.is_dir():
        yield from (Path(source, name) for name in sorted(image_files(source, key=what)))
        return
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; expected {what}: a photo, or a folder of them")
    if not has_image_suffix(str(source.absolute())):
        raise InputError(f"{source}: of no known kind; expected a photo ({', '.join(sorted(SUFFIXES))}) or a folder")
    yield source


@dataclass(frozen=True)
class FileState:
    """The marks by which a changed file is known: its size in bytes, its time of change in ns, and its SHA-256."""

    size: int
    mtime_ns: int
    sha256: str

    def unchanged(self, path: Path) -> FileState | None:
        """Return the state of the file now if its content is the same, else None.

        The content is read only if the size is the same and the time is not.
        """
        try:
            now = path.stat()
            if (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns):
                return self
            if now.st_size == self.size and (state := file_state(path)).sha256 == self.sha256:
                return state
        except OSError:
            return None
        return None


def file_state(path: Path) -> FileState:
    """Read the state of a file. Raises OSError if it cannot be read."""
    before = path.stat()  # a change while the content is read is seen as a change the next time
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileState(before.st_size, before.st_mtime_ns, digest)
