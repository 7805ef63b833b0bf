"""Transcripts in SubRip, WebVTT and JSON: what is said and when; what is broken is named by its line or cue."""

from __future__ import annotations

import json

import pytest

from isc.errors import InputError
from isc.products.transcripts import Spoken, read_transcript

SRT = """1
00:00:00,500 --> 00:00:02,000
<i>So next</i> we have

2
00:01:02,5 --> 01:00:03,000 X1:40 X2:600
{\\an8}<font color="red">Royal Gala</font>
apples &amp; pears
"""
VTT = """WEBVTT - a stream
Kind: captions

STYLE
::cue { color: red }

NOTE made by hand

intro
00:00.500 --> 00:02.000 align:start
<v Anna>So <00:01.000>next</v> we <c.loud>have</c>

01:00:03.000 --> 01:00:04.000
x < 3 and y > 2
"""
FIRST = Spoken(0.5, 2.0, "So next we have")


def written(path, text, *, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_subrip_is_read_with_any_line_ends_and_with_a_mark(tmp_path, end, mark):
    path = written(tmp_path / "a.srt", mark + SRT.replace("\n", end))
    assert read_transcript(path) == (FIRST, Spoken(62.5, 3603.0, "Royal Gala apples & pears"))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_webvtt_is_read_without_its_comments_and_tags(tmp_path, mark):
    path = written(tmp_path / "a.vtt", mark + VTT)
    assert read_transcript(path) == (FIRST, Spoken(3603.0, 3604.0, "x < 3 and y > 2"))


@pytest.mark.parametrize("wrap", [lambda cues: cues, lambda cues: {"text": "…", "language": "en", "segments": cues}])
def test_json_is_read_as_a_list_and_as_whisper_writes_it(tmp_path, wrap):
    cues = [{"id": 0, "start": 0.5, "end": 2, "text": " So next we have"}, {"start": 2, "end": 2, "text": " "}]
    assert read_transcript(written(tmp_path / "a.json", "\ufeff" + json.dumps(wrap(cues)))) == (FIRST,)


def test_subrip_may_have_blank_lines_in_a_text_and_no_numbers(tmp_path):
    text = "\n\n00:00:00.000 --> 00:00:01.000\none\n\ntwo\n\n00:00:00,500 --> 00:00:02,000\n12\n"
    assert read_transcript(written(tmp_path / "a.srt", text)) == (Spoken(0, 1, "one two"), Spoken(0.5, 2, "12"))


@pytest.mark.parametrize(("name", "text"), [("a.srt", ""), ("a.vtt", "WEBVTT"), ("a.json", "[]")])
def test_silence_is_no_cue(tmp_path, name, text):
    assert read_transcript(written(tmp_path / name, text)) == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.srt", "1\n00:00:02,000 --> 00:00:01,000\nx\n", "line 2: from 2 s to 1 s; expected 0 ≤ start ≤ end"),
        ("a.srt", "1\n00:00:02,000 --> 00:00:01,000\n\n", "line 2: from 2 s to 1 s"),  # without words, too
        ("a.srt", "1\n00:00:nan --> 00:00:01,000\nx\n", "line 2: times '00:00:nan --> 00:00:01,000'"),
        ("a.srt", "1\n00:61:00,000 --> 00:62:01,000\nx\n", "line 2: times"),
        ("a.srt", "1\n00:00:01,000 -->\nx\n", "line 2: times"),
        ("a.srt", "1\n00:00:0١,000 --> 00:00:02,000\nx\n", "line 2: times"),
        ("a.srt", "hello\n", "line 1: no times; expected 00:00:01,000 --> 00:00:02,500"),
        ("a.srt", f"{SRT}\n3\n02:00:00,000 -> 02:00:01,000\nx\n", "line 10: no times"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nx\n2\n00:00:02,000 --> 00:00:03,000\ny\n", "line 5: times inside"),
        ("a.srt", "1\nx\n00:00:01,000 --> 00:00:02,000\ny\n", "line 1: text before the times"),
        (
            "a.srt",
            f"{SRT}\n3\n00:00:01,000 --> 00:00:09,000\nx\n",
            "line 11: starts at 1 s, before the cue before it at 62.5 s",
        ),
        ("a.vtt", VTT[1:], "line 1: 'EBVTT - a stream'; expected WEBVTT"),
        ("a.vtt", "WEBVTT\n\nhello\n", "line 3: no times; expected 00:01.000"),
        ("a.json", "{}", "no segments; expected JSON"),
        ("a.json", "[", "expected JSON"),
        ("a.json", '[{"start": NaN, "end": 1, "text": "x"}]', "NaN is no number of JSON"),
        ("a.json", '[{"start": "0", "end": 1, "text": "x"}]', 'cue 1: segments[0].start is "0"'),
        ("a.json", '[{"start": 0, "end": 1, "text": "x"}, {"end": 1, "text": "x"}]', "cue 2: no segments[1].start"),
        ("a.json", '[{"start": 0, "end": 1, "text": null}]', "cue 1: segments[0].text is null"),
        ("a.json", '[{"start": 2, "end": 1, "text": "x"}]', "cue 1: from 2 s to 1 s"),
        ("a.json", '[{"start": -1, "end": 1, "text": "x"}]', "cue 1: from -1 s to 1 s"),
        (
            "a.json",
            '[{"start": 2, "end": 3, "text": "x"}, {"start": 1, "end": 3, "text": "y"}]',
            "cue 2: starts at 1 s, before",
        ),
        ("a.txt", "x", "is no transcript by its name; expected .srt, .vtt, .json"),
    ],
)
def test_what_is_broken_is_refused_in_one_line(tmp_path, name, text, message):
    with pytest.raises(InputError) as caught:
        read_transcript(written(tmp_path / name, text))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_bytes_that_are_not_utf8_are_refused(tmp_path, encoding):
    path = written(tmp_path / "a.srt", "1\n00:00:00,000 --> 00:00:01,000\nGrüße\n", encoding=encoding)
    with pytest.raises(InputError, match=rf"a\.srt: line {3 if encoding == 'latin-1' else 1}: not UTF-8"):
        read_transcript(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_transcript(tmp_path / "absent.srt")
    (tmp_path / "folder.srt").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        read_transcript(tmp_path / "folder.srt")


def test_a_cue_cannot_be_built_wrong():
    assert Spoken(0, 1, " a\n b ").text == "a b"
    for start, end, text in ((1, 0, "x"), (float("nan"), 1, "x"), (0, float("inf"), "x"), (0, 1, " ")):
        with pytest.raises(InputError):
            Spoken(start, end, text)
