"""The sound of a video, for whoever listens to what is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.errors import InputError, needing
from isc.video.reading import any_metadata

log = logging.getLogger(__name__)
RATE = 16_000  # samples a second, as recognisers of speech take them
LONGEST = 3_600  # seconds that are listened to: 115 MB

Samples = npt.NDArray[np.int16]


def sound(path: Path) -> Samples:
    """Return the first stream of sound, one channel at RATE, int16 [N]; N = 0 for a video without sound.

    Of a longer video only the first hour is read, with a warning; what cannot be decoded is left out. Raises InputError
    if the file is no video.
    """
    with needing(f"{path}: the sound of a video", extra="video"):
        import av
        from av.audio.resampler import AudioResampler
    parts: list[Samples] = []
    count = 0
    try:
        with av.open(str(path.absolute()), **any_metadata()) as container:
            if not container.streams.audio:
                return np.zeros(0, np.int16)
            stream = container.streams.audio[0]
            resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    continue
                for frame in frames:
                    for piece in resampler.resample(frame):
                        parts.append(np.asarray(piece.to_ndarray(), np.int16).ravel())
                        count += len(parts[-1])
                if count >= LONGEST * RATE:
                    log.warning("%s: only the first %d s are listened to", path, LONGEST)
                    break
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror}); expected a video") from error
    return np.concatenate(parts)[: LONGEST * RATE] if parts else np.zeros(0, np.int16)
