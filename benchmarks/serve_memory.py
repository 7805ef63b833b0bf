"""Memory and time of the PDQ hashes that a worker of the review service holds.

python -m benchmarks.serve_memory [--hashes 10000000]

The hashes are drawn at random and stand in an SQLite database, from which a worker reads them as it does at its start.
Reading them all once (their sum) is the bound of a look-up.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from benchmarks import save, seconds
from isc.serve import schema
from isc.serve.database import Database
from isc.serve.pdq import MATCH
from isc.serve.providers.context import Context
from isc.serve.providers.hashes import PdqProvider
from isc.serve.settings import read_settings

GROUP = 50_000  # rows in one transaction
LOOK_UPS = 50


def resident() -> float:
    """Return the memory of this process in MB, pages that are in RAM now."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def rows(count: int) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of `count` pictures without files, in groups."""
    rng = np.random.default_rng(0)
    for start in range(1, count + 1, GROUP):
        numbers = range(start, min(start + GROUP, count + 1))
        drawn = rng.integers(0, 256, (len(numbers), 32), np.uint8)
        yield [
            {"id": n, "sha256": f"{n:064x}", "name": "made", "bytes": 0, "state": "active", "first_seen": 0.0,
             "pdq": one.tobytes().hex()}
            for n, one in zip(numbers, drawn, strict=True)
        ]  # fmt: skip


def measure(count: int) -> dict[str, object]:
    """Fill a database, let a worker read its hashes, and look some up. Raises SystemExit if one is not found."""
    with tempfile.TemporaryDirectory(prefix="isc-memory-") as folder:
        settings = read_settings(None, data=Path(folder))
        database = Database(settings.database)
        database.upgrade()
        for group in rows(count):
            with database.writing() as connection:
                connection.execute(sa.insert(schema.image), group)
        provider = PdqProvider(Context(database, settings))
        gc.collect()
        before, begun = resident(), time.perf_counter()
        provider._follow()
        taken, held = time.perf_counter() - begun, resident() - before
        again = seconds(provider._follow)
        with database.reading() as connection:
            chosen = np.random.default_rng(1).integers(1, count + 1, LOOK_UPS).tolist()
            wanted = sa.select(schema.image.c.id, schema.image.c.pdq).where(schema.image.c.id.in_(chosen))
            known = [(number, digits) for number, digits in connection.execute(wanted)]
        database.close()
    table, times = provider._table, []
    for number, digits in known:
        begun = time.perf_counter()
        found = table.near(digits, within=MATCH)
        times.append(time.perf_counter() - begun)
        if (0, number) not in found:
            raise SystemExit(f"the hash of picture {number} was not found")
    bound = seconds(lambda: [block.sum() for block in table._hashes])
    return {
        "PDQ hashes": f"{len(table):,}",
        "memory, MB": f"{held:,.0f}",
        "bytes a hash": f"{held * 2**20 / count:.0f}",
        "reading all, s": f"{taken:.1f}",
        "reading what is new, ms": f"{again * 1e3:.1f}",
        "look-up, ms": f"{np.median(times) * 1e3:.1f}",
        "reading the memory once, ms": f"{bound * 1e3:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, nargs="+", default=[10_000_000])
    save("serve_memory", [measure(count) for count in parser.parse_args().hashes])


if __name__ == "__main__":
    main()
