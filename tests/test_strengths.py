"""How strong an edit is: the bands, that each of them is drawn, and that stronger is stronger."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import isc
from isc.benchmark.edits import strengths
from isc.benchmark.edits.augly import Edit as OthersEdit
from isc.benchmark.edits.chain import EDITS, Edit, apply_edits, can_be_found
from isc.benchmark.edits.strengths import (
    DEGREES,
    MAX_DRAWS,
    STRENGTHS,
    Degree,
    kinds_and_strengths,
    single_edit,
    strength_of,
)
from isc.errors import InputError
from isc.photos.decode import read_image

SAMPLE = Path(isc.__file__).parent / "sample"
PHOTOS = [read_image(SAMPLE / f"S{number:03d}.jpg") for number in range(0, 60, 5)]
SHAPES = {"as it is": None, "portrait": (320, 213), "square": (200, 200), "wide": (107, 320), "small": (96, 128)}
WITHOUT = {"quarter_turn", "flip_horizontal", "flip_vertical", "screenshot", "grayscale", "invert"}
NOWHERE_ELSE = {
    "blur", "motion_blur", "noise", "pixelise", "jpeg", "webp", "fade", "sharpen", "posterise", "duotone", "text",
    "emoji", "stripes", "photo_on_top", "shuffle_blocks",
}  # fmt: skip


def shaped(photo, shape):
    return photo if shape is None else cv2.resize(photo, shape[::-1], interpolation=cv2.INTER_AREA)


def drawn(kind, strength, *, seed=0, photo=0, shape=None):
    rng = np.random.default_rng([seed, photo])
    source = shaped(PHOTOS[photo], shape)
    copy, (edit,), matrix = single_edit(
        source, rng, lambda: PHOTOS[int(rng.integers(len(PHOTOS)))], kind=kind, strength=strength
    )
    return source, copy, edit, matrix


def test_every_kind_has_all_strengths_or_none():
    assert {kind for kind, strength in kinds_and_strengths() if strength is None} == WITHOUT == EDITS.keys() - DEGREES
    for kind in DEGREES:
        assert [strength for name, strength in kinds_and_strengths() if name == kind] == list(STRENGTHS)
    assert len(kinds_and_strengths()) == 3 * len(DEGREES) + len(WITHOUT) == 81
    assert list(dict.fromkeys(kind for kind, _ in kinds_and_strengths())) == list(EDITS)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_and_strength_is_drawn_on_all_sorts_of_photos(shape):
    for number, (kind, strength) in enumerate(kinds_and_strengths()):
        source, copy, edit, matrix = drawn(kind, strength, photo=number % len(PHOTOS), shape=SHAPES[shape])
        assert edit.name == kind
        assert strength_of(edit) == strength, edit
        assert can_be_found(source, copy, matrix), edit
        assert min(copy.shape[:2]) >= 64
        assert max(copy.shape[:2]) <= 640
        assert "{" not in edit.describe()
        assert strength_of(Edit(kind, json.loads(json.dumps(dict(edit.params))))) == strength


@pytest.mark.slow
def test_no_band_is_too_rare_for_the_draws(monkeypatch):
    """Of one draw each, so that what is counted is how often a band is met: all draws fail less than once in 10⁶."""
    monkeypatch.setattr(strengths, "MAX_DRAWS", 1)
    for kind in DEGREES:
        met = dict.fromkeys(STRENGTHS, 0)
        number = 120 if kind == "perspective" else 60
        for seed in range(number):
            met[strength_of(drawn(kind, None, seed=seed, photo=seed % 6)[2])] += 1
        assert min(met.values()) >= 2, (kind, met)
    assert (1 - 2 / 60) ** MAX_DRAWS < 2e-6


@pytest.mark.parametrize("kind", sorted(NOWHERE_ELSE))
def test_stronger_changes_more(kind):
    """Of edits that move nothing, by the levels that change; each photo is compared with itself."""
    change = dict.fromkeys(STRENGTHS, 0.0)
    for strength in STRENGTHS:
        for photo in range(8):
            source, copy, _, _ = drawn(kind, strength, photo=photo, seed=3)
            change[strength] += float(np.abs(copy.astype(np.float32) - source).mean())
    assert change["light"] < change["strong"], change
    assert change["medium"] < 1.15 * change["strong"], change


@pytest.mark.parametrize("kind", ["crop", "pad", "overlay_on_photo", "border", "meme_caption"])
def test_stronger_shows_less_of_the_photo(kind):
    """The share of the photo that is seen, times the share of the copy that shows it."""
    shown = dict.fromkeys(STRENGTHS, 0.0)
    for strength in STRENGTHS:
        for photo in range(6):
            source, copy, _, matrix = drawn(kind, strength, photo=photo)
            inside = cv2.warpPerspective(np.ones(source.shape[:2], np.float32), matrix, copy.shape[1::-1])
            back = cv2.warpPerspective(np.ones(copy.shape[:2], np.float32), np.linalg.inv(matrix), source.shape[1::-1])
            shown[strength] += float(inside.mean() * back.mean())
    assert shown["light"] > shown["medium"] > shown["strong"]


def test_the_bands_by_hand():
    more, less = Degree("x", 10, 20, ""), Degree("x", 45, 30, "")
    assert [more.strength(value) for value in (-5, 9.99, 10, 19.9, 20, 90)] == [
        "light", "light", "medium", "medium", "strong", "strong",
    ]  # fmt: skip
    assert [less.strength(value) for value in (60, 45.1, 45, 31, 30, 15)] == [
        "light", "light", "medium", "medium", "strong", "strong",
    ]  # fmt: skip
    assert more.beyond(12, "medium") == 0
    assert more.beyond(26, "medium") == 6
    assert more.beyond(4, "medium") == 6
    assert more.beyond(4, "strong") == 16
    assert less.beyond(60, "strong") == 30
    assert less.beyond(40, "light") == 5
    assert 0 < more.beyond(10, "light") < 1e-6  # the bound itself is the stronger band's


@pytest.mark.parametrize(
    ("name", "params", "strength"),
    [
        ("crop", {"area_percent": 20.0}, "strong"),
        ("crop", {"area_percent": 50.0}, "light"),
        ("rotate", {"angle_degrees": -10.0, "corners": "black", "canvas": "kept"}, "light"),
        ("rotate", {"angle_degrees": -150.0, "corners": "black", "canvas": "kept"}, "strong"),
        ("jpeg", {"quality": 5}, "strong"),
        ("jitter", {"brightness": 1.5}, "light"),
        ("jitter", {"brightness": 1.5, "saturation": 0.1, "hue_degrees": 20}, "strong"),
        ("noise", {"kind": "grey", "amount": 12.0}, "light"),
        ("noise", {"kind": "salt and pepper", "amount": 12.0}, "strong"),
        ("noise", {"kind": "salt and pepper", "amount": 3.0}, "light"),
        ("flip_vertical", {}, None),
        ("blur", {"sigma_px": 2.0}, None),  # as in a chain, which does not tell how large the picture was
    ],
)
def test_strength_of_by_hand(name, params, strength):
    assert strength_of(Edit(name, params)) == strength


def test_edits_of_another_library_have_no_strength():
    assert strength_of(OthersEdit("rotate", {"angle_degrees": 40.0})) is None


def test_a_copy_is_made_by_its_seed_alone():
    for kind, strength in (("crop", "strong"), ("noise", "light"), ("perspective", "light"), ("invert", None)):
        one, two, other = (drawn(kind, strength, seed=seed) for seed in (4, 4, 5))
        assert np.array_equal(one[1], two[1])
        assert one[2] == two[2]
        assert np.array_equal(one[3], two[3])
        assert kind == "invert" or one[2] != other[2]


def test_without_a_strength_any_is_drawn_and_told():
    found = {strength_of(drawn("crop", None, seed=seed)[2]) for seed in range(30)}
    assert found == set(STRENGTHS)
    assert drawn("grayscale", None)[2] == Edit("grayscale", {})


def test_what_is_measured_is_what_was_done():
    for seed in range(6):
        source, copy, edit, matrix = drawn("pad", None, seed=seed)
        inside = cv2.warpPerspective(np.ones(source.shape[:2], np.float32), matrix, copy.shape[1::-1])
        assert edit.params["picture_percent"] == pytest.approx(100 * inside.mean(), abs=0.6)
        source, copy, edit, _ = drawn("border", None, seed=seed)
        assert edit.params["thickness_percent"] == pytest.approx(100 * edit.params["thickness_px"] / 213, abs=0.01)
        assert copy.shape[0] - source.shape[0] == 2 * edit.params["thickness_px"]
        _, _, edit, _ = drawn("blur", None, seed=seed)
        assert edit.params["sigma_percent"] == pytest.approx(100 * edit.params["sigma_px"] / 320, abs=0.01)
        _, _, edit, _ = drawn("motion_blur", None, seed=seed)
        assert edit.params["length_percent"] == pytest.approx(100 * edit.params["length_px"] / 320, abs=0.01)
        source, copy, edit, _ = drawn("meme_caption", None, seed=seed)
        added = (copy.shape[0] - source.shape[0]) / (320 * 213) ** 0.5
        assert edit.params["caption_percent"] == pytest.approx(100 * added, abs=0.6)


def test_ink_is_the_mean_opacity_of_the_stripes():
    black = np.zeros((150, 200, 3), np.uint8)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        copy, (edit,), _ = single_edit(black, rng, lambda: black, kind="stripes")
        colour = np.array([int(edit.params["colour"][i : i + 2], 16) for i in (1, 3, 5)])
        if colour.max() > 100:  # on black the opacity is the level ÷ the colour's
            opacity = (copy[..., colour.argmax()] / colour.max()).mean()
            assert edit.params["ink_percent"] == pytest.approx(100 * opacity, abs=1)


def test_a_photo_on_which_a_band_cannot_be_gets_what_is_nearest(monkeypatch):
    monkeypatch.setattr(strengths, "MAX_DRAWS", 60)
    tall = shaped(PHOTOS[0], (320, 107))  # overlaid at less than half a side it would cover too little to be found
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    copy, (edit,), matrix = single_edit(tall, rng, lambda: PHOTOS[1], kind="overlay_on_photo", strength="strong")
    assert strength_of(edit) == "medium"
    assert can_be_found(tall, copy, matrix)
    drawn = [apply_edits(tall, ("overlay_on_photo",), again, lambda: PHOTOS[1]) for _ in range(60)]
    sides = [one.params["side_percent"] for copy, (one,), matrix in drawn if can_be_found(tall, copy, matrix)]
    assert edit.params["side_percent"] == min(sides) < max(sides)


def test_a_crop_that_shows_nothing_is_drawn_again():
    source = np.full((200, 300, 3), 128, np.uint8)
    source[:60, :90] = np.random.default_rng(0).integers(0, 256, (60, 90, 3))
    for seed in range(10):
        copy, (edit,), _ = single_edit(
            source, np.random.default_rng(seed), lambda: source, kind="crop", strength="medium"
        )
        assert strength_of(edit) == "medium"
        assert copy.std() > 5


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(32, 32), (40, 500), (900, 700)])
def test_flat_and_odd_pictures_end(shape, monkeypatch):
    monkeypatch.setattr(strengths, "MAX_DRAWS", 6)
    flat = np.full((*shape, 3), 90, np.uint8)
    for kind, strength in kinds_and_strengths():
        copy, (edit,), _ = single_edit(flat, np.random.default_rng(0), lambda: flat, kind=kind, strength=strength)
        assert edit.name == kind
        assert min(copy.shape[:2]) >= 64


@pytest.mark.parametrize(
    ("kind", "strength", "says"),
    [
        ("crap", None, "kind=crap: no such edit; expected one of crop, rotate"),
        ("crop", "weak", "strength=weak; expected one of light, medium, strong"),
        ("invert", "light", "strength=light: invert has no degrees; leave the strength out"),
    ],
)
def test_what_there_is_not_is_refused(kind, strength, says):
    with pytest.raises(InputError, match=says):
        drawn(kind, strength)


def test_the_page_shows_the_bounds():
    page = (Path(isc.__file__).parents[1] / "docs" / "robustness.md").read_text(encoding="utf-8")
    for kind, degree in DEGREES.items():
        light, rest = ("<", "≥") if degree.strong > degree.medium else (">", "≤")
        bands = f"{light} {degree.medium:g} | {rest} {degree.medium:g} | {rest} {degree.strong:g}"
        assert f"\n| {kind} | {degree.what} | {bands} |\n" in page
