"""Cells of a benchmark of single edits, by kind and strength, and a model's figures in each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.benchmark.edit_log import read_edits
from isc.benchmark.edits.strengths import strength_of
from isc.data.csv_files import read_ground_truth
from isc.data.ids import FloatArray
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import ranks

Flags = npt.NDArray[np.bool_]
Cell = tuple[str, str | None]  # kind and strength

TENTHS_WANTED = 9  # the precision wanted, in tenths


@dataclass(frozen=True)
class Bench:
    """A benchmark's ground truth, and the cell of every query that is a copy."""

    folder: Path
    truth: GroundTruth
    cells: Mapping[str, Cell]


def read_bench(folder: Path) -> Bench:
    """Read a folder that isc benchmark wrote with one edit per query. Raises InputError for any other."""
    truth = read_ground_truth(folder / "ground_truth.csv")
    edits = read_edits(folder / "edits.jsonl")
    cells: dict[str, Cell] = {}
    for query in sorted({query for query, _ in truth.pairs}):
        chain = edits.get(query, ())
        if len(chain) != 1:
            raise InputError(
                f"{folder / 'edits.jsonl'}: query {query!r} has {len(chain)} edits; expected one, as isc benchmark "
                "makes them with preset=each"
            )
        cells[query] = chain[0].name, strength_of(chain[0])
    return Bench(folder, truth, cells)


@dataclass(frozen=True)
class Figures:
    """A model's figures (0…1) in one cell, and the number of true pairs in it."""

    kind: str
    strength: str | None
    copies: int
    average_precision: float
    recall_at_p90: float
    recall_at_rank1: float


def figures_by_cell(matches: Matches, bench: Bench) -> list[Figures]:
    """Return the figures of every cell, sorted by kind and strength.

    A cell has its own copies and all distractors. Since its few copies have as many distractors as all copies together,
    a distractor's wrong pair counts only (copies of the cell) / (all copies). So the share of copies is that of the
    whole benchmark, and a precision has the same meaning.
    """
    kept = matches.take(bench.truth.judged(matches))
    correct = bench.truth.correct(kept)
    cells = sorted(set(bench.cells.values()), key=str)
    number = {cell: at for at, cell in enumerate(cells)}
    of_query = np.array([number[bench.cells[q]] if q in bench.cells else -1 for q in kept.query_ids], np.int64)
    cell_of_row, first = of_query[kept.query], np.zeros(len(kept), bool)
    first[np.flatnonzero(correct)[ranks(kept, correct) < 1]] = True
    pairs = np.bincount([number[bench.cells[query]] for query, _ in bench.truth.pairs], minlength=len(cells))
    found = []
    for at, (kind, strength) in enumerate(cells):
        rows, copies = (cell_of_row == at) | (cell_of_row == -1), int(pairs[at])
        precision, recall = judged(
            kept.score[rows], correct[rows], cell_of_row[rows] == -1, copies=copies, of=int(pairs.sum())
        )
        rank1 = float(np.sum(first[cell_of_row == at]) / copies)
        found.append(Figures(kind, strength, copies, precision, recall, rank1))
    return found


def judged(score: FloatArray, correct: Flags, distractor: Flags, *, copies: int, of: int) -> tuple[float, float]:
    """Return μAP and recall at 90 % precision of predictions [M]; those of a `distractor` count `copies` / `of` each.

    Of equal scores, wrong pairs come before correct ones. With copies = of, the result is that of
    `isc.evaluate.metrics.evaluate`. Counts are in units of 1 / of, so that nothing is rounded if 90 % is reached
    exactly.
    """
    order = np.lexsort((correct, -score))
    correct, distractor = correct[order], distractor[order]
    good = (np.cumsum(correct) * of)[correct]
    bad = np.cumsum(np.where(correct, 0, np.where(distractor, copies, of)))[correct]
    reached = np.flatnonzero(10 * good >= TENTHS_WANTED * (good + bad))
    recall = (int(reached[-1]) + 1) / copies if len(reached) else 0.0
    return float(np.sum(good / (good + bad)) / copies), recall
