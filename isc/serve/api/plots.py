"""Plots of the dashboards as SVG, drawn here: nothing is fetched, and no script is needed."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from isc.evaluate.metrics import wilson
from isc.serve.statistics import Bin, Day

SIDE, EDGE = 180, 28
WIDTH, HEIGHT = 420, 120


def calibration_plot(bins: Sequence[Bin], title: str) -> Markup:
    """Draw the share of accepted suggestions against their score, with the intervals; on the diagonal both agree."""
    parts = [f'<path class="axis" d="M{EDGE},4 V{SIDE + 4} H{SIDE + EDGE}"/>']
    parts.append(f'<path class="even" d="M{_x(0)},{_y(0)} L{_x(1)},{_y(1)}"/>')
    for one in bins:
        low, high = wilson(one.accepted, one.decided)
        x = _x(one.mean_score if one.mean_score is not None else (one.low + one.high) / 2)
        parts.append(f'<path class="range" d="M{x},{_y(low)} V{_y(high)}"/>')
        said = f"{one.low:.1f}–{one.high:.1f}: {one.accepted}/{one.decided}"
        parts.append(f'<circle cx="{x}" cy="{_y(one.accepted / one.decided)}" r="4"><title>{said}</title></circle>')
    for value in (0, 0.5, 1):
        parts.append(f'<text x="{EDGE - 4}" y="{_y(value) + 4}" text-anchor="end">{value:g}</text>')
        parts.append(f'<text x="{_x(value)}" y="{SIDE + 20}" text-anchor="middle">{value:g}</text>')
    return _svg(parts, SIDE + EDGE + 8, SIDE + 26, title)


def _x(share: float) -> float:
    return round(EDGE + share * SIDE, 1)


def _y(share: float) -> float:
    return round(4 + (1 - share) * SIDE, 1)


def days_plot(days: Sequence[Day], title: str) -> Markup:
    """Draw the accepted and rejected suggestions of each day as a stacked bar."""
    most = max((day.accepted + day.rejected for day in days), default=1)
    step = (WIDTH - EDGE) / max(1, len(days))
    parts = [f'<path class="axis" d="M{EDGE},4 V{HEIGHT + 4} H{WIDTH}"/>']
    parts.append(f'<text x="{EDGE - 4}" y="14" text-anchor="end">{most}</text>')
    for at, day in enumerate(days):
        x, wide = EDGE + at * step + 1, max(1.0, min(24.0, step - 2))
        bottom = HEIGHT + 4.0
        for name, count in (("accepted", day.accepted), ("rejected", day.rejected)):
            tall = HEIGHT * count / most
            bottom -= tall
            said = f"{day.day}: {count} {name}"
            parts.append(
                f'<rect class="{name}" x="{x:.1f}" y="{bottom:.1f}" width="{wide:.1f}" height="{tall:.1f}">'
                f"<title>{said}</title></rect>"
            )
    return _svg(parts, WIDTH, HEIGHT + 10, title)


def _svg(parts: Sequence[str], width: int, height: int, title: str) -> Markup:
    inside = "".join(parts)
    head = f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(f"{head}{inside}</svg>")
