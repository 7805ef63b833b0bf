"""A calibration applied to a run: probabilities, accepted pairs, and messages about both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.csv_files import write_csv
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.calibration.files import CalibrationFile
from isc.evaluate.calibration.score_origin import ScoreOrigin
from isc.evaluate.calibration.shift import LEAST_QUERIES, TIMES, best_scores, shift
from isc.evaluate.metrics import reliability

COLUMNS = ("query_id", "reference_id", "score", "probability", "accepted")


@dataclass(frozen=True)
class Applied:
    """The pairs of a run, their probabilities [M], and `accepted` [M]: those at or above the wanted threshold."""

    stored: CalibrationFile
    matches: Matches
    probability: npt.NDArray[np.float64]
    accepted: npt.NDArray[np.bool_]


def apply(stored: CalibrationFile, matches: Matches) -> Applied:
    """Apply the calibration to the matches. No pair is accepted if the wanted precision was never reached."""
    calibration = stored.calibration
    threshold = calibration.wanted.threshold
    # for float32 scores the stored threshold has the shortest decimals, not the exact number
    accepted = (
        np.zeros(len(matches), bool) if threshold is None else matches.score >= matches.score.dtype.type(threshold)
    )
    return Applied(stored, matches, calibration.map(matches.score), accepted)


def write_probabilities(path: Path, applied: Applied) -> None:
    """Write `query_id,reference_id,score,probability,accepted` (true or false) in the order of predictions.csv."""
    matches, order = applied.matches, applied.matches.order()
    columns = (
        matches.query_ids[matches.query[order]],
        matches.reference_ids[matches.reference[order]],
        map(str, matches.score[order]),
        (f"{one:.6g}" for one in applied.probability[order].tolist()),
        np.array(["false", "true"])[applied.accepted[order].astype(int)],
    )
    write_csv(path, COLUMNS, zip(*columns, strict=True))


def precision_of_cut(applied: Applied) -> str:
    """Describe in one line the precision of the threshold, as stored and by the probabilities of this run's pairs."""
    wanted, total = applied.stored.calibration.wanted, len(applied.matches)
    everything = f"of all {total:,} pairs kept {_mean(applied.probability)} are expected to be copies"
    if wanted.threshold is None:
        return (
            f"no pair is accepted: {100 * wanted.precision:g} % precision was never reached, at best "
            f"{wanted.best:.3f} at score ≥ {wanted.best_score:.4f}; {everything}"
        )
    expected = "unknown (no pair reached it that was kept out)"
    if wanted.held_out is not None and wanted.held_out_interval is not None:
        low, high = wanted.held_out_interval
        expected = f"{wanted.held_out:.3f} (95 %: {low:.3f} … {high:.3f})"
    kept = applied.probability[applied.accepted]
    return (
        f"{len(kept):,} of {total:,} pairs reach the threshold for {100 * wanted.precision:g} % precision, score ≥ "
        f"{wanted.threshold:.4f}: expected precision {expected}, by their probabilities {_mean(kept)}; {everything}"
    )


def acceptance(applied: Applied) -> str:
    """Describe in words which pairs are accepted."""
    wanted = applied.stored.calibration.wanted
    if wanted.threshold is None:
        return f"no pair, as {100 * wanted.precision:g} % precision was never reached"
    return f"score ≥ {wanted.threshold:.4f}, the calibration's threshold for {100 * wanted.precision:g} % precision"


def judged(applied: Applied, truth: GroundTruth) -> str:
    """Describe in one line how well the probabilities and the threshold agree with the true pairs."""
    rows = truth.judged(applied.matches)
    correct, probability = truth.correct(applied.matches)[rows], applied.probability[rows]
    accepted = applied.accepted[rows]
    bins = reliability(probability, correct)
    error = sum(one.pairs * abs(one.mean - one.correct) for one in bins) / max(len(correct), 1)
    share = f"{correct[accepted].mean():.3f}" if accepted.any() else "none"
    return (
        f"judged: of {int(accepted.sum()):,} accepted {share} are copies, of all {_mean(correct)}; "
        f"calibration error {error:.4f}"
    )


def warning(applied: Applied, made: ScoreOrigin) -> str | None:
    """Return one line that says how the run differs from that of the fit, and the remedy; None if it does not.

    The probabilities of a run that differs may be wrong.
    """
    if reasons := "; ".join(_differences(applied, made)):
        remedy = "isc calibrate fits them to a labelled run of yours, calibration=none leaves them out"
        return f"probabilities may not hold: {reasons} ({applied.stored.path}); {remedy}"
    return None


def _differences(applied: Applied, made: ScoreOrigin) -> Iterator[str]:
    calibration = applied.stored.calibration
    fitted = calibration.made.references
    if not 1 / TIMES < made.references / fitted < TIMES:
        yield f"{made.references:,} references, fitted with {fitted:,}"
    best = best_scores(applied.matches, made.queries)
    if best is None:
        return
    if made.queries < LEAST_QUERIES:
        yield f"{made.queries} queries are too few to compare their scores with the fitted ones"
        return
    found = shift(best, calibration.best)
    if found.matters:
        lower = found.median < found.fitted_median
        yield (
            f"the queries' best scores are distributed unlike the fitted ones (Kolmogorov–Smirnov distance "
            f"{found.distance:.2f}, by chance {_chance(found.chance)}): "
            f"{'fewer copies or harder ones' if lower else 'more copies or easier ones'}?"
        )


def _chance(share: float) -> str:
    return "< 1e-6" if share < 1e-6 or math.isnan(share) else f"{share:.1g}"


def _mean(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> str:
    return f"{float(np.mean(values, dtype=np.float64)):.3f}" if len(values) else "none"
