"""Listing and decoding image files. The only module that opens one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from isc.descriptors import id_problem
from isc.errors import InputError

Pixels = npt.NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
MAX_PIXELS = 256_000_000  # a larger picture is taken for a decompression bomb

Image.MAX_IMAGE_PIXELS = None  # read_image refuses by MAX_PIXELS, before decoding
ImageFile.LOAD_TRUNCATED_IMAGES = False


def list_images(folder: Path, *, key: str = "images") -> dict[str, Path]:
    """All image files below `folder`, by id, in the order of their ids.

    An id is the path below the folder without its suffix, with "/" between its parts. Hidden files are left out.
    `key` is what error messages call the folder.
    Raises InputError where the folder is missing or holds no image, an id is unusable, or two files share one.
    """
    if not folder.is_dir():
        raise InputError(f"{key}={folder}: no such folder; expected a folder of photos")
    found: dict[str, Path] = {}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_refuse_listing):
        above = {Path(root).resolve(), *Path(root).resolve().parents}  # a link back up would list everything again
        folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(root, f).resolve() not in above)
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            photo_id = path.relative_to(folder).with_suffix("").as_posix()
            if problem := id_problem(photo_id):
                raise InputError(f"{str(path)!r}: id {photo_id!r} {problem}")
            if photo_id in found:
                raise InputError(f"{found[photo_id]} and {path} would both get the id {photo_id!r}; rename one")
            found[photo_id] = path
    if not found:
        raise InputError(f"{key}={folder}: holds no image; expected files ending in {', '.join(sorted(SUFFIXES))}")
    return dict(sorted(found.items()))


def list_hash(images: Mapping[str, Path]) -> str:
    """What identifies a list of photos: the SHA-256 of its ids and file sizes."""
    lines = (f"{name},{path.name},{_size(path)}\n" for name, path in images.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _size(path: Path) -> int:
    """In bytes; −1 for a link that leads nowhere, which is found unreadable later."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _refuse_listing(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def read_image(path: Path) -> Pixels:
    """The picture upright as RGB, uint8 [H, W, 3]: EXIF orientation applied, alpha laid over white, first frame.

    Raises InputError where the file cannot be decoded whole or is larger than MAX_PIXELS.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path}: {image.width} × {image.height} pixels; expected at most {MAX_PIXELS:,}")
            image.load()
            return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except InputError:
        raise
    except Exception as error:  # decoders raise everything from SyntaxError to struct.error on malformed files
        raise InputError(
            f"{path}: cannot be decoded ({type(error).__name__}: {error}); replace or remove it"
        ) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.float32)
        return Image.fromarray((values / 257.0).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize(pixels: Pixels, size: int) -> Pixels:
    """The picture [H, W, 3] squeezed to [size, size, 3]: area-averaged where it shrinks, bilinear where it grows."""
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    shrinks = height > size or width > size
    resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def fit_within(pixels: Pixels, longest: int) -> Pixels:
    """The picture with its longest side at most `longest` pixels, proportions kept."""
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def encode_jpeg(pixels: Pixels, *, quality: int) -> bytes:
    """The picture [H, W, 3] RGB as a JPEG file of this quality, 1…100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InputError(f"a picture of shape {pixels.shape} cannot be written as JPEG")
    return bytes(data)


def path_of(images: Mapping[str, Path], name: str) -> Path:
    """The file of an id, or InputError naming it."""
    if name not in images:
        raise InputError(f"id {name!r} has no image file; expected one of {len(images):,} listed")
    return images[name]
