"""Search for photos of dev and test that show the same as a training photo.

    python -m benchmarks.apart SPLIT WORK

SPLIT is made by `python -m benchmarks.judge split`; its parts hold different files. This program finds photos that show
the same nevertheless (a second file, a crop, another shot of the same scene a moment later): first by the descriptors
of isc_small, then by a comparison of the pixels, as in isc benchmark. It writes benchmarks/results/apart.csv with the
columns `judge_photo,training_photo,distance,inliers,agreement`. `judge split` leaves the photos of the first column out
of dev and test. Descriptors are kept in WORK.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import RESULTS
from isc.benchmark.near_duplicates import FARTHEST, LEAST, NEIGHBOURS, describe
from isc.data.csv_files import write_csv
from isc.data.matches import Matches
from isc.match.verification.compare import verify
from isc.match.verification.quantities import EVIDENCE
from isc.photos.folders import list_images
from isc.search.exact import nearest

KEPT = RESULTS / "apart.csv"
COLUMNS = ("judge_photo", "training_photo", "distance", "inliers", "agreement")


def left_out() -> frozenset[str]:
    """Return the ids of the judges' photos that show the same as a training photo."""
    if not KEPT.exists():
        return frozenset()
    with KEPT.open(newline="", encoding="utf-8") as file:
        return frozenset(row["judge_photo"] for row in csv.DictReader(file))


def same_in(split: Path, part: str, work: Path) -> Iterator[tuple[str, str, str, int, str]]:
    """Yield a row of COLUMNS for each pair of a photo of `part` and a training photo that show the same, by id."""
    photos = {name: list_images(split / name) for name in (part, "training")}
    described = {}
    for name, images in photos.items():
        (work / name).mkdir(parents=True, exist_ok=True)
        described[name] = describe(images, work / name)
    ours, theirs = described[part], described["training"]
    row, distance = nearest(ours.vectors, theirs.vectors, k=NEIGHBOURS)
    near = distance.reshape(-1) <= FARTHEST
    one = np.repeat(np.arange(len(ours)), NEIGHBOURS)[near]
    pairs = Matches(ours.ids, theirs.ids, one, row.reshape(-1)[near], -distance.reshape(-1)[near])
    evidence = verify(pairs, photos[part], photos["training"]).evidence
    column = {name: evidence[:, place] for place, name in enumerate(EVIDENCE)}
    for found in np.flatnonzero(np.logical_and.reduce([column[name] >= least for name, least in LEAST.items()])):
        yield (
            str(ours.ids[pairs.query[found]]),
            str(theirs.ids[pairs.reference[found]]),
            f"{-pairs.score[found]:.4f}",
            int(column["inliers"][found]),
            f"{column['agreement'][found]:.3f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", type=Path)
    parser.add_argument("work", type=Path)
    given = parser.parse_args()
    rows = [row for part in ("dev", "test") for row in same_in(given.split, part, given.work)]
    write_csv(KEPT, COLUMNS, iter(rows))
    print(f"{len({row[0] for row in rows})} photos of dev and test show what a training photo shows; see {KEPT}")


if __name__ == "__main__":
    main()
