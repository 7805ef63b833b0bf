"""The files: what is read, what is refused and in which words, and that a file is either whole or absent."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isc import data as io
from isc.data import csv_files as tables
from isc.data.descriptors import Descriptors
from isc.data.ids import as_ids
from isc.data.matches import Matches
from isc.errors import InputError
from isc.evaluate.metrics import evaluate

HEADER = "query_id,reference_id,score\n"
TRUTH_HEADER = "query_id,reference_id\n"


def refusal(call, path: Path, *args, **kwargs) -> str:
    """The message with which the call is refused: one line that names the file."""
    with pytest.raises(InputError) as caught:
        call(path, *args, **kwargs)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def names_all(message: str, *parts: str) -> None:
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def csv_path(tmp_path) -> Path:
    return tmp_path / "predictions.csv"


def rows_of(matches: Matches) -> dict[str, float]:
    return {matches.pair(row): float(matches.score[row]) for row in range(len(matches))}


# --- predictions: what is read ---------------------------------------------------------------------------------------

BODY = "Q1,R1,0.5\nQ2,R1,-1e-3\nQ1,R2,2\n"


@pytest.mark.parametrize(
    "content",
    [
        HEADER + BODY,
        BODY,
        "\ufeff" + HEADER + BODY,
        "\ufeff" + BODY,
        (HEADER + BODY).replace("\n", "\r\n"),
        BODY.replace("\n", "\r\n"),
        ("\ufeff" + HEADER + BODY).replace("\n", "\r\n"),
        HEADER.upper() + BODY,
        "Query_Id, Reference_Id, Score\n" + BODY,
        '"query_id","reference_id","score"\n"Q1","R1","0.5"\n"Q2","R1","-1e-3"\n"Q1","R2","2"\n',
        HEADER + BODY.rstrip("\n"),
        HEADER + BODY + "\n\n",
        HEADER + BODY + "\r\n\r\n",
        HEADER + "Q1,R1,+.5\nQ2,R1,-0.001\nQ1,R2,2E0\n",
    ],
)
def test_every_way_to_lay_out_the_same_predictions(csv_path, content):
    matches = io.read_predictions(write(csv_path, content))
    assert rows_of(matches) == {"Q1,R1": 0.5, "Q2,R1": -0.001, "Q1,R2": 2.0}


@pytest.mark.parametrize("content", ["", HEADER, "\n", "\ufeff" + HEADER, HEADER + "\n"])
def test_no_predictions_are_still_predictions(csv_path, content):
    assert len(io.read_predictions(write(csv_path, content))) == 0


@pytest.mark.parametrize(
    "name", ["Zürich/été", "日本", "😀", 'say "hi"', '"quoted"', "a'b", "a b", "#1", "-", "a;b|c\td"]
)
def test_odd_ids_come_back_as_they_went_in(csv_path, name):
    io.write_predictions(csv_path, Matches.from_ids([name, "Q1"], ["R1", name], [0.5, 0.25]))
    assert rows_of(io.read_predictions(csv_path)) == {f"{name},R1": 0.5, f"Q1,{name}": 0.25}


def test_quoted_and_plain_ids_are_the_same(csv_path):
    matches = io.read_predictions(write(csv_path, 'Q"1,"R ""2""",0.5\n'))
    assert matches.pair(0) == 'Q"1,R "2"'


IDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=",\n\r\0"), min_size=1, max_size=8).filter(
    lambda name: name == name.strip()
)


@settings(max_examples=100, deadline=None)
@given(rows=st.dictionaries(st.tuples(IDS, IDS), st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_predictions_make_the_round_trip_bit_for_bit(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    query, reference = zip(*rows, strict=True) if rows else ((), ())
    held = Matches.from_ids(query, reference, list(rows.values()))
    score = np.array(list(rows.values()), dtype=np.float32)
    io.write_predictions(path, Matches(held.query_ids, held.reference_ids, held.query, held.reference, score))
    back = io.read_predictions(path)
    assert {back.pair(row) for row in range(len(back))} == {f"{q},{r}" for q, r in rows}
    for row in range(len(back)):
        pair = (back.query_ids[back.query[row]], back.reference_ids[back.reference[row]])
        assert np.float32(back.score[row]).tobytes() == np.float32(rows[pair]).tobytes()
    assert (np.diff(back.score) <= 0).all()  # best first


def test_close_float32_scores_stay_apart(csv_path):
    score = np.array([-0.1, np.nextafter(np.float32(-0.1), np.float32(1)), 1e-45, -1e-45, 3.4028235e38], np.float32)
    tables = as_ids(["Q"]), as_ids([f"R{i}" for i in range(5)])
    io.write_predictions(csv_path, Matches(*tables, np.zeros(5, np.int64), np.arange(5), score))
    back = io.read_predictions(csv_path).score
    assert len(set(back)) == 5
    assert back.astype(np.float32).tolist() == sorted(score.tolist(), reverse=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_float64_scores_make_the_round_trip_too(tmp_path_factory, scores):
    path = tmp_path_factory.getbasetemp() / "wide.csv"
    io.write_predictions(path, Matches.from_ids(["Q"] * len(scores), [f"R{i}" for i in range(len(scores))], scores))
    back = rows_of(io.read_predictions(path))
    assert [back[f"Q,R{i}"] for i in range(len(scores))] == scores


def test_predictions_are_written_best_first_with_a_header(csv_path):
    io.write_predictions(csv_path, Matches.from_ids(["Q1", "Q2", "Q1"], ["R1", "R1", "R2"], [0.25, 1.0, 0.25]))
    assert csv_path.read_bytes() == b"query_id,reference_id,score\nQ2,R1,1.0\nQ1,R1,0.25\nQ1,R2,0.25\n"


def test_known_ids_may_be_given_and_need_not_all_occur(csv_path):
    known = {"query_ids": as_ids(["Q1", "Q2", "Q3"]), "reference_ids": as_ids(["R1", "R2", "R3"])}
    assert len(io.read_predictions(write(csv_path, BODY), **known)) == 3


# --- predictions: what is refused ------------------------------------------------------------------------------------

KNOWN = {"query_ids": as_ids(["Q1", "Q2"]), "reference_ids": as_ids(["R1", "R2"])}
BAD_PREDICTIONS = {  # content, the row that is wrong where there is no header, what the message names, options
    "pair twice": (["Q1,R1,0.5", "Q1,R1,0.5"], 2, ["Q1,R1", "row {one}", "expected each pair once"], {}),
    "pair twice, other score": (["Q1,R1,1", "Q2,R1,2", "Q1,R2,3", "Q2,R1,4"], 4, ["Q2,R1", "row {two}", "once"], {}),
    "pair twice, once quoted": (["Q1,R1,1", '"Q1","R1",2'], 2, ["Q1,R1", "expected each pair once"], {}),
    "two fields": (["Q1,R1,0.5", "Q2,R2"], 2, ["Q2,R2", "2 fields", "expected 3", "query_id,reference_id,score"], {}),
    "one field": (["Q1"], 1, ["Q1", "1 field;", "expected 3"], {}),
    "four fields": (["Q1,R1,0.5,1"], 1, ["Q1,R1,0.5,1", "4 fields", "expected 3"], {}),
    "decimal comma": (["Q1,R1,0,5"], 1, ["Q1,R1,0,5", "4 fields", "expected 3"], {}),
    "a trailing comma": (["Q1,R1,1", "Q1,R2,1,"], 2, ["Q1,R2", "4 fields", "expected 3"], {}),
    "semicolons": (["Q1;R1;0.5"], 1, ["Q1;R1;0.5", "1 field;", "expected 3"], {}),
    "a blank line between": (["Q1,R1,1", "", "Q1,R2,1"], 2, ["0 fields", "expected 3"], {}),
    "unclosed quote": (["Q1,R1,1", '"Q2,R2,1'], 2, ["not CSV"], {}),
    "query with blanks": (["Q1,R1,1", "Q2 ,R1,1"], 2, ["query id 'Q2 '", "blanks", "expected none"], {}),
    "query with a blank before": ([" Q2,R1,1"], 1, ["query id ' Q2'", "blanks", "expected none"], {}),
    "query with a tab": (["Q2\t,R1,1"], 1, ["query id 'Q2\\t'", "blanks", "expected none"], {}),
    "reference with blanks": (["Q1,R1,1", "Q2, R1,1"], 2, ["reference id ' R1'", "blanks", "expected none"], {}),
    "reference with nbsp": (["Q2,R1\u00a0,1"], 1, ["reference id", "R1\\xa0", "blanks", "expected none"], {}),
    "no query": (["Q1,R1,1", ",R1,1"], 2, ["query id ''", "empty", "expected a name"], {}),
    "no reference": (["Q1,,1"], 1, ["reference id ''", "empty", "expected a name"], {}),
    "unknown query": (["Q1,R1,1", "Q3,R1,1", "Q4,R1,1"], 2, ["query id 'Q3'", "not among the 2 query"], KNOWN),
    "unknown reference": (["Q1,R1,1", "Q2,R9,1"], 2, ["reference id 'R9'", "not among the 2 reference"], KNOWN),
    "ids the wrong way round": (["R1,Q1,1"], 1, ["query id 'R1'", "not among"], KNOWN),
    "more rows than the cap": (["Q1,R1,1", "Q1,R2,1", "Q2,R1,1"], 3, ["Q2,R1", "more than 2"], {"max_rows": 2}),
} | {
    f"score {text!r}": (["Q1,R1,1", f"Q2,R1,{text}"], 2, ["Q2,R1", repr(text), "expected a finite number"], {})
    for text in [
        "",
        "x",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-inf",
        "Infinity",
        "1e999",
        "0x10",
        "1 2",
        "0.5f",
        "None",
        "1_0",
    ]
}


@pytest.mark.parametrize("header", [0, 1])
@pytest.mark.parametrize(("lines", "row", "parts", "options"), BAD_PREDICTIONS.values(), ids=BAD_PREDICTIONS)
def test_bad_predictions_are_refused_by_file_row_and_id(csv_path, lines, row, parts, options, header):
    write(csv_path, HEADER * header + "\n".join(lines) + "\n")
    message = refusal(io.read_predictions, csv_path, **options)
    names_all(message, f"row {row + header}:", *(p.format(one=1 + header, two=2 + header) for p in parts))


@pytest.mark.parametrize("header", [0, 1])
@pytest.mark.parametrize("row", [1, 3, 900])
def test_a_byte_that_is_not_utf8_is_refused_by_row(csv_path, row, header):
    lines = [f"Q{i:05d},R1,0.5".encode() for i in range(1, 1000)]
    lines[row - 1] = b"Q\xe9t\xe9,R1,0.5"
    message = refusal(io.read_predictions, write(csv_path, HEADER.encode() * header + b"\n".join(lines)))
    names_all(message, "not UTF-8", "expected", f"row {row + header}:")


def test_the_first_bad_score_is_the_one_named(csv_path):
    message = refusal(io.read_predictions, write(csv_path, "Q1,R1,1\nQ1,R2,nan\nQ1,R3,x\n"))
    names_all(message, "row 2:", "'nan'")


def test_the_cap_lets_just_as_many_rows_through(csv_path):
    assert len(io.read_predictions(write(csv_path, HEADER + BODY + "\n"), max_rows=3)) == 3
    names_all(refusal(io.read_predictions, csv_path, max_rows=2), "row 4:", "more than 2")


def test_the_cap_of_the_challenge_is_the_default(csv_path):
    write(csv_path, HEADER + "".join(f"Q{i % 700},R{i},1\n" for i in range(500_001)))
    names_all(refusal(io.read_predictions, csv_path), "row 500002:", "more than 500,000")


def test_a_file_cut_in_the_middle_of_a_row_is_refused(csv_path):
    message = refusal(io.read_predictions, write(csv_path, (HEADER + BODY)[:-3]))
    names_all(message, "row 4:", "Q1,R2", "expected 3")


def test_a_header_is_a_header_in_the_first_row_alone(csv_path):
    message = refusal(io.read_predictions, write(csv_path, "Q1,R1,1\n" + HEADER))
    names_all(message, "row 2:", "'score'", "query_id,reference_id", "expected a finite number")


@pytest.mark.parametrize("reader", [io.read_predictions, io.read_ground_truth])
@pytest.mark.parametrize("kind", ["missing", "folder", "HDF5"])
def test_what_is_no_csv_file_is_refused(tmp_path, reader, kind):
    path = tmp_path / "file.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "HDF5":
        io.write_descriptors(path, descriptors(4), {})
    names_all(refusal(reader, path), "expected")


# --- the fast way and the careful way --------------------------------------------------------------------------------


def outcome(reader, path: Path, **options) -> object:
    """All that a reader returns, or the words with which it refuses."""
    try:
        found = reader(path, **options)
    except InputError as error:
        return str(error)
    if not isinstance(found, Matches):
        return found, found.num_repeated
    arrays = (found.query_ids, found.reference_ids, found.query, found.reference)
    return [array.tolist() for array in arrays], found.score.tobytes(), [array.dtype for array in arrays]


def agree(reader, path: Path, **options) -> object:
    """What the reader finds, whether or not it may take the fast way."""
    fast = outcome(reader, path, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_split_plain", lambda *args: None)
        careful = outcome(reader, path, **options)
    assert fast == careful
    return fast


ODD_IDS = [
    "Q1", "Q2", "R1", "", "é", "日本語", "a b", " a", "a ", "\u00a0a", "a\x1c", "a\x85b", "a\u2028", 'say "hi"', '"Q1"',
    '"Q1', '"a,b"', "a\0", "a\rb", "query_id", "score", "eight___", "eight___9", "eight___ and sixteen", "x" * 33,
]  # fmt: skip
ODD_SCORES = [
    "0.5", "1_0", "1e5", " 1", "1 ", "+1", ".5", "5.", "-0", "NaN", "-nan", "inf", "1e999", "-1e999", "1e-999", "0x10",
    "", ".", "-", "1 0", "１.５", "１．５", "٣", "½", "\u00a01", "1\x1c", "1\x85", "1\0", '"1"', "1d5", "1e", "--1",
]  # fmt: skip
ID_TEXTS = st.sampled_from(ODD_IDS)
SCORE_TEXTS = st.one_of(st.sampled_from(ODD_SCORES), st.floats().map(str))
LINE_ENDS = ["\n", "\r\n"]
HEADERS = [
    "",
    "query_id,reference_id,score",
    "Query_ID, Reference_ID ,SCORE",
    "query_id,reference_id",
    "id,score,query_id",
]


@st.composite
def csv_files(draw: st.DrawFn, width: int) -> bytes:
    """Mostly well-formed files; some with any of the oddities that files have."""
    ids = draw(st.sampled_from([st.integers(0, 10**9).map(lambda i: f"R{i}"), ID_TEXTS]))
    row = [ids] * 2 + [draw(st.sampled_from([st.floats(-1, 1).map(str), SCORE_TEXTS]))] * (width - 2)
    lines = [list(line) for line in draw(st.lists(st.tuples(*row), max_size=6))]
    if draw(st.integers(0, 9)) == 0 and lines:
        draw(st.sampled_from(lines)).append("more")
    texts = [",".join(line) for line in lines]
    if draw(st.integers(0, 9)) == 0:
        texts.insert(draw(st.integers(0, len(texts))), draw(st.sampled_from(["", " ", "Q1", ",", '"'])))
    header = ",".join(draw(st.sampled_from([*HEADERS[:3]] * 3 + HEADERS)).split(",")[:width])
    texts = [header] * bool(header) + texts
    end = draw(st.sampled_from([*LINE_ENDS * 12, "\r", "\n\r\n", "\r\r\n"]))
    text = end.join(texts) + draw(st.sampled_from(["", end, end, end * 2] * 5 + ["\n", " ", "\r"]))
    data = draw(st.sampled_from([b""] * 10 + [b"\xef\xbb\xbf"] * 5 + [b"\xef\xbb\xbf\xef\xbb\xbf"])) + text.encode()
    return data + draw(st.sampled_from([b""] * 20 + [b"\xe9", b"\0"]))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(csv_files(3), st.sampled_from([1, 2, 4, 500_000]), st.booleans())
def test_both_ways_to_read_predictions_agree_to_the_letter(tmp_path_factory, content, max_rows, known):
    path = write(tmp_path_factory.getbasetemp() / "ways.csv", content)
    ids = {"query_ids": as_ids(["Q1", "é"]), "reference_ids": as_ids(["R1", "R2", "日本語"])} if known else {}
    agree(io.read_predictions, path, max_rows=max_rows, **ids)


@settings(max_examples=200, deadline=None)
@given(csv_files(2), st.booleans())
def test_both_ways_to_read_ground_truth_agree_to_the_letter(tmp_path_factory, content, known):
    path = write(tmp_path_factory.getbasetemp() / "ways.csv", content)
    ids = {"query_ids": as_ids(["Q1", "é"]), "reference_ids": as_ids(["R1", "日本語"])} if known else {}
    agree(io.read_ground_truth, path, **ids)


@pytest.mark.parametrize(
    ("text", "value"),
    {
        "1e5": 1e5,
        " 1": 1,
        "1 ": 1,
        "+1": 1,
        ".5": 0.5,
        "5.": 5,
        "-0": -0.0,
        "1e-999": 0,
    }.items(),
)
def test_scores_are_what_python_reads_in_them(csv_path, text, value):
    write(csv_path, f"Q1,R1,0.25\nQ1,R2,{text}\nQ1,R3,-1\n")
    agree(io.read_predictions, csv_path)
    assert rows_of(io.read_predictions(csv_path)) == {"Q1,R1": 0.25, "Q1,R2": value, "Q1,R3": -1}


@pytest.mark.parametrize(
    "text", ["1_0", "NaN", "inf", "1e999", "-1e999", "0x10", "", ".", "1 0", "1,", "½", "1\0", "１.５", "٣", "\u00a01"]
)
def test_scores_that_are_refused_are_refused_in_the_same_words(csv_path, text):
    message = agree(io.read_predictions, write(csv_path, f"Q1,R1,0.25\nQ_1,R2,{text}\n"))
    assert isinstance(message, str)
    names_all(message, f"{csv_path}: row 2: ", "expected")


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("start", ["", HEADER.strip(), "\ufeff", "\ufeff" + HEADER.strip()])
@pytest.mark.parametrize(
    "name", ["R1", "R1234567", "R12345678", "photos/2021/été", "photos/2021/日本語/of a name too long"]
)
def test_a_plain_file_goes_the_fast_way(csv_path, monkeypatch, end, start, name):
    lines = [f"Q1,{name},0.5", f"Q2,{name},-1e-3", f"Q1,{name}0,2"]
    write(csv_path, (start + end if start.endswith("score") else start) + end.join(lines) + end)
    agree(io.read_predictions, csv_path)
    monkeypatch.setattr(tables, "_parse_csv", None)
    matches = io.read_predictions(csv_path)
    assert rows_of(matches) == {f"Q1,{name}": 0.5, f"Q2,{name}": -0.001, f"Q1,{name}0": 2.0}
    assert (matches.query_ids.tolist(), matches.reference_ids.tolist()) == (["Q1", "Q2"], [name, f"{name}0"])


@given(st.lists(st.text(st.sampled_from("abé"), max_size=40), min_size=1))
def test_numbers_of_fields_are_equal_where_the_fields_are(names):
    parts = [name.encode() for name in names]
    data = b",".join(parts)
    ends = np.cumsum([len(part) + 1 for part in parts]) - 1
    keys = tables._keys(data, ends - [len(part) for part in parts], ends)
    if max(map(len, parts)) > 32:
        assert keys is None
    else:
        assert [[one == two for one in keys] for two in keys] == [[one == two for one in parts] for two in parts]


def test_fields_that_differ_only_far_behind_are_told_apart(csv_path):
    write(csv_path, "".join(f"Q{'0' * zeros}1,{'R' * 15}{last},1\n" for zeros in range(20) for last in "ab"))
    agree(io.read_predictions, csv_path)
    assert len(io.read_predictions(csv_path).query_ids) == 20


def test_a_field_that_csv_would_refuse_is_refused(csv_path):
    names_all(agree(io.read_predictions, write(csv_path, f"Q1,R1,1\n{'Q' * 131_073},R1,1\n")), "row 2:", "field limit")
    assert not isinstance(agree(io.read_predictions, write(csv_path, f"Q1,R1,1\n{'Q' * 131_072},R1,1\n")), str)


def test_a_file_far_beyond_the_cap_is_refused_before_all_of_it_is_read(csv_path, monkeypatch):
    write(csv_path, "".join(f"Q1,R{i:0250d},1\n" for i in range(20)))
    monkeypatch.setattr(Path, "read_bytes", None)
    names_all(refusal(io.read_predictions, csv_path, max_rows=2), "row 3:", "more than 2")


def test_predictions_may_come_through_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=[HEADER + BODY])
    writer.start()
    assert len(io.read_predictions(path)) == 3
    writer.join()


# --- ground truth ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        TRUTH_HEADER + "Q1,R1\nQ2,\nQ1,R2\n",
        "Q1,R1\nQ2,\nQ1,R2",
        "\ufeff" + TRUTH_HEADER.upper() + "Q1,R1\nQ2,\nQ1,R2\n",
        (TRUTH_HEADER + "Q1,R1\nQ2,\nQ1,R2\n").replace("\n", "\r\n"),
        'Q2,""\nQ1,"R2"\nQ1,R1\n\n',
    ],
)
def test_every_way_to_lay_out_the_same_ground_truth(csv_path, content):
    truth = io.read_ground_truth(write(csv_path, content))
    assert truth.queries == {"Q1", "Q2"}
    assert truth.pairs == {("Q1", "R1"), ("Q1", "R2")}
    assert truth.num_repeated == 0


def test_repeated_lines_count_once(csv_path):
    truth = io.read_ground_truth(write(csv_path, "Q1,R1\nQ1,R1\nQ2,\nQ2,\nQ3,R1\nQ1,R1\n"))
    assert truth.pairs == {("Q1", "R1"), ("Q3", "R1")}
    assert truth.num_repeated == 2
    metrics = evaluate(Matches.from_ids(["Q1"], ["R1"], [1.0]), truth)
    assert metrics.num_positives == 2
    assert metrics.average_precision == 0.5


def test_ground_truth_makes_the_round_trip(csv_path):
    io.write_ground_truth(csv_path, [("Q1", "R1"), ("é", ""), ('say "hi"', "R 2")])
    truth = io.read_ground_truth(
        csv_path, query_ids=as_ids(["Q1", "é", 'say "hi"']), reference_ids=as_ids(["R1", "R 2"])
    )
    assert truth.queries == {"Q1", "é", 'say "hi"'}
    assert truth.pairs == {("Q1", "R1"), ('say "hi"', "R 2")}


BAD_TRUTHS = {
    "one field": (["Q1,R1", "Q2"], 2, ["'Q2'", "1 field;", "expected 2: query_id,reference_id"], {}),
    "three fields": (["Q1,R1,0.5"], 1, ["Q1,R1,0.5", "3 fields", "expected 2"], {}),
    "a blank line between": (["Q1,R1", "", "Q2,R2"], 2, ["0 fields", "expected 2"], {}),
    "query with blanks": (["Q1,R1", "Q2 ,"], 2, ["query id 'Q2 '", "blanks", "expected none"], {}),
    "reference with blanks": (["Q1,R1", "Q2, R2"], 2, ["reference id ' R2'", "blanks", "expected none"], {}),
    "a distractor's blank": (["Q1,R1", "Q2, "], 2, ["reference id ' '", "blanks", "expected none"], {}),
    "no query": (["Q1,R1", ",R1"], 2, ["query id ''", "expected a name"], {}),
    "unknown query": (["Q1,R1", "Q2,", "Q9,"], 3, ["query id 'Q9'", "not among the 2 query"], KNOWN),
    "unknown reference": (["Q1,R1", "Q2,R9"], 2, ["reference id 'R9'", "not among the 2 reference"], KNOWN),
}


@pytest.mark.parametrize("header", [0, 1])
@pytest.mark.parametrize(("lines", "row", "parts", "options"), BAD_TRUTHS.values(), ids=BAD_TRUTHS)
def test_bad_ground_truth_is_refused_by_file_row_and_id(csv_path, lines, row, parts, options, header):
    write(csv_path, TRUTH_HEADER * header + "\n".join(lines) + "\n")
    names_all(refusal(io.read_ground_truth, csv_path, **options), f"row {row + header}:", *parts)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "holds no rows"),
        (TRUTH_HEADER, "holds no rows"),
        ("Q1,\nQ2,\n", "distractors alone"),
        ("\n", "holds no rows"),
    ],
)
def test_a_ground_truth_without_a_true_pair_is_refused(csv_path, content, part):
    names_all(refusal(io.read_ground_truth, write(csv_path, content)), part, "expected")


# --- descriptors: what is read ---------------------------------------------------------------------------------------


def descriptors(rows: int, dim: int = 4, prefix: str = "R", digits: int = 6) -> Descriptors:
    values = np.random.default_rng(rows * 1000 + dim).normal(size=(rows, dim)).astype(np.float32)
    return Descriptors([f"{prefix}{i:0{digits}d}" for i in range(rows)], values)


def same(one: Descriptors, two: Descriptors) -> bool:
    return one.ids.tolist() == two.ids.tolist() and one.vectors.tobytes() == two.vectors.tobytes()


@pytest.fixture
def h5_path(tmp_path) -> Path:
    return tmp_path / "descriptors.h5"


def put(path: Path, **datasets) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is not None:
                file[name] = values
    return path


def variable_length(ids: list[str]) -> np.ndarray:
    return np.array(ids, dtype=h5py.string_dtype())


def raw_bytes(ids: list[str]) -> np.ndarray:
    return np.array([name.encode() for name in ids], dtype=np.bytes_)


def padded(ids: list[str]) -> np.ndarray:
    return raw_bytes(ids).astype("S40")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("encode", [raw_bytes, padded, variable_length])
def test_both_layouts_with_every_kind_of_string_and_float(h5_path, encode, dtype):
    ids, values = ["b", "日本", "a"], np.array([[1, 2], [3, 4], [5, 0.5]], dtype=dtype)
    put(h5_path, vectors=values, image_names=encode(ids))
    assert same(io.read_descriptors(h5_path), Descriptors(ids, values))
    assert same(io.read_descriptors(h5_path, role="reference"), Descriptors(ids, values))
    put(h5_path, query=values, query_ids=encode(ids), reference=values + 1, reference_ids=encode(["x", "y", "z"]))
    assert same(io.read_descriptors(h5_path), Descriptors(ids, values))
    assert same(io.read_descriptors(h5_path, role="query"), Descriptors(ids, values))
    assert same(io.read_descriptors(h5_path, role="reference"), Descriptors(["x", "y", "z"], values + 1))
    queries, references = io.read_submission(h5_path, strict=False)
    assert queries.ids.tolist() == ids
    assert references.vectors.dtype == np.float32


def test_compressed_and_chunked_datasets_are_read(h5_path):
    held = descriptors(50)
    with h5py.File(h5_path, "w") as file:
        file.create_dataset("vectors", data=held.vectors, chunks=(7, 2), compression="gzip", shuffle=True)
        file["image_names"] = variable_length(held.ids.tolist())
    assert same(io.read_descriptors(h5_path), held)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(ids=st.lists(IDS, min_size=1, max_size=6, unique=True))
def test_a_set_makes_the_round_trip(tmp_path_factory, ids):
    path = tmp_path_factory.getbasetemp() / "round.h5"
    held = Descriptors(ids, np.arange(len(ids) * 2, dtype=np.float32).reshape(-1, 2))
    io.write_descriptors(path, held, {})
    assert same(io.read_descriptors(path), held)


def test_an_id_that_hdf5_would_cut_is_refused_or_kept(h5_path):
    try:
        held = Descriptors(["a", "a\0"], np.eye(2, dtype=np.float32))
    except InputError:
        return
    io.write_descriptors(h5_path, held, {})
    assert same(io.read_descriptors(h5_path), held)


def test_the_layout_of_one_set_is_that_of_the_challenges_tools(h5_path):
    io.write_descriptors(h5_path, descriptors(3), {"model": "m"})
    with h5py.File(h5_path) as file:
        assert set(file) == {"vectors", "image_names"}
        assert file["vectors"].dtype == np.dtype("<f4")
        assert file["vectors"].shape == (3, 4)
        assert file["image_names"].dtype.kind == "S"
        assert file["image_names"][()].tolist() == [b"R000000", b"R000001", b"R000002"]


def test_a_submission_is_written_sorted_and_in_the_challenges_types(h5_path):
    queries, references = descriptors(5, prefix="Q", digits=5), descriptors(7)
    back = [Descriptors(held.ids[::-1], held.vectors[::-1]) for held in (queries, references)]
    io.write_submission(h5_path, *back, {})
    with h5py.File(h5_path) as file:
        assert {name: (file[name].dtype.str, file[name].shape) for name in file} == {
            "query": ("<f4", (5, 4)),
            "reference": ("<f4", (7, 4)),
            "query_ids": ("|S6", (5,)),
            "reference_ids": ("|S7", (7,)),
        }
        assert file["query_ids"][0] == b"Q00000"
        assert file["reference_ids"][-1] == b"R000006"
    read = io.read_submission(h5_path, strict=True)
    assert same(read[0], queries)
    assert same(read[1], references)
    assert back[0].ids[0] == "Q00004"  # the arguments stay as they were


@pytest.mark.parametrize("kind", ["set", "submission"])
def test_provenance_makes_the_round_trip(h5_path, kind):
    provenance = {
        "model": "tf_efficientnetv2_m",
        "weights": "sha256:00ff",
        "µ": "été 日本",
        "empty": "",
        "config": "{}" * 900,
    }
    held = descriptors(2)
    if kind == "set":
        io.write_descriptors(h5_path, held, provenance)
    else:
        io.write_submission(h5_path, held, held, provenance)
    assert io.read_provenance(h5_path) == provenance


def test_provenance_of_a_foreign_file_is_text_whatever_it_was(h5_path):
    put(h5_path, vectors=np.eye(2))
    assert io.read_provenance(h5_path) == {}
    with h5py.File(h5_path, "a") as file:
        file.attrs["bytes"], file.attrs["number"] = np.bytes_(b"caf\xe9"), 3
    assert io.read_provenance(h5_path) == {"bytes": "caf\ufffd", "number": "3"}


VIEWED = Descriptors(["b", "a", "b", "日本"], np.arange(8).reshape(4, 2), ["whole", "whole", "flip", "crop:0:0:0.5:1"])


def blocks(path: Path, rows: int) -> list[Descriptors]:
    return list(io.descriptor_blocks(path, rows=rows))


def all_of(held: Descriptors) -> list[tuple]:
    return list(zip(held.ids, held.views, held.vectors.tolist(), strict=True))


def test_views_make_the_round_trip_beside_the_ids(h5_path):
    io.write_descriptors(h5_path, VIEWED, {})
    with h5py.File(h5_path) as file:
        assert set(file) == {"vectors", "image_names", "views"}
        assert file["views"].dtype.kind == "S"
        assert file["views"][()].tolist() == [b"whole", b"whole", b"flip", b"crop:0:0:0.5:1"]
    assert all_of(io.read_descriptors(h5_path)) == all_of(VIEWED)
    for rows in (1, 3, 4, 9):
        found = blocks(h5_path, rows)
        assert [row for block in found for row in all_of(block)] == all_of(VIEWED)
        assert len(found) == -(-4 // rows)


def test_the_halves_of_a_submission_have_no_views(h5_path):
    """What else the file holds is not taken for theirs."""
    values, ids = np.eye(2), raw_bytes(["a", "b"])
    put(h5_path, query=values, query_ids=ids, reference=values, reference_ids=ids, views=raw_bytes(["flip"]))
    assert io.read_descriptors(h5_path).views is None
    assert io.read_submission(h5_path)[1].views is None


@pytest.mark.parametrize("side", [0, 1])
def test_a_submission_with_views_is_refused(h5_path, side):
    sets = [descriptors(3, dim=2), descriptors(3, dim=2)]
    sets[side] = VIEWED
    with pytest.raises(InputError) as caught:
        io.write_submission(h5_path, *sets, {})
    names_all(
        str(caught.value), ("queries", "references")[side], "4 views of 3 images", "track=matching", "combine=average"
    )
    assert not h5_path.exists()


IDS_4, ROWS_4 = raw_bytes(["a", "a", "b", "b"]), np.ones((4, 2))


@pytest.mark.parametrize(
    ("views", "parts"),
    {
        "too few": (raw_bytes(["whole", "flip"]), ["2 views for 4 rows", "one view a row"]),
        "too many": (raw_bytes(list("abcde")), ["5 views for 4 rows"]),
        "numbers": (np.arange(4), ["'views' is not a list of byte strings", "one view a row"]),
        "a table": (np.array([[b"a"]] * 4), ["'views' is not a list of byte strings"]),
        "one text": (np.bytes_("whole"), ["'views' is not a list of byte strings"]),
        "empty": (raw_bytes(["a", "b", "a", ""]), ["views row 3", "view ''", "is empty"]),
        "not UTF-8": (np.array([b"a", b"\xff", b"a", b"b"]), ["views row 1", "not UTF-8"]),
        "repeated": (raw_bytes(["a", "b", "flip", "flip"]), ["image_names row 3: id 'b' with view 'flip'", "row 2"]),
    }.values(),
)
def test_views_that_do_not_fit_are_refused(h5_path, views, parts):
    put(h5_path, vectors=ROWS_4, image_names=IDS_4, views=views)
    names_all(refusal(io.read_descriptors, h5_path), str(h5_path), *parts)
    names_all(refusal(blocks, h5_path, rows=4), str(h5_path), *parts)


def test_views_in_a_later_block_are_refused_by_their_row_in_the_file(h5_path):
    put(h5_path, vectors=ROWS_4, image_names=IDS_4, views=raw_bytes(["a", "b", "flip", "flip"]))
    names_all(refusal(blocks, h5_path, rows=2), "row 3: id 'b' with view 'flip'", "row 2")


# --- descriptors: what is refused ------------------------------------------------------------------------------------


def spoilt(row: int, value: float, dtype: type = np.float32) -> np.ndarray:
    values = np.ones((3, 4), dtype)
    values[row, 2] = value
    return values


IDS_3 = raw_bytes(["Q00", "Q01", "Q02"])
BAD_SETS = {  # what is wrong with `vectors` and `image_names`, and what the message names
    "NaN": (spoilt(1, np.nan), IDS_3, ["row 1", "'Q01'", "NaN", "expected finite"]),
    "infinite": (spoilt(0, np.inf), IDS_3, ["row 0", "'Q00'", "infinite", "expected finite"]),
    "minus infinite": (spoilt(2, -np.inf), IDS_3, ["row 2", "'Q02'", "expected finite"]),
    "too large for float32": (spoilt(2, 1e300, np.float64), IDS_3, ["row 2", "'Q02'", "expected finite"]),
    "id twice": (np.ones((3, 4)), raw_bytes(["a", "b", "a"]), ["row 2", "'a'", "row 0", "expected"]),
    "fewer ids than rows": (np.ones((4, 4)), IDS_3, ["3 {ids}", "4 rows", "expected one id a row"]),
    "more ids than rows": (np.ones((2, 4)), IDS_3, ["3 {ids}", "2 rows", "expected one id a row"]),
    "id with blanks": (np.ones((3, 4)), raw_bytes(["a", " b", "c"]), ["row 1", "' b'", "blanks", "expected none"]),
    "padded with blanks": (np.ones((3, 4)), raw_bytes(["aaa", "bbb", "cc "]), ["row 2", "'cc '", "blanks"]),
    "empty id": (np.ones((3, 4)), raw_bytes(["a", "b", ""]), ["row 2", "''", "expected a name"]),
    "line break in an id": (np.ones((3, 4)), variable_length(["a", "b", "c\n"]), ["row 2", "'c\\n'"]),
    "id not UTF-8": (np.ones((3, 4)), np.array([b"a", b"b", b"\xe9"]), ["row 2", "\\xe9", "UTF-8"]),
    "ids that are numbers": (np.ones((3, 4)), np.arange(3), ["{ids}", "expected one id a row"]),
    "ids in two columns": (np.ones((3, 4)), IDS_3[:, None], ["{ids}", "expected one id a row"]),
    "one id alone": (np.ones((3, 4)), np.bytes_("Q00"), ["{ids}", "expected one id a row"]),
    "vectors in one row": (np.ones(3), IDS_3, ["(3,)", "expected float32 [N, D]"]),
    "vectors in three axes": (np.ones((3, 2, 2)), IDS_3, ["(3, 2, 2)", "expected float32 [N, D]"]),
    "vectors without values": (np.ones((3, 0)), IDS_3, ["(3, 0)", "expected float32 [N, D]"]),
    "integer vectors": (np.ones((3, 4), np.int32), IDS_3, ["int32", "expected float32 [N, D]"]),
    "a number for vectors": (np.float32(1), IDS_3, ["{vectors}", "expected float32 [N, D]"]),
    "no vectors": (None, IDS_3, ["no dataset '{vectors}'", "expected"]),
    "no ids": (np.ones((3, 4)), None, ["no dataset '{ids}'", "expected"]),
}
LAYOUTS = {
    "one set": ("vectors", "image_names", io.read_descriptors, {}),
    "queries": ("query", "query_ids", io.read_submission, {"reference": np.ones((1, 4)), "reference_ids": [b"R"]}),
    "references": ("reference", "reference_ids", io.read_submission, {"query": np.ones((1, 4)), "query_ids": [b"Q"]}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("values", "ids", "parts"), BAD_SETS.values(), ids=BAD_SETS)
def test_bad_descriptors_are_refused_by_file_row_and_id(h5_path, layout, values, ids, parts):
    vectors_name, ids_name, reader, rest = LAYOUTS[layout]
    put(h5_path, **{vectors_name: values, ids_name: ids}, **rest)
    message = refusal(reader, h5_path)
    names_all(message, *(part.format(vectors=vectors_name, ids=ids_name) for part in parts))


@pytest.mark.parametrize("name", ["vectors", "image_names"])
def test_a_group_is_no_dataset(h5_path, name):
    put(h5_path, **({"vectors": np.ones((3, 4)), "image_names": IDS_3} | {name: None}))
    with h5py.File(h5_path, "a") as file:
        file.create_group(name)
    names_all(refusal(io.read_descriptors, h5_path), name)


def test_ids_that_are_lists_are_no_ids(h5_path):
    with h5py.File(put(h5_path, vectors=np.ones((2, 4))), "a") as file:
        file.create_dataset("image_names", (2,), dtype=h5py.vlen_dtype(np.int32))
        file["image_names"][0], file["image_names"][1] = [1, 2], [3]
    names_all(refusal(io.read_descriptors, h5_path), "image_names", "expected")


def submission(path: Path, **changes) -> Path:
    held = {
        "query": np.ones((3, 4), np.float32),
        "reference": np.ones((3, 4), np.float32),
        "query_ids": raw_bytes(["Q0", "Q1", "Q2"]),
        "reference_ids": raw_bytes(["R0", "R1", "R2"]),
    }
    return put(path, **(held | changes))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"query": np.ones((3, 5))}, ["5 dimensions", "references 4", "expected the same"]),
        ({"reference": np.ones((3, 3))}, ["4 dimensions", "references 3", "expected the same"]),
        ({"query": np.ones((3, 257)), "reference": np.ones((3, 257))}, ["257 dimensions", "allows 256"]),
    ],
)
def test_bad_dimensions_are_refused_by_file(h5_path, changes, parts, strict):
    names_all(refusal(io.read_submission, submission(h5_path, **changes), strict=strict), *parts)


@pytest.mark.parametrize("side", ["query", "reference"])
def test_unsorted_rows_are_refused_by_strict_reading_alone(h5_path, side):
    submission(h5_path, **{f"{side}_ids": raw_bytes(["a", "c", "b"])})
    names_all(refusal(io.read_submission, h5_path), f"{side}_ids row 2", "'b'", "'c'", "expected rows sorted by id")
    held = io.read_submission(h5_path, strict=False)[side == "reference"]
    assert held.ids.tolist() == ["a", "c", "b"]


def test_sorted_means_by_byte(h5_path):
    submission(h5_path, query_ids=raw_bytes(["Z", "a", "é"]), reference_ids=raw_bytes(["10", "9", "😀"]))
    assert io.read_submission(h5_path)[0].ids.tolist() == ["Z", "a", "é"]


def test_a_dimension_of_256_is_allowed(h5_path):
    io.write_submission(h5_path, descriptors(2, 256), descriptors(3, 256), {})
    assert io.read_submission(h5_path)[1].dim == 256


@pytest.mark.parametrize(
    ("dims", "parts"),
    [((4, 5), ["4 dimensions", "references 5"]), ((257, 257), ["257 dimensions", "256", "track=matching"])],
)
def test_a_submission_that_would_be_refused_is_not_written(h5_path, dims, parts):
    with pytest.raises(InputError) as caught:
        io.write_submission(h5_path, descriptors(2, dims[0]), descriptors(2, dims[1]), {})
    names_all(str(caught.value), *parts)
    assert not h5_path.exists()


def test_one_set_may_be_wider_than_the_track_allows(h5_path):
    io.write_descriptors(h5_path, descriptors(2, 512), {})
    assert io.read_descriptors(h5_path).dim == 512


READERS = [io.read_descriptors, io.read_submission, io.read_provenance]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "content", [b"", b"query_id,reference_id,score\nQ1,R1,0.5\n", b"\x89PNG\r\n\x1a\n", b"\0" * 4096]
)
def test_a_file_of_another_kind_is_refused(h5_path, reader, content):
    names_all(refusal(reader, write(h5_path, content)), "not an HDF5 file")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_file_is_refused(h5_path, reader, folder):
    if folder:
        h5_path.mkdir()
    names_all(refusal(reader, h5_path), "expected HDF5")


def whole_file(path: Path, kind: str, **provenance: str) -> bytes:
    held = descriptors(60)
    if kind == "set":
        io.write_descriptors(path, held, provenance)
    elif kind == "submission":
        io.write_submission(path, held, held, provenance)
    else:  # of another writer
        with h5py.File(path, "w", libver="latest") as file:
            file.create_dataset("vectors", data=held.vectors, chunks=(16, 4), compression="gzip")
            file["image_names"] = variable_length(held.ids.tolist())
            file.attrs["model"] = "m"
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["set", "submission", "foreign"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, -1, -8, 8, 100])
def test_a_file_cut_short_is_refused(h5_path, kind, part):
    whole = whole_file(h5_path, kind, model="m", code="1.0")
    keep = int(part * len(whole)) if 0 <= part < 1 else int(part)
    write(h5_path, whole[:keep])
    for reader in READERS:
        names_all(refusal(reader, h5_path), "cut short", "write it again")


@pytest.mark.parametrize("kind", ["set", "submission"])
@pytest.mark.parametrize("part", [i / 8 for i in range(8)])
def test_a_file_that_ends_in_zeros_is_never_a_crash(h5_path, kind, part):
    """A download that stopped in a file laid out in advance, or a disk that lost a block, keeps the length.

    Without attributes, as the HDF5 library itself loops for ever on variable-length strings that were zeroed halfway.
    """
    whole = whole_file(h5_path, kind)
    keep = int(part * len(whole))
    write(h5_path, whole[:keep] + bytes(len(whole) - keep))
    for reader in READERS:
        try:
            reader(h5_path)
        except InputError as error:
            names_all(str(error), str(h5_path))


# --- whole files or none ---------------------------------------------------------------------------------------------


class BrokenError(Exception):
    pass


def failing(error: BaseException):
    yield ("Q1", "R1")
    raise error


WRITERS = {
    "text": lambda path: io.write_text(path, "new\ud800"),  # a lone surrogate has no UTF-8
    "JSON": lambda path: io.write_json(path, {"score": float("nan")}),
    "rows": lambda path: io.write_csv(path, ["a", "b"], failing(BrokenError())),
    "disk full": lambda path: io.write_csv(path, ["a", "b"], failing(OSError(28, "No space left on device"))),
    "stopped by hand": lambda path: io.write_csv(path, ["a", "b"], failing(KeyboardInterrupt())),
    "HDF5": lambda path: io.write_descriptors(path, descriptors(3), {"model": object()}),
    "HDF5 submission": lambda path: io.write_submission(path, descriptors(3), descriptors(3), {"model": object()}),
}


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_writer_that_fails_leaves_things_as_they_were(tmp_path, writer, existed):
    path = tmp_path / "file"
    if existed:
        path.write_text("old")
    with pytest.raises((InputError, BrokenError, ValueError, TypeError, AttributeError, KeyboardInterrupt)):
        writer(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"] * existed
    if existed:
        assert path.read_text() == "old"


def test_a_full_disk_is_told_in_one_line_with_the_file(tmp_path):
    names_all(refusal(WRITERS["disk full"], tmp_path / "file"), "cannot be written", "No space left on device")


def test_the_old_file_stays_readable_while_the_new_one_is_written(tmp_path):
    path = write(tmp_path / "file", "old")
    with io.atomic_path(path) as beside:
        assert beside.parent == tmp_path
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made_and_old_files_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file.json"
    io.write_json(path, {"old": 1, "longer": "than the next"})
    io.write_json(path, {"é": [1.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1.5, None]}
    assert "é" in path.read_text(encoding="utf-8")


def test_a_new_file_has_the_rights_of_any_other(tmp_path):
    (tmp_path / "other").touch()
    io.write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


SAVERS = {
    "text": lambda path: io.write_text(path, "text"),
    "CSV": lambda path: io.write_predictions(path, Matches.from_ids(["Q"], ["R"], [1.0])),
    "HDF5": lambda path: io.write_descriptors(path, descriptors(2), {}),
}


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("kind", ["below a file", "a folder", "no permission", "read-only folder"])
def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path, monkeypatch, save, kind):
    path = tmp_path / "place" / "file"
    if kind == "below a file":
        path.parent.write_text("a file, not a folder")
    elif kind == "a folder":
        path.mkdir(parents=True)
    elif kind == "no permission":  # as root, no folder is unwritable

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "touch", refuse)
    else:
        path.parent.mkdir()
        path.parent.chmod(0o500)
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write anywhere")
    names_all(refusal(save, path), "cannot be written")
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("moment", range(1, 40))
@pytest.mark.parametrize("writer", [io.atomic_path, io.atomic_folder], ids=["file", "folder"])
def test_ctrl_c_at_any_line_leaves_whole_files_alone(tmp_path, writer, moment):
    """A real SIGINT before the `moment`th line that the writer executes, for as many as it has."""
    place = tmp_path / "place"
    target = place / "file"
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename != io.files.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == moment:
                signal.raise_signal(signal.SIGINT)
        return trace

    io.write_text(target, "old")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.settrace(trace)
        with pytest.raises(KeyboardInterrupt) if moment <= 7 else suppress(KeyboardInterrupt):
            if writer is io.atomic_path:
                with writer(target) as beside:
                    beside.write_text("new")
            else:
                with writer(place, owned=["file"]) as beside:
                    (beside / "file").write_text("new")
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)
    assert target.read_text() in ("old", "new")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_ids_with_commas_quotes_and_line_breaks_come_back_from_csv_and_hdf5(tmp_path, caplog):
    """RFC 4180; the warning says that the challenge's own format has no such ids."""
    names = ["a,b", 'say "x"', "two\nlines", "two\r\nlines", "plain"]
    matches = Matches.from_ids(names, names[::-1], [5.0, 4.0, 3.0, 2.0, 1.0])
    tables.write_predictions(tmp_path / "p.csv", matches)
    again = tables.read_predictions(tmp_path / "p.csv")
    assert again.query_ids[again.query].tolist() == names
    assert again.reference_ids[again.reference].tolist() == names[::-1]
    assert "id 'a,b' is in quotes (RFC 4180)" in caplog.text
    io.write_descriptors(tmp_path / "d.h5", Descriptors(names, np.eye(5)), {})
    assert io.read_descriptors(tmp_path / "d.h5").ids.tolist() == names
    caplog.clear()
    tables.write_predictions(tmp_path / "q.csv", Matches.from_ids(["a"], ["b"], [1.0]))
    assert not caplog.text
