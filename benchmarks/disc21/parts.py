"""Parts of the DISC21 measurement that run in their own processes, besides match.py."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.approximate import Vectors
from benchmarks.disc21 import checks
from benchmarks.disc21.made import GROUND_TRUTH, QUERIES, REFERENCES, SEED, Size, query_ids, reference_ids
from benchmarks.score import plain_evaluate
from isc.data.csv_files import read_predictions, write_predictions
from isc.data.files import write_json

BRUTE_FORCE = 100  # queries
PRODUCTS = 2_000  # queries whose matrix products are timed
BLOCK = 1024  # references of one product
MATCHING = "matching.csv"


def check_descriptor(work: Path, size: Size) -> None:
    """Check both files of the descriptor track, and write their figures by plain Python."""
    folder, official = work / "descriptor", _official(size)
    found = checks.problems_of_submission(folder / "submission.h5", **official)
    found += checks.problems_of_predictions(folder / "predictions.csv", **official)
    found += _same_vectors(work, folder / "submission.h5")
    predictions = checks.predictions_of(folder / "predictions.csv")
    if len(predictions) != size.pairs:
        found.append(f"{len(predictions)} predictions; expected {size.pairs}")
    found += checks.problems_of_search(folder / "submission.h5", predictions, sample=BRUTE_FORCE, seed=SEED)
    _tell(work, "check_descriptor", found, predictions)


def _same_vectors(work: Path, submission: Path) -> list[str]:
    """Return where a submission differs from the made descriptors, which are sorted by id already."""
    with h5py.File(submission, "r") as ours, h5py.File(work / QUERIES) as queries, h5py.File(work / REFERENCES) as refs:
        return [
            f"{side}: other values than were given from row {start} on"
            for side, made in (("query", queries["vectors"]), ("reference", refs["vectors"]))
            for start in range(0, len(made), 1 << 16)
            if not np.array_equal(ours[side][start : start + (1 << 16)], made[start : start + (1 << 16)])
        ]


def rescore(work: Path, size: Size) -> None:
    """Write a matching submission of the same pairs, with a made probability for each.

    It combines the distance with made evidence, which supports most of the copies and a few other pairs.
    """
    matches = read_predictions(work / "descriptor" / "predictions.csv", max_rows=size.pairs)
    _, pairs = checks.ground_truth_of(work / GROUND_TRUTH)
    names = zip(matches.query_ids[matches.query], matches.reference_ids[matches.reference], strict=True)
    correct = np.fromiter(((query, reference) in pairs for query, reference in names), bool, len(matches))
    rng = np.random.default_rng([SEED, 3])
    speaks = rng.random(len(matches)) < np.where(correct, 0.9, 0.001)
    logit = 6 * matches.score + 2 + speaks * rng.exponential(6, len(matches)) + rng.normal(0, 0.5, len(matches))
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    write_predictions(work / MATCHING, replace(matches, score=probability))


def check_matching(work: Path, size: Size) -> None:
    found = checks.problems_of_predictions(work / MATCHING, **_official(size))
    predictions = checks.predictions_of(work / MATCHING)
    if len(predictions) != size.pairs:
        found.append(f"{len(predictions)} rows; expected {size.pairs}")
    _tell(work, "check_matching", found, predictions)


def products(work: Path, size: Size) -> None:
    """Write the seconds that the matrix products of all pairs would take alone, estimated from PRODUCTS queries."""
    with h5py.File(work / QUERIES) as queries, h5py.File(work / REFERENCES) as references:
        some: Vectors = queries["vectors"][:PRODUCTS]
        every: Vectors = references["vectors"][:]
    out = np.empty((len(some), BLOCK), np.float32)
    started = time.perf_counter()
    for start in range(0, len(every) - BLOCK + 1, BLOCK):
        np.matmul(some, every[start : start + BLOCK].T, out=out)
    took = time.perf_counter() - started
    done = len(every) // BLOCK * BLOCK
    write_json(work / "products.json", {"seconds": took * size.queries / len(some) * size.references / max(1, done)})


def _official(size: Size) -> dict[str, list[str]]:
    return {"queries": query_ids(size.queries), "references": reference_ids(range(size.references))}


def _tell(work: Path, name: str, found: list[str], predictions: list[checks.Prediction]) -> None:
    """Write the figures, computed without numpy. Raises SystemExit if problems were found."""
    if found:
        raise SystemExit("\n".join([f"{name}: {len(found)} problems", *found[:20]]))
    queries, pairs = checks.ground_truth_of(work / GROUND_TRUTH)
    figures: dict[str, Any] = plain_evaluate(predictions, queries, pairs)
    write_json(work / f"{name}.json", figures)
