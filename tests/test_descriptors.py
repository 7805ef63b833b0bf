"""The values between the stages: what they refuse, and what they promise once they exist."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isc.data.descriptors import Descriptors, non_finite_row
from isc.data.ids import all_usable, as_ids, first_repeat, id_problem, numbered, repeated_key
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError

BAD_IDS = [
    ("", "is empty"),
    (" a", "blanks"),
    ("a ", "blanks"),
    ("\ta", "blanks"),
    ("a\u00a0", "blanks"),
    ("a\0b", "NUL"),
]


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def vectors(rows: int, dim: int = 3, dtype: type = np.float32) -> np.ndarray:
    return np.arange(rows * dim).reshape(rows, dim).astype(dtype)


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "problem"), BAD_IDS)
def test_unusable_ids_are_refused_by_row(name, problem):
    message = refusal(as_ids, ["fine", name])
    assert "row 1" in message
    assert repr(name) in message
    assert problem in message


@pytest.mark.parametrize("name", ["Q00000", "a b", "tide/2021/é", 'say "hi"', "日本", "😀", "a;b", "-1", "ﬁ"])
def test_any_other_text_is_an_id(name):
    ids = as_ids([name])
    assert ids.dtype == object
    assert ids.tolist() == [name]


def test_ids_may_come_from_any_iterable_and_keep_their_order():
    assert as_ids(iter("bca")).tolist() == ["b", "c", "a"]
    assert as_ids([]).shape == (0,)


@pytest.mark.parametrize("ids", [[b"a", b"b"], [1, 2], [None, "a"], [("a", "b"), ("c", "d")]])
def test_ids_that_are_no_text_are_refused_by_name(ids):
    assert "row 0" in refusal(as_ids, ids)


@pytest.mark.slow
def test_the_check_of_all_ids_is_that_of_each():
    letters = [chr(code) for code in range(sys.maxunicode + 1)]
    for form in ("{}", "a{}", "{}a", "a{}a"):
        names = [form.format(letter) for letter in letters]
        fine = [name for name in names if id_problem(name) is None]
        wrong = [name for name in names if id_problem(name) is not None]
        assert all_usable(fine)
        assert not any(all_usable(["fine", name, "a b"]) for name in wrong)


@pytest.mark.slow
@given(st.lists(st.one_of(st.sampled_from(["a", "a b", *(name for name, _ in BAD_IDS)]), st.text(), st.none())))
def test_ids_are_usable_together_where_each_is(names):
    assert all_usable(names) == all(id_problem(name) is None for name in names)


@given(st.lists(st.sampled_from("abcd")), st.permutations(range(4)))
def test_numbering_is_by_first_appearance_with_keys_or_without(names, key_of):
    once = list(dict.fromkeys(names))
    for keys in (None, np.array([key_of["abcd".index(name)] for name in names], np.uint64)):
        ids, at = numbered(names, keys)
        assert (ids.tolist(), at.tolist()) == (once, [once.index(name) for name in names])
        assert (ids.dtype, at.dtype) == (object, np.int64)


# --- repeats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([5], None), ([1, 2, 3], None), ([1, 1], (0, 1)), ([3, 1, 2, 1, 3], (1, 3)), ([2, 9, 2, 2], (0, 2))],
)
def test_the_first_repeat_by_hand(values, expected):
    assert repeated_key(np.array(values, dtype=np.int64)) == expected
    assert first_repeat([str(value) for value in values]) == expected


@given(st.lists(st.integers(0, 12), max_size=15))
def test_both_ways_to_find_a_repeat_are_the_obvious_one(values):
    expected = next(((values.index(v), i) for i, v in enumerate(values) if v in values[:i]), None)
    assert repeated_key(np.array(values, dtype=np.int64)) == expected
    assert first_repeat([str(value) for value in values]) == expected


# --- Descriptors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
def test_descriptors_hold_float32_rows_in_order(dtype):
    held = Descriptors(["b", "a"], vectors(2, dtype=dtype))
    assert (len(held), held.dim) == (2, 3)
    assert held.vectors.dtype == np.float32
    assert held.vectors.flags.c_contiguous
    assert held.ids.tolist() == ["b", "a"]
    np.testing.assert_array_equal(held.vectors, [[0, 1, 2], [3, 4, 5]])


def test_descriptors_take_strided_and_nested_input():
    assert Descriptors(["a", "b"], vectors(4)[::2]).vectors.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert Descriptors(["a"], [[1.0, 2.0]]).dim == 2


def test_an_empty_set_is_refused():
    with pytest.raises(InputError, match="at least one row"):
        Descriptors([], np.zeros((0, 4), np.float32))


def test_descriptors_cannot_be_changed_in_place():
    held = Descriptors(["a"], vectors(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        held.vectors = vectors(1)


@pytest.mark.parametrize(
    ("ids", "values", "parts"),
    [
        (["a"], vectors(2), ["1 ids", "2 rows", "expected one id a row"]),
        (["a", "b", "c"], vectors(2), ["3 ids", "2 rows"]),
        (["a", "b", "a"], vectors(3), ["rows 0 and 2", "'a'", "twice"]),
        (["a", "b c "], vectors(2), ["row 1", "'b c '", "blanks", "expected none"]),
        (["a"], np.zeros(3, np.float32), ["(3,)", "expected [N, D]"]),
        (["a"], np.zeros((1, 0), np.float32), ["(1, 0)", "D ≥ 1"]),
        (["a"], np.zeros((1, 2, 3), np.float32), ["(1, 2, 3)", "expected [N, D]"]),
        (["a"], np.array([["x"]]), ["<U1", "expected float32"]),
        (["a"], np.array([[1j]]), ["complex128", "expected float32"]),
        (["a"], np.array([[True]]), ["bool", "expected float32"]),
        (["a"], np.array([[object()]]), ["object", "expected float32"]),
    ],
)
def test_descriptors_cannot_be_built_wrong(ids, values, parts):
    message = refusal(Descriptors, ids, values)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e300])  # the last two are infinite as float32
@pytest.mark.parametrize("row", [0, 1, 2])
def test_values_that_are_not_finite_are_refused_by_row_and_id(value, row):
    values = vectors(3, dtype=np.float64)
    values[row, 1] = value
    message = refusal(Descriptors, ["a", "b", "c"], values)
    assert f"row {row}: id {'abc'[row]!r}" in message
    assert "expected finite" in message


@pytest.mark.parametrize("row", [None, 0, 65535, 65536, 70000])
def test_the_row_is_right_on_both_sides_of_the_block_size(row):
    values = np.zeros((70001, 1), np.float32)
    if row is not None:
        values[row:] = np.nan
    assert non_finite_row(values) == row


def test_sorting_moves_rows_with_their_ids_and_goes_by_code_point():
    held = Descriptors(["b", "é", "Z", "a10", "a9"], vectors(5))
    by_id = held.sorted()
    assert by_id.ids.tolist() == ["Z", "a10", "a9", "b", "é"]
    assert by_id.vectors[:, 0].tolist() == [6, 9, 12, 0, 3]
    assert held.ids.tolist() == ["b", "é", "Z", "a10", "a9"]
    assert by_id.ids.tolist() == sorted(held.ids, key=str.encode)  # as byte strings sort, too


# --- views -----------------------------------------------------------------------------------------------------------

VIEWED = Descriptors(["b", "a", "b", "a"], vectors(4), ["whole", "whole", "flip", "flip"])


def test_an_image_may_have_several_rows_where_views_tell_them_apart():
    assert (len(VIEWED), VIEWED.images.tolist()) == (4, ["b", "a"])
    assert VIEWED.views.dtype == object
    plain = Descriptors(["b", "a"], vectors(2))
    assert plain.views is None
    assert plain.images is plain.ids


def test_views_move_with_their_rows():
    by_id = VIEWED.sorted()  # and within an image the order stays: flip does not come before whole
    assert list(zip(by_id.ids, by_id.views, by_id.vectors[:, 0], strict=True)) == [
        ("a", "whole", 3), ("a", "flip", 9), ("b", "whole", 0), ("b", "flip", 6)
    ]  # fmt: skip
    assert by_id.sorted() is by_id
    for rows in (np.array([3, 0]), np.array([True, False, False, True])):
        taken = VIEWED.take(rows)
        assert sorted(zip(taken.ids, taken.views, taken.vectors[:, 0], strict=True)) == [
            ("a", "flip", 9), ("b", "whole", 0)
        ]  # fmt: skip
    assert dataclasses.replace(VIEWED, vectors=-VIEWED.vectors).views.tolist() == VIEWED.views.tolist()


def test_taking_rows_without_views():
    taken = Descriptors(["c", "b", "a"], vectors(3)).take(np.array([2, 0]))
    assert (taken.ids.tolist(), taken.vectors[:, 0].tolist(), taken.views) == (["a", "c"], [6, 0], None)


@pytest.mark.parametrize(
    ("ids", "views", "parts"),
    [
        ("aab", ["whole", "whole", "flip"], ["rows 0 and 1", "'a'", "view 'whole'", "twice"]),
        ("aba", ["flip", "flip", "flip"], ["rows 0 and 2", "view 'flip'"]),
        ("aab", ["whole", "flip"], ["2 views for 3 ids", "one view a row"]),
        ("aab", ["whole", "", "flip"], ["row 1", "view ''", "is empty"]),
        ("aab", ["whole", "a\0b", "flip"], ["row 1", "view 'a\\x00b'", "NUL"]),
        ("aab", [1, 2, 3], ["row 0", "view 1", "expected text"]),
        ("aab", None, ["rows 0 and 1", "'a' occurs twice"]),
    ],
)
def test_views_cannot_be_built_wrong(ids, views, parts):
    message = refusal(Descriptors, list(ids), vectors(3), views)
    for part in parts:
        assert part in message


# --- Matches ---------------------------------------------------------------------------------------------------------


def table(*names: str) -> np.ndarray:
    return np.array(names, dtype=object)


def matches(
    query=(0, 0, 1),
    reference=(0, 1, 1),
    score=(0.3, 0.2, 0.1),
    queries=("q", "p"),
    references=("r", "s"),
    dtype=np.int64,
) -> Matches:
    return Matches(
        table(*queries), table(*references), np.array(query, dtype), np.array(reference, dtype), np.array(score)
    )


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"query": (0, 1)}, ["2 queries", "3 references", "3 scores"]),
        ({"score": (0.1,)}, ["1 scores"]),
        ({"query": (0, 0, 2)}, ["query position", "0…1"]),
        ({"query": (0, -1, 1)}, ["query position", "0…1"]),
        ({"reference": (0, 1, 2)}, ["reference position", "0…1"]),
        ({"reference": (0, -1, 1)}, ["reference position"]),
        ({"score": (0.1, np.nan, np.inf)}, ["row 1", "nan", "q,s", "expected a finite number"]),
        ({"score": (0.1, 0.2, -np.inf)}, ["row 2", "-inf", "p,s"]),
        ({"query": (0, 1, 0), "reference": (1, 1, 1)}, ["rows 0 and 2", "q,s", "twice"]),
        ({"queries": ("q", "q"), "reference": (0, 1, 0)}, ["'q'", "twice"]),  # else q,r would be there twice
        ({"references": ("r", "r")}, ["'r'", "twice"]),
    ],
)
def test_matches_cannot_be_built_wrong(change, parts):
    message = refusal(matches, **change)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("dtype", [np.int32, np.int16])
def test_narrow_positions_do_not_overflow_into_repeats(dtype):
    names = tuple(str(i) for i in range(300 if dtype != np.int32 else 70_000))
    last = len(names) - 1
    given_ = {"query": (0, last, last), "reference": (0, 0, last), "queries": names, "references": names}
    wide, narrow = matches(**given_), matches(**given_, dtype=dtype)
    assert narrow.keys().tolist() == wide.keys().tolist() == [0, last * len(names), last * len(names) + last]


def test_narrow_positions_do_not_hide_or_invent_a_repeat():
    names = tuple(str(i) for i in range(256))  # as 16-bit numbers the keys of queries 0 and 256 would be one
    pairs = matches((0, 256), (0, 0), (0.1, 0.2), (*names, "256"), names, dtype=np.int16)
    assert pairs.keys().tolist() == [0, 65536]


def test_the_order_is_by_falling_score_then_query_then_reference():
    pairs = matches(
        query=(1, 0, 1, 0, 2),
        reference=(0, 2, 1, 0, 0),
        score=(0.5, 0.5, 0.5, 0.5, 0.9),
        queries=("c", "b", "a"),
        references=("z", "y", "x"),
    )
    assert pairs.order().tolist() == [4, 3, 1, 0, 2]
    assert pairs.order().dtype == np.int64


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([-1.0, -0.0, 0.0, 2.0])),
                unique_by=lambda row: row[:2]))  # fmt: skip
def test_the_order_is_the_obvious_one_however_the_rows_lie(rows):
    query, reference, score = zip(*rows, strict=True) if rows else ((), (), ())
    pairs = matches(query, reference, np.array(score, dtype=float), tuple("abcd"), tuple("wxyz"))
    expected = sorted(range(len(rows)), key=lambda i: (-rows[i][2], rows[i][0], rows[i][1]))
    assert pairs.order().tolist() == expected


def test_from_ids_lists_each_id_once_in_order_of_appearance():
    pairs = Matches.from_ids(["q2", "q1", "q2"], ["r1", "r1", "r0"], [1, 2, 3])
    assert pairs.query_ids.tolist() == ["q2", "q1"]
    assert pairs.reference_ids.tolist() == ["r1", "r0"]
    assert [pairs.pair(row) for row in range(3)] == ["q2,r1", "q1,r1", "q2,r0"]
    assert pairs.score.dtype == np.float64
    assert len(pairs) == 3
    assert len(Matches.from_ids([], [], [])) == 0


@pytest.mark.parametrize(
    ("query", "reference", "score"),
    [("ab", "x", [1, 2]), ("ab", "xy", [1]), ("aa", "xx", [1, 2]), ("a", "x", [float("nan")])],
)
def test_from_ids_refuses_what_matches_refuse(query, reference, score):
    refusal(Matches.from_ids, list(query), list(reference), score)


def test_the_id_of_a_repeated_pair_is_named():
    message = refusal(Matches.from_ids, ["a", "b", "b", "a"], ["x", "y", "x", "x"], [1, 2, 3, 4])
    assert "rows 0 and 3" in message
    assert "a,x" in message


def test_taking_rows_keeps_the_tables_and_the_original():
    pairs = matches()
    for rows in (np.array([2, 0]), np.array([True, False, True])):
        taken = pairs.take(rows)
        assert sorted(taken.pair(row) for row in range(2)) == ["p,s", "q,r"]
        assert taken.query_ids is pairs.query_ids
    assert len(pairs.take(np.zeros(3, bool))) == 0
    assert len(pairs) == 3


@pytest.mark.parametrize("rows", [[0, 1, 0], [2, -1]])
def test_taking_a_row_twice_is_refused(rows):
    names_it = refusal(matches().take, np.array(rows))
    assert "occurs twice" in names_it


def test_the_tables_are_not_looked_through_again_for_rows_of_them(monkeypatch):
    pairs = matches()
    monkeypatch.setattr("isc.data.matches.first_repeat", None)
    assert [one.name for one in dataclasses.fields(pairs)] == list(vars(pairs.take(np.array([1])))) == list(vars(pairs))


# --- GroundTruth -----------------------------------------------------------------------------------------------------


def test_right_and_judged_by_hand():
    pairs = Matches.from_ids(["q", "q", "p", "d", "n"], ["r", "s", "r", "r", "r"], [5, 4, 3, 2, 1])
    truth = GroundTruth(frozenset({"d"}), frozenset({("q", "r"), ("p", "s"), ("absent", "r"), ("p", "absent")}))
    assert truth.correct(pairs).tolist() == [True, False, False, False, False]
    assert truth.judged(pairs).tolist() == [True, True, True, True, False]


def test_every_query_with_a_true_pair_is_judged():
    truth = GroundTruth(frozenset({"d"}), frozenset({("q", "r")}))
    assert truth.queries == {"d", "q"}
    assert truth == GroundTruth(frozenset({"d", "q"}), frozenset({("q", "r")}), num_repeated=7)


@pytest.mark.parametrize("pairs", [[], [("q", "r")]])
def test_right_and_judged_of_no_predictions_are_empty_flags(pairs):
    truth, none = GroundTruth(frozenset({"d"}), frozenset(pairs)), Matches.from_ids([], [], [])
    for flags in (truth.correct(none), truth.judged(none)):
        assert flags.shape == (0,)
        assert flags.dtype == bool


NAMES = st.sampled_from("abcd")


@given(st.sets(st.tuples(NAMES, NAMES)), st.sets(st.tuples(NAMES, NAMES)), st.sets(NAMES))
def test_right_and_judged_are_the_obvious_ones(predicted, true, queries):
    rows = sorted(predicted)
    pairs = Matches.from_ids([q for q, _ in rows], [r for _, r in rows], [0.0] * len(rows))
    truth = GroundTruth(frozenset(queries), frozenset(true))
    assert truth.correct(pairs).tolist() == [row in true for row in rows]
    assert truth.judged(pairs).tolist() == [q in queries or any(q == t for t, _ in true) for q, _ in rows]


def test_right_is_found_among_more_rows_than_are_looked_up_at_once():
    random = np.random.default_rng(0)
    pairs = Matches.from_ids(*(random.permutation(9000).astype(str).tolist() for _ in range(2)), np.arange(9000))
    true = {tuple(pairs.pair(row).split(",")) for row in range(0, 9000, 7)}
    true |= {(f"{i}", f"{i}") for i in range(9000, 9100)} | {("5", "no such"), ("no such", "5")}
    expected = [tuple(pairs.pair(row).split(",")) in true for row in range(9000)]
    assert GroundTruth(frozenset(), frozenset(true)).correct(pairs).tolist() == expected
