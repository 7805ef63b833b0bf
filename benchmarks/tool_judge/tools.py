"""ImageMagick and ffmpeg as functions from picture to picture; the same arguments always give the same bytes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

from PIL import Image

from isc.errors import InputError

# tool → (names of its command, in the order of the search; Debian's package)
TOOLS = {"ImageMagick": (("convert-im6", "convert"), "imagemagick"), "ffmpeg": (("ffmpeg",), "ffmpeg")}
ONE_THREAD = {"MAGICK_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1"}  # otherwise noise depends on the number of cores
SECONDS = 120  # limit for one call, which usually takes less than one
QUIET = ("-hide_banner", "-loglevel", "error", "-nostdin", "-threads", "1", "-filter_threads", "1")


def require_tools() -> None:
    """Raise InputError, one line that names the Debian package, if a tool is missing."""
    for tool in TOOLS:
        _command(tool)


def versions() -> dict[str, str]:
    """Return the version that each tool reports."""
    magick = _run([_command("ImageMagick"), "-version"], b"").decode().split()
    ffmpeg = _run([_command("ffmpeg"), "-version"], b"").decode().split()
    return {"imagemagick": magick[magick.index("ImageMagick") + 1], "ffmpeg": ffmpeg[ffmpeg.index("version") + 1]}


def magick(image: Image.Image, *options: str, seed: int = 0) -> Image.Image:
    """Run `convert` with these options between input and output; `seed` is for its own random numbers.

    Transparent parts of the result get the colour that -background gives, or white.
    """
    command = [_command("ImageMagick"), "-seed", str(seed), "ppm:-", "-background", "white"]
    return _opened(
        _run([*command, *options, "-compose", "over", "-flatten", "+repage", "-depth", "8", "ppm:-"], _ppm(image))
    )


def ffmpeg_filter(image: Image.Image, filters: str) -> Image.Image:
    """Return the picture after ffmpeg's -vf."""
    return _opened(_ffmpeg(_ppm(image), ("-f", "ppm_pipe"), ("-vf", filters, *_AS_PPM)))


def ffmpeg_codec(image: Image.Image, options: Sequence[str]) -> Image.Image:
    """Return the picture encoded as a video of one frame and decoded again; its sides are made even."""
    even = ("-vf", "scale=trunc(iw/2)*2:trunc(ih/2)*2:flags=bicubic,format=yuv420p")
    exact = ("-fflags", "+bitexact", "-flags", "+bitexact", "-threads", "1")
    video = _ffmpeg(_ppm(image), ("-f", "ppm_pipe"), (*even, "-frames:v", "1", *options, *exact, "-f", "matroska", "-"))
    return _opened(_ffmpeg(video, (), _AS_PPM))


_AS_PPM = ("-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-")


def _ffmpeg(data: bytes, before: Sequence[str], after: Sequence[str]) -> bytes:
    return _run([_command("ffmpeg"), *QUIET, *before, "-i", "-", *after], data)


@cache
def _found(tool: str, path: str | None) -> str | None:
    return next((found for name in TOOLS[tool][0] if (found := shutil.which(name, path=path))), None)


def _command(tool: str) -> str:
    found = _found(tool, os.environ.get("PATH"))
    if found is None:
        names, package = TOOLS[tool]
        raise InputError(f"{tool} not installed: no {names[-1]} in PATH; apt-get install {package}")
    return found


def _run(command: Sequence[str], data: bytes) -> bytes:
    done = subprocess.run(
        command, input=data, capture_output=True, check=False, timeout=SECONDS, env={**os.environ, **ONE_THREAD}
    )
    if done.returncode or not done.stdout:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise InputError(f"{' '.join(command)}: {said or 'gave nothing'}")
    return done.stdout


def _ppm(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PPM")
    return file.getvalue()


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
