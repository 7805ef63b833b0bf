"""The files of uploaded pictures, named by their content."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from isc.errors import InputError

BLOCK = 1 << 20
MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"GIF87a": "gif", b"GIF89a": "gif", b"BM": "bmp",
         b"II*\0": "tiff", b"MM\0*": "tiff"}  # fmt: skip
TYPES = {"jpeg": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp", "bmp": "image/bmp",
         "avif": "image/avif"}  # fmt: skip


class TooLarge(InputError):
    """A file above the limit of bytes."""


class NoPicture(InputError):
    """A file whose first bytes are those of no known picture."""


def format_of(head: bytes) -> str | None:
    """Return the format of a picture by its first bytes, None for anything else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1"):
        return "avif" if head[8:10] == b"av" else "heif"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


class PictureFiles:
    """A folder of files, each below the first four digits of its SHA-256; a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arriving = folder / "arriving"

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256[2:4] / sha256

    def keep(self, stream: BinaryIO, *, most: int) -> tuple[str, int]:
        """Write the stream to its place, and return (SHA-256, bytes). It is on disk when this returns.

        Raises TooLarge above `most` bytes, NoPicture for content that is none, and OSError if it cannot be written.
        """
        self.arriving.mkdir(parents=True, exist_ok=True)
        beside = self.arriving / secrets.token_hex(8)
        digest, size = hashlib.sha256(), 0
        try:
            with beside.open("xb") as file:
                while block := stream.read(BLOCK):
                    if not size and format_of(block[:32]) is None:
                        raise NoPicture(
                            "no picture by its first bytes; expected JPEG, PNG, WebP, GIF, AVIF, TIFF or BMP"
                        )
                    size += len(block)
                    if size > most:
                        raise TooLarge(f"above {most:,} bytes; expected a smaller file")
                    digest.update(block)
                    file.write(block)
                if not size:
                    raise NoPicture("an empty file; expected a picture")
                file.flush()
                os.fsync(file.fileno())
            place = self.path(digest.hexdigest())
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                beside.replace(place)
                _sync(place.parent)
        finally:
            beside.unlink(missing_ok=True)
        return digest.hexdigest(), size

    def remove(self, sha256: str) -> None:
        """Remove the file, if it is there, and the folders that this empties."""
        place = self.path(sha256)
        place.unlink(missing_ok=True)
        with suppress(OSError):
            place.parent.rmdir()
            place.parent.parent.rmdir()

    def tidy(self, *, older: float) -> int:
        """Remove what killed uploads left, if it was written before the time `older`; return the number of files."""
        left = [one for one in self.arriving.glob("*") if one.stat().st_mtime < older] if self.arriving.is_dir() else []
        for one in left:
            one.unlink(missing_ok=True)
        return len(left)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
