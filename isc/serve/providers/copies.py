"""Copy detection over the living index, with the pixels of every candidate compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from isc import __version__
from isc.evaluate.calibration.files import read_calibration
from isc.find.copies import region
from isc.find.results import Verdict
from isc.find.verdicts import judge_of, verdict_of
from isc.match.flags import COLUMN, flags_of
from isc.match.verification.alignment import compare
from isc.match.verification.feature_store import PhotoKey, photo_key
from isc.match.verification.features import LocalFeatures
from isc.serve.forgetting import drop_other_indexes, forget_removed
from isc.serve.kinds import ImageState, Kind
from isc.serve.living import Near
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Limits, Provider
from isc.serve.providers.context import Context
from isc.serve.reading import Unreadable
from isc.serve.results import CopyMatch
from isc.serve.schema import image

CANDIDATES = 10  # nearest pictures per view whose pixels are compared
TOLD = 20  # copies of one picture that are told, the surest first
SHOWN = ("inliers", "log_nfa", "agreement", "features_query", "features_reference")


@dataclass(frozen=True)
class Known:
    """A picture of the collection: its file, and whether it may match."""

    sha256: str
    path: Path


class CopyProvider(Provider):
    """Finds the pictures of the collection that show the same as a new one, wholly or in part."""

    name = "copy"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.copy,))
    group = "pixels"
    limits = Limits(batch=16, seconds=300.0)

    def __init__(self, context: Context) -> None:
        self._context = context
        self.version = f"{Path(context.settings.model).name}-{context.weights[:12]}-{__version__}"
        self._judge = judge_of(context.settings.model)
        if (own := context.settings.calibration) is not None:
            self._judge = replace(self._judge, by_pixels=read_calibration(own).calibration)
            self.version += f"-{hashlib.sha256(own.read_bytes()).hexdigest()[:8]}"

    def comparable_with(self, version: str) -> bool:
        """Return whether the other version has the same weights, so that its descriptors are in the same index."""
        return f"-{self._context.weights[:12]}-" in version

    def forget(self) -> int:
        """Drop the descriptors and features of removed pictures, and indexes of other weights; return their number."""
        self._context.index.follow()
        drop_other_indexes(self._context.index.path)
        cache = self._context.settings.cache_folder
        return forget_removed(self._context.database, cache, self._context.files)

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        """Return the copies of each picture; the pictures themselves join the index."""
        usable, answers = self._examined(pictures)
        if not usable:
            return answers
        views = {at: self._context.network.embed(pictures[at].examined.squares) for at in usable}
        index = self._context.index
        index.put({pictures[at].id: views[at][0] for at in usable})
        index.follow()
        near = index.nearest(np.concatenate([views[at] for at in usable]), k=CANDIDATES + 1)
        step = len(near) // len(usable)
        self._keep_features([pictures[at] for at in usable])
        for place, at in enumerate(usable):
            apart = self._judge.unrelated_distance(np.asarray(views[at], np.float32))
            answers[at] = self._copies(pictures[at], near[place * step : (place + 1) * step], apart)
        return answers

    def _examined(self, pictures: Sequence[Picture]) -> tuple[list[int], list[Answer]]:
        usable: list[int] = []
        answers: list[Answer] = [() for _ in pictures]
        for at, picture in enumerate(pictures):
            try:
                _ = picture.examined
                usable.append(at)
            except Unreadable as error:
                answers[at] = error
        return usable, answers

    def _keep_features(self, pictures: Sequence[Picture]) -> None:
        found = {key: one.examined.features for one in pictures if (key := photo_key(one.path)) is not None}
        self._context.features.put_many(found)

    def _copies(
        self, picture: Picture, views: Sequence[Near], apart: npt.NDArray[np.float64] | None
    ) -> list[CopyMatch]:
        """Compare a picture with its candidates, earlier pictures of the collection.

        `apart` [V] is each view's squared distance to unrelated pictures, None without a calibration that has some.
        """
        nearest: dict[int, tuple[float, float]] = {}
        for view, unrelated in zip(views, [0.0] * len(views) if apart is None else apart.tolist(), strict=True):
            for number, distance in zip(view.images, view.distances, strict=True):
                nearest[number] = min((distance, unrelated), nearest.get(number, (np.inf, 0.0)))
        nearest.pop(picture.id, None)
        known = self._known(list(nearest))
        photos = max(1, len(self._context.index))
        found = [
            self._compared(picture, number, nearest[number], one, photos=photos)
            for number, one in self._features(known).items()
        ]
        told = sorted((one for one in found if one.verdict != "none"), key=lambda one: -one.score)
        return told[:TOLD]

    def _known(self, numbers: Sequence[int]) -> dict[int, Known]:
        readable = image.c.state != ImageState.unreadable
        wanted = sa.select(image.c.id, image.c.sha256, image.c.path).where(image.c.id.in_(numbers), readable)
        with self._context.database.reading() as connection:
            rows = connection.execute(wanted).all()
        return {number: Known(digest, self._context.place(digest, path)) for number, digest, path in rows}

    def _features(self, known: Mapping[int, Known]) -> dict[int, LocalFeatures | None]:
        """Return the features of pictures: stored ones, else made now and stored; None for a file that is gone."""
        keys: dict[int, PhotoKey | None] = {number: photo_key(one.path) for number, one in known.items()}
        stored = self._context.features.get_many(key for key in keys.values() if key is not None)
        found: dict[int, LocalFeatures | None] = {}
        for number, key in keys.items():
            found[number] = None if key is None else stored.get(key)
            if key is not None and found[number] is None:
                found[number] = self._made(known[number], key)
        return found

    def _made(self, one: Known, key: PhotoKey) -> LocalFeatures | None:
        try:
            features = self._context.examiner.examine(one.sha256, one.path).features
        except Unreadable:
            return None
        self._context.features.put_many({key: features})
        return features

    def _compared(
        self, picture: Picture, number: int, near: tuple[float, float], other: LocalFeatures | None, *, photos: int
    ) -> CopyMatch:
        """Return the match of a pair at (distance, squared distance to unrelated pictures) in a collection of `photos`.

        Without the other picture's file the distance alone decides.
        """
        distance, apart = near
        squared = np.array([distance * distance])
        told: npt.NDArray[np.float32] | None = None
        alignment = None
        if other is not None:
            told, alignment = compare(picture.examined.features, other)
        probability = self._judge.probabilities(
            squared,
            None if told is None else told[None],
            unrelated=np.array([apart]) if self._judge.compares_unrelated else None,
            suspects=1,
            photos=photos,
        ).item()
        verdict = verdict_of(probability, told, aligned=alignment is not None)
        evidence: dict[str, object] = {"method": "descriptor and pixels" if told is not None else "descriptor"}
        if told is not None:
            evidence |= {name: round(float(told[COLUMN[name]]), 3) for name in SHOWN}
            evidence["fused"] = float(self._judge.fusion.probability(squared, told[None])[0])
        evidence["flags"] = list(flags_of(told))
        return CopyMatch(
            other=number,
            distance=distance,
            probability=probability,
            verdict=(Verdict.perhaps if told is None and verdict is Verdict.copy else verdict).value,
            image_region=region(alignment.query_region) if alignment else None,
            other_region=region(alignment.reference_region) if alignment else None,
            mirrored=alignment.mirrored if alignment else False,
            evidence=evidence,
        )
