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
from isc.data.ids import IntArray
from isc.data.matches import Matches
from isc.evaluate.calibration.files import read_calibration
from isc.evaluate.calibration.versions import Mask, picture_of
from isc.find.copies import region
from isc.find.results import Verdict
from isc.find.verdicts import judge_of, verdict_of
from isc.match.flags import COLUMN, flags_of
from isc.match.verification.alignment import Alignment, compare
from isc.match.verification.feature_store import PhotoKey, photo_key
from isc.match.verification.features import LocalFeatures
from isc.match.verification.negatives import NEAREST, seen_as_negative
from isc.match.verification.rivals import LEAST, are_sure, are_versions, part_of
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
KEPT = 100_000  # pairs of known pictures of which it is kept whether they are versions of one
SHOWN = ("inliers", "log_nfa", "agreement", "features_query", "features_reference")

Evidence = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """The probability of a pair, that before calibration, and the number of the picture it is a version of, if any."""

    probability: float
    fused: float | None = None
    version_of: int | None = None


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
        self._versions: dict[tuple[str, str], bool] = {}
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
        self._versions.clear()
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
        features = {number: one for number, one in self._features(known).items() if one is not None}
        query = picture.examined.features
        compared = {number: compare(query, other) for number, other in features.items()}
        near = sorted(features, key=lambda number: nearest[number])[:NEAREST]
        compared |= seen_as_negative(query, {number: features[number] for number in near}, compared)
        judged = self._by_pixels(nearest, known, features, compared)
        judged |= self._by_distance({number: nearest[number] for number in known if number not in compared})
        found = [_match(number, nearest[number][0], judged[number], compared.get(number)) for number in known]
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

    def _by_pixels(
        self,
        nearest: Mapping[int, tuple[float, float]],
        known: Mapping[int, Known],
        features: Mapping[int, LocalFeatures],
        compared: Mapping[int, tuple[Evidence, Alignment | None]],
    ) -> dict[int, Judged]:
        """Judge the candidates of one picture by their evidence and alignment, all by number."""
        if not compared:
            return {}
        numbers = list(compared)
        distance, unrelated = np.array([nearest[number] for number in numbers]).T
        evidence = np.stack([told for told, _ in compared.values()])
        fused = self._judge.fusion.probability(distance**2, evidence)

        def same(one: IntArray, other: IntArray) -> Mask:
            rows = list(zip(one.tolist(), other.tolist(), strict=True))
            first: dict[int, int] = {}
            for a, b in rows:
                if a not in first and self._are_versions(numbers[a], numbers[b], known, features):
                    first[a] = b
            return np.array([first.get(a) == b for a, b in rows], bool)

        query = np.zeros(len(numbers), np.int64)
        ids = np.array([known[number].sha256 for number in numbers], object)
        pairs = Matches(np.array(["picture"], object), ids, query, np.arange(len(numbers)), fused)
        shows = picture_of(pairs, fused >= LEAST, same)
        sure = are_sure(evidence[:, COLUMN["log_nfa"]], evidence[:, COLUMN["agreement"]])
        aligned = enumerate(alignment for _, alignment in compared.values())
        regions = {at: one.query_region for at, one in aligned if one is not None and sure[at]}
        found = self._judge.probabilities(
            distance**2,
            evidence,
            unrelated=unrelated if self._judge.compares_unrelated else None,
            suspect=part_of(pairs, regions),
            picture=shows,
            suspects=1,
            photos=max(1, len(self._context.index)),
        )
        return {
            number: Judged(float(found[at]), float(fused[at]), None if shows[at] == at else numbers[shows[at]])
            for at, number in enumerate(numbers)
        }

    def _by_distance(self, nearest: Mapping[int, tuple[float, float]]) -> dict[int, Judged]:
        """Judge candidates without a file, by number: each pair stands alone."""
        if not nearest:
            return {}
        distance, unrelated = np.array(list(nearest.values())).T
        found = self._judge.probabilities(
            distance**2,
            unrelated=unrelated if self._judge.compares_unrelated else None,
            suspects=1,
            photos=max(1, len(self._context.index)),
        )
        return dict(zip(nearest, map(Judged, found.tolist()), strict=True))

    def _are_versions(
        self, one: int, other: int, known: Mapping[int, Known], features: Mapping[int, LocalFeatures]
    ) -> bool:
        """Return whether two pictures of the collection are versions of one; answers are kept."""
        a, b = sorted((one, other), key=lambda number: known[number].sha256)
        key = known[a].sha256, known[b].sha256
        if key not in self._versions:
            if len(self._versions) >= KEPT:
                self._versions.clear()
            told, _ = compare(features[a], features[b])
            self._versions[key] = bool(are_versions(told[None])[0])
        return self._versions[key]


def _match(
    number: int, distance: float, judged: Judged, compared: tuple[Evidence, Alignment | None] | None
) -> CopyMatch:
    """Return the match of a pair; without the other picture's file, and so `compared`, the distance alone decides."""
    told, alignment = compared or (None, None)
    verdict = verdict_of(judged.probability, told, aligned=alignment is not None)
    evidence: dict[str, object] = {"method": "descriptor and pixels" if told is not None else "descriptor"}
    if told is not None:
        evidence |= {name: round(float(told[COLUMN[name]]), 3) for name in SHOWN}
        evidence["fused"] = judged.fused
    if judged.version_of is not None:
        evidence["version_of"] = judged.version_of
    evidence["flags"] = list(flags_of(told))
    return CopyMatch(
        other=number,
        distance=distance,
        probability=judged.probability,
        verdict=(Verdict.perhaps if told is None and verdict is Verdict.copy else verdict).value,
        image_region=region(alignment.query_region) if alignment else None,
        other_region=region(alignment.reference_region) if alignment else None,
        mirrored=alignment.mirrored if alignment else False,
        evidence=evidence,
    )
