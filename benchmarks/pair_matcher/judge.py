"""What the pair matcher's logit finds alone, and what it adds to distance and local evidence."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.judge_score import ROLES, _command
from benchmarks.matching import SURPRISING, Bench, bench, row
from benchmarks.pair_matcher import network
from benchmarks.pair_matcher.data import Halves, TokenMaker, make_tokens, photo, read_tokens
from isc.descriptors import IntArray
from isc.errors import InputError
from isc.inputs import read_sides
from isc.matching.geometry import EVIDENCE
from isc.matching.store import FeatureStore
from isc.matching.stored import MODEL, fusion_for
from isc.matching.verify import verify
from isc.progress import progress

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CANDIDATES = 10
FOLDS = 5  # of queries
RIDGE = 1e-3
DRAWS = 500  # of queries, with replacement
EXTENDS = {  # what each score is to gain upon
    "logit alone": "distance",
    "distance + logit": "distance",
    "fusion of all": "distance",
    "fusion + logit": "fusion of all",
}


def judged(judge: Path, work: Path, *, matcher: network.PairMatcher, maker: TokenMaker) -> list[dict[str, object]]:
    """A row for each score, of every query's ten nearest references in `judge`; `work` keeps what is computed."""
    files = [work / f"{role}.h5" for role in ROLES]
    for role, path in zip(ROLES, files, strict=True):
        _command("extract", f"images={judge / role}", f"output={path}", "model=isc_small", "strict=true")
    sets = read_sides(*files)
    one = bench(judge, sets.queries, sets.references, number=CANDIDATES)
    sides = zip(ROLES, (one.queries, one.references), strict=True)
    tokens = [tokens_of(maker, images, work / role) for role, images in sides]
    logit = logits(matcher, one, *tokens)
    fusion, _ = fusion_for(MODEL, sets.provenance)
    store = FeatureStore(work / "features")
    evidence = verify(one.candidates, one.queries, one.references, store=store).evidence
    fused = log_odds(fusion.probability(one.distance, evidence))
    right = one.truth.right(one.candidates)
    unseen = right & ~(evidence[:, EVIDENCE.index("surprise")] >= SURPRISING)
    return table(one, scores(one, right, logit=logit, fused=fused), right=right, unseen=unseen)


def tokens_of(maker: TokenMaker, images: Mapping[str, Path], folder: Path) -> dict[str, Halves]:
    """Tokens of each image by its id, made where they are not there yet."""
    make_tokens(maker, len(images), functools.partial(photo, list(images.values())), folder)
    return dict(zip(images, read_tokens(folder, len(images)).tokens, strict=True))


def logits(
    matcher: network.PairMatcher, one: Bench, queries: Mapping[str, Halves], references: Mapping[str, Halves]
) -> Floats:
    """Of each candidate pair, [P]."""
    pairs, found = one.candidates, np.zeros(len(one.candidates))
    entered = matcher.enter(np.stack([references[name] for name in pairs.reference_ids]))
    with progress("logits", "queries") as report:
        for done, number in enumerate(queried := np.unique(pairs.query), 1):
            rows = np.flatnonzero(pairs.query == number)
            query = matcher.enter(queries[pairs.query_ids[number]][None])
            found[rows] = matcher.compare(query, entered.take(pairs.reference[rows]))
            report(done, len(queried))
    return found


def log_odds(probability: Floats) -> Floats:
    p = probability.clip(1e-300, 1 - 1e-16)
    return np.log(p) - np.log1p(-p)


def scores(one: Bench, right: Flags, *, logit: Floats, fused: Floats) -> dict[str, Floats]:
    """Each score [P] by what it is made of."""
    fit = functools.partial(cross_fitted, right=right, query=one.candidates.query)
    return {
        "distance": -one.distance,
        "logit alone": logit,
        "distance + logit": fit(np.column_stack([one.distance, logit])),
        "fusion of all": fused,
        "fusion + logit": fit(np.column_stack([fused, logit])),
    }


def table(one: Bench, found: Mapping[str, Floats], *, right: Flags, unseen: Flags) -> list[dict[str, object]]:
    """`unseen` [P] are the copies for which the geometry finds nothing."""
    rows = []
    for name, score in found.items():
        gain = {"gain over": "", "gain in μAP": "", "its 95 % interval": ""}
        if name in EXTENDS:
            base = found[EXTENDS[name]]
            low, middle, high = gain_in_precision(one, score, base, right=right)
            interval = f"{low:+.4f} … {high:+.4f}"
            gain = {"gain over": EXTENDS[name], "gain in μAP": f"{middle:+.4f}", "its 95 % interval": interval}
        threshold = one.judged(score, CANDIDATES)[1].threshold_at_p90
        above = 0 if threshold is None else int((score.astype(np.float32) >= np.float32(threshold))[unseen].sum())
        named = row(name, one, score, number=CANDIDATES)
        rows.append(named | gain | {"copies without an alignment": int(unseen.sum()), "of these found": above})
    return rows


def cross_fitted(columns: Floats, *, right: Flags, query: IntArray) -> Floats:
    """Log-odds [P] of a logistic fit of columns [P, K], each from a fit without its own fold of queries."""
    fold = np.random.default_rng(0).permutation(query.max() + 1)[query] % FOLDS
    x = np.column_stack([(columns - columns.mean(0)) / columns.std(0), np.ones(len(columns))])
    found = np.zeros(len(x))
    for number in range(FOLDS):
        found[fold == number] = x[fold == number] @ logistic(x[fold != number], right[fold != number])
    return found


def logistic(x: Floats, right: Flags) -> Floats:
    """Weights of the logistic regression, by Newton's method."""
    if right.all() or not right.any():
        raise InputError(
            f"{right.sum()} of {len(right)} candidate pairs are copies; a fit needs some that are not, too"
        )
    weights = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ weights))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(x.shape[1])
        weights += np.linalg.solve(hessian, x.T @ (right - p) - RIDGE * weights)
    return weights


def gain_in_precision(one: Bench, score: Floats, base: Floats, *, right: Flags) -> tuple[float, float, float]:
    """What μAP gains over `base`: the gain itself, between the ends of the middle 95 % of what it is for queries drawn
    with replacement."""
    ids = sorted(one.truth.queries)
    place = {name: at for at, name in enumerate(ids)}
    query = np.array([place[name] for name in one.candidates.query_ids])[one.candidates.query]
    copies = np.bincount([place[name] for name, _ in one.truth.pairs], minlength=len(ids))
    ranked = [(right[order], query[order]) for order in (np.lexsort((right, -s)) for s in (score, base))]

    def gain(times: npt.NDArray[np.int64]) -> float:
        return float(np.subtract(*(_precision(r, times[q]) for r, q in ranked)) / max(times @ copies, 1))

    rng = np.random.default_rng(0)
    drawn = [gain(np.bincount(rng.integers(len(ids), size=len(ids)), minlength=len(ids))) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), gain(np.ones(len(ids), np.int64)), float(high)


def _precision(right: Flags, times: npt.NDArray[np.int64]) -> float:
    """Sum over the copies of the precision at each, of pairs in falling order that count `times` [P]."""
    return float(np.sum(times * right * np.cumsum(times * right) / np.maximum(np.cumsum(times), 1)))
