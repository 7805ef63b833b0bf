"""ImageMagick's filters and distortions; radii are for pictures whose longest side is about 360 pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from PIL import Image

from benchmarks.tool_judge.draws import Draws, Made, hexed
from benchmarks.tool_judge.tools import magick

Options = tuple[str, ...]


def _filter(draw: Callable[[Draws, Image.Image], Options]) -> Callable[[Image.Image, Draws], Made]:
    """Return a kind of edit, made from a function that draws the options of `convert`."""

    def edit(image: Image.Image, draws: Draws) -> Made:
        options, seed = draw(draws, image), draws.seed()
        return magick(image, *options, seed=seed), {"options": " ".join(options), "seed": seed}

    return edit


def _emboss(draws: Draws, _: Image.Image) -> Options:
    blend = draws.whole(0, 60)
    return ("(", "+clone", "-emboss", f"0x{draws.number(0.8, 1.8)}", ")", "+swap", "-compose", "blend",
            "-define", f"compose:args={blend}", "-composite")  # fmt: skip


def _charcoal(draws: Draws, _: Image.Image) -> Options:
    return ("-charcoal", f"{draws.number(0.6, 2.5)}")


def _sketch(draws: Draws, _: Image.Image) -> Options:
    """Divide the photo by its blurred copy, which leaves lines on white."""
    grey: Options = ("-colorspace", "Gray") if draws.chance(0.6) else ()
    copy = ("(", "+clone", "-negate", "-blur", f"0x{draws.number(3, 9)}", ")")
    return (*grey, *copy, "-compose", "ColorDodge", "-composite", "-gamma", f"{draws.number(0.4, 0.8)}")


def _oil_paint(draws: Draws, _: Image.Image) -> Options:
    return ("-paint", f"{draws.number(2, 5)}")


def _few_colours(draws: Draws, _: Image.Image) -> Options:
    dither = draws.one_of(("None", "FloydSteinberg", "Riemersma"))
    if draws.chance(0.3):
        return ("-dither", dither, "-posterize", f"{draws.whole(2, 4)}")
    return ("-dither", dither, "-colors", f"{draws.whole(4, 16)}")


def _halftone(draws: Draws, _: Image.Image) -> Options:
    screen = draws.one_of(("h4x4a", "h6x6a", "h4x4o", "h6x6o", "o4x4", "o8x8", "c5x5b", "checks"))
    grey: Options = ("-colorspace", "Gray") if draws.chance(0.4) else ()
    return (*grey, "-ordered-dither", f"{screen},{draws.whole(2, 4)}")


def _spread(draws: Draws, _: Image.Image) -> Options:
    return ("-spread", f"{draws.whole(2, 7)}")


def _swirl(draws: Draws, _: Image.Image) -> Options:
    return ("-swirl", f"{draws.sign() * draws.whole(25, 110)}")


def _implode(draws: Draws, _: Image.Image) -> Options:
    return ("-implode", f"{draws.number(0.15, 0.5) if draws.chance(0.5) else -draws.number(0.2, 0.9)}")


def _wave(draws: Draws, image: Image.Image) -> Options:
    turned: Options = ("-rotate", "90") if draws.chance(0.4) else ()
    back: Options = ("-rotate", "-90") if turned else ()
    ground = ("-background", hexed(draws.colour()))
    length = draws.number(0.15, 0.7) * max(image.size)
    return (*ground, *turned, "-wave", f"{draws.number(4, 13)}x{length:.0f}", *back)


def _barrel(draws: Draws, _: Image.Image) -> Options:
    a, b = (draws.number(-0.1, 0.3), draws.number(-0.2, 0.4))
    ground = ("-virtual-pixel", draws.one_of(("black", "white", "edge", "mirror")))
    return (*ground, "-distort", "Barrel", f"{a} {b} 0.0 {1 - (a + b) * draws.number(0, 1):.4f}")


def _perspective_warp(draws: Draws, image: Image.Image) -> Options:
    width, height = image.size
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    moved = []
    for x, y in corners:
        inwards = draws.number(0, 0.28) * width, draws.number(0, 0.28) * height
        moved.append((abs(x - inwards[0]), abs(y - inwards[1])))
    pairs = (f"{x},{y} {to_x:.1f},{to_y:.1f}" for (x, y), (to_x, to_y) in zip(corners, moved, strict=True))
    ground = ("-virtual-pixel", draws.one_of(("black", "white", "gray", "edge", "mirror")))
    return (*ground, "-distort", "Perspective", "  ".join(pairs))


def _shear(draws: Draws, _: Image.Image) -> Options:
    both = [draws.sign() * draws.whole(8, 26), draws.sign() * draws.whole(0, 10)]
    if draws.chance(0.4):
        both.reverse()
    return ("-background", hexed(draws.colour()), "-shear", f"{both[0]}x{both[1]}")


def _rotation(draws: Draws, _: Image.Image) -> Options:
    angle = draws.sign() * draws.number(6, 60 if draws.chance(0.7) else 175)
    if draws.chance(0.4):  # keeps the picture's size
        return ("-virtual-pixel", draws.one_of(("edge", "mirror", "tile", "black")), "-distort", "SRT", f"{angle}")
    return ("-background", hexed(draws.colour()), "-rotate", f"{angle}")


def _vignette(draws: Draws, image: Image.Image) -> Options:
    inset = draws.number(0.02, 0.14) * min(image.size)
    ground = ("-background", draws.one_of(("black", "white", hexed(draws.colour()))))
    return (*ground, "-vignette", f"0x{draws.whole(8, 40)}+{inset:.0f}+{inset:.0f}")


def _solarize(draws: Draws, _: Image.Image) -> Options:
    return ("-solarize", f"{draws.whole(40, 75)}%")


def _negative(draws: Draws, _: Image.Image) -> Options:
    return ("-channel", draws.one_of(("RGB", "RGB", "R", "G", "B", "RG")), "-negate")


def _tone(draws: Draws, _: Image.Image) -> Options:
    modulate = ("-modulate", f"{draws.whole(60, 150)},{draws.whole(0, 260)},{draws.whole(50, 150)}")
    level = ("-level", f"{draws.whole(0, 35)}%,{draws.whole(60, 100)}%,{draws.number(0.6, 1.7)}")
    flat = ("+level", f"{draws.whole(5, 35)}%,{draws.whole(60, 95)}%")
    gamma = ("-gamma", f"{draws.number(0.4, 0.8) if draws.chance(0.5) else draws.number(1.4, 2.6)}")
    others: tuple[Options, ...] = (
        ("-equalize",),
        ("-normalize",),
        ("-sigmoidal-contrast", f"{draws.whole(4, 12)}x50%"),
    )
    return draws.one_of((modulate, (*modulate, *level), flat, gamma, (*modulate, *gamma), *others))


def _night(draws: Draws, _: Image.Image) -> Options:
    return ("-blue-shift", f"{draws.number(1.1, 2.2)}")


def _tint(draws: Draws, _: Image.Image) -> Options:
    fill = ("-fill", hexed((draws.whole(0, 255), draws.whole(0, 255), draws.whole(0, 255))))
    sepia = ("-sepia-tone", f"{draws.whole(70, 95)}%")
    grey_tint = ("-colorspace", "Gray", "-colorspace", "sRGB", *fill, "-tint", f"{draws.whole(70, 140)}")
    return draws.one_of((sepia, grey_tint, (*fill, "-tint", f"{draws.whole(60, 140)}"),
                         (*fill, "-colorize", f"{draws.whole(20, 60)}")))  # fmt: skip


def _frame(draws: Draws, image: Image.Image) -> Options:
    thick = round(draws.number(0.03, 0.13) * min(image.size))
    way = draws.one_of(("raise", "frame", "border", "polaroid"))
    if way == "raise":
        return ("-raise", f"{thick}")
    if way == "frame":
        return ("-mattecolor", hexed(draws.colour()), "-frame", f"{thick}x{thick}+{thick // 3}+{thick // 3}")
    if way == "border":
        second = ("-bordercolor", hexed(draws.colour()), "-border", f"{thick // 2}x{thick // 2}")
        return ("-bordercolor", hexed(draws.colour()), "-border", f"{thick}x{draws.whole(thick, 3 * thick)}", *second)
    polaroid = ("-bordercolor", "snow", "-background", "black", "-polaroid", f"{draws.sign() * draws.number(0, 14)}")
    return (*polaroid, "-background", hexed(draws.colour()))


def _motion(draws: Draws, _: Image.Image) -> Options:
    return draws.one_of((
        ("-motion-blur", f"0x{draws.whole(4, 11)}+{draws.whole(0, 180)}"),
        ("-rotational-blur", f"{draws.whole(4, 14)}"),
        ("-adaptive-blur", f"0x{draws.number(2, 5)}"),
        ("-blur", f"0x{draws.number(1.5, 4)}"),
    ))  # fmt: skip


def _grain(draws: Draws, _: Image.Image) -> Options:
    kind = draws.one_of(("Gaussian", "Impulse", "Laplacian", "Poisson", "Multiplicative", "Uniform"))
    much = draws.number(1.5, 4) if kind in ("Gaussian", "Laplacian", "Multiplicative") else draws.number(0.6, 2)
    if kind == "Uniform":
        much = draws.number(3, 8)
    return ("-attenuate", f"{much}", "+noise", kind)


def _shadow(draws: Draws, image: Image.Image) -> Options:
    ground = ("-background", hexed(draws.colour()))
    margin = f"{draws.number(0.05, 0.25) * min(image.size):.0f}"
    dark = ("-background", hexed(draws.colour()))
    cast = f"{draws.whole(50, 90)}x{draws.whole(3, 9)}+{draws.whole(5, 16)}+{draws.whole(5, 16)}"
    shadow = ("(", "+clone", *dark, "-shadow", cast, ")")
    merged = ("+swap", *ground, "-layers", "merge", "+repage")
    return (*shadow, *merged, "-bordercolor", ground[1], "-border", f"{margin}x{margin}")


def _gradient_overlay(draws: Draws, image: Image.Image) -> Options:
    width, height = image.size
    points = " ".join(
        f"{x},{y} {hexed((draws.whole(0, 255), draws.whole(0, 255), draws.whole(0, 255)))}"
        for x, y in ((0, 0), (width - 1, 0), (draws.whole(0, width - 1), height - 1))
    )
    overlay = ("(", "+clone", "-sparse-color", "Barycentric", points, ")")
    how = draws.one_of(("blend", "blend", "overlay", "multiply", "screen"))
    share: Options = ("-define", f"compose:args={draws.whole(30, 60)}") if how == "blend" else ()
    return (*overlay, "-compose", how, *share, "-composite")


FILTERS: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType({
    name: _filter(draw)
    for name, draw in {
        "emboss": _emboss, "charcoal": _charcoal, "sketch": _sketch, "oil_paint": _oil_paint,
        "few_colours": _few_colours, "halftone": _halftone, "spread": _spread, "solarize": _solarize,
        "negative": _negative, "tone": _tone, "night": _night, "tint": _tint, "motion": _motion, "grain": _grain,
        "gradient_overlay": _gradient_overlay, "vignette": _vignette,
    }.items()
})  # fmt: skip
DISTORTIONS: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType({
    name: _filter(draw)
    for name, draw in {
        "swirl": _swirl, "implode": _implode, "wave": _wave, "barrel": _barrel, "perspective_warp": _perspective_warp,
        "shear": _shear, "rotation": _rotation, "frame": _frame, "shadow": _shadow,
    }.items()
})  # fmt: skip
