"""The judgement of segments: the metric of the Video Similarity Challenge.

Segment μAP by E. Pizzi et al., "The 2023 Video Similarity Dataset and Challenge", arXiv 2306.09489: predictions of all
pairs stand in one list by falling score, AP = Σ P(i) (R(i) − R(i−1)), and precision and recall count seconds:
P = √(P_q P_r) and R = √(R_q R_r) over the times of query and reference (S. He et al., CVPR 2022). A photo as reference
has no time; its side is a stretch of length 1, which any prediction covers.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isc.errors import InputError

Interval = tuple[float, float]
STILL: Interval = (0.0, 1.0)  # the time of a photo
COLUMNS = ("query_id", "ref_id", "query_start", "query_end", "ref_start", "ref_end")


@dataclass(frozen=True)
class Segment:
    """A part of a query video that shows a part of a reference, in seconds; `score` orders predictions."""

    query_id: str
    ref_id: str
    query: Interval
    ref: Interval = STILL
    score: float = 1.0

    def __post_init__(self) -> None:
        for side, (start, end) in (("query", self.query), ("ref", self.ref)):
            if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
                raise ValueError(f"{side} from {start} to {end} s; expected 0 ≤ start < end")
        if math.isnan(self.score):
            raise ValueError("score NaN; expected a number")

    def overlaps(self, other: Segment) -> bool:
        return _common(self.query, other.query) > 0 and _common(self.ref, other.ref) > 0


def segment_ap(truth: Sequence[Segment], predictions: Iterable[Segment]) -> float:
    """Return the segment μAP, 0…1, of predictions. Raises InputError without a true segment."""
    if not truth:
        raise InputError("no true segments; expected at least one")
    pairs: dict[tuple[str, str], _Pair] = defaultdict(_Pair)
    for one in truth:
        pairs[one.query_id, one.ref_id].truth.append(one)
    lengths = [sum(_covered(_axis(pair.truth, axis)) for pair in pairs.values()) for axis in (0, 1)]
    hit, claimed = [0.0, 0.0], [0.0, 0.0]
    total = recall = 0.0
    for one in sorted(predictions, key=lambda each: -each.score):
        pair = pairs[one.query_id, one.ref_id]
        before = pair.lengths()
        pair.predictions.append(one)
        for axis, (old, new) in enumerate(zip(before, pair.lengths(), strict=True)):
            hit[axis] += new[0] - old[0]
            claimed[axis] += new[1] - old[1]
        now = math.sqrt(hit[0] / lengths[0] * hit[1] / lengths[1])
        total += math.sqrt(hit[0] / claimed[0] * hit[1] / claimed[1]) * (now - recall)
        recall = now
    return total


def read_segments(path: Path, *, scored: bool) -> list[Segment]:
    """Read a CSV with the columns COLUMNS, and `score` if it is `scored`; those of a reference may be left out.

    Raises InputError with line and value.
    """
    needed = {*COLUMNS[:4], *(("score",) if scored else ())}
    found = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if missing := needed - set(rows.fieldnames or ()):
                raise InputError(
                    f"{path}: no column {', '.join(sorted(missing))}; expected {', '.join(COLUMNS)}, score"
                )
            for row in rows:
                found.append(_segment(path, rows.line_num, row, scored=scored))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a CSV of segments") from error
    return found


def _segment(path: Path, line: int, row: dict[str, str | None], *, scored: bool) -> Segment:
    def number(column: str) -> float:
        return float(row[column] or "")

    try:
        ref = (number("ref_start"), number("ref_end")) if row.get("ref_start") else STILL
        query = number("query_start"), number("query_end")
        return Segment(str(row["query_id"]), str(row["ref_id"]), query, ref, number("score") if scored else 1.0)
    except ValueError as error:
        raise InputError(f"{path}, line {line}: {error}") from error


class _Pair:
    """The segments of one query and one reference."""

    def __init__(self) -> None:
        self.truth: list[Segment] = []
        self.predictions: list[Segment] = []

    def lengths(self) -> list[tuple[float, float]]:
        """Return (seconds rightly predicted, seconds predicted) of the query and of the reference.

        Only true segments that some prediction meets on both sides count as rightly predicted.
        """
        met = [one for one in self.truth if any(one.overlaps(other) for other in self.predictions)]
        found = []
        for axis in (0, 1):
            said, true = _axis(self.predictions, axis), _axis(met, axis)
            both = _covered(said) + _covered(true) - _covered(said + true)
            found.append((both, _covered(said)))
        return found


def _axis(segments: Sequence[Segment], axis: int) -> list[Interval]:
    return [one.ref if axis else one.query for one in segments]


def _covered(intervals: Sequence[Interval]) -> float:
    """Return the length of the union of intervals."""
    total, end = 0.0, -math.inf
    for low, high in sorted(intervals):
        if high > end:
            total += high - max(low, end)
            end = high
    return total


def _common(one: Interval, other: Interval) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])
