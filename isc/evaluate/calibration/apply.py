"""A calibration applied to a run: probabilities, accepted pairs, and messages about both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.csv_files import write_csv
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.calibration.chance import by_alignment, by_distance
from isc.evaluate.calibration.files import Calibration, CalibrationFile
from isc.evaluate.calibration.prior import Floats, Prior, corrected
from isc.evaluate.metrics import reliability

FAR = 100  # times as many references as fitted, from which on the correction for them is a guess
MORE, LEAST_MORE = 0.1, 5  # share and number of accepted pairs beyond a query's first, from which on a run is doubtful
COLUMNS = ("query_id", "reference_id", "score", "probability", "accepted")


@dataclass(frozen=True)
class Applied:
    """The pairs of a run, their probabilities [M], and `accepted` [M]: those at or above the wanted threshold.

    `prior` is the share of copies that was estimated for the run, and its number of references; `picture` and `part`
    [M] as in `apply`.
    """

    stored: CalibrationFile
    matches: Matches
    probability: Floats
    accepted: npt.NDArray[np.bool_]
    prior: Prior
    picture: npt.NDArray[np.int64] | None
    part: npt.NDArray[np.int64] | None


def apply(
    stored: CalibrationFile,
    matches: Matches,
    *,
    queries: int,
    references: int,
    unrelated: Floats | None = None,
    picture: npt.NDArray[np.int64] | None = None,
    part: npt.NDArray[np.int64] | None = None,
    log_nfa: npt.NDArray[np.floating] | None = None,
) -> Applied:
    """Calibrate the scores of a run, and accept the pairs at or above the wanted threshold.

    `queries` and `references` are the sizes of the run's sets, which may differ from those of the fit. `unrelated` [M]
    is each pair's distance of the query to unrelated pictures, if the calibration has some; `picture` [M] is the number
    of the picture of which its reference is a version, None if each is its own, `part` [M] that of the part of its
    query, None if each is the whole, `log_nfa` [M] that of each pair's alignment, NaN or None without one. No pair is
    accepted if the wanted precision was never reached.
    """
    calibration = stored.calibration
    fitted = calibration.fitted(matches.score, unrelated, matches.query if part is None else part, picture)
    chance: Floats | float = 1.0
    if log_nfa is not None:
        chance = by_alignment(log_nfa)
    elif unrelated is not None:
        chance = by_distance(0.0 - matches.score, unrelated)
    probability, prior = corrected(fitted, calibration.prior, queries=queries, references=references, chance=chance)
    threshold = calibration.wanted.threshold
    accepted = np.zeros(len(matches), bool) if threshold is None else probability >= threshold
    return Applied(stored, matches, probability, accepted, prior, picture, part)


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
    everything = f"about {applied.prior.copies:.2g} copies a query are expected"
    if wanted.threshold is None:
        return (
            f"no pair is accepted: {100 * wanted.precision:g} % precision was never reached, at best "
            f"{wanted.best:.3f} at probability ≥ {wanted.best_score:.4f}; {everything}"
        )
    kept = applied.probability[applied.accepted]
    return (
        f"{len(kept):,} of {total:,} pairs reach the threshold for {100 * wanted.precision:g} % precision, probability "
        f"≥ {wanted.threshold:.4f}: expected precision {_mean(kept)}{_worst(applied.stored.calibration)}; {everything}"
    )


def _worst(calibration: Calibration) -> str:
    """Describe the run of the fit, of several, at which the threshold held least."""
    reached = [run for run in calibration.runs if run.precision is not None]
    if len(reached) < 2:
        return ""
    worst = min(reached, key=lambda run: run.precision or 0.0)
    return f" ({worst.precision:.3f} on {worst.name}, the worst of the {len(calibration.runs)} runs of the fit)"


def acceptance(applied: Applied) -> str:
    """Describe in words which pairs are accepted."""
    wanted = applied.stored.calibration.wanted
    if wanted.threshold is None:
        return f"no pair, as {100 * wanted.precision:g} % precision was never reached"
    return f"probability ≥ {wanted.threshold:.4f}, the threshold for {100 * wanted.precision:g} % precision"


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


def warning(applied: Applied) -> str | None:
    """Return one line that says why the probabilities of the run may be wrong, and the remedy; None if nothing shows.

    A query is made from few pictures, so accepted ones beyond its first look alike, for which no prior accounts, or are
    versions of the first that were not recognised. Far more references than fitted are told too.
    """
    if reasons := "; ".join(_doubts(applied)):
        remedy = "isc calibrate fits them to a labelled run of yours, calibration=none leaves them out"
        return f"probabilities may not hold: {reasons} ({applied.stored.path}); {remedy}"
    return None


def _doubts(applied: Applied) -> Iterator[str]:
    fitted, here = applied.stored.calibration.prior.references, applied.prior.references
    if here > FAR * fitted:
        yield f"{here:,} references, fitted with {fitted:,}"
    shown = applied.matches.reference if applied.picture is None else applied.picture
    query = applied.matches.query if applied.part is None else applied.part
    pictures = np.unique(np.column_stack([query, shown])[applied.accepted], axis=0)
    more = int((np.bincount(pictures[:, 0]) - 1).clip(0).sum())
    if more >= LEAST_MORE and more > MORE * len(pictures):
        yield (
            f"{more:,} of {len(pictures):,} accepted pictures are further ones of a query: the references hold copies "
            "of one another, or pictures that look alike"
        )


def _mean(values: Floats | npt.NDArray[np.bool_]) -> str:
    return f"{float(np.mean(values, dtype=np.float64)):.3f}" if len(values) else "none"
