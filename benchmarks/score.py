"""Judging 500,000 predictions, beside the sort that no implementation can avoid, and the whole command."""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import save, seconds
from isc.descriptors import GroundTruth, Matches
from isc.io import read_predictions, write_ground_truth, write_predictions
from isc.metrics import evaluate

ROWS = 500_000
QUERIES = 50_000
REFERENCES = 1_000_000


def predictions(rng: np.random.Generator) -> tuple[Matches, GroundTruth]:
    query = np.repeat(np.arange(QUERIES), ROWS // QUERIES)
    reference = rng.choice(REFERENCES, ROWS, replace=False)
    matches = Matches(
        np.array([f"Q{i:05d}" for i in range(QUERIES)], dtype=object),
        np.array([f"R{i:06d}" for i in range(REFERENCES)], dtype=object),
        query,
        reference,
        rng.standard_normal(ROWS).astype(np.float32),
    )
    right = range(0, ROWS // 2, ROWS // QUERIES)
    pairs = {(f"Q{query[i]:05d}", f"R{reference[i]:06d}") for i in right}
    return matches, GroundTruth(frozenset(matches.query_ids), frozenset(pairs))


def main() -> None:
    matches, truth = predictions(np.random.default_rng(0))
    sort = seconds(lambda: np.argsort(-matches.score, kind="stable"))
    judge = seconds(lambda: evaluate(matches, truth))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_predictions(folder / "p.csv", matches)
        write_ground_truth(folder / "gt.csv", [(q, r) for q, r in truth.pairs])
        bare = seconds(lambda: list(csv.reader((folder / "p.csv").open(newline=""))))
        read = seconds(lambda: read_predictions(folder / "p.csv"))
        command = [
            sys.executable,
            "-c",
            "from isc.cli import match; match()",
            f"submission={folder / 'p.csv'}",
            f"ground_truth={folder / 'gt.csv'}",
            f"output={folder / 'out'}",
        ]
        whole = seconds(lambda: subprocess.run(command, check=True, capture_output=True), repeats=3)
    save(
        "score",
        [
            _row("evaluate 500,000 predictions", judge, "one sort of the scores", sort),
            _row("read and check predictions.csv, 500,000 rows", read, "csv.reader alone", bare),
            _row("match.py submission=predictions.csv, 500,000 rows", whole, "read + evaluate", read + judge),
        ],
    )


def _row(what: str, time: float, bound: str, bound_time: float) -> dict[str, object]:
    return {"what": what, "seconds": round(time, 3), "beside": bound, "ratio": round(time / bound_time, 2)}


if __name__ == "__main__":
    main()
