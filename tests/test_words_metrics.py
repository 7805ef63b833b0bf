"""Metrics of rankings and captions: values by hand, and those of pycocoevalcap on the same tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isc.errors import InputError
from isc.words.caption_metrics import bleu_counts, bleu_of_counts, caption_figures, cider_scores
from isc.words.ranking import ABSENT, gain, ranking_figures, ranks_in_lists, ranks_of_right

WORDS = ["a", "the", "dog", "cat", "man", "runs", "sits", "on", "grass", "red", "with", "ball"]


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    return [[WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, 14))] for _ in range(count)]


def test_gain_is_one_over_log2_of_the_place_and_zero_beyond_five():
    assert gain(np.array([0, 1, 4, 5, ABSENT])).tolist() == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(6), 0, 0])


def test_ranks_count_ties_against_the_ranking():
    scores = np.array([[0.9, 0.5, 0.9], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    right = np.array([[True, False, False], [False, True, True], [False, False, False]])
    assert ranks_of_right(scores, right).tolist() == [1, 0, ABSENT]
    assert ranks_in_lists([["x", "y"], ["y"]], ["y", "z"]).tolist() == [1, ABSENT]


def test_ranking_figures_by_hand():
    figures = ranking_figures(np.array([0, 1, 7, ABSENT]))
    assert figures.ndcg_at_5.value == pytest.approx((1 + 1 / math.log2(3)) / 4)
    assert (figures.recall_at_1.value, figures.recall_at_5.value, figures.recall_at_10.value) == (0.25, 0.5, 0.75)
    assert figures.reciprocal_rank.value == pytest.approx((1 + 1 / 2 + 1 / 8) / 4)
    assert figures.ndcg_at_5.low < figures.ndcg_at_5.value < figures.ndcg_at_5.high
    with pytest.raises(InputError, match="no query"):
        ranking_figures(np.zeros(0, np.int64))


def test_the_interval_covers_the_standard_error():
    rank = np.where(np.random.default_rng(0).random(400) < 0.3, 0, ABSENT)
    figure = ranking_figures(rank).recall_at_1
    error = math.sqrt(figure.value * (1 - figure.value) / 400)
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_bleu_by_hand():
    counts = bleu_counts(["the", "the", "cat"], [["the", "cat", "sat"], ["a", "cat"]])
    assert counts.tolist() == [2, 3, 1, 2, 0, 1, 0, 0, 3, 3]
    assert bleu_of_counts(counts)[:2] == pytest.approx([2 / 3, math.sqrt(2 / 3 * 1 / 2)], rel=1e-6)
    short = bleu_counts(["the"], [["the", "cat", "sat"]])
    assert bleu_of_counts(short)[0] == pytest.approx(math.exp(1 - 3), rel=1e-6)


def test_cider_of_the_reference_itself_is_ten_and_of_strangers_zero():
    references = [[["a", "dog", "runs", "on", "grass"]], [["the", "red", "cat", "sits", "with", "ball"]], [["man"] * 5]]
    assert cider_scores([one for [one] in references], references)[:2] == pytest.approx([10, 10])
    assert cider_scores([["x", "y", "z", "w", "v"]] * 3, references) == pytest.approx([0, 0, 0])


def test_figures_are_those_of_pycocoevalcap():
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    cider = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
    captions = [*sentences(40, 1), ["dog"], []]
    references = [sentences(1 + at % 5, 100 + at) for at in range(len(captions))]
    for at in range(0, 40, 4):  # some captions agree with a reference
        references[at][0] = captions[at] + ["ball"] * (at % 3)
    bleus, ciders = bleu.BleuScorer(n=4), cider.CiderScorer(n=4, sigma=6.0)
    for ours, theirs in zip(captions, references, strict=True):
        bleus += (" ".join(ours), [" ".join(one) for one in theirs])
        ciders += (" ".join(ours), [" ".join(one) for one in theirs])
    figures = caption_figures(captions, references, resamples=10)
    assert [one.value for one in figures.bleu] == pytest.approx(bleus.compute_score(option="closest")[0], rel=1e-9)
    mean, each = ciders.compute_score()
    assert figures.cider.value == pytest.approx(mean, rel=1e-9)
    assert cider_scores(captions, references) == pytest.approx(each, rel=1e-9, abs=1e-12)


def test_better_captions_score_higher_and_bad_input_is_refused():
    references = [sentences(3, at) for at in range(30)]
    own = caption_figures([several[0] for several in references], references, resamples=50)
    others = caption_figures([references[at - 1][0] for at in range(30)], references, resamples=50)
    assert own.bleu[3].low > others.bleu[3].high
    assert own.cider.low > others.cider.high
    assert own.as_dict()["pictures"] == 30
    with pytest.raises(InputError, match="without a reference"):
        caption_figures([["a"]], [[]])
    with pytest.raises(InputError, match="no caption"):
        caption_figures([], [])
