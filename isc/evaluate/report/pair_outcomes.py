"""The result of a run for each true pair, and the choice of pairs to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.metrics import ranks

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PairOutcomes:
    """The predictions of the judged queries (`matches`, with `correct` [M]) and the true pairs (all other fields, [P]).

    `row` is a true pair's position among the matches, `rank` its rank from 0; a pair that was never predicted has row
    and rank −1 and score −inf. `found` marks the pairs at or above the threshold: as equal scores count against the
    run, these are the pairs of recall at 90 % precision. The pairs are sorted, so that two runs judged by the same
    ground truth have the same pairs.
    """

    matches: Matches
    correct: Flags
    pairs: Sequence[tuple[str, str]]
    row: IntArray
    rank: IntArray
    score: npt.NDArray[np.float64]
    found: Flags


def apart(low: float, high: float) -> tuple[str, str]:
    """Format both numbers with four decimals, or with as many as make the texts differ."""
    decimals = next((n for n in range(4, 16) if f"{low:.{n}f}" != f"{high:.{n}f}"), 4)
    return f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def as_score(threshold: float | None, matches: Matches) -> float | None:
    """Convert the threshold to the scores' float type: its decimals are the shortest, not the exact float32 value."""
    return None if threshold is None else float(matches.score.dtype.type(threshold))


def judge(matches: Matches, ground_truth: GroundTruth, threshold: float | None) -> PairOutcomes:
    """Return every prediction of a judged query, and every true pair with its row, rank and score."""
    kept = matches.take(ground_truth.judged(matches))
    correct = ground_truth.correct(kept)
    rows = np.flatnonzero(correct)
    names = zip(kept.query_ids[kept.query[rows]], kept.reference_ids[kept.reference[rows]], strict=True)
    place = dict(zip(names, zip(rows.tolist(), ranks(kept, correct).tolist(), strict=True), strict=True))
    pairs = sorted(ground_truth.pairs)
    row, rank = np.array([place.get(pair, (-1, -1)) for pair in pairs], np.int64).reshape(-1, 2).T
    score = np.full(len(pairs), -np.inf)
    score[row >= 0] = kept.score[row[row >= 0]]
    found = score >= threshold if threshold is not None else np.zeros(len(pairs), bool)
    return PairOutcomes(kept, correct, pairs, row, rank, score, found)


def rivals(judged: PairOutcomes, positions: IntArray) -> dict[int, int]:
    """Return, for each true pair of `positions`, the row of its query's best other prediction, if there is one."""
    matches = judged.matches
    place = {name: i for i, name in enumerate(matches.query_ids.tolist())}
    queries = {int(i): place.get(judged.pairs[i][0], -1) for i in positions}
    wanted = np.zeros(len(place) + 1, bool)
    wanted[list(queries.values())] = True
    rows = np.flatnonzero(wanted[:-1][matches.query])
    best: dict[int, list[int]] = {}
    for row in top(matches, rows, len(rows)).tolist():
        best.setdefault(int(matches.query[row]), []).append(row)
    others = {i: [row for row in best.get(query, [])[:2] if row != judged.row[i]] for i, query in queries.items()}
    return {i: rows[0] for i, rows in others.items() if rows}


def top(matches: Matches, rows: IntArray, count: int) -> IntArray:
    """Return the `count` of `rows` with the highest scores, best first; ties by query, then reference position."""
    if len(rows) > count:  # sort only the rows that can be among them
        score = matches.score[rows]
        rows = rows[score >= np.partition(score, -count)[-count]]
    order = np.lexsort((matches.reference[rows], matches.query[rows], -matches.score[rows]))
    return rows[order[:count]]


def spread(positions: IntArray, count: int) -> IntArray:
    """Return at most `count` of the positions, evenly spaced, including the first and the last."""
    if len(positions) <= count:
        return positions
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(np.int64)]
