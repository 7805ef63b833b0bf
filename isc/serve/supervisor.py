"""The process tree of `isc serve`: one web process, workers, and a keeper; whatever ends is started again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from isc.errors import InputError
from isc.serve.database import DATABASE_WAIT, Database, DatabaseAway
from isc.serve.parent import PARENT
from isc.serve.requests import current_providers
from isc.serve.settings import DATABASE, Settings
from isc.serve.worker import Worker

log = logging.getLogger(__name__)
AGAIN = (0.5, 30.0)  # seconds before a process that ended is started again: at first, at most
STEADY = 10.0  # seconds of running after which it counts as healthy
GRACE = 20.0  # seconds that the processes have to end


@dataclass
class Child:
    """A process of the tree: its arguments, and when it may be started again."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    wait: float = AGAIN[0]
    due: float = 0.0
    handles: tuple[int, ...] = field(default=())

    def start(self, environment: dict[str, str]) -> None:
        # named so that people see in a list of processes which is which; -P: not from the working directory
        command = [sys.executable, "-P", "-m", "isc.cli.main", "serve", *self.arguments]
        self.process = subprocess.Popen(command, env=environment, pass_fds=self.handles)
        self.started = time.monotonic()

    def look(self, environment: dict[str, str]) -> None:
        """Start the process again if it has ended, later each time."""
        if self.process is None or self.process.poll() is None:
            if self.process is None and time.monotonic() >= self.due:
                self.start(environment)
            return
        log.error(
            "%s ended with status %s; it is started again in %.1f s", self.name, self.process.returncode, self.wait
        )
        if time.monotonic() - self.started > STEADY:
            self.wait = AGAIN[0]
        self.due, self.wait = time.monotonic() + self.wait, min(AGAIN[1], self.wait * 2)
        self.process = None


def prepare(settings: Settings) -> list[list[str]]:
    """Make the tables and register the providers; return the names of the providers of each process.

    A database that is not there yet is waited for. Raises InputError if it stays away.
    """
    migrate(settings).close()
    worker = Worker(settings)
    names = worker.register_all()
    worker.database.close()
    return names


def prepare_import(settings: Settings) -> Database:
    """Return the database with its tables; the providers are registered only if a service never has.

    An import may have other settings than the service, which says what is in use. Raises InputError if the database
    stays away.
    """
    database = migrate(settings)
    with database.reading() as connection:
        known = current_providers(connection)
    if not known:
        prepare(settings)
    return database


def migrate(settings: Settings) -> Database:
    """Return the database with its tables; one that is not there yet is waited for. Raises InputError."""
    settings.data.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    end = time.monotonic() + DATABASE_WAIT
    while True:
        try:
            database.upgrade()
            return database
        except DatabaseAway as error:
            if time.monotonic() > end:
                raise InputError(f"the database cannot be reached ({error}); see docs/serve.md") from error
            log.error("the database is away (%s); waiting for it", error)
            time.sleep(1.0)


def listening(settings: Settings) -> socket.socket:
    """Return a socket that listens at the host and port. Raises InputError if it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((settings.host, settings.port))
    except OSError as error:
        one.close()
        raise InputError(f"port {settings.port} of {settings.host}: {error.strerror}; give another --port") from error
    one.listen(512)
    one.set_inheritable(True)
    return one


def run_all(settings: Settings, options: Sequence[str]) -> None:
    """Run the service until SIGTERM or SIGINT, and let all processes end what they do. `options` go to each of them.

    The socket belongs to this process: while the web process is started again, callers wait instead of being refused.
    The web process imports what it needs while the tables are made; it answers once the end of a pipe is closed.
    """
    door = listening(settings)
    after, prepared = os.pipe()
    environment = {**os.environ, DATABASE: settings.database, PARENT: str(os.getpid())}
    handles = (door.fileno(), after)
    children = [Child("web", ["web", *options, "--handle", str(handles[0]), "--after", str(after)], handles=handles)]
    children[0].start(environment)
    try:
        groups = prepare(settings)
        os.close(prepared)
        stopping: list[int] = []
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda number, _: stopping.append(number))
        for group in groups:
            count = settings.workers if "copy" in group else 1
            children += [Child(f"worker {' '.join(group)}", ["worker", *options, *group]) for _ in range(count)]
        children.append(Child("keeper", ["keeper", *options]))
        address = f"[{settings.host}]" if ":" in settings.host else settings.host
        log.info("http://%s:%d/", address, door.getsockname()[1])
        while not stopping:
            for child in children:
                child.look(environment)
            time.sleep(0.1)
    finally:
        _end(children)
        door.close()


def _end(children: Sequence[Child]) -> None:
    """Ask all processes to end, the web process first, and kill those that do not."""
    running = [child for child in children if child.process is not None]
    for child in running:
        assert child.process is not None
        child.process.terminate()
    end = time.monotonic() + GRACE
    for child in running:
        assert child.process is not None
        try:
            child.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("%s did not end within %g s; it is killed", child.name, GRACE)
            child.process.kill()
            child.process.wait()
