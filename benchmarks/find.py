"""How far the verdicts of isc find hold: each picture of a judge's queries, asked of its references.

    python -m benchmarks.find JUDGE …

A JUDGE is a half of `python -m benchmarks.judge` or `.judge_make`: queries/, references/ and ground_truth.csv.
Thresholds were chosen on the dev halves; the test halves say what to expect. A verdict is right if the named photo is
the one that the query was made from.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import save
from isc.data.csv_files import read_ground_truth
from isc.evaluate.metrics import wilson
from isc.find.index import Index
from isc.find.results import Verdict


def rows_of(judge: Path, *, pixels: bool) -> list[dict[str, object]]:
    """Return a row for each verdict: how many queries got it, and how many of these name the right photo."""
    truth = read_ground_truth(judge / "ground_truth.csv")
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder) / "known.index")
        index.add(judge / "references")
        started = time.perf_counter()
        found = index.find(judge / "queries", pixels=pixels)
        done = time.perf_counter()
    rows: list[dict[str, object]] = []
    for verdict in (Verdict.copy, Verdict.perhaps):
        of = found.of_verdict(verdict)
        right = sum((Path(one.suspect).stem, Path(str(one.photo)).stem) in truth.pairs for one in of)
        low, high = wilson(right, len(of)) if of else (0.0, 1.0)
        rows.append(
            {
                "judge": judge.name,
                "compared": "descriptors and pixels" if pixels else "descriptors alone (--fast)",
                "verdict": verdict.value,
                "queries": len(of),
                "right": f"{right / len(of):.3f} ({low:.3f} … {high:.3f})" if of else "–",
                "of all copies": f"{right / len(truth.pairs):.3f}",
                "finding, queries/s": f"{len(found) / (done - started):.1f}",
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judges", type=Path, nargs="+", metavar="JUDGE", help="halves of a judge")
    given = parser.parse_args()
    save("find", [row for judge in given.judges for pixels in (True, False) for row in rows_of(judge, pixels=pixels)])
