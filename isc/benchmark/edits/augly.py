"""Edits by AugLy 1.0.0, an outside library that no training here uses, and chains of them.

AugLy's pinned dependencies conflict with ours, so it is not a dependency. Install it into the environment of a checkout
by

    python -m pip install --no-deps augly==1.0.0 iopath==0.1.10 portalocker python-magic regex

with the system's libmagic (Debian: libmagic1). AugLy 1.0.0 is from 2022; two of its edits use names that Pillow 10 and
NumPy 1.24 removed. `_names_of_2022` restores these names during a call, without any change to installed files:

* meme_format: `FreeTypeFont.getsize_multiline`
* perspective_transform: `numpy.float`

The result of every edit is converted to RGB, because AugLy 1.0.0 fails on the palette and grey pictures that its own
convert_color makes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from isc.benchmark.edits.augly_draws import EDITS, Dice, assets, draw_names
from isc.benchmark.edits.chain import Edit as OwnEdit
from isc.errors import InputError

Photo = Callable[[str], Image.Image]  # returns the photo of this id

MIN_SIDE = 48  # pixels, after every edit; AugLy's text does not fit in less
MIN_CONTRAST = 12.0  # standard deviation of the levels of a finished copy
MAX_DRAWS = 100  # most draws of a chain until one leaves enough of the picture

DESCRIPTIONS: Mapping[str, str] = MappingProxyType({
    "apply_pil_filter": "{filter_type} filter",
    "blur": "blur radius {radius:.1f} px",
    "brightness": "brightness × {factor:.2f}",
    "change_aspect_ratio": "width to height {ratio:.2f}",
    "clip_image_size": "shrink to {max_resolution} pixels",
    "color_jitter": "colour jitter × {brightness_factor:.2f}, {contrast_factor:.2f}, {saturation_factor:.2f}",
    "contrast": "contrast × {factor:.2f}",
    "convert_color": "colours of mode {mode}",
    "crop": "crop {x1:.2f}…{x2:.2f} × {y1:.2f}…{y2:.2f}",
    "encoding_quality": "JPEG quality {quality}",
    "grayscale": "grayscale by {mode}",
    "hflip": "flip left-right",
    "meme_format": "caption above {caption_height} px",
    "opacity": "opacity {level:.2f}",
    "overlay_emoji": "emoji {emoji_size:.2f} of the height",
    "overlay_image": "photo on top {overlay_size:.2f} of the height",
    "overlay_onto_background_image": "overlay on photo {overlay_size:.2f} of the height",
    "overlay_onto_screenshot": "screenshot: {template_filepath}",
    "overlay_stripes": "stripes: {line_type}",
    "overlay_text": "text {font_size:.2f} of the height",
    "pad": "pad {w_factor:.2f} × {h_factor:.2f} of the sides",
    "pad_square": "pad to a square",
    "perspective_transform": "perspective σ {sigma:.1f} px",
    "pixelization": "pixelise to {ratio:.2f} of the side",
    "random_noise": "noise of variance {var:.3f}",
    "rotate": "rotate {degrees:.0f}°",
    "saturation": "saturation × {factor:.2f}",
    "scale": "scale × {factor:.2f}",
    "sharpen": "sharpen × {factor:.1f}",
    "shuffle_pixels": "shuffle {factor:.2f} of the pixels",
    "skew": "skew {skew_factor:.2f}",
    "vflip": "flip top-bottom",
})  # fmt: skip


@dataclass(frozen=True)
class Edit(OwnEdit):
    """A call of augly.image: the name of the function and its parameters."""

    params: Mapping[str, Any]

    def describe(self) -> str:
        """Return a short description, such as "rotate −17°"."""
        return DESCRIPTIONS[self.name].format(**self.params).replace(" -", " −")


def edit_chain(
    image: Image.Image,
    rng: np.random.Generator,
    photos: Sequence[str],
    photo: Photo,
    *,
    count: tuple[int, int] = (1, 4),
) -> tuple[Image.Image, tuple[Edit, ...]]:
    """Return a copy of the RGB picture by `count` (fewest, most) different edits, and these edits in their order.

    Cuts come before the picture is pasted on a background or a screenshot. `photos` are the ids that `photo` opens.
    A chain that leaves less than MIN_SIDE pixels or MIN_CONTRAST is drawn again. Raises InputError if none is found.
    """
    for _ in range(MAX_DRAWS):
        found = _try_chain(image, draw_names(rng, int(rng.integers(count[0], count[1] + 1))), rng, photos, photo)
        if found is not None:
            return found
    raise InputError(f"no chain of edits leaves enough of a picture of {image.width} × {image.height} pixels")


def single_edit(
    image: Image.Image, rng: np.random.Generator, photos: Sequence[str], photo: Photo, *, kind: str
) -> tuple[Image.Image, tuple[Edit, ...]]:
    """Return a copy of the RGB picture by one edit of this kind (one of EDITS), and this edit; see `edit_chain`."""
    for _ in range(MAX_DRAWS):
        found = _try_chain(image, (kind,), rng, photos, photo)
        if found is not None:
            return found
    raise InputError(f"no {kind} leaves enough of a picture of {image.width} × {image.height} pixels")


def _try_chain(
    image: Image.Image, names: Sequence[str], rng: np.random.Generator, photos: Sequence[str], photo: Photo
) -> tuple[Image.Image, tuple[Edit, ...]] | None:
    edits = []
    for name in names:
        edit = Edit(name, EDITS[name](Dice(rng, image.width, image.height, photos)))
        try:
            image = apply(image, edit, photo)
        except RuntimeError as error:
            if "raqm_layout" not in str(error):
                raise
            return None  # Pillow's text layout refuses about one in five hundred random texts
        edits.append(edit)
        if min(image.size) < MIN_SIDE:
            return None
    return None if np.asarray(image).std() < MIN_CONTRAST else (image, tuple(edits))


def apply(image: Image.Image, edit: Edit, photo: Photo) -> Image.Image:
    """Apply this edit to the RGB picture; the RGB result depends on the picture and the parameters alone."""
    import augly.image

    random.seed(0)  # AugLy takes seeds as parameters; this fixes any other random draws
    np.random.seed(0)
    params = {key: _argument(key, value, photo) for key, value in edit.params.items()}
    try:
        with _names_of_2022():
            edited: Image.Image = getattr(augly.image, edit.name)(image, **params)
    except Exception as error:
        error.add_note(f"AugLy's {edit.name}({edit.params}) of a picture of {image.width} × {image.height} pixels")
        raise
    return edited.convert("RGB")


def _argument(key: str, value: Any, photo: Photo) -> Any:
    """Convert a recorded parameter to the argument that AugLy expects."""
    if key in ("background_image", "overlay"):
        return photo(value)
    if key == "filter_type":
        return getattr(ImageFilter, value)
    if key in ("emoji_path", "font_file", "template_filepath"):
        folder = {"emoji_path": "twemojis", "font_file": "fonts", "template_filepath": "screenshot_templates"}[key]
        return str(assets() / folder / value)
    return tuple(value) if key.endswith("color") else value


@contextmanager
def _names_of_2022() -> Iterator[None]:
    """Restore, within the context, two names that AugLy 1.0.0 uses and that Pillow 10 and NumPy 1.24 removed."""
    with (
        mock.patch.object(ImageFont.FreeTypeFont, "getsize_multiline", _getsize_multiline, create=True),
        mock.patch.object(np, "float", float, create=True),
    ):
        yield


def _getsize_multiline(font: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
    """Return width and height in pixels from the origin to the right and lower edge, as in Pillow 9."""
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return round(box[2]), round(box[3])
