"""Atomic writing: files that are either complete or absent."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from isc.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, on any failure it is removed.

    Raises InputError if the file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{_token()}.part")
    try:  # the name is chosen before, so that the file is removed after Ctrl-C at any moment
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch(exist_ok=False)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            beside.unlink()


@contextmanager
def atomic_folder(path: Path, *, owned: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder; on success its files move into `path` and replace those of the same name.

    On a failure before that, `path` stays as it is. The files named `owned` that were not written are removed from
    `path`, so that no file of an earlier run remains. Raises InputError if `path` is a file or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"output={path}: is a file; expected a folder")
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    beside = parent / f".isc-{_token()}.part"
    try:
        beside.mkdir()
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
    """Delay Ctrl-C until the end of the block.

    A signal mask does not help: another thread takes the signal, and Python still raises KeyboardInterrupt in the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # KeyboardInterrupt is raised in the main thread only
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _token() -> str:
    return secrets.token_hex(4)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
