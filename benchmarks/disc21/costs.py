"""Estimated hours of the whole challenge on a machine like this one, from measured rates alone.

Times are assumed to grow in proportion to photos, pairs and queries. Only the last row was measured as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks import RESULTS
from isc.runtime.cpus import cores

TRAINING = REFERENCES = 1_000_000
QUERIES = 50_000
CANDIDATES = 50
FEATURE_BYTES = 84_000  # of a reference's local features in the store (docs/matching.md)
STAGES = ((0.80, 128), (0.20, 160))  # of experiment=disc21_train_small
Row = Mapping[str, Any]


def table() -> list[dict[str, object]]:
    from benchmarks.ship import _processor  # loads torch, whose memory would count for every child

    machine = f"{cores()} cores of {_processor()}"
    pairs = _pairs_a_second()
    rows = [_train(), *_extractions(), _search(pairs), *_normalise(pairs), *_matching(pairs), _measured()]
    return [
        {"step": step, "how much": amount, "rate": rate, "from": source, f"hours, {machine}": _hours(seconds)}
        for step, amount, rate, source, seconds in rows
    ]


Line = tuple[str, str, str, str, float | None]


def _train() -> Line:
    """Return the row of the training; the cost of a photo grows with its pixels."""
    loop = _rows("train_cpu")[0]["photos a second"]
    seconds = sum(share * TRAINING / (loop * (128 / side) ** 2) for share, side in STAGES)
    told = f"{loop:g} photos/s at 128 px"
    return "disc21_train_small", f"{TRAINING:,} photos", told, "train_cpu", seconds


def _extractions() -> list[Line]:
    """Return the rows for the extraction of both million photos and the 100,000 queries."""
    photos = TRAINING + REFERENCES + 2 * QUERIES
    return [
        (
            f"disc21_extract_*, {row['model']}, {row['input']}",
            f"{photos:,} photos of {row['photos']}",
            f"{row['photos a second']:g} photos/s",
            "disc21_rates",
            photos / row["photos a second"],
        )
        for row in _rows("disc21_rates")
    ]


def _search(pairs: float) -> Line:
    told = f"{QUERIES:,} × {REFERENCES:,}"
    return "the search of disc21_descriptor_*", told, _million(pairs), "search", QUERIES * REFERENCES / pairs


def _normalise(pairs: float) -> list[Line]:
    """Return the rows of normalisation; neighbours among training descriptors are searched like references."""
    queries, all_rows = QUERIES * TRAINING, (QUERIES + REFERENCES) * TRAINING
    smooth = TRAINING * TRAINING
    trials, part = 1_100, 25_000 * 100_000 * 2
    return [
        ("normalize=ssquare, score or stretch", f"{QUERIES:,} × {TRAINING:,}", _million(pairs), "search",
         queries / pairs),
        ("normalize=subtract", f"{(all_rows + smooth) / 1e12:.2f} × 10¹² pairs", _million(pairs), "search",
         (all_rows + smooth) / pairs),
        ("isc normalize search, all kinds of chain", f"{trials:,} trials of 25,000 × 100,000, twice",
         _million(pairs), "search", trials * part / pairs),
    ]  # fmt: skip


def _matching(pairs: float) -> list[Line]:
    """Return the rows of the matching track.

    Every reference is assumed to be a candidate of some query, which is the most expensive case.
    """
    two = _one("verify_cores", "a second, with 10 candidates", "2 processes")["times one process"]
    ms = {row["ms of one core a query"]: row["mean"] for row in _rows("verify") if row["mean"] != ""}
    read, features, mirrored = (
        ms[name] for name in ("reading and decoding the query", "its local features", "its mirrored descriptors")
    )
    each = sum(ms[name] for name in ms if name.endswith("× 10")) / 10
    query = read + features + mirrored + CANDIDATES * each
    rows = 2 * QUERIES * REFERENCES  # regions:1 gives a query two rows
    source = "verify, verify_cores"
    return [
        ("matching: two searches with two rows a query", f"{2 * rows / 1e9:,.0f} × 10⁹ pairs", _million(pairs),
         "search", 2 * rows / pairs),
        ("matching: local features of references", f"{REFERENCES:,} photos; "
         f"{REFERENCES * FEATURE_BYTES / 1e9:.0f} GB on disk", f"{read + features:.1f} ms a photo and core", source,
         REFERENCES * (read + features) / 1000 / two),
        (f"matching: comparing {CANDIDATES} candidates a query", f"{QUERIES:,} queries",
         f"{query:.0f} ms a query and core", source, QUERIES * query / 1000 / two),
    ]  # fmt: skip


def _measured() -> Line:
    """Return the only row measured as a whole at the full size, or a row that says how to measure it."""
    what = "measured as a whole: match.py, both files, figures and report"
    if not (RESULTS / "disc21.json").exists():
        return what, f"{QUERIES:,} × {REFERENCES:,}", "", "python -m benchmarks.disc21 --work DIR", None
    row = _rows("disc21")[0]
    seconds = float(row["measured"].removesuffix(" s").replace(",", ""))
    return what, f"{QUERIES:,} × {REFERENCES:,}", f"{seconds:,.0f} s, {row['peak memory']}", "disc21", seconds


def _pairs_a_second() -> float:
    """Return the pairs per second of the largest exact search measured."""
    row = _rows("search")[-4]
    count = [int(number.replace(",", "")) for number in row["what"].split(" of ")[1].split(",  ")[0].split(" × ")[:2]]
    return count[0] * count[1] / float(row["seconds"])


def _million(pairs: float) -> str:
    return f"{pairs / 1e6:.0f} million pairs/s"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "not measured yet"
    return f"{seconds / 3600:.2g}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"


def _rows(name: str) -> list[Row]:
    path = RESULTS / f"{name}.json"
    found: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def _one(name: str, key: str, value: str) -> Row:
    return next(row for row in _rows(name) if row[key] == value)
