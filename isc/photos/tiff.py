"""TIFF files that Pillow reads wrongly or not at all."""

from __future__ import annotations

import ctypes
import functools
import re

from PIL import Image, TiffImagePlugin, _imaging

_BITS, _PLANES = 258, 284  # tags
_SEPARATE = 2
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
