"""A process that decodes pictures: it has limits of memory and time, and may be killed without harm."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.match.verification.features import LocalFeatures
from isc.runtime.children import python
from isc.serve.reasons import DECODER_ENDED, Why, reason_text, slow_to_decode

START = 300.0  # seconds that the process may take to start
PREVIEW = 1024  # pixels of the longest side of what providers see as `pixels`


@dataclass(frozen=True)
class Examined:
    """The result of decoding a picture.

    squares  uint8 [V, 3, S, S]: the whole picture and its likeliest region, as the network takes them
    features local features, for the comparison of pixels
    pixels   uint8 [h, w, 3] RGB, at most PREVIEW pixels a side
    """

    width: int
    height: int
    squares: npt.NDArray[np.uint8]
    features: LocalFeatures
    pixels: npt.NDArray[np.uint8]
    pdq: str
    pdq_quality: int


class Unreadable(InputError):
    """A picture that cannot be decoded, or not within the limits. Asking again does not help.

    `why` is the reason as a key of the catalogue; without it the message is that of a decoder.
    """

    def __init__(self, message: str, why: Why | None = None) -> None:
        super().__init__(message)
        self.why = why


def _refused(why: Why) -> Unreadable:
    return Unreadable(reason_text(why.key, why.values), why)


class Reader:
    """The process that decodes; it starts when it is first needed, and again after it was killed."""

    def __init__(self, *, image_size: int, seconds: float, memory: int, pixels: int) -> None:
        self._options = (str(image_size), str(memory), str(pixels))
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def examine(self, path: Path) -> Examined:
        """Decode the picture and describe its pixels. Raises Unreadable."""
        answer = self._asked(path, None)
        assert isinstance(answer, Examined)
        return answer

    def preview(self, path: Path, side: int) -> bytes:
        """Return the picture as a JPEG of at most `side` pixels a side. Raises Unreadable."""
        answer = self._asked(path, side)
        assert isinstance(answer, bytes)
        return answer

    def _asked(self, path: Path, side: int | None) -> Examined | bytes:
        with self._lock:
            pipe = self._running()
            try:
                pipe.send((str(path), side))
                if not pipe.poll(self._seconds):
                    self.close()
                    raise _refused(slow_to_decode(self._seconds))
                answer = pipe.recv()
            except (EOFError, ConnectionError) as error:
                self.close()
                raise _refused(DECODER_ENDED) from error
        if isinstance(answer, str):
            raise Unreadable(answer)
        assert isinstance(answer, Examined | bytes)
        return answer

    def close(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _running(self) -> Connection:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._pipe is None:
            here, there = socket.socketpair()
            start = "from isc.serve.reading_process import main; main(*sys.argv[1:])"
            command = python(start, str(there.fileno()), *self._options)
            # the process that decodes strangers' files sees no password
            visible = {name: value for name, value in os.environ.items() if not name.startswith("ISC_SERVE")}
            self._process = subprocess.Popen(command, pass_fds=(there.fileno(),), env=visible)
            there.close()
            self._pipe = Connection(here.detach())
            self._wait_for_start(self._pipe)
        return self._pipe

    def _wait_for_start(self, pipe: Connection) -> None:
        """Wait until the process is ready: its imports take long on a busy machine, and are no fault of a picture.

        Raises RuntimeError if it does not start.
        """
        try:
            if pipe.poll(START):
                pipe.recv()
                return
        except (EOFError, ConnectionError):
            pass
        self.close()
        raise RuntimeError(f"the process that decodes has ended, or did not start within {START:g} s")


def serve(pipe: Connection, image_size: int, memory: int, pixels: int) -> None:
    """Answer requests until the other end of the pipe is closed."""
    import cv2

    import isc.extract.view_plan
    import isc.find.copies
    import isc.match.verification.features
    import isc.photos.views
    import isc.serve.pdq  # noqa: F401 — what `examined` needs, before the clock of a picture runs

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    with suppress(EOFError, ConnectionError):
        pipe.send(None)  # ready
        while True:
            path, side = pipe.recv()
            pipe.send(_answer(Path(path), image_size, pixels, side))


def _answer(path: Path, image_size: int, most: int, side: int | None) -> Examined | bytes | str:
    """Examine a picture, or with `side` make a preview; the reason if that cannot be done."""
    from isc.photos.decode import size_of

    try:
        width, height = size_of(path)
        if width * height > most:
            return f"{width:,} × {height:,} pixels; expected at most {most:,}"
        return examined(path, image_size) if side is None else _preview(path, side)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except MemoryError:
        return "decoding needs more memory than is allowed"
    except Exception as error:
        return f"cannot be examined ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _preview(path: Path, side: int) -> bytes:
    from isc.photos.decode import encode_jpeg, read_image
    from isc.photos.resizing import fit_within

    return encode_jpeg(fit_within(read_image(path), side), quality=85)


def examined(path: Path, image_size: int) -> Examined:
    """Decode a picture, and return what the built-in providers need. Raises InputError if it cannot be decoded."""
    from isc.config.choices import Combine
    from isc.extract.view_plan import ViewPlan
    from isc.find.copies import VIEWS
    from isc.match.verification.features import local_features
    from isc.photos.decode import read_image
    from isc.photos.resizing import fit_within
    from isc.photos.views import parse_views
    from isc.serve.pdq import pdq

    pixels = read_image(path)
    plan = ViewPlan(image_size, parse_views(VIEWS), Combine.rows)
    squares: list[Any] = plan.pictures(pixels, plan.views_of(pixels))
    preview = fit_within(pixels, PREVIEW)
    digits, quality = pdq(fit_within(pixels, 512))
    return Examined(
        width=pixels.shape[1],
        height=pixels.shape[0],
        squares=np.concatenate(squares).transpose(0, 3, 1, 2),
        features=local_features(pixels),
        pixels=preview,
        pdq=digits,
        pdq_quality=quality,
    )
