"""Shots of clips: a photo that fills the frame, or a region in front of another, filmed by hand; and their videos.

Every draw comes from the generator that is given. Places are (x, y) in pixels from the upper left corner of the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from isc.products.answers import Box, Range, Track

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator
Size = tuple[int, int]  # width, height

RATE = 24  # frames a second
MARGIN = 1.2  # how far a photo reaches beyond the frame, so that motion shows no border
WAVES = 3  # of each motion


@dataclass(frozen=True)
class Motion:
    """Smooth motion of a hand: x and y in frame heights, degrees, and log₂ of the zoom, at any time.

    Each is a sum of sines; `waves` is [4, WAVES, 3]: amplitude, frequency in hertz, and phase.
    """

    waves: Floats

    def at(self, seconds: float) -> tuple[float, float, float, float]:
        amplitude, frequency, phase = np.moveaxis(self.waves, -1, 0)
        x, y, degrees, zoom = (amplitude * np.sin(2 * np.pi * frequency * seconds + phase)).sum(axis=-1).tolist()
        return x, y, degrees, zoom


@dataclass(frozen=True)
class Shot:
    """A photo as it is filmed; `centre` and `scale` (pixels of the frame a pixel) are its place without motion.

    `behind` is the photo in the background, None where `photo` fills the frame. `blur` is the longest blur of motion
    in pixels, `towards` its direction in radians, `light` the change of exposure in stops. `item_id` is None for what
    is not the item of the clip.
    """

    photo: Picture
    centre: tuple[float, float]
    scale: float
    motion: Motion
    behind: Picture | None = None
    camera: Motion = field(default_factory=lambda: Motion(np.zeros((4, WAVES, 3))))
    blur: float = 0.0
    towards: float = 0.0
    light: float = 0.0
    item_id: str | None = None

    def draw(self, seconds: float, size: Size) -> Picture:
        """Return the frame, uint8 [H, W, 3], at this time."""
        place = self._place(seconds, size)
        if self.behind is None:
            made = cv2.warpAffine(self.photo, place, size, borderMode=cv2.BORDER_REFLECT_101)
        else:
            centre = size[0] / 2, size[1] / 2
            far = _placed(self.behind, centre, _covering(self.behind, size), self.camera.at(seconds), size[1])
            made = cv2.warpAffine(self.behind, far, size, borderMode=cv2.BORDER_REFLECT_101)
            whole = np.full(self.photo.shape[:2], 255, np.uint8)
            near = cv2.warpAffine(self.photo, place, size, borderMode=cv2.BORDER_REPLICATE)
            mask = cv2.warpAffine(whole, place, size, borderMode=cv2.BORDER_CONSTANT)
            made = np.where(mask[..., None] > 127, near, made)
        return self._exposed(self._blurred(np.asarray(made, np.uint8), seconds), seconds)

    def box(self, seconds: float, size: Size) -> Box:
        """Return the box of the photo in the frame at this time, cut at its edges, to a tenth of a pixel."""
        height, width = self.photo.shape[:2]
        place = self._place(seconds, size)
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64) - 0.5
        points = corners @ place[:, :2].T + place[:, 2] + 0.5  # pixels of cv2 are counted at their middle
        (x0, y0), (x1, y1) = np.clip(points.min(axis=0), 0, size), np.clip(points.max(axis=0), 0, size)
        return round(float(x0), 1), round(float(y0), 1), round(float(x1), 1), round(float(y1), 1)

    def _place(self, seconds: float, size: Size) -> Floats:
        return _placed(self.photo, self.centre, self.scale, self.motion.at(seconds), size[1])

    def _blurred(self, frame: Picture, seconds: float) -> Picture:
        length = int(self.blur * abs(np.sin(2 * np.pi * 0.7 * seconds + self.towards)))
        if length < 2:
            return frame
        kernel = np.zeros((length, length), np.float32)
        reach = (length - 1) / 2
        x, y = reach * np.cos(self.towards), reach * np.sin(self.towards)
        ends = [(round(reach + sign * x), round(reach + sign * y)) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], (1.0,))
        return np.asarray(cv2.filter2D(frame, -1, kernel / kernel.sum()), np.uint8)

    def _exposed(self, frame: Picture, seconds: float) -> Picture:
        gain = 2 ** (self.light * np.sin(2 * np.pi * 0.3 * seconds + 2 * self.towards))
        return np.asarray(cv2.convertScaleAbs(frame, alpha=float(gain)), np.uint8)


def motion(rng: Rng, *, reach: float = 1.0) -> Motion:
    """Draw a motion; with `reach` 1 it moves up to about 4 % of the height, 3 degrees and 6 % of zoom."""
    most = reach * np.array([0.04, 0.04, 3.0, 0.08])
    frequency = rng.uniform(0.15, 1.6, (4, WAVES))
    strength = rng.random((4, WAVES)) / frequency
    amplitude = most[:, None] * rng.uniform(0.3, 1.0, (4, 1)) * strength / strength.sum(axis=1, keepdims=True)
    return Motion(np.stack([amplitude, frequency, rng.uniform(0, 2 * np.pi, (4, WAVES))], axis=-1))


def filling(photo: Picture, size: Size, rng: Rng, *, item_id: str | None = None) -> Shot:
    """Draw a shot of a photo that fills the frame."""
    scale = _covering(photo, size) * float(rng.uniform(1, 1.2))
    shot = Shot(photo, (size[0] / 2, size[1] / 2), scale, motion(rng), item_id=item_id)
    return _in_weather(shot, size, rng)


def region(photo: Picture, behind: Picture, size: Size, rng: Rng, *, item_id: str | None = None) -> Shot:
    """Draw a shot of a photo as a region, 40 to 70 % of the frame in its larger share, in front of another photo."""
    share = float(rng.uniform(0.4, 0.7))
    scale = share * min(size[0] / photo.shape[1], size[1] / photo.shape[0])
    half = scale * photo.shape[1] / 2, scale * photo.shape[0] / 2
    x, y = (float(rng.uniform(0.9 * half[at], size[at] - 0.9 * half[at])) for at in (0, 1))
    shot = Shot(photo, (x, y), scale, motion(rng, reach=1.5), behind, motion(rng), item_id=item_id)
    return _in_weather(shot, size, rng)


def plain_background(size: Size, rng: Rng) -> Picture:
    """Draw a soft field of colours, for where no other photos are given."""
    colours = rng.integers(30, 226, (3, 4, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(colours, size, interpolation=cv2.INTER_CUBIC), np.uint8)


@dataclass(frozen=True)
class Film:
    """Shots one after the other: `lasts` is the number of frames of each, `fades` that of the fade before each."""

    shots: tuple[Shot, ...]
    lasts: tuple[int, ...]
    fades: tuple[int, ...]
    size: Size

    def ranges(self) -> list[Range]:
        """Return the first and last frame of each shot; a fade belongs to both sides up to its middle."""
        ends = np.cumsum(self.lasts).tolist()
        return [(end - last, end - 1) for end, last in zip(ends, self.lasts, strict=True)]

    def frames(self) -> Iterator[Picture]:
        """Yield the frames, uint8 [H, W, 3]."""
        for at, (first, last) in enumerate(self.ranges()):
            for number in range(first, last + 1):
                frame = self.shots[at].draw(number / RATE, self.size)
                before, after = self.fades[at], self.fades[at + 1] if at + 1 < len(self.shots) else 0
                if number < first + before // 2:
                    frame = self._mixed(at - 1, frame, number, 0.5 + (number - first + 0.5) / before)
                elif number > last - after // 2:
                    frame = self._mixed(at + 1, frame, number, 0.5 + (last - number + 0.5) / after)
                yield frame

    def _mixed(self, other: int, frame: Picture, number: int, share: float) -> Picture:
        shown = self.shots[other].draw(number / RATE, self.size)
        return np.asarray(cv2.addWeighted(frame, share, shown, 1 - share, 0), np.uint8)

    def seen(self, item_id: str) -> tuple[tuple[Range, ...], Track]:
        """Return the ranges of frames that show the item, and its boxes: a row where the box changes."""
        ranges: list[Range] = []
        rows: list[tuple[int, Box]] = []
        for shot, (first, last) in zip(self.shots, self.ranges(), strict=True):
            if shot.item_id == item_id:
                ranges.append((first, last))
                boxes = [(number, shot.box(number / RATE, self.size)) for number in range(first, last + 1)]
                rows += _changing(boxes)
        return tuple(ranges), tuple(rows)


def write_film(path: Path, film: Film, *, bit_rate: int) -> None:
    """Write the frames as H.264 in MP4, with this mean bit rate."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "x264-params": "mbtree=0"})
        stream.width, stream.height = film.size
        stream.pix_fmt, stream.bit_rate = "yuv420p", bit_rate
        stream.codec_context.thread_count = 1  # with threads, or x264's mbtree, the bytes differ from run to run
        for number, pixels in enumerate(film.frames()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def _in_weather(shot: Shot, size: Size, rng: Rng) -> Shot:
    """Draw the blur of motion, which six in ten shots have, its direction, and the change of exposure."""
    blur = float(rng.uniform(3, 11)) * size[1] / 360 if rng.random() < 0.6 else 0.0
    return replace(shot, blur=blur, towards=float(rng.uniform(0, np.pi)), light=float(rng.uniform(0, 0.6)))


def _covering(photo: Picture, size: Size) -> float:
    return float(MARGIN * max(size[0] / photo.shape[1], size[1] / photo.shape[0]))


def _placed(photo: Picture, centre: tuple[float, float], scale: float, moved: Sequence[float], height: int) -> Floats:
    """Return the matrix [2, 3] for cv2 that puts the middle of the photo at `centre`, moved, turned and zoomed."""
    x, y, degrees, zoom = moved
    turn, by = np.deg2rad(degrees), scale * 2**zoom
    turned = by * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([photo.shape[1] / 2, photo.shape[0] / 2]) - 0.5  # pixels of cv2 are counted at their middle
    to = np.array([centre[0] + x * height, centre[1] + y * height]) - 0.5
    return np.column_stack([turned, to - turned @ middle])


def _changing(boxes: Sequence[tuple[int, Box]]) -> list[tuple[int, Box]]:
    """Return the rows without those whose box is that of the row before and the row after."""
    last = len(boxes) - 1
    return [
        row for at, row in enumerate(boxes) if at in (0, last) or not boxes[at - 1][1] == row[1] == boxes[at + 1][1]
    ]
