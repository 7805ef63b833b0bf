"""Heat map (SVG) of recall at 90 % precision by edit, strength and model; each cell has a colour and a number."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.peers.cells import Figures
from benchmarks.peers.tables import ByModel, kinds_by_group, of_kind
from isc.benchmark.edits.strengths import STRENGTHS

WIDTH, LEFT, ROW, TOP, GAP = 980, 148, 21, 96, 10  # pixels
LEAST, MOST = 120, 280  # of a model's column; many models make the picture wider, few make it narrower
PAPER, INK, FAINT = "#fbfbf9", "#1c2024", "#5c646d"
# dark blue over grey and green to yellow: lightness rises evenly, so that the map is readable in grey, and for people
# who do not distinguish red and green
COLOURS = ((36, 22, 84), (50, 66, 122), (58, 108, 128), (84, 148, 118), (150, 186, 92), (245, 228, 120))
STYLE = (
    f"text {{ font: 12px system-ui, sans-serif; fill: {FAINT} }} .label {{ fill: {INK} }} .model {{ font-weight: 600 }}"
    f"\n.paper {{ fill: {PAPER} }}"
    "\n@media (prefers-color-scheme: dark) { .paper { fill: #16181b } text { fill: #a5adb5 } .label { fill: #f0f2f4 } }"
)


def colour(share: float) -> tuple[int, int, int]:
    """Return the RGB colour of a share 0…1, interpolated between the two nearest of COLOURS."""
    at = min(max(share, 0.0), 1.0) * (len(COLOURS) - 1)
    low = min(int(at), len(COLOURS) - 2)
    pairs = zip(COLOURS[low], COLOURS[low + 1], strict=True)
    red, green, blue = (round(one + (two - one) * (at - low)) for one, two in pairs)
    return red, green, blue


def luminance(rgb: tuple[int, int, int]) -> float:
    """Return the relative luminance 0…1 of an RGB colour (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in rgb)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def ink_on(rgb: tuple[int, int, int]) -> str:
    """Return white or near black, whichever has more contrast with the background."""
    behind = luminance(rgb)
    return "#ffffff" if 1.05 / (behind + 0.05) > (behind + 0.05) / 0.06 else "#14171a"


def heat_map(found: ByModel, *, title: str) -> str:
    """Return the SVG: one row per kind of edit, by group, the hardest last; columns light, medium, strong per model.

    A kind without strengths has one wide cell. The title of a cell gives its content in words.
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
    """Return the name on at most two lines of about seven pixels a letter; longer lines are cut."""
    fits = max(8, int(wide / 7))
    first, lines = name.split(", "), [name]
    if len(name) > fits and len(first) > 1:
        lines = [first[0], ", ".join(first[1:])]
    elif len(name) > fits:
        lines = [name[:fits], name[fits:]]
    return [line if len(line) <= fits + 2 else f"{line[: fits + 1]}…" for line in lines]


def _cells(name: str, figures: Sequence[Figures], x: float, y: float, wide: float) -> str:
    """Return the cells of one kind and model: a third of the width per strength, or one wide cell without strengths."""
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
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="6" class="paper"/>{"".join(parts)}'
        f"{_text(title, 10, height - 14, 'small')}</svg>\n"
    )
