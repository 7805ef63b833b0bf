"""Opened pictures as RGB: in strips, at a smaller scale if they are very large, so that memory stays bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from isc.errors import InputError
from isc.photos import tiff
from isc.photos.repair import has_several_scans

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]  # red, green, blue
MAX_MEMORY = 640_000_000  # bytes that a decoder may take for one picture
LARGE = 48_000_000  # pixels from which on a picture is decoded at a smaller scale
STRIP = 4_000_000  # pixels that are converted at a time
GLANCE = 256  # largest side at which the ground of a transparent picture is chosen
GROUNDS = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 255), (0, 255, 0), (0, 128, 255), (255, 160, 0))
LOST, MAY_VANISH, LITTLE = 31, 0.1, 0.05  # difference of levels that is lost; shares of what is drawn, of the picture
_ORIENTATION = 0x0112  # the EXIF tag
_PHOTOMETRIC = 262  # the TIFF tag
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of a pixel in Pillow; of other modes 4
_DECODERS = {"WEBP": 16.1, "AVIF": 12.0, "HEIF": 12.0}  # bytes that a pixel takes at the most, measured


def prepare(image: Image.Image, kind: str, head: bytes) -> None:
    """Let the decoder of a very large JPEG halve it. Raises InputError if decoding would take more than MAX_MEMORY.

    Its size is known by now, its pixels are not decoded; `head` holds the file's first bytes.
    """
    width, height = image.size
    coefficients = _coefficients(image) if kind == "JPEG" and has_several_scans(head) else 0.0
    if kind == "JPEG" and width * height > LARGE:
        image.draft(None, (width // 2, height // 2))
    needed = coefficients + decoder_bytes(image, kind)
    if needed > MAX_MEMORY:
        raise InputError(
            f"{width} × {height} pixels take {needed / 1e6:,.0f} MB to decode; expected at most {MAX_MEMORY / 1e6:.0f}"
        )


def decoder_bytes(image: Image.Image, kind: str) -> float:
    """Return the bytes that decoding an opened picture of this format takes, without the coefficients of a JPEG."""
    return image.width * image.height * _DECODERS.get(kind, _BYTES.get(image.mode, 4)) + tiff.buffer_bytes(image)


def _coefficients(image: Image.Image) -> float:
    """Return the bytes of all coefficients of a JPEG, two each."""
    sampling: list[tuple[int, int]] = [(across, down) for _, across, down, _ in getattr(image, "layer", ())]
    largest = max((across * down for across, down in sampling), default=1)
    return 2.0 * image.width * image.height * sum(across * down for across, down in sampling) / largest


def upright_rgb(image: Image.Image) -> Pixels:
    """Return a decoded picture as RGB, uint8 [H, W, 3]: EXIF orientation applied, alpha over a ground.

    The ground is white unless more than a tenth of what is drawn could not be seen on it; then it is black, grey or a
    colour that is not in the drawing. A picture of more than LARGE pixels is averaged over squares of 2 × 2, 3 × 3 …
    pixels.
    """
    factor = math.ceil(math.sqrt(image.width * image.height / LARGE))
    ground = _ground(image) if _has_alpha(image) else None
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        rows = _grey_strips(image, factor)
    else:
        rows = (np.asarray(_reduced(_as_rgb(strip, ground), factor)) for strip in _strips(image, factor))
    return _turned(_joined(rows), image)


def _has_alpha(image: Image.Image) -> bool:
    """Return whether the picture is transparent anywhere that shows.

    A BMP of 32 bits a pixel whose alpha is 0 throughout is opaque: its writer left these bits unused.
    """
    if image.mode not in {"RGBA", "LA", "PA", "RGBa", "La"}:
        return "transparency" in image.info
    return image.format != "BMP" or image.getchannel("A").getbbox() is not None


def _strips(image: Image.Image, factor: int) -> Iterator[Image.Image]:
    """Yield the picture in strips of about STRIP pixels, of a multiple of `factor` rows but for the last."""
    rows = max(1, STRIP // (image.width * factor)) * factor
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _ground(image: Image.Image) -> Colour:
    """Return the colour to lay a transparent picture over: the first of GROUNDS on which the drawing can be seen.

    On white up to MAY_VANISH of what is drawn may vanish, on the others LITTLE. If there is none, the ground is the one
    on which least vanishes. White it is too if all, or nearly nothing, is transparent.
    """
    size = min(image.width, GLANCE), min(image.height, GLANCE)
    pixels = np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGBA"))
    opaque = pixels[..., 3] / 255
    if not 0 < opaque.sum() < (1 - LITTLE) * opaque.size:
        return GROUNDS[0]
    vanishing = [_vanishing(pixels[..., :3], opaque, ground) for ground in GROUNDS]
    found = (at for at, share in enumerate(vanishing) if share <= (LITTLE if at else MAY_VANISH))
    return GROUNDS[next(found, int(np.argmin(vanishing)))]


def _vanishing(colours: Pixels, opaque: npt.NDArray[np.float64], ground: Colour) -> float:
    """Return the share of what is drawn that cannot be told from the ground.

    Pixels of its colour [H, W, 3] vanish where they touch what is transparent, by `opaque` [H, W]; a white page with a
    dark border can be seen on white.
    """
    near = np.abs(colours.astype(np.int16) - np.array(ground, np.int16)).max(axis=2) < LOST
    clear = opaque < 0.5
    _, pieces = cv2.connectedComponents((near | clear).astype(np.uint8), connectivity=4)
    open_pieces = np.unique(pieces[clear])
    return float((opaque * (near & np.isin(pieces, open_pieces))).sum() / opaque.sum())


def _as_rgb(image: Image.Image, ground: Colour | None) -> Image.Image:
    if ground is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*ground, 255)), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    return image if factor == 1 else image.reduce(factor)


def _joined(parts: Iterator[Pixels]) -> Pixels:
    held = list(parts)
    return np.array(held[0]) if len(held) == 1 else np.concatenate(held)


def _grey_strips(image: Image.Image, factor: int) -> Iterator[Pixels]:
    """Yield a picture of 16-bit, 32-bit or floating-point greys as RGB, in strips.

    White is 65,535; in a floating-point picture it is 1, or 255, if no value is larger. If a value exceeds 65,535, the
    largest value is white. Values that are not finite become black.
    """
    largest = max(float(_finite(strip).max()) for strip in _strips(image, factor))
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = np.float32(next((white for white in whites if largest <= white), largest))
    inverted = _is_white_zero(image)
    for strip in _strips(image, factor):
        grey = _finite(strip)
        with np.errstate(over="ignore"):
            values = ((white - grey if inverted else grey) / np.float32(white / 255)).clip(0, 255).astype(np.uint8)
        yield np.asarray(_reduced(Image.fromarray(values), factor).convert("RGB"))


def _finite(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _is_white_zero(image: Image.Image) -> bool:
    """Return whether 0 is white in a TIFF; Pillow inverts such pictures of up to eight bits alone."""
    tags: Mapping[int, object] = getattr(image, "tag_v2", {})
    return tags.get(_PHOTOMETRIC) == 0


def _turned(pixels: Pixels, image: Image.Image) -> Pixels:
    """Turn and mirror the picture as its EXIF block says; with a damaged block, return it unchanged."""
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the EXIF reader raises any exception on malformed bytes; the pixels are sound
        return pixels
    if turn not in range(2, 9):
        return pixels
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    across, down = turn in {2, 3, 6, 7}, turn in {3, 4, 7, 8}
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])
