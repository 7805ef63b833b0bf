"""The steps of the run by name; each returns its rows, on any device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.gpu.checks import checks
from benchmarks.gpu.pair_steps import verify
from benchmarks.gpu.photo_steps import compiled, extract, jpeg
from benchmarks.gpu.rows import Row, Size
from benchmarks.gpu.search_steps import maxima, product, search
from benchmarks.gpu.train_steps import norms, train

Step = Callable[[str, Size, Path], list[Row]]

STEPS: dict[str, Step] = {
    "checks": checks, "product": product, "maxima": maxima, "search": search, "jpeg": jpeg, "extract": extract,
    "compile": compiled, "verify": verify, "train": train, "norms": norms,
}  # fmt: skip
