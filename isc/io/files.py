"""Files that are whole or absent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isc.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on success it becomes `path`, on any failure it is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    beside = Path(name)
    try:
        yield beside
        beside.chmod(0o666 & ~_umask())  # mkstemp's files are private, ours are not
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, owned: Sequence[str] = ()) -> Iterator[Path]:
    """A folder beside the contents of `path` to write to; on success its files take their places in `path`, replacing
    those of the same name; on any failure none does. Of the `owned` names those that were not written are removed, so
    that no file of an earlier run stays beside those of this one."""
    if path.exists() and not path.is_dir():
        raise InputError(f"output={path}: is a file; expected a folder")
    try:
        parent = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
        beside = Path(tempfile.mkdtemp(dir=parent, prefix=".isc-", suffix=".part"))
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror or error})") from error
    try:
        yield beside
        with _uninterrupted():
            stale = [path / name for name in owned if not (beside / name).exists()]
            for source in sorted(beside.rglob("*")):
                target = path / source.relative_to(beside)
                if source.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.replace(target)
            for leftover in stale:
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back for the moment that files take their places."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
