"""Database servers that the tests start themselves, and services in a folder of their own."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sqlalchemy as sa

from isc.serve import schema
from isc.serve.database import HEAD, Database
from isc.serve.files import PictureFiles
from isc.serve.intake import NewImage, take_in
from isc.serve.settings import Settings, read_settings
from isc.serve.worker import Worker

SAMPLE = Path(__file__).resolve().parents[1] / "isc" / "sample"
PHOTOS = sorted(SAMPLE.glob("*.jpg"))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _as(user: str, command: list[str]) -> list[str]:
    """Return the command as this user if we are root: both servers refuse to run as root."""
    return ["runuser", "-u", user, "--", *command] if os.geteuid() == 0 else command


def _owned(folder: Path, user: str) -> None:
    if os.geteuid() == 0:
        one = pwd.getpwnam(user)
        os.chown(folder, one.pw_uid, one.pw_gid)


@dataclass
class Server:
    """A database server of the tests: it can be killed, and started again on the same files."""

    kind: str
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def start(self) -> None:
        command = self.postgres() if self.kind == "postgresql" else self.mariadb()
        log = (self.folder.parent / f"{self.kind}.log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 60
        while True:
            try:
                with sa.create_engine(self.url_of(self.root)).connect() as connection:
                    connection.execute(sa.text("SELECT 1"))
                return
            except sa.exc.OperationalError as error:
                if self.process.poll() is not None:  # the children of a killed server still end
                    self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
                if time.monotonic() > end:
                    raise AssertionError(f"{self.kind} did not start: {error}") from error
                time.sleep(0.2)

    @property
    def root(self) -> str:
        return "postgres" if self.kind == "postgresql" else "mysql"

    def url_of(self, name: str) -> str:
        driver = "postgresql+psycopg://postgres" if self.kind == "postgresql" else "mariadb+pymysql://tester:secret"
        return f"{driver}@127.0.0.1:{self.port}/{name}"

    def new_database(self) -> str:
        """Create an empty database, and return its URL as a user would write it."""
        name = f"test{next(self.numbers)}"
        with sa.create_engine(self.url_of(self.root), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        user = "postgresql://postgres" if self.kind == "postgresql" else "mysql://tester:secret"
        return f"{user}@127.0.0.1:{self.port}/{name}"

    def kill(self) -> None:
        """Kill the server as a power cut would: all its processes at once."""
        if self.process is not None:
            listed = subprocess.run(["pgrep", "-f", str(self.folder)], capture_output=True, text=True, check=False)
            for line in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line), 9)
            self.process.wait()
            self.process = None

    def postgres(self) -> list[str]:
        folder = max(Path("/usr/lib/postgresql").glob("*/bin"))
        if not (self.folder / "PG_VERSION").exists():
            make = [str(folder / "initdb"), "-A", "trust", "-D", str(self.folder)]
            subprocess.run(_as("postgres", make), check=True, capture_output=True)
        # no fsync: the tests kill processes, not the machine
        options = f"-D {self.folder} -p {self.port} -h 127.0.0.1 -c fsync=off -c unix_socket_directories="
        return _as("postgres", [str(folder / "postgres"), *options.split()])

    def mariadb(self) -> list[str]:
        if not (self.folder / "mysql").exists():
            make = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal"]
            subprocess.run(_as("mysql", [*make, f"--datadir={self.folder}"]), check=True, capture_output=True)
            grant = self.folder / "grant.sql"
            made = "CREATE USER IF NOT EXISTS tester@localhost IDENTIFIED BY 'secret';"
            grant.write_text(f"{made}\nGRANT ALL ON *.* TO tester@localhost;\n")
            grant.chmod(0o644)
        options = ["--no-defaults", f"--datadir={self.folder}", f"--port={self.port}", f"--socket={self.folder}/s.sock",
                   "--bind-address=127.0.0.1", f"--pid-file={self.folder}/pid", f"--init-file={self.folder}/grant.sql",
                   "--innodb-flush-log-at-trx-commit=2"]  # fmt: skip
        return _as("mysql", [shutil.which("mariadbd") or "/usr/sbin/mariadbd", *options])


def server(kind: str) -> Iterator[Server]:
    """Start a server in a folder of its own, or skip where Debian's package is missing."""
    if kind == "postgresql" and not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    if kind == "mariadb" and shutil.which("mariadb-install-db") is None:
        pytest.skip("needs MariaDB: apt-get install mariadb-server")
    user = "postgres" if kind == "postgresql" else "mysql"
    with tempfile.TemporaryDirectory(prefix=f"isc-{kind}-", dir="/tmp") as above:
        Path(above).chmod(0o755)
        folder = Path(above) / "files"
        folder.mkdir()
        folder.chmod(0o700)
        _owned(folder, user)
        _owned(Path(above), user)
        one = Server(kind, folder, free_port())
        try:
            one.start()
            yield one
        finally:
            one.kill()


def make_tables(url: str) -> None:
    """Make the tables of the last revision at once, without the steps in between."""
    database = Database(url)
    with database.writing() as connection:
        schema.metadata.create_all(connection)
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(sa.text(f"INSERT INTO alembic_version VALUES ('{HEAD}')"))
    database.close()


def settings_in(folder: Path, url: str | None = None, **given: Any) -> Settings:
    """Return the settings of a service in this folder, ports chosen by the system."""
    made = read_settings(None, data=folder / "data", database=url)
    return replace(made, **{"port": 0, **given})


@dataclass
class Service:
    """A service without processes: its database, its files, and one worker that the test drives."""

    settings: Settings
    database: Database
    _worker: Worker | None = None

    @classmethod
    def made(cls, settings: Settings) -> Service:
        database = Database(settings.database)
        database.upgrade()
        return cls(settings, database)

    @property
    def worker(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(self.settings)
            self._worker.register_all()
        return self._worker

    @property
    def files(self) -> PictureFiles:
        return PictureFiles(self.settings.data / "pictures")

    def take(self, *pictures: Path | bytes, uploader: str | None = None) -> list[int]:
        """Take pictures in as an upload does, and return their ids."""
        _ = self.worker
        new = []
        for number, one in enumerate(pictures):
            data = one.read_bytes() if isinstance(one, Path) else one
            digest, size = self.files.keep(io.BytesIO(data), most=10**8)
            new.append(NewImage(digest, size, one.name if isinstance(one, Path) else f"{number}.jpg", None, uploader))
        return [number for number, _ in take_in(self.database, new)]

    def rows(self, statement: Any) -> list[Any]:
        with self.database.reading() as connection:
            return list(connection.execute(statement))

    def close(self) -> None:
        if self._worker is not None:
            self._worker.context.examiner.reader.close()
            self._worker.database.close()
        self.database.close()


def edited(photo: Path, *, crop: float = 0.15, mirror: bool = True, quality: int = 60) -> bytes:
    """Return a copy of a photo: cropped, mirrored, compressed."""
    pixels = cv2.imread(str(photo))
    height, width = pixels.shape[:2]
    part = pixels[int(crop * height) :, int(crop * width) :]
    part = part[:, ::-1] if mirror else part
    return cv2.imencode(".jpg", np.ascontiguousarray(part), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
