"""Decoding of image files and bytes to upright RGB, uint8 [H, W, 3]. Only this module opens images."""

from __future__ import annotations

import functools
import io
import logging
import stat
import warnings
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError, features

from isc.errors import InputError
from isc.photos import tiff
from isc.photos.repair import JPEG, ends_with_mark, jpeg_without_end, lacks_end, png_without_damaged_extras
from isc.photos.rgb import prepare, upright_rgb

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 256_000_000  # a larger picture counts as a decompression bomb
MAX_BYTES = 1 << 31  # a larger file too: twice the size of MAX_PIXELS pixels of four bytes
Image.MAX_IMAGE_PIXELS = None  # read_image refuses by MAX_PIXELS, before decoding
ImageFile.LOAD_TRUNCATED_IMAGES = False
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20  # read pictures with more than a megabyte of text too
# hide warnings about damaged metadata; a filter for each call is not safe with several threads
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it also raises what it logs as an error

_ORIENTATION = 0x0112  # the EXIF tag
_FORMATS = {  # the first bytes of a file → Pillow's name of its format
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II\0*": "TIFF",  # with the mark in the wrong order, as some writers have it
    b"MM*\0": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}
_OTHERS = {  # other content of files that are named like photos
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"8BPS": "a Photoshop document",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "compressed by gzip",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\1\0": "an icon",
    b"\x1a\x45\xdf\xa3": "a video",
    b"version https://git-lfs": "a Git LFS pointer, the photo itself was not fetched",
}
_HEAD = 512  # bytes, enough to identify a file
_TAIL = 4096  # bytes at the end of a file
_SEGMENTS = 1 << 20  # bytes, enough for what comes before the pixels of most JPEGs


def read_image(source: Path | bytes, *, name: str | None = None) -> Pixels:
    """Decode a picture to upright RGB, uint8 [H, W, 3]: EXIF orientation, alpha over a ground, first frame.

    `source` is a file or its bytes; `name` is its name in messages. The content decides the format, not the suffix.
    Colour profiles are ignored: the values are taken as sRGB, as in training. Of more than eight bits per channel the
    upper eight are kept; floating-point and 32-bit greys are scaled. A picture of more than 48 million pixels comes at
    a smaller scale (`isc.photos.rgb`); decoding takes less than a gigabyte of memory. A missing end mark of a JPEG, and
    damage to a PNG beside its pixels, are passed over. Raises InputError if the file cannot be decoded completely, or
    exceeds MAX_PIXELS, MAX_BYTES or what memory allows.
    """
    try:
        with _opened(source) as file:
            return _whole(file)
    except InputError as error:
        raise InputError(f"{_called(source, name)}: {error}") from error
    except UnidentifiedImageError as error:  # its own message holds an address in memory
        why = "cannot be decoded (its header is damaged, or of a kind that no decoder here knows); replace or remove it"
        raise InputError(f"{_called(source, name)}: {why}") from error
    except Exception as error:  # decoders raise everything from SyntaxError to struct.error on malformed files
        told = " ".join((error.strerror if isinstance(error, OSError) and error.strerror else str(error)).split())
        why = f"cannot be decoded ({type(error).__name__}: {told}); replace or remove it"
        raise InputError(f"{_called(source, name)}: {why}") from error


def size_of(path: Path) -> tuple[int, int]:
    """Return the upright width and height of a picture in pixels, from its header alone; (0, 0) if that is damaged."""
    try:
        with _opened(path) as file:
            kind = _format(file.read(_HEAD))
            file.seek(0)
            _make_ready(kind)
            with Image.open(file, formats=[kind]) as image:
                turned = image.getexif().get(_ORIENTATION, 1) >= 5
                return (image.height, image.width) if turned else image.size
    except Exception:  # decoders raise everything on malformed files
        return 0, 0


def read_bytes(path: Path, *, name: str | None = None) -> bytes:
    """Read the bytes of an image file. Raises InputError if `read_image` could not open it."""
    try:
        with _opened(path) as file:
            return file.read()
    except InputError as error:
        raise InputError(f"{_called(path, name)}: {error}") from error
    except OSError as error:
        why = f"cannot be read ({type(error).__name__}: {error.strerror})"
        raise InputError(f"{_called(path, name)}: {why}") from error


def pixels_of_pillow(image: Image.Image, name: str) -> Pixels:
    """Return a PIL image as `read_image` returns a file. Raises InputError if it cannot be decoded."""
    try:
        image.load()
        return upright_rgb(image)
    except Exception as error:  # decoders raise everything on malformed files
        raise InputError(
            f"{name}: cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def jpeg_orientation(data: bytes) -> int | None:
    """Return the EXIF orientation, 1…8, of a complete JPEG in grey or RGB, which every JPEG decoder accepts.

    Returns None for any other file; `read_image` then decides.
    """
    if not data.startswith(b"\xff\xd8\xff") or not data.rstrip(b"\0\n").endswith(b"\xff\xd9"):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            plain = image.mode in {"L", "RGB"} and image.width * image.height <= MAX_PIXELS
            turn = image.getexif().get(_ORIENTATION, 1)
            return (turn if turn in range(2, 9) else 1) if plain else None
    except Exception:  # read_image gives the better message
        return None


def _called(source: Path | bytes, name: str | None) -> str:
    """Return the name for a message, as one line of printable text."""
    shown = name or ("a picture" if isinstance(source, bytes) else str(source))
    return shown if shown.isprintable() else repr(shown)


def _opened(source: Path | bytes) -> BinaryIO:
    size = len(source) if isinstance(source, bytes) else _size_of_regular(source)
    if size > MAX_BYTES:
        raise InputError(f"{size:,} bytes; expected at most {MAX_BYTES:,}")
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _size_of_regular(path: Path) -> int:
    """Return the size in bytes. Raises InputError for a pipe or device, where reading might wait forever."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        what = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, socket or device"
        raise InputError(f"cannot be decoded (is {what}); replace or remove it")
    return state.st_size


def _whole(file: BinaryIO) -> Pixels:
    """Decode a file, if need be without the small damage that takes no pixel."""
    if _lacks_end(file):
        data = _all_of(file)
        with suppress(Exception):  # decoders raise any exception on malformed files
            if (found := jpeg_without_end(data, lambda content: _decoded(io.BytesIO(content)))) is not None:
                return found
        why = "is truncated: its end mark and some of its pixels are missing"
        raise InputError(f"cannot be decoded ({why}); replace or remove it")
    try:
        return _decoded(file)
    except InputError:
        raise
    except Exception:
        without = png_without_damaged_extras(_all_of(file))
        with suppress(Exception):  # the first error says what is wrong
            if without is not None:
                return _decoded(io.BytesIO(without))
        raise


def _lacks_end(file: BinaryIO) -> bool:
    """Return whether the file is a JPEG without an end mark; most are told by their last bytes."""
    lacks = file.read(len(JPEG)) == JPEG
    if lacks:
        file.seek(max(0, file.seek(0, io.SEEK_END) - _TAIL))
        lacks = not ends_with_mark(file.read()) and lacks_end(_all_of(file))
    file.seek(0)
    return lacks


def _all_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _decoded(file: BinaryIO) -> Pixels:
    head = file.read(_HEAD)
    kind = _format(head)
    file.seek(0)
    _make_ready(kind)
    with Image.open(file, formats=[kind]) as image:  # no other decoder may run: some start programs
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"{image.width} × {image.height} pixels; expected at most {MAX_PIXELS:,}")
        file.seek(0)
        prepare(image, kind, file.read(_SEGMENTS) if kind == "JPEG" else head)
        if kind == "TIFF":
            tiff.mend(image)
        image.load()
        return upright_rgb(image)


def _format(head: bytes) -> str:
    """Return Pillow's name of the format of a file that begins with `head`. Raises InputError for other content."""
    if known := next((name for start, name in _FORMATS.items() if head.startswith(start)), None):
        return known
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and (brand := _brand(head)):
        return brand
    raise InputError(f"cannot be decoded ({_what_else(head)}); replace or remove it")


def _brand(head: bytes) -> str | None:
    """Return AVIF or HEIF, by the brands in the first box of the file; None for a video."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}:
        return "HEIF"
    return None


def _what_else(head: bytes) -> str:
    """Describe the content of a file that is not a picture."""
    if not head:
        return "is empty"
    if any(start.startswith(head) for start in _FORMATS):
        return f"ends after {len(head)} bytes"
    if other := next((name for start, name in _OTHERS.items() if head.startswith(start)), None):
        return f"is {other}"
    signs = {
        "begins with zeros alone": not head.strip(b"\0"),
        "is a tar archive": head[257:262] == b"ustar",
        "is a video or a sound": head[4:8] == b"ftyp" or head.startswith(b"RIFF"),
    }
    return next((what for what, holds in signs.items() if holds), None) or _what_text(head) or "is of no known format"


def _what_text(head: bytes) -> str | None:
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff").rstrip("\ufffd").lower()
    if "<html" in text or "<!doctype html" in text:
        return "is a web page"
    if "<svg" in text or text.startswith("<?xml"):
        return "is XML or SVG"
    readable = all((letter.isprintable() or letter.isspace()) and letter != "\ufffd" for letter in text)
    return "is text" if text and readable else None


def _make_ready(kind: str) -> None:
    """Prepare Pillow for a format. Raises InputError if this installation cannot decode it."""
    if kind == "HEIF":
        _register_heif()
    if kind == "TIFF":
        tiff.make_ready()
    if kind in {"AVIF", "WEBP"} and not features.check(kind.lower()):
        raise InputError(f"cannot be decoded (is {kind}, which needs pip install 'pillow>=11.3')")


@functools.cache
def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener  # an optional extra
    except ImportError as error:
        raise InputError("cannot be decoded (is HEIC, which needs pip install 'isc[heic]')") from error
    register_heif_opener()


def encode_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """Encode the picture [H, W, 3] RGB as a JPEG file of this quality, 1…100. Raises InputError if that fails."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"a picture of shape {pixels.shape} cannot be written as JPEG")
    return bytes(data)
