"""The comparison of two runs judged by the same ground truth: differences of their metrics, and significance.

Both are judged on the same resamples of the queries (`isc.evaluate.bootstrap`), so that the difficulty of a resample
cancels in the difference.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isc.data.csv_files import read_predictions
from isc.data.json_files import Fields, parse_json, read_text
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.bootstrap import Resampled, Values, bootstrap, interval, intervals, p_value
from isc.evaluate.metrics import Metrics, evaluate
from isc.evaluate.report.pair_outcomes import PairOutcomes, as_score, judge

PREDICTIONS, METRICS = "predictions.csv", "metrics.json"
SIGNIFICANT = 0.05  # p-value below which a difference counts as significant
LABELS = {
    "average_precision": "μAP",
    "recall_at_p90": "recall at 90 % precision",
    "recall_at_rank1": "recall at rank 1",
    "recall_at_rank10": "recall at rank 10",
}


@dataclass(frozen=True)
class OtherRun:
    """The predictions of another run; `name` stands for it on the page and in messages."""

    name: str
    matches: Matches


@dataclass(frozen=True)
class Difference:
    """One metric of both runs and `now` − `before`, each with its 95 % interval, and the p-value of no difference.

    Intervals and p come from the same resamples; they are NaN if these have no true pair.
    """

    figure: str
    now: float
    before: float
    now_interval: tuple[float, float]
    before_interval: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def label(self) -> str:
        return LABELS[self.figure]

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANT

    def in_words(self, other: str) -> str:
        """Return one sentence with the difference, its interval and its significance."""
        low, high = self.interval
        name = self.label[0].upper() + self.label[1:] if self.label.islower() else self.label
        if self.difference == 0 and low == high == 0:
            return f"{name} is the same as in {other}."
        way = "as high as" if self.difference == 0 else ("higher" if self.difference > 0 else "lower") + " than"
        size = "" if self.difference == 0 else f"{abs(self.difference):.4f} "
        verdict = "significant" if self.significant else "not significant: chance alone could make it"
        return (
            f"{name} is {size}{way} in {other} (95 % interval {signed(low)} to {signed(high)}, "
            f"p {_equals(self.p)}), {verdict}."
        )


@dataclass(frozen=True)
class Comparison:
    """This run compared with `other`; `judged` and `before` are their results, each at its own 90 % threshold."""

    other: OtherRun
    metrics: Metrics
    resampled: Resampled
    differences: tuple[Difference, ...]
    judged: PairOutcomes
    before: PairOutcomes

    @property
    def gained(self) -> list[tuple[str, str]]:
        return self._found(self.judged, self.before)

    @property
    def lost(self) -> list[tuple[str, str]]:
        return self._found(self.before, self.judged)

    def _found(self, one: PairOutcomes, other: PairOutcomes) -> list[tuple[str, str]]:
        return [one.pairs[int(i)] for i in np.flatnonzero(one.found & ~other.found)]

    def as_dict(self) -> dict[str, Any]:
        """Return, for comparison.json, the other run's metrics, the differences, and the pairs gained and lost."""
        differences = [
            {key: _known(value) for key, value in asdict(one).items()} | {"significant": one.significant}
            for one in self.differences
        ]
        return {
            "other": self.other.name,
            "metrics": self.metrics.as_dict() | {"intervals": intervals(self.resampled)},
            "resamples": len(self.resampled.average_precision),
            "differences": differences,
            "gained": [list(pair) for pair in self.gained],
            "lost": [list(pair) for pair in self.lost],
        }

    def summary(self) -> str:
        """Return two sentences and a count for the terminal."""
        changes = f"{len(self.gained)} true pairs gained, {len(self.lost)} lost at 90 % precision"
        return "\n".join([*(one.in_words(self.other.name) for one in self.differences[:2]), changes])


def read_run(path: Path, *, ground_truth: GroundTruth) -> OtherRun:
    """Read the predictions of a folder that match.py wrote, or of a predictions CSV.

    Raises InputError if there are none, or if the folder's metrics.json was made with another ground truth: its counts
    or its μAP differ from those with this one.
    """
    file = path / PREDICTIONS if path.is_dir() else path
    if not file.exists():
        what = f"a folder with {PREDICTIONS}, as match.py writes it" if path.is_dir() else "a run's folder"
        raise InputError(f"compare={path}: {file.name} is not there; expected {what}, or a predictions CSV")
    run = OtherRun(path.name or str(path), read_predictions(file, max_rows=sys.maxsize))
    said = file.parent / METRICS
    if path.is_dir() and said.exists():
        _require_same_truth(said, run.matches, ground_truth)
    return run


def _require_same_truth(path: Path, matches: Matches, ground_truth: GroundTruth) -> None:
    """Raise InputError unless this ground truth gives the counts and the μAP of the run's own metrics.json."""
    try:
        said = Fields(parse_json(read_text(path)))
        counts = {key: said.count(key) for key in ("num_positives", "num_dropped", "num_predictions")}
        average = said.number("average_precision")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as the figures of a run ({error}); expected match.py's") from error
    if counts["num_predictions"] != len(matches):
        raise InputError(
            f"{path.parent}: {METRICS} counts {counts['num_predictions']} predictions and {PREDICTIONS} has "
            f"{len(matches)}; expected files of one run"
        )
    found = evaluate(matches, ground_truth)
    pairs, rows = (abs(counts[key] - getattr(found, key)) for key in ("num_positives", "num_dropped"))
    what = {
        f"{pairs} true pairs differ ({counts['num_positives']} there, {found.num_positives} here)": pairs > 0,
        f"{rows} predictions differ in whether their query is judged": rows > 0,
    }
    reasons = [reason for reason, holds in what.items() if holds]
    if not reasons and abs(average - found.average_precision) > 1e-9:
        reasons = [
            f"as many true pairs, {found.num_positives}, but not the same: μAP {average:.6f} there is "
            f"{found.average_precision:.6f} by this one"
        ]
    if reasons:
        raise InputError(
            f"compare={path.parent}: judged by another ground truth: {'; '.join(reasons)}; expected a run judged by "
            "the same one: run match.py on it with this ground_truth="
        )


def compare(
    matches: Matches, ground_truth: GroundTruth, *, other: OtherRun, resampled: Resampled | None = None
) -> Comparison:
    """Compare this run's `matches` with those of the other; `resampled` is `bootstrap` of this run, if known.

    Raises InputError if the other run predicts for queries that are neither judged nor among this run's.
    """
    _require_known_queries(matches, ground_truth, other)
    now = resampled or bootstrap(matches, ground_truth)
    before = bootstrap(other.matches, ground_truth, resamples=len(now.average_precision), seed=now.seed)
    metrics, others = evaluate(matches, ground_truth), evaluate(other.matches, ground_truth)
    return Comparison(
        other=other,
        metrics=others,
        resampled=before,
        differences=tuple(
            _difference(figure, getattr(metrics, figure), getattr(others, figure), *_resamples(figure, now, before))
            for figure in LABELS
        ),
        judged=judge(matches, ground_truth, as_score(metrics.threshold_at_p90, matches)),
        before=judge(other.matches, ground_truth, as_score(others.threshold_at_p90, other.matches)),
    )


def _require_known_queries(matches: Matches, ground_truth: GroundTruth, other: OtherRun) -> None:
    predicted = set(other.matches.query_ids.tolist())
    unknown = predicted - ground_truth.queries - set(matches.query_ids.tolist())
    if unknown:
        raise InputError(
            f"compare={other.name}: {len(unknown)} of its {len(predicted)} queries, {min(unknown)!r} for one, are not "
            "among those of this run; expected a run of the same queries"
        )


def _resamples(figure: str, now: Resampled, before: Resampled) -> tuple[Values, Values]:
    name = {"recall_at_p90": "recall"}.get(figure, figure)
    return getattr(now, name), getattr(before, name)


def _difference(figure: str, now: float, before: float, many_now: Values, many_before: Values) -> Difference:
    differences = many_now - many_before
    return Difference(
        figure=figure,
        now=now,
        before=before,
        now_interval=interval(many_now),
        before_interval=interval(many_before),
        difference=now - before,
        interval=interval(differences),
        p=p_value(differences),
    )


def _known(value: object) -> object:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, tuple):
        return None if np.isnan(value[0]) else list(value)
    return None if isinstance(value, float) and np.isnan(value) else value


def signed(value: float) -> str:
    """Format a difference with its sign, a true minus, and four decimals."""
    return f"{value:+.4f}".replace("-", "−")


def _equals(p: float) -> str:
    return p_text(p) if p < 0.0005 else f"= {p_text(p)}"


def p_text(p: float) -> str:
    """Format p with three decimals; "< 0.001" instead of 0.000, and a dash for NaN."""
    if np.isnan(p):
        return "–"
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"
