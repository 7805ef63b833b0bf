"""The comparison of two pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from isc.find.copies import region
from isc.find.images import as_pixels
from isc.find.model import Model, load
from isc.find.results import Match, Verdict
from isc.find.verdicts import OTHER_MODEL, judge_of, verdict_of
from isc.match.flags import COLUMN, flags_of
from isc.match.verification.alignment import compare as aligned
from isc.match.verification.features import local_features
from isc.model.load_inference import DEFAULT_MODEL


@dataclass(frozen=True)
class Comparison(Match):
    """The comparison of two pictures: `suspect` is the first one's name, `photo` the second one's; see `Match`."""


@cache
def _default_model() -> Model:
    return load(DEFAULT_MODEL)


def compare(one: Any, other: Any, *, model: Model | None = None) -> Comparison:
    """Compare two pictures: the probability that one is an edited copy of the other, and the part that both show.

    A picture is a path, a PIL image, a uint8 array [H, W, 3] RGB, or a tensor [3, H, W] of uint8 or of floats 0…1.
    Raises TypeError for anything else, and InputError for a picture that cannot be read.
    """
    used = model or _default_model()
    pictures = [as_pixels(image, name=name) for image, name in ((one, "the first picture"), (other, "the second"))]
    a, b = used.embed(pictures)
    squared = float(np.square(a.astype(np.float64) - b).sum())
    evidence, alignment = aligned(*map(local_features, pictures))
    judge = judge_of(used.name)
    same = pictures[0].shape == pictures[1].shape and bool((pictures[0] == pictures[1]).all())
    unrelated = judge.unrelated_distance(a[None])
    told = judge.probabilities(np.array([squared]), evidence[None], unrelated=unrelated, suspects=1, photos=1)
    probability = 1.0 if same else float(told[0])
    flags = flags_of(evidence)
    return Comparison(
        suspect=_name(one, "first"),
        photo=_name(other, "second"),
        verdict=Verdict.copy if same else verdict_of(probability, evidence, aligned=alignment is not None),
        probability=probability,
        distance=float(np.sqrt(squared)),
        inliers=int(evidence[COLUMN["inliers"]]),
        suspect_region=region(alignment.query_region) if alignment else None,
        photo_region=region(alignment.reference_region) if alignment else None,
        mirrored=alignment.mirrored if alignment else False,
        flags=flags if judge.calibrated else (*flags, OTHER_MODEL),
    )


def _name(image: Any, otherwise: str) -> str:
    return str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else otherwise
