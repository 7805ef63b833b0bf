"""Probabilities and verdicts of pairs, from the distance of their descriptors and the agreement of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from isc.data.model_files import beside_model
from isc.evaluate.calibration.chance import SIGNIFICANT, by_alignment, by_distance
from isc.evaluate.calibration.files import FILES, Calibration, read_calibration
from isc.evaluate.calibration.prior import corrected
from isc.evaluate.calibration.score_origin import DISTANCE, PROBABILITY, WEIGHTS
from isc.find.results import Verdict
from isc.match.flags import COLUMN
from isc.match.verification.fusion import Fusion
from isc.match.verification.fusion_files import fusion_for

Floats = npt.NDArray[np.float64]

SURE, POSSIBLE = 0.9, 0.5  # probabilities from which a pair is a copy, or may be one
AGREEING = 0.4  # agreement of the grey values from which significant alignments speak for a copy
BEYOND_DOUBT = 40.0  # log_nfa from which they do without it: of small and of dark parts the grey values say little
OTHER_MODEL = "uncalibrated"


@dataclass(frozen=True)
class Judge:
    """The fusion and the calibrations of a model; without its own, those of isc_small, and `calibrated` is False."""

    fusion: Fusion
    by_pixels: Calibration | None
    by_distance: Calibration | None
    calibrated: bool

    @property
    def compares_unrelated(self) -> bool:
        """True if distances are seen beside those to unrelated pictures."""
        return self.by_distance is not None and self.by_distance.unrelated is not None

    def unrelated_distance(self, suspects: npt.NDArray[np.float32]) -> Floats | None:
        """Return each suspect's squared distance [Q] to unrelated pictures; None if no calibration has some.

        Descriptors of another dimension are those of another model, for which the calibration does not hold.
        """
        if self.by_distance is None or self.by_distance.unrelated is None:
            return None
        if self.by_distance.unrelated.shape[1] != suspects.shape[1]:
            return None
        from isc.search.unrelated import unrelated_distance

        return unrelated_distance(suspects, self.by_distance.unrelated)

    def probabilities(
        self,
        distance: Floats,
        evidence: npt.NDArray[np.float32] | None = None,
        *,
        unrelated: Floats | None,
        suspect: npt.NDArray[np.int64] | None = None,
        picture: npt.NDArray[np.int64] | None = None,
        suspects: int,
        photos: int,
    ) -> Floats:
        """Return the probability [P] that each pair is a copy and its photo.

        `suspects` and `photos` are the sizes of the two sets, `suspect` [P] is the number of each pair's suspect, or of
        the part of it that shows the photo, None if each pair stands alone, `picture` [P] the number of the picture of
        which its photo is a version, None if each is its own. `distance` [P] is squared, `unrelated` [P] is each pair's
        `unrelated_distance` of the suspect, `evidence` [P, E] is NaN for pairs whose pixels could not be compared: they
        have at most the probability of a pair of their distance whose pixels disagree.
        """
        found = self.fusion.probability(distance, evidence)
        if self.by_pixels is not None and evidence is not None:
            fitted = self.by_pixels.fitted(found, None, suspect, picture)
            chance = by_alignment(evidence[:, COLUMN["log_nfa"]])
            found, _ = corrected(fitted, self.by_pixels.prior, queries=suspects, references=photos, chance=chance)
        if self.by_distance is not None and self.compares_unrelated == (unrelated is not None):
            alone = np.isnan(evidence).all(axis=1) if evidence is not None else np.ones(len(distance), bool)
            fitted = self.by_distance.fitted(-distance, unrelated, suspect, picture)
            chance = np.ones(len(distance)) if unrelated is None else by_distance(distance, unrelated)
            far, _ = corrected(
                fitted[alone], self.by_distance.prior, queries=suspects, references=photos, chance=chance[alone]
            )
            found[alone] = far if evidence is None else np.minimum(far, found[alone])
        return found


@cache
def judge_of(weights: str, weights_sha256: str | None = None) -> Judge:
    """Return the judge of a model by its name, run folder or file.

    What was fitted for the model counts only for descriptors of the same weights, if their hash is given.
    """
    made = {"weights": weights} | ({} if weights_sha256 is None else {WEIGHTS: weights_sha256})
    fusion, note = fusion_for("model", made)
    found = {kind: one for kind in (PROBABILITY, DISTANCE) if (one := _calibration(weights, kind, weights_sha256))}
    return Judge(fusion, found.get(PROBABILITY), found.get(DISTANCE), note is None or PROBABILITY in found)


def _calibration(weights: str, kind: str, weights_sha256: str | None) -> Calibration | None:
    path = beside_model(weights, FILES[kind])
    if not path.is_file():
        return None
    stored = read_calibration(path).calibration
    return stored if weights_sha256 in (None, stored.made.descriptors.get(WEIGHTS)) else None


def verdict_of(probability: float, evidence: npt.NDArray[np.float32] | None, *, aligned: bool) -> Verdict:
    """Return the verdict of a pair; only pixels that agree make it a copy, never the lack of evidence.

    `evidence` is None if the pixels of no pair were compared: then the probability alone decides.
    """
    if evidence is None:
        return Verdict.copy if probability >= SURE else Verdict.perhaps if probability >= POSSIBLE else Verdict.none
    log_nfa, agreement = evidence[COLUMN["log_nfa"]], evidence[COLUMN["agreement"]]
    agrees = aligned and (log_nfa >= BEYOND_DOUBT or (log_nfa >= SIGNIFICANT and agreement >= AGREEING))
    if agrees and probability >= SURE:
        return Verdict.copy
    return Verdict.perhaps if probability >= POSSIBLE and aligned else Verdict.none
