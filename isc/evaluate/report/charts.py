"""Curves and histograms as SVG paths, made from numpy arrays; the template of the page draws them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.ids import FloatArray, IntArray
from isc.evaluate.bootstrap import GRID
from isc.evaluate.metrics import Bin, Curve

LEFT, RIGHT, TOP, BOTTOM = 64.0, 468.0, 22.0, 268.0  # the plot in a chart of 480 × 320; same in the template

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Chart:
    """A chart in SVG units: ticks (position, label), paths (CSS class, path), a dashed guide with its label."""

    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    paths: Sequence[tuple[str, str]]
    guide: tuple[str, str, float, float] | None = None  # path, label, x and y of the label
    dot: tuple[float, float] | None = None
    logarithmic: bool = False


def curve_chart(
    curve: Curve,
    recall_at_p90: float,
    *,
    band: npt.NDArray[np.float64] | None = None,
    other: Curve | None = None,
) -> Chart:
    """Return the chart of precision over recall after each prediction, both axes 0…1.

    `band` (`Resampled.curve`) adds the band with 95 % of the resamples, `other` the curve of another run below.
    """
    tenths = [(value / 10, f"{value / 10:.1f}") for value in range(0, 11, 2)]
    at = int(np.argmax((curve.recall >= recall_at_p90) & (curve.precision >= 0.9))) if recall_at_p90 > 0 else None
    paths = [] if band is None else [("band", band_path(band))]
    paths += [("other", _curve_path(other))] if other else []
    return Chart(
        x_ticks=[(float(_x(value)), label) for value, label in tenths],
        y_ticks=[(float(_y(value)), label) for value, label in tenths],
        paths=[(name, path) for name, path in paths if path] + [("curve", _curve_path(curve))],
        guide=(f"M{LEFT},{_y(0.9):.1f} H{RIGHT}", "90 % precision", LEFT, float(_y(0.9)) + 15),
        dot=None if at is None else (float(_x(curve.recall[at])), float(_y(curve.precision[at]))),
    )


def _curve_path(curve: Curve) -> str:
    kept = thin(curve.recall, curve.precision)
    return polyline(_x(curve.recall[kept]), _y(curve.precision[kept]))


def band_path(resampled: npt.NDArray[np.float64]) -> str:
    """Return the SVG path around the middle 95 % of the precisions [B, 100] at the recalls `GRID`.

    It ends at the last recall that 95 % of the resamples reach.
    """
    reached = (~np.isnan(resampled)).mean(axis=0) >= 0.95
    if reached.sum() < 2:
        return ""
    low, high = np.nanquantile(resampled[:, reached], [0.025, 0.975], axis=0)
    recall = GRID[reached]
    return polyline(_x(np.r_[recall, recall[::-1]]), _y(np.r_[high, low[::-1]])) + " Z"


def histogram_chart(score: FloatArray, correct: Flags | None, threshold: float | None, *, bins: int = 60) -> Chart:
    """Return the histogram of scores, wrong over correct pairs; linear for few pairs, else logarithmic in 1 + n."""
    low, high = score_range(score)
    edges = np.linspace(low, high, bins + 1)
    groups = [("all", score)] if correct is None else [("wrong", score[~correct]), ("right", score[correct])]
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


def reliability_chart(bins: Sequence[Bin]) -> Chart:
    """Return the chart of the share of correct pairs over the mean probability of each bin.

    A dot is larger if its bin has more pairs; the dashed diagonal shows perfect probabilities.
    """
    tenths = [(value / 10, f"{value / 10:.1f}") for value in range(0, 11, 2)]
    x, y = _x([one.mean for one in bins]), _y([one.correct for one in bins])
    radii = [2 + 1.5 * math.log10(one.pairs) for one in bins]
    dots = " ".join(
        f"M{a - r:.1f},{b:.1f} a{r:.1f},{r:.1f} 0 1 0 {2 * r:.1f},0 a{r:.1f},{r:.1f} 0 1 0 {-2 * r:.1f},0"
        for a, b, r in zip(x, y, radii, strict=True)
    )
    return Chart(
        x_ticks=[(float(_x(value)), label) for value, label in tenths],
        y_ticks=[(float(_y(value)), label) for value, label in tenths],
        paths=[("curve", polyline(x, y)), ("right", dots)],
        guide=(f"M{LEFT},{BOTTOM} L{RIGHT},{TOP}", "as probable as said", RIGHT - 8, BOTTOM - 12),
    )


def _x(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return LEFT + (RIGHT - LEFT) * np.asarray(share, np.float64)


def _y(share: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return BOTTOM - (BOTTOM - TOP) * np.asarray(share, np.float64)


def score_range(score: FloatArray) -> tuple[float, float]:
    """Return the lowest and highest score, moved apart if too close, and clipped to ±1e300 for the division."""
    low, high = max(float(score.min()), -1e300), min(float(score.max()), 1e300)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-200):
        margin = 0.1 * abs(low) if abs(low) > 1e-150 else 1.0
        return low - margin, high + margin
    return low, high


def ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Return at most `count` + 1 multiples of 1, 2 or 5 times a power of ten within low…high, each with its label."""
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
    """Return the SVG path through the points."""
    return "M" + " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True)) if len(x) else ""


def steps(x: FloatArray, y: FloatArray) -> str:
    """Return the SVG path around the bars of a histogram: `x` [B + 1] edges, `y` [B] tops, on the plot's bottom."""
    bars = " ".join(f"V{height:.1f} H{end:.1f}" for height, end in zip(y, x[1:], strict=True))
    return f"M{x[0]:.1f},{BOTTOM:.1f} {bars} V{BOTTOM:.1f} Z"


def thin(x: FloatArray, y: FloatArray, *, limit: int = 400, tolerance: float = 5e-4) -> IntArray:
    """Return the positions, rising, of at most `limit` points whose polyline looks like that of all points [M].

    `x` must not fall; both lie in 0…1. First only the ends and the extremes of each of 1,000 columns stay, which look
    the same in a chart (Jugel et al., "M4", 2014). Then the point farthest from the current line is added repeatedly
    (Ramer 1972; Douglas and Peucker 1973), until none is farther than `tolerance`: corners come first.
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
    """Return (−distance, position, start, end) of the point between two positions farthest from their segment."""
    first, along = points[start], points[end] - points[start]
    between = points[start + 1 : end] - first
    share = np.clip(between @ along / max(float(along @ along), 1e-300), 0, 1)
    distance = np.hypot(*(between - share[:, None] * along).T)
    best = int(np.argmax(distance))
    return -float(distance[best]), start + 1 + best, start, end


def number(value: float, digits: int = 4) -> str:
    """Format a number with `digits` significant digits and a true minus; integers in full, with separators."""
    return (f"{value:,}" if isinstance(value, int) else f"{value:#.{digits}g}").replace("-", "−")
