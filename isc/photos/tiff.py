"""TIFF files that Pillow reads wrongly or not at all."""

from __future__ import annotations

import ctypes
import functools
import re

from PIL import Image, TiffImagePlugin, _imaging

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277  # tags
_STRIP_ROWS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT = 278, 284, 322, 323
_SEPARATE = 2  # of _PLANES
_YCBCR = 6  # of _PHOTOMETRIC
_LZMA = 34925  # of _COMPRESSION
_BANDS = frozenset("RGBA")
_BIG_ENDIAN = re.compile(r";(16|32)B(S|F|)$")


@functools.cache
def make_ready() -> None:
    """Silence libtiff, which prints up to one line per row on stderr; Pillow raises its errors as exceptions.

    Let Pillow open big-endian greys of 16 bits whose 0 is white too: they differ from the little-endian ones, which it
    opens, in the order of their bytes alone.
    """
    libtiff = ctypes.CDLL(_imaging.__file__)  # names are also looked up in the libraries that this one links to
    if hasattr(libtiff, "TIFFSetErrorHandler"):
        libtiff.TIFFSetErrorHandler(None)
    TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


def mend(image: Image.Image) -> None:
    """Correct what Pillow tells its decoders about the values of a TIFF.

    * Uncompressed, with a plane for each colour, and 16 bits: Pillow takes each byte for a value, so that the picture
      becomes stripes.
    * Compressed, big-endian, and more than 8 bits: libtiff has put the bytes in order, and Pillow turns them again.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    separate = tags.get(_PLANES, 1) == _SEPARATE and set(tags.get(_BITS, ())) == {16}
    order = "B" if tags.prefix == b"MM" else "L"
    for number, tile in enumerate(image.tile):
        if not isinstance(tile.args, tuple):
            continue
        mode = str(tile.args[0])
        if tile.codec_name == "raw" and separate and mode in _BANDS:
            mode = f"{mode};16{order}"
        elif tile.codec_name == "libtiff":
            mode = _BIG_ENDIAN.sub(r";\1N\2", mode)
        image.tile[number] = tile._replace(args=(mode, *tile.args[1:]))


def buffer_bytes(image: Image.Image) -> int:
    """Return the bytes that libtiff takes beside the picture: those of one strip or tile; 0 if Pillow reads it alone.

    A tile may be larger than its picture. With LZMA the window of the decompressor may be as large as the strip.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or all(one.codec_name != "libtiff" for one in image.tile):
        return 0
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_HEIGHT]
    across, down = tags.get(_TILE_WIDTH, width), tags.get(_TILE_HEIGHT, min(height, tags.get(_STRIP_ROWS, height)))
    samples = 1 if tags.get(_PLANES, 1) == _SEPARATE else tags.get(_SAMPLES, 1)
    bits = 32 if tags.get(_PHOTOMETRIC) == _YCBCR else samples * max(tags.get(_BITS, (1,)))
    held: int = (across * bits + 7) // 8 * down
    return 2 * held if tags.get(_COMPRESSION) == _LZMA else held
