"""Listing and decoding, on the sample photos and on files made from them."""

from __future__ import annotations

import csv
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

import isc
from isc import images
from isc.errors import InputError
from isc.images import encode_jpeg, fit_within, list_images, path_of, read_image, resize

SAMPLE = Path(isc.__file__).parent / "sample"
PHOTO = SAMPLE / "S000.jpg"  # 320 × 213
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
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
        (["a.jpg", "a.png"], ["a.jpg", "a.png", "'a'", "rename one"]),
        (["s/a.JPG", "s/a.jpg", "b.jpg"], ["a.JPG", "a.jpg", "'s/a'", "rename one"]),
        (["a.jpg", "b,c.jpg"], ["b,c.jpg", "'b,c'", "comma", "rename"]),
        (["x,y/a.jpg"], ["a.jpg", "'x,y/a'", "comma", "rename"]),
        (["a\nb.jpg"], ["'a\\nb'", "line break", "rename"]),
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


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(PHOTO.read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(InputError, match=r"caf.*UTF-8") as caught:
        list_images(tmp_path)
    str(caught.value).encode()  # the message itself can be printed


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


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path, orientation, kind):
    upright = np.asarray(small())
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    pixels = read_image(saved(tmp_path, stored, kind, exif=exif, **options))
    assert off_by(pixels, upright) <= (8 if kind == "JPEG" else 0)


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
        b"BM",
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


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_in_the_middle_is_refused_or_decoded_and_never_a_crash(tmp_path):
    random, messages = np.random.default_rng(5), []
    for kind in FORMATS:
        whole = bytearray(encoded(small(), kind))
        for _ in range(30):
            damaged = bytearray(whole)
            damaged[random.integers(len(whole))] ^= int(random.integers(1, 256))
            path = tmp_path / f"damaged.{kind.lower()}"
            path.write_bytes(damaged)
            try:
                read_image(path)
            except InputError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert all(str(tmp_path / "damaged.") in message for message in messages)


def png(width: int, height: int, lines: bytes, *, depth: int, color: int) -> bytes:
    """A PNG of these filtered lines; color type 0 is grey, 2 is RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


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
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 16)
    assert read_image(path).shape == (16, 24, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 24 * 16 - 1)
    refusal(read_image, path, "24 × 16 pixels", "expected at most 383")


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
