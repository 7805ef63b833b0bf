"""Which edits a copy gets, in which order, and when it is drawn anew."""

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
RARE = frozenset({"negative", "solarize"})  # half as often
ALTERNATIVES = (  # of each group a chain holds at most one: two would leave nothing to see
    frozenset({"charcoal", "sketch", "emboss", "pencil", "halftone", "solarize", "negative", "few_colours"}),
    frozenset({"painting", "oil_paint", "smoothed", "motion", "scaled_small", "spread", "pencil", "sketch"}),
    frozenset({"strip", "mirrored_crop", "collage", "inset", "screenshot", "story", "cut_strips", "two_panels"}),
    frozenset({"collage", "inset", "covered", "blend", "cut_strips", "two_panels", "stickers", "meme", "story"}),
    frozenset({*DISTORTIONS, "cut_strips"}),
    frozenset(SCENES),
    frozenset({*CODECS, "charcoal", "emboss"}),
    frozenset({"scaled_small", *SCENES, "collage", "inset"}),
)
COUNTS, SHARES = (1, 2, 3), (0.6, 0.3, 0.1)  # edits of a copy, and how many copies have so many

SIDE = 360  # pixels of the longest side that a photo is brought to, so that a radius is the same for all
MAX_SIDE, MIN_SIDE = 640, 48  # after every edit
MIN_CONTRAST = 12.0  # standard deviation of the levels; half of the photo's for one that has little itself
BLANK = 2.0  # a photo with less is refused: nobody could tell it from another
MAX_DRAWS = 100  # of a chain, until one leaves enough to see


@dataclass(frozen=True)
class Edit:
    """The name of an edit, one of KINDS, and what was drawn for it."""

    name: str
    params: Params


def edit_chain(
    image: Image.Image, rng: np.random.Generator, photos: Sequence[str], photo: Callable[[str], Image.Image]
) -> tuple[Image.Image, tuple[Edit, ...]]:
    """A copy of the RGB picture by one to three edits, and these in their order.

    `photos` are the ids that `photo` opens. A chain of which one edit leaves a blank picture is drawn again. Raises
    InputError where none is found, as for a picture that is blank itself.
    """
    draws = Draws(rng, photos, lambda name: brought_to_size(photo(name)))
    for _ in range(MAX_DRAWS):
        found = apply(image, draw_names(rng, int(rng.choice(COUNTS, p=SHARES))), draws)
        if found is not None:
            return found
    raise InputError(f"no chain of edits leaves enough of a picture of {image.width} × {image.height} pixels")


def draw_names(rng: np.random.Generator, number: int) -> tuple[str, ...]:
    """So many different kinds that go together, in the order in which they are done."""
    weight = np.array([2.0 if name in FREQUENT else 0.5 if name in RARE else 1.0 for name in KINDS])
    while True:
        chosen = {str(name) for name in rng.choice(KINDS, number, replace=False, p=weight / weight.sum())}
        if all(len(group & chosen) <= 1 for group in ALTERNATIVES):
            return tuple(name for name in EDITS if name in chosen)


def apply(image: Image.Image, names: Sequence[str], draws: Draws) -> tuple[Image.Image, tuple[Edit, ...]] | None:
    """These edits one after another; None where one of them leaves too little to see."""
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
    """The picture with a longest side of SIDE pixels."""
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _contrast(image: Image.Image) -> float:
    """The standard deviation of the levels within a channel, averaged over the channels."""
    return float(np.asarray(image, np.float32).std((0, 1)).mean())
