"""The random choice of AugLy's edits and of their parameters, and the check of AugLy's installation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from isc.errors import InputError

INSTALL = "python -m pip install --no-deps augly==1.0.0 iopath==0.1.10 portalocker python-magic regex"
VERSION = "1.0.0"

Params = dict[str, Any]  # JSON: photos, emoji, fonts and filters by name

FILTERS = (
    "BLUR", "CONTOUR", "DETAIL", "EDGE_ENHANCE", "EDGE_ENHANCE_MORE", "EMBOSS", "FIND_EDGES", "SHARPEN", "SMOOTH_MORE",
)  # fmt: skip
PHRASES = (
    "LOL", "when you see it", "Monday again", "so true", "nobody:\nme:", "wait for it", "one does not simply", "2021",
    "best day ever", "what is this\neven", "share if you agree", "no comment", "told you so", "WOW",
)  # fmt: skip


@dataclass(frozen=True)
class Dice:
    """The source of random parameters: a generator, the picture's size in pixels, and ids of photos for overlays."""

    rng: np.random.Generator
    width: int
    height: int
    photos: Sequence[str]

    @property
    def side(self) -> int:
        return min(self.width, self.height)

    def number(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 4)

    def whole(self, low: int, high: int) -> int:
        """Draw an integer in low…high, both included."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, things: Sequence[Any]) -> Any:
        return things[int(self.rng.integers(len(things)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def colour(self) -> list[int]:
        """Draw black, white or any colour, each with probability ⅓."""
        drawn: list[int] = self.one_of([[0, 0, 0], [255, 255, 255], [self.whole(0, 255) for _ in range(3)]])
        return drawn

    def factor(self, low: float, high: float) -> float:
        """Draw a factor in low…0.9 or in 1.1…high, each with probability ½."""
        return self.number(low, 0.9) if self.chance(0.5) else self.number(1.1, high)


def _crop(dice: Dice) -> Params:
    width, height = dice.number(0.4, 0.95), dice.number(0.4, 0.95)
    x, y = dice.number(0, 1 - width), dice.number(0, 1 - height)
    return {"x1": x, "y1": y, "x2": round(x + width, 4), "y2": round(y + height, 4)}


def _perspective(dice: Dice) -> Params:
    cropped = dice.chance(0.3)
    return {
        "sigma": round(dice.side * dice.number(0.03, 0.08 if cropped else 0.16), 2),
        "seed": dice.whole(0, 2**31 - 1),
        "crop_out_black_border": cropped,
    }


def _onto_background(dice: Dice) -> Params:
    size = dice.number(0.3, 0.8)
    return {
        "background_image": dice.one_of(dice.photos),
        "overlay_size": size,
        "x_pos": dice.number(0, 1 - size),
        "y_pos": dice.number(0, 1 - size),
        "opacity": 1.0 if dice.chance(0.7) else dice.number(0.6, 1),
        "scale_bg": dice.chance(0.5),
    }


def _image(dice: Dice) -> Params:
    return {
        "overlay": dice.one_of(dice.photos),
        "overlay_size": dice.number(0.25, 0.65),
        "x_pos": dice.number(0, 0.7),
        "y_pos": dice.number(0, 0.7),
        "opacity": 1.0 if dice.chance(0.7) else dice.number(0.3, 1),
    }


def _emoji(dice: Dice) -> Params:
    size = dice.number(0.15, 0.6)
    return {
        "emoji_path": dice.one_of(emojis()),
        "emoji_size": size,
        "x_pos": dice.number(0, 1 - size),
        "y_pos": dice.number(0, 1 - size),
        "opacity": 1.0 if dice.chance(0.6) else dice.number(0.4, 1),
    }


def _text(dice: Dice) -> Params:
    lines = [[dice.whole(0, 9999) for _ in range(dice.whole(4, 12))] for _ in range(dice.whole(1, 4))]
    return {
        "text": lines,
        "font_file": dice.one_of(fonts()),
        "font_size": dice.number(0.08, 0.28),
        "color": dice.colour(),
        "x_pos": dice.number(0, 0.4),
        "y_pos": dice.number(0, 0.7),
        "opacity": 1.0 if dice.chance(0.6) else dice.number(0.4, 1),
    }


def _screenshot(dice: Dice) -> Params:
    return {
        "template_filepath": dice.one_of(["mobile.png", "web.png"]),
        "crop_src_to_fit": dice.chance(0.3),
        "resize_src_to_match_template": dice.chance(0.5),
    }


def _stripes(dice: Dice) -> Params:
    return {
        "line_width": dice.number(0.1, 0.6),
        "line_color": dice.colour(),
        "line_angle": dice.number(-90, 90),
        "line_density": dice.number(0.5, 0.9),
        "line_type": dice.one_of(["dotted", "dashed", "solid"]),
        "line_opacity": dice.number(0.4, 1),
    }


def _meme(dice: Dice) -> Params:
    return {
        "text": dice.one_of(PHRASES),
        "caption_height": max(30, round(dice.height * dice.number(0.15, 0.5))),
        "meme_bg_color": dice.colour() if dice.chance(0.3) else [255, 255, 255],
        "text_color": dice.colour() if dice.chance(0.3) else [0, 0, 0],
    }


def _jitter(dice: Dice) -> Params:
    return {f"{what}_factor": dice.factor(0.4, 2.0) for what in ("brightness", "contrast", "saturation")}


def _convert(dice: Dice) -> Params:
    mode = dice.one_of(["1", "L", "P"])
    few = {"palette": int(Image.Palette.ADAPTIVE), "colors": dice.whole(4, 32)}
    return {"mode": mode} | (few if mode == "P" else {})


def _resolution(dice: Dice) -> Params:
    return {"max_resolution": round(dice.width * dice.height * dice.number(0.1, 0.7))}


def _ratio(dice: Dice) -> Params:
    return {"ratio": round(dice.width / dice.height * dice.factor(0.5, 2.0), 4)}


Draw = Callable[[Dice], Params]

# All edits of AugLy 1.0.0 except apply_lambda and masked_composite, which take another edit, and resize, which combines
# scale and change_aspect_ratio. Lengths in pixels are shares of the picture's shorter side.
FAMILIES: Mapping[str, tuple[float, Mapping[str, Draw]]] = MappingProxyType({  # probability and edits of each family
    "composition": (0.35, {
        "meme_format": _meme,
        "overlay_emoji": _emoji,
        "overlay_image": _image,
        "overlay_onto_background_image": _onto_background,
        "overlay_onto_screenshot": _screenshot,
        "overlay_stripes": _stripes,
        "overlay_text": _text,
        "pad": lambda d: {"w_factor": d.number(0, 0.4), "h_factor": d.number(0, 0.4), "color": d.colour()},
        "pad_square": lambda d: {"color": d.colour()},
    }),
    "geometry": (0.3, {
        "change_aspect_ratio": _ratio,
        "clip_image_size": _resolution,
        "crop": _crop,
        "hflip": lambda _: {},
        "perspective_transform": _perspective,
        "rotate": lambda d: {"degrees": d.number(-40, 40) if d.chance(0.5) else d.number(-180, 180)},
        "scale": lambda d: {"factor": d.number(0.3, 0.9)},
        "skew": lambda d: {"skew_factor": d.number(-0.6, 0.6), "axis": d.whole(0, 1)},
        "vflip": lambda _: {},
    }),
    "quality": (0.2, {
        "apply_pil_filter": lambda d: {"filter_type": d.one_of(FILTERS)},
        "blur": lambda d: {"radius": round(d.side * d.number(0.005, 0.03), 3)},
        "encoding_quality": lambda d: {"quality": d.whole(4, 40)},
        "pixelization": lambda d: {"ratio": d.number(0.08, 0.5)},
        "random_noise": lambda d: {"var": d.number(0.005, 0.08), "seed": d.whole(0, 2**31 - 1)},
        "sharpen": lambda d: {"factor": d.number(2, 20)},
        "shuffle_pixels": lambda d: {"factor": d.number(0.05, 0.4), "seed": d.whole(0, 2**31 - 1)},
    }),
    "colour": (0.15, {
        "brightness": lambda d: {"factor": d.factor(0.3, 2.2)},
        "color_jitter": _jitter,
        "contrast": lambda d: {"factor": d.factor(0.3, 2.5)},
        "convert_color": _convert,
        "grayscale": lambda d: {"mode": d.one_of(["luminosity", "average"])},
        "opacity": lambda d: {"level": d.number(0.25, 0.8)},
        "saturation": lambda d: {"factor": d.factor(0.0, 4.0)},
    }),
})  # fmt: skip
EDITS: Mapping[str, Draw] = MappingProxyType(
    {name: draw for _, edits in FAMILIES.values() for name, draw in edits.items()}
)

PASTING = frozenset({"overlay_onto_background_image", "overlay_onto_screenshot"})
CUTTING = frozenset({"crop", "rotate", "perspective_transform", "skew"})
ALTERNATIVES = (  # a chain holds at most one edit of each group: two would leave nothing to find
    PASTING | {"overlay_image"},
    frozenset({"blur", "pixelization", "shuffle_pixels", "random_noise", "apply_pil_filter"}),
    frozenset({"clip_image_size", "scale", "pixelization"}),
    frozenset({"grayscale", "convert_color", "saturation", "color_jitter"}),
    frozenset({"brightness", "contrast", "color_jitter", "opacity"}),
    frozenset({"pad", "pad_square"}),
)


def require_augly() -> None:
    """Raise InputError, with the command to install it, if AugLy or one of its imports is missing."""
    try:
        import augly.image  # noqa: F401
    except ModuleNotFoundError as error:
        name = (error.name or "augly").partition(".")[0]
        raise InputError(f"{name} not installed; expected AugLy {VERSION}: {INSTALL}") from error
    except ImportError as error:  # python-magic needs its C library at import
        raise InputError(f"augly cannot be imported ({error}); expected libmagic (Debian: libmagic1)") from error


def draw_names(rng: np.random.Generator, number: int) -> tuple[str, ...]:
    """Draw `number` different edits in the order of their application, at most one of each group in ALTERNATIVES."""
    share = [share for share, _ in FAMILIES.values()]
    while True:
        families = [list(FAMILIES.values())[i][1] for i in rng.choice(len(FAMILIES), number, p=share)]
        names = [list(family)[int(rng.integers(len(family)))] for family in families]
        if len(set(names)) == number and all(len(group & set(names)) <= 1 for group in ALTERNATIVES):
            cutting = [name for name in names if name in CUTTING]
            pasting = [name for name in names if name in PASTING]
            if not pasting:
                return tuple(names)
            others = [name for name in names if name not in CUTTING | PASTING]
            at = int(rng.integers(len(others) + 1))
            return (*cutting, *others[:at], *pasting, *others[at:])


def assets() -> Path:
    """Return AugLy's folder of emoji, fonts and screenshots. Raises InputError if AugLy is not installed."""
    require_augly()
    import augly

    return Path(augly.__path__[0]) / "assets"


@cache
def emojis() -> tuple[str, ...]:
    """Return AugLy's emoji, as paths below its emoji folder."""
    folder = assets() / "twemojis"
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")))


@cache
def fonts() -> tuple[str, ...]:
    """Return AugLy's fonts that come with a list of their characters, which overlay_text needs."""
    return tuple(sorted(path.name for path in (assets() / "fonts").glob("*.ttf") if path.with_suffix(".pkl").exists()))
