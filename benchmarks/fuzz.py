"""A fuzzer of every reader: sound files are changed at random, and each reader has to read them or say no in one line.

    python -m benchmarks.fuzz --minutes 5          # make fuzz
    python -m benchmarks.fuzz --only tar --seed 7  # from case 7 on

A case is made from its class and its number alone, so that a failure can be run again. Each runs in a process of its
own, which may take SECONDS of a CPU and MEMORY. It fails if the reader raises anything but an InputError of one line
that names the file, takes longer or more, or crashes. Failures end the program with status 1, and are printed.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import save
from benchmarks.fuzz_kinds import KINDS
from isc.data.limited import StoppedError, limited
from isc.errors import InputError

SECONDS, MEMORY = 10.0, 1 << 30  # of a CPU, and bytes beyond this process, for one case
LEAST = 25  # changed files of each class in a timed run, however slow
READ, REFUSED = "read", "refused"


@functools.cache
def sound(name: str) -> tuple[bytes, ...]:
    """Return the sound files of a class."""
    return tuple(KINDS[name].sound())


@functools.cache
def odd(name: str) -> tuple[bytes, ...]:
    """Return the files of a class that are damaged or hostile by construction."""
    return tuple(KINDS[name].odd())


def case(name: str, number: int) -> bytes:
    """Return the input of this class and number; the first ones are the sound and the odd files themselves."""
    files = sound(name) + odd(name)
    if number < len(files):
        return files[number]
    chance = random.Random(f"{name} {number}")
    return KINDS[name].change(chance.choice(files), chance)


def outcome(name: str, data: bytes) -> str:
    """Return READ, REFUSED, or in words what went wrong when the reader of a class got this input."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"case{KINDS[name].suffix}")
        path.write_bytes(data)
        try:
            return limited(lambda: _said(name, path), seconds=SECONDS, memory=MEMORY)
        except StoppedError as error:
            return str(error)


def _said(name: str, path: Path) -> str:
    """Read the file, and return what came of it; in the folder of the file, so that nothing else is changed."""
    os.chdir(path.parent)
    try:
        KINDS[name].read(path)
    except InputError as error:
        message = str(error)
        return REFUSED if "\n" not in message and str(path) in message else f"a message of another form: {message!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return READ


def run(names: Sequence[str], *, minutes: float, first: int = 0) -> tuple[list[dict[str, object]], list[str]]:
    """Run cases of these classes for some minutes; return a row for each class, and the failures.

    Of each class at least LEAST files are changed ones.
    """
    rows: list[dict[str, object]] = []
    failures: list[str] = []
    for name in names:
        case(name, first)
        counts: Counter[str] = Counter()
        end, number = time.monotonic() + 60 * minutes / len(names), first
        least = max(first, len(sound(name) + odd(name))) + LEAST
        while time.monotonic() < end or number < least:
            found = outcome(name, case(name, number))
            if found not in (READ, REFUSED):
                failures.append(f"{name} {number}: {found}")
                print(failures[-1], flush=True)
            counts[found if found in (READ, REFUSED) else "failed"] += 1
            number += 1
        sums = {what: counts[what] for what in (READ, REFUSED, "failed")}
        rows.append({"input": name, "cases": sum(counts.values()), **sums})
    return rows, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of all classes together")
    parser.add_argument("--only", choices=KINDS, help="one class")
    parser.add_argument("--seed", type=int, default=0, help="the number of the first case")
    given = parser.parse_args()
    logging.disable()
    rows, failures = run([given.only] if given.only else list(KINDS), minutes=given.minutes, first=given.seed)
    if given.only is None and given.seed == 0:
        save("fuzz", rows)
    else:
        print(rows)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
