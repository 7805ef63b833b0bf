"""Matching: candidates for each picture by its pixels and its file name, and a fusion that orders them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize  # type: ignore[import-untyped]

from isc.errors import InputError
from isc.search.exact import nearest
from isc.words.names import NAMES, name_evidence, name_words
from isc.words.sentences import meaning
from isc.words.submission import MOST
from isc.words.text_grams import gram_counts, rarity, weighed

CANDIDATES = 50  # texts of a picture by pixels, as many by the letters of its name, and as many by its meaning
EVIDENCE = ("pixels", "name_cosine", *NAMES, "meaning")
Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MatchFusion:
    """The weights of the evidence in the order of EVIDENCE, none below 0: more evidence never makes a text worse.

    The defaults count the name's cosine as much as the pixels; the others are in proportion to it about what fits on
    names of pictures gave (`benchmarks.words_names`, the half that is fitted on).
    """

    weights: tuple[float, ...] = (1.0, 1.0, 0.2, 0.2, 0.1, 0.1, 0.05, 3.5)

    def __post_init__(self) -> None:
        if len(self.weights) != len(EVIDENCE) or min(self.weights) < 0 or not np.isfinite(self.weights).all():
            raise InputError(f"weights {self.weights}; expected {len(EVIDENCE)} finite numbers of at least 0")


@dataclass(frozen=True)
class Ranked:
    """The candidates of each picture, places in the list of texts, best first, with their evidence [N, 8]."""

    places: list[npt.NDArray[np.int64]]
    rows: list[Floats]


def rank(
    names: Sequence[str | None], texts: Sequence[str], *, pictures: Vectors | None, text_vectors: Vectors | None,
    name_meanings: Vectors | None = None, text_meanings: Vectors | None = None, fusion: MatchFusion | None = None,
) -> Ranked:  # fmt: skip
    """Rank the texts for each picture.

    `names` are the pictures' URLs or file names, None to leave a name out; `pictures` [P, D] and `text_vectors` [T, D]
    unit vectors of the towers, or None for names alone; `name_meanings` [P, E] and `text_meanings` [T, E] vectors of
    sentences (`isc.words.sentences`), zeros where there is no name, or None to compare the letters of names alone.
    Raises InputError if there are neither names nor towers.
    """
    if (pictures is None or text_vectors is None) and not any(names):
        raise InputError("neither names nor vectors of pictures; expected at least one kind of evidence")
    words = [name_words(one) if one else "" for one in names]
    counts = gram_counts(list(texts))
    weights = rarity(counts)
    known = weighed(counts, weights)
    cosines = weighed(gram_counts(words), weights) @ known.T
    by_pixels = _nearest(len(words), pictures, text_vectors)
    by_meaning = _nearest(len(words), name_meanings, text_meanings)
    fusion = fusion or MatchFusion()
    places, rows = [], []
    for at, name in enumerate(words):
        cosine = cosines[at].toarray().ravel() if name else np.zeros(len(texts))
        by_name = np.argsort(-cosine, kind="stable")[:CANDIDATES] if name else np.zeros(0, np.int64)
        by_vectors = (by_pixels[at], by_meaning[at] if name else by_pixels[at])
        found = np.unique(np.concatenate([*by_vectors, by_name]).astype(np.int64))
        pixels = _cosines(pictures, text_vectors, at, found)
        meant = meaning(_cosines(name_meanings, text_meanings, at, found))
        ours = name_evidence(name, [texts[place] for place in found]) if name else np.zeros((len(found), len(NAMES)))
        evidence = np.column_stack([pixels, cosine[found], ours, meant])
        order = np.argsort(-(evidence @ np.array(fusion.weights)), kind="stable")
        places.append(found[order])
        rows.append(evidence[order])
    return Ranked(places, rows)


def _nearest(count: int, pictures: Vectors | None, texts: Vectors | None) -> Sequence[npt.NDArray[np.int64]]:
    """Return the places of the CANDIDATES nearest texts of each of `count` pictures, by the search for descriptors."""
    if pictures is None or texts is None:
        return [np.zeros(0, np.int64)] * count
    return list(nearest(pictures, texts, k=min(CANDIDATES, len(texts)))[0])


def _cosines(pictures: Vectors | None, texts: Vectors | None, at: int, places: npt.NDArray[np.int64]) -> Floats:
    """Return the cosines [N] of one picture's vector with those of the texts at these places; 0 without vectors."""
    if pictures is None or texts is None:
        return np.zeros(len(places))
    return np.asarray(texts[places] @ pictures[at], np.float64)


def fit_fusion(rows: Sequence[Floats], right: Sequence[int], *, ridge: float = 1e-3) -> MatchFusion:
    """Fit the weights to candidates [N, 8] of pictures, of which `right` is the place of the right one.

    They minimise the mean of −log softmax(weights · evidence)[right], the listwise loss of ListNet (Cao et al., ICML
    2007) with one right text, under weights ≥ 0. Raises InputError without pictures.
    """
    if not rows:
        raise InputError("no picture whose right text is a candidate; expected at least 1")

    def loss(weights: Floats) -> tuple[float, Floats]:
        total, gradient = ridge * float(weights @ weights), 2 * ridge * weights
        for evidence, place in zip(rows, right, strict=True):
            scores = evidence @ weights
            share = np.exp(scores - scores.max())
            share /= share.sum()
            total -= float(np.log(max(share[place], 1e-300))) / len(rows)
            gradient = gradient + (share @ evidence - evidence[place]) / len(rows)
        return total, gradient

    begin = np.ones(len(EVIDENCE))
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(begin)).x
    return MatchFusion(tuple(float(one) for one in found))


def submission_of(ranked: Ranked, ids: Sequence[str], texts: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the best five texts of each id."""
    return {name: [texts[place] for place in places[:MOST]] for name, places in zip(ids, ranked.places, strict=True)}
