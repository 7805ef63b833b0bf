"""The strength of an edit, and copies by a single edit of a given strength, for the cells of a robustness table."""

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
MAX_DRAWS = 400  # most draws of one edit until its strength fits; the rarest band comes in one draw of twenty


@dataclass(frozen=True)
class Degree:
    """The parameter that measures the strength of an edit, and the bounds where its medium and its strong band begin.

    A bound belongs to the stronger band. If strong < medium, a smaller value is stronger, as the area of a crop.
    """

    param: str
    medium: float
    strong: float
    what: str  # description of the parameter

    def strength(self, value: float) -> str:
        """Return the band of this value, one of STRENGTHS."""
        sign = 1 if self.strong > self.medium else -1
        return STRENGTHS[(sign * value >= sign * self.medium) + (sign * value >= sign * self.strong)]

    def beyond(self, value: float, strength: str) -> float:
        """Return the distance of the value from this band, in units of the parameter; 0 inside."""
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
    """Return every kind of edit with each of its strengths, light to strong; with None if it has no degree."""
    return tuple((kind, strength) for kind in EDITS for strength in (STRENGTHS if kind in DEGREES else (None,)))


def strength_of(edit: Edit) -> str | None:
    """Return light, medium or strong, or None if the strength is unknown.

    It is unknown for a kind without a degree, such as a flip, for edits of another library, and for six kinds in a
    chain (pad, meme_caption, stripes, border, blur, motion_blur), which only `single_edit` measures relative to the
    picture.
    """
    value = _value(edit) if type(edit) is Edit else None
    return None if value is None else DEGREES[edit.name].strength(value)


def single_edit(
    pixels: Pixels, rng: np.random.Generator, other: Other, *, kind: str, strength: str | None = None
) -> tuple[Pixels, tuple[Edit, ...], Matrix]:
    """Copy the picture by one edit of this kind and strength (None: any strength); return the same as `edit_chain`.

    The edit is drawn until its strength fits and `can_be_found` holds. If none of 400 draws does both, as with pictures
    of a few pixels, the result is the draw nearest to the band among those that can be found, else among all; its
    strength is `strength_of` the edit. Raises InputError for an unknown kind or a strength that the kind does not have.
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
    """Return the value of the edit's degree in units of its bounds, or None if it is unknown."""
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
    """Add to the edit the parameter of its degree, relative to this picture, if the edit does not record it itself."""
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
    """Return the mean opacity, 0…1, at which this colour, such as #ff8000, was laid over the picture.

    The copy is picture + opacity × (colour − picture); the opacity is solved by least squares.
    """
    before = resized(pixels, copy.shape[1], copy.shape[0]).astype(np.float32)
    towards = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) - before
    return float(np.sum((copy - before) * towards) / max(float(np.sum(towards * towards)), 1.0))
