"""The report: what it says, what it shows of half a million pairs, and that no input can break or hijack the page."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc.data.matches import GroundTruth, Matches
from isc.evaluate.bootstrap import GRID, bootstrap, intervals
from isc.evaluate.metrics import Bin, Curve, evaluate, precision_recall, wilson
from isc.evaluate.report.by_edit import edit_kind, edit_table
from isc.evaluate.report.charts import (
    band_path,
    curve_chart,
    histogram_chart,
    number,
    reliability_chart,
    score_range,
    thin,
    ticks,
)
from isc.evaluate.report.comparison import OtherRun, compare
from isc.evaluate.report.galleries import RivalPair, sheets
from isc.evaluate.report.page import write_report
from isc.evaluate.report.pair_outcomes import apart, as_score, judge, spread, top
from isc.evaluate.report.thumbnails import MAX_JPEG, Pictures, thumbnail
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import list_images

SAMPLE = Path(__file__).parents[1] / "isc" / "sample"


@dataclass(frozen=True)
class Region:
    query_region: np.ndarray
    reference_region: np.ndarray
    inliers: int


class Page(HTMLParser):
    """Every tag with its attributes, the text outside style and script, and the order of headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self.inside):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(path: Path, matches: Matches, **options) -> Page:
    write_report(path / "report.html", matches, title="A run", **options)
    return Page((path / "report.html").read_text(encoding="utf-8"))


def truth(*pairs: tuple[str, str], distractors: tuple[str, ...] = ()) -> GroundTruth:
    return GroundTruth(frozenset(distractors), frozenset(pairs))


def rows(*pairs: tuple[str, str, float]) -> Matches:
    return Matches.from_ids(*zip(*pairs, strict=True))


@pytest.fixture
def small() -> tuple[Matches, GroundTruth]:
    """a found; b found at the threshold; c ranked second and below it; d never predicted; e dropped."""
    matches = rows(
        ("a", "A", -0.1),
        ("b", "B", -0.3),
        ("c", "X", -0.5),
        ("d", "Y", -0.6),
        ("c", "C", -0.9),
        ("a", "X", -1.0),
        ("e", "E", -0.05),
    )
    return matches, truth(("a", "A"), ("b", "B"), ("c", "C"), ("d", "D"))


@pytest.fixture
def photos(tmp_path: Path) -> Pictures:
    """Three photos as references A, B, C, and as queries a, b, c one half, mirrored, and as it is."""
    names = dict(zip("ABC", sorted(SAMPLE.glob("S*.jpg")), strict=False))
    for folder in ("queries", "references"):
        (tmp_path / folder).mkdir()
    for name, source in names.items():
        pixels = read_image(source)
        copy = {"A": pixels[:, : pixels.shape[1] // 2], "B": pixels[:, ::-1], "C": pixels}[name]
        for path, image in (("references/" + name, pixels), ("queries/" + name.lower(), copy)):
            (tmp_path / f"{path}.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(image), quality=90))
    return Pictures(list_images(tmp_path / "queries"), list_images(tmp_path / "references"))


# --- what the page says ----------------------------------------------------------------------------------------------


def test_headline_figures_are_those_of_the_metrics(tmp_path, small):
    matches, ground_truth = small
    text = page(tmp_path, matches, metrics=evaluate(matches, ground_truth), ground_truth=ground_truth).text
    # P = 4: right, right, wrong, wrong, right, wrong → (1 + 1 + 3/5) / 4
    assert "μAP 0.6500" in text
    assert "Recall at 90 % precision 50.0 %" in text
    assert "threshold −0.300000" in text
    assert "Recall at rank 1 50.0 %" in text
    assert "Recall at rank 10 75.0 %" in text
    assert "predictions 7 dropped, as their query is not judged 1 true pairs 4" in text
    assert "μAP lies between" not in text
    assert "No ground truth" not in text


def test_headline_figures_have_the_intervals_of_the_bootstrap(tmp_path, small):
    matches, ground_truth = small
    known = intervals(bootstrap(matches, ground_truth))
    text = page(tmp_path, matches, ground_truth=ground_truth).text
    low, high = known["average_precision"]
    assert f"μAP 0.6500 95 %: {low:.3f} to {high:.3f} micro" in text
    low, high = known["recall_at_rank1"]
    assert f"Recall at rank 1 50.0 % 95 %: {100 * low:.1f} % to {100 * high:.1f} % true" in text
    assert "resamples of the 4 queries lie (bootstrap, 1,000 resamples)" in text
    few = bootstrap(matches, ground_truth, resamples=7, seed=5)
    text = page(tmp_path, matches, ground_truth=ground_truth, resampled=few).text
    low, high = intervals(few)["average_precision"]
    assert f"95 %: {low:.3f} to {high:.3f} micro" in text
    assert "bootstrap, 7 resamples" in text


def test_metrics_are_computed_where_only_the_ground_truth_is_given(tmp_path, small):
    assert "μAP 0.6500" in page(tmp_path, small[0], ground_truth=small[1]).text


def test_ties_are_confessed(tmp_path):
    tied = rows(("a", "A", 0.5), ("a", "B", 0.5))
    text = page(tmp_path, tied, ground_truth=truth(("a", "A"))).text
    assert "μAP lies between 0.5000 and 1.0000" in text
    assert "worst case" in text


def test_close_figures_are_written_apart():
    assert apart(0.50001, 0.50002) == ("0.50001", "0.50002")
    assert apart(0.25, 0.75) == ("0.2500", "0.7500")


def test_without_ground_truth_the_page_says_so_and_shows_the_best_pairs(tmp_path, small):
    shown = page(tmp_path, small[0])
    assert "No ground truth was given" in shown.text
    assert "Best pairs 7" in shown.text
    assert "μAP" not in shown.text
    assert [a["id"] for a in shown.all("section")] == ["best", "scores"]


def test_without_any_match_the_page_still_stands(tmp_path):
    empty = Matches.from_ids([], [], [])
    assert "predictions 0" in page(tmp_path, empty).text
    judged = page(tmp_path, empty, ground_truth=truth(("a", "A"))).text
    assert "μAP 0.0000" in judged
    assert "its query has no prediction at all" in judged


def test_no_threshold_means_nothing_is_found_and_the_page_explains(tmp_path):
    wrong_first = rows(("a", "X", 0.9), ("a", "A", 0.8))
    text = page(tmp_path, wrong_first, ground_truth=truth(("a", "A")), edits={"a": ["blur 3"]}).text
    assert "90 % precision is never reached" in text
    assert "nothing counts as found" in text
    assert "Found 0" in text
    assert "Missed 1" in text
    assert "any edit 1 – 0.0 % 0 to 79 %" in text  # 1 / (1 + 1/z²) = 0.793


def test_reliability_is_shown_of_probabilities_that_can_be_judged_and_of_nothing_else(tmp_path):
    matches = rows(("a", "A", 0.93), ("b", "B", 0.31), ("c", "X", 0.36), ("d", "Y", 0.0))
    ground_truth = truth(("a", "A"), ("b", "B"), distractors=("c", "d"))
    shown = page(tmp_path, matches, ground_truth=ground_truth, probabilities=True)
    assert {"reliability"} <= {section.get("id") for section in shown.all("section")}
    assert {"#reliability"} <= {link.get("href") for link in shown.all("a")}
    assert "on the dashed line as many are right as was said" in shown.text
    assert "share of right pairs" in shown.text
    others = {"distances": {"ground_truth": ground_truth}, "no ground truth": {"probabilities": True}, "neither": {}}
    for options in others.values():
        shown = page(tmp_path, matches, **options)
        assert "eliability" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    nothing_judged = page(tmp_path, rows(("z", "A", 0.5)), ground_truth=ground_truth, probabilities=True)
    assert "Reliability" not in nothing_judged.text


def test_a_pair_shows_its_probability_and_whether_it_is_accepted(tmp_path, small, photos):
    """The same decision as in probabilities.csv, in the digits that mean something; the pictures come first."""
    matches, ground_truth = small
    probability = np.linspace(0.999, 0.004, len(matches))
    options = {
        "calibrated": probability,
        "accepted": probability >= 0.5,
        "acceptance": "score ≥ 0.5",
        "pictures": photos,
    }
    for judged in ({"ground_truth": ground_truth}, {}):
        shown = page(tmp_path, matches, **options, **judged)
        assert "probability > 0.99 · accepted · score" in shown.text
        assert "not accepted" in shown.text
        assert "Accepted: score ≥ 0.5." in shown.text
        order = [section["id"] for section in shown.all("section")]
        assert order.index("scores") > order.index("wrong" if judged else "best")
    assert "isc " in shown.text


def test_headings_are_in_order_and_references_inside_the_page_resolve(tmp_path, small, photos):
    probabilities = replace(small[0], score=small[0].score + 1)
    shown = page(
        tmp_path, probabilities, ground_truth=small[1], pictures=photos, provenance={"seed": "7"}, probabilities=True
    )
    levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in shown.all("a") if a["href"].startswith("#")} | {
        i for svg in shown.all("svg") for i in svg.get("aria-labelledby", "").split()
    }
    assert targets <= set(ids)
    assert len(targets) >= 12


def test_nothing_is_asked_of_the_network(tmp_path, small, photos):
    shown = page(tmp_path, small[0], ground_truth=small[1], pictures=photos)
    addresses = [
        v
        for tag, attributes in shown.tags
        for k, v in attributes.items()
        if k in {"src", "href", "srcset"} and tag != "a"
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    links = {a["href"] for a in shown.all("a") if not a["href"].startswith("#")}
    assert links, "to the files of the pictures"
    assert all((tmp_path / link).is_file() for link in links)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(m["content"] for m in shown.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_hostile_text_stays_text(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    files = Pictures({evil: tmp_path / "<b>.jpg"}, {})
    options = {"edits": {evil: [evil]}, "provenance": {evil: evil}, "pictures": files}
    matches = rows((evil, evil, 1.0), ("b", evil, 0.5))
    write_report(tmp_path / "out.html", matches, title=evil, ground_truth=truth((evil, evil), ("b", "B")), **options)
    shown = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert len(shown.all("script")) == 1  # our own
    assert not any("style" not in attributes for attributes in shown.all("b"))  # the intervals on our bars have one
    assert shown.text.count(evil) >= 6


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_sheets_of_the_small_run(small):
    matches, ground_truth = small
    found, missed, wrong = sheets(judge(matches, ground_truth, -0.3), -0.3)
    assert [pair.key for pair in found.pairs] == [("b", "B"), ("a", "A")]  # the hardest first
    assert [(p.key, p.score, p.note, p.beside) for p in missed.pairs] == [
        (("c", "C"), -0.9, "rank 2 of its query", RivalPair("X", -0.5, "ranked first instead")),
        (("d", "D"), None, "never predicted", RivalPair("Y", -0.6, "ranked first instead")),
    ]
    assert [pair.key for pair in wrong.pairs] == [("c", "X"), ("d", "Y"), ("a", "X")]  # e is not judged
    assert (found.total, missed.total, wrong.total) == (2, 2, 3)


def test_a_wrong_pair_shows_the_right_one_or_says_that_there_is_none():
    matches = rows(("a", "X", 0.9), ("a", "A", 0.5), ("a", "B", 0.7), ("b", "X", 0.8), ("x", "X", 0.6))
    ground_truth = truth(("a", "A"), ("a", "B"), ("b", "B"), distractors=("x",))
    *_, wrong = sheets(judge(matches, ground_truth, None), None)
    assert [(p.query, p.beside, p.note) for p in wrong.pairs] == [
        ("a", RivalPair("B", 0.7, "the right one"), ""),
        ("b", RivalPair("B", None, "the right one"), ""),
        ("x", None, "its query is a copy of no reference"),
    ]
    *_, wrong = sheets(judge(matches, ground_truth, 0.5), 0.5)
    assert wrong.pairs[2].note == "above the threshold; its query is a copy of no reference"


def test_a_wrong_pair_above_the_threshold_says_so(small):
    *_, wrong = sheets(judge(*small, -0.5), -0.5)
    assert [pair.note for pair in wrong.pairs] == ["above the threshold", "", ""]


def test_a_pair_that_comes_first_below_the_threshold_names_no_other(small):
    _, missed, _ = sheets(judge(*small, None), None)
    assert [(p.key, p.beside) for p in missed.pairs][:2] == [(("a", "A"), None), (("b", "B"), None)]


def test_a_missed_pair_is_not_named_as_its_own_rival():
    tied = rows(("a", "A", 0.5), ("a", "B", 0.5))
    _, missed, _ = sheets(judge(tied, truth(("a", "A")), None), None)
    assert missed.pairs[0].note == "rank 2 of its query"
    assert missed.pairs[0].beside == RivalPair("B", 0.5, "ranked first instead")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6)), unique_by=lambda t: t[:2]))
def test_found_is_recall_at_90_percent_precision(drawn):
    matches = Matches.from_ids([f"q{q}" for q, _, _ in drawn], [f"r{r}" for _, r, _ in drawn], [s for *_, s in drawn])
    ground_truth = truth(*((f"q{i}", f"r{i}") for i in range(5)))
    metrics = evaluate(matches, ground_truth)
    judged = judge(matches, ground_truth, metrics.threshold_at_p90)
    assert judged.found.sum() / 5 == pytest.approx(metrics.recall_at_p90)
    assert (judged.rank == 0).sum() / 5 == pytest.approx(metrics.recall_at_rank1)


def test_a_copy_just_at_the_threshold_is_found_in_float32_as_well():
    """The threshold's decimals, −0.84753865, lie above the float32 number that they are written for."""
    matches = Matches.from_ids(["a", "b"], ["r", "s"], [-0.5, -0.84753865])
    matches = replace(matches, score=matches.score.astype(np.float32))
    truth = GroundTruth(frozenset({"a", "b"}), frozenset({("a", "r"), ("b", "s")}))
    threshold = evaluate(matches, truth).threshold_at_p90
    assert threshold == -0.84753865 > float(np.float32(-0.84753865))
    assert judge(matches, truth, as_score(threshold, matches)).found.all()


@given(st.lists(st.integers(-5, 5), max_size=60), st.integers(0, 30))
def test_top_is_the_head_of_the_whole_order(scores, count):
    n = len(scores)
    matches = Matches.from_ids([f"q{i % 7}" for i in range(n)], [f"r{i}" for i in range(n)], scores)
    assert top(matches, np.arange(n), count).tolist() == matches.order()[:count].tolist()


def test_spread_keeps_both_ends_and_the_order():
    assert spread(np.arange(5), 24).tolist() == [0, 1, 2, 3, 4]
    assert spread(np.arange(101), 5).tolist() == [0, 25, 50, 75, 100]


def test_long_sheets_show_24_as_pictures_list_200_and_count_the_rest(tmp_path, photos):
    pairs = [(f"q{i:03d}", f"r{i}") for i in range(450)]
    matches = rows(*((q, r, 1.0 - i / 1000) for i, (q, r) in enumerate(pairs[:230])))
    shown = page(tmp_path, matches, ground_truth=truth(*pairs), pictures=photos)
    assert sum("data-pair" in attributes for attributes in shown.all("li")) == 2 * 24
    assert sum("data-pair" in attributes for attributes in shown.all("tr")) == 2 * 176
    assert "Found 200 of 230" in shown.text
    assert "Missed 200 of 220" in shown.text
    assert shown.text.count("176 more, without pictures") == 2
    without = page(tmp_path, matches, ground_truth=truth(*pairs))
    assert sum("data-pair" in attributes for attributes in without.all("tr")) == 400
    assert not without.all("details")


def test_what_is_listed_below_the_pictures_are_other_pairs_in_the_same_order():
    pairs = [(f"q{i:03d}", f"r{i}") for i in range(300)]
    matches = rows(*((q, "X", 1.0 - i / 1000) for i, (q, _) in enumerate(pairs)))
    found, missed, wrong = sheets(judge(matches, truth(*pairs), None), None)
    for sheet, total in ((found, 0), (missed, 300), (wrong, 300)):
        listed = [pair.key for pair in (*sheet.pairs, *sheet.more)]
        assert sheet.total == total
        assert len(listed) == len(set(listed)) == min(total, 200)
        assert [pair.key for pair in sheet.more] == sorted(pair.key for pair in sheet.more)
    assert [pair.key for pair in missed.pairs][::23] == [pairs[0], pairs[-1]]


def test_a_missed_pairs_rival_is_the_best_other_prediction_of_its_query():
    rng = np.random.default_rng(0)
    pairs = [(f"q{i}", f"r{i}") for i in range(40)]
    drawn = {(f"q{rng.integers(50)}", f"r{rng.integers(40)}"): rng.integers(0, 9) / 10 for _ in range(300)}
    matches = rows(*((q, r, score) for (q, r), score in drawn.items()))
    judged = judge(matches, truth(*pairs, distractors=tuple(f"q{i}" for i in range(50))), None)
    _, missed, _ = sheets(judged, None)
    assert len(missed.pairs) + len(missed.more) == 40
    for pair in (*missed.pairs, *missed.more):
        others = [score for (q, r), score in drawn.items() if q == pair.query and r != pair.reference]
        if pair.rank == 0 or not others:
            assert pair.beside is None
        else:
            assert pair.beside.score == max(others)
            assert drawn[pair.query, pair.beside.reference] == max(others)
            assert pair.beside.reference != pair.reference


def test_pairs_say_what_the_page_filters_and_sorts_by(tmp_path, small):
    edits = {"c": ["crop 42 %", "crop 10 %", "blur σ 2 px"], "d": []}
    shown = page(tmp_path, small[0], ground_truth=small[1], edits=edits)
    of = {(row["data-query"], row["data-score"]): row for row in shown.all("tr") if "data-pair" in row}
    missed = of["c", "-0.9"]
    assert (missed["data-rank"], missed["data-edits"], missed["data-kinds"]) == ("1", "3", "crop|blur")
    never = of["d", ""]
    assert (never["data-rank"], never["data-edits"], never["data-kinds"]) == ("", "0", "")
    assert shown.text.count("any edit blur crop") == 1  # the choice among kinds


def test_edit_kinds_lose_their_parameters():
    named = {
        "crop 42 %": "crop",
        "rotate −12°": "rotate",
        "emoji × 3": "emoji",
        "blur σ 2.1 px": "blur",
        "blur (radius 3)": "blur",
        "text, lines: 2": "text",
        "posterise to 4 levels": "posterise",
        "scale x2": "scale",
        "JPEG quality 30": "JPEG quality",
        "flip left-right": "flip left-right",
        "3d tilt": "3d tilt",
        "42": "42",
    }
    assert {name: edit_kind(name) for name in named} == named


def test_edit_table_counts_copies_not_edits(small):
    edits = {"a": ["crop 10 %", "crop 20 %"], "b": ["crop 30 %", "blur 2"], "c": ["blur 9"], "d": [], "e": ["crop 5 %"]}
    table = edit_table(judge(*small, -0.3), edits)
    assert [(r.kind, r.copies, r.found, r.first) for r in table] == [
        ("any edit", 3, pytest.approx(2 / 3), pytest.approx(2 / 3)),
        ("blur", 2, 0.5, 0.5),
        ("crop", 2, 1.0, 1.0),
    ]
    assert table[0].found_interval == wilson(2, 3)
    assert table[1].first_interval == wilson(1, 2)
    assert edit_table(judge(*small, -0.3), {"x": ["crop 1 %"]}) == []


# --- charts ----------------------------------------------------------------------------------------------------------


def distances(x, y, kept):
    """How far each point [M] lies from the polyline through the kept ones: the slow twin."""
    points, ends = np.stack([x, y], 1), np.stack([x[kept], y[kept]], 1)
    nearest = np.full(len(x), np.inf)
    for a, b in itertools.pairwise(ends):
        share = np.clip((points - a) @ (b - a) / max((b - a) @ (b - a), 1e-300), 0, 1)
        nearest = np.minimum(nearest, np.hypot(*(points - a - share[:, None] * (b - a)).T))
    return nearest


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.98), st.integers(2, 5000))
def test_thinned_curve_lies_on_the_curve(seed, share, count):
    rng = np.random.default_rng(seed)
    right = rng.random(count) < np.linspace(1, share, count) ** 3
    right[0] = True
    curve = precision_recall(-np.arange(count, dtype=float), right, int(right.sum()))
    kept = thin(curve.recall, curve.precision)
    assert len(kept) <= 400
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    assert curve.precision[kept[-1]] == curve.precision[-1]
    assert distances(curve.recall, curve.precision, kept).max() < 0.004


def test_thinning_keeps_every_corner_of_half_a_million_points():
    corners_x = np.array([0.0, 0.11, 0.111, 0.3, 0.52, 0.77, 0.7701, 1.0])
    corners_y = np.array([1.0, 0.95, 0.60, 0.8, 0.45, 0.62, 0.10, 0.05])
    at = np.linspace(0, 499_999, 8).astype(int)
    x, y = np.interp(np.arange(500_000), at, corners_x), np.interp(np.arange(500_000), at, corners_y)
    kept = thin(x, y)
    assert len(kept) <= 400
    for corner in zip(corners_x, corners_y, strict=True):
        assert np.hypot(x[kept] - corner[0], y[kept] - corner[1]).min() < 1.5e-3  # a column of a thousand
    assert len(kept) < 40  # straight strokes need no points


def test_thinning_keeps_a_spike_that_a_stride_would_step_over():
    x, y = np.linspace(0, 1, 500_000), np.full(500_000, 0.5)
    y[271_828] = 0.0
    assert 271_828 in thin(x, y)


def test_thinning_tiny_curves():
    assert thin(np.zeros(0), np.zeros(0)).tolist() == []
    assert thin(np.array([0.5]), np.array([1.0])).tolist() == [0]
    assert thin(np.array([0.0, 0.5]), np.array([0.0, 1.0])).tolist() == [0, 1]
    assert thin(np.full(3, 0.5), np.array([0.5, 0.9, 0.6])).tolist() == [0, 1, 2]  # a spike beyond both its neighbours
    assert thin(np.full(4, 0.5), np.array([0.4, 0.9, 0.1, 0.5])).tolist() == [0, 1, 2, 3]  # ends that are no extremes


def test_curve_chart_places_the_operating_point():
    curve = precision_recall(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, True, False, True]), 4)
    chart = curve_chart(curve, 0.5)
    (_, path), (x, y) = chart.paths[0], chart.dot
    assert (x, y) == (64 + 404 * 0.5, 22.0)
    assert f"{x:.1f},{y:.1f}" in path
    assert curve_chart(curve, 0.0).dot is None


def test_reliability_chart_has_a_dot_a_bin_the_larger_the_more_pairs():
    chart = reliability_chart([Bin(0.0, 0.1, 1, 0.05, 0.0), Bin(0.4, 0.5, 10, 0.5, 0.25), Bin(0.9, 1.0, 100, 1.0, 1.0)])
    paths = dict(chart.paths)
    assert paths["curve"] == "M84.2,268.0 266.0,206.5 468.0,22.0"
    dots = re.findall(r"M(\S+),(\S+) a(\S+),", paths["right"])  # left end, height, radius
    assert dots == [("82.2", "268.0", "2.0"), ("262.5", "206.5", "3.5"), ("463.0", "22.0", "5.0")]
    assert chart.guide[0] == "M64.0,268.0 L468.0,22.0"  # from 0, 0 to 1, 1
    assert [label for _, label in chart.x_ticks] == [label for _, label in chart.y_ticks]
    assert len(reliability_chart([Bin(0.0, 0.1, 1, 0.0, 0.0)]).paths) == 2


def test_curve_chart_of_half_a_million_points_is_small():
    rng = np.random.default_rng(0)
    right = rng.random(500_000) < 0.02
    curve = precision_recall(rng.random(500_000), right, 12_000)
    assert len(curve.score) == 500_000
    assert curve_chart(curve, 0.0).paths[0][1].count(",") <= 400
    assert curve_chart(Curve(np.zeros(0), np.zeros(0), np.zeros(0)), 0.0).paths[0][1] == ""


def bar_heights(path: str) -> list[float]:
    """Bars of a histogram's path as shares of the plot's height."""
    return [(268.0 - float(v)) / 246.0 for v in re.findall(r"V([\d.]+) H", path)]


def test_histogram_counts_right_and_wrong_apart():
    score = np.array([0.0, 0.1, 0.1, 0.9, 1.0, 0.05])
    right = np.array([False, False, False, True, True, False])
    chart = histogram_chart(score, right, 0.9, bins=2)
    paths = dict(chart.paths)
    assert bar_heights(paths["wrong"]) == [1.0, 0.0]
    assert bar_heights(paths["right"]) == [0.0, 0.5]
    assert not chart.logarithmic
    assert chart.guide[2] == pytest.approx(64 + 404 * 0.9)
    assert [label for _, label in chart.x_ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [label for _, label in chart.y_ticks] == ["0", "1", "2", "3", "4"]


def test_histogram_of_many_is_logarithmic_and_still_shows_one():
    score = np.r_[np.zeros(9_999), 1.0]
    chart = histogram_chart(score, None, None, bins=2)
    low, high = bar_heights(chart.paths[0][1])[::-1]
    assert chart.logarithmic
    assert high == 1.0
    assert low == pytest.approx(np.log(2) / np.log(10_000), abs=1e-3)
    assert [label for _, label in chart.y_ticks] == ["0", "1", "10", "100", "1,000"]
    assert chart.guide is None


@pytest.mark.parametrize(
    "score",
    [
        [0.0],
        [-1.5, -1.5],
        [1e9, 1e9 + 1e-6],
        [5e-324, 0.0],
        [-1.7e308, 1.7e308],
        [1e-12, 2e-12],
        [-4.0, 0.0],
    ],
)
def test_histogram_of_awkward_scores(score):
    chart = histogram_chart(np.array(score), None, None)
    low, high = score_range(np.array(score))
    assert np.isfinite(high - low)
    assert low < high
    assert chart.x_ticks
    assert all(64 - 1e-6 <= x <= 468 + 1e-6 for x, _ in chart.x_ticks)
    assert "nan" not in chart.paths[0][1]
    assert max(bar_heights(chart.paths[0][1])) == 1.0


def test_ticks_are_round():
    assert ticks(-1.97, 0.0, 6) == [
        (pytest.approx(v), label) for v, label in [(-1.5, "−1.5"), (-1.0, "−1.0"), (-0.5, "−0.5"), (0, "0.0")]
    ]
    assert [label for _, label in ticks(0, 0.004, 5)] == ["0.000", "0.001", "0.002", "0.003", "0.004"]


def test_numbers_read_well():
    assert (number(-0.5), number(500_000), number(-1.04), number(0.123456789, 6)) == (
        "−0.5000",
        "500,000",
        "−1.040",
        "0.123457",
    )


def test_the_band_holds_the_middle_of_the_resamples_and_ends_where_they_do():
    count = len(GRID)
    resampled = np.full((1000, count), np.nan)
    resampled[:, : count // 2] = np.linspace(0, 1, 1000)[:, None]
    resampled[:900, count // 2] = 0.5  # a tenth does not reach it
    points = re.findall(r"([\d.]+),([\d.]+)", band_path(resampled))
    heights = sorted({(268 - float(y)) / 246 for _, y in points})
    assert heights == [pytest.approx(0.025, abs=1e-3), pytest.approx(0.975, abs=1e-3)]
    assert max(float(x) for x, _ in points) == pytest.approx(64 + 404 * GRID[count // 2 - 1], abs=0.06)
    assert band_path(np.full((10, count), np.nan)) == ""


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_stand_beside_each_other_with_their_regions(tmp_path, small, photos):
    square = np.array([[0.1, 0.2], [0.9, 0.2], [0.9, 0.8], [0.1, 0.8]])
    evidence = {("a", "A"): Region(square, square / 2, 1234)}
    shown = page(tmp_path, small[0], ground_truth=small[1], pictures=photos, evidence=evidence, edits={"a": ["half"]})
    alts = [image["alt"] for image in shown.all("img")]
    regions = [f"{name}, its matching region outlined" for name in ("query a", "reference A")]
    assert alts[:4] == ["query b", "reference B", *regions]
    assert all(image["src"].startswith("data:image/jpeg;base64,/9j/") for image in shown.all("img"))
    assert [max(int(i["width"]), int(i["height"])) for i in shown.all("img")[:2]] == [224, 224]
    corners = [polygon["points"] for polygon in shown.all("polygon")]
    assert corners == [
        *["0.1000,0.2000 0.9000,0.2000 0.9000,0.8000 0.1000,0.8000"] * 2,
        *["0.0500,0.1000 0.4500,0.1000 0.4500,0.4000 0.0500,0.4000"] * 2,
    ]
    assert "1,234 matching points" in shown.text
    assert "half" in shown.text


def test_a_missing_or_broken_picture_shows_why(tmp_path, small, photos):
    (tmp_path / "queries" / "a.jpg").write_bytes(b"not a picture")
    (tmp_path / "references" / "B.jpg").unlink()
    text = page(tmp_path, small[0], ground_truth=small[1], pictures=photos).text
    assert "a.jpg: cannot be decoded" in text
    assert "B.jpg: cannot be decoded (FileNotFoundError" in text
    assert "no image file has this id" in text  # D, X and Y have none
    assert str(tmp_path) not in text


def test_charts_tell_right_from_wrong_where_there_is_a_truth(tmp_path, small):
    judged, plain = page(tmp_path, small[0], ground_truth=small[1]), page(tmp_path, small[0])
    assert [path["class"] for path in judged.all("path")] == ["band", "curve", "guide", "wrong", "right", "guide"]
    assert [path["class"] for path in plain.all("path")] == ["all"]


def test_without_pictures_the_sheets_are_tables(tmp_path, small):
    shown = page(tmp_path, small[0], ground_truth=small[1])
    assert not shown.all("img")
    assert "ranked first instead: X , −0.5000" in shown.text


@pytest.mark.parametrize(("levels", "least"), [(256, 0), (48, MAX_JPEG / 2)])
def test_the_worst_of_pictures_stay_small_but_no_smaller_than_they_must(tmp_path, levels, least):
    noise = np.random.default_rng(0).integers(0, levels, (224, 224, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    assert len(encode_jpeg(noise, quality=80)) > MAX_JPEG
    thumb = thumbnail(tmp_path / "noise.png", 224)
    assert (thumb.width, thumb.height) == (224, 224)
    assert least * 4 / 3 <= len(thumb.uri) <= MAX_JPEG * 4 / 3 + 40


def test_five_sheets_of_the_worst_of_pictures_stay_below_three_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    pairs = [(f"q{i:03d}", f"r{i}") for i in range(150)]
    now = rows(*((q, r, 2.0 - i / 1000) for i, (q, r) in enumerate(pairs[:100])), *((q, "X", 0.5) for q, _ in pairs))
    before = rows(*((q, r, 2.0 - i / 1000) for i, (q, r) in enumerate(pairs[50:])), *((q, "X", 0.5) for q, _ in pairs))
    every = {name: tmp_path / "noise.png" for pair in [*pairs, ("X", "X")] for name in pair}
    comparison = compare(now, truth(*pairs), other=OtherRun("old", before))
    shown = page(tmp_path, now, ground_truth=truth(*pairs), pictures=Pictures(every, every), compare=comparison)
    assert len(shown.all("img")) == 5 * 24 * 2 + 2 * 24  # and what stands beside a missed and a wrong pair
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


# --- the price -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_half_a_million_matches_cost_seconds_and_a_small_page(tmp_path):
    rng = np.random.default_rng(0)
    queries = np.array([f"Q{i:05d}" for i in range(50_000)], object)
    references = np.array([f"R{i:06d}" for i in range(100_000)], object)
    query = np.repeat(np.arange(50_000), 10)
    reference = (query * 7 + np.tile(np.arange(10), 50_000)) % 100_000
    matches = Matches(queries, references, query, reference, rng.normal(size=500_000).astype(np.float32))
    pairs = frozenset((queries[query[i]], references[reference[i]]) for i in range(0, 500_000, 50))
    ground_truth = GroundTruth(frozenset(queries), pairs)
    metrics = evaluate(matches, ground_truth)
    start = time.process_time()
    shown = page(tmp_path, matches, metrics=metrics, ground_truth=ground_truth)
    assert time.process_time() - start < 9  # 2.5 s, most of it the bootstrap's; a Python loop would take far longer
    assert "predictions 500,000" in shown.text
    assert (tmp_path / "report.html").stat().st_size < 200_000


def test_the_module_loads_no_heavy_library():
    heavy = {"torch", "faiss", "jinja2", "cv2", "matplotlib", "h5py"}
    code = f"import sys, isc.evaluate.report; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
