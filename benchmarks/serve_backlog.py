"""A month's backlog: requests that wait for a provider which answers at once, until all of them are answered.

python -m benchmarks.serve_backlog [--requests 20000] [--database URL]

The pictures have no files, and the provider says one number about each: what is measured is the queue itself, its
leases and its transactions. One worker works in this process; a second one in another process with --workers 2.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from benchmarks import save
from isc.serve import schema
from isc.serve.database import Database
from isc.serve.picture import Picture
from isc.serve.providers.base import Limits, Provider
from isc.serve.requests import IMPORTED
from isc.serve.results import Number
from isc.serve.settings import ProviderSettings, Settings, read_settings
from isc.serve.worker import Worker

GROUP = 5_000  # rows in one transaction


class Quick(Provider):
    """Says one number about a picture, without looking at it."""

    version = "quick-1"
    limits = Limits(batch=64)

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Sequence[Number]]:
        return [[Number("said", float(one.id))] for one in pictures]


def settings_of(folder: Path, database: str | None) -> Settings:
    made = read_settings(None, data=folder, database=database)
    return replace(made, providers={"quick": ProviderSettings("quick", "benchmarks.serve_backlog:Quick")})


def fill(database: Database, provider: int, count: int) -> None:
    """Write `count` pictures without files, each with a request that waits."""
    now = time.time()
    for start in range(1, count + 1, GROUP):
        numbers = range(start, min(start + GROUP, count + 1))
        images = [
            {"id": n, "sha256": f"{n:064x}", "name": "made", "path": "/nonexistent/made.jpg", "bytes": 0,
             "state": "active", "first_seen": now}
            for n in numbers
        ]  # fmt: skip
        asked = [
            {"image_id": n, "provider_id": provider, "state": "queued", "priority": IMPORTED, "attempts": 0,
             "run_after": now, "created": now}
            for n in numbers
        ]  # fmt: skip
        with database.writing() as connection:
            connection.execute(sa.insert(schema.image), images)
            connection.execute(sa.insert(schema.request), asked)


def measure(requests: int, workers: int, database: str | None) -> dict[str, object]:
    """Drain a backlog. Raises SystemExit if an answer is missing, or is there twice."""
    with tempfile.TemporaryDirectory(prefix="isc-backlog-") as folder:
        settings = settings_of(Path(folder), database)
        store = Database(settings.database)
        store.upgrade()
        worker = Worker(settings)
        worker.register_all()
        fill(store, worker.lanes()[0].number, requests)
        more = [[sys.executable, "-m", "benchmarks.serve_backlog", "--work", folder, *(["--database", database] if
                 database else [])]] * (workers - 1)  # fmt: skip
        begun = time.perf_counter()
        others = [subprocess.Popen(command) for command in more]
        worker.drain()
        for one in others:
            one.wait()
        taken = time.perf_counter() - begun
        with store.reading() as connection:
            done = connection.scalar(sa.select(sa.func.count()).where(schema.request.c.state == "done"))
            answers = connection.scalars(sa.select(schema.number.c.image_id)).all()
        worker.database.close()
        store.close()
    if done != requests or sorted(answers) != list(range(1, requests + 1)):
        raise SystemExit(f"{done} of {requests} requests are answered, with {len(answers)} results")
    kind = "SQLite" if database is None else sa.make_url(database).get_backend_name()
    return {"database": kind, "workers": workers, "requests": f"{requests:,}", "seconds": f"{taken:.1f}",
            "requests a second": f"{requests / taken:.0f}"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--database", help="an empty PostgreSQL or MariaDB, measured besides SQLite")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        Worker(settings_of(arguments.work, arguments.database)).drain()
        return
    rows = [measure(arguments.requests, workers, None) for workers in arguments.workers]
    if arguments.database:
        rows.append(measure(arguments.requests, 1, arguments.database))
    save("serve_backlog", rows)


if __name__ == "__main__":
    main()
