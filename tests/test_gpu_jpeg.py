"""JPEGs decoded and shrunk by torch, as the GPU does it, here on the CPU: as Pillow and OpenCV do."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import isc
from isc.extract.gpu_jpeg import area_weights, decoded, shrunk, upright
from isc.photos.decode import jpeg_orientation, read_image
from isc.photos.resizing import resize

PATHS = sorted((Path(isc.__file__).parent / "sample").glob("*.jpg"))
CPU = torch.device("cpu")


def as_tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)


def file_of(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@pytest.mark.parametrize("side", [32, 64, 107, 192, 213])
def test_shrinking_is_what_the_cpu_does(side):
    """To rounding: at most one step of 255, hardly anywhere."""
    for path in PATHS[:12]:
        picture = read_image(path)
        found = shrunk(as_tensor(picture), side).permute(1, 2, 0).numpy().astype(int)
        apart = np.abs(found - resize(picture, side))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.01


@pytest.mark.parametrize(("length", "side"), [(7, 3), (8, 4), (5, 5), (320, 213)])
def test_the_weights_are_shares_of_the_area(length, side):
    weights = area_weights(length, side, CPU)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(side))
    torch.testing.assert_close(weights.sum(dim=0), torch.full((length,), side / length))


def test_weights_by_hand():
    """Three pixels as two parts: one and a half each."""
    torch.testing.assert_close(area_weights(3, 2, CPU), torch.tensor([[2, 1, 0], [0, 1, 2]]) / 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation):
    picture = Image.fromarray(read_image(PATHS[0])[:96, :144])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    picture.save(data, "jpeg", quality=95, exif=exif)
    assert jpeg_orientation(data.getvalue()) == orientation
    with Image.open(data) as image:
        expected = np.array(ImageOps.exif_transpose(image))
        plain = np.array(image)
    np.testing.assert_array_equal(upright(as_tensor(plain), orientation).permute(1, 2, 0).numpy(), expected)
    [found] = decoded([file_of(data.getvalue())], [orientation], 64, CPU)
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - resize(expected, 64)).max() <= 1


def test_what_cannot_be_decoded_is_told_and_the_others_are(tmp_path):
    good = [path.read_bytes() for path in PATHS[:5]]
    files = [*map(file_of, good[:2]), file_of(b"no photo"), *map(file_of, good[2:4]), file_of(good[4][:50])]
    found = decoded(files, [1] * len(files), 64, CPU)
    assert [picture is None for picture in found] == [False, False, True, False, False, True]
    for data, picture in zip(good[:2], found, strict=False):
        assert np.abs(picture.permute(1, 2, 0).numpy().astype(int) - resize(read_image(data), 64)).max() <= 1


def test_a_photo_smaller_than_asked_is_left_to_the_cpu():
    picture = read_image(PATHS[0])
    [found] = decoded([file_of(PATHS[0].read_bytes())], [1], min(picture.shape[:2]) + 1, CPU)
    assert found is None


def test_only_whole_plain_jpegs_are_sent_there():
    data = PATHS[0].read_bytes()
    assert jpeg_orientation(data) == 1
    assert jpeg_orientation(data + b"\0\0") == 1
    assert jpeg_orientation(data[:-2]) is None
    assert jpeg_orientation(b"") is None
    for mode, kind in (("CMYK", "jpeg"), ("RGB", "png")):
        saved = io.BytesIO()
        Image.open(PATHS[0]).convert(mode).save(saved, kind)
        assert jpeg_orientation(saved.getvalue()) is None
