"""The frames of a video that differ, each standing for a stretch of time."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isc.errors import InputError, needing
from isc.photos.decode import Pixels
from isc.photos.resizing import fit_within

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter

log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp", ".flv", ".wmv", ".ogv")
)
EVERY = 1.0  # seconds from one frame to the next, if nothing changes sooner
LEAST = 0.2  # seconds that a frame stands for at least, so that a flicker is no sequence of scenes
MOST = 5_000  # frames of a video; of a longer one, fewer in a second
LONGEST = 1024  # pixels of a frame's longest side
SMALL = 32  # side of the grey pictures that are compared to see a change
SAME, CHANGED = 1.5, 25.0  # mean difference of grey levels below which nothing, and from which a scene has changed
MAX_PIXELS = 16_384 * 16_384  # of a frame
TS_PACKET, TS_SYNC = 188, b"\x47"  # bytes of a packet of an MPEG transport stream, and its first (ISO 13818-1, 2.4.3)
WITH_TIME = re.compile(r"#t=(\d+\.\d\d),(\d+\.\d\d)$", re.ASCII)  # as W3C's Media Fragments have it


@dataclass(frozen=True)
class Stretch:
    """A part of a video, in seconds from its first frame."""

    video: str
    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"from {self.start} s to {self.end} s; expected a start from 0 on, and an end after it")

    def __str__(self) -> str:
        return f"{self.video}#t={self.start:.2f},{self.end:.2f}"

    @classmethod
    def parse(cls, text: str) -> Stretch | None:
        """Return what `str` has made, or None for any other text, such as the path of a photo."""
        found = WITH_TIME.search(text)
        if found is None or not is_video(text[: found.start()]):
            return None
        start, end = map(float, found.groups())
        return cls(text[: found.start()], start, end) if start <= end else None


@dataclass(frozen=True)
class Frame:
    """A picture, uint8 [H, W, 3] RGB and upright, that stands for the time from `start` to `end` in seconds."""

    start: float
    end: float
    pixels: Pixels


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a file of this name counts as a video."""
    name = os.fspath(path)
    stem, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix}".lower() in SUFFIXES and bool(stem) and not stem.endswith("/")


def videos_below(folder: Path) -> Iterator[Path]:
    """Yield the videos below a folder, each folder's in the order of names; hidden ones are left out.

    A file `.ts` counts if it is an MPEG transport stream; TypeScript has the same suffix. Nothing for a file, and
    nothing if PyAV is not installed: then videos do not count.
    """
    try:
        distribution("av")
    except PackageNotFoundError:
        return
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (one for name in sorted(files) if not name.startswith(".") and _counts(one := Path(root, name)))


def _counts(path: Path) -> bool:
    """Return whether a file of a folder is a video by its name, and a file `.ts` by its first two packets, too."""
    if not is_video(path):
        return False
    if path.suffix.lower() != ".ts":
        return True
    try:
        with path.open("rb") as file:
            begin = file.read(TS_PACKET + 1)
    except OSError:
        return True  # reading says why
    return begin[:1] == begin[TS_PACKET:] == TS_SYNC


def frames(path: Path, *, every: float = EVERY, most: int = MOST) -> Iterator[Frame]:
    """Yield the frames of a video that differ from the one before, in the order of time.

    A frame is looked at after `every` seconds, and as soon as the picture has changed; one that looks like the last
    yielded is not yielded again, but lengthens its time. A video that would give more than `most` frames is looked at
    less often; one of unknown length ends after so many, with a warning. Packets that cannot be decoded are passed over
    and counted in a warning. Memory does not grow with the length. Raises InputError if the file is no video, or no
    frame of it can be decoded.
    """
    if every <= 0 or most < 1:
        raise ValueError(f"every {every} s, at most {most} frames; expected positive numbers")
    with _opened(path) as (container, stream):
        from av.video.reformatter import VideoReformatter

        scaler = VideoReformatter()
        length = 0.0 if container.duration is None else container.duration / 1_000_000
        step = max(every, length / most)
        held: Frame | None = None
        looks = np.zeros((SMALL, SMALL), np.int16)
        last, count = 0.0, 0
        for seconds, until, raw in _decoded(path, container, stream):
            if not raw.width * raw.height <= MAX_PIXELS:
                raise InputError(
                    f"{path}: frames of {raw.width} × {raw.height} pixels; expected at most {MAX_PIXELS:,}"
                )
            small = _small(raw, scaler)
            last = max(last, until)
            if held is not None:
                change = float(np.abs(small - looks).mean())
                due = seconds >= held.start + step or (change >= CHANGED and seconds >= held.start + LEAST)
                if not due or change < SAME:
                    continue
                if count == most - 1:
                    log.warning("%s: only the first %.0f s, %d frames, are looked at", path, seconds, most)
                    last = seconds
                    break
                yield Frame(held.start, seconds, held.pixels)
                count += 1
            held, looks = Frame(seconds, seconds, _upright(raw)), small
        if held is None:
            raise InputError(f"{path}: no frame can be decoded; expected a video with pictures")
        yield Frame(held.start, max(last, held.start), held.pixels)


def rate_and_size(path: Path) -> tuple[float, int, int]:
    """Return a video's frames a second, 25 if unknown, and its width and height as stored, before any turning.

    Raises InputError as `frames` does.
    """
    with _opened(path) as (_, stream):
        return _rate(stream), stream.codec_context.width, stream.codec_context.height


def frame_at(path: Path, seconds: float) -> Pixels:
    """Return the picture that a video shows at this time, the last one if it ends before. Raises InputError."""
    with _opened(path) as (container, stream):
        start = (stream.start_time or 0) * float(stream.time_base or 0)
        container.seek(max(0, int((seconds + start) * 1_000_000)))
        shown = None
        for at, until, raw in _decoded(path, container, stream):
            if shown is None or at <= seconds:
                shown = raw
            if until > seconds:
                break
        if shown is None:
            raise InputError(f"{path}: no frame can be decoded at {seconds:.2f} s")
        return _upright(shown)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Open the file and its first stream of pictures."""
    with needing(f"{path}: a video", extra="video"):
        import av
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a video")
    try:
        container = av.open(str(path.absolute()), hwaccel=_hardware(), **any_metadata())
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a video ({_line(error)}); expected {_known()}") from error
    with container:
        if not container.streams.video:
            raise InputError(f"{path}: has no pictures, only other streams; expected a video")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{path}: its pictures are of a codec that is not known here; expected {_known()}")
        stream.thread_type = "AUTO"
        yield container, stream


def any_metadata() -> dict[str, Any]:
    """Return the options of `av.open` with which titles that are no UTF-8 refuse no video; PyAV 19 needs none."""
    import av

    return {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


def _hardware() -> Any:
    """Return the decoder of an NVIDIA GPU, which falls back to the CPU where it cannot decode a video; else None."""
    if not Path("/dev/nvidiactl").exists():
        return None
    from av.codec.hwaccel import HWAccel, hwdevices_available

    return HWAccel(device_type="cuda", allow_software_fallback=True) if "cuda" in hwdevices_available() else None


def _decoded(
    path: Path, container: InputContainer, stream: av.VideoStream
) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Yield (start in seconds, end, frame) in rising order; a frame without a time follows the one before."""
    import av

    length = 1 / _rate(stream)
    begin = (stream.start_time or 0) * float(stream.time_base or 0)
    now, broken = 0.0, 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            log.warning("%s: cannot be read after %.1f s (%s); the frames before are used", path, now, _line(error))
            break
        try:
            shown = packet.decode()
        except av.error.FFmpegError:
            broken += 1
            continue
        for frame in shown:
            assert isinstance(frame, av.VideoFrame)
            start = now if frame.time is None else max(now, float(frame.time) - begin)
            duration = float((frame.duration or 0) * (frame.time_base or 0)) or length
            now = start + duration if frame.time is None else start
            yield start, start + duration, frame
    if broken:
        log.warning("%s: %d packets cannot be decoded and are passed over", path, broken)


def _rate(stream: av.VideoStream) -> float:
    """Return the frames a second, 25 if unknown."""
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return rate if rate > 0 else 25.0


def _small(frame: av.VideoFrame, scaler: VideoReformatter) -> npt.NDArray[np.int16]:
    """Return the frame in SMALL × SMALL grey levels; one scaler for all frames is made ready once."""
    return scaler.reformat(frame, SMALL, SMALL, "gray").to_ndarray().astype(np.int16)


def _upright(frame: av.VideoFrame) -> Pixels:
    """Return the pixels as they are meant to be seen: turned, and shrunk to LONGEST."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.ascontiguousarray(fit_within(np.rot90(pixels, round((frame.rotation or 0) / 90) % 4), LONGEST))


def _known() -> str:
    return f"a video ({', '.join(sorted(SUFFIXES))})"


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
