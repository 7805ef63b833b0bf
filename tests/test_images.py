"""Listing and decoding, on the sample photos and on files made from them."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFile, features

import isc
from isc.errors import InputError
from isc.photos import decode
from isc.photos.decode import encode_jpeg, read_bytes, read_image
from isc.photos.folders import SUFFIXES, image_files, list_images, path_of
from isc.photos.resizing import fit_within, resize
from isc.photos.sources import list_photos

SAMPLE = Path(isc.__file__).parent / "sample"
PHOTO = SAMPLE / "S000.jpg"  # 320 × 213
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"]
LOSSLESS = ["PNG", "WEBP", "BMP", "TIFF"]


def refusal(call, path: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        call(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


def photo() -> Image.Image:
    return Image.open(PHOTO).convert("RGB")


def small() -> Image.Image:
    return photo().resize((24, 16))


def need(kind: str) -> None:
    if kind in {"WEBP", "AVIF"} and not features.check(kind.lower()):
        pytest.skip(f"this Pillow has no {kind}")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    need(kind)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def saved(folder: Path, image: Image.Image, kind: str, **options) -> Path:
    path = folder / f"picture.{kind.lower()}"
    path.write_bytes(encoded(image, kind, **options))
    return path


def off_by(one: np.ndarray, two: np.ndarray) -> float:
    assert one.shape == two.shape
    return float(np.abs(one.astype(float) - two.astype(float)).max())


# --- listing ---------------------------------------------------------------------------------------------------------


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTO.read_bytes())
    return folder


def test_the_sample_lists_and_decodes_as_its_table_says():
    listed = list_images(SAMPLE)
    with (SAMPLE / "sample.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(listed) == [row["file"].removesuffix(".jpg") for row in rows]
    for row in rows:
        pixels = read_image(listed[row["file"].removesuffix(".jpg")])
        assert pixels.shape == (int(row["height"]), int(row["width"]), 3)
        assert pixels.dtype == np.uint8


def test_ids_are_the_paths_below_the_folder_without_suffix(tmp_path):
    names = [
        "b.jpg",
        "a/b.PNG",
        "a/c.d.jpeg",
        "a/deep/er/x.WebP",
        "é/日本.tif",
        'say "hi".gif',
        "a b.bmp",
        "c.avif",
        "C.tiff",
    ]
    listed = list_images(fill(tmp_path, *names))
    assert listed == {name.rsplit(".", 1)[0]: tmp_path / name for name in names}
    assert list(listed) == sorted(listed)


def test_what_is_hidden_or_no_image_is_left_out(tmp_path):
    fill(
        tmp_path,
        "a.jpg",
        ".b.jpg",
        ".hidden/c.jpg",
        "d.txt",
        "e",
        "jpg",
        "f.jpg.part",
        "sub/.g.jpg",
        "sub/h.csv",
        "._a.jpg",
    )
    (tmp_path / "folder.jpg").mkdir()
    assert list(list_images(tmp_path)) == ["a"]


def test_a_folder_whose_own_path_is_hidden_or_odd_is_listed(tmp_path):
    assert list(list_images(fill(tmp_path / ".cache" / "a, b", "x.jpg"))) == ["x"]


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["a.jpg", "a.png", "a.jpg.webp"], ["a.jpg", "a.jpg.webp", "'a.jpg'", "rename one"]),
        (["a .jpg"], ["a .jpg", "'a '", "blanks", "expected none"]),
        ([" a.jpg"], [" a.jpg", "' a'", "blanks", "expected none"]),
    ],
)
def test_unusable_names_are_refused_by_file_and_id(tmp_path, names, parts):
    fill(tmp_path, *names)
    if len(list(tmp_path.rglob("*.[jJpP]*"))) < len(names):
        pytest.skip("this file system takes two of the names for one")
    with pytest.raises(InputError) as caught:
        list_images(tmp_path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg", "a.png", "b"]),
        (["s/a.JPG", "s/a.jpg", "a.jpg"], ["a", "s/a.JPG", "s/a.jpg"]),
        (["b,c.jpg", "x,y/a.jpg", 'a\n"b".jpg'], ['a\n"b"', "b,c", "x,y/a"]),
    ],
)
def test_names_that_differ_in_their_suffix_keep_it_and_any_text_is_an_id(tmp_path, names, ids):
    fill(tmp_path, *names)
    if len(list(tmp_path.rglob("*.[jJpP]*"))) < len(names):
        pytest.skip("this file system takes two of the names for one")
    assert list(list_images(tmp_path)) == ids
    assert list_photos(tmp_path).ids() == ids


def test_a_name_that_is_not_utf8_is_named_and_left_out(tmp_path, caplog):
    fill(tmp_path, "a.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(PHOTO.read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    assert list(list_images(tmp_path)) == ["a"]
    assert re.search(r"left out: .*caf.*UTF-8", caplog.text)
    caplog.text.encode()  # the message itself can be printed


@pytest.mark.parametrize("names", [[], ["notes.txt"], [".hidden.jpg"]])
def test_a_folder_without_images_is_refused(tmp_path, names):
    refusal(list_images, fill(tmp_path, *names), "holds no image", "expected", ".jpg", ".png")


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_folder_is_refused(tmp_path, kind):
    refusal(
        list_images,
        tmp_path / "absent" if kind == "missing" else fill(tmp_path, "a.jpg") / "a.jpg",
        "expected a folder",
    )


def test_links_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", "x.jpg", "sub/y.jpg")
    fill(tmp_path / "photos", "a.jpg")
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "b.jpg").symlink_to(tmp_path / "elsewhere" / "x.jpg")
    assert list(list_images(tmp_path / "photos")) == ["a", "b", "more/sub/y", "more/x"]


def test_a_link_back_up_lists_nothing_twice(tmp_path):
    fill(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert list(list_images(tmp_path)) == ["a", "sub/b"]


def test_a_folder_that_cannot_be_read_is_not_skipped_in_silence(tmp_path, monkeypatch):
    fill(tmp_path, "a.jpg", "locked/b.jpg")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # as root, no folder is unreadable
    with pytest.raises(InputError, match="locked"):
        list_images(tmp_path)


def test_path_of_an_unknown_id_is_refused_by_name(tmp_path):
    listed = list_images(fill(tmp_path, "a.jpg"))
    assert path_of(listed, "a") == tmp_path / "a.jpg"
    with pytest.raises(InputError, match=r"'b'.*expected one of 1"):
        path_of(listed, "b")


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_decodes_to_the_picture(tmp_path, kind):
    pixels = read_image(saved(tmp_path, photo(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert pixels.shape == (213, 320, 3)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(float) - np.asarray(photo()))
    assert difference.max() == 0 if kind in LOSSLESS else difference.mean() < 12


@pytest.mark.parametrize("kind", FORMATS)
def test_one_pixel_is_a_picture(tmp_path, kind):
    pixels = read_image(saved(tmp_path, Image.new("RGB", (1, 1), (255, 255, 255)), kind))
    assert pixels.shape == (1, 1, 3)
    assert pixels.min() >= 250


STORED = {  # the rows and columns of a file whose orientation tag is the key, from those of the upright picture
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],  # a quarter turn clockwise brings it upright
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    upright = np.asarray(small())
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "TIFF": {}, "PNG": {}}.get(kind, {"quality": 100, "subsampling": "4:4:4"})
    pixels = read_image(saved(tmp_path, stored, kind, exif=exif.tobytes(), **options))
    assert off_by(pixels, upright) <= (20 if kind in {"JPEG", "AVIF", "HEIF"} else 0)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert off_by(read_image(saved(tmp_path, small(), "PNG", exif=exif)), np.asarray(small())) == 0


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("LA", "PNG"), ("LA", "TIFF")]
)
def test_alpha_is_laid_over_white(tmp_path, mode, kind):
    color = np.asarray(small().convert("L").convert("RGB") if mode == "LA" else small())
    alpha = np.tile(np.linspace(0, 255, 24).round().astype(np.uint8), (16, 1))
    picture = Image.fromarray(np.dstack([color, alpha])).convert(mode)
    pixels = read_image(saved(tmp_path, picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})))
    share = alpha[:, :, None] / 255.0
    assert off_by(pixels, color * share + 255 * (1 - share)) <= 1
    assert (pixels[:, 0] == 255).all()
    assert (pixels[:, -1] == color[:, -1]).all()


def two_halves(mode: str, left: object, right: object) -> Image.Image:
    picture = Image.new(mode, (8, 4), left)
    picture.paste(right, (4, 0, 8, 4))
    return picture


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_color_becomes_white(tmp_path, kind):
    picture = two_halves("P", 0, 1)
    picture.putpalette([200, 10, 20, 30, 40, 250])
    pixels = read_image(saved(tmp_path, picture, kind, transparency=0))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == (30, 40, 250)).all()


def test_a_half_transparent_palette_color_is_mixed_with_white(tmp_path):
    picture = two_halves("P", 0, 1)
    picture.putpalette([200, 10, 20, 30, 40, 250])
    pixels = read_image(saved(tmp_path, picture, "PNG", transparency=bytes([51, 255])))
    assert off_by(pixels[0, 0], np.array([0.2 * 200 + 204, 0.2 * 10 + 204, 0.2 * 20 + 204])) <= 1
    assert (pixels[:, 4:] == (30, 40, 250)).all()


@pytest.mark.parametrize("white", [(255, 255, 255, 255), (250, 255, 240, 255)])
def test_a_white_drawing_on_nothing_is_laid_over_black(tmp_path, white):
    """Two such drawings would be the same white sheet."""
    picture = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    picture.paste(white, (100, 50, 180, 150))
    pixels = read_image(saved(tmp_path, picture, "PNG"))
    assert (pixels[60:140, 110:170] == white[:3]).all()
    assert (pixels[0, 0] == 0).all()


@pytest.mark.parametrize("dark", [(0, 0, 0, 255), (200, 30, 30, 255)])
@pytest.mark.parametrize("side", [300, 1000])
def test_any_other_drawing_is_laid_over_white(tmp_path, dark, side):
    """Also one with some white, a page with a border, and a picture that is transparent throughout."""
    picture = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (0, 0, side // 10, side // 20))
    picture.paste(dark, (side // 3, side // 3, side // 2, side * 4 // 5))
    assert (read_image(saved(tmp_path, picture, "PNG"))[-1, -1] == 255).all()
    page = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    page.paste(dark, (side // 5, side // 5, side * 4 // 5, side * 4 // 5))
    border = max(2, side // 90)
    page.paste((255, 255, 255, 255), (side // 5 + border,) * 2 + (side * 4 // 5 - border,) * 2)
    assert (read_image(saved(tmp_path, page, "PNG"))[0, 0] == 255).all()
    picture.putalpha(0)
    assert (read_image(saved(tmp_path, picture, "PNG")) == 255).all()


@pytest.mark.parametrize(
    ("bar", "ground"),
    [((0, 0, 0), (128, 128, 128)), ((30, 20, 25), (128, 128, 128)), ((120, 130, 140), (0, 0, 0))],
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_white_drawing_with_a_bar_is_laid_over_what_neither_is(tmp_path, bar, ground, kind):
    picture = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 255), (100, 50, 180, 150))
    picture.paste((*bar, 255), (0, 180, 300, 190))
    pixels = read_image(saved(tmp_path, picture, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert (pixels[60:140, 110:170] == 255).all()
    assert (pixels[182:188] == bar).all()
    assert (pixels[0, 0] == ground).all()


def test_a_drawing_of_white_black_and_grey_is_laid_over_a_colour(tmp_path):
    picture = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    for at, grey in enumerate((0, 128, 255)):
        picture.paste((grey, grey, grey, 255), (20 + 90 * at, 50, 80 + 90 * at, 150))
    ground = read_image(saved(tmp_path, picture, "PNG"))[0, 0]
    assert all(np.abs(ground.astype(int) - grey).max() > 100 for grey in (0, 128, 255))


def test_different_white_drawings_with_the_same_bar_are_no_copies(tmp_path):
    """Over white each of them was the bar alone."""
    drawings = []
    for at in range(2):
        picture = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
        pen = ImageDraw.Draw(picture)
        if at:
            pen.ellipse((30, 30, 180, 180), fill="white")
            pen.rectangle((250, 100, 330, 220), fill="white")
        else:
            for line in range(9):
                pen.line((20, 20 + 25 * line, 380, 240 - 20 * line), fill="white", width=5)
        pen.rectangle((0, 260, 400, 285), fill="black")
        drawings.append(tmp_path / f"{at}.png")
        picture.save(drawings[-1])
    found = isc.compare(*drawings)
    assert found.probability < 0.5
    assert isc.compare(drawings[0], drawings[0]).probability > 0.9


@pytest.mark.parametrize(("mode", "left", "right"), [("RGB", (1, 2, 3), (9, 8, 7)), ("L", 10, 200)])
def test_a_transparent_plain_color_becomes_white(tmp_path, mode, left, right):
    pixels = read_image(saved(tmp_path, two_halves(mode, left, right), "PNG", transparency=left))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == right).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(tmp_path, kind):
    pixels = read_image(saved(tmp_path, photo().convert("CMYK"), kind))
    assert np.abs(pixels.astype(float) - np.asarray(photo())).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_gray_becomes_three_equal_channels(tmp_path, kind):
    gray = photo().convert("L")
    pixels = read_image(saved(tmp_path, gray, kind))
    assert (pixels == pixels[:, :, :1]).all()
    assert off_by(pixels[:, :, 0], np.asarray(gray)) <= (40 if kind == "JPEG" else 0)


def test_black_and_white_is_black_and_white(tmp_path):
    pixels = read_image(saved(tmp_path, two_halves("1", 0, 1), "PNG"))
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, 4:] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, kind):
    gray = np.asarray(photo().convert("L"))
    pixels = read_image(saved(tmp_path, Image.fromarray(gray.astype(np.uint16) * 257), kind))
    assert off_by(pixels, np.dstack([gray] * 3)) == 0


def test_sixteen_bit_color_keeps_the_upper_eight(tmp_path):
    color = np.asarray(small())
    lines = b"".join(b"\0" + np.repeat(row, 2, axis=1).tobytes() for row in color)  # v × 257 is v twice
    path = tmp_path / "deep.png"
    path.write_bytes(png(24, 16, lines, depth=16, color=2))
    assert off_by(read_image(path), color) == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_counts(tmp_path, kind):
    need(kind)
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    pixels = read_image(saved(tmp_path, frames[0], kind, save_all=True, append_images=frames[1:]))
    assert pixels.shape == (8, 8, 3)
    assert off_by(pixels, np.full((8, 8, 3), (255, 0, 0))) <= 4


def test_an_image_is_read_for_what_it_is_whatever_its_suffix(tmp_path):
    path = tmp_path / "really.jpg"
    path.write_bytes(encoded(small(), "PNG"))
    assert off_by(read_image(path), np.asarray(small())) == 0


# --- what cannot be decoded ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.02, 0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_cut_short_is_refused_by_name(tmp_path, kind, part):
    whole = encoded(photo(), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(whole[: int(part * len(whole))])
    refusal(read_image, path, "cannot be decoded", "replace or remove it")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0",
        b"<html>404</html>",
        b"query_id,reference_id\n",
        b"\0" * 1000,
        b"GIF89a",
        b"GIF8",
        b"BM",
        b"RIFF\x10\0\0\0WEBP",
        b"\0\0\0\x1cftypavif",
        b"II*\0",
        b"\x89PNG\r\n\x1a\n",
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_what_is_no_picture_is_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"mislabelled.{suffix}"
    path.write_bytes(content)
    refusal(read_image, path, "cannot be decoded", "replace or remove it")


def test_a_missing_file_or_a_folder_is_refused_by_name(tmp_path):
    refusal(read_image, tmp_path / "absent.jpg", "cannot be decoded")
    refusal(read_image, tmp_path, "cannot be decoded")


def png(width: int, height: int, lines: bytes, *, depth: int, color: int) -> bytes:
    """A PNG of these filtered lines; color type 0 is grey, 2 is RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\xff\xd8", "ends after 2 bytes"),
        (b"\x89PN", "ends after 3 bytes"),
        (b"<!DOCTYPE html>\n<title>404</title>", "is a web page"),
        ("\ufeff  <HTML lang='de'>Größe".encode(), "is a web page"),
        (b'<?xml version="1.0"?><svg width="9"/>', "is XML or SVG"),
        (b"query_id,reference_id\n", "is text"),
        ("Grüße\n".encode() * 200, "is text"),
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is PostScript"),
        (b"8BPS\0\1", "is a Photoshop document"),
        (b"PK\3\4\x14\0", "is a ZIP archive"),
        (b"\x1f\x8b\x08\0", "is compressed by gzip"),
        (b"\0" * 1000, "begins with zeros alone"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isommp41", "is a video"),
        (b"RIFF\0\0\0\0AVI LIST", "is a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "is a Git LFS pointer"),
        (b"a.jpg".ljust(257, b"\0") + b"ustar\0", "is a tar archive"),
        (bytes(range(128, 256)), "is of no known format"),
    ],
)
def test_a_refusal_says_what_the_file_is(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    refusal(read_image, path, "cannot be decoded", reason, "replace or remove it")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "SPIDER"])
def test_no_other_decoder_can_be_reached(tmp_path, kind):
    path = tmp_path / "picture.jpg"
    image = small().convert("F") if kind == "SPIDER" else small()
    try:
        path.write_bytes(encoded(image, kind))
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    refusal(read_image, path, "cannot be decoded (is ")


def test_pillow_is_told_the_one_format_to_try(monkeypatch):
    tried, opener = [], Image.open

    def spy(file, **options):
        tried.append(options["formats"])
        return opener(file, **options)

    monkeypatch.setattr(Image, "open", spy)
    read_image(PHOTO)
    pixels_or_refusal(b"BM" + b"%!PS-Adobe-3.0 EPSF-3.0" * 9)
    assert tried == [["JPEG"], ["BMP"]]


def test_heic_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    path = saved(tmp_path, small(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decode._register_heif.cache_clear()
    refusal(read_image, path, "is HEIC", "pip install 'isc[heic]'")
    monkeypatch.undo()
    decode._register_heif.cache_clear()
    assert read_image(path).shape == (16, 24, 3)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_a_format_that_pillow_lacks_says_what_to_install(tmp_path, monkeypatch, kind):
    path = saved(tmp_path, small(), kind)
    monkeypatch.setattr(features, "check", lambda name: False)
    refusal(read_image, path, f"is {kind}", "pip install 'pillow>=11.3'")


@pytest.mark.parametrize(
    "error", [MemoryError, RecursionError, struct.error, SyntaxError, Image.DecompressionBombError]
)
def test_whatever_a_decoder_raises_becomes_one_line(tmp_path, monkeypatch, error):
    def fail(self):
        raise error("first line\nsecond line")

    path = saved(tmp_path, small(), "BMP")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    refusal(read_image, path, f"({error.__name__}: first line second line)")


def test_ctrl_c_is_no_failure_of_the_picture(tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    path = saved(tmp_path, small(), "BMP")
    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    refusal(read_image, tmp_path / "a.jpg", "is a pipe")
    refusal(read_bytes, tmp_path / "a.jpg", "is a pipe")


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(PHOTO.read_bytes())
    os.truncate(path, 1 << 40)
    refusal(read_image, path, "1,099,511,627,776 bytes", "expected at most 2,147,483,648")
    refusal(read_bytes, path, "expected at most")


def test_a_name_that_would_break_the_line_is_quoted(tmp_path):
    (tmp_path / "a\nb.jpg").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "a\nb.jpg")
    assert "\n" not in str(caught.value)
    assert "a\\nb.jpg" in str(caught.value)


# --- damage ----------------------------------------------------------------------------------------------------------


def kinds_of_files() -> dict[str, bytes]:
    """Every way of storing a small photo that is read here."""
    picture, turned = small(), Image.Exif()
    turned[0x0112] = 6
    whole = {kind: encoded(picture, kind, exif=turned) for kind in ("JPEG", "PNG", "WEBP", "AVIF")}
    whole |= {kind: encoded(picture, kind) for kind in ("GIF", "BMP", "MPO")}
    whole["progressive"] = encoded(picture, "JPEG", progressive=True)
    whole["CMYK"] = encoded(picture.convert("CMYK"), "JPEG")
    whole["palette"] = encoded(picture.convert("P"), "PNG", transparency=3)
    for packing in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", None):
        whole[f"TIFF {packing}"] = encoded(picture, "TIFF", compression=packing, exif=turned)
    whole["TIFF group4"] = encoded(picture.convert("1"), "TIFF", compression="group4")
    with contextlib.suppress(pytest.skip.Exception):  # the optional extra may be missing
        whole["HEIF"] = encoded(picture, "HEIF", exif=turned)
    return whole


def pixels_or_refusal(source: Path | bytes) -> str:
    """The refusal, or nothing where the picture was decoded; any other exception fails the test."""
    try:
        pixels = read_image(source, name="damaged")
    except InputError as error:
        message = str(error)
        assert message.startswith("damaged: ")
        assert message.isprintable()
        assert " at 0x" not in message  # the same file has to give the same reason
        return message
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return ""


# pytest clears the filter that importing isc.photos.folders sets; the test after the next one looks at that
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_wherever_a_file_is_cut_it_is_refused_or_decoded_in_silence(tmp_path, capfd):
    for kind, whole in kinds_of_files().items():
        cuts = sorted({*range(0, len(whole), max(1, len(whole) // 40)), *range(20), len(whole) - 1})
        messages = [pixels_or_refusal(whole[:cut]) for cut in cuts]
        assert sum(map(bool, messages)) > len(messages) // 2, kind
        (tmp_path / "whole").write_bytes(whole)
        assert pixels_or_refusal(tmp_path / "whole") == pixels_or_refusal(whole) == ""
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_anywhere_is_refused_or_decoded_in_silence(tmp_path, capfd):
    random, refused, path = np.random.default_rng(5), 0, tmp_path / "damaged"
    for whole in kinds_of_files().values():
        for attempt in range(60):
            damaged = bytearray(whole)
            within = len(whole) if attempt % 2 else min(400, len(whole))  # headers do the most
            for at in random.integers(within, size=1 + attempt % 5):
                damaged[at] ^= int(random.integers(1, 256))
            path.write_bytes(damaged)
            message = pixels_or_refusal(path if attempt % 3 else bytes(damaged))
            refused += bool(message)
    assert refused > 100
    assert capfd.readouterr().err == ""


def test_no_warning_of_pillow_reaches_stderr(tmp_path):
    whole = encoded(small(), "TIFF")
    start = struct.unpack("<I", whole[4:8])[0]
    damaged = bytearray(whole)
    damaged[start + 6 : start + 10] = b"\xff\xff\xff\x0f"  # a tag that is larger than the file
    with pytest.warns(UserWarning, match="Tag data larger"):
        pixels_or_refusal(bytes(damaged))
    (tmp_path / "warned.tif").write_bytes(damaged)
    samples = whole.index(struct.pack("<HHI", 277, 3, 1), start) + 8
    (tmp_path / "logged.tif").write_bytes(whole[:samples] + struct.pack("<H", 65_535) + whole[samples + 2 :])
    program = """
import sys
from isc.photos import decode, folders
for path in folders.list_images(folders.Path(sys.argv[1])).values():
    try: decode.read_image(path)
    except decode.InputError as error: print(error)
"""
    command = [sys.executable, "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SAMPLE.parents[1])
    assert done.stdout.count("\n") == 2
    assert done.stderr == ""


def exif_block(data: bytes, body: bytes) -> bytes:
    """The JPEG with this EXIF block in front."""
    assert data[:2] == b"\xff\xd8"
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body + data[2:]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_broken_exif_block_does_not_lose_the_picture():
    plain, turned = encoded(small(), "JPEG", quality=95), Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "maker" * 9
    block, upright = turned.tobytes()[6:], read_image(plain)
    assert off_by(read_image(exif_block(plain, block)), np.rot90(upright, -1)) == 0
    broken = [b"", b"II*\0", b"garbage" * 9, block[:11], block[:20], block.replace(b"MM\0*", b"MM\1*"), b"\xff" * 300]
    broken.append(b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x02\0\xff\xff\xff\x7f\x08\0\0\0" * 30)  # 2 GB of text
    broken.append(b"II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x03\0\0\0\0\0\0\0\0\0" + b"\x08\0\0\0")  # no value, and a loop
    broken.append(b"II*\0\x08\0\0\0\x01\0" + b"\x12\x01\x05\0\x01\0\0\0\x08\0\0\0" + b"\0" * 4)  # a fraction
    for body in broken:
        assert off_by(read_image(exif_block(plain, body)), upright) == 0, body


def test_an_exif_reader_that_fails_does_not_lose_the_picture(monkeypatch):
    def fail(self):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert off_by(read_image(encoded(small(), "PNG")), np.asarray(small())) == 0


# --- bombs -----------------------------------------------------------------------------------------------------------


def claiming(kind: str, side: int) -> bytes:
    """A small file of this kind that says it is side × side pixels."""
    small_file = bytearray(encoded(Image.new("RGB", (8, 8)), kind))
    if kind == "PNG":
        return png(side, side, b"", depth=8, color=2)
    if kind == "TIFF":
        head = struct.pack("<2sHIH", b"II", 42, 8, 9)
        tags = [
            (256, side),
            (257, side),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, 200),
            (277, 1),
            (278, side),
            (279, side * side),
        ]
        return head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + b"\0" * 100
    at, code = {"BMP": (18, "<ii"), "GIF": (6, "<HH"), "JPEG": (small_file.find(b"\xff\xc0") + 5, ">HH")}[kind]
    small_file[at : at + struct.calcsize(code)] = struct.pack(code, side, side)
    return bytes(small_file)


@pytest.mark.parametrize(
    ("kind", "side"),
    [("PNG", 100_000), ("PNG", 1 << 30), ("TIFF", 60_000), ("BMP", 60_000), ("GIF", 65_535), ("JPEG", 65_500)],
)
def test_a_bomb_is_refused_by_its_size_before_it_is_decoded(monkeypatch, kind, side):
    def fail(self):
        raise AssertionError("is decoded")

    bomb = claiming(kind, side)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(InputError, match=f"bomb: {side} × {side} pixels; expected at most 256,000,000"):
        read_image(bomb, name="bomb")


def test_text_in_a_png_loses_no_picture_and_fills_no_memory():
    def with_text(size: int) -> bytes:
        packed = zlib.compressobj()  # in pieces: the text itself must not be the largest thing in this process
        text = b"".join(packed.compress(b"x" * (1 << 20)) for _ in range(size >> 20)) + packed.flush()
        body = b"zTXt" + b"key\0\0" + text
        whole = encoded(small(), "PNG")
        return whole[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + whole[33:]

    assert off_by(read_image(with_text(5 << 20)), np.asarray(small())) == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert off_by(read_image(with_text(40 << 20)), np.asarray(small())) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes


def test_a_gif_frame_larger_than_its_canvas_counts_as_the_picture():
    whole = bytearray(encoded(small(), "GIF"))
    whole[6:10] = struct.pack("<HH", 3, 2)
    assert read_image(bytes(whole)).shape == (16, 24, 3)
    at = whole.index(b"\x2c\0\0\0\0")
    whole[at + 5 : at + 9] = struct.pack("<HH", 65_535, 65_535)
    assert "65535 × 65535 pixels" in pixels_or_refusal(bytes(whole))


def test_a_tiff_that_points_to_itself_ends():
    whole = encoded(small(), "TIFF")
    start = struct.unpack("<I", whole[4:8])[0]
    count = struct.unpack("<H", whole[start : start + 2])[0]
    after = start + 2 + 12 * count
    looped = whole[:after] + struct.pack("<I", start) + whole[after + 4 :]
    assert off_by(read_image(looped), np.asarray(small())) == 0


@pytest.mark.parametrize("tag", [273, 277, 278, 279])  # strip offsets, samples, rows a strip, bytes a strip
@pytest.mark.parametrize("value", [0, 1, 65_535, (1 << 32) - 1])
def test_a_tiff_with_absurd_strips_is_refused_or_decoded(tag, value, capfd):
    whole = bytearray(claiming("TIFF", 64) + bytes(64 * 64))
    at = 10 + 12 * [256, 257, 258, 259, 262, 273, 277, 278, 279].index(tag)
    assert pixels_or_refusal(bytes(whole)) == ""
    whole[at + 8 : at + 12] = struct.pack("<I", value)
    pixels_or_refusal(bytes(whole))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("width", "height"), [(16_001, 16_000), (60_000, 60_000)])
def test_a_picture_too_large_is_refused_by_its_size_before_it_is_decoded(tmp_path, width, height):
    path = tmp_path / "huge.png"
    path.write_bytes(png(width, height, b"", depth=1, color=0))
    refusal(read_image, path, f"{width} × {height} pixels", "expected at most 256,000,000")


@pytest.mark.parametrize("side", [10_000, 15_000])  # Pillow warns from 89 million pixels on, and refuses from 179
def test_the_limit_is_ours_and_not_the_decoders(tmp_path, side):
    path = tmp_path / "large.png"
    path.write_bytes(png(side, side, b"", depth=1, color=0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refusal(read_image, path, "truncated")
    assert [str(warning.message) for warning in caught] == []


def test_the_limit_is_the_largest_size_allowed(tmp_path, monkeypatch):
    path = saved(tmp_path, small(), "PNG")
    monkeypatch.setattr(decode, "MAX_PIXELS", 24 * 16)
    assert read_image(path).shape == (16, 24, 3)
    monkeypatch.setattr(decode, "MAX_PIXELS", 24 * 16 - 1)
    refusal(read_image, path, "24 × 16 pixels", "expected at most 383")


# --- what pictures hold ----------------------------------------------------------------------------------------------


def test_bytes_are_read_as_a_file_is_and_named_as_told():
    data = PHOTO.read_bytes()
    assert (read_image(data) == read_image(PHOTO)).all()
    assert read_bytes(PHOTO) == data
    for call in (lambda: read_image(b"", name="s.tar::a.jpg"), lambda: read_image(PHOTO / "x", name="s.tar::a.jpg")):
        with pytest.raises(InputError, match=r"^s\.tar::a\.jpg: cannot be decoded"):
            call()
    with pytest.raises(InputError, match=r"^a picture: cannot be decoded"):
        read_image(b"")
    refusal(read_bytes, SAMPLE / "absent.jpg", "cannot be read", "FileNotFoundError")


def test_pixels_can_be_written_to():
    pixels = read_image(PHOTO)
    pixels[:] = 0
    assert pixels.flags.c_contiguous
    assert pixels.flags.owndata


def adobe(data: bytes, transform: int) -> bytes:
    """The JPEG with another number in its Adobe marker: 0 is CMYK, 2 is YCCK."""
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def test_inverted_cmyk_and_ycck_become_rgb():
    rgb = np.asarray(photo().resize((64, 48))).astype(np.uint8)
    ink = np.dstack([255 - rgb, np.zeros((48, 64), np.uint8)])  # no black
    cmyk = encoded(Image.frombytes("CMYK", (64, 48), ink.tobytes()), "JPEG", quality=100)
    assert b"Adobe" in cmyk  # which says that the inks are stored inverted
    assert off_by(read_image(cmyk), rgb) < 30
    ycc = np.asarray(Image.fromarray(255 - rgb).convert("YCbCr"))
    stored = 255 - np.dstack([ycc, np.full((48, 64), 255, np.uint8)])
    ycck = adobe(encoded(Image.frombytes("CMYK", (64, 48), stored.tobytes()), "JPEG", quality=100), 2)
    assert off_by(read_image(ycck), rgb) < 30


def test_a_color_profile_changes_nothing():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for kind in ("PNG", "JPEG"):
        plain, tagged = encoded(small(), kind), encoded(small(), kind, icc_profile=profile)
        assert len(tagged) > len(plain)
        assert off_by(read_image(tagged), read_image(plain)) == 0


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_of_either_order_are_alike(mode):
    gray = np.asarray(photo().convert("L")).astype(np.uint16) * 257
    stored = gray.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    picture = Image.frombytes(mode, (320, 213), stored)
    assert off_by(read_image(encoded(picture, "TIFF")), np.dstack([gray // 257] * 3)) == 0


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 1e9])
def test_floating_point_grey_is_scaled_by_its_range(white):
    gray = np.asarray(photo().convert("L")).astype(np.float32) / 255
    gray[0, 0] = 1
    values = gray * np.float32(white)
    pixels = read_image(encoded(Image.fromarray(values), "TIFF"))
    assert off_by(pixels, np.dstack([gray * 255] * 3)) <= 1
    values[1, 1:4] = (np.nan, np.inf, -np.inf)
    holes = read_image(encoded(Image.fromarray(values), "TIFF"))
    assert (holes[1, 1:4] == 0).all()
    assert (holes[2:] == pixels[2:]).all()


@pytest.mark.parametrize("largest", [40_000, 65_535, 2_000_000])
def test_grey_of_32_bits_is_taken_for_16_where_it_can_be(largest):
    values = np.linspace(0, largest, 24 * 16).reshape(16, 24).astype(np.int32)
    pixels = read_image(encoded(Image.fromarray(values), "TIFF"))
    assert off_by(pixels[:, :, 0], values * 255 / max(largest, 65_535)) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_very_wide_picture_is_read(kind):
    width = 16_000 if kind == "WEBP" else 20_000  # WebP ends at 16,383
    wide = photo().resize((width, 3))
    assert read_image(encoded(wide, kind)).shape == (3, width, 3)
    assert read_image(encoded(wide.transpose(Image.Transpose.ROTATE_90), kind)).shape == (width, 3, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_is_read(mode):
    picture = Image.new("I;16", (5, 4), 30_000) if mode == "I;16" else photo().convert(mode)
    assert read_image(encoded(picture, "PNG")).shape == (picture.height, picture.width, 3)


def test_all_suffixes_are_listed(tmp_path):
    names = sorted(f"{number}{suffix}" for number, suffix in enumerate(sorted(SUFFIXES | {".JPG", ".HeIc"})))
    assert sorted(image_files(fill(tmp_path, *names))) == names
    assert {".heic", ".heif", ".jfif", ".jpe", ".avif"} <= SUFFIXES


# --- resizing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64, 213, 320, 500])
@pytest.mark.parametrize("shape", [(213, 320), (64, 64), (1, 1), (1, 500), (300, 2)])
def test_resize_squeezes_to_a_square(shape, size):
    pixels = np.full((*shape, 3), (10, 100, 250), np.uint8)
    resized = resize(pixels, size)
    assert resized.shape == (size, size, 3)
    assert resized.dtype == np.uint8
    assert (resized == (10, 100, 250)).all()


def test_shrinking_takes_the_mean_of_an_area():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = [[[0] * 3, [40] * 3], [[80] * 3, [120] * 3]]
    assert resize(pixels, 2)[:, :, 0].tolist() == [[60, 0], [0, 0]]


def test_growing_keeps_the_corners_and_goes_between_the_values():
    pixels = np.array([[[0] * 3, [200] * 3], [[0] * 3, [200] * 3]], np.uint8)
    grown = resize(pixels, 8)[:, :, 0].astype(int)
    assert (grown[:, 0] == 0).all()
    assert (grown[:, -1] == 200).all()
    assert (np.diff(grown, axis=1) >= 0).all()
    assert len(np.unique(grown)) > 2


def test_a_picture_of_the_right_size_is_left_as_it_is():
    pixels = np.asarray(small().resize((16, 16)))
    assert (resize(pixels, 16) == pixels).all()


@pytest.mark.parametrize(
    ("shape", "longest", "expected"),
    [
        ((213, 320), 160, (106, 160)),
        ((320, 213), 160, (160, 106)),
        ((100, 100), 50, (50, 50)),
        ((213, 320), 320, (213, 320)),
        ((213, 320), 1000, (213, 320)),  # never grows
        ((1, 1000), 10, (1, 10)),  # never vanishes
        ((1000, 1), 10, (10, 1)),
        ((1, 1), 1, (1, 1)),
        ((3000, 2999), 1, (1, 1)),
    ],
)
def test_fit_within_keeps_proportions_and_only_shrinks(shape, longest, expected):
    fitted = fit_within(np.full((*shape, 3), 77, np.uint8), longest)
    assert fitted.shape == (*expected, 3)
    assert fitted.dtype == np.uint8
    assert (fitted == 77).all()


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_a_jpeg_holds_the_picture_with_its_colors_in_order(tmp_path, quality):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(np.full((32, 48, 3), (220, 40, 90), np.uint8), quality=quality))
    pixels = read_image(path)
    assert pixels.shape == (32, 48, 3)
    assert off_by(pixels, np.full((32, 48, 3), (220, 40, 90))) <= (3 if quality == 100 else 40)


def test_a_better_jpeg_is_larger_and_nearer():
    pixels = np.asarray(photo())
    low, high = (encode_jpeg(pixels, quality=quality) for quality in (10, 95))
    assert len(low) < len(high)
    errors = [np.abs(np.asarray(Image.open(io.BytesIO(data)), float) - pixels).mean() for data in (low, high)]
    assert errors[1] < errors[0] < 20
