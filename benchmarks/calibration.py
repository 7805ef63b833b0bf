"""Quality of calibrated probabilities and thresholds on queries and runs that they were not fitted on.

python -m benchmarks.calibration NAME=RUN_DIR:GT.csv … [--precision 0.9]

Each RUN_DIR is an output of match.py. A calibration is fitted on one half of a run's queries and judged on the other
half, and it is fitted on whole runs and judged on others with the same kind of score. For comparison, each run is also
judged without a calibration. Its probabilities are then those of the shipped fusion from the distance alone (fitted on
copies of training photos), or on the matching track its own scores; its threshold is the lowest score at which the mean
probability of the pairs at or above it reaches the wanted precision.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import save
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.matches import GroundTruth, Matches
from isc.data.model_files import SHIPPED
from isc.evaluate.calibration.fit import fit
from isc.evaluate.calibration.maps import log_likelihood
from isc.evaluate.calibration.score_origin import PROBABILITY, ScoreOrigin, read_made
from isc.evaluate.calibration.shift import best_scores, shift
from isc.evaluate.metrics import reliability, wilson
from isc.match.verification.fusion_files import read_fusion

HALVES = 10  # random divisions of a run's queries into two halves


@dataclasses.dataclass(frozen=True)
class Run:
    """Predictions of judged queries, their ground truth, and the origin of the scores."""

    name: str
    matches: Matches
    truth: GroundTruth
    made: ScoreOrigin

    def part(self, queries: frozenset[str]) -> "Run":
        truth = GroundTruth(queries, frozenset(pair for pair in self.truth.pairs if pair[0] in queries))
        made = dataclasses.replace(self.made, queries=len(queries))
        return Run(self.name, self.matches.take(truth.judged(self.matches)), truth, made)


@dataclasses.dataclass(frozen=True)
class Judged:
    """The quality of probabilities and of a threshold on one run.

    It has the calibration error, the mean log-likelihood of a pair, the pairs at or above the threshold (`accepted`)
    and the correct ones among them (`copies`), all true pairs (`positives`), and the shift of the queries' best scores.
    """

    error: float
    likelihood: float
    accepted: int
    copies: int
    positives: int
    distance: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN_DIR:GT.csv")
    parser.add_argument("--precision", type=float, default=0.9)
    given = parser.parse_args()
    runs = [read(text) for text in given.runs]
    rows: list[dict[str, object]] = []
    for run in runs:
        rows.append(row(run, "nothing: as it is", uncalibrated(run, given.precision)))
        rows.append(row(run, f"the other half of its queries, {HALVES} times", *halves(run, given.precision)))
        others = [one for one in runs if one is not run and not list(run.made.differences(one.made))]
        rows += [row(run, one.name, crossed(one, run, given.precision)) for one in others]
    save("calibration", rows)


def read(text: str) -> Run:
    name, _, rest = text.partition("=")
    folder, _, truth_path = rest.rpartition(":")
    truth = read_ground_truth(Path(truth_path))
    made = read_made(Path(folder))
    matches = read_predictions(Path(folder) / "predictions.csv", max_rows=made.queries * made.references)
    return Run(name, matches.take(truth.judged(matches)), truth, made)


def uncalibrated(run: Run, precision: float) -> Judged:
    """Judge a run by the probabilities that exist without a calibration."""
    score = run.matches.score.astype(np.float64)
    if run.made.scores != PROBABILITY:
        score = read_fusion(SHIPPED / "isc_small.fusion.json").fusion.probability(-score)
    order = np.sort(score)[::-1]
    expected = np.cumsum(order) / np.arange(1, len(order) + 1)
    reaches = np.flatnonzero(expected >= precision)
    return judge(run, score, score >= order[reaches[-1]] if len(reaches) else np.zeros(len(score), bool))


def halves(run: Run, precision: float) -> list[Judged]:
    """Judge both halves of HALVES random divisions, each by the calibration fitted on the other half."""
    names = np.array(sorted(run.truth.queries), object)
    found = []
    for seed in range(HALVES):
        shuffled = np.random.default_rng(seed).permutation(names)
        one, two = (run.part(frozenset(shuffled[half::2])) for half in (0, 1))
        found += [crossed(one, two, precision), crossed(two, one, precision)]
    return found


def crossed(fitted: Run, run: Run, precision: float) -> Judged:
    """Judge `run` by the calibration fitted on `fitted`."""
    calibration = fit(fitted.matches, fitted.truth, fitted.made, precision=precision)
    threshold = calibration.wanted.threshold
    score = run.matches.score
    accepted = np.zeros(len(score), bool) if threshold is None else score >= threshold
    best = best_scores(run.matches, len(run.truth.queries))
    distance = shift(best, calibration.best).distance if best else 1.0
    return dataclasses.replace(judge(run, calibration.map(score), accepted), distance=distance)


def judge(run: Run, probability: npt.NDArray[np.float64], accepted: npt.NDArray[np.bool_]) -> Judged:
    correct = run.truth.correct(run.matches)
    bins = reliability(probability, correct)
    error = sum(one.pairs * abs(one.mean - one.correct) for one in bins) / len(correct)
    copies, positives = int(correct[accepted].sum()), len(run.truth.pairs)
    return Judged(error, log_likelihood(probability, correct), int(accepted.sum()), copies, positives)


def row(run: Run, fitted: str, *judged: Judged) -> dict[str, object]:
    accepted, copies = sum(one.accepted for one in judged), sum(one.copies for one in judged)
    low, high = wilson(copies // max(len(judged) // 2, 1), accepted // max(len(judged) // 2, 1))
    return {
        "run": run.name,
        "scores": run.made.scores,
        "fitted on": fitted,
        "log-likelihood of a pair": f"{np.mean([one.likelihood for one in judged]):.5f}",
        "calibration error": f"{np.mean([one.error for one in judged]):.4f}",
        "precision at the threshold": f"{copies / accepted:.3f} ({low:.3f} … {high:.3f})"
        if accepted
        else "none accepted",
        "recall at the threshold": f"{copies / sum(one.positives for one in judged):.3f}",
        "shift": f"{np.mean([one.distance for one in judged]):.2f}" if fitted != "nothing: as it is" else "",
    }


if __name__ == "__main__":
    main()
