"""Tables of the figures: one row per cell, per kind, or per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.peers.cells import Bench, Figures
from benchmarks.peers.models import Judged
from isc.benchmark.edits.composition import COMPOSITION
from isc.benchmark.edits.geometry import GEOMETRY
from isc.benchmark.edits.pixels import DEGRADATION, RECOMPRESSION
from isc.benchmark.edits.strengths import STRENGTHS
from isc.evaluate.bootstrap import bootstrap, interval

GROUPS: Mapping[str, frozenset[str]] = {
    "geometry": frozenset(GEOMETRY),
    "composition": frozenset(COMPOSITION),
    "pixels": frozenset(DEGRADATION | RECOMPRESSION),
}
OTHER = "other"  # kinds of another library

Rows = list[dict[str, object]]
ByModel = Mapping[str, Sequence[Figures]]  # in the order of the columns


def group_of(kind: str) -> str:
    return next((group for group, kinds in GROUPS.items() if kind in kinds), OTHER)


def kinds_by_group(found: ByModel) -> dict[str, list[str]]:
    """Return the kinds of each group, the easiest first by mean recall over models and strengths."""
    recall: dict[str, list[float]] = {}
    for figures in found.values():
        for one in figures:
            recall.setdefault(one.kind, []).append(one.recall_at_p90)
    ranked = sorted(recall, key=lambda kind: (-float(np.mean(recall[kind])), kind))
    return {g: kinds for g in (*GROUPS, OTHER) if (kinds := [kind for kind in ranked if group_of(kind) == g])}


def long_form(found: ByModel) -> Rows:
    """Return one row per model, kind and strength."""
    return [
        {
            "model": name,
            "kind": one.kind,
            "strength": one.strength or "",
            "copies": one.copies,
            "μAP": round(one.average_precision, 4),
            "recall at 90 % precision": round(one.recall_at_p90, 4),
            "recall at rank 1": round(one.recall_at_rank1, 4),
        }
        for name, figures in found.items()
        for one in figures
    ]


def by_kind(found: ByModel) -> Rows:
    """Return one row per kind: each model's recall at 90 % precision in per cent, light · medium · strong."""
    rows: Rows = []
    for group, kinds in kinds_by_group(found).items():
        for kind in kinds:
            copies = [str(one.copies) for one in of_kind(next(iter(found.values())), kind)]
            row: dict[str, object] = {"edit": kind, "of": group, "copies": " · ".join(copies)}
            for name, figures in found.items():
                row[name] = " · ".join(f"{100 * one.recall_at_p90:.0f}" for one in of_kind(figures, kind))
            rows.append(row)
    return rows


def of_kind(figures: Sequence[Figures], kind: str) -> list[Figures]:
    """Return the cells of a kind, light to strong."""
    order = (*STRENGTHS, None)
    return sorted((one for one in figures if one.kind == kind), key=lambda one: order.index(one.strength))


def by_model(judged: Sequence[Judged], bench: Bench, found: ByModel, *, resamples: int = 1000) -> Rows:
    """Return one row per model: figures over all queries, and mean recalls.

    The 95 % intervals come from drawing the queries again; the means are of recall at 90 % precision over the cells of
    each strength and group.
    """
    return [_overall(one, bench, resamples) | _means(found[one.name]) for one in judged]


def _overall(one: Judged, bench: Bench, resamples: int) -> dict[str, object]:
    drawn = bootstrap(one.matches, bench.truth, resamples=resamples)
    figures = {
        "μAP": ("average_precision", drawn.average_precision),
        "recall at 90 % precision": ("recall_at_p90", drawn.recall),
        "recall at rank 1": ("recall_at_rank1", drawn.recall_at_rank1),
    }
    row: dict[str, object] = {"": one.name}
    for title, (name, values) in figures.items():
        low, high = interval(values)
        row[title] = f"{one.metrics[name]:.3f} ({low:.3f}–{high:.3f})"
    return row


def _means(figures: Sequence[Figures]) -> dict[str, object]:
    parts: dict[str, list[float]] = {name: [] for name in (*STRENGTHS, *GROUPS, OTHER)}
    for one in figures:
        parts[group_of(one.kind)].append(one.recall_at_p90)
        if one.strength is not None:
            parts[one.strength].append(one.recall_at_p90)
    return {name: f"{np.mean(values):.3f}" for name, values in parts.items() if values}
