"""Numbers about the picture itself: how sharp, how bright, how large, and how plain it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from isc.photos.resizing import fit_within
from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Provider
from isc.serve.providers.context import Context
from isc.serve.reading import Examined, Unreadable
from isc.serve.results import Number

SIDE = 512  # pixels of the longest side at which sharpness is measured
ENOUGH = 100  # local features from which a picture is not plain at all


class QualityProvider(Provider):
    """Measures pictures. `plainness` is 0…1: 1 for a picture of one colour, in which there is nothing to compare."""

    name = "quality"
    version = "quality-1"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.number,))
    group = "pixels"

    def __init__(self, context: Context) -> None:
        del context

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        return [_answer(one) for one in pictures]


def _answer(picture: Picture) -> Answer:
    try:
        return [Number(name, value) for name, value in measured(picture.examined).items()]
    except Unreadable as error:
        return error


def measured(examined: Examined) -> dict[str, float]:
    """Return the numbers of an examined picture.

    sharpness   variance of the Laplacian at 512 px (Pech-Pacheco et al., ICPR 2000)
    contrast    standard deviation of the grey values, 0…127.5
    brightness  their mean, 0…255
    plainness   1 − local features / 100, at least 0
    megapixels  of the original
    """
    gray = cv2.cvtColor(fit_within(examined.pixels, SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return {
        "sharpness": float(cv2.Laplacian(gray, cv2.CV_32F).var()),
        "contrast": float(gray.std()),
        "brightness": float(gray.mean()),
        "plainness": max(0.0, 1 - len(examined.features) / ENOUGH),
        "megapixels": examined.width * examined.height / 1e6,
    }
