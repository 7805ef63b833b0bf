"""The judgement of answers: F1 of items, of frames and images, and of boxes, their mean, and figures of a ranking.

Each F1 = 2 · right / (claimed + wanted), the harmonic mean of precision right/claimed and recall right/wanted, with
sums over all clips. A clip that shows no item of the shop wants nothing, so that an answer to it only costs precision.

items   one claim an answered clip; right if the item is
pairs   one claim for each image of an answer, with its frame; right if the item is, the frame shows it, and the image
        is one of the item's. Wanted are the images in the truth of each clip
boxes   the same claims; right if, beyond that, the box in the frame and the box in the image both have an intersection
        over union with the true ones of at least 0.5. Where nothing finer is known, the true box is the whole picture

The score is the mean of the three by WEIGHTS. Its organisers write of an "averaged F1 score"; the weights of their mean
could not be verified, so equal ones are our choice, and other ones can be given.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from isc.data.ids import IntArray
from isc.errors import InputError
from isc.evaluate.bootstrap import draws, interval
from isc.photos.regions import overlaps
from isc.products.answers import Answer, Box, Truth
from isc.words.ranking import Figure

Ranking = Mapping[str, Sequence[tuple[str, float]]]
Floats = npt.NDArray[np.float64]

WEIGHTS = (1 / 3, 1 / 3, 1 / 3)  # of items, pairs and boxes in the score
LEAST_OVERLAP = 0.5  # intersection over union from which a box is right
LEVELS = ("items", "pairs", "boxes")
COLUMNS = ("kind", "clips", "metric", "value", "low", "high")
ALL = "all"  # the kind of the rows about all clips


@dataclass(frozen=True)
class LevelScores:
    """F1, precision and recall of one level; a figure is NaN without a claim or without anything wanted."""

    f1: Figure
    precision: Figure
    recall: Figure


@dataclass(frozen=True)
class RankingScores:
    """The place of the right item in the rankings of the clips that show one.

    With one right item a clip, the average precision of a clip is 1 / rank.
    """

    recall_at_1: Figure
    recall_at_5: Figure
    mean_average_precision: Figure


@dataclass(frozen=True)
class Scores:
    """The scores of some clips: all of them, or those whose true item is of one kind.

    `specificity` is the share of the clips without an item that were answered by none; NaN if all show one. `ranking`
    is None without a ranking.
    """

    clips: int
    score: Figure
    items: LevelScores
    pairs: LevelScores
    boxes: LevelScores
    specificity: Figure
    ranking: RankingScores | None = None

    def figures(self) -> dict[str, Figure]:
        """Return the figures by name."""
        found = {"score": self.score}
        for level in LEVELS:
            of: LevelScores = getattr(self, level)
            found |= {f"{level}_f1": of.f1, f"{level}_precision": of.precision, f"{level}_recall": of.recall}
        found["specificity"] = self.specificity
        if self.ranking is not None:
            names = ("recall_at_1", "recall_at_5", "mean_average_precision")
            found |= {name: getattr(self.ranking, name) for name in names}
        return found


@dataclass(frozen=True)
class ProductScores:
    """The scores of all clips and of each kind of item, with 95 % bootstrap intervals over clips."""

    overall: Scores
    kinds: Mapping[str, Scores] = field(default_factory=lambda: MappingProxyType({}))
    weights: tuple[float, float, float] = WEIGHTS

    def rows(self) -> list[tuple[str, int, str, float, float, float]]:
        """Return a row of COLUMNS for each figure that is defined, all clips first."""
        return [
            (kind, scores.clips, name, one.value, one.low, one.high)
            for kind, scores in {ALL: self.overall, **self.kinds}.items()
            for name, one in scores.figures().items()
            if not math.isnan(one.value)
        ]

    def as_dict(self) -> dict[str, object]:
        """Return the figures as values of JSON, [value, low, high]; None for one that is not defined."""

        def of(scores: Scores) -> dict[str, object]:
            found = {name: _values(one) for name, one in scores.figures().items()}
            return {"clips": scores.clips, **found}

        kinds = {kind: of(scores) for kind, scores in self.kinds.items()}
        return {**of(self.overall), "weights": list(self.weights), "kinds": kinds}

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """Return the rows as CSV with a header; figures have four digits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:3], *(f"{value:.4f}" for value in row[3:])) for row in self.rows())
        return text.getvalue()


def judge(
    answers: Mapping[str, Answer],
    truth: Mapping[str, Truth],
    *,
    ranking: Ranking | None = None,
    kinds: Mapping[str, str] | None = None,
    weights: tuple[float, float, float] = WEIGHTS,
    resamples: int = 1000,
    seed: int = 0,
) -> ProductScores:
    """Judge the answers of the clips in `truth`; a clip without an answer counts as answered by none.

    `ranking` gives (item id, score) of each clip, best first; equal scores count against the right item, and an item
    that is not in a ranking has the rank ∞. `kinds` gives the kind of an item, and goes before the kinds in `truth`;
    items without a kind are in the overall scores alone. Raises InputError for a truth without an item, a video that is
    not in `truth`, weights that are negative or all 0, and a ranking that does not fall or has an item twice.
    """
    _check(answers, truth, weights)
    videos = list(truth)
    counts = np.array([_counts(answers.get(video, Answer()), truth[video]) for video in videos], np.float64)
    ranks = None if ranking is None else _ranks(ranking, truth)

    def scores_of(rows: IntArray) -> Scores:
        places = None if ranks is None else ranks[rows]
        return _scores(counts[rows], places, weights=weights, resamples=resamples, seed=seed)

    of_kind: dict[str, list[int]] = {}
    for row, video in enumerate(videos):
        kind = _kind(truth[video], kinds)
        if kind is not None:
            of_kind.setdefault(kind, []).append(row)
    by_kind = {kind: scores_of(np.array(of_kind[kind])) for kind in sorted(of_kind)}
    return ProductScores(scores_of(np.arange(len(videos))), MappingProxyType(by_kind), weights)


def _check(answers: Mapping[str, Answer], truth: Mapping[str, Truth], weights: Sequence[float]) -> None:
    if all(one.item_id is None for one in truth.values()):
        raise InputError(f"none of {len(truth)} clips shows an item; expected at least one")
    unknown = next((video for video in answers if video not in truth), None)
    if unknown is not None:
        raise InputError(f"video {unknown!r} is not among the {len(truth):,} of the truth")
    if len(weights) != 3 or not all(math.isfinite(one) and one >= 0 for one in weights) or not sum(weights):
        raise InputError(f"weights {', '.join(map(str, weights))}; expected 3 numbers from 0 on, one of them above 0")


def _kind(truth: Truth, kinds: Mapping[str, str] | None) -> str | None:
    if truth.item_id is None:
        return None
    return truth.kind if kinds is None else kinds.get(truth.item_id, truth.kind)


def _counts(answer: Answer, truth: Truth) -> list[int]:
    """Return right, claimed and wanted [9] of items, pairs and boxes."""
    answered, shown = answer.item_id is not None, truth.item_id is not None
    right = shown and answer.item_id == truth.item_id
    seen = right and answer.frame_index is not None and truth.shows_in(answer.frame_index)
    true = {one.img_name: one for one in truth.matches}
    pairs = [one for one in answer.matches if seen and one.img_name in true]
    boxes = [
        one
        for one in pairs
        if _same(one.item_box, true[one.img_name].item_box)
        and _same(one.frame_box, true[one.img_name].box_at(answer.frame_index or 0))
    ]
    claimed, wanted = len(answer.matches), len(truth.matches)
    return [int(right), int(answered), int(shown), len(pairs), claimed, wanted, len(boxes), claimed, wanted]


def _same(one: Box, other: Box) -> bool:
    return bool(overlaps(np.array([one]), other)[0] >= LEAST_OVERLAP)


def _ranks(ranking: Ranking, truth: Mapping[str, Truth]) -> Floats:
    """Return the rank [N], from 1, of the right item of each clip: ∞ if it is not there, NaN if there is none."""
    unknown = next((video for video in ranking if video not in truth), None)
    if unknown is not None:
        raise InputError(f"ranking: video {unknown!r} is not among the {len(truth):,} of the truth")
    for video, ranked in ranking.items():
        scores = [score for _, score in ranked]
        if any(map(math.isnan, scores)) or any(later > earlier for earlier, later in itertools.pairwise(scores)):
            raise InputError(f"ranking of {video!r}: the scores rise or are not numbers; expected the best item first")
        if len({item for item, _ in ranked}) < len(ranked):
            raise InputError(f"ranking of {video!r}: an item occurs twice; expected each once")
    return np.array([_rank(ranking.get(video, ()), one.item_id) for video, one in truth.items()])


def _rank(ranked: Sequence[tuple[str, float]], item_id: str | None) -> float:
    if item_id is None:
        return math.nan
    own = next((score for item, score in ranked if item == item_id), None)
    return math.inf if own is None else float(sum(score >= own for _, score in ranked))


def _scores(
    counts: Floats, ranks: Floats | None, *, weights: tuple[float, float, float], resamples: int, seed: int
) -> Scores:
    """Return the scores of clips with these counts [N, 9] and ranks [N], NaN for clips without an item."""
    empty = counts[:, 2] == 0
    columns = [counts, np.stack([empty & (counts[:, 1] == 0), empty], axis=1)]
    if ranks is not None:
        known = ~np.isnan(ranks)
        columns.append(np.stack([ranks <= 1, ranks <= 5, np.where(known, 1 / ranks, 0), known], axis=1))
    values = np.concatenate(columns, axis=1)
    drawn = np.stack(list(draws(len(values), resamples, seed=seed)))
    sums = np.concatenate([values.sum(axis=0)[None], drawn @ values])  # the first row is that of the clips themselves
    levels = [_level(sums[:, at : at + 3]) for at in (0, 3, 6)]
    f1 = np.stack([level[0] for level in levels])
    items, pairs, boxes = (LevelScores(*map(_figure, level)) for level in levels)
    ranked = None
    if ranks is not None:
        first, fifth, precision = (_figure(_ratio(sums[:, at], sums[:, 14])) for at in (11, 12, 13))
        ranked = RankingScores(first, fifth, precision)
    score = _figure(np.array(weights) @ f1 / sum(weights))
    specificity = _figure(_ratio(sums[:, 9], sums[:, 10]))
    return Scores(len(values), score, items, pairs, boxes, specificity, ranked)


def _level(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Return F1, precision and recall, each [R], of the sums [R, 3] of right, claimed and wanted."""
    right, claimed, wanted = sums.T
    return _ratio(2 * right, claimed + wanted), _ratio(right, claimed), _ratio(right, wanted)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    shares: Floats = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return shares


def _figure(values: Floats) -> Figure:
    """Return the figure of a value, the first one, and its resamples."""
    return Figure(float(values[0]), *interval(values[1:]))


def _values(figure: Figure) -> list[float] | None:
    return None if math.isnan(figure.value) else figure.as_list()
