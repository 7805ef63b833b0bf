"""The attacks of our own making: prints, strips, blends, layouts, drawings, warps, repeated saving, what covers."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from isc.photos.decode import Pixels, read_image
from isc.photos.folders import SAMPLE, list_images
from isc.photos.resizing import fit_within
from isc.train.augment.artistic import FewColours, Levels, Threshold
from isc.train.augment.attack import Attack, BaseAttack, Composition, plain
from isc.train.augment.augmenter import families
from isc.train.augment.fields import grain, linear_gradient, rounded, smooth, wave
from isc.train.augment.layouts import Collage, Inset, PictureInPicture, TwoPanels
from isc.train.augment.occlusion import CutOut, Patches, Tiles
from isc.train.augment.patterns import PATTERNS, TRACED, patterns
from isc.train.augment.prints import PhotographedScreen, PrintScan
from isc.train.augment.strips import MixPhotos, Slices, Strip
from isc.train.augment.warps import Lens, Warp

FILES = list(list_images(SAMPLE).values())
PHOTO, OTHER = (fit_within(read_image(FILES[number]), 112) for number in (30, 90))
KINDS = [kind for kinds in PATTERNS.values() for kind in dict.fromkeys(kinds)]
RED, BLUE = plain((80, 100), (255, 0, 0)), plain((60, 50), (0, 0, 255))


def edited(attack: BaseAttack, picture: Pixels, seed: int, other: Pixels = OTHER) -> Pixels:
    attack.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return attack(image=picture, other=lambda: other)["image"]


def red_share(picture: Pixels) -> float:
    """Of the pixels that are about RED."""
    near = (picture[..., 0] > 200) & (picture[..., 1] < 40) & (picture[..., 2] < 40)
    return float(near.mean())


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "missing"), [(Attack, "edit"), (Composition, "compose")])
def test_an_attack_without_its_edit_cannot_be_made(base, missing):
    kind = type("Forgetful", (base,), {})
    with pytest.raises(TypeError, match=rf"abstract method '?{missing}"):
        kind(p=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_the_same_shape_that_differs_and_depends_on_the_seed_alone(kind):
    """Pictures that cannot be written to show that neither of the two is changed in place."""
    photo, other = PHOTO.copy(), OTHER.copy()
    photo.flags.writeable = other.flags.writeable = False
    differ = 0
    for seed in range(12):
        result = edited(kind(p=1), photo, seed, other)
        assert result.dtype == np.uint8
        assert result.shape == photo.shape
        assert not np.shares_memory(result, photo)
        assert not np.shares_memory(result, other)
        assert (result == edited(kind(p=1), photo, seed, other)).all()
        differ += bool((result != photo).any())
    assert differ >= 11


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_photo_is_decoded_once_at_most_and_by_compositions_alone(kind):
    ever = 0
    for seed in range(20):
        calls = []
        attack = kind(p=1)
        attack.set_random_state(np.random.default_rng(seed), random.Random(seed))
        attack(image=PHOTO, other=lambda calls=calls: (calls.append(1), OTHER)[1])
        assert len(calls) <= 1
        ever += len(calls)
    assert bool(ever) == issubclass(kind, Composition)


@pytest.mark.parametrize("kind", KINDS)
def test_without_strength_an_attack_goes_least_far(kind):
    means = [
        np.mean([np.abs(edited(kind(strength=s, p=1), PHOTO, seed).astype(int) - PHOTO).mean() for seed in range(16)])
        for s in (0.0, 0.5, 1.0)
    ]
    assert means[0] < means[2]
    assert means[0] < 42 or kind.shrinks  # of 255


@pytest.mark.parametrize("kind", KINDS)
def test_no_seed_blots_the_photo_out(kind):
    """At full strength something of a photo is left: hardly ever is the result of one colour."""
    flat = sum(edited(kind(p=1), PHOTO, seed).std() < 6 for seed in range(24))
    assert flat <= 1


def test_a_family_holds_its_attacks_as_often_as_it_says():
    made = patterns(0.5)
    assert {family: tuple(type(attack) for attack in attacks) for family, attacks in made.items()} == PATTERNS
    assert all(attack.strength == 0.5 and attack.p == 1 for attacks in made.values() for attack in attacks)
    assert set(PATTERNS) <= set(families())


# --- what some promise ----------------------------------------------------------------------------------------------


def test_a_strip_spans_one_side_and_leaves_little():
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100)[None, :], np.arange(100)[:, None]
    spans = []
    for seed in range(60):
        result = edited(Strip(p=1), ramp, seed, plain((50, 50), (0, 0, 255)))
        inside = result[result[..., 2] == 0].reshape(-1, 3)
        spans.append([np.ptp(inside[:, 0]), np.ptp(inside[:, 1])] if len(inside) else [99, 99])
    assert np.median(np.max(spans, axis=1)) > 90
    assert np.min(spans) < 25


@pytest.mark.parametrize("kind", [Slices, Patches, Tiles])
def test_what_is_cut_or_covered_leaves_a_good_part(kind):
    shares = [red_share(edited(kind(p=1), RED, seed, BLUE)) for seed in range(40)]
    assert min(shares) > 0.25
    assert np.median(shares) < 0.95


def test_a_collage_has_the_photo_in_one_tile():
    shares = [red_share(edited(Collage(p=1), RED, seed, BLUE)) for seed in range(60)]
    assert min(shares) > 0.06
    assert np.max(shares) < 0.55 or np.median(shares) < 0.5


@pytest.mark.parametrize(("kind", "least", "most"), [(PictureInPicture, 0.06, 0.6), (Inset, 0.6, 0.99)])
def test_pictures_in_pictures_keep_their_size(kind, least, most):
    shares = [red_share(edited(kind(p=1), RED, seed, BLUE)) for seed in range(40)]
    assert least < min(shares)
    assert max(shares) < most


def test_two_panels_show_both_photos():
    for seed in range(20):
        result = edited(TwoPanels(p=1), RED, seed, BLUE)
        assert red_share(result) > 0.25
        assert ((result[..., 2] > 200) & (result[..., 0] < 40)).mean() > 0.15


def test_mixed_photos_are_both_seen():
    for seed in range(30):
        red, _, blue = edited(MixPhotos(p=1), RED, seed, BLUE).reshape(-1, 3).mean(axis=0) / 255
        assert abs(red + blue - 1) < 0.02
        assert 0.15 < blue < 0.7


def test_few_colours_are_few():
    counts = [len(np.unique(edited(FewColours(p=1), PHOTO, seed).reshape(-1, 3), axis=0)) for seed in range(40)]
    assert max(counts) <= 24
    assert min(counts) <= 4


def test_levels_have_at_most_six_values_a_channel():
    for seed in range(20):
        assert len(np.unique(edited(Levels(p=1), PHOTO, seed)[..., 0])) <= 6


def test_a_threshold_at_its_strongest_leaves_two_colours():
    colours = [len(np.unique(edited(Threshold(p=1), PHOTO, seed).reshape(-1, 3), axis=0)) for seed in range(30)]
    assert sum(count == 2 for count in colours) >= 8


def test_a_warp_without_shifts_changes_nothing():
    class Still(Warp):
        def shifts(self, x, y, rng):
            return np.zeros_like(x), np.zeros_like(y)

    assert (edited(Still(p=1), PHOTO, 0) == PHOTO).all()


def test_a_lens_keeps_the_middle_where_it_was():
    picture = np.zeros((101, 101, 3), np.uint8)
    cv2.circle(picture, (50, 50), 8, (255, 255, 255), -1)
    for seed in range(10):
        bright = np.argwhere(edited(Lens(p=1), picture, seed)[30:70, 30:70, 0] > 128)
        assert np.abs(bright.mean(axis=0) - 20).max() < 1


def test_a_cut_out_keeps_its_middle_or_loses_a_shape():
    shares = [red_share(edited(CutOut(p=1), RED, seed)) for seed in range(40)]
    assert min(shares) > 0.2


# --- what a trace follows -------------------------------------------------------------------------------------------


def moved(kind: type[BaseAttack], picture: Pixels, seed: int) -> Pixels:
    return edited(kind(p=1).mover, picture, seed)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, TRACED)])
def test_what_moves_the_photo_is_linear_in_its_pixels(kind):
    """A picture and its negative add up to the same as another picture and its own, but for rounding."""
    first, second = PHOTO, np.ascontiguousarray(PHOTO[::-1, ::-1])
    for seed in range(10):
        sums = [moved(kind, one, seed).astype(int) + moved(kind, 255 - one, seed) for one in (first, second)]
        assert np.quantile(np.abs(sums[0] - sums[1]), 0.995) <= 4  # the soft edges of lines are rounded one by one


@pytest.mark.parametrize("kind", [PrintScan, PhotographedScreen])
def test_the_pose_is_where_the_whole_attack_lays_the_photo(kind):
    shifts = []
    for seed in range(20):
        whole, posed = (
            cv2.cvtColor(made, cv2.COLOR_RGB2GRAY).astype(np.float32)
            for made in (edited(kind(p=1), PHOTO, seed), moved(kind, PHOTO, seed))
        )
        shifts.append(np.hypot(*cv2.phaseCorrelate(posed, whole)[0]))
    assert np.median(shifts) < 1
    assert np.mean(np.array(shifts) < 2) > 0.8


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 3), (64, 48)])
def test_fields_have_the_shape_and_range_asked_for(shape):
    rng = np.random.default_rng(0)
    for field in (grain(shape, rng), grain(shape, rng, size=2.5)):
        assert field.shape == shape
        assert field.dtype == np.float32
    for field in (smooth(shape, rng), wave(shape, 7, 0.4), linear_gradient(shape, 2.0), rounded(*shape, 9)):
        assert field.shape == shape
        assert field.dtype == np.float32
        assert np.abs(field).max() <= 1 + 1e-4


def test_a_wave_is_the_cosine_along_its_direction():
    across, down = np.meshgrid(np.arange(40), np.arange(30))
    expected = np.cos(2 * np.pi / 9 * (across * np.cos(0.7) + down * np.sin(0.7)) + 0.3)
    assert np.abs(wave((30, 40), 9, 0.7, 0.3) - expected).max() < 1e-4


def test_grain_is_normal_and_differs_from_seed_to_seed():
    fields = [grain((100, 100), np.random.default_rng(seed)) for seed in range(3)]
    assert all(abs(field.mean()) < 0.05 and abs(field.std() - 1) < 0.05 for field in fields)
    assert abs(np.corrcoef(fields[0].ravel(), fields[1].ravel())[0, 1]) < 0.05
