"""Pictures that were read wrongly or left out: odd TIFFs and BMPs, small damage that takes no pixel, huge headers."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import isc
from benchmarks.damaged_files import bmp, tiff
from isc.errors import InputError
from isc.photos import rgb
from isc.photos.decode import read_image

SAMPLE = Path(isc.__file__).parent / "sample"
PHOTO = read_image(SAMPLE / "S000.jpg")[:97, :131]
GREY = np.repeat(PHOTO[:, :, 1:2], 3, axis=2)


# --- TIFFs -----------------------------------------------------------------------------------------------------------


WIDE = PHOTO.astype(np.uint16) * 257
OPAQUE = np.dstack([WIDE, np.full(WIDE.shape[:2], 65535, np.uint16)])
REAL = PHOTO[:, :, 1].astype(np.float32) / np.float32(255)
TIFFS = {
    "colour": (WIDE, PHOTO, {}),
    "planes": (WIDE, PHOTO, {"planes": 2}),
    "planes of 8 bits": (PHOTO, PHOTO, {"planes": 2}),
    "planes with alpha": (OPAQUE, PHOTO, {"planes": 2, "alpha": True}),
    "grey": (WIDE[:, :, 1], GREY, {"photometric": 1}),
    "grey from white": (65535 - WIDE[:, :, 1], GREY, {"photometric": 0}),
    "grey of 8 bits from white": (255 - PHOTO[:, :, 1], GREY, {"photometric": 0}),
    "real": (REAL, GREY, {"photometric": 1}),
    "32 bits": (WIDE[:, :, 1].astype(np.int32), GREY, {"photometric": 1, "signed": True}),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TIFFS)
def test_every_layout_of_a_tiff_gives_the_same_picture(kind, order, packed):
    values, expected, options = TIFFS[kind]
    found = read_image(tiff(values, order=order, packed=packed, **options))
    assert np.abs(found.astype(int) - expected).max() <= (1 if kind == "real" else 0)


# --- BMPs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [56, 108, 124])
def test_a_bmp_whose_alpha_is_0_throughout_is_opaque(header):
    assert (read_image(bmp(PHOTO, 0, header)) == PHOTO).all()
    assert (read_image(bmp(PHOTO, 255, header)) == PHOTO).all()
    half = np.where(np.arange(PHOTO.shape[0])[:, None] < 40, 0, 255) * np.ones((1, PHOTO.shape[1]), int)
    found = read_image(bmp(PHOTO, half, header))
    assert (found[:40] == 255).all()
    assert (found[40:] == PHOTO[40:]).all()


def test_other_pictures_that_are_transparent_throughout_are_white():
    file = io.BytesIO()
    Image.fromarray(np.dstack([PHOTO, np.zeros(PHOTO.shape[:2], np.uint8)])).save(file, "PNG")
    assert (read_image(file.getvalue()) == 255).all()


# --- JPEGs without an end mark ---------------------------------------------------------------------------------------


def jpeg(pixels: np.ndarray | Image.Image = PHOTO, **options) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "JPEG", **options)
    return file.getvalue()


def with_restarts(interval: int) -> bytes:
    done, data = cv2.imencode(".jpg", PHOTO[:, :, ::-1], [cv2.IMWRITE_JPEG_RST_INTERVAL, interval])
    assert done
    return data.tobytes()


JPEGS = {
    "plain": jpeg(quality=90),
    "grey": jpeg(PHOTO[:, :, 1]),
    "whole colour": jpeg(subsampling=0, quality=95),
    "flat": jpeg(np.full((64, 64, 3), 128, np.uint8)),
    "own tables": jpeg(optimize=True),
    "progressive": jpeg(progressive=True),
    "progressive grey": jpeg(PHOTO[:, :, 1], progressive=True),
    "ink": jpeg(Image.fromarray(PHOTO).convert("CMYK")),
    "restarts at each block": with_restarts(1),
    "restarts at each 20 blocks": with_restarts(20),
    "turned": jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
}
WHOLE = {name: read_image(data) for name, data in JPEGS.items()}


@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(700), b"\xff" + bytes(3)], ids=["none", "half", "zeros", "both"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_only_its_end_mark_is_read(name, tail):
    assert JPEGS[name].endswith(b"\xff\xd9")
    if name == "flat" and len(tail) > 1:
        pytest.skip("its own last bytes are zeros, which cannot be told from those of the tail")
    assert (read_image(JPEGS[name][:-2] + tail) == WHOLE[name]).all()


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8, 0.9, 0.97])
@pytest.mark.parametrize("tail", [b"", bytes(5000)], ids=["cut", "zeros"])
def test_half_a_jpeg_is_refused(name, part, tail):
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(JPEGS[name][: int(part * len(JPEGS[name]))] + tail)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(JPEGS)), lost=st.integers(2, 400), zeros=st.sampled_from([0, 900]))
def test_a_jpeg_without_its_end_is_read_in_full_or_refused(name, lost, zeros):
    try:
        found = read_image(JPEGS[name][:-lost] + bytes(zeros))
    except InputError:
        return
    assert (found == WHOLE[name]).all()


def test_a_progressive_jpeg_without_its_last_scans_is_refused():
    """Every pixel is there, but coarse."""
    data = JPEGS["progressive"]
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for at in scans[1:]:
        with pytest.raises(InputError, match="cannot be decoded"):
            read_image(data[:at])


def test_what_follows_the_end_mark_does_not_matter():
    """Phones and cameras put films and second pictures there."""
    for more in (b"\0" * 9, b"\n", b"trailer " * 2000, JPEGS["grey"], JPEGS["grey"][:-300], bytes(70_000)):
        assert (read_image(JPEGS["plain"] + more) == WHOLE["plain"]).all()


def test_a_jpeg_that_ends_between_two_restarts_is_refused():
    data = JPEGS["restarts at each 20 blocks"]
    ends = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    assert len(ends) > 1
    for at in ends:
        for cut in (at, at + 2):
            with pytest.raises(InputError, match="cannot be decoded"):
                read_image(data[:cut])


# --- PNGs ------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes, *, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ wrong
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(**options) -> tuple[bytes, bytes]:
    """A PNG in two parts, between which chunks may be put."""
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "PNG", **options)
    return file.getvalue()[:33], file.getvalue()[33:]


EXTRAS = {
    b"tEXt": b"key\0text",
    b"zTXt": b"key\0\0" + zlib.compress(b"text"),
    b"iTXt": b"key\0\0\0\0\0text",
    b"tIME": bytes((7, 230, 1, 1, 0, 0, 0)),
    b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
    b"gAMA": struct.pack(">I", 45455),
    b"iCCP": b"name\0\0" + zlib.compress(b"x" * 200),
    b"eXIf": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", [kind for kind in EXTRAS if kind != b"eXIf"])
def test_a_wrong_checksum_beside_the_pixels_costs_no_picture(place, kind):
    start, rest = png()
    end = rest[-12:]
    parts = (start, chunk(kind, EXTRAS[kind], wrong=True), rest) if place == "before" else (
        start, rest[:-12], chunk(kind, EXTRAS[kind], wrong=True), end)  # fmt: skip
    assert (read_image(b"".join(parts)) == PHOTO).all()


def test_an_orientation_with_a_wrong_checksum_costs_no_picture():
    start, rest = png()
    assert (read_image(start + chunk(b"eXIf", EXTRAS[b"eXIf"], wrong=True) + rest) == PHOTO).all()


def test_extras_that_are_no_sense_cost_no_picture():
    start, rest = png()
    for content in (b"", b"x", bytes(100)):
        for kind in EXTRAS:
            assert read_image(start + chunk(kind, content) + rest).shape == PHOTO.shape


def test_a_sound_orientation_is_kept_beside_a_damaged_text():
    start, rest = png()
    data = start + chunk(b"eXIf", EXTRAS[b"eXIf"]) + chunk(b"tEXt", EXTRAS[b"tEXt"], wrong=True) + rest
    assert (read_image(data) == np.rot90(PHOTO, -1)).all()


def test_damage_to_what_pixels_depend_on_is_refused():
    start, rest = png()
    for part in (0.3, 0.9):
        with pytest.raises(InputError, match="cannot be decoded"):
            read_image(start + chunk(b"tEXt", b"key\0text", wrong=True) + rest[: int(part * len(rest))])
    wrong = bytearray(start)
    wrong[-1] ^= 1
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(bytes(wrong) + rest)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_image(start + chunk(b"tRNS", b"\0\1\0\1\0\1", wrong=True) + rest)


# --- very large pictures ---------------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from isc.errors import InputError
from isc.photos.decode import read_image
def most():  # ru_maxrss would count the memory of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
read_image(Path(sys.argv[2]))
before = most()
try:
    print(*read_image(Path(sys.argv[1])).shape)
except InputError as error:
    print(error)
print(most() - before)
"""


def decoded_apart(path: Path) -> tuple[str, int]:
    """The shape of the picture, or the refusal, and the megabytes that it took."""
    command = [sys.executable, "-c", MEASURE, str(path), str(SAMPLE / "S000.jpg")]
    said, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return said, int(kilobytes) // 1000


def in_runs(path: Path, side: int) -> None:
    """A BMP of side × side pixels of a palette, packed by runs."""
    rows = (bytes((255, 7)) * (side // 255) + bytes((side % 255, 7, 0, 0))) * side
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 2835, 2835, 256, 0)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + head + bytes(1024) + rows)


def moving(path: Path, side: int) -> None:
    """A GIF of two frames, the first of which is taken away."""
    frames = [Image.new("P", (side, rows), rows % 7) for rows in (side, side - 9)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], disposal=2, transparency=1)


def of_colour(mode: str, kind: str, **options):
    return lambda path, side: Image.new(mode, (side, side)).save(path, kind, **options)


STRIP = {"strip_size": 1 << 31}  # a TIFF of one strip
WRITERS = {
    "PNG of 1 bit": of_colour("1", "PNG"),
    "PNG": of_colour("RGBA", "PNG"),
    "JPEG": of_colour("RGB", "JPEG"),
    "WebP": of_colour("RGBA", "WEBP", lossless=True, method=0),
    "AVIF": of_colour("RGBA", "AVIF", subsampling="4:4:4", speed=10),
    "BMP": in_runs,
    "GIF": moving,
    "TIFF": of_colour("RGB", "TIFF", compression="tiff_adobe_deflate", **STRIP),
    "real TIFF": of_colour("F", "TIFF", compression="tiff_lzw", **STRIP),
    "TIFF by LZMA": of_colour("L", "TIFF", compression="lzma", **STRIP),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_decoding_takes_is_what_is_counted(tmp_path, kind):
    """Beside it there are the RGB, which may be joined from strips, and some megabytes for each."""
    side = 3000
    WRITERS[kind](tmp_path / "x", side)
    said, megabytes = decoded_apart(tmp_path / "x")
    assert said == f"{side} {side} 3"
    with Image.open(tmp_path / "x") as image:
        counted = rgb.decoder_bytes(image, image.format) / 1e6
    copies = 3 if kind in ("BMP", "GIF") else 1  # of one byte a pixel, of which 640 MB are never reached
    assert megabytes < copies * counted + 2 * 3 * side * side / 1e6 + 36  # strips, and more


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "side"),
    {"PNG": 12500, "WebP": 6300, "AVIF": 7300, "BMP": 16000, "GIF": 16000, "TIFF": 9500, "real TIFF": 8900}.items(),
)
def test_the_largest_picture_of_each_format_takes_less_than_a_gigabyte(tmp_path, kind, side):
    WRITERS[kind](tmp_path / "x", side)
    said, megabytes = decoded_apart(tmp_path / "x")
    assert said.endswith(" 3")
    assert megabytes < 950


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "side", "expected"),
    [("png", "1", 16000, "5334 5334 3"), ("jpeg", "L", 13000, "6500 6500 3")],
)
def test_a_picture_takes_less_than_a_gigabyte_whatever_its_header_says(tmp_path, kind, mode, side, expected):
    path = tmp_path / f"x.{kind}"
    Image.new(mode, (side, side)).save(path)
    said, megabytes = decoded_apart(path)
    assert expected in said
    assert megabytes < 900


def stated(data: bytes, **tags: int) -> bytes:
    """A little-endian TIFF whose header states other numbers for some tags; a tag may be added as tNUMBER."""
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    known = {struct.unpack("<H", entry[:2])[0]: entry for entry in entries}
    known |= {int(tag[1:]): struct.pack("<HHII", int(tag[1:]), 4, 1, value) for tag, value in tags.items()}
    table = struct.pack("<H", len(known)) + b"".join(known[tag] for tag in sorted(known)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + table


def tiff_of(mode: str, packed: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (64, 64)).save(file, "TIFF", compression=packed)
    return file.getvalue()


LARGE = {"t256": 12600, "t257": 12600, "t278": 12600}
TOO_LARGE = {
    "one strip": (stated(tiff_of("RGB", "tiff_lzw"), **LARGE), "12600 × 12600 pixels take 1,111 MB to decode"),
    "real, one strip": (stated(tiff_of("F", "tiff_lzw"), **LARGE), "12600 × 12600 pixels take 1,270 MB to decode"),
    "by LZMA": (stated(tiff_of("RGB", "lzma"), **LARGE), "12600 × 12600 pixels take 1,588 MB to decode"),
    "as YCbCr": (stated(tiff_of("RGB", "tiff_lzw"), t262=6, **LARGE), "12600 × 12600 pixels take 1,270 MB to decode"),
    "one plane a strip": (stated(tiff_of("RGB", "tiff_lzw"), t284=2, **LARGE), "12600 × 12600 pixels take 794 MB"),
    "a tile": (stated(tiff_of("RGB", "tiff_lzw"), t322=30000, t323=30000), "64 × 64 pixels take 2,700 MB to decode"),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_tiff_is_refused_by_what_its_strips_and_tiles_take_too(kind):
    data, expected = TOO_LARGE[kind]
    with pytest.raises(InputError, match=f"^x.tif: {expected}.*; expected at most 640$"):
        read_image(data, name="x.tif")


def test_a_large_tiff_in_strips_of_few_rows_is_not_refused_by_its_size():
    data = stated(tiff_of("RGB", "tiff_lzw"), t256=12600, t257=12600, t278=16)
    with pytest.raises(InputError, match="cannot be decoded"):  # it is the header of another one
        read_image(data)


@pytest.mark.parametrize(
    ("kind", "mode", "side", "expected"), [("PNG", "RGB", 12700, "645 MB"), ("WEBP", "RGB", 6400, "659 MB")]
)
def test_other_pictures_are_refused_by_their_size(kind, mode, side, expected):
    with pytest.raises(InputError, match=f"{side} × {side} pixels take {expected} to decode; expected at most 640"):
        rgb.prepare(Image.new(mode, (side, side)), kind, b"")


def test_a_large_progressive_jpeg_is_refused_by_its_coefficients(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True, subsampling=0)
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", 12000, 12000)
    (tmp_path / "x.jpg").write_bytes(data)
    said, megabytes = decoded_apart(tmp_path / "x.jpg")
    assert "12000 × 12000 pixels take 1,008 MB to decode" in said
    assert megabytes < 100


def test_strips_and_smaller_scales_change_nothing_else(monkeypatch):
    """The picture in one piece against the same in strips, and the mean of squares against numpy's."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (203, 301, 4), np.uint8)
    for mode in ("RGB", "RGBA", "L", "P", "1", "LA", "I;16", "F", "CMYK"):
        image = Image.fromarray(noise).convert("RGB" if mode in {"P", "CMYK", "I;16", "F"} else mode)
        if mode in {"I;16", "F"}:
            image = Image.fromarray(noise[:, :, 0].astype(np.uint16 if mode == "I;16" else np.float32) * 200)
        elif image.mode != mode:
            image = image.convert(mode)
        whole = rgb.upright_rgb(image)
        monkeypatch.setattr(rgb, "STRIP", 301 * 20)
        assert (rgb.upright_rgb(image) == whole).all(), mode
        monkeypatch.setattr(rgb, "LARGE", 203 * 301 / 3.5)
        small = rgb.upright_rgb(image)
        assert small.shape == (102, 151, 3)
        expected = whole[:202, :300].reshape(101, 2, 150, 2, 3).mean(axis=(1, 3))
        assert np.abs(small[:101, :150] - expected).max() <= 1, mode
        monkeypatch.undo()


def test_every_orientation_is_that_of_pillow():
    from PIL import ImageOps

    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        data = jpeg(exif=exif)
        assert (read_image(data) == np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))).all()
