"""Answers of the Watch and Buy challenge, and their truths, as values that cannot be built wrong.

A box is (x0, y0, x1, y1) in pixels, x to the right and y down from the upper left corner of the upright picture. The
right and lower edges are exclusive: a whole picture of W × H pixels is (0, 0, W, H). Frames are counted from 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isc.data.json_files import LARGEST
from isc.errors import InputError

Box = tuple[float, float, float, float]
Range = tuple[int, int]
Track = tuple[tuple[int, Box], ...]


@dataclass(frozen=True)
class Match:
    """An image of an item in the shop, and the places of the item in that image and in the frame of the answer.

    Raises InputError for an empty name, and for a box that is empty or begins above or to the left of the picture.
    """

    img_name: str
    item_box: Box
    frame_box: Box

    def __post_init__(self) -> None:
        check_text("img_name", self.img_name)
        object.__setattr__(self, "item_box", _checked_box("item_box", self.item_box))
        object.__setattr__(self, "frame_box", _checked_box("frame_box", self.frame_box))


@dataclass(frozen=True)
class Answer:
    """The item of a clip, a frame that shows it, and the images of the item that match this frame.

    `item_id` None means that the clip shows no item of the shop; then there is no frame. Without a frame there are no
    matches. Raises InputError for anything else, and for an image that is named twice.
    """

    item_id: str | None = None
    frame_index: int | None = None
    matches: tuple[Match, ...] = ()

    def __post_init__(self) -> None:
        _check_item(self.item_id, self.matches, with_frames=self.frame_index is not None)
        if self.frame_index is not None:
            _check_frame("frame_index", self.frame_index)
        elif self.matches:
            raise InputError(
                f"frame_index is null beside {len(self.matches)} results; expected the frame of their boxes"
            )


@dataclass(frozen=True)
class TrueMatch:
    """An image of the item, the place of the item in it, and its places in the frames: rows (frame, box) by frame.

    Raises InputError for no row, rows that do not rise, and boxes that `Match` refuses.
    """

    img_name: str
    item_box: Box
    track: Track

    def __post_init__(self) -> None:
        check_text("img_name", self.img_name)
        object.__setattr__(self, "item_box", _checked_box("item_box", self.item_box))
        if not self.track:
            raise InputError("frame_box has no row; expected at least one box")
        for number, _ in self.track:
            _check_frame("frame_box: frame", number)
        for (one, _), (two, _) in itertools.pairwise(self.track):
            if two <= one:
                raise InputError(f"frame_box: frame {two} comes after {one}; expected rising frames")
        rows = tuple((number, _checked_box(f"frame_box of frame {number}", box)) for number, box in self.track)
        object.__setattr__(self, "track", rows)

    def box_at(self, frame: int) -> Box:
        """Return the place of the item in a frame."""
        frames = [number for number, _ in self.track]
        x0, y0, x1, y1 = (
            float(np.interp(frame, frames, edge)) for edge in zip(*(box for _, box in self.track), strict=True)
        )
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Truth:
    """The item that a clip shows, the ranges of frames that show it, and its images; `item_id` None for none.

    Raises InputError for ranges that are empty, overlap or do not rise, an image that is named twice, and for an item
    without a frame or an image.
    """

    item_id: str | None = None
    frames: tuple[Range, ...] = ()
    matches: tuple[TrueMatch, ...] = ()
    kind: str | None = None

    def __post_init__(self) -> None:
        _check_item(self.item_id, self.matches, with_frames=bool(self.frames))
        if self.kind is not None:
            check_text("kind", self.kind)
        if self.item_id is not None and not (self.frames and self.matches):
            raise InputError(f"item {self.item_id!r} has no frame or no image; expected at least one of each")
        for first, last in self.frames:
            _check_frame("frame_index", first)
            _check_frame("frame_index", last)
            if last < first:
                raise InputError(f"frame_index: the range from {first} to {last} is empty; expected first ≤ last")
        for (_, end), (start, _) in itertools.pairwise(self.frames):
            if start <= end:
                raise InputError(f"frame_index: a range from {start} after one to {end}; expected rising ranges")

    def shows_in(self, frame: int) -> bool:
        """Return whether a frame shows the item."""
        return any(first <= frame <= last for first, last in self.frames)


def check_text(what: str, text: str) -> None:
    if not text.strip():
        raise InputError(f"{what} is empty; expected a text")


def _check_item(item_id: str | None, matches: Sequence[Match | TrueMatch], *, with_frames: bool) -> None:
    if item_id is None and (with_frames or matches):
        raise InputError("item_id is null beside a frame or a result; expected neither")
    if item_id is not None:
        check_text("item_id", item_id)
    names = [one.img_name for one in matches]
    if len({*names}) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise InputError(f"img_name {twice!r} occurs twice in result; expected each image once")


def _check_frame(what: str, frame: int) -> None:
    if not 0 <= frame <= LARGEST:
        raise InputError(f"{what} {frame}; expected a whole number, at least 0")


def _checked_box(what: str, box: Sequence[float]) -> Box:
    """Return the box as floats. Raises InputError if it is empty or begins at a negative place."""
    x0, y0, x1, y1 = map(float, box)
    if not (0 <= x0 < x1 < 1e9 and 0 <= y0 < y1 < 1e9):
        raise InputError(f"{what} {shown((x0, y0, x1, y1))}; expected 0 ≤ x0 < x1 and 0 ≤ y0 < y1")
    return x0, y0, x1, y1


def shown(box: Box) -> str:
    return f"({', '.join(f'{edge:g}' for edge in box)})"
