"""The results by kind of edit, for one run and for a comparison of two runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from isc.data.ids import IntArray
from isc.evaluate.metrics import wilson
from isc.evaluate.report.pair_outcomes import Flags, PairOutcomes

Interval = tuple[float, float]
ANY = "any edit"


@dataclass(frozen=True)
class EditRow:
    """The results of the true pairs with one kind of edit; shares in 0…1, with their 95 % intervals."""

    kind: str
    copies: int
    found: float
    found_interval: Interval
    first: float
    first_interval: Interval


@dataclass(frozen=True)
class EditChange:
    """The copies with one kind of edit that two runs find.

    `now` counts those of this run, `before` those of the other, `gained` those of this run only, `lost` those of the
    other only; `p` is the p-value of the sign test on `gained` and `lost`.
    """

    kind: str
    copies: int
    now: int
    before: int
    gained: int
    lost: int
    p: float


@cache
def edit_kind(name: str) -> str:
    """Return an edit's name without its parameters: "crop" for "crop 42 %", "blur" for "blur σ 2 px".

    The kind ends before the first comma, colon, bracket or number; a preposition or single symbol at its end is
    removed.
    """
    start = re.split(r"[,:;(\[{=]|(?<=\s)[-+−±~≈×x]?\d", name.strip(), maxsplit=1)[0]
    return re.sub(r"(\s+(to|by|at|of|with|[^\W\d_]|\W+))*\s*$", "", start) or name


def edit_table(judged: PairOutcomes, edits: Mapping[str, Sequence[str]]) -> list[EditRow]:
    """Return a row for all true pairs with named edits, then one per kind, hardest first; empty if none is named."""
    kinds = copies_by_kind(judged, edits)
    rows = [_edit_row(judged, kind, at) for kind, at in kinds.items()]
    return sorted(rows, key=lambda row: (row.kind != ANY, row.found, row.first, row.kind))


def copies_by_kind(judged: PairOutcomes, edits: Mapping[str, Sequence[str]]) -> dict[str, IntArray]:
    """Return the positions of the true pairs with each kind of edit, and with any; empty if no edit is named."""
    having: dict[str, list[int]] = {}
    for i, (query, _) in enumerate(judged.pairs):
        for kind in {edit_kind(name) for name in edits.get(query, ())}:
            having.setdefault(kind, []).append(i)
    if not having:
        return {}
    every: Iterable[int] = {i for copies in having.values() for i in copies}
    return {ANY: np.array(sorted(every))} | {kind: np.array(copies) for kind, copies in having.items()}


def _edit_row(judged: PairOutcomes, kind: str, at: IntArray) -> EditRow:
    found, first, of = int(judged.found[at].sum()), int((judged.rank[at] == 0).sum()), len(at)
    return EditRow(kind, of, found / of, wilson(found, of), first / of, wilson(first, of))


def edit_changes(judged: PairOutcomes, before: PairOutcomes, edits: Mapping[str, Sequence[str]]) -> list[EditChange]:
    """Return a row for all true pairs with named edits, then one per kind with changes, the largest loss first.

    The list is empty if no edit is named.
    """
    kinds = copies_by_kind(judged, edits)
    rows = [_edit_change(kind, judged.found[at], before.found[at]) for kind, at in kinds.items()]
    changed = [row for row in rows if row.kind == ANY or row.gained or row.lost]
    return sorted(changed, key=lambda row: (row.kind != ANY, (row.now - row.before) / row.copies, row.kind))


def _edit_change(kind: str, now: Flags, before: Flags) -> EditChange:
    gained, lost = int((now & ~before).sum()), int((before & ~now).sum())
    return EditChange(kind, len(now), int(now.sum()), int(before.sum()), gained, lost, sign_test(gained, lost))


def sign_test(gained: int, lost: int) -> float:
    """Return the two-sided p-value of the exact sign test (McNemar, Psychometrika 1947)."""
    changes, fewer = gained + lost, min(gained, lost)
    if changes > 1000:  # the exact sum is slow; the normal approximation with continuity correction is as good
        return math.erfc(max(0.0, abs(gained - lost) - 1) / math.sqrt(2 * changes))
    as_uneven = 2 * sum(math.comb(changes, k) for k in range(fewer + 1))
    return float(min(1.0, as_uneven / 2**changes))
