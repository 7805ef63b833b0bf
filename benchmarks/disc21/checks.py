"""Checks of both submission files by h5py and csv alone, as the challenge requires them; the best pairs by brute force.

Nothing here uses `isc`, so that a mistake there cannot hide itself.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

MAX_ROWS, MAX_DIM = 500_000, 256
HEADER = ["query_id", "reference_id", "score"]
SIDES = {"query": (rb"Q\d{5}", 6), "reference": (rb"R\d{6}", 7)}  # pattern of the ids, and their length in bytes
ROUNDING = 1e-5  # generous bound for a squared distance of float32 unit vectors
Prediction = tuple[str, str, float]


# --- the descriptor track --------------------------------------------------------------------------------------------


def problems_of_submission(path: Path, *, queries: Sequence[str], references: Sequence[str]) -> list[str]:
    """Return the errors of a submission.h5 for the official ids (sorted); an empty list if it is valid."""
    with h5py.File(path, "r") as file:
        wanted = {"query", "reference", "query_ids", "reference_ids"}
        if set(file) != wanted:
            return [f"datasets {sorted(file)}; expected {sorted(wanted)}"]
        found = [*_vector_problems(file, "query"), *_vector_problems(file, "reference")]
        dims = {file[side].shape[-1] for side in SIDES}
        if len(dims) > 1 or max(dims) > MAX_DIM:
            found.append(f"dimensions {sorted(dims)}; expected one number of at most {MAX_DIM}")
        found += [*_id_problems(file, "query", queries), *_id_problems(file, "reference", references)]
    return found


def _vector_problems(file: h5py.File, side: str) -> Iterator[str]:
    values = file[side]
    if values.dtype != np.float32 or values.ndim != 2:
        yield f"{side}: {values.dtype} {values.shape}; expected float32 [N, d]"
        return
    if values.shape[0] != file[f"{side}_ids"].shape[0]:
        yield f"{side}: {values.shape[0]} rows for {file[f'{side}_ids'].shape[0]} ids"
    for start in range(0, len(values), 1 << 16):
        if not np.isfinite(values[start : start + (1 << 16)]).all():
            yield f"{side}: NaN or infinite values from row {start} on"


def _id_problems(file: h5py.File, side: str, official: Sequence[str]) -> Iterator[str]:
    (pattern, length), ids = SIDES[side], file[f"{side}_ids"]
    if ids.dtype != np.dtype(f"S{length}"):
        yield f"{side}_ids: {ids.dtype}; expected S{length}"
    names = ids[:].tolist()
    wrong = next((name for name in names if not re.fullmatch(pattern, name)), None)
    if wrong is not None:
        yield f"{side}_ids: {wrong!r}; expected {pattern.decode()}"
    if any(two <= one for one, two in itertools.pairwise(names)):
        yield f"{side}_ids: not sorted, or repeated"
    if names != [name.encode() for name in official]:
        yield f"{side}_ids: {len(names)} that are not the {len(official)} official ones"


# --- the matching track ----------------------------------------------------------------------------------------------


def read_rows(path: Path) -> tuple[list[list[str]], list[str]]:
    """Return all rows without the header, and the errors of the file's format."""
    data = path.read_bytes()
    problems = [what for mark, what in ((b"\xef\xbb\xbf", "a byte-order mark"), (b"\r", "a CR")) if mark in data]
    if not data.endswith(b"\n"):
        problems.append("no line break at the end")
    with path.open(newline="", encoding="ascii") as file:
        header, *rows = csv.reader(file, strict=True)
    if header != HEADER:
        problems.append(f"header {header}; expected {HEADER}")
    return rows, problems


def problems_of_predictions(path: Path, *, queries: Sequence[str], references: Sequence[str]) -> list[str]:
    """Return the errors of a predictions.csv for the official ids; an empty list if it is valid."""
    rows, found = read_rows(path)
    known = set(queries), set(references)
    if not 0 < len(rows) <= MAX_ROWS:
        found.append(f"{len(rows)} rows; expected 1 to {MAX_ROWS:,}")
    if wrong := next((row for row in rows if len(row) != len(HEADER)), None):
        return [*found, f"{wrong}: expected {len(HEADER)} fields"]
    if wrong := next((row for row in rows if row[0] not in known[0] or row[1] not in known[1]), None):
        found.append(f"{wrong}: an id that is not official")
    if len({(query, reference) for query, reference, _ in rows}) != len(rows):
        found.append("a pair occurs twice")
    scores = [_number(text) for *_, text in rows]
    if not all(map(math.isfinite, scores)):
        found.append("a score that is no finite number")
    elif any(two > one for one, two in itertools.pairwise(scores)):
        found.append("not sorted by falling score")
    return found


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text) else math.nan


def predictions_of(path: Path) -> list[Prediction]:
    return [(query, reference, float(score)) for query, reference, score in read_rows(path)[0]]


def ground_truth_of(path: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the judged queries and the true pairs."""
    with path.open(newline="", encoding="ascii") as file:
        rows = [row for row in csv.reader(file, strict=True) if row != HEADER[:2]]
    return {query for query, _ in rows}, {(query, reference) for query, reference in rows if reference}


# --- brute force -----------------------------------------------------------------------------------------------------


def problems_of_search(submission: Path, predictions: Sequence[Prediction], *, sample: int, seed: int) -> list[str]:
    """Return the differences between the predictions and brute force in float64, for `sample` random queries.

    A difference is a missing pair that is better than the last one kept, a wrong score, or an unknown reference.
    """
    last = min(score for _, _, score in predictions)
    with h5py.File(submission, "r") as file:
        names, references = file["query_ids"][:], file["reference_ids"][:].astype(str)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(names))[:sample])
        told: dict[str, dict[str, float]] = {names[row].decode(): {} for row in chosen}
        for query, reference, score in predictions:
            if query in told:
                told[query][reference] = score
        found: list[str] = []
        queries = file["query"][:][chosen].astype(np.float64)
        for start in range(0, len(references), 1 << 16):
            here = slice(start, start + (1 << 16))
            scores = -_squared(queries, file["reference"][here].astype(np.float64))
            found += _differences(told, references[here], scores, last)
        left = {query: list(rest) for query, rest in told.items() if rest}
        found += [f"{query}: {rest[:3]} are no references" for query, rest in left.items()]
    return found


def _squared(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    products = one @ other.T
    return np.maximum(0, (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * products)


def _differences(
    told: dict[str, dict[str, float]], references: npt.NDArray[np.str_], scores: npt.NDArray[np.float64], last: float
) -> Iterator[str]:
    """Yield the differences in one block of references, and remove its pairs from `told`."""
    place = {name: at for at, name in enumerate(references.tolist())}
    for (query, pairs), row in zip(told.items(), scores, strict=True):
        here = {name: pairs.pop(name) for name in list(pairs) if name in place}
        for name in references[row > last + ROUNDING].tolist():
            if name not in here:
                yield f"{query},{name}: at {row[place[name]]} is better than the last, {last}, but was left out"
        for name, score in here.items():
            if abs(score - row[place[name]]) > ROUNDING:
                yield f"{query},{name}: scored {score}; by brute force {row[place[name]]}"
