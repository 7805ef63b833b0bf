"""The work folder of a benchmark, beside its output folder; finished work in it survives a killed process.

lock               held by the writing process
made_with.json     the configuration of the benchmark, later part of its benchmark.json
photos.csv         the size of every photo, or the reason why it is unusable   (isc.benchmark.screening)
photos.h5          descriptors of the usable photos                            (isc.benchmark.near_duplicates)
near_duplicates.csv
journal.jsonl      the line of edits.jsonl of every finished query, in the order of completion
benchmark/         the later output folder
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isc.data.files import write_json
from isc.data.json_files import parse_json, read_text
from isc.errors import InputError
from isc.runtime.locks import sole_writer

log = logging.getLogger(__name__)

RECORD, LOCK, MADE_WITH = "benchmark.json", "lock", "made_with.json"
OF_THE_PICTURES = ("benchmark", "journal.jsonl")  # files that depend on the whole configuration
PHOTOS = "photos_sha256"  # configuration key: the list of photos
OF_THE_PHOTOS = ("version", PHOTOS, "min_photo_side")  # configuration keys that all files depend on
REMAINS = ".*.????????.part"  # temporary files of a killed writer
MADE = "made"  # key of the results in benchmark.json


def part_of(output: Path) -> Path:
    return output.absolute().with_name(f".{output.absolute().name}.part")


def is_made(output: Path, made_with: Mapping[str, Any]) -> bool:
    """Return True if the output holds this benchmark, False if it is missing or empty.

    Raises InputError if it holds anything else, or a benchmark of another configuration.
    """
    record = output / RECORD
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        found = dict(parse_json(read_text(record)))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"output={output}: exists but is no benchmark (no {record.name}); remove it") from error
    found.pop(MADE, None)
    if different := _differences(found, made_with):
        raise InputError(f"output={output}: was made differently ({different}); remove it or name another")
    return True


@contextmanager
def workshop(output: Path, made_with: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the locked work folder, with the finished work of an earlier run; the folder stays on any failure.

    The work of a run with another configuration is removed, except for files that depend on the photos alone, if the
    photos are the same. Raises InputError if another process uses the folder or if it cannot be written.
    """
    part = part_of(output)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror or error})") from error
    try:
        with sole_writer(part / LOCK):
            _make_ready(part, made_with)
            yield part
    except OSError as error:
        raise InputError(f"output={output}: cannot be made ({error})") from error
    except KeyboardInterrupt:
        log.info("what is finished stays in %s; the same command goes on from there", part)
        raise


def finish(part: Path, output: Path) -> None:
    """Rename the finished benchmark to its output folder, and remove the work folder."""
    if output.exists():
        output.rmdir()  # an existing output is empty here
    (part / "benchmark").rename(output)
    shutil.rmtree(part, ignore_errors=True)


def remove_leftover(output: Path) -> None:
    """Remove the work folder of a run that was killed between the two steps of `finish`."""
    part = part_of(output)
    if part.exists() and not (part / "benchmark").exists():
        shutil.rmtree(part, ignore_errors=True)


def _make_ready(part: Path, made_with: Mapping[str, Any]) -> None:
    record = part / MADE_WITH
    found = _read(record)
    different = _differences(found, made_with) if found is not None else ""
    if different and (part / OF_THE_PICTURES[1]).exists():
        log.warning("%s was being made differently (%s); starting anew", part, different)
    if found is None or any(found.get(key) != made_with.get(key) for key in OF_THE_PHOTOS):
        _remove(part, [path.name for path in part.iterdir() if path.name != LOCK])
    elif different:
        _remove(part, OF_THE_PICTURES)
    for remains in part.rglob(REMAINS):
        remains.unlink()
    write_json(record, made_with)


def _read(record: Path) -> dict[str, Any] | None:
    try:
        found = parse_json(read_text(record))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _remove(part: Path, names: Iterator[str] | list[str] | tuple[str, ...]) -> None:
    for name in names:
        path = part / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    there, asked = _flat(found), _flat(wanted)
    return "; ".join(
        "the photos have changed" if key == PHOTOS else f"{key} {there.get(key)} there, {asked.get(key)} asked for"
        for key in sorted(there.keys() | asked.keys())
        if there.get(key) != asked.get(key)
    )


def _flat(record: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(record, Mapping):
        return {prefix.removesuffix("."): record}
    return {key: value for name, part in record.items() for key, value in _flat(part, f"{prefix}{name}.").items()}
