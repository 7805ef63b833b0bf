"""Each attack at probability 0 and 1, on real photos; the chains, their chances and their strength; fonts; mixing."""

from __future__ import annotations

import random
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from PIL import ImageFont

import isc
from isc.config.train import AugmentConfig
from isc.errors import InputError
from isc.photos.decode import Pixels, read_image
from isc.photos.folders import list_images
from isc.photos.resizing import resize
from isc.train.augment import augmenter as augment
from isc.train.augment import drawing, fonts
from isc.train.augment.attack import BaseAttack, Composition
from isc.train.augment.augmenter import Augmenter, families
from isc.train.augment.composition import PasteOnPhoto, Text
from isc.train.augment.fonts import emoji_sizes
from isc.train.augment.geometry import QuarterTurn, Tiny, cut, random_frame
from isc.train.augment.mix import cutmix, mixup
from isc.train.augment.patterns import PATTERNS
from isc.train.augment.pixels import Recompress, ShufflePixels, ShuffleTiles, SwapChannels

SIZE = 96
PHOTOS = list(list_images(Path(isc.__file__).parent / "sample").values())
KNOBS = list(families())
FAMILY = {type(attack).__name__: knob for knob, attacks in families().items() for attack in attacks}
ATTACKS = {
    f"{knob}-{number}-{type(attack).__name__}": attack
    for knob, attacks in families().items()
    for number, attack in enumerate(dict.fromkeys(attacks))
}
# families with attacks of which one at most comes: they leave a small part, or redraw the photo
ONCE = {
    knob
    for knob, attacks in families().items()
    if any(getattr(attack, "shrinks", False) or getattr(attack, "redraws", False) for attack in attacks)
}
ALL_PROBABILITIES = [name for name in vars(AugmentConfig()) if name != "min_crop"]


def config(default: float, **probabilities: float) -> AugmentConfig:
    return AugmentConfig(min_crop=1.0, **(dict.fromkeys(ALL_PROBABILITIES, default) | probabilities))


def photo(number: int = 3, size: int = SIZE) -> Pixels:
    """A square photo of the very size of the views, so that nothing is resampled."""
    return resize(read_image(PHOTOS[number]), size)


SQUARES = [photo(number) for number in (1, 30, 50, 66)]
OTHER = photo(90)


def edited(attack: A.BasicTransform, picture: Pixels, seed: int) -> Pixels:
    attack.set_random_state(np.random.default_rng(seed), random.Random(seed))
    return attack(image=picture, other=lambda: OTHER)["image"]


def hard(settings: AugmentConfig, seed: int, *, picture: Pixels | None = None, strength: float = 1.0) -> Pixels:
    given = SQUARES[0] if picture is None else picture
    augmenter = Augmenter(settings, size=SIZE)
    return augmenter.hard(given, lambda: OTHER, np.random.default_rng(seed), strength=strength)


def change(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.fixture
def applied(monkeypatch) -> list[str]:
    """Class names of the attacks in the order in which they were really applied since the list was last cleared."""
    seen: list[str] = []
    real = augment._apply
    monkeypatch.setattr(
        augment, "_apply", lambda attack, *rest: (seen.append(type(attack).__name__), real(attack, *rest))[1]
    )
    return seen


# --- each attack alone --------------------------------------------------------------------------------------------


def test_each_probability_of_the_config_has_its_attacks():
    assert set(KNOBS) <= set(ALL_PROBABILITIES)
    assert set(ALL_PROBABILITIES) - set(KNOBS) <= {"mix"}  # mixing needs two views, so the data layer does it
    assert all(attack.p == 1 for attack in ATTACKS.values())


@pytest.mark.parametrize("name", ATTACKS)
def test_at_1_an_attack_changes_a_photo_and_at_0_it_does_not(name):
    attack = ATTACKS[name]
    changed = 0
    for seed, square in enumerate(SQUARES * 3):
        before = square.copy()
        attack.p = 1
        result = edited(attack, square, seed)
        assert result.shape == (SIZE, SIZE, 3)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert not np.shares_memory(result, square)
        assert (square == before).all()
        changed += bool((result != square).any())
        attack.p = 0
        assert (edited(attack, square, seed) == square).all()
    attack.p = 1
    assert changed >= 10  # a shuffle of tiles may leave them where they were, words may fall on their own colour


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if isinstance(attack, BaseAttack)])
def test_an_attack_of_ours_at_a_quarter_comes_one_time_in_four(name):
    kind = type(ATTACKS[name])
    attack = kind(p=0.25)
    small = resize(SQUARES[0], 32)
    came = sum(edited(attack, small, seed) is not small and "seed" in attack.params for seed in range(200))
    assert 28 <= came <= 75  # 50 ± 3.6 deviations; DINOv2 once shipped an inverted blur probability


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_depends_on_its_seed_alone(name):
    assert (edited(ATTACKS[name], SQUARES[1], 5) == edited(ATTACKS[name], SQUARES[1], 5)).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (33, 64)])
@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if isinstance(attack, BaseAttack)])
def test_an_attack_of_ours_keeps_any_shape(name, shape):
    given = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for seed in range(4):
        assert edited(ATTACKS[name], given, seed).shape == given.shape


@pytest.mark.parametrize("name", ATTACKS)
def test_a_stronger_attack_changes_more(name):
    """The mean over photos and seeds at full strength is above that at a tenth, where an attack has a magnitude."""
    knob, number, kind = name.split("-")
    weak = list(dict.fromkeys(families(0.1)[knob]))[int(number)]
    means = [
        np.mean([change(edited(attack, square, seed), square) for square in SQUARES for seed in range(8)])
        for attack in (weak, ATTACKS[name])
    ]
    fixed = {
        "HorizontalFlip",
        "VerticalFlip",
        "QuarterTurn",
        "ToGray",
        "InvertImg",
        "ToSepia",
        "Equalize",
        "SwapChannels",
    }
    assert means[0] == means[1] if kind in fixed else means[0] < means[1]


def test_replay_gives_the_same_picture():
    """All choices of an attack are in its parameters, as albumentations has it."""
    attack = Text(p=1)
    first = edited(attack, SQUARES[0], 7)
    assert (attack.apply(SQUARES[0], **attack.get_applied_params()) == first).all()


# --- what some attacks promise --------------------------------------------------------------------------------------


def test_another_photo_is_fetched_only_by_the_attacks_that_need_it():
    calls = []
    for name, attack in ATTACKS.items():
        calls.clear()
        attack(image=SQUARES[0], other=lambda: (calls.append(1), OTHER)[1])
        assert len(calls) <= isinstance(attack, Composition), name
    calls.clear()
    PasteOnPhoto(p=1)(image=SQUARES[0], other=lambda: (calls.append(1), OTHER)[1])
    assert calls == [1]


def test_pasted_on_another_photo_that_photo_is_the_ground():
    black, white = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((50, 70, 3), 255, np.uint8)
    for seed in range(40):
        attack = PasteOnPhoto(p=1)
        attack.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = attack(image=black, other=lambda: white)["image"]
        covered = (result[..., 0] < 255).mean()
        assert 0.2**2 * 0.85 < covered < 0.8**2 * 1.1
        assert result.min() <= round(0.6 * 255) + 1  # at least 0.4 opaque


def test_a_tiny_photo_keeps_15_to_40_percent_of_the_side():
    """A checkerboard holds no colour of the ground other than black and white, so gray grounds and it tell apart."""
    given = np.zeros((100, 100, 3), np.uint8)
    given[..., 0] = 255  # pure red, which a plain ground is not
    sides = []
    for seed in range(60):
        result = edited(Tiny(p=1), given, seed)
        red = (result == (255, 0, 0)).all(axis=2)
        if not red.all():  # the photo's own mean may be the ground
            sides.append(np.sqrt(red.sum()))
    assert 14 <= min(sides) < 20 < 34 < max(sides) <= 41


def test_quarter_turns_are_the_three_of_them():
    turns = {tuple(edited(QuarterTurn(p=1), SQUARES[0], seed).ravel()[:300]) for seed in range(30)}
    assert turns == {tuple(np.rot90(SQUARES[0], k).ravel()[:300]) for k in (1, 2, 3)}


def test_shuffled_pixels_and_tiles_stay_the_same_pixels():
    def values(picture):
        return sorted(map(tuple, picture.reshape(-1, 3).tolist()))

    for seed in range(3):
        result = edited(ShufflePixels(p=1), SQUARES[0], seed)
        assert values(result) == values(SQUARES[0])
        assert 0.01 < (result != SQUARES[0]).any(axis=2).mean() <= 0.41
    even = SQUARES[0][:60, :60]  # 2 to 6 tiles go into 60 without a rest
    assert values(edited(ShuffleTiles(p=1), even, 1)) == values(even)


def test_swapped_channels_never_stay_as_they_were():
    colours = np.arange(3, dtype=np.uint8).reshape(1, 1, 3)
    orders = {tuple(edited(SwapChannels(p=1), colours, seed).ravel()) for seed in range(60)}
    assert orders == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}


# --- chains ---------------------------------------------------------------------------------------------------------


def test_without_attacks_and_crop_the_view_is_the_photo():
    """A square photo of the views' size, cropped to all of itself: nothing is left to change a pixel."""
    for seed in range(20):
        assert (hard(config(0.0), seed) == SQUARES[0]).all()


@pytest.mark.parametrize("knob", KNOBS)
def test_at_1_alone_the_picture_changes_by_this_family_only(knob, applied):
    ever: set[str] = set()
    for seed in range(12):
        applied.clear()
        hard(config(0.0, **{knob: 1.0}), seed)
        assert [FAMILY[name] for name in applied] == [knob]
        ever |= set(applied)
    assert len(ever) > 1 or len({type(attack) for attack in families()[knob]}) == 1


@pytest.mark.parametrize("knob", KNOBS)
def test_at_0_alone_this_family_never_comes(knob, applied):
    for seed in range(4):
        applied.clear()
        hard(config(1.0, **{knob: 0.0}), seed)
        came = {FAMILY[name] for name in applied}
        assert knob not in came
        assert set(KNOBS) - came - {knob} <= ONCE


def test_probabilities_are_about_what_they_say(applied):
    counts = dict.fromkeys(KNOBS, 0)
    augmenter = Augmenter(config(0.25), size=32)
    small = resize(SQUARES[0], 32)
    for seed in range(300):
        applied.clear()
        augmenter.hard(small, lambda: small, np.random.default_rng(seed))
        for name in applied:
            counts[FAMILY[name]] += 1
    # left out beside another one of their kind
    assert all((20 if knob in ONCE else 48) <= count <= 102 for knob, count in counts.items()), counts


def test_one_attack_at_most_leaves_a_small_part(applied):
    shrinking = {type(attack).__name__ for attack in ATTACKS.values() if getattr(attack, "shrinks", False)}
    ours = {"Strip", "Collage", "PictureInPicture", "Story", "TwoPanels", "Demotivator"}
    assert shrinking == {"PasteOnPhoto", "Screenshot", "Tiny"} | ours
    for seed in range(30):
        applied.clear()
        hard(config(0.0, overlay=1.0, screenshot=1.0, tiny=1.0, collage=1.0, layout=1.0, jpeg=1.0), seed)
        assert sum(name in shrinking for name in applied) == 1


def test_the_order_is_free_and_recompression_often_last(applied):
    orders = set()
    for seed in range(60):
        applied.clear()
        hard(config(0.0, gray=1.0, opacity=1.0, jpeg=1.0), seed)
        orders.add(tuple(applied))
    assert len(orders) == 6
    last = sum(order[-1] == Recompress.__name__ for order in orders)
    assert last == 2


def test_one_attack_at_most_redraws(applied):
    redrawing = {type(attack).__name__ for attack in ATTACKS.values() if getattr(attack, "redraws", False)}
    assert redrawing >= {"Sketch", "Threshold", "Halftone", "Contour"}
    for seed in range(30):
        applied.clear()
        hard(config(0.0, print=1.0, artistic=1.0, palette=1.0, edge=1.0, jpeg=1.0), seed)
        assert sum(name in redrawing for name in applied) <= 1
        assert "Recompress" in applied


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    """Of 3,000 views as the configuration has them: how many edits, and how many of them mirror."""
    level = Augmenter(AugmentConfig(), size=32)._level(1.0)
    chains = [augment._chain(level, np.random.default_rng(seed)) for seed in range(3000)]
    return np.array(
        [(len(chain), sum(FAMILY[type(attack).__name__] == "flip" for attack in chain)) for chain in chains]
    )


def test_an_average_view_has_about_four_edits_of_which_one_is_a_pattern(lengths):
    assert 3.5 < lengths[:, 0].mean() < 4.2
    settings = AugmentConfig()
    assert 1.1 < sum(getattr(settings, knob) for knob in PATTERNS) < 1.4


def test_some_views_have_few_edits_and_some_many(lengths):
    edits = lengths[:, 0]
    assert 0.07 < (edits <= 1).mean() < 0.2
    assert 0.07 < (edits >= 6).mean() < 0.3


def test_mirroring_comes_as_often_beside_few_edits_as_beside_many(lengths):
    others, mirrored = lengths[:, 0] - lengths[:, 1], lengths[:, 1]
    assert abs(mirrored[others <= 2].mean() - 0.5) < 0.05
    assert abs(mirrored[others >= 4].mean() - 0.5) < 0.05


# --- strength -------------------------------------------------------------------------------------------------------


def test_strength_0_leaves_the_edits_of_the_mild_view(applied):
    ramp = np.zeros((200, 200, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200)[None, :], np.arange(200)[:, None]
    settings = AugmentConfig(**dict.fromkeys(ALL_PROBABILITIES, 1.0))
    for seed in range(30):
        view = hard(settings, seed, picture=ramp, strength=0.0).astype(float)
        across, down = view[..., 0].mean(axis=0), view[..., 1].mean(axis=1)
        assert abs(across[-1] - across[0]) / 200 * (down[-1] - down[0]) / 200 > 0.62
    assert set(applied) == {"HorizontalFlip"}
    assert 6 <= len(applied) <= 24


@pytest.mark.slow
def test_the_mean_change_grows_with_strength():
    settings = AugmentConfig(min_crop=0.3)
    means = [
        np.mean(
            [
                change(hard(settings, seed, picture=SQUARES[seed % 4], strength=s), SQUARES[seed % 4])
                for seed in range(120)
            ]
        )
        for s in (0.0, 0.35, 0.7, 1.0)
    ]
    assert means == sorted(means)


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_an_impossible_strength_is_refused(strength):
    with pytest.raises(ValueError, match=r"strength=.*0…1"):
        hard(AugmentConfig(), 0, strength=strength)


# --- crops ----------------------------------------------------------------------------------------------------------


def test_without_attacks_the_hard_view_is_a_crop():
    """Columns and rows carry their own number, so that what is left tells where it came from."""
    ramp = np.zeros((200, 200, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200)[None, :], np.arange(200)[:, None]
    settings = AugmentConfig(min_crop=0.25, **dict.fromkeys(ALL_PROBABILITIES, 0.0))
    shares = []
    for seed in range(60):
        view = hard(settings, seed, picture=ramp).astype(float)
        across, down = view[..., 0].mean(axis=0), view[..., 1].mean(axis=1)
        assert np.ptp(view[..., 0], axis=0).max() <= 1  # a column stays a column
        assert np.ptp(view[..., 1], axis=1).max() <= 1
        assert (np.diff(across) >= 0).all()  # neither mirrored nor turned
        assert (np.diff(down) >= 0).all()
        assert (view[..., 2] == 0).all()
        shares.append((across[-1] - across[0] + 2) / 200 * (down[-1] - down[0] + 2) / 200)
    assert 0.2 < min(shares) < 0.5  # the least area is asked for, and nearly reached


def test_min_crop_holds_for_a_panorama():
    ramp = np.zeros((50, 250, 3), np.uint8)
    ramp[..., 0] = np.arange(250)
    for seed in range(10):
        assert np.ptp(hard(config(0.0), seed, picture=ramp)[..., 0]) > 240


def test_a_panorama_is_not_always_cut_in_its_middle():
    ramp = np.zeros((50, 250, 3), np.uint8)
    ramp[..., 0] = np.arange(250)
    middles = [
        cut(ramp, random_frame(ramp.shape, np.random.default_rng(seed), least=0.15, stretch=2.0), 32)[..., 0].mean()
        for seed in range(40)
    ]
    assert min(middles) < 90
    assert max(middles) > 160


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


# --- the same for all -----------------------------------------------------------------------------------------------


def test_the_same_generator_state_gives_the_same_views():
    settings = AugmentConfig()
    used = Augmenter(settings, size=64)
    for seed in range(30):
        fresh = Augmenter(settings, size=64)
        here, there = np.random.default_rng(seed), np.random.default_rng(seed)
        assert (used.mild(OTHER, here) == fresh.mild(OTHER, there)).all()
        views = [it.hard(SQUARES[0], lambda: OTHER, rng) for it, rng in ((used, here), (fresh, there))]
        assert (views[0] == views[1]).all()
        assert here.bit_generator.state == there.bit_generator.state
    assert (hard(settings, 1) != hard(settings, 2)).any()


@pytest.mark.parametrize("shape", [(8, 8), (400, 30), (30, 400), (1, 1), (3, 500), (300, 200)])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_views_are_uint8_squares_whatever_the_photo(shape, probability):
    rng = np.random.default_rng(0)
    given = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    before = given.copy()
    settings = AugmentConfig(**dict.fromkeys(ALL_PROBABILITIES, probability))
    for size in (32, 65):
        augmenter = Augmenter(settings, size=size)
        for _ in range(3):
            for view in (augmenter.mild(given, rng), augmenter.hard(given, lambda: given[::-1], rng)):
                assert view.shape == (size, size, 3)
                assert view.dtype == np.uint8
    assert (given == before).all()


def test_global_randomness_is_neither_used_nor_moved():
    settings = AugmentConfig(**dict.fromkeys(ALL_PROBABILITIES, 1.0))
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


# --- fonts ----------------------------------------------------------------------------------------------------------


def forget_fonts() -> None:
    for kept in (fonts._files, fonts.emoji_font, fonts.fonts_by_script, fonts.emoji_sizes, drawing._sprites):
        kept.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder in which fonts are looked for; empty."""
    monkeypatch.setattr(fonts, "FOLDERS", (str(tmp_path),))
    forget_fonts()
    yield tmp_path
    monkeypatch.undo()
    forget_fonts()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("knob", ["text", "emoji", "meme", "screenshot"])
def test_without_fonts_pillows_own_and_drawn_faces_do(knob):
    assert fonts.fonts_by_script() == {}
    assert fonts.fonts_used().startswith("0 fonts, 0 scripts, emoji drawn")
    pictures = [hard(config(0.0, **{knob: 1.0}), seed) for seed in range(8)]
    assert sum(bool((picture != SQUARES[0]).any()) for picture in pictures) >= 7
    again = [hard(config(0.0, **{knob: 1.0}), seed) for seed in range(8)]
    assert all((a == b).all() for a, b in zip(pictures, again, strict=True))


def test_a_broken_font_file_is_passed_over(folder):
    (folder / "broken.ttf").write_bytes(b"no font")
    (folder / "NotoColorEmoji.ttf").write_bytes(b"no font")
    (folder / "notes.txt").write_text("no font")
    forget_fonts()
    assert fonts.fonts_by_script() == {}
    assert fonts.emoji_sizes() is None
    assert hard(config(0.0, text=1.0, emoji=1.0), 0).shape == (SIZE, SIZE, 3)


def test_the_record_of_fonts_changes_with_the_fonts(folder):
    none = fonts.fonts_used()
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    (folder / "aileron.otf").write_bytes(font.font_bytes)
    forget_fonts()
    assert fonts.fonts_by_script() == {"ascii": (str(folder / "aileron.otf"),)}  # it has no letters with accents
    assert fonts.fonts_used() != none
    assert fonts.fonts_used() == fonts.fonts_used()


@pytest.mark.usefixtures("folder")
def test_pillows_own_font_has_every_letter_that_is_written_with_it():
    font = ImageFont.load_default(20)
    box = bytes(font.getmask("\uffff", mode="L"))
    assert all(bytes(font.getmask(letter, mode="L")) != box for letter in fonts._letters("ascii"))
    for seed in range(20):
        assert drawing.some_font(np.random.default_rng(seed)) == ("ascii", "")


def test_found_fonts_have_a_glyph_for_every_word():
    """The picture of a word differs from as many boxes for missing letters."""
    for script, paths in fonts.fonts_by_script().items():
        font = ImageFont.FreeTypeFont(paths[0], 24, layout_engine=ImageFont.Layout.BASIC)
        boxes = bytes(font.getmask("\uffff", mode="L"))
        for letter in fonts._letters(script):
            assert bytes(font.getmask(letter, mode="L")) != boxes, (script, paths[0], letter)


@pytest.mark.skipif(emoji_sizes() is None, reason="needs a colour emoji font (Debian: fonts-noto-color-emoji)")
def test_emoji_are_coloured_and_premultiplied():
    sprites = [drawing.sprite(number) for number in range(0, len(drawing.EMOJI), 10)]
    for image in sprites:
        assert image.shape == (96, 96, 4)
        assert (image[..., :3] <= image[..., 3:]).all()
        assert image[..., 3].any()
    assert len({image.tobytes() for image in sprites}) > len(sprites) / 2


# --- drawing --------------------------------------------------------------------------------------------------------


def test_ink_by_hand():
    picture = np.zeros((3, 3, 3), np.uint8)
    mask = np.array([[255, 128], [0, 255]], np.uint8)
    drawing.ink(picture, mask, (200, 100, 0), top=1, left=2, opacity=0.5)  # the second column falls off
    assert picture[1, 2].tolist() == [100, 50, 0]
    assert picture.sum() == 150
    drawing.ink(picture, mask, (200, 100, 0), top=-5, left=-5)
    assert picture.sum() == 150


def test_a_sprite_by_hand():
    picture = np.full((2, 2, 3), 100, np.uint8)
    half = np.array([[[100, 0, 0, 128]]], np.uint8)  # (200, 0, 0) half covering, premultiplied
    drawing.put_sprite(picture, half, top=0, left=1)
    assert picture[0, 1].tolist() == [150, 50, 50]  # 100 · (1 − 128/255) = 49.8, + 100 and + 0
    assert (picture[0, 0] == 100).all()
    assert (picture[1] == 100).all()


# --- mixing ---------------------------------------------------------------------------------------------------------


class Draws:
    """Stands in for a generator: a fixed share, and places as far down and right as allowed."""

    def __init__(self, share: float) -> None:
        self.share = share

    def beta(self, a: float, b: float) -> float:
        assert (a, b) == (2, 2)
        return self.share

    def integers(self, low: int, high: int) -> int:
        assert low == 0
        return high - 1


def test_mixup_by_hand():
    a, b = np.full((2, 3, 3), 100, np.uint8), np.full((2, 3, 3), 200, np.uint8)
    picture, share = mixup(a, b, Draws(0.25))
    assert share == 0.25
    assert picture.dtype == np.uint8
    assert (picture == 175).all()  # 0.25 · 100 + 0.75 · 200
    assert (a == 100).all()


def test_cutmix_by_hand():
    a, b = np.zeros((8, 16, 3), np.uint8), np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    picture, share = cutmix(a, b, Draws(0.75))  # the rectangle has half of each side
    assert share == 0.75
    assert (picture[4:, 8:] == b[4:, 8:]).all()
    assert (picture[:4] == 0).all()
    assert (picture[:, :8] == 0).all()
    assert (a == 0).all()


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_shares_lie_between_0_and_1_and_say_what_is_seen(mix):
    a, b = np.zeros((50, 40, 3), np.uint8), np.full((50, 40, 3), 255, np.uint8)
    shares = []
    for seed in range(300):
        picture, share = mix(a, b, np.random.default_rng(seed))
        assert 0 <= share <= 1
        assert abs((1 - picture.mean() / 255) - share) < 0.003
        shares.append(share)
    assert abs(np.mean(shares) - 0.5) < 0.05  # Beta(2, 2): mean 1/2, deviation √(1/20)
    assert abs(np.std(shares) - 0.05**0.5) < 0.03


# --- config ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL_PROBABILITIES)
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_0_to_1_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"augment\.{name}=.*0…1"):
        AugmentConfig(**{name: value})


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5])
def test_an_impossible_crop_is_refused(value):
    with pytest.raises(InputError, match=r"augment\.min_crop="):
        AugmentConfig(min_crop=value)
