"""The sheets of pairs: the hardest finds, the misses, the worst wrong pairs, and the differences of two runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isc.data.ids import IntArray
from isc.data.matches import Matches
from isc.evaluate.report.charts import number
from isc.evaluate.report.pair_outcomes import PairOutcomes, rivals, spread, top

SHOWN = 24  # pairs of a sheet that have pictures
LISTED = 200  # pairs of a sheet in total; those without pictures are rows of a table


@dataclass(frozen=True)
class RivalPair:
    """Another reference for the query of a shown pair; `said` describes it in words."""

    reference: str
    score: float | None
    said: str


@dataclass(frozen=True)
class PairCard:
    """One pair of a sheet.

    `score` is None if it was never predicted; `rank` counts from 0 within its query, None if unknown; `before` is the
    result of another run in words. `beside` is another reference of the same query: the one that ranked first instead
    of a true pair, or the correct one for a wrong pair.
    """

    query: str
    reference: str
    score: float | None
    note: str = ""
    beside: RivalPair | None = None
    rank: int | None = None
    before: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.query, self.reference


@dataclass(frozen=True)
class Sheet:
    """A sheet of `total` pairs: `pairs` have pictures, `more` are listed below; `note` describes choice and order."""

    key: str
    title: str
    note: str
    total: int
    pairs: Sequence[PairCard]
    more: Sequence[PairCard] = ()


def sheets(judged: PairOutcomes, threshold: float | None) -> list[Sheet]:
    """Return the sheets of the hardest finds, of the misses, the nearest first, and of the highest wrong pairs."""
    return [_found_sheet(judged, threshold), _missed_sheet(judged), _wrong_sheet(judged, threshold)]


def _found_sheet(judged: PairOutcomes, threshold: float | None) -> Sheet:
    found = np.flatnonzero(judged.found)
    found = found[np.argsort(judged.score[found], kind="stable")]
    note = "Right pairs at or above the threshold, lowest score first: the hardest copies that were found."
    if threshold is None:
        note = "No score reaches 90 % precision, so nothing counts as found; every true pair is among the missed."
    shown = [_true_pair(judged, i) for i in found[:LISTED]]
    return Sheet("found", "Found", note, len(found), shown[:SHOWN], shown[SHOWN:])


def _missed_sheet(judged: PairOutcomes) -> Sheet:
    missed = np.flatnonzero(~judged.found)
    missed = missed[np.argsort(-judged.score[missed], kind="stable")]
    note = "True pairs below the threshold or never predicted, from the nearest miss to the farthest"
    note += "." if len(missed) <= SHOWN else f"; {SHOWN} of them as pictures, evenly spread."
    pictured = spread(missed, SHOWN)
    listed = spread(missed[~np.isin(missed, pictured)], LISTED - SHOWN)
    show = _missed_pair(judged, np.r_[pictured, listed])
    return Sheet("missed", "Missed", note, len(missed), [show(i) for i in pictured], [show(i) for i in listed])


def _wrong_sheet(judged: PairOutcomes, threshold: float | None) -> Sheet:
    wrong = np.flatnonzero(~judged.correct)
    note = "Predicted pairs that are not in the ground truth, highest score first."
    rows = top(judged.matches, wrong, LISTED)
    correct = _right_ones(judged, {str(judged.matches.query_ids[judged.matches.query[row]]) for row in rows})
    shown = [_wrong_pair(_predicted_pair(judged.matches, row, threshold), correct) for row in rows]
    return Sheet("wrong", "Wrong", note, len(wrong), shown[:SHOWN], shown[SHOWN:])


def _right_ones(judged: PairOutcomes, queries: set[str]) -> dict[str, RivalPair]:
    """Return the correct reference of each query that has one; of several the one with the highest score."""
    at = [i for i, (query, _) in enumerate(judged.pairs) if query in queries]
    rising = sorted(at, key=lambda i: judged.score[i])
    scores = {i: float(judged.score[i]) if judged.row[i] >= 0 else None for i in at}
    return {judged.pairs[i][0]: RivalPair(judged.pairs[i][1], scores[i], "the right one") for i in rising}


def _wrong_pair(pair: PairCard, correct: dict[str, RivalPair]) -> PairCard:
    if pair.query in correct:
        return replace(pair, beside=correct[pair.query])
    distractor = "its query is a copy of no reference"
    return replace(pair, note=f"{pair.note}; {distractor}" if pair.note else distractor)


def best_sheet(matches: Matches) -> Sheet:
    """Return the sheet of the best pairs, for a run without ground truth."""
    note = "The predictions with the highest scores, best first."
    shown = [_predicted_pair(matches, row, None) for row in top(matches, np.arange(len(matches)), LISTED)]
    return Sheet("best", "Best pairs", note, len(matches), shown[:SHOWN], shown[SHOWN:])


def changed_sheets(judged: PairOutcomes, before: PairOutcomes, name: str) -> list[Sheet]:
    """Return the sheets of the true pairs that only one run finds at its own threshold, the highest score first."""
    gained, lost = (np.flatnonzero(a.found & ~b.found) for a, b in ((judged, before), (before, judged)))
    gained = gained[np.argsort(-judged.score[gained], kind="stable")]
    lost = lost[np.argsort(-before.score[lost], kind="stable")]
    notes = (
        f"True pairs found here at the threshold of 90 % precision and not by {name} at its own, the clearest first.",
        f"True pairs found by {name} at its threshold of 90 % precision and not here, the clearest there first.",
    )
    made = []
    for key, title, positions, note in (("gained", "Gained", gained, notes[0]), ("lost", "Lost", lost, notes[1])):
        shown = [_changed_pair(judged, before, i, name) for i in positions[:LISTED]]
        made.append(Sheet(key, title, note, len(positions), shown[:SHOWN], shown[SHOWN:]))
    return made


def _true_pair(judged: PairOutcomes, i: int) -> PairCard:
    note = "" if judged.rank[i] == 0 else f"rank {judged.rank[i] + 1} of its query"
    return PairCard(*judged.pairs[i], score=float(judged.score[i]), note=note, rank=int(judged.rank[i]))


def _missed_pair(judged: PairOutcomes, positions: IntArray) -> Callable[[int], PairCard]:
    """Return a function from a missed pair's position to its `PairCard`; the rivals of all are found together."""
    matches, first = judged.matches, rivals(judged, positions)

    def show(i: int) -> PairCard:
        query, reference = judged.pairs[i]
        score, rank = float(judged.score[i]), int(judged.rank[i])
        if rank == 0:
            return PairCard(query, reference, score, "ranked first, but its score is below the threshold", rank=0)
        if i not in first:
            return PairCard(query, reference, None, "never predicted; its query has no prediction at all")
        other = str(matches.reference_ids[matches.reference[first[i]]])
        instead = RivalPair(other, float(matches.score[first[i]]), "ranked first instead")
        if rank < 0:
            return PairCard(query, reference, None, "never predicted", instead)
        return PairCard(query, reference, score, f"rank {rank + 1} of its query", instead, rank)

    return show


def _predicted_pair(matches: Matches, row: int, threshold: float | None) -> PairCard:
    score = float(matches.score[row])
    note = "above the threshold" if threshold is not None and score >= threshold else ""
    return PairCard(matches.query_ids[matches.query[row]], matches.reference_ids[matches.reference[row]], score, note)


def _changed_pair(judged: PairOutcomes, before: PairOutcomes, i: int, name: str) -> PairCard:
    score, rank = (float(judged.score[i]), int(judged.rank[i])) if judged.row[i] >= 0 else (None, None)
    said = f"{name}: never predicted"
    if before.row[i] >= 0:
        said = f"{name}: score {number(float(before.score[i]))}, rank {before.rank[i] + 1} of its query"
    note = "never predicted here" if rank is None else f"rank {rank + 1} of its query"
    return PairCard(*judged.pairs[i], score=score, note=note, rank=rank, before=said)
