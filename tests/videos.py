"""Videos for tests, made from sample photos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from isc.photos.decode import read_image
from tests.conftest import SAMPLE

PHOTOS = sorted(SAMPLE.glob("*.jpg"))
RATE = 25


def picture(number: int, size=(320, 240)):
    return cv2.resize(read_image(PHOTOS[number]), size, interpolation=cv2.INTER_AREA)


def write_video(path: Path, pictures, *, codec="libx264", pix_fmt="yuv420p", times=None, rate=RATE) -> Path:
    """Write pictures uint8 [H, W, 3]; `times` are their numbers of 1/rate seconds, or one after the other."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        for at, pixels in enumerate(pictures):
            if not at:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = pix_fmt
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = at if times is None else times[at], Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def slides(numbers, *, seconds=2.0, size=(320, 240)):
    """Yield each photo's picture for so many seconds."""
    for number in numbers:
        shown = picture(number, size)
        for _ in range(round(seconds * RATE)):
            yield shown
