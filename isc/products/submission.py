"""Submissions of the Watch and Buy challenge and truths of the same layout, in JSON.

The task is the "Watch and Buy: Multimodal Product Identification" challenge (ACM Multimedia 2021): for each clip, name
the item of the shop that it shows, a frame in which the item is seen, and where it is in the frame and in shop images.

An answer:   {video: {"item_id": "I003", "frame_index": 40,
                      "result": [{"img_name": "I003.webp", "item_box": [0, 0, 198, 198], "frame_box": [9, 8, 90, 99]}]}}
None of the shop's items:  {video: {"item_id": null, "frame_index": null, "result": []}}

A truth has the same layout, with three additions, because an item is seen in many frames and may move:
frame_index  a frame, or the ranges [[first, last], …] of the frames that show the item, both ends included
frame_box    a box that holds in all these frames, or rows [frame, x0, y0, x1, y1]; between two rows, each number of the
             box lies on the straight line between theirs; before the first and after the last row their boxes hold
kind         optional: the kind of the item, such as "Apple"

Boxes are (x0, y0, x1, y1) in pixels, right and lower edges exclusive, and frames count from 0 (`isc.products.answers`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from isc.data.files import write_json
from isc.data.json_files import Fields, read_json, read_text
from isc.errors import InputError
from isc.products.answers import Answer, Box, Match, Range, Track, TrueMatch, Truth, check_text, shown

Sizes = Mapping[str, tuple[int, int]] | Callable[[str], tuple[int, int] | None]
Value = TypeVar("Value")

EXPECTED = "{video: {item_id, frame_index, result: [{img_name, item_box, frame_box}]}}"
ANSWER_KEYS = ("item_id", "frame_index", "result")
MATCH_KEYS = ("img_name", "item_box", "frame_box")


def read_answers(
    path: Path, *, image_sizes: Sizes | None = None, frame_sizes: Sizes | None = None
) -> dict[str, Answer]:
    """Read a submission; return the answer of each video, in the order of the file.

    `image_sizes` gives (width, height) by the name of a shop image, `frame_sizes` by video; None leaves boxes and names
    unchecked. Raises InputError, with the video, for JSON of another shape, a key that is unknown or occurs twice, and
    for a frame or box that cannot be, or lies outside its picture.
    """

    def parse(video: str, fields: Fields) -> Answer:
        answer = _answer(fields)
        for one in answer.matches:
            _check_inside("item_box", one.item_box, one.img_name, image_sizes)
            _check_inside("frame_box", one.frame_box, video, frame_sizes)
        return answer

    return _read(path, parse, ANSWER_KEYS)


def read_truth(path: Path, *, image_sizes: Sizes | None = None, frame_sizes: Sizes | None = None) -> dict[str, Truth]:
    """Read the truth of each video, in the order of the file. Raises InputError as `read_answers` does."""

    def parse(video: str, fields: Fields) -> Truth:
        truth = _truth(fields)
        for one in truth.matches:
            _check_inside("item_box", one.item_box, one.img_name, image_sizes)
            for number, box in one.track:
                _check_inside(f"frame_box of frame {number}", box, video, frame_sizes)
        return truth

    return _read(path, parse, (*ANSWER_KEYS, "kind"))


def write_answers(path: Path, answers: Mapping[str, Answer]) -> None:
    """Write a submission. Raises InputError for a video without a name, or if the file cannot be written."""
    _check_videos(answers)
    write_json(path, {video: _answer_values(one) for video, one in answers.items()})


def write_truth(path: Path, truths: Mapping[str, Truth]) -> None:
    """Write the truth of each video. Raises InputError as `write_answers` does."""
    _check_videos(truths)
    write_json(path, {video: _truth_values(one) for video, one in truths.items()})


def _read(path: Path, parse: Callable[[str, Fields], Value], known: Sequence[str]) -> dict[str, Value]:
    values = read_json(path, expected=EXPECTED)
    _check_repeats(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}; expected {EXPECTED}")
    found: dict[str, Value] = {}
    for video, value in values.items():
        try:
            check_text("the name of the video", video)
            fields = Fields(value)
            _check_keys(fields, known)
            found[video] = parse(video, fields)
        except ValueError as error:
            raise InputError(f"{path}: video {video!r}: {error}") from error
    return found


def _check_repeats(path: Path) -> None:
    """Raise InputError if a JSON object has a key twice; `json` would keep the last without a word."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = (
            next((key for at, key in enumerate(keys) if key in keys[:at]), None) if len({*keys}) < len(keys) else None
        )
        if twice is not None:
            raise InputError(
                f"{path}: {twice!r} occurs twice in one object; expected one answer a video, each key once"
            )
        return dict(pairs)

    json.loads(read_text(path), object_pairs_hook=unique)


def _check_keys(fields: Fields, known: Sequence[str]) -> None:
    unknown = next((key for key in fields.values if key not in known), None)
    if unknown is not None:
        raise InputError(f"{fields.where}{unknown} is no key; expected {', '.join(known)}")


def _answer(fields: Fields) -> Answer:
    matches = [Match(one.text("img_name"), _box(one, "item_box"), _box(one, "frame_box")) for one in _results(fields)]
    return Answer(fields.text_or_none("item_id"), fields.count_or_none("frame_index"), tuple(matches))


def _truth(fields: Fields) -> Truth:
    frames = _ranges(fields)
    first = frames[0][0] if frames else 0
    matches = [TrueMatch(one.text("img_name"), _box(one, "item_box"), _track(one, first)) for one in _results(fields)]
    kind = fields.text_or_none("kind") if "kind" in fields.values else None
    return Truth(fields.text_or_none("item_id"), frames, tuple(matches), kind)


def _results(fields: Fields) -> tuple[Fields, ...]:
    results = fields.list("result")
    for one in results:
        _check_keys(one, MATCH_KEYS)
    return results


def _box(fields: Fields, name: str) -> Box:
    return _four(fields.numbers(name), f"{fields.where}{name}")


def _four(numbers: Sequence[float], name: str) -> Box:
    if len(numbers) != 4:
        raise InputError(f"{name} has {len(numbers)} numbers; expected 4: x0, y0, x1, y1")
    x0, y0, x1, y1 = numbers
    return x0, y0, x1, y1


def _ranges(fields: Fields) -> tuple[Range, ...]:
    found = fields.value("frame_index")
    if found is None:
        return ()
    if not isinstance(found, list):
        frame = fields.count("frame_index")
        return ((frame, frame),)
    for one in found:
        if not (isinstance(one, list) and len(one) == 2 and all(type(number) is int for number in one)):
            raise InputError(
                f"frame_index holds {json.dumps(one)[:60]}; expected ranges [first, last] of whole numbers"
            )
    return tuple((first, last) for first, last in found)


def _track(fields: Fields, first: int) -> Track:
    """Return the rows of frame_box; a single box becomes a row of the frame `first`."""
    name = f"{fields.where}frame_box"
    found = fields.value("frame_box")
    if not (isinstance(found, list) and found and isinstance(found[0], list)):
        return ((first, _box(fields, "frame_box")),)
    rows: list[tuple[int, Box]] = []
    for row in found:
        if not (isinstance(row, list) and len(row) == 5 and type(row[0]) is int):
            raise InputError(f"{name} holds {json.dumps(row)[:60]}; expected rows [frame, x0, y0, x1, y1]")
        numbers = Fields({"box": row[1:]}, f"{name} of frame {row[0]}: ").numbers("box")
        rows.append((row[0], _four(numbers, f"{name} of frame {row[0]}")))
    return tuple(rows)


def _answer_values(answer: Answer) -> dict[str, Any]:
    results = [
        {"img_name": one.img_name, "item_box": _shortest(one.item_box), "frame_box": _shortest(one.frame_box)}
        for one in answer.matches
    ]
    return {"item_id": answer.item_id, "frame_index": answer.frame_index, "result": results}


def _truth_values(truth: Truth) -> dict[str, Any]:
    results = [
        {
            "img_name": one.img_name,
            "item_box": _shortest(one.item_box),
            "frame_box": [[number, *_shortest(box)] for number, box in one.track],
        }
        for one in truth.matches
    ]
    frames = [list(one) for one in truth.frames] if truth.item_id is not None else None
    values: dict[str, Any] = {"item_id": truth.item_id, "frame_index": frames, "result": results}
    return values if truth.kind is None else {**values, "kind": truth.kind}


def _shortest(box: Box) -> list[float]:
    return [int(edge) if edge == int(edge) else edge for edge in box]


def _check_videos(videos: Mapping[str, object]) -> None:
    for video in videos:
        check_text("the name of a video", video)


def _check_inside(what: str, box: Box, name: str, sizes: Sizes | None) -> None:
    if sizes is None:
        return
    size = sizes(name) if callable(sizes) else sizes.get(name)
    if size is None:
        raise InputError(f"{what}: {name!r} is not known; expected the name of a picture that is there")
    if box[2] > size[0] or box[3] > size[1]:
        raise InputError(
            f"{what} {shown(box)} is not inside {name!r} of {size[0]} × {size[1]} pixels; "
            f"expected x1 ≤ {size[0]}, y1 ≤ {size[1]}"
        )
