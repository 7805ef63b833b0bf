"""The page that shows a run: curves, histogram, edits, and sheets of the hardest finds and the worst mistakes.

One HTML file that asks nothing of the network. Charts are SVG paths made here from numpy arrays, so that a report costs
no plotting library and follows the reader's light or dark scheme.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from isc.charts import curve_chart, histogram_chart, number, reliability_chart
from isc.descriptors import GroundTruth, IntArray, Matches
from isc.errors import InputError
from isc.io import write_text
from isc.metrics import Metrics, evaluate, precision_recall, ranks, reliability

SHOWN = 24  # pairs in a sheet
LONGEST = 224  # pixels of a picture's longest side
MAX_JPEG = 12_000  # bytes of a picture; 24 pairs in each of three sheets then stay below 3 MB

Flags = npt.NDArray[np.bool_]


class Evidence(Protocol):
    """Where a pair matches: polygons [K, 2] of (x, y) as fractions of the picture's width and height."""

    @property
    def query_region(self) -> npt.NDArray[np.float64]: ...
    @property
    def reference_region(self) -> npt.NDArray[np.float64]: ...
    @property
    def inliers(self) -> int: ...


@dataclass(frozen=True)
class Pictures:
    """The image files of queries and references, by id."""

    queries: Mapping[str, Path]
    references: Mapping[str, Path]


@dataclass(frozen=True)
class Judged:
    """Predictions of the judged queries (`matches`, with `right` [M]) against the true pairs (the rest, [P]).

    `row` is a true pair's position among the matches, or −1 where it was never predicted; `rank` counts from 0 and is
    −1 there; `score` is −inf there. `found` are the pairs at or above the threshold: as equal scores count against
    us, these are the pairs of recall at 90 % precision.
    """

    matches: Matches
    right: Flags
    pairs: Sequence[tuple[str, str]]
    row: IntArray
    rank: IntArray
    score: npt.NDArray[np.float64]
    found: Flags


@dataclass(frozen=True)
class Shown:
    """One pair of a sheet; `score` is None where it was never predicted, `instead` what its query ranked first."""

    query: str
    reference: str
    score: float | None
    note: str = ""
    instead: tuple[str, float] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.query, self.reference


@dataclass(frozen=True)
class Sheet:
    """`pairs` are those shown of `total`; `note` says which and in what order."""

    key: str
    title: str
    note: str
    total: int
    pairs: Sequence[Shown]


@dataclass(frozen=True)
class EditRow:
    """How the true copies with one kind of edit fared; shares in 0…1."""

    kind: str
    copies: int
    found: float
    first: float


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, or the reason why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def write_report(
    path: Path,
    matches: Matches,
    *,
    title: str,
    metrics: Metrics | None = None,
    ground_truth: GroundTruth | None = None,
    pictures: Pictures | None = None,
    edits: Mapping[str, Sequence[str]] | None = None,
    evidence: Mapping[tuple[str, str], Evidence] | None = None,
    provenance: Mapping[str, str] | None = None,
    probabilities: bool = False,
) -> None:
    """Write the page to `path`.

    `edits` names the edits that made a query, by query id; `evidence` the matching regions, by (query, reference) id.
    With `probabilities` the scores are such, and the page shows how far they may be believed.
    Without `metrics` they are computed from the ground truth; without ground truth the page shows the scores and the
    best pairs. Without `pictures` the sheets are tables. A picture that cannot be read is replaced by the reason.
    """
    import jinja2

    judged = curve = threshold = None
    if ground_truth is not None:
        metrics = metrics or evaluate(matches, ground_truth)
        threshold = as_score(metrics.threshold_at_p90, matches)
        judged = judge(matches, ground_truth, threshold)
        curve = precision_recall(judged.matches.score, judged.right, len(judged.pairs))
    shown = judged.matches if judged else matches
    believed = reliability(judged.matches.score, judged.right) if judged and probabilities else []
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("isc"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%"}
    page = environment.get_template("report.html").render(
        title=title,
        metrics=metrics,
        num_predictions=len(matches),
        tie_range=apart(*metrics.tie_range) if metrics else (),
        curve=curve_chart(curve, metrics.recall_at_p90 if metrics else 0.0) if curve else None,
        histogram=histogram_chart(shown.score, judged.right if judged else None, threshold) if len(shown) else None,
        reliability=reliability_chart(believed) if believed else None,
        edit_rows=edit_table(judged, edits) if judged and edits else [],
        sheets=sheets(judged, threshold) if judged else [best_sheet(matches)],
        edits=edits or {},
        evidence=evidence or {},
        points=lambda region: " ".join(f"{x:.4f},{y:.4f}" for x, y in np.asarray(region)),
        picture=picture_maker(pictures) if pictures else None,
        provenance=provenance or {},
    )
    write_text(path, page)


def apart(low: float, high: float) -> tuple[str, str]:
    """Both figures with four decimals, or as many more as it takes to tell them apart."""
    decimals = next((n for n in range(4, 16) if f"{low:.{n}f}" != f"{high:.{n}f}"), 4)
    return f"{low:.{decimals}f}", f"{high:.{decimals}f}"


# --- what is shown ---------------------------------------------------------------------------------------------------


def as_score(threshold: float | None, matches: Matches) -> float | None:
    """The threshold's decimals as one of the scores: of float32 ones they are the shortest, not the number itself."""
    return None if threshold is None else float(matches.score.dtype.type(threshold))


def judge(matches: Matches, ground_truth: GroundTruth, threshold: float | None) -> Judged:
    """Every prediction of a judged query, and every true pair with its row, rank and score."""
    kept = matches.take(ground_truth.judged(matches))
    right = ground_truth.right(kept)
    rows = np.flatnonzero(right)
    names = zip(kept.query_ids[kept.query[rows]], kept.reference_ids[kept.reference[rows]], strict=True)
    place = dict(zip(names, zip(rows.tolist(), ranks(kept, right).tolist(), strict=True), strict=True))
    pairs = sorted(ground_truth.pairs)
    row, rank = np.array([place.get(pair, (-1, -1)) for pair in pairs], np.int64).reshape(-1, 2).T
    score = np.full(len(pairs), -np.inf)
    score[row >= 0] = kept.score[row[row >= 0]]
    found = score >= threshold if threshold is not None else np.zeros(len(pairs), bool)
    return Judged(kept, right, pairs, row, rank, score, found)


def sheets(judged: Judged, threshold: float | None) -> list[Sheet]:
    """The hardest finds, the misses from the nearest to the farthest, and the wrong pairs with the highest scores."""
    found = np.flatnonzero(judged.found)
    found = found[np.argsort(judged.score[found], kind="stable")]
    missed = np.flatnonzero(~judged.found)
    missed = missed[np.argsort(-judged.score[missed], kind="stable")]
    wrong = np.flatnonzero(~judged.right)
    found_note = "Right pairs at or above the threshold, lowest score first: the hardest copies that were found."
    if threshold is None:
        found_note = "No score reaches 90 % precision, so nothing counts as found; every true pair is among the missed."
    missed_note = "True pairs below the threshold or never predicted, from the nearest miss to the farthest"
    missed_note += "." if len(missed) <= SHOWN else f"; {SHOWN} of them, evenly spread."
    return [
        Sheet("found", "Found", found_note, len(found), [_true_pair(judged, i) for i in found[:SHOWN]]),
        Sheet("missed", "Missed", missed_note, len(missed), [_missed_pair(judged, i) for i in spread(missed, SHOWN)]),
        Sheet(
            "wrong",
            "Wrong",
            "Predicted pairs that are not in the ground truth, highest score first.",
            len(wrong),
            [_wrong_pair(judged.matches, i, threshold) for i in top(judged.matches, wrong, SHOWN)],
        ),
    ]


def best_sheet(matches: Matches) -> Sheet:
    rows = top(matches, np.arange(len(matches)), SHOWN)
    note = "The predictions with the highest scores, best first."
    return Sheet("best", "Best pairs", note, len(matches), [_wrong_pair(matches, i, None) for i in rows])


def top(matches: Matches, rows: IntArray, count: int) -> IntArray:
    """Those `count` of `rows` with the highest scores, best first; equal scores by query, then reference position."""
    if len(rows) > count:  # sort only what can be among them
        score = matches.score[rows]
        rows = rows[score >= np.partition(score, -count)[-count]]
    order = np.lexsort((matches.reference[rows], matches.query[rows], -matches.score[rows]))
    return rows[order[:count]]


def spread(positions: IntArray, count: int) -> IntArray:
    """At most `count` of the positions, evenly spaced, the first and the last among them."""
    if len(positions) <= count:
        return positions
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(np.int64)]


def _true_pair(judged: Judged, i: int) -> Shown:
    note = "" if judged.rank[i] == 0 else f"rank {judged.rank[i] + 1} of its query"
    return Shown(*judged.pairs[i], score=float(judged.score[i]), note=note)


def _missed_pair(judged: Judged, i: int) -> Shown:
    query, reference = judged.pairs[i]
    if judged.row[i] >= 0 and judged.rank[i] == 0:
        return Shown(query, reference, float(judged.score[i]), "ranked first, but its score is below the threshold")
    matches = judged.matches
    of_query = np.isin(matches.query, np.flatnonzero(matches.query_ids == query))
    others = np.setdiff1d(np.flatnonzero(of_query), judged.row[i])
    if not len(others):
        return Shown(query, reference, None, "never predicted; its query has no prediction at all")
    first = top(matches, others, 1)[0]
    instead = (str(matches.reference_ids[matches.reference[first]]), float(matches.score[first]))
    if judged.row[i] < 0:
        return Shown(query, reference, None, "never predicted", instead)
    return Shown(query, reference, float(judged.score[i]), f"rank {judged.rank[i] + 1} of its query", instead)


def _wrong_pair(matches: Matches, row: int, threshold: float | None) -> Shown:
    score = float(matches.score[row])
    note = "above the threshold" if threshold is not None and score >= threshold else ""
    return Shown(matches.query_ids[matches.query[row]], matches.reference_ids[matches.reference[row]], score, note)


@cache
def edit_kind(name: str) -> str:
    """An edit's name up to its parameter: "crop 42 %" is a "crop", "blur σ 2 px" a "blur", "text, lines: 3" a "text".

    That is up to the first comma, colon, bracket or number, less a preposition or a lone symbol at the end.
    """
    start = re.split(r"[,:;(\[{=]|(?<=\s)[-+−±~≈×x]?\d", name.strip(), maxsplit=1)[0]
    return re.sub(r"(\s+(to|by|at|of|with|[^\W\d_]|\W+))*\s*$", "", start) or name


def edit_table(judged: Judged, edits: Mapping[str, Sequence[str]]) -> list[EditRow]:
    """All true copies with named edits, then each kind of edit, the hardest first; empty where none is named."""
    having: dict[str, list[int]] = {}
    for i, (query, _) in enumerate(judged.pairs):
        for kind in {edit_kind(name) for name in edits.get(query, ())}:
            having.setdefault(kind, []).append(i)
    if not having:
        return []
    rows = sorted((_edit_row(judged, kind, i) for kind, i in having.items()), key=lambda r: (r.found, r.first, r.kind))
    return [_edit_row(judged, "any edit", {i for copies in having.values() for i in copies}), *rows]


def _edit_row(judged: Judged, kind: str, copies: Iterable[int]) -> EditRow:
    at = np.array(sorted(copies))
    return EditRow(kind, len(at), float(judged.found[at].mean()), float((judged.rank[at] == 0).mean()))


# --- pictures --------------------------------------------------------------------------------------------------------


def picture_maker(pictures: Pictures) -> Callable[[str, str, int], Thumbnail]:
    """A function from ("query" or "reference", id, longest side) to its thumbnail; each is read once."""
    files = {"query": pictures.queries, "reference": pictures.references}
    return cache(lambda side, name, longest: thumbnail(files[side].get(name), longest))


def thumbnail(path: Path | None, longest: int) -> Thumbnail:
    """The picture at most `longest` pixels wide and high, as JPEG of quality 80, or less where that is too large."""
    from isc.images import encode_jpeg, fit_within, read_image

    if path is None:
        return Thumbnail(reason="no image file has this id")
    try:
        pixels = fit_within(read_image(path), longest)
    except InputError as error:
        return Thumbnail(reason=str(error).replace(str(path), path.name))
    jpegs = (encode_jpeg(pixels, quality=quality) for quality in (80, 60, 40, 20))
    data = next((jpeg for jpeg in jpegs if len(jpeg) <= MAX_JPEG), None) or encode_jpeg(pixels, quality=10)
    uri = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return Thumbnail(uri, width=pixels.shape[1], height=pixels.shape[0])
