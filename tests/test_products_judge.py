"""Answers, truths and their judgement; every figure is worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc.errors import InputError
from isc.products.answers import Answer, Match, TrueMatch, Truth
from isc.products.judge import judge
from isc.products.submission import read_answers, read_truth, write_answers, write_truth

SHOP, PLACE = (0, 0, 100, 100), (10, 20, 50, 60)


def truth_of(item, *, kind=None, frames=((0, 9),), images=("a.webp",)):
    return Truth(item, frames, tuple(TrueMatch(f"{item}{name}", SHOP, ((0, PLACE),)) for name in images), kind)


def answer_of(item, *, frame=5, images=("a.webp",), item_box=SHOP, frame_box=PLACE):
    return Answer(item, frame, tuple(Match(f"{item}{name}", item_box, frame_box) for name in images))


def perfect(truth):
    """Return the answer that has all of a truth right."""
    if truth.item_id is None:
        return Answer()
    frame = truth.frames[0][0]
    return Answer(
        truth.item_id, frame, tuple(Match(one.img_name, one.item_box, one.box_at(frame)) for one in truth.matches)
    )


TRUTH = {
    "right": truth_of("I", kind="fruit"),
    "late": truth_of("J", kind="fruit"),
    "shifted": truth_of("K", kind="milk"),
    "wrong": truth_of("L", kind="milk"),
    "silent": truth_of("M", kind="milk"),
    "none": Truth(),
    "lured": Truth(),
}
ANSWERS = {
    "right": answer_of("I"),
    "late": answer_of("J", frame=10),  # one frame after the last that shows it
    "shifted": answer_of("K", frame_box=(50, 20, 90, 60)),
    "wrong": answer_of("X"),
    "silent": Answer(),
    "lured": answer_of("I"),
}


def test_figures_are_those_worked_out_by_hand():
    # 5 answered, 5 show an item; items right: 3, pairs right: 2 ("late" is not), boxes right: 1 ("shifted" is not)
    scores = judge(ANSWERS, TRUTH)
    one = scores.overall
    assert (one.items.precision.value, one.items.recall.value, one.items.f1.value) == pytest.approx((0.6, 0.6, 0.6))
    assert (one.pairs.f1.value, one.boxes.f1.value) == pytest.approx((0.4, 0.2))
    assert one.score.value == pytest.approx(0.4)
    assert one.specificity.value == 0.5
    assert one.clips == 7
    assert one.ranking is None
    fruit, milk = scores.kinds["fruit"], scores.kinds["milk"]
    assert (fruit.clips, fruit.items.f1.value, fruit.pairs.f1.value) == (2, 1.0, 0.5)
    assert (milk.clips, milk.items.f1.value, milk.boxes.f1.value) == (3, pytest.approx(2 / 5), 0.0)
    assert math.isnan(milk.specificity.value)
    for _, _, _, value, low, high in scores.rows():
        assert low <= value <= high


def test_precision_and_recall_differ_where_clips_are_left_out():
    answers = {"right": ANSWERS["right"], "wrong": ANSWERS["wrong"]}
    items = judge(answers, TRUTH).overall.items
    assert (items.precision.value, items.recall.value, items.f1.value) == pytest.approx((1 / 2, 1 / 5, 2 / 7))


def test_each_image_is_a_claim():
    truth = {"v": truth_of("I", images=("a", "b", "c"))}
    answers = {"v": answer_of("I", images=("a", "z"))}  # 1 right, 2 claimed, 3 wanted
    pairs = judge(answers, truth).overall.pairs
    assert (pairs.precision.value, pairs.recall.value, pairs.f1.value) == pytest.approx((1 / 2, 1 / 3, 2 / 5))


def test_the_weights_make_the_score():
    assert judge(ANSWERS, TRUTH, weights=(1, 0, 0)).overall.score.value == pytest.approx(0.6)
    assert judge(ANSWERS, TRUTH, weights=(1, 1, 2)).overall.score.value == pytest.approx(0.35)
    for weights in ((0, 0, 0), (-1, 1, 1), (math.nan, 1, 1)):
        with pytest.raises(InputError, match="weights"):
            judge(ANSWERS, TRUTH, weights=weights)


@pytest.mark.parametrize(("shift", "right"), [(13, 1.0), (14, 0.0)])  # of 40: IoU 27/53 and 26/54
def test_boxes_are_right_from_half_an_overlap_on(shift, right):
    x0, y0, x1, y1 = PLACE
    answers = {"v": answer_of("I", frame_box=(x0 + shift, y0, x1 + shift, y1))}
    assert judge(answers, {"v": truth_of("I")}).overall.boxes.f1.value == right
    answers = {"v": answer_of("I", item_box=(0, 0, 100, 49))}
    assert judge(answers, {"v": truth_of("I")}).overall.boxes.f1.value == 0
    answers = {"v": answer_of("I", item_box=(0, 0, 100, 50))}
    assert judge(answers, {"v": truth_of("I")}).overall.boxes.f1.value == 1


def test_the_true_box_moves_with_the_frame():
    truth = Truth("I", ((0, 10), (20, 20)), (TrueMatch("a", SHOP, ((0, (0, 0, 10, 10)), (10, (20, 10, 40, 20)))),))
    assert truth.matches[0].box_at(5) == (10, 5, 25, 15)
    assert truth.matches[0].box_at(20) == (20, 10, 40, 20)
    assert [truth.shows_in(frame) for frame in (0, 10, 11, 20, 21)] == [True, True, False, True, False]


RANKED = {
    "right": [("I", 0.9), ("J", 0.5)],  # 1
    "late": [("X", 0.9), ("J", 0.5), ("Y", 0.1)],  # 2
    "shifted": [("X", 0.5), ("K", 0.5)],  # a tie counts against it: 2
    "wrong": [(f"X{number}", 1.0) for number in range(5)] + [("L", 0.5)],  # 6
    "none": [("I", 0.1)],
}


def test_rankings_are_judged_on_the_clips_that_show_an_item():
    found = judge(ANSWERS, TRUTH, ranking=RANKED).overall.ranking
    values = [one.value for one in (found.recall_at_1, found.recall_at_5, found.mean_average_precision)]
    assert values == pytest.approx([1 / 5, 3 / 5, (1 + 1 / 2 + 1 / 2 + 1 / 6 + 0) / 5])
    assert found.recall_at_1.low == 0
    assert found.recall_at_1.high <= 1


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ({"right": [("I", 0.1), ("J", 0.5)]}, "the scores rise"),
        ({"right": [("I", math.nan)]}, "the scores rise or are not numbers"),
        ({"right": [("I", 0.5), ("I", 0.5)]}, "an item occurs twice"),
        ({"other": []}, "'other' is not among the 7"),
    ],
)
def test_broken_rankings_are_refused(ranking, message):
    with pytest.raises(InputError, match=message):
        judge(ANSWERS, TRUTH, ranking=ranking)


def test_truths_without_an_item_and_unknown_videos_are_refused():
    with pytest.raises(InputError, match="none of 1 clips shows an item"):
        judge({}, {"v": Truth()})
    with pytest.raises(InputError, match="'z' is not among the 7"):
        judge({"z": Answer()}, TRUTH)


def test_kinds_of_the_catalogue_go_before_those_of_the_truth():
    scores = judge(ANSWERS, TRUTH, kinds={"I": "apple", "L": "cream"})
    assert {kind: one.clips for kind, one in scores.kinds.items()} == {"apple": 1, "cream": 1, "fruit": 1, "milk": 2}


def test_tables_hold_the_same_figures():
    scores = judge(ANSWERS, TRUTH, ranking=RANKED)
    values = json.loads(scores.as_json())
    assert values["items_f1"][0] == pytest.approx(0.6)
    assert values["kinds"]["milk"]["specificity"] is None
    lines = scores.as_csv().splitlines()
    assert lines[0] == "kind,clips,metric,value,low,high"
    assert any(line.startswith("all,7,items_f1,0.6000,") for line in lines)
    assert len(lines) == len(scores.rows()) + 1
    assert scores.as_json() == judge(ANSWERS, TRUTH, ranking=RANKED).as_json()


frames = st.integers(0, 200).flatmap(lambda start: st.tuples(st.just(start), st.integers(start, 300)))
edges = st.integers(0, 400).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 500)))
boxes = st.tuples(edges, edges).map(lambda one: (one[0][0], one[1][0], one[0][1], one[1][1]))
tracks = st.dictionaries(st.integers(0, 300), boxes, min_size=1, max_size=3).map(
    lambda rows: tuple(sorted(rows.items()))
)
images = st.dictionaries(st.sampled_from("abc"), st.tuples(boxes, tracks), min_size=1).map(
    lambda found: tuple(TrueMatch(name, *places) for name, places in found.items())
)
shown = st.builds(lambda item, one, of: Truth(item, (one,), of), st.sampled_from("IJK"), frames, images)
truths = st.tuples(shown, st.lists(st.one_of(st.just(Truth()), shown), max_size=4)).map(
    lambda some: {f"v{at}": one for at, one in enumerate((some[0], *some[1]))}
)


@settings(max_examples=30, deadline=None)
@given(truths)
def test_a_perfect_submission_scores_1_and_none_scores_0(truth):
    best = judge({video: perfect(one) for video, one in truth.items()}, truth, resamples=20).overall
    assert [best.score.value, best.items.f1.value, best.pairs.f1.value, best.boxes.f1.value] == pytest.approx([1] * 4)
    assert judge({}, truth, resamples=20).overall.score.value == 0


def test_files_come_back_as_they_were_written(tmp_path):
    write_answers(tmp_path / "a.json", ANSWERS)
    assert read_answers(tmp_path / "a.json") == ANSWERS
    moving = TrueMatch("b", SHOP, ((3, (0.5, 1, 2, 3)), (9, PLACE)))
    truth = {**TRUTH, "two": Truth("I", ((3, 4), (8, 9)), (moving,), "fruit")}
    write_truth(tmp_path / "t.json", truth)
    assert read_truth(tmp_path / "t.json") == truth
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "t.json"]


def test_a_truth_in_the_plain_layout_is_read(tmp_path):
    path = tmp_path / "t.json"
    result = {"img_name": "a", "item_box": [0, 0, 9, 9], "frame_box": [1, 2, 3, 4]}
    path.write_text(json.dumps({"v": {"item_id": "I", "frame_index": 7, "result": [result]}}), encoding="utf-8")
    one = read_truth(path)["v"]
    assert (one.frames, one.kind, one.matches[0].box_at(7)) == (((7, 7),), None, (1, 2, 3, 4))


def values_of(**changes):
    one = {"img_name": "a", "item_box": [0, 0, 9, 9], "frame_box": [1, 2, 3, 4]} | changes.pop("match", {})
    return {"item_id": "I", "frame_index": 7, "result": [one]} | changes


BROKEN = [
    (values_of(match={"item_box": [0, 0, 11, 9]}), r"item_box \(0, 0, 11, 9\) is not inside 'a' of 10 × 10 pixels"),
    (values_of(match={"frame_box": [0, 0, 9, 21]}), r"frame_box .* is not inside 'v' of 20 × 20"),
    (values_of(match={"img_name": "b"}), "'b' is not known"),
    (values_of(match={"item_box": [5, 0, 5, 9]}), r"item_box \(5, 0, 5, 9\); expected 0 ≤ x0 < x1"),
    (values_of(match={"frame_box": [-1, 0, 5, 9]}), r"frame_box \(-1, 0, 5, 9\)"),
    (values_of(match={"frame_box": [0, 0, 5]}), r"result\[0\].frame_box has 3 numbers; expected 4"),
    (values_of(match={"frame_box": [0, 0, 5, "9"]}), r'result\[0\].frame_box is "9"; expected a finite number'),
    (values_of(match={"frame_box": None}), r"result\[0\].frame_box is null"),
    (values_of(match={"score": 1}), r"result\[0\].score is no key; expected img_name, item_box, frame_box"),
    (values_of(match={"img_name": " "}), "img_name is empty"),
    (values_of(frame_index=-1), "frame_index is -1; expected a whole number, at least 0"),
    (values_of(frame_index=1.5), "frame_index is 1.5"),
    (values_of(frame_index=True), "frame_index is true"),
    (values_of(frame_index=None), "frame_index is null beside 1 results"),
    (values_of(item_id=None), "item_id is null beside a frame or a result"),
    (values_of(item_id=3), "item_id is 3; expected a text"),
    (values_of(item_id=""), "item_id is empty"),
    (values_of(result=None), "result is null; expected a list"),
    (values_of(result=[*values_of()["result"]] * 2), "img_name 'a' occurs twice in result"),
    (values_of(frame=7), "frame is no key; expected item_id, frame_index, result"),
    ({"item_id": None}, "no result"),
    ([], r"the file is \[\]; expected an object"),
]


@pytest.mark.parametrize(("values", "message"), BROKEN)
def test_broken_answers_are_refused_by_video(tmp_path, values, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"v": values}), encoding="utf-8")
    with pytest.raises(InputError, match=rf"a\.json: video 'v': .*{message}") as caught:
        read_answers(path, image_sizes={"a": (10, 10)}, frame_sizes=lambda video: (20, 20) if video == "v" else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_index": [[5, 3]]}, "the range from 5 to 3 is empty"),
        ({"frame_index": [[5, 8], [8, 9]]}, "a range from 8 after one to 8"),
        ({"frame_index": [[5]]}, r"frame_index holds \[5\]; expected ranges"),
        ({"frame_index": []}, "item 'I' has no frame"),
        ({"result": []}, "has no frame or no image"),
        ({"kind": ""}, "kind is empty"),
        ({"match": {"frame_box": [[5, 0, 0, 1, 1], [5, 0, 0, 1, 1]]}}, "frame 5 comes after 5"),
        ({"match": {"frame_box": [[5, 0, 0, 1]]}}, "expected rows"),
        ({"match": {"frame_box": [[5, 0, 0, 0, 1]]}}, r"frame_box of frame 5 \(0, 0, 0, 1\)"),
        ({"match": {"frame_box": [[5, 0, 0, 30, 1]]}}, "frame_box of frame 5 .* is not inside 'v'"),
    ],
)
def test_broken_truths_are_refused_by_video(tmp_path, changes, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"v": values_of(**changes)}), encoding="utf-8")
    with pytest.raises(InputError, match=rf"t\.json: video 'v': .*{message}"):
        read_truth(path, frame_sizes={"v": (20, 20)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"v": {"item_id": null}, "v": {}}', "'v' occurs twice in one object"),
        ('{"v": {"item_id": null, "item_id": "I"}}', "'item_id' occurs twice"),
        ("[]", r"holds a list; expected \{video"),
        ('{"v": ', "not JSON, or cut short"),
        ('{" ": {}}', "the name of the video is empty"),
    ],
)
def test_json_of_another_shape_is_refused(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_answers(path)


def test_answers_that_cannot_be_are_not_built():
    with pytest.raises(InputError, match="frame_index -1"):
        Answer("I", -1)
    with pytest.raises(InputError, match="expected 0 ≤ x0 < x1"):
        Match("a", (0, 0, math.nan, 1), PLACE)
    with pytest.raises(InputError, match="no row"):
        TrueMatch("a", SHOP, ())
    with pytest.raises(InputError, match="the name of a video is empty"):
        write_answers("a.json", {"": Answer()})
