"""isc serve under load: p50 and p99 of the 202 and of the first result, by uploads a second, until it falls behind.

python -m benchmarks.serve [--images 10000] [--rates 1 2 4 8] [--seconds 60] [--hold 600] [--workers 1] [--database URL]

The load comes from locust (benchmarks/serve_load.py), in a process of its own on the same cores. The index is filled
with made descriptors of unit length and made PDQ hashes, which match nothing; the uploads are edited sample photos,
which do match one another. WARM of them come first, so that the candidates of an upload have files to compare. Each
rate is kept for --seconds, until one is too high: its backlog at the end is two seconds of uploads and more. With the
fewest workers the highest rate that is not is then held for --hold, or the next lower one. The knee is the last rate
that was kept up. Rows of other numbers of pictures and workers stay.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from benchmarks import save, saved
from isc.model.load_inference import load_inference_model
from isc.serve import schema
from isc.serve.database import Database
from isc.serve.providers.context import weights_of
from isc.serve.settings import read_settings
from isc.serve.supervisor import prepare

LOAD = Path(__file__).with_name("serve_load.py")
PORT = 8017
ADDRESS = f"http://127.0.0.1:{PORT}"
WARM = 500  # uploads before the measurement
GROUP = 5_000  # made images in one transaction


def fill(database: Database, count: int, *, weights: str, dim: int) -> None:
    """Put `count` pictures without files into the tables, with descriptors of random directions and random hashes."""
    rng = np.random.default_rng(1)
    for start in range(0, count, GROUP):
        numbers = range(start + 1, min(start + GROUP, count) + 1)
        vectors = rng.standard_normal((len(numbers), dim)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        now = time.time()
        facts = {"name": "made", "path": "/nonexistent/made.jpg", "bytes": 0, "state": "active", "first_seen": now}
        with database.writing() as connection:
            hashes = (rng.bytes(32).hex() for _ in numbers)
            images = [
                {**facts, "id": n, "sha256": f"{n:064x}", "pdq": pdq} for n, pdq in zip(numbers, hashes, strict=True)
            ]
            connection.execute(sa.insert(schema.image), images)
            rows = [
                {"image_id": n, "model": weights, "vector": vector.tobytes()}
                for n, vector in zip(numbers, vectors, strict=True)
            ]
            connection.execute(sa.insert(schema.descriptor), rows)


def wait_until_ready() -> None:
    """Wait until uploads are taken in. Raises SystemExit after two minutes."""
    import httpx

    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if httpx.get(f"{ADDRESS}/readyz", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service did not start")


def load(rate: float, seconds: int, folder: Path) -> dict[str, str]:
    """Upload at this rate, and return locust's row of figures."""
    users = max(1, round(rate))
    command = [sys.executable, "-m", "locust", "-f", str(LOAD), "--headless", "--host", ADDRESS, "-u", str(users),
               "-r", str(users), "-t", f"{seconds}s", "--csv", str(folder / "load"), "--only-summary"]  # fmt: skip
    environment = {**os.environ, "UPLOADS_A_SECOND": str(rate / users)}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    with (folder / "load_stats.csv").open(newline="") as file:
        return next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")


def answered(database: Database, since: float) -> tuple[list[float], int]:
    """Return the seconds from each upload since then to the result of copies, sorted, and the uploads without one."""
    copies = sa.select(schema.provider.c.id).where(schema.provider.c.name == "copy", schema.provider.c.current)
    mine = schema.request.c.provider_id.in_(copies) & (schema.request.c.created >= since)
    with database.reading() as connection:
        rows = connection.execute(sa.select(schema.request.c.created, schema.request.c.finished).where(mine)).all()
    return sorted(end - begun for begun, end in rows if end is not None), sum(end is None for _, end in rows)


def at(values: list[float], share: float) -> str:
    return f"{values[min(len(values) - 1, int(share * len(values)))]:.2f}" if values else "none"


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Fill a service, and return a row for each rate."""
    settings = read_settings(None, data=folder / "data", database=arguments.database)
    prepare(settings)
    database = Database(settings.database)
    network = load_inference_model(settings.model)
    fill(database, arguments.images, weights=weights_of(network), dim=network.dim)
    options = ["--data", str(settings.data), "--port", str(PORT), "--workers", str(arguments.workers)]
    command = [sys.executable, "-m", "isc.cli.main", "serve", *options]
    environment = {**os.environ, "ISC_SERVE_DATABASE": settings.database}
    with (folder / "serve.log").open("wb") as log:
        service = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
    rows: list[dict[str, object]] = []
    try:
        wait_until_ready()
        load(WARM / 50, 50, folder)
        drain(database, 600)
        for rate, seconds in plan(arguments, rows):
            since = time.time()
            figures = load(rate, seconds, folder)
            taken, waiting = answered(database, since)
            rows.append({
                "images": f"{arguments.images:,}", "workers": arguments.workers, "uploads a second": rate,
                "held, s": seconds,
                "sent": int(figures["Request Count"]), "refused": int(figures["Failure Count"]),
                "202: p50 ms": int(figures["50%"]), "202: p99 ms": int(figures["99%"]),
                "first result: p50 s": at(taken, 0.5), "p99 s": at(taken, 0.99), "waiting at the end": waiting,
                "keeps up": "yes" if waiting < 2 * rate + 2 else "no",
            })  # fmt: skip
            drain(database, 300)
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(60)
        database.close()
    return rows


def plan(arguments: argparse.Namespace, rows: Sequence[Mapping[str, object]]) -> Iterator[tuple[float, int]]:
    """Yield (uploads a second, seconds) until the last of `rows` is too high, then a rate that is held."""
    kept: list[float] = []
    for rate in arguments.rates:
        yield rate, arguments.seconds
        if rows[-1]["keeps up"] == "no":
            break
        kept.append(rate)
    for rate in reversed(kept if arguments.hold else []):
        yield rate, arguments.hold
        if rows[-1]["keeps up"] == "yes":
            break


def drain(database: Database, seconds: float) -> None:
    """Wait until no request is open."""
    end = time.monotonic() + seconds
    open_ = sa.select(sa.func.count()).where(schema.request.c.state.in_(("queued", "leased")))
    while time.monotonic() < end:
        with database.reading() as connection:
            if not connection.execute(open_).scalar_one():
                return
        time.sleep(0.5)


def knees(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return for each number of pictures and workers the highest rates that were kept up, and what more workers add."""
    knee: dict[tuple[str, int], dict[int, float]] = {}  # by seconds
    for row in rows:
        rates = knee.setdefault((str(row["images"]), int(str(row["workers"]))), {})
        held, rate = int(str(row["held, s"])), float(str(row["uploads a second"]))
        rates[held] = max(rates.get(held, 0.0), rate if row["keeps up"] == "yes" else 0.0)
    found = []
    for (images, workers), rates in knee.items():
        fewest = knee[images, min(w for i, w in knee if i == images)]
        short = min(rates)
        longer = sorted({held for one in knee.values() for held in one})[1:]
        found.append({
            "images": images, "workers": workers, f"kept up for {short} s: uploads a second": rates[short],
            "more than with the fewest workers": f"{rates[short] - fewest[min(fewest)]:+g}",
            **{f"for {held} s": rates.get(held, "not held") for held in longer},
        })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[10_000], help="none: only make the tables again")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--hold", type=int, default=600, help="seconds of the knee, with the fewest workers; 0: not held"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 2, 3, 4, 6, 8, 12])
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--database", help="an empty PostgreSQL or MariaDB; SQLite without it")
    arguments = parser.parse_args()
    measured = {(f"{images:,}", workers) for images in arguments.images for workers in arguments.workers}
    earlier = saved("serve")
    rows = [row for row in earlier if (row["images"], row["workers"]) not in measured]
    for images in arguments.images:
        for workers in arguments.workers:
            hold = arguments.hold if workers == min(arguments.workers) else 0
            one = argparse.Namespace(**{**vars(arguments), "images": images, "workers": workers, "hold": hold})
            with tempfile.TemporaryDirectory(prefix="isc-serve-") as folder:
                rows += measure(one, Path(folder))
            save("serve", rows)
    rows.sort(key=lambda row: (int(row["images"].replace(",", "")), row["workers"]))
    save("serve", rows)
    save("serve_knee", knees(rows))


if __name__ == "__main__":
    main()
