"""The circuit breaker of a provider, shared by all workers."""

from __future__ import annotations

import time

import sqlalchemy as sa

from isc.serve.database import Database, insert_ignoring, trying_again
from isc.serve.providers.base import Busy, Limits
from isc.serve.requests import back_off
from isc.serve.schema import circuit

PROBE = 10.0  # seconds beyond the limit of a call that a probe may take before another one is let through


class Circuit:
    """Open, it keeps requests waiting at no cost. After its time it is half open: one call is let through as a probe.

    A probe that succeeds closes the circuit, one that fails opens it for longer.
    """

    def __init__(self, database: Database, name: str, limits: Limits) -> None:
        self._database, self.name, self._limits = database, name, limits

    def is_open(self) -> bool:
        """Return whether the provider is left alone now."""
        return self._state()[1] > time.time()

    def admits(self) -> bool:
        """Return whether the provider may be asked now. While the circuit is half open, one caller may ask."""
        failures, until = self._state()
        now = time.time()
        if until > now or failures < self._limits.failures:
            return until <= now

        def write() -> bool:
            with self._database.writing() as connection:
                same = (circuit.c.name == self.name) & (circuit.c.open_until == until)
                probing = sa.update(circuit).where(same).values(open_until=now + self._limits.seconds + PROBE)
                return bool(connection.execute(probing).rowcount)

        return bool(trying_again(write))

    def _state(self) -> tuple[int, float]:
        """Return the failures in a row, and the time until which the circuit is open."""
        wanted = sa.select(circuit.c.failures, circuit.c.open_until).where(circuit.c.name == self.name)
        with self._database.reading() as connection:
            row = connection.execute(wanted).first()
        return (0, 0.0) if row is None else (int(row.failures), float(row.open_until))

    def failed(self, error: Exception) -> None:
        """Count a failure; after enough in a row the circuit opens, for longer each time."""

        def write() -> None:
            with self._database.writing() as connection:
                start = {"name": self.name, "failures": 0, "open_until": 0.0}
                insert_ignoring(connection, circuit, start)
                mine = circuit.c.name == self.name
                failures = int(connection.execute(sa.select(circuit.c.failures).where(mine)).scalar_one()) + 1
                over = failures - self._limits.failures
                until = time.time() + back_off(over + 2) if over >= 0 else 0.0
                if isinstance(error, Busy):
                    failures, until = failures - 1, time.time() + error.retry_after
                said = {"failures": failures, "open_until": until, "reason": str(error)[:500]}
                connection.execute(sa.update(circuit).where(mine).values(said))

        trying_again(write)

    def succeeded(self) -> None:
        """Close the circuit."""
        if self._state() == (0, 0.0):
            return

        def write() -> None:
            with self._database.writing() as connection:
                healed = {"failures": 0, "open_until": 0.0, "reason": None}
                connection.execute(sa.update(circuit).where(circuit.c.name == self.name).values(healed))

        trying_again(write)
