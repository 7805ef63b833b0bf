"""The page that shows a run: curves, histogram, edits, and sheets of the hardest finds and the worst mistakes.

One HTML file that asks nothing of the network. Charts are SVG paths made here from numpy arrays, so that a report costs
no plotting library and follows the reader's light or dark scheme.
"""

from __future__ import annotations

import base64
import heapq
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from isc.descriptors import FloatArray, GroundTruth, IntArray, Matches
from isc.errors import InputError
from isc.io import write_text
from isc.metrics import Curve, Metrics, evaluate, precision_recall, ranks

SHOWN = 24  # pairs in a sheet
LONGEST = 224  # pixels of a picture's longest side
MAX_JPEG = 12_000  # bytes of a picture; 24 pairs in each of three sheets then stay below 3 MB
LEFT, RIGHT, TOP, BOTTOM = 64.0, 468.0, 22.0, 268.0  # the plot inside a chart of 480 × 320; the template knows them

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
class Chart:
    """Places are in the SVG's units: ticks (place, label), paths (CSS class, path), a dashed guide with its label."""

    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    paths: Sequence[tuple[str, str]]
    guide: tuple[str, str, float, float] | None = None  # path, label, x and y of the label
    dot: tuple[float, float] | None = None
    logarithmic: bool = False


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
) -> None:
    """Write the page to `path`.

    `edits` names the edits that made a query, by query id; `evidence` the matching regions, by (query, reference) id.
    Without `metrics` they are computed from the ground truth; without ground truth the page shows the scores and the
    best pairs. Without `pictures` the sheets are tables. A picture that cannot be read is replaced by the reason.
    """
    import jinja2

    judged = curve = None
    if ground_truth is not None:
        metrics = metrics or evaluate(matches, ground_truth)
        judged = judge(matches, ground_truth, metrics.threshold_at_p90)
        curve = precision_recall(judged.matches.score, judged.right, len(judged.pairs))
    threshold = metrics.threshold_at_p90 if metrics else None
    shown = judged.matches if judged else matches
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
        edit_rows=edit_table(judged, edits) if judged and edits else [],
        sheets=sheets(judged, threshold) if judged else [best_sheet(matches)],
        edits=edits or {},
        evidence=evidence or {},
        points=lambda region: " ".join(f"{x:.4f},{y:.4f}" for x, y in np.asarray(region)),
        picture=picture_maker(pictures) if pictures else None,
        provenance=provenance or {},
    )
    write_text(path, page)


def number(value: float, digits: int = 4) -> str:
    """So many significant digits and a true minus sign; whole numbers in full, their thousands apart."""
    return (f"{value:,}" if isinstance(value, int) else f"{value:#.{digits}g}").replace("-", "−")


def apart(low: float, high: float) -> tuple[str, str]:
    """Both figures with four decimals, or as many more as it takes to tell them apart."""
    decimals = next((n for n in range(4, 16) if f"{low:.{n}f}" != f"{high:.{n}f}"), 4)
    return f"{low:.{decimals}f}", f"{high:.{decimals}f}"


# --- what is shown ---------------------------------------------------------------------------------------------------


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


# --- charts ----------------------------------------------------------------------------------------------------------


def curve_chart(curve: Curve, recall_at_p90: float) -> Chart:
    """Precision over recall after each prediction, both axes 0…1."""
    kept = thin(curve.recall, curve.precision)
    tenths = [(value / 10, f"{value / 10:.1f}") for value in range(0, 11, 2)]
    at = int(np.argmax((curve.recall >= recall_at_p90) & (curve.precision >= 0.9))) if recall_at_p90 > 0 else None
    return Chart(
        x_ticks=[(float(_x(value)), label) for value, label in tenths],
        y_ticks=[(float(_y(value)), label) for value, label in tenths],
        paths=[("curve", polyline(_x(curve.recall[kept]), _y(curve.precision[kept])))],
        guide=(f"M{LEFT},{_y(0.9):.1f} H{RIGHT}", "90 % precision", LEFT, float(_y(0.9)) + 15),
        dot=None if at is None else (float(_x(curve.recall[at])), float(_y(curve.precision[at]))),
    )


def histogram_chart(score: FloatArray, right: Flags | None, threshold: float | None, *, bins: int = 60) -> Chart:
    """Pairs per score, wrong and right ones laid over each other; of few pairs linear, of many logarithmic in 1 + n."""
    low, high = score_range(score)
    edges = np.linspace(low, high, bins + 1)
    groups = [("all", score)] if right is None else [("wrong", score[~right]), ("right", score[right])]
    counts = {name: np.histogram(np.clip(values, low, high), edges)[0] for name, values in groups}
    most = max(int(count.max()) for count in counts.values())
    many = most > 100
    levels = [0, *(10**k for k in range(int(math.log10(most)) + 1))] if many else whole_ticks(most)

    def x(value: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return _x((np.asarray(value) - low) / (high - low))

    def y(count: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return _y(np.log1p(count) / np.log1p(most) if many else np.asarray(count) / most)

    guide = None
    if threshold is not None:
        at = float(x(threshold))
        guide = (f"M{at:.1f},{TOP} V{BOTTOM}", f"threshold {number(threshold, 3)}", at, TOP - 7)
    return Chart(
        x_ticks=[(float(x(value)), label) for value, label in ticks(low, high, 6)],
        y_ticks=[(float(y(n)), f"{n // 1000}k" if n >= 10_000 else f"{n:,}") for n in levels],
        paths=[(name, steps(x(edges), y(count))) for name, count in counts.items()],
        guide=guide,
        logarithmic=many,
    )


def _x(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return LEFT + (RIGHT - LEFT) * np.asarray(share, np.float64)


def _y(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return BOTTOM - (BOTTOM - TOP) * np.asarray(share, np.float64)


def score_range(score: FloatArray) -> tuple[float, float]:
    """The lowest and highest score, set apart where they are too close, and held within ±1e300, to be divided."""
    low, high = max(float(score.min()), -1e300), min(float(score.max()), 1e300)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-200):
        margin = 0.1 * abs(low) if abs(low) > 1e-150 else 1.0
        return low - margin, high + margin
    return low, high


def ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """At most `count` + 1 multiples of 1, 2 or 5 times a power of ten within low…high, each with its label."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    values = [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = step >= 1e-5 and max(abs(low), abs(high)) < 1e6
    labels = (f"{value:,.{decimals}f}" if plain else f"{value:.4g}" for value in values)
    return [(value, label.replace("-", "−")) for value, label in zip(values, labels, strict=True)]


def whole_ticks(most: int) -> list[int]:
    return [round(value) for value, _ in ticks(0, most, min(5, most))]


def polyline(x: FloatArray, y: FloatArray) -> str:
    """The SVG path through the points."""
    return "M" + " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)) if len(x) else ""


def steps(x: FloatArray, y: FloatArray) -> str:
    """The SVG path round a histogram's bars: `x` [B + 1] edges, `y` [B] tops, standing on the plot's bottom."""
    bars = " ".join(f"V{height:.1f} H{end:.1f}" for height, end in zip(y, x[1:], strict=True))
    return f"M{x[0]:.1f},{BOTTOM:.1f} {bars} V{BOTTOM:.1f} Z"


def thin(x: FloatArray, y: FloatArray, *, limit: int = 400, tolerance: float = 5e-4) -> IntArray:
    """Positions, rising, of at most `limit` points whose polyline looks like that of all points [M].

    `x` must not fall; both lie in 0…1. First only the ends and the extremes of each of 1,000 columns stay, which a
    chart cannot tell from all (Jugel et al., "M4", 2014). Then the point farthest from the line so far is added, again
    and again (Ramer 1972; Douglas and Peucker 1973), until none is farther than `tolerance`: corners come first.
    """
    at = _column_extremes(x, y)
    if len(at) <= 2:
        return at
    points = np.stack([x[at], y[at]], axis=1).astype(np.float64)
    kept = {0, len(at) - 1}
    heap = [_farthest(points, 0, len(at) - 1)]
    while heap and len(kept) < limit:
        distance, split, start, end = heapq.heappop(heap)
        if -distance <= tolerance:
            break
        kept.add(split)
        for a, b in ((start, split), (split, end)):
            if b - a > 1:
                heapq.heappush(heap, _farthest(points, a, b))
    return at[sorted(kept)]


def _column_extremes(x: FloatArray, y: FloatArray, columns: int = 1000) -> IntArray:
    if not len(x):
        return np.zeros(0, np.int64)
    column = np.floor(np.asarray(x, np.float64) * columns)
    starts = np.flatnonzero(np.r_[True, column[1:] != column[:-1]])
    width = np.diff(np.r_[starts, len(x)])
    extreme = (y == np.repeat(np.minimum.reduceat(y, starts), width)) | (
        y == np.repeat(np.maximum.reduceat(y, starts), width)
    )
    extreme[starts] = extreme[starts + width - 1] = True
    return np.flatnonzero(extreme)


def _farthest(points: npt.NDArray[np.float64], start: int, end: int) -> tuple[float, int, int, int]:
    """(−distance, position, start, end) of the point between two positions that is farthest from their segment."""
    first, along = points[start], points[end] - points[start]
    between = points[start + 1 : end] - first
    share = np.clip(between @ along / max(float(along @ along), 1e-300), 0, 1)
    distance = np.hypot(*(between - share[:, None] * along).T)
    best = int(np.argmax(distance))
    return -float(distance[best]), start + 1 + best, start, end


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
