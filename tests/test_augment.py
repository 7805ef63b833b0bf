"""Each attack at probability 0 and 1, on real photos."""

from __future__ import annotations

import random
from pathlib import Path

import albumentations as A
import numpy as np
import pytest

from isc import augment
from isc.augment import Augmenter
from isc.config import AugmentConfig
from isc.images import Pixels, list_images, read_image, resize

SIZE = 96
PHOTOS = list(list_images(Path(augment.__file__).parent / "sample").values())
KNOBS = [name for name in vars(AugmentConfig()) if name != "min_crop"]

# what each knob drives: functions of ours, or albumentations' classes
COMPOSITIONS = {"overlay": "_overlay", "text": "_text", "emoji": "_emoji", "frame": "_frame"}
ATTACKS = {
    "flip": {"HorizontalFlip", "VerticalFlip"},
    "rotate": {"Rotate", "RandomRotate90"},
    "perspective": {"Perspective"},
    "color": {"ColorJitter"},
    "gray": {"ToGray"},
    "blur": {"GaussianBlur"},
    "noise": {"GaussNoise"},
    "pixelise": {"Downscale"},
    "filter": {
        "Sharpen", "Emboss", "Posterize", "Solarize", "ToSepia", "Equalize", "InvertImg", "RandomGridShuffle",
        "ChannelShuffle",
    },
    "jpeg": {"ImageCompression"},
}  # fmt: skip
LIKELY_ONLY = {"VerticalFlip", "RandomRotate90"}  # a fifth of flip, a third of rotate


def config(default: float, **probabilities: float) -> AugmentConfig:
    return AugmentConfig(min_crop=1.0, **(dict.fromkeys(KNOBS, default) | probabilities))


def photo(number: int = 3, size: int = SIZE) -> Pixels:
    """A square photo of the very size of the views, so that nothing is resampled."""
    return resize(read_image(PHOTOS[number]), size)


def hard(settings: AugmentConfig, seed: int, *, picture: Pixels | None = None, size: int = SIZE) -> Pixels:
    given = photo() if picture is None else picture
    return Augmenter(settings, size=size).hard(given, photo(50), np.random.default_rng(seed))


@pytest.fixture
def triggered(monkeypatch) -> set[str]:
    """Names of the attacks that were really applied to a picture since the set was last cleared."""
    seen: set[str] = set()
    for knob, function in COMPOSITIONS.items():
        real = getattr(augment, function)
        monkeypatch.setattr(augment, function, lambda *given, knob=knob, real=real: (seen.add(knob), real(*given))[1])
    for name in set().union(*ATTACKS.values()):
        kind = getattr(A, name)
        monkeypatch.setattr(
            kind, "apply", lambda self, *given, name=name, real=kind.apply, **named: (
                seen.add(name), real(self, *given, **named))[1],
        )  # fmt: skip
    return seen


def test_knobs_are_those_of_the_config():
    assert {*COMPOSITIONS, *ATTACKS} == set(KNOBS)


# --- all at 0 --------------------------------------------------------------------------------------------------------


def test_without_attacks_and_crop_the_view_is_the_photo():
    """A square photo of the views' size, cropped to all of itself: nothing is left to change a pixel."""
    for seed in range(20):
        assert (hard(config(0.0), seed) == photo()).all()


def test_without_attacks_the_hard_view_is_a_crop():
    """Columns and rows carry their own number, so that what is left tells where it came from."""
    ramp = np.zeros((200, 200, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200)[None, :], np.arange(200)[:, None]
    settings = AugmentConfig(min_crop=0.25, **dict.fromkeys(KNOBS, 0.0))
    shares = []
    for seed in range(60):
        view = hard(settings, seed, picture=ramp).astype(float)
        across, down = view[..., 0].mean(axis=0), view[..., 1].mean(axis=1)
        assert np.ptp(view[..., 0], axis=0).max() <= 1  # a column stays a column
        assert np.ptp(view[..., 1], axis=1).max() <= 1
        assert (np.diff(across) >= 0).all()  # neither mirrored nor turned
        assert (np.diff(down) >= 0).all()
        assert (view[..., 2] == 0).all()
        share = (across[-1] - across[0] + 2) / 200 * (down[-1] - down[0] + 2) / 200
        shares.append(share)
    assert 0.2 < min(shares) < 0.5  # the least area is asked for, and nearly reached


def test_min_crop_holds_for_a_panorama():
    ramp = np.zeros((50, 250, 3), np.uint8)
    ramp[..., 0] = np.arange(250)
    for seed in range(10):
        assert np.ptp(hard(config(0.0), seed, picture=ramp)[..., 0]) > 240


def test_the_mild_view_keeps_most_of_the_photo():
    ramp = np.zeros((200, 200, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200)[None, :], np.arange(200)[:, None]
    augmenter, mirrored = Augmenter(config(1.0), size=SIZE), 0
    for seed in range(40):
        view = augmenter.mild(ramp, np.random.default_rng(seed)).astype(float)
        across, down = view[..., 0].mean(axis=0), view[..., 1].mean(axis=1)
        mirrored += across[-1] < across[0]
        assert abs(across[-1] - across[0]) / 200 * (down[-1] - down[0]) / 200 > 0.62
        assert down[-1] > down[0]
    assert 10 <= mirrored <= 30


# --- one at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knob", KNOBS)
def test_at_1_alone_the_picture_changes_by_this_attack_only(knob, triggered):
    allowed = {knob} if knob in COMPOSITIONS else ATTACKS[knob]
    ever: set[str] = set()
    changed = 0
    for seed in range(12):
        triggered.clear()
        changed += bool((hard(config(0.0, **{knob: 1.0}), seed) != photo()).any())
        assert triggered
        assert triggered <= allowed
        if knob != "filter":
            assert allowed - LIKELY_ONLY <= triggered
        ever |= triggered
    assert changed >= (10 if knob == "filter" else 12)  # a shuffle of channels may leave them where they were
    if knob != "filter":
        assert ever == allowed


@pytest.mark.parametrize("knob", KNOBS)
def test_at_0_alone_this_attack_never_comes(knob, triggered):
    everything = set(COMPOSITIONS) | set().union(*ATTACKS.values())
    for seed in range(6):
        hard(config(1.0, **{knob: 0.0}), seed)
    forbidden = {knob} if knob in COMPOSITIONS else ATTACKS[knob]
    assert not triggered & forbidden
    if knob != "filter":
        assert everything - forbidden - ATTACKS["filter"] - LIKELY_ONLY <= triggered


def test_probabilities_are_about_what_they_say(triggered):
    """DINOv2 once shipped an inverted blur probability: a quarter must not come three times in four."""
    counts = dict.fromkeys(KNOBS, 0)
    augmenter = Augmenter(config(0.25), size=32)
    for seed in range(200):
        triggered.clear()
        augmenter.hard(photo(3, 32), photo(50, 32), np.random.default_rng(seed))
        for knob in KNOBS:
            mine = {knob} if knob in COMPOSITIONS else ATTACKS[knob] - LIKELY_ONLY
            counts[knob] += bool(triggered & mine)
    assert all(28 <= count <= 75 for count in counts.values()), counts  # 50 ± 3.6 deviations


# --- the same for all ------------------------------------------------------------------------------------------------


def test_the_same_generator_state_gives_the_same_views():
    settings = AugmentConfig()
    used = Augmenter(settings, size=64)
    for seed in range(15):
        fresh = Augmenter(settings, size=64)
        here, there = np.random.default_rng(seed), np.random.default_rng(seed)
        assert (used.mild(photo(), here) == fresh.mild(photo(), there)).all()
        assert (used.hard(photo(), photo(50), here) == fresh.hard(photo(), photo(50), there)).all()
        assert here.bit_generator.state == there.bit_generator.state
    assert (hard(settings, 1) != hard(settings, 2)).any()


@pytest.mark.parametrize("shape", [(8, 8), (400, 30), (30, 400), (1, 1), (33, 500), (300, 200)])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_views_are_uint8_squares_whatever_the_photo(shape, probability):
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    before = given.copy()
    settings = AugmentConfig(**dict.fromkeys(KNOBS, probability))
    for size in (32, 65):
        augmenter = Augmenter(settings, size=size)
        for _ in range(3):
            for view in (augmenter.mild(given, rng), augmenter.hard(given, given[::-1], rng)):
                assert view.shape == (size, size, 3)
                assert view.dtype == np.uint8
    assert (given == before).all()


def test_global_randomness_is_neither_used_nor_moved():
    settings = AugmentConfig(**dict.fromkeys(KNOBS, 1.0))
    np.random.seed(1)
    random.seed(1)
    numpy_before, python_before = np.random.get_state(), random.getstate()
    first = [hard(settings, seed) for seed in range(4)]
    numpy_after = np.random.get_state()
    assert random.getstate() == python_before
    assert numpy_after[2:] == numpy_before[2:]
    assert (numpy_after[1] == numpy_before[1]).all()
    np.random.seed(2)
    random.seed(2)
    assert all((hard(settings, seed) == view).all() for seed, view in enumerate(first))
