"""Random chains of edits: their kinds, their order, and the check that enough is left to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from PIL import Image

from benchmarks.tool_judge.codecs import CODECS, PAINTING
from benchmarks.tool_judge.combined import COMBINED, PARTS
from benchmarks.tool_judge.draws import Draws, Made, Params
from benchmarks.tool_judge.layouts import LAYOUTS
from benchmarks.tool_judge.magick import DISTORTIONS, FILTERS
from benchmarks.tool_judge.scenes import SCENES
from isc.errors import InputError

STAGES = (PARTS, {**FILTERS, **PAINTING}, DISTORTIONS, {**COMBINED, **LAYOUTS}, SCENES, CODECS)  # in this order
EDITS: Mapping[str, Callable[[Image.Image, Draws], Made]] = MappingProxyType(
    {name: edit for stage in STAGES for name, edit in stage.items()}
)
KINDS = tuple(sorted(EDITS))
FREQUENT = frozenset({*PARTS, *COMBINED, *LAYOUTS, *SCENES, "resaves", "video_frame"})  # drawn twice as often
RARE = frozenset({"negative", "solarize"})  # drawn half as often
ALTERNATIVES = (  # a chain has at most one edit of each group: two would leave nothing to see
    frozenset({"charcoal", "sketch", "emboss", "pencil", "halftone", "solarize", "negative", "few_colours"}),
    frozenset({"painting", "oil_paint", "smoothed", "motion", "scaled_small", "spread", "pencil", "sketch"}),
    frozenset({"strip", "mirrored_crop", "collage", "inset", "screenshot", "story", "cut_strips", "two_panels"}),
    frozenset({"collage", "inset", "covered", "blend", "cut_strips", "two_panels", "stickers", "meme", "story"}),
    frozenset({*DISTORTIONS, "cut_strips"}),
    frozenset(SCENES),
    frozenset({*CODECS, "charcoal", "emboss"}),
    frozenset({"scaled_small", *SCENES, "collage", "inset"}),
)
COUNTS, SHARES = (1, 2, 3), (0.6, 0.3, 0.1)  # edits of a copy, and the share of copies with that number

SIDE = 360  # pixels of a photo's longest side before editing, so that a radius means the same for all
MAX_SIDE, MIN_SIDE = 640, 48  # pixels, after every edit
MIN_CONTRAST = 12.0  # standard deviation of the levels; for a photo of low contrast, half of its own
BLANK = 2.0  # a photo with less contrast is refused: nobody could distinguish it from another
MAX_DRAWS = 100  # attempts to draw a chain that leaves enough to see


@dataclass(frozen=True)
class Edit:
    """The name of an edit, one of KINDS, and its drawn parameters."""

    name: str
    params: Params


def edit_chain(
    image: Image.Image, rng: np.random.Generator, photos: Sequence[str], photo: Callable[[str], Image.Image]
) -> tuple[Image.Image, tuple[Edit, ...]]:
    """Return a copy of the RGB picture by one to three edits, and these edits in their order.

    `photos` are the ids that `photo` opens. If an edit leaves a blank picture, the chain is drawn again. Raises
    InputError if no chain is found, for example because the picture itself is blank.
    """
    draws = Draws(rng, photos, lambda name: brought_to_size(photo(name)))
    for _ in range(MAX_DRAWS):
        found = apply(image, draw_names(rng, int(rng.choice(COUNTS, p=SHARES))), draws)
        if found is not None:
            return found
    raise InputError(f"no chain of edits leaves enough of a picture of {image.width} × {image.height} pixels")


def draw_names(rng: np.random.Generator, number: int) -> tuple[str, ...]:
    """Return `number` different kinds that may be combined, in the order in which they are applied."""
    weight = np.array([2.0 if name in FREQUENT else 0.5 if name in RARE else 1.0 for name in KINDS])
    while True:
        chosen = {str(name) for name in rng.choice(KINDS, number, replace=False, p=weight / weight.sum())}
        if all(len(group & chosen) <= 1 for group in ALTERNATIVES):
            return tuple(name for name in EDITS if name in chosen)


def apply(image: Image.Image, names: Sequence[str], draws: Draws) -> tuple[Image.Image, tuple[Edit, ...]] | None:
    """Apply the edits one after another; return None if one of them leaves too little to see."""
    cv2.setNumThreads(1)
    copy, edits = brought_to_size(image), []
    if _contrast(copy) < BLANK:
        return None
    contrast = min(MIN_CONTRAST, _contrast(copy) / 2)
    for name in names:
        copy, params = EDITS[name](copy, draws)
        if max(copy.size) > MAX_SIDE:
            copy.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        if min(copy.size) < MIN_SIDE or _contrast(copy) < contrast:
            return None
        edits.append(Edit(name, params))
    return copy, tuple(edits)


def brought_to_size(image: Image.Image) -> Image.Image:
    """Return the picture with a longest side of SIDE pixels."""
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _contrast(image: Image.Image) -> float:
    """Return the standard deviation of the levels within a channel, averaged over the channels."""
    return float(np.asarray(image, np.float32).std((0, 1)).mean())
