"""Recall by edit, strength and model as an SVG: a cell's colour and figure are recall at 90 % precision."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.peers.cells import Figures
from benchmarks.peers.tables import ByModel, kinds_by_group, of_kind
from isc.benchmark.edits.strengths import STRENGTHS

WIDTH, LEFT, ROW, TOP, GAP = 980, 148, 21, 96, 10  # pixels
LEAST, MOST = 120, 280  # of a model; many make the picture wider, few narrower
PAPER, INK, FAINT = "#fbfbf9", "#1c2024", "#5c646d"
# dark blue to yellow by way of green and grey: lightness rises evenly, so that it can be read without telling red from
# green, or in grey
COLOURS = ((36, 22, 84), (50, 66, 122), (58, 108, 128), (84, 148, 118), (150, 186, 92), (245, 228, 120))
STYLE = (
    f"text {{ font: 12px system-ui, sans-serif; fill: {FAINT} }} .label {{ fill: {INK} }} .model {{ font-weight: 600 }}"
)


def colour(share: float) -> tuple[int, int, int]:
    """Of a share 0…1, between the nearest two of COLOURS."""
    at = min(max(share, 0.0), 1.0) * (len(COLOURS) - 1)
    low = min(int(at), len(COLOURS) - 2)
    pairs = zip(COLOURS[low], COLOURS[low + 1], strict=True)
    red, green, blue = (round(one + (two - one) * (at - low)) for one, two in pairs)
    return red, green, blue


def luminance(rgb: tuple[int, int, int]) -> float:
    """Relative luminance 0…1, as the accessibility guidelines of the web define it (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in rgb)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def ink_on(rgb: tuple[int, int, int]) -> str:
    """White or near black, whichever stands out more."""
    behind = luminance(rgb)
    return "#ffffff" if 1.05 / (behind + 0.05) > (behind + 0.05) / 0.06 else "#14171a"


def heat_map(found: ByModel, *, title: str) -> str:
    """Rows are kinds by group, the hardest last; columns are models, each light, medium and strong.

    A kind without degrees has one wide cell. What a cell shows, its title says in words.
    """
    groups = kinds_by_group(found)
    wide = min(max((WIDTH - LEFT - GAP) / len(found), LEAST), MOST)
    parts, y = [_head(list(found), wide)], TOP
    for group, kinds in groups.items():
        parts.append(_text(group, 10, y + 15, "model"))
        y += ROW
        for kind in kinds:
            parts.append(_text(kind.replace("_", " "), 18, y + 15, "label"))
            for column, (name, figures) in enumerate(found.items()):
                parts.append(_cells(name, of_kind(figures, kind), LEFT + column * wide, y, wide - 6))
            y += ROW
        y += GAP
    return _page(parts, max(480, LEFT + GAP + wide * len(found)), y + 26, title)


def _head(names: Sequence[str], wide: float) -> str:
    parts = [_text("Recall at 90 % precision, per cent of the copies", 10, 24, "model")]
    for column, name in enumerate(names):
        x = LEFT + column * wide
        parts += [_text(line, x, 56 + 14 * at, "model") for at, line in enumerate(_broken(name, wide))]
        third = (wide - 6) / 3
        parts += [
            _text(strength, x + (at + 0.5) * third, TOP - 4, "middle")
            for at, strength in enumerate(STRENGTHS if third > 44 else ("light", "mid", "strong"))
        ]
    return "".join(parts)


def _broken(name: str, wide: float) -> list[str]:
    """The name on at most two lines of about seven pixels a letter, cut where it is longer still."""
    fits = max(8, int(wide / 7))
    first, lines = name.split(", "), [name]
    if len(name) > fits and len(first) > 1:
        lines = [first[0], ", ".join(first[1:])]
    elif len(name) > fits:
        lines = [name[:fits], name[fits:]]
    return [line if len(line) <= fits + 2 else f"{line[: fits + 1]}…" for line in lines]


def _cells(name: str, figures: Sequence[Figures], x: float, y: float, wide: float) -> str:
    """The cells of a kind and model: thirds by strength, or one over all where there is no strength."""
    parts = []
    for one in figures:
        place = None if one.strength is None else STRENGTHS.index(one.strength)
        left, width = (x, wide) if place is None else (x + place * wide / 3, wide / 3)
        rgb, percent = colour(one.recall_at_p90), f"{100 * one.recall_at_p90:.0f}"
        says = f"{name}, {' '.join(filter(None, (one.kind, one.strength)))}: {percent} % of {one.copies} copies"
        parts.append(
            f'<g><title>{escape(says)}</title><rect x="{left:.1f}" y="{y}" width="{width - 1:.1f}" '
            f'height="{ROW - 1}" fill="#{bytes(rgb).hex()}"/><text x="{left + (width - 1) / 2:.1f}" y="{y + 15}" '
            f'text-anchor="middle" style="fill: {ink_on(rgb)}">{percent}</text></g>'
        )
    return "".join(parts)


def _text(text: str, x: float, y: float, kind: str) -> str:
    how = 'text-anchor="middle"' if kind == "middle" else f'class="{kind}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {how}>{escape(text)}</text>'


def _page(parts: Sequence[str], width: float, height: float, title: str) -> str:
    says = f"Recall at 90 % precision by edit and strength: {title}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-labelledby="t"><title id="t">{escape(says)}</title><style>{STYLE}</style>'
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="6" fill="{PAPER}"/>{"".join(parts)}'
        f"{_text(title, 10, height - 14, 'small')}</svg>\n"
    )
