"""How strong an edit is, and copies by one edit of a wanted strength: what a robustness table has its cells from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from isc.benchmark.edits.chain import EDITS, Edit, apply_edits, can_be_found
from isc.benchmark.edits.values import Matrix, Other, Param, resized
from isc.errors import InputError
from isc.photos.decode import Pixels

__all__ = ["DEGREES", "STRENGTHS", "Degree", "kinds_and_strengths", "single_edit", "strength_of"]

STRENGTHS = ("light", "medium", "strong")
MAX_DRAWS = 400  # of one edit, until one lies in the band and can be found; the rarest band is drawn one time in twenty


@dataclass(frozen=True)
class Degree:
    """The parameter that says how strong an edit is, and where its medium and its strong band begin.

    A bound belongs to the stronger band. Where strong < medium, less is stronger: of a crop, a smaller area.
    """

    param: str
    medium: float
    strong: float
    what: str  # the parameter is, for people

    def strength(self, value: float) -> str:
        """The band of this value."""
        sign = 1 if self.strong > self.medium else -1
        return STRENGTHS[(sign * value >= sign * self.medium) + (sign * value >= sign * self.strong)]

    def beyond(self, value: float, strength: str) -> float:
        """How far outside this band the value lies, in units of the parameter; 0 inside."""
        if self.strength(value) == strength:
            return 0.0
        bounds = {"light": (self.medium,), "medium": (self.medium, self.strong), "strong": (self.strong,)}
        return max(1e-9, min(abs(value - bound) for bound in bounds[strength]))


DEGREES: Mapping[str, Degree] = MappingProxyType({
    "crop": Degree("area_percent", 45, 30, "area kept, %"),
    "rotate": Degree("angle_degrees", 15, 30, "angle, degrees, either way round"),
    "perspective": Degree("depth_percent", 23, 26.5, "furthest corner, % of the side"),
    "squeeze": Degree("length_percent", 63, 52, "length left, %"),
    "pad": Degree("picture_percent", 70, 50, "area of the picture in the copy, %"),
    "overlay_on_photo": Degree("side_percent", 60, 45, "side, % of the photo below"),
    "photo_on_top": Degree("area_percent", 20, 32, "area covered, %"),
    "text": Degree("lines", 2, 3, "lines"),
    "meme_caption": Degree("caption_percent", 18, 32, "height, % of the root of the picture's area"),
    "emoji": Degree("number", 2, 3, "number"),
    "stripes": Degree("ink_percent", 15, 25, "area × opacity, %"),
    "border": Degree("thickness_percent", 5, 9, "thickness, % of the shorter side"),
    "jitter": Degree("changed", 2, 3, "how many of brightness, contrast, saturation, hue"),
    "duotone": Degree("strength_percent", 73, 87, "strength, %"),
    "posterise": Degree("levels", 4, 2, "levels a channel"),
    "blur": Degree("sigma_percent", 0.6, 0.9, "σ, % of the longer side"),
    "motion_blur": Degree("length_percent", 4, 6, "length, % of the longer side"),
    "noise": Degree("amount", 22, 33, "σ, levels; 45 for 12 % salt and pepper"),
    "pixelise": Degree("cells", 42, 30, "cells along the longer side"),
    "sharpen": Degree("strength_percent", 60, 80, "strength, %"),
    "shuffle_blocks": Degree("moved", 4, 7, "blocks moved"),
    "fade": Degree("strength_percent", 33, 47, "strength, %"),
    "downscale": Degree("side_percent", 40, 30, "side, %"),
    "jpeg": Degree("quality", 17, 8, "quality"),
    "webp": Degree("quality", 17, 8, "quality"),
})  # fmt: skip


def kinds_and_strengths() -> tuple[tuple[str, str | None], ...]:
    """Every kind of edit with each of its strengths, light to strong; with None where it has no degree."""
    return tuple((kind, strength) for kind in EDITS for strength in (STRENGTHS if kind in DEGREES else (None,)))


def strength_of(edit: Edit) -> str | None:
    """light, medium or strong; None for a kind without a degree, such as a flip.

    None as well where the edit does not tell: `single_edit` measures six kinds (pad, meme_caption, stripes, border,
    blur, motion_blur) that in a chain are written down without their share of the picture. And None for edits of
    another library.
    """
    value = _value(edit) if type(edit) is Edit else None
    return None if value is None else DEGREES[edit.name].strength(value)


def single_edit(
    pixels: Pixels, rng: np.random.Generator, other: Other, *, kind: str, strength: str | None = None
) -> tuple[Pixels, tuple[Edit, ...], Matrix]:
    """A copy by one edit of this kind and strength, or of any strength where None; returned as by `edit_chain`.

    It is drawn until its degree lies in the band and enough of the picture is left to be found. Where none of 400 draws
    is both, as of pictures of a few pixels, it is the one that can be found, or failing that any, nearest to the band:
    `strength_of` tells. Raises InputError for an unknown kind or a strength that the kind has not.
    """
    _check(kind, strength)
    best: tuple[tuple[bool, float], tuple[Pixels, tuple[Edit, ...], Matrix]] | None = None
    for _ in range(MAX_DRAWS):
        copy, (edit,), matrix = apply_edits(pixels, (kind,), rng, other)
        edit = _measured(edit, pixels, copy, matrix)
        value = _value(edit)
        beyond = 0.0 if strength is None or value is None else DEGREES[kind].beyond(value, strength)
        rank = (not can_be_found(pixels, copy, matrix), beyond)
        if best is None or rank < best[0]:
            best = rank, (copy, (edit,), matrix)
        if rank == (False, 0.0):
            break
    assert best is not None
    return best[1]


def _check(kind: str, strength: str | None) -> None:
    if kind not in EDITS:
        raise InputError(f"kind={kind}: no such edit; expected one of {', '.join(EDITS)}")
    if strength is not None and strength not in STRENGTHS:
        raise InputError(f"strength={strength}; expected one of {', '.join(STRENGTHS)}")
    if strength is not None and kind not in DEGREES:
        raise InputError(f"strength={strength}: {kind} has no degrees; leave the strength out")


def _value(edit: Edit) -> float | None:
    """The degree in units of its bounds; None where the edit has none, or does not tell."""
    degree = DEGREES.get(edit.name)
    if degree is None:
        return None
    if edit.name == "jitter":
        return float(len(edit.params))
    value = edit.params.get(degree.param)
    if value is None:
        return None
    return abs(float(value)) * (45 / 12 if edit.params.get("kind") == "salt and pepper" else 1)


def _measured(edit: Edit, pixels: Pixels, copy: Pixels, matrix: Matrix) -> Edit:
    """The edit, with what it does not write down itself: how much it is of this picture."""
    height, width = pixels.shape[:2]
    params = edit.params
    share: Mapping[str, Callable[[], float]] = {
        "pad": lambda: matrix[0, 0] * matrix[1, 1] * width * height / (copy.shape[0] * copy.shape[1]),
        "meme_caption": lambda: (copy.shape[0] * width / copy.shape[1] - height) / math.sqrt(width * height),
        "stripes": lambda: _ink(pixels, copy, str(params["colour"])),
        "border": lambda: float(params["thickness_px"]) / min(width, height),
        "blur": lambda: float(params["sigma_px"]) / max(width, height),
        "motion_blur": lambda: float(params["length_px"]) / max(width, height),
    }
    if edit.name not in share:
        return edit
    measured: dict[str, Param] = {DEGREES[edit.name].param: round(100 * float(share[edit.name]()), 2)}
    return replace(edit, params={**params, **measured})


def _ink(pixels: Pixels, copy: Pixels, colour: str) -> float:
    """How much of this colour, such as #ff8000, was laid over the picture: 0…1, the mean of the opacity.

    The copy is picture + opacity × (colour − picture), which is solved for one opacity by least squares.
    """
    before = resized(pixels, copy.shape[1], copy.shape[0]).astype(np.float32)
    towards = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) - before
    return float(np.sum((copy - before) * towards) / max(float(np.sum(towards * towards)), 1.0))
