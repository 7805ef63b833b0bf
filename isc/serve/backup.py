"""Backups: all tables as lines of JSON, and the uploaded pictures, in one tar file that any database can read."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from isc import __version__
from isc.data.files import atomic_path
from isc.errors import InputError
from isc.serve.database import Database
from isc.serve.files import PictureFiles
from isc.serve.schema import metadata
from isc.serve.settings import Settings

FORMAT = "isc-serve-backup-1"
MANIFEST = "manifest.json"
LEFT_OUT = ("lease", "session")  # they mean nothing elsewhere
ROWS = 2_000  # rows written or read at once


def tables() -> list[sa.Table]:
    """Return the tables of a backup, those first that others name."""
    return [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]


def write_backup(database: Database, settings: Settings, path: Path) -> str:
    """Write a backup, whole or not at all, of one moment: what is uploaded meanwhile is left out.

    Pictures that stay in folders of their owner are named, not copied. Returns what was written, in words.
    """
    files = PictureFiles(settings.data / "pictures")
    counts: dict[str, int] = {}
    with atomic_path(path) as beside, tarfile.open(beside, "w") as tar, _one_moment(database) as connection:
        for table in tables():
            lines = [json.dumps(row) for row in _rows(connection, table)]
            counts[table.name] = len(lines)
            _add(tar, f"tables/{table.name}.jsonl", "".join(f"{line}\n" for line in lines).encode())
        kept = connection.scalars(
            sa.select(metadata.tables["image"].c.sha256).where(metadata.tables["image"].c.path.is_(None))
        )
        present = [digest for digest in kept if files.path(digest).is_file()]
        for digest in present:
            tar.add(files.path(digest), f"pictures/{digest}")
        manifest = {
            "format": FORMAT,
            "version": __version__,
            "made": time.time(),
            "rows": counts,
            "pictures": len(present),
        }
        _add(tar, MANIFEST, json.dumps(manifest, indent=2).encode())
    return f"{path}: {counts['image']:,} images, {len(present):,} of them with their files, {counts['vote']:,} votes"


def _one_moment(database: Database) -> Any:
    """Return a transaction in which every query sees the same state."""
    engine = database.engine
    if database.kind != "sqlite":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    return engine.execution_options(reading=True).begin()


def _rows(connection: sa.Connection, table: sa.Table) -> Iterator[dict[str, Any]]:
    for row in connection.execute(sa.select(table)).mappings():
        yield {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _value(value: Any) -> Any:
    is_bytes = isinstance(value, dict) and value.keys() == {"base64"}
    return base64.b64decode(value["base64"]) if is_bytes else value


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(data), int(time.time())
    tar.addfile(member, io.BytesIO(data))


def read_backup(database: Database, settings: Settings, path: Path) -> str:
    """Read a backup into an empty service; return what was read, in words.

    Requests that were leased are queued again. Raises InputError for another file, or a service that is not empty.
    """
    files = PictureFiles(settings.data / "pictures")
    settings.data.mkdir(parents=True, exist_ok=True)
    database.upgrade()
    with _opened(path) as tar:
        manifest = _manifest(tar, path)
        with database.writing() as connection:
            if connection.execute(sa.select(metadata.tables["image"].c.id).limit(1)).first() is not None:
                raise InputError(f"{settings.data}: the service holds pictures already; expected an empty one")
            for table in tables():
                _fill(connection, table, tar, path)
            request = metadata.tables["request"]
            leased = sa.update(request).where(request.c.state == "leased")
            connection.execute(leased.values(state="queued", lease=None, lease_until=None))
            for member in tar:
                if member.name.startswith("pictures/") and (content := tar.extractfile(member)) is not None:
                    files.keep(content, most=member.size)  # type: ignore[arg-type]
            _continue_ids(connection)
    rows = manifest["rows"]
    return f"{path}: {rows['image']:,} images, {manifest['pictures']:,} files, {rows['vote']:,} votes"


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{path}: is no backup ({error}); expected a file of isc serve backup") from error


def _manifest(tar: tarfile.TarFile, path: Path) -> dict[str, Any]:
    try:
        content = tar.extractfile(MANIFEST)
        manifest: dict[str, Any] = json.loads(content.read()) if content else {}
    except (KeyError, ValueError, tarfile.TarError) as error:
        raise InputError(
            f"{path}: holds no {MANIFEST}, or is cut short; expected a file of isc serve backup"
        ) from error
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path}: its format is {manifest.get('format')!r}; this version reads {FORMAT!r}")
    return manifest


def _fill(connection: sa.Connection, table: sa.Table, tar: tarfile.TarFile, path: Path) -> None:
    connection.execute(sa.delete(table))  # providers of this start
    content = tar.extractfile(f"tables/{table.name}.jsonl")
    if content is None:
        raise InputError(f"{path}: holds no table {table.name}; expected a whole backup")
    waiting: list[dict[str, Any]] = []
    for line in content:
        waiting.append({name: _value(value) for name, value in json.loads(line).items()})
        if len(waiting) == ROWS:
            connection.execute(sa.insert(table), waiting)
            waiting = []
    if waiting:
        connection.execute(sa.insert(table), waiting)


def _continue_ids(connection: sa.Connection) -> None:
    """Let PostgreSQL go on numbering after the rows that were read."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables():
        if "id" in table.c:
            top = sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0) + 1).scalar_subquery()
            sequence = sa.func.pg_get_serial_sequence(table.name, "id")
            connection.execute(sa.select(sa.func.setval(sequence, top, False)))
