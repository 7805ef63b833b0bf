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

from isc.data.swap import held_folder, remove_remains, replace_folder, staging_place
from isc.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path`, on any failure it is removed.

    Raises InputError if the file cannot be written, and for a device or pipe, which a file would replace.
    """
    beside = path.with_name(f".{path.name}.{_token()}.part")
    try:  # the name is chosen before, so that the file is removed after Ctrl-C at any moment
        _refuse_special(path)
        make_folder(path.parent)
        beside.touch(exist_ok=False)
        yield beside
        beside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, all of them or none. Raises OSError."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        for one in new:
            with suppress(OSError):
                one.rmdir()
        raise


def _refuse_special(path: Path) -> None:
    """Raise InputError for a path of a device, pipe or socket."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is a device, pipe or socket; expected a path of a file")


@contextmanager
def atomic_folder(path: Path, *, owned: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder; on success its files join `path` and replace those of the same name.

    On a failure, or if the process is killed at any moment, `path` is what it was or what it becomes, never a mixture:
    a folder with the files of both is prepared beside `path`, and changes places with it. The files named `owned` that
    were not written are left out, so that no file of an earlier run remains. Remains of killed processes are removed.
    Raises InputError if `path` is a file or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"output={path}: is a file; expected a folder")
    target = path.resolve()
    parent = staging_place(target)
    new = parent / f".{target.name[:100]}.{_token()}.part"
    try:
        remove_remains(parent, target.name[:100])
        new.mkdir()
        with held_folder(new):
            yield new
            with _uninterrupted():
                make_folder(target.parent)
                replace_folder(target, new, owned=owned)
                shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


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
