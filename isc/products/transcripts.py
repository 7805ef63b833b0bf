"""Transcripts of clips: SubRip (.srt), WebVTT (.vtt) and JSON (.json), our own or Whisper's.

JSON is a list of {"start", "end", "text"} in seconds, or an object with such a list as "segments", as Whisper writes
it; other keys may stand beside them. The libraries that read subtitles pass over broken times or mend them, and name
no lines, so that the few rules of the two formats are here (W3C, "WebVTT", 2019; SubRip has no standard).
"""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isc.data.json_files import Fields, NotRegularError, parse_json, read_text
from isc.errors import InputError

SUFFIXES = (".srt", ".vtt", ".json")
TIME = re.compile(r"(?:([0-9]+):)?([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]{1,3}))?", re.ASCII)
TAG = re.compile(r"</?[A-Za-z][^<>]*>|</>|<[0-9:.]+>|\{\\[^}]*\}")  # <i>, </c>, <v Anna>, <00:01.000>, {\an8}
ARROW = "-->"
EXAMPLES = {".srt": "00:00:01,000 --> 00:00:02,500", ".vtt": "00:01.000 --> 00:02.500"}

Block = list[tuple[int, str]]  # (line from 1, text) of lines without a blank one between them


@dataclass(frozen=True)
class Spoken:
    """A text that is said from `start` to `end`, in seconds from the first frame, on one line.

    Raises InputError for times that are negative, not finite or in the wrong order, and for a text without words.
    """

    start: float
    end: float
    text: str

    def __post_init__(self) -> None:
        check_times(self.start, self.end)
        object.__setattr__(self, "text", " ".join(self.text.split()))
        if not self.text:
            raise InputError("no text; expected what is said")


def check_times(start: float, end: float) -> None:
    """Raise InputError unless 0 ≤ start ≤ end, in seconds."""
    if not 0 <= start <= end < math.inf:
        raise InputError(f"from {start:g} s to {end:g} s; expected 0 ≤ start ≤ end")


def read_transcript(path: Path) -> tuple[Spoken, ...]:
    """Read what is said, in the order of time; the suffix decides the format.

    Tags of format and of speakers are taken away; what then has no text is left out. Raises InputError, with the line
    or the number of the cue, for another suffix, bytes that are not UTF-8, a cue without times, times that are not
    numbers or end before they start, and a cue that starts before the one before it.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: is no transcript by its name; expected {', '.join(SUFFIXES)}")
    text = _text(path).removeprefix("\ufeff")
    cues = list(_of_json(path, text) if suffix == ".json" else _of_subtitles(path, text, suffix))
    for (_, one), (place, two) in itertools.pairwise(cues):
        if two.start < one.start:
            raise InputError(
                f"{path}: {place}: starts at {two.start:g} s, before the cue before it at {one.start:g} s; "
                "expected cues in the order of time"
            )
    return tuple(cue for _, cue in cues)


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line}: not UTF-8 text; expected a transcript in UTF-8") from error
    except NotRegularError as error:
        raise InputError(f"{path}: {error}; expected a transcript") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a transcript") from error


def _of_json(path: Path, text: str) -> Iterator[tuple[str, Spoken]]:
    """Yield (the number of the cue for messages, cue)."""
    try:
        values = parse_json(text)
        fields = Fields(values if isinstance(values, dict) else {"segments": values})
        segments = fields.list("segments")
    except ValueError as error:
        raise InputError(f'{path}: {error}; expected JSON [{{"start", "end", "text"}}] or {{"segments"}}') from error
    for number, segment in enumerate(segments, start=1):
        place = f"cue {number}"
        try:
            start, end, said = segment.number("start"), segment.number("end"), segment.text("text")
        except ValueError as error:
            raise InputError(f"{path}: {place}: {error}") from error
        yield from _cue(path, place, start, end, said)


def _of_subtitles(path: Path, text: str, suffix: str) -> Iterator[tuple[str, Spoken]]:
    """Yield (the line of the times for messages, cue)."""
    for block in _cue_blocks(path, text, suffix):
        at = next(at for at, (_, said) in enumerate(block) if ARROW in said)
        if at > 1:
            raise InputError(f"{path}: line {block[0][0]}: text before the times; expected {EXAMPLES[suffix]}")
        (line, times), rest = block[at], block[at + 1 :]
        second = next((number for number, said in rest if ARROW in said), None)
        if second is not None:
            raise InputError(f"{path}: line {second}: times inside a cue; expected a blank line before the next cue")
        said = html.unescape(TAG.sub("", " ".join(said for _, said in rest)))
        yield from _cue(path, f"line {line}", *_times(path, line, times, suffix), said)


def _cue_blocks(path: Path, text: str, suffix: str) -> list[Block]:
    """Return the lines of each cue, of which one has the times; WebVTT's header and comments are left out."""
    blocks = list(_blocks(text))
    if suffix == ".vtt":
        first = text.partition("\n")[0]
        if not re.match(r"WEBVTT(?:[ \t]|$)", first):
            raise InputError(f"{path}: line 1: {first[:60]!r}; expected WEBVTT")
        blocks = [block for block in blocks[1:] if not re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", block[0][1])]
    found: list[Block] = []
    for block in blocks:
        if any(ARROW in said for _, said in block):
            found.append(block)
        elif suffix == ".srt" and found and not (len(block) > 1 and block[0][1].strip().isdecimal()):
            found[-1] += block  # SubRip's texts may have blank lines
        else:
            raise InputError(f"{path}: line {block[0][0]}: no times; expected {EXAMPLES[suffix]}")
    return found


def _blocks(text: str) -> Iterator[Block]:
    numbered = enumerate(text.split("\n"), start=1)  # read_text has made \r\n and \r into \n
    for blank, lines in itertools.groupby(numbered, key=lambda one: not one[1].strip()):
        if not blank:
            yield list(lines)


def _times(path: Path, line: int, text: str, suffix: str) -> tuple[float, float]:
    """Return start and end in seconds; settings may stand behind them."""
    first, _, rest = text.partition(ARROW)
    start, end = _seconds(first.strip()), _seconds("".join(rest.split()[:1]))
    if start is None or end is None:
        raise InputError(f"{path}: line {line}: times {text.strip()[:60]!r}; expected {EXAMPLES[suffix]}")
    return start, end


def _seconds(text: str) -> float | None:
    found = TIME.fullmatch(text)
    if found is None:
        return None
    hours, minutes, seconds, rest = found.groups()
    if int(minutes) > 59 or int(seconds) > 59:
        return None
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int((rest or "0").ljust(3, "0")) / 1000


def _cue(path: Path, place: str, start: float, end: float, text: str) -> Iterator[tuple[str, Spoken]]:
    """Yield the cue; nothing for one without words. Raises InputError, with the place, for broken times."""
    try:
        check_times(start, end)
        if text.strip():
            yield place, Spoken(start, end, text)
    except InputError as error:
        raise InputError(f"{path}: {place}: {error}") from error
