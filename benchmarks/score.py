"""Time to judge 500,000 predictions, compared with plain Python; to read them; and of the whole command."""

import csv
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from benchmarks import save, seconds
from isc.data.csv_files import read_ground_truth, read_predictions, write_ground_truth, write_predictions
from isc.data.matches import GroundTruth, Matches
from isc.evaluate.metrics import evaluate

ROWS = 500_000
QUERIES = 50_000
POSITIVES = 10_000  # queries with a reference, as in either phase of the challenge
REFERENCES = 1_000_000

Prediction = tuple[str, str, float]


def predictions(rng: np.random.Generator) -> tuple[Matches, GroundTruth]:
    """Return ten predictions per query; the first queries have a correct one, usually with a higher score."""
    query = np.repeat(np.arange(QUERIES), ROWS // QUERIES)
    reference = rng.choice(REFERENCES, ROWS, replace=False)
    correct = np.arange(POSITIVES) * (ROWS // QUERIES)
    score = rng.standard_normal(ROWS)
    score[correct] += 3
    order = rng.permutation(ROWS)
    matches = Matches(
        np.array([f"Q{i:05d}" for i in range(QUERIES)], dtype=object),
        np.array([f"R{i:06d}" for i in range(REFERENCES)], dtype=object),
        query[order],
        reference[order],
        score[order].astype(np.float32),
    )
    pairs = {(f"Q{query[i]:05d}", f"R{reference[i]:06d}") for i in correct}
    return matches, GroundTruth(frozenset(matches.query_ids), frozenset(pairs))


def plain_evaluate(
    predictions: Sequence[Prediction], queries: Collection[str], pairs: Collection[tuple[str, str]]
) -> dict[str, object]:
    """Return the figures of `evaluate`, computed by their definition without numpy."""
    kept = [prediction for prediction in predictions if prediction[0] in queries]
    worst = sorted((-score, (query, reference) in pairs) for query, reference, score in kept)
    average_precision, recall, threshold, num_right = 0.0, 0.0, None, 0
    for place, (negative, correct) in enumerate(worst, 1):
        if correct:
            num_right += 1
            average_precision += num_right / place / len(pairs)
            if num_right / place >= 0.9:
                recall, threshold = num_right / len(pairs), -negative
    best = sorted((-score, (query, reference) not in pairs) for query, reference, score in kept)
    best_average_precision, num_right = 0.0, 0
    for place, (_, wrong) in enumerate(best, 1):
        if not wrong:
            num_right += 1
            best_average_precision += num_right / place / len(pairs)
    of_query = defaultdict(list)
    for query, _, score in kept:
        of_query[query].append(score)
    found = [(query, score) for query, reference, score in kept if (query, reference) in pairs]
    ranks = [sum(other >= score for other in of_query[query]) - 1 for query, score in found]
    return {
        "average_precision": average_precision,
        "recall_at_p90": recall,
        "threshold_at_p90": threshold,
        "recall_at_rank1": sum(rank < 1 for rank in ranks) / len(pairs),
        "recall_at_rank10": sum(rank < 10 for rank in ranks) / len(pairs),
        "num_predictions": len(predictions),
        "num_dropped": len(predictions) - len(kept),
        "num_positives": len(pairs),
        "tie_range": [average_precision, best_average_precision],
    }


def require_same(ours: dict[str, object], plain: dict[str, object]) -> None:
    for name in ours.keys() | plain.keys():
        pair = [np.atleast_1d(one[name]).astype(np.float64) for one in (ours, plain)]
        if not np.allclose(*pair, rtol=0, atol=1e-12, equal_nan=True):
            raise SystemExit(f"{name} differs: {ours[name]}, in plain Python {plain[name]}")


def main() -> None:
    matches, truth = predictions(np.random.default_rng(0))
    rows = list(
        zip(
            matches.query_ids[matches.query].tolist(),
            matches.reference_ids[matches.reference].tolist(),
            [float(str(score)) for score in matches.score],
            strict=True,
        )
    )
    queries, pairs = set(truth.queries), set(truth.pairs)
    require_same(evaluate(matches, truth).as_dict(), plain_evaluate(rows, queries, pairs))
    judge = seconds(lambda: evaluate(matches, truth), repeats=9)
    plain = seconds(lambda: plain_evaluate(rows, queries, pairs), repeats=3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_predictions(folder / "p.csv", matches)
        write_ground_truth(folder / "gt.csv", [*pairs, *((query, "") for query in truth.queries)])
        read = seconds(lambda: read_predictions(folder / "p.csv"))
        both = seconds(lambda: evaluate(read_predictions(folder / "p.csv"), read_ground_truth(folder / "gt.csv")))
        bare = seconds(lambda: _read_bare(folder / "p.csv"))
        command = [
            sys.executable,
            "-c",
            "from isc.cli.verbs import match; match()",
            f"submission={folder / 'p.csv'}",
            f"ground_truth={folder / 'gt.csv'}",
            f"output={folder / 'out'}",
        ]
        whole = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    save(
        "score",
        [
            _row("evaluate 500,000 predictions", judge, "plain Python", plain),
            _row("read and check predictions.csv, 500,000 rows", read, "csv.reader alone", bare),
            _row("read both files and evaluate, 500,000 rows", both, "bound", 1.0),
            _row("match.py submission=predictions.csv, 500,000 rows", whole, "read both files and evaluate", both),
        ],
    )


def _read_bare(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def _row(what: str, time: float, other: str, other_time: float) -> dict[str, object]:
    return {
        "what": what,
        "seconds": round(time, 3),
        "beside": other,
        "its seconds": round(other_time, 3),
        "times as fast": round(other_time / time, 2),
    }


if __name__ == "__main__":
    main()
