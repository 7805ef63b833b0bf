"""Quality of the stored probabilities and thresholds on runs that they were not fitted on.

    python -m benchmarks.calibration NAME=RUN_DIR:GT.csv[:QUERIES.h5] … [--calibration FILE.json]

Each RUN_DIR is an output of match.py for descriptors of a model with a calibration; QUERIES.h5 are the queries'
descriptors, for runs by distance. Each run is also judged with fewer copies among its queries: those with a copy are
left out at random until the wanted share is left, in DRAWS draws that are counted together. The figures say what a user
with such a share sees: the precision of the accepted pairs, beside the precision that was asked for. --calibration
takes another file than the model's, such as one that `isc calibrate` has fitted without a kind of edits; it is not
published.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import save
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.hdf5 import read_descriptors
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.calibration.apply import Applied, apply
from isc.evaluate.calibration.files import MODEL, CalibrationFile, calibration_for
from isc.evaluate.calibration.fit import LabelledRun
from isc.evaluate.calibration.score_origin import ScoreOrigin, read_made
from isc.evaluate.calibration.versions import read_versions
from isc.evaluate.metrics import reliability, wilson
from isc.match.verification.rivals import are_sure, part_of
from isc.search.unrelated import unrelated_distance

SHARES = (None, 0.1, 0.02)  # of the queries that have a copy; None: as they are
DRAWS = 10
COLUMNS = ("unrelated", "picture", "part", "log_nfa")  # of a run, with a value for each pair


@dataclasses.dataclass(frozen=True)
class Run:
    """Predictions of judged queries with their truth and origin.

    `unrelated` [M] is of each pair's query, or None; `picture` [M] says which references are versions of one picture,
    `part` [M] which part of its query each pair shows, `log_nfa` [M] how it is aligned.
    """

    name: str
    matches: Matches
    truth: GroundTruth
    made: ScoreOrigin
    stored: CalibrationFile
    unrelated: npt.NDArray[np.float64] | None
    picture: npt.NDArray[np.int64] | None = None
    part: npt.NDArray[np.int64] | None = None
    log_nfa: npt.NDArray[np.float64] | None = None

    def with_share(self, share: float | None, seed: int) -> "Run":
        """Leave out queries with a copy at random, until `share` of the queries have one."""
        if share is None:
            return self
        part = LabelledRun(self.name, self.matches, self.truth, self.made).with_share(share, seed=seed)
        kept = np.isin(self.matches.keys(), part.matches.keys())
        columns = {name: None if (one := getattr(self, name)) is None else one[kept] for name in COLUMNS}
        return dataclasses.replace(self, matches=self.matches.take(kept), truth=part.truth, **columns)

    def applied(self) -> Applied:
        return apply(
            self.stored,
            self.matches,
            queries=len(self.truth.queries),
            references=self.made.references,
            **{name: getattr(self, name) for name in COLUMNS},
        )


def read(text: str, calibration: str = MODEL) -> Run:
    name, _, rest = text.partition("=")
    folder, truth_path, *queries = rest.split(":")
    truth, made = read_ground_truth(Path(truth_path)), read_made(Path(folder))
    matches = read_predictions(Path(folder) / "predictions.csv", max_rows=made.queries * made.references)
    matches = matches.take(truth.judged(matches))
    stored, note = calibration_for(calibration, made)
    if stored is None:
        raise SystemExit(f"{text}: no calibration holds: {note}")
    unrelated = None
    if stored.calibration.unrelated is not None:
        if not queries:
            raise SystemExit(f"{text}: expected :QUERIES.h5 at the end, as the calibration compares them")
        own = read_descriptors(Path(queries[0]))
        row = {query: at for at, query in enumerate(own.ids)}
        rows = np.array([row[query] for query in matches.query_ids])
        unrelated = unrelated_distance(own.vectors[rows], stored.calibration.unrelated)[matches.query]
    picture = read_versions(Path(folder), matches)
    return Run(name, matches, truth, made, stored, unrelated, picture, *aligned(Path(folder), matches))


def aligned(run: Path, matches: Matches) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | tuple[None, None]:
    """Return the part of its query that each pair [M] shows, and its log_nfa, by the run's evidence.jsonl, if any."""
    if not (run / "evidence.jsonl").is_file():
        return None, None
    lines = map(json.loads, (run / "evidence.jsonl").read_text(encoding="utf-8").splitlines())
    told = {(line["query_id"], line["reference_id"]): line for line in lines}
    regions, log_nfa = {}, np.full(len(matches), np.nan)
    for row in range(len(matches)):
        if (line := told.get(matches.ids(row))) is None:
            continue
        log_nfa[row] = line["log_nfa"]
        if are_sure(np.array(line["log_nfa"]), np.array(line["agreement"])):
            regions[row] = np.array(line["query_region"])
    return part_of(matches, regions), log_nfa


def row(run: Run, share: float | None) -> dict[str, object]:
    accepted = copies = positives = 0
    errors, shares = [], []
    draws = 1 if share is None else DRAWS
    for seed in range(draws):
        part = run.with_share(share, seed)
        found, correct = part.applied(), part.truth.correct(part.matches)
        accepted, copies = accepted + int(found.accepted.sum()), copies + int(correct[found.accepted].sum())
        positives += len(part.truth.pairs)
        bins = reliability(found.probability, correct)
        errors.append(sum(one.pairs * abs(one.mean - one.correct) for one in bins) / len(correct))
        shares.append((found.prior.copies, len(part.truth.pairs) / len(part.truth.queries)))
    estimate, actual = np.mean(shares, axis=0)
    low, high = wilson(copies // draws, max(accepted // draws, 1)) if accepted else (0.0, 1.0)
    return {
        "run": run.name,
        "scores": run.made.scores,
        "asked": run.stored.calibration.wanted.precision,
        "copies a query": f"{actual:.3f}",
        "as estimated": f"{estimate:.3f}",
        "accepted": f"{accepted / draws:.0f}",
        "precision": f"{copies / accepted:.3f} ({low:.3f} … {high:.3f})" if accepted else "–",
        "recall": f"{copies / positives:.3f}",
        "calibration error": f"{np.mean(errors):.4f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN_DIR:GT.csv[:QUERIES.h5]")
    parser.add_argument("--calibration", default=MODEL, metavar="FILE.json")
    given = parser.parse_args()
    rows = [row(run, share) for run in (read(text, given.calibration) for text in given.runs) for share in SHARES]
    if given.calibration == MODEL:
        save("calibration", rows)
    else:
        print(*rows, sep="\n")


if __name__ == "__main__":
    main()
