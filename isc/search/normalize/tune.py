"""Selection of a chain and its options by μAP on a validation set, and a check that the gain is more than chance.

Each trial is a fit, a search for the best pairs, and μAP. Starting from the published values, one option after another
is moved along its ladder while μAP rises, then between the rungs (coordinate ascent).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.config.chain import AnyStep, Chain, Pca, Score, SSquare, Stretch, Subtract, Whiten, parse
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import MAX_DIM
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import evaluate
from isc.runtime.progress import Report
from isc.search.multi_view import best_image_pairs
from isc.search.normalize.transforms import Training, Vectors, dim_of, form

log = logging.getLogger(__name__)

CHAINS = (
    "pca", "whiten", "subtract", "stretch", "ssquare", "score", "pca+score", "whiten+score", "whiten+stretch",
    "whiten+ssquare", "whiten+subtract", "subtract+stretch", "subtract+ssquare", "pca+subtract+score",
)  # fmt: skip
NEIGHBOURS = (1, 3, 10, 30, 100)
LADDERS: dict[type[AnyStep], dict[str, tuple[Any, ...]]] = {
    Pca: {},  # the ladder of dim is SHARES
    Whiten: {"ridge": (1e-3, 1e-2, 0.1, 0.3, 1.0)},
    Score: {"weight": (0.25, 0.5, 0.75, 1.0, 1.5, 2.0), "neighbours": NEIGHBOURS},
    Stretch: {"factor": (1.0, 1.5, 2.0, 2.5, 3.5, 5.0), "neighbours": NEIGHBOURS},
    SSquare: {"push": (0.5, 1.0, 1.4, 1.8, 2.5), "nearest": NEIGHBOURS, "neighbours": (10, 30, 100)},
    Subtract: {"weight": (0.1, 0.2, 0.35, 0.5, 0.7), "neighbours": NEIGHBOURS, "smooth": (True, False)},
}
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the largest possible dimension
ROUNDS = 3  # most passes over all options, on the ladders and again between the rungs
RESAMPLES = 500
PAIRS_PER_QUERY = 10


@dataclass(frozen=True)
class Trial:
    """The results of a chain: μAP and recall at 90 % precision over all queries, and μAP over each half of them."""

    chain: Chain
    dim: int
    average_precision: float
    recall_at_p90: float
    halves: tuple[float, float]

    @property
    def legal(self) -> bool:
        """True if the descriptor track allows this dimension."""
        return self.dim <= MAX_DIM


KEYS: tuple[Callable[[Trial], float], ...] = (  # the objectives: μAP over all queries, and over each half
    lambda trial: trial.average_precision,
    lambda trial: trial.halves[0],
    lambda trial: trial.halves[1],
)


@dataclass(frozen=True)
class Crossed:
    """A chain selected on one half of the queries: its μAP, and that of `plain`, on the other, unseen half."""

    chain: Chain
    other_half: float
    plain: float


@dataclass(frozen=True)
class Choice:
    """The result of the selection: `chosen` is `best` if its held-out `gain` over `plain` exceeds one `standard_error`.

    Otherwise `chosen` is `plain`. `kinds` has the best trial of each kind of chain, `trials` has all trials.
    """

    chosen: Trial
    best: Trial
    plain: Trial
    kinds: tuple[Trial, ...]
    crossed: tuple[Crossed, Crossed]
    gain: float
    standard_error: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True, eq=False)
class Bench:
    """A validation set for trials of chains; the result of each chain is cached."""

    queries: Descriptors
    references: Descriptors
    training: Descriptors
    truth: GroundTruth
    done: dict[Chain, Trial] = dataclasses.field(default_factory=dict)

    def trial(self, chain: Chain) -> Trial:
        if chain not in self.done:
            matches = self.matches(chain)
            whole = evaluate(matches, self.truth)
            one, two = (evaluate(matches, half).average_precision for half in self.halves)
            found = Trial(
                chain, dim_of(chain, self.queries.dim), whole.average_precision, whole.recall_at_p90, (one, two)
            )
            self.done[chain] = found
        return self.done[chain]

    def matches(self, chain: Chain) -> Matches:
        """Return the best pairs, as many as match.py would keep."""
        queries, references = self.queries, self.references
        if chain.steps:
            training, q, r = self._state(chain.steps[:-1])
            last = form(chain.steps[-1], training)
            queries = dataclasses.replace(queries, vectors=last.queries(q))
            references = dataclasses.replace(references, vectors=last.references(r))
        num_pairs = min(PAIRS_PER_QUERY, len(references.images)) * len(queries.images)
        return best_image_pairs(queries, references, num_pairs=num_pairs).matches

    @functools.cached_property
    def halves(self) -> tuple[GroundTruth, GroundTruth]:
        """Ground truth of the queries whose id has an even hash, and of the other queries.

        Raises InputError if one half has no true pair.
        """
        parts = []
        for bit in (0, 1):
            pairs = frozenset(pair for pair in self.truth.pairs if _bit(pair[0]) == bit)
            if not pairs:
                raise InputError(f"{len(self.truth.pairs)} true pairs, all in one half of the queries; expected more")
            parts.append(GroundTruth(frozenset(q for q in self.truth.queries if _bit(q) == bit), pairs))
        return parts[0], parts[1]

    @functools.lru_cache(maxsize=4)  # noqa: B019  a bench lives as long as its command
    def _state(self, steps: tuple[AnyStep, ...]) -> tuple[Training, Vectors, Vectors]:
        """Return the training set, queries and references after these steps."""
        if not steps:
            return Training(self.training.vectors, keep=max(NEIGHBOURS)), self.queries.vectors, self.references.vectors
        training, queries, references = self._state(steps[:-1])
        fitted = form(steps[-1], training)
        return fitted.training(), fitted.queries(queries), fitted.references(references)


def choose(bench: Bench, kinds: Sequence[Chain], *, any_dim: bool = False, report: Report | None = None) -> Choice:
    """Return the best chain of the kinds, among those of at most 256 dimensions unless `any_dim`.

    The selection is repeated on each half of the queries and judged on the other half. The mean of these two gains over
    `none` (`pca` if the descriptors are too long) is compared with the standard error of the best chain's gain over it,
    from a bootstrap of the queries. Raises InputError if a kind has more than one of pca and whiten.
    """
    for kind in kinds:
        if sum(isinstance(step, Pca | Whiten) for step in kind.steps) > 1:
            raise InputError(f"{kind}: expected one of pca and whiten at most in a chain whose options are searched")
    plain = bench.trial(_start(bench, parse("none" if any_dim or bench.queries.dim <= MAX_DIM else "pca")))
    starts = list(dict.fromkeys(_start(bench, kind) for kind in kinds))
    found: list[tuple[Trial, ...]] = []
    for number, start in enumerate(starts):
        left = sum(_size(bench, one) for one in starts[number:])

        def say(left: int = left, before: int = len(bench.done)) -> None:
            if report:
                report(len(bench.done), max(before + left, len(bench.done)))

        known = len(bench.done)
        best, *of_half = (_ascend(bench, start, key, say) for key in KEYS)
        best = max(best, *list(bench.done.values())[known:], key=KEYS[0])  # a half's ascent may have met a better one
        log.info("μAP %.4f  %s", best.average_precision, best.chain)
        found.append((best, *of_half))
    allowed = [trials for trials in found if any_dim or trials[0].legal] + [(plain,) * len(KEYS)]
    best, *of_half = (max((trials[i] for trials in allowed), key=key) for i, key in enumerate(KEYS))
    one, two = (Crossed(of_half[h].chain, of_half[h].halves[1 - h], plain.halves[1 - h]) for h in (0, 1))
    gain = (one.other_half - one.plain + two.other_half - two.plain) / 2
    error = standard_error(bench.matches(best.chain), bench.matches(plain.chain), bench.truth)
    return Choice(
        chosen=best if gain > error else plain,
        best=best,
        plain=plain,
        kinds=tuple(trials[0] for trials in found),
        crossed=(one, two),
        gain=gain,
        standard_error=error,
        trials=tuple(bench.done.values()),
    )


def standard_error(matches: Matches, other: Matches, truth: GroundTruth) -> float:
    """Return the standard deviation of the difference of two μAP when the queries are resampled (bootstrap)."""
    ids = sorted(truth.queries)
    times = np.random.default_rng(0).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=RESAMPLES)
    difference = _resampled(matches, truth, ids, times) - _resampled(other, truth, ids, times)
    return float(difference.std())


def _resampled(
    matches: Matches, truth: GroundTruth, ids: Sequence[str], times: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return μAP [B] with query ids[i] counted times[b, i] times."""
    matches = matches.take(truth.judged(matches))
    correct = truth.correct(matches)
    order = np.lexsort((correct, -matches.score))
    correct = correct[order]
    place = {name: i for i, name in enumerate(ids)}
    column = np.array([place.get(name, 0) for name in matches.query_ids])[matches.query[order]]
    positives = np.array([place[query] for query, _ in truth.pairs])
    found = np.zeros(len(times))
    for i, count in enumerate(times):
        weight = count[column]
        precision = np.cumsum(weight * correct) / np.maximum(np.cumsum(weight), 1)
        found[i] = np.sum(weight * correct * precision) / max(count[positives].sum(), 1)
    return found


def _ascend(bench: Bench, start: Chain, key: Callable[[Trial], float], say: Callable[[], None]) -> Trial:
    best = bench.trial(start)
    for ladder in (_rungs, _between):
        for _ in range(ROUNDS):
            before = best
            for at, step in enumerate(start.steps):
                for option in dataclasses.fields(step):
                    for value in ladder(bench, best.chain, at, option.name):
                        trial = bench.trial(_with(best.chain, at, option.name, value))
                        say()
                        best = trial if key(trial) > key(best) else best
            if best is before:
                break
    return best


def _start(bench: Bench, kind: Chain) -> Chain:
    """Return the kind with all dimensions set, and with at most as many neighbours as the training set has."""
    chain = kind
    for at, step in enumerate(kind.steps):
        for option in dataclasses.fields(step):
            value = getattr(step, option.name)
            if option.name == "dim":
                chain = _with(chain, at, "dim", value or _most_dims(bench, kind, at))
            elif option.metadata["kind"] is int:
                chain = _with(chain, at, option.name, min(value, _most_neighbours(bench)))
    return chain


def _most_dims(bench: Bench, chain: Chain, at: int) -> int:
    """Return the largest `dim` of the step that the training set spans and that is legal for the descriptor track."""
    spanned = bench._state(())[0].spanned
    return max(2, min(MAX_DIM - sum(step.MORE for step in chain.steps[at + 1 :]), spanned))


def _most_neighbours(bench: Bench) -> int:
    return max(1, len(bench.training) - 1)  # a training vector is not its own neighbour


def _rungs(bench: Bench, chain: Chain, at: int, option: str) -> list[Any]:
    """Return the values of the option to try, in order, without those that this training set makes impossible."""
    step = chain.steps[at]
    if option == "dim":
        most = _most_dims(bench, chain, at)
        return sorted({max(2, int(share * most)) for share in SHARES})
    values = LADDERS[type(step)][option]
    most = _most_neighbours(bench)
    return [value for value in values if type(value) is not int or value <= most]


def _between(bench: Bench, chain: Chain, at: int, option: str) -> Iterator[Any]:
    """Yield the geometric means of the option's value and the nearest rungs below and above it."""
    value = getattr(chain.steps[at], option)
    if isinstance(value, bool):
        return
    rungs = _rungs(bench, chain, at, option)
    for near in (
        max((r for r in rungs if r < value), default=None),
        min((r for r in rungs if r > value), default=None),
    ):
        if near is not None:
            middle = math.sqrt(value * near)
            yield round(middle) if isinstance(value, int) else float(f"{middle:.2g}")


def _with(chain: Chain, at: int, option: str, value: Any) -> Chain:
    changed = dataclasses.replace(chain.steps[at], **{option: value})
    return Chain((*chain.steps[:at], changed, *chain.steps[at + 1 :]))


def _size(bench: Bench, chain: Chain) -> int:
    """Return about how many trials the chain takes."""
    rungs = [
        _rungs(bench, chain, at, option.name)
        for at, step in enumerate(chain.steps)
        for option in dataclasses.fields(step)
    ]
    return 3 * sum(map(len, rungs))


def _bit(query_id: str) -> int:
    return hashlib.sha256(query_id.encode()).digest()[0] & 1
