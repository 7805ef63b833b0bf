"""Views: what each shows of a picture, and the text that names them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isc
from isc.errors import InputError
from isc.photos.decode import read_image
from isc.photos.views import LONGEST_NAME, MOST_REGIONS, WHOLE, View, parse_views, placed, views_text

PHOTO = Path(isc.__file__).parent / "sample" / "S000.jpg"


@pytest.fixture(scope="module")
def photo():
    return read_image(PHOTO)


def view(step: str) -> View:
    whole, one = parse_views(step)
    assert whole == View()
    return one


def letters(*rows: str) -> np.ndarray:
    """A picture whose three channels hold the code of a letter."""
    return np.repeat(np.array([[ord(letter) for letter in row] for row in rows], np.uint8)[:, :, None], 3, axis=2)


# --- what a view shows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rows"),
    {
        "flip": ("CBA", "FED"),
        "rotate:90": ("CF", "BE", "AD"),  # counter-clockwise: what was at the right is at the top
        "rotate:180": ("FED", "CBA"),
        "rotate:270": ("DA", "EB", "FC"),
        "crop:0:0:0.34:1": ("A", "D"),  # left, top, right, bottom
        "crop:0.34:0.5:1:1": ("EF",),
        "scale:1.25": ("ABC", "DEF"),
    }.items(),
)
def test_what_is_seen_by_hand(step, rows):
    picture = letters("ABC", "DEF")
    np.testing.assert_array_equal(view(step).pixels(picture), letters(*rows))
    np.testing.assert_array_equal(picture, letters("ABC", "DEF"))


def test_the_whole_is_the_picture_itself(photo):
    seen = View().pixels(photo)
    assert np.shares_memory(seen, photo)
    np.testing.assert_array_equal(seen, photo)


def test_turning_and_mirroring_again_gives_the_photo_back(photo):
    flip, quarter, half, back = (view(step).pixels for step in ("flip", "rotate:90", "rotate:180", "rotate:270"))
    assert not np.array_equal(flip(photo), photo)
    for there_and_back in (flip(flip(photo)), half(half(photo)), back(quarter(photo)), quarter(quarter(half(photo)))):
        np.testing.assert_array_equal(there_and_back, photo)
    np.testing.assert_array_equal(quarter(photo), np.rot90(photo))
    assert all(seen.flags.c_contiguous for seen in (flip(photo), quarter(photo)))


def test_a_crop_keeps_the_middle():
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[15:85, 30:170] = 1
    seen = view("crop:0.7").pixels(picture)
    assert seen.shape == (70, 140, 3)
    assert seen.all()
    assert view("crop:0.7").name == "crop:0.15:0.15:0.85:0.85"


def test_tiles_by_hand():
    tiles = parse_views("tiles:2")[1:]
    third = 0.333333
    assert [tile.region for tile in tiles] == [
        (0, 0, 0.666667, 0.666667),
        (third, 0, 1, 0.666667),
        (0, third, 0.666667, 1),
        (third, third, 1, 1),
    ]
    picture = letters("ABC", "DEF", "GHI")
    seen = [tile.pixels(picture) for tile in tiles]
    for tile, rows in zip(seen, [("AB", "DE"), ("BC", "EF"), ("DE", "GH"), ("EF", "HI")], strict=True):
        np.testing.assert_array_equal(tile, letters(*rows))


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3), (7, 5), (213, 320), (1023, 769)])
@pytest.mark.parametrize("number", [2, 3, 5, 8])
def test_tiles_cover_every_pixel_and_none_is_empty(number, size):
    picture = np.zeros((*size, 1), np.uint32)
    tiles = parse_views(f"tiles:{number}")[1:]
    assert len(tiles) == number**2
    picture[..., 0] = np.arange(picture.size).reshape(size)
    seen = [tile.pixels(picture) for tile in tiles]
    assert all(tile.size for tile in seen)
    assert len(np.unique(np.concatenate([tile.ravel() for tile in seen]))) == picture.size


@pytest.mark.parametrize("count", [10, 213, 320])
@pytest.mark.parametrize("cut", ["0.3", "0.5", "0.667", "0.76"])
def test_crops_that_meet_show_every_pixel_once(cut, count):
    row = np.arange(3 * count).reshape(1, count, 3)
    left, right = (view(f"crop:{edges}").pixels(row) for edges in (f"0:0:{cut}:1", f"{cut}:0:1:1"))
    np.testing.assert_array_equal(np.concatenate([left, right], axis=1), row)
    column = row.transpose(1, 0, 2)
    upper, lower = (view(f"crop:{edges}").pixels(column) for edges in (f"0:0:1:{cut}", f"0:{cut}:1:1"))
    np.testing.assert_array_equal(np.concatenate([upper, lower]), column)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 2)])
@pytest.mark.parametrize("step", ["flip", "rotate:90", "crop:0.1", "crop:0.7", "scale:4", "crop:0.9:0.9:0.91:0.91"])
def test_no_view_of_a_thin_picture_is_empty(step, size):
    assert view(step).pixels(np.zeros((*size, 3), np.uint8)).size > 0


@pytest.mark.parametrize(
    ("step", "image_size", "side"),
    [
        ("scale:1.25", 224, 288),  # 280 is 8.75 × 32
        ("scale:1.25", 160, 192),  # 200 is 6.25 × 32
        ("scale:1.5", 80, 128),  # 120 is 3.75 × 32
        ("scale:2.125", 128, 288),  # 272 is 8.5 × 32: up
        ("scale:0.25", 64, 32),
        ("scale:0.3", 32, 32),  # never nothing
        ("flip", 100, 100),
        ("crop:0.5", 225, 225),
    ],
)
def test_the_side_that_the_network_is_given(step, image_size, side):
    assert view(step).side(image_size) == side


# --- regions found in each photo -------------------------------------------------------------------------------------

FOUND = ((0.1, 0.2, 0.4, 0.6), (0.5, 0.5, 1.0, 1.0))
FILLERS = [(0.15, 0.15, 0.85, 0.85), (0.25, 0.25, 0.75, 0.75), *(one.region for one in parse_views("tiles:2")[1:])]


def regions(text: str, found) -> list[tuple[float, ...]]:
    return [one.region for one in placed(parse_views(text), found)]


def test_regions_stand_where_they_were_asked_for():
    views = placed(parse_views("flip+regions:2+scale:0.5"), FOUND)
    assert [one.name for one in views] == ["whole", "flip", "crop:0.1:0.2:0.4:0.6", "crop:0.5:0.5:1:1", "scale:0.5"]
    assert regions("regions:1", FOUND) == [WHOLE, FOUND[0]]
    assert placed(parse_views("flip+tiles:2"), FOUND) == parse_views("flip+tiles:2")


@pytest.mark.parametrize("count", range(1, MOST_REGIONS + 1))
def test_where_too_few_are_found_others_fill_up(count):
    assert regions(f"regions:{count}", ())[1:7] == FILLERS[:count]
    assert regions(f"regions:{count}", FOUND)[1:] == [*FOUND, *FILLERS][:count]


@pytest.mark.parametrize("text", ["regions:8", "regions:3+crop:0.7", "crop:0.5+tiles:2+regions:8", "tiles:3+regions:8"])
@pytest.mark.parametrize("found", [(), FOUND, (FILLERS[1], FILLERS[4], FOUND[0], FOUND[0]), (WHOLE, *FILLERS)])
def test_no_view_of_a_photo_comes_twice(text, found):
    views = placed(parse_views(text), found)
    assert len({one.name for one in views}) == len(views) == len(parse_views(text))
    assert not any(one.found for one in views)


def test_a_region_is_not_seen_before_it_is_found(photo):
    with pytest.raises(ValueError, match=r"region:1 is another in each photo"):
        view("regions:1").pixels(photo)
    assert view("regions:1").side(192) == 192


def test_the_longest_name():
    longest = View(region=(0.123456, 0.234567, 0.345678, 0.456789))
    assert len(longest.name) == LONGEST_NAME
    assert max(len(one.name) for one in parse_views("tiles:8+rotate:270+scale:1.123456")) <= LONGEST_NAME


# --- the text --------------------------------------------------------------------------------------------------------


def test_the_whole_comes_first_and_the_others_as_given():
    assert parse_views("whole") == (View(),)
    names = [one.name for one in parse_views("rotate:270+flip+scale:0.5+crop:0.5")]
    assert names == ["whole", "rotate:270", "flip", "scale:0.5", "crop:0.25:0.25:0.75:0.75"]
    assert parse_views("whole+flip") == parse_views("flip")


STEPS = st.one_of(
    st.sampled_from(["flip", "rotate:90", "rotate:180", "rotate:270", "tiles:2", "tiles:5", "regions:3"]),
    # even: the margin, half of what is left, has six decimals
    st.integers(50_000, 499_999).map(lambda half: f"crop:0.{2 * half}"),
    st.integers(25, 400).filter(lambda factor: factor != 100).map(lambda factor: f"scale:{factor / 100}"),
)


@given(st.lists(STEPS, unique=True, max_size=5))
def test_the_text_makes_the_round_trip(steps):
    views = parse_views("+".join(steps) or "whole")
    text = views_text(views)
    assert parse_views(text) == views
    assert views_text(parse_views(text)) == text
    assert len({one.name for one in views}) == len(views)
    assert not set(text) - set("abcdefghijklmnopqrstuvwxyz0123456789:.+")  # no shell and no CSV file minds it


@pytest.mark.parametrize(
    ("text", "naming"),
    [
        ("mirror", ["views=mirror", "unknown step 'mirror'", "flip", "rotate:90", "crop:0.7", "tiles:2", "scale:1.25"]),
        ("flop", ["did you mean flip?"]),
        ("flip+", ["unknown step ''"]),
        ("", ["unknown step ''"]),
        ("Flip", ["unknown step 'Flip'"]),
        ("flip+flip", ["views=flip+flip", "flip gives flip again", "each view once"]),
        ("crop:0.5+tiles:3", ["tiles:3 gives crop:0.25:0.25:0.75:0.75 again"]),
        ("crop:0.5+crop:0.50", ["again"]),
        ("flip+whole", ["unknown step 'whole'", "expected whole, or"]),
        ("flip:1", ["flip:1", "flip alone"]),
        ("flip:", ["flip alone"]),
        ("rotate", ["rotate:90, rotate:180 or rotate:270"]),
        ("rotate:45", ["rotate:45", "counter-clockwise"]),
        ("rotate:0", ["rotate:0"]),
        ("rotate:-90", ["rotate:-90"]),
        ("crop", ["crop:SHARE", "0.1…1"]),
        ("crop:1", ["crop:1:", "below 1"]),
        ("crop:0.9999999", ["below 1"]),
        ("crop:0.05", ["crop:0.05", "0.1…1"]),
        ("crop:nan", ["crop:nan"]),
        ("crop:1e-1", ["crop:1e-1"]),
        ("crop:0.5:0.5", ["crop:0.5:0.5"]),
        ("crop:0:0:1:1", ["less than the whole"]),
        ("crop:0.5:0:0.5:1", ["LEFT:TOP:RIGHT:BOTTOM"]),
        ("crop:0:0:1:1.5", ["0…1"]),
        ("tiles:1", ["tiles:1", "2…8"]),
        ("tiles:9", ["2…8"]),
        ("tiles:2.0", ["2…8"]),
        ("scale:1", ["scale:1:", "but 1"]),
        ("scale:0.2", ["0.25…4"]),
        ("scale:5", ["0.25…4"]),
        ("scale:inf", ["scale:inf"]),
        ("scale:1:2", ["scale:FACTOR"]),
        ("regions", ["regions:K", "1…8"]),
        ("regions:0", ["regions:0", "1…8"]),
        ("regions:9", ["1…8"]),
        ("regions:2:3", ["regions:K"]),
        ("region:1", ["did you mean regions?"]),
        ("regions:2+regions:3", ["regions:3 gives region:1 again"]),
    ],
)
def test_what_names_no_view_is_refused(text, naming):
    with pytest.raises(InputError) as caught:
        parse_views(text)
    message = str(caught.value)
    assert "\n" not in message
    for part in (f"views={text}: ", *naming):
        assert part in message


@pytest.mark.parametrize(
    ("given", "naming"),
    [
        ({"turn": 4}, "turn=4"),
        ({"scale": 9.0}, "scale=9.0"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"region": (0.5, 0, 0.4, 1)}, "left < right"),
        ({"region": (0.5, 0, 0.5000001, 1)}, "left < right"),
        ({"flip": True, "turn": 1}, "flip+rotate:90 in one view"),
        ({"found": 9}, "found=9"),
        ({"found": 1, "flip": True}, "flip+region:1 in one view"),
    ],
)
def test_a_view_cannot_be_built_wrong(given, naming):
    with pytest.raises(InputError, match="expected") as caught:
        View(**given)
    assert naming in str(caught.value)


def test_no_two_single_views_of_a_real_photo_are_the_same(photo):
    seen = [one.pixels(photo) for one in parse_views("flip+rotate:90+rotate:180+rotate:270+crop:0.7+tiles:2")]
    for one, other in itertools.combinations(seen, 2):
        assert not np.array_equal(one, other)
