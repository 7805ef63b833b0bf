"""The fit of a calibration on runs whose true pairs are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.calibration.files import Calibration, FittedRun
from isc.evaluate.calibration.maps import On, choose, folds
from isc.evaluate.calibration.margins import seen
from isc.evaluate.calibration.prior import Floats, Prior, corrected
from isc.evaluate.calibration.score_origin import PROBABILITY, ScoreOrigin
from isc.evaluate.calibration.thresholds import PRECISIONS, Threshold, find_thresholds
from isc.evaluate.metrics import reliability
from isc.runtime.progress import Report

LEAST = 20  # copies, and wrong pairs: fewer leave two or three of either in a fold, and the fit is unreliable
SHARE, DRAWS = 0.1, 5  # of queries with a copy in the thinned runs that thresholds are found on too, and their number
LEAST_THINNED = 50  # copies in a thinned run: with fewer, chance decides its threshold
EDGES = (0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class LabelledRun:
    """A run of match.py with its true pairs.

    `unrelated` [M] is each pair's distance of the query to such pictures, `picture` [M] the number of the picture of
    which its reference is a version, None if each is its own.
    """

    name: str
    matches: Matches
    truth: GroundTruth
    made: ScoreOrigin
    unrelated: Floats | None = None
    picture: npt.NDArray[np.int64] | None = None

    def judged(self) -> LabelledRun:
        """Return the run without the queries that the ground truth does not judge."""
        rows = self.truth.judged(self.matches)
        return replace(
            self,
            matches=self.matches.take(rows),
            unrelated=None if self.unrelated is None else self.unrelated[rows],
            picture=None if self.picture is None else self.picture[rows],
        )

    def with_share(self, share: float, *, seed: int) -> LabelledRun:
        """Leave out judged queries with a copy at random, until `share` of the judged queries have one."""
        copied = sorted({query for query, _ in self.truth.pairs})
        others = self.truth.queries - set(copied)
        kept = np.random.default_rng(seed).permutation(copied)[: round(len(others) * share / (1 - share))]
        queries = others | set(kept.tolist())
        truth = GroundTruth(queries, frozenset(pair for pair in self.truth.pairs if pair[0] in queries))
        return replace(self, truth=truth).judged()

    @property
    def score(self) -> npt.NDArray[np.floating]:
        """The input of the map: the score [M], or score and margin [M, 2]."""
        return seen(self.matches.score, self.made, self.unrelated, self.matches.query, self.picture)


def fit(
    runs: Sequence[LabelledRun],
    *,
    precision: float,
    unrelated: npt.NDArray[np.float16] | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Calibration:
    """Fit one calibration on all runs together; queries that a ground truth does not judge are left out.

    Runs with different edits, photos and shares of copies make it hold more widely; the thresholds are those of the
    run that needs the highest, each as it is and with copies of SHARE of its queries: where copies are rare, the same
    probability may be right less often. Raises InputError if the scores of the runs are of different origins, there are
    too few copies or wrong pairs, all scores are equal, or scores that should be probabilities lie outside 0…1.
    """
    _check_origins(runs)
    runs = [run.judged() for run in runs]
    correct = [run.truth.correct(run.matches) for run in runs]
    for run, labels in zip(runs, correct, strict=True):
        _check(run.matches, labels, run.made)
    fold = [folds(run.matches.query, labels, seed=seed) for run, labels in zip(runs, correct, strict=True)]
    on: On = "log-odds" if runs[0].made.scores == PROBABILITY else "score"
    chosen = choose(np.concatenate([run.score for run in runs]), np.concatenate(correct), np.concatenate(fold), on=on)
    prior = Prior(
        copies=sum(len(run.truth.pairs) for run in runs) / sum(len(run.truth.queries) for run in runs),
        references=round(float(np.exp(np.mean([np.log(run.made.references) for run in runs])))),
    )
    held_out = np.split(chosen.probability, np.cumsum([len(run.matches) for run in runs])[:-1])
    believed = [_believed(run, foretold, prior) for run, foretold in zip(runs, held_out, strict=True)]
    precisions = sorted({*PRECISIONS, precision})
    each = []
    for done, (run, matches, place, foretold) in enumerate(zip(runs, believed, fold, held_out, strict=True)):
        if report:
            report(done * len(precisions), len(runs) * len(precisions))
        each.append(find_thresholds(matches, run.truth, place, precisions=precisions, seed=seed))
        if thinned := _thinned(run, foretold, prior, precisions=precisions, seed=seed):
            each.append(thinned)
    found = {one: _strictest(of_runs) for one, of_runs in zip(precisions, zip(*each, strict=True), strict=True)}
    return Calibration(
        map=chosen.map,
        prior=prior,
        unrelated=unrelated,
        made=runs[0].made,
        wanted=found[precision],
        thresholds=tuple(found.values()),
        runs=tuple(
            _facts(run, matches, labels, found[precision])
            for run, matches, labels in zip(runs, believed, correct, strict=True)
        ),
        held_out=chosen.held_out,
        reliability=tuple(
            reliability(np.concatenate([one.score for one in believed]), np.concatenate(correct), edges=EDGES)
        ),
    )


def _believed(run: LabelledRun, foretold: Floats, prior: Prior) -> Matches:
    """Return the pairs of a run with their held-out probabilities [M] under the prior that is estimated from them."""
    counts = {"queries": len(run.truth.queries), "references": run.made.references}
    return replace(run.matches, score=corrected(foretold, prior, **counts)[0])


def _thinned(
    run: LabelledRun, foretold: Floats, prior: Prior, *, precisions: Sequence[float], seed: int
) -> list[Threshold]:
    """Return the thresholds of a run of which copies were left out, each the middle one of DRAWS draws.

    Empty if the run has no more copies than that, or fewer than LEAST_THINNED would be left.
    """
    copied = len({query for query, _ in run.truth.pairs})
    wanted = round((len(run.truth.queries) - copied) * SHARE / (1 - SHARE))
    if not LEAST_THINNED <= wanted < copied:
        return []
    held = replace(run, matches=replace(run.matches, score=foretold), unrelated=None)
    drawn = []
    for draw in range(DRAWS):
        part = held.with_share(SHARE, seed=seed + draw)
        matches = _believed(part, part.matches.score.astype(np.float64), prior)
        place = folds(matches.query, part.truth.correct(matches), seed=seed)
        drawn.append(find_thresholds(matches, part.truth, place, precisions=precisions, seed=seed))
    return [sorted(of_draws, key=_height)[DRAWS // 2] for of_draws in zip(*drawn, strict=True)]


def _height(one: Threshold) -> float:
    return np.inf if one.threshold is None else one.threshold


def _strictest(found: Sequence[Threshold]) -> Threshold:
    """Return the highest threshold, or one that was never reached."""
    return max(found, key=_height)


def _facts(run: LabelledRun, matches: Matches, correct: npt.NDArray[np.bool_], wanted: Threshold) -> FittedRun:
    accepted = matches.score >= (np.inf if wanted.threshold is None else wanted.threshold)
    return FittedRun(
        name=run.name,
        queries=len(run.truth.queries),
        with_copies=len({query for query, _ in run.truth.pairs}),
        references=run.made.references,
        pairs=len(matches),
        copies=int(correct.sum()),
        precision=float(correct[accepted].mean()) if accepted.any() else None,
        recall=float(correct[accepted].sum() / max(len(run.truth.pairs), 1)),
    )


def _check_origins(runs: Sequence[LabelledRun]) -> None:
    if not runs:
        raise InputError("no run; expected at least one to fit a calibration on")
    for run in runs[1:]:
        if differences := list(run.made.differences(runs[0].made)):
            raise InputError(f"{run.name} and {runs[0].name}: scores of different origin: {'; '.join(differences)}")


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
