"""Decoding of image files and bytes: upright RGB, uint8 [H, W, 3]. The only module that opens one."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError, _imaging, features

from isc.errors import InputError

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 256_000_000  # a larger picture is taken for a decompression bomb
MAX_BYTES = 1 << 31  # a larger file too: twice what MAX_PIXELS of four bytes take
Image.MAX_IMAGE_PIXELS = None  # read_image refuses by MAX_PIXELS, before decoding
ImageFile.LOAD_TRUNCATED_IMAGES = False
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20  # more than a megabyte of text is no reason to lose a picture
# damaged metadata, which is not ours to judge; per call this could not be switched off safely where threads decode
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it logs as an error, it raises as well

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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
_OTHERS = {  # what else is found under the names of photos
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
_HEAD = 512  # bytes, enough to tell what a file is


def read_image(source: Path | bytes, *, name: str | None = None) -> Pixels:
    """The picture upright as RGB, uint8 [H, W, 3]: EXIF orientation applied, alpha laid over white, first frame.

    `source` is a file, or the bytes of one; `name` is what messages call it. What the file is, its content says, not
    its suffix. Colour profiles are ignored: the numbers are taken for sRGB, as training takes them. Of more than
    eight bits a channel the upper eight count; floating-point and 32-bit greys are scaled (see `_eight_bits`).
    Raises InputError where the file cannot be decoded whole, or is larger than MAX_PIXELS or MAX_BYTES. Decoding
    takes 10 to 20 bytes of memory a pixel.
    """
    try:
        with _opened(source) as file:
            return _decoded(file)
    except InputError as error:
        raise InputError(f"{_called(source, name)}: {error}") from error
    except UnidentifiedImageError as error:  # its own message holds an address in memory
        why = "cannot be decoded (its header is damaged); replace or remove it"
        raise InputError(f"{_called(source, name)}: {why}") from error
    except Exception as error:  # decoders raise everything from SyntaxError to struct.error on malformed files
        told = " ".join((error.strerror if isinstance(error, OSError) and error.strerror else str(error)).split())
        why = f"cannot be decoded ({type(error).__name__}: {told}); replace or remove it"
        raise InputError(f"{_called(source, name)}: {why}") from error


def read_bytes(path: Path, *, name: str | None = None) -> bytes:
    """What an image file holds; InputError where `read_image` would not open it."""
    try:
        with _opened(path) as file:
            return file.read()
    except InputError as error:
        raise InputError(f"{_called(path, name)}: {error}") from error
    except OSError as error:
        why = f"cannot be read ({type(error).__name__}: {error.strerror})"
        raise InputError(f"{_called(path, name)}: {why}") from error


def jpeg_orientation(data: bytes) -> int | None:
    """The EXIF orientation, 1…8, of a file that any decoder of JPEGs takes: whole, and in grey or RGB; else None, and
    `read_image` has to judge it."""
    if not data.startswith(b"\xff\xd8\xff") or not data.rstrip(b"\0\n").endswith(b"\xff\xd9"):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            plain = image.mode in {"L", "RGB"} and image.width * image.height <= MAX_PIXELS
            turn = image.getexif().get(_ORIENTATION, 1)
            return (turn if turn in _TURNS else 1) if plain else None
    except Exception:  # what read_image will say of it, it says better
        return None


def _called(source: Path | bytes, name: str | None) -> str:
    """The name for a message, which is one line of printable text."""
    shown = name or ("a picture" if isinstance(source, bytes) else str(source))
    return shown if shown.isprintable() else repr(shown)


def _opened(source: Path | bytes) -> BinaryIO:
    size = len(source) if isinstance(source, bytes) else _size_of_regular(source)
    if size > MAX_BYTES:
        raise InputError(f"{size:,} bytes; expected at most {MAX_BYTES:,}")
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _size_of_regular(path: Path) -> int:
    """In bytes. A pipe or device, on which reading might wait forever, is refused."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        what = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, socket or device"
        raise InputError(f"cannot be decoded (is {what}); replace or remove it")
    return state.st_size


def _decoded(file: BinaryIO) -> Pixels:
    kind = _format(file.read(_HEAD))
    file.seek(0)
    _make_ready(kind)
    with Image.open(file, formats=[kind]) as image:  # no other decoder can be reached: some start programs
        if image.width * image.height > MAX_PIXELS:
            raise InputError(f"{image.width} × {image.height} pixels; expected at most {MAX_PIXELS:,}")
        image.load()
        return np.array(_as_rgb(_upright(image)))


def _format(head: bytes) -> str:
    """Pillow's name of the format of a file that begins so; InputError says what it is instead."""
    if known := next((name for start, name in _FORMATS.items() if head.startswith(start)), None):
        return known
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and (brand := _brand(head)):
        return brand
    raise InputError(f"cannot be decoded ({_what_else(head)}); replace or remove it")


def _brand(head: bytes) -> str | None:
    """AVIF or HEIF, by the brands that the first box of such a file names; None for a video."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}:
        return "HEIF"
    return None


def _what_else(head: bytes) -> str:
    """What a file is that is no picture."""
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
    """What a format needs before Pillow can open it; InputError where this installation cannot."""
    if kind == "HEIF":
        _register_heif()
    if kind == "TIFF":
        _silence_libtiff()
    if kind in {"AVIF", "WEBP"} and not features.check(kind.lower()):
        raise InputError(f"cannot be decoded (is {kind}, which needs pip install 'pillow>=11.3')")


@functools.cache
def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener  # an optional extra
    except ImportError as error:
        raise InputError("cannot be decoded (is HEIC, which needs pip install 'isc[heic]')") from error
    register_heif_opener()


@functools.cache
def _silence_libtiff() -> None:
    """Pillow reports the errors of libtiff as exceptions; libtiff prints them to stderr too, up to a line a row."""
    libtiff = ctypes.CDLL(_imaging.__file__)  # a name is looked up in the libraries that this one links to as well
    if hasattr(libtiff, "TIFFSetErrorHandler"):
        libtiff.TIFFSetErrorHandler(None)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned and mirrored as its EXIF block says. Where that is damaged, the picture is taken as it is."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the reader of EXIF raises whatever malformed bytes lead to; the pixels are sound
        return image
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        return Image.fromarray(_eight_bits(np.asarray(image), real=image.mode == "F")).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(values: npt.NDArray[np.generic], *, real: bool) -> Pixels:
    """Grey values [H, W] as 0…255. White is 65,535; in a floating-point picture 1, or 255, where no value is larger.
    Where a value exceeds 65,535, the largest is white. What is not finite is black."""
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(grey.max())
    whites = (1.0, 255.0, 65535.0) if real else (65535.0,)
    white = next((white for white in whites if largest <= white), largest)
    return (grey / np.float32(white / 255)).clip(0, 255).astype(np.uint8)


def encode_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """The picture [H, W, 3] RGB as a JPEG file of this quality, 1…100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"a picture of shape {pixels.shape} cannot be written as JPEG")
    return bytes(data)
