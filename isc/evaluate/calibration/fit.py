"""The fit of a calibration on a run whose true pairs are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.calibration.files import Calibration
from isc.evaluate.calibration.maps import choose, folds
from isc.evaluate.calibration.score_origin import PROBABILITY, ScoreOrigin
from isc.evaluate.calibration.shift import best_scores
from isc.evaluate.calibration.thresholds import PRECISIONS, find_threshold
from isc.evaluate.metrics import reliability
from isc.runtime.progress import Report

LEAST = 20  # copies, and wrong pairs: fewer leave two or three of either in a fold, and the fit is unreliable
EDGES = (0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


def fit(
    matches: Matches,
    truth: GroundTruth,
    made: ScoreOrigin,
    *,
    precision: float,
    seed: int = 0,
    report: Report | None = None,
) -> Calibration:
    """Fit a calibration on these predictions; queries that the ground truth does not judge are left out.

    Raises InputError if there are too few copies or wrong pairs, all scores are equal, or scores that should be
    probabilities by `made` lie outside 0…1.
    """
    matches = matches.take(truth.judged(matches))
    correct = truth.correct(matches)
    _check(matches, correct, made)
    fold = folds(matches.query, correct, seed=seed)
    chosen = choose(matches.score, correct, fold, on="log-odds" if made.scores == PROBABILITY else "score")
    found = {}
    precisions = sorted({*PRECISIONS, precision})
    for done, one in enumerate(precisions):
        if report:
            report(done, len(precisions))
        found[one] = find_threshold(matches, truth, fold, precision=one, seed=seed)
    best = best_scores(matches, len(truth.queries))
    assert best is not None  # there are LEAST copies
    return Calibration(
        map=chosen.map,
        made=made,
        wanted=found[precision],
        thresholds=tuple(found.values()),
        best=best,
        queries=len(truth.queries),
        with_copies=len({query for query, _ in truth.pairs}),
        pairs=len(matches),
        copies=int(correct.sum()),
        held_out=chosen.held_out,
        reliability=tuple(reliability(chosen.probability, correct, edges=EDGES)),
    )


def _check(matches: Matches, correct: npt.NDArray[np.bool_], made: ScoreOrigin) -> None:
    copies = int(correct.sum())
    for count, what in ((copies, "copies"), (len(correct) - copies, "wrong pairs")):
        if count < LEAST:
            raise InputError(
                f"{count} {what} among {len(correct):,} judged predictions; expected at least {LEAST} to fit "
                "probabilities on: label more queries, or keep more pairs (num_pairs= or k= of match.py)"
            )
    low, high = float(matches.score.min()), float(matches.score.max())
    if low == high:
        raise InputError(
            f"all {len(matches):,} judged predictions score {low:g}; expected scores that tell pairs apart"
        )
    if made.scores == PROBABILITY and not 0 <= low <= high <= 1:
        raise InputError(f"scores {low:g}…{high:g}; expected probabilities in 0…1, as match.json says they are")
