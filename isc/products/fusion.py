"""The fusion of a clip's evidence: a probability for each item, and for none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import optimize  # type: ignore[import-untyped]

from isc.data.files import write_json
from isc.data.model_files import reading
from isc.errors import InputError
from isc.products.evidence import NAMES, Floats

FILE = "products.fusion.json"
FORMAT = "isc-products-fusion-3"


@dataclass(frozen=True)
class ProductFusion:
    """The conditional logit of the items of a shop and of none (McFadden 1974).

    P(item i) = exp(w · x_i) / Z and P(none) = exp(none + said · [something is said]) / Z, where Z is their sum over all
    items and none; the weights w, in the order of NAMES, are not below 0, so that more evidence never makes an item
    less probable. Raises InputError for other weights.
    """

    weights: tuple[float, ...]
    none: float
    said: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(one) for one in self.weights))
        numbers = (*self.weights, self.none, self.said)
        if len(self.weights) != len(NAMES) or min(self.weights) < 0 or not np.isfinite(numbers).all():
            raise InputError(f"weights {self.weights}; expected {len(NAMES)} finite numbers of at least 0")

    @property
    def sentences(self) -> bool:
        """Whether it weighs what texts mean, which `isc.words.sentences` compares."""
        return self.weights[NAMES.index("meaning")] > 0

    def probabilities(self, evidence: Floats, *, said: bool) -> Floats:
        """Return the probabilities [I + 1] of the items of `evidence` [I, 13], and of none, last; their sum is 1."""
        logits = np.append(evidence @ np.array(self.weights), self.none + self.said * said)
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())


@dataclass(frozen=True)
class Judged:
    """The evidence [I, 13] of a clip whose item is known by its row; None: it shows no item of the shop."""

    evidence: Floats
    item: int | None
    said: bool


def fit_fusion(clips: Sequence[Judged], *, use: Sequence[str] = NAMES, ridge: float = 1e-3) -> ProductFusion:
    """Fit weights by maximum likelihood with a small ridge, each at least 0; evidence that is not in `use` has none.

    Raises InputError without clips.
    """
    if not clips:
        raise InputError("no clips of known items to fit on; expected at least one")
    spread = np.maximum(np.concatenate([one.evidence for one in clips]).std(axis=0), 1e-3)
    most = max(len(one.evidence) for one in clips)
    rows = np.zeros((len(clips), most + 1, len(NAMES)))  # the last row of a clip is none
    there = np.zeros((len(clips), most + 1), bool)
    for at, one in enumerate(clips):
        rows[at, : len(one.evidence)], there[at, : len(one.evidence)] = one.evidence / spread, True
    there[:, -1] = True
    right = np.array([most if one.item is None else one.item for one in clips])
    said = np.array([float(one.said) for one in clips])
    each = np.arange(len(clips))

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights, (none, with_words) = values[:-2], values[-2:]
        logits = rows @ weights
        logits[:, -1] = none + with_words * said
        logits[~there] = -np.inf
        top = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - top)
        total = powers.sum(axis=1, keepdims=True)
        missed = (top + np.log(total))[:, 0] - logits[each, right]
        share = powers / total
        share[each, right] -= 1
        slopes = np.einsum("ni,nij->j", share, rows) / len(clips) + 2 * ridge * weights
        ends = np.array([share[:, -1].mean(), (share[:, -1] * said).mean()])
        return float(missed.mean() + ridge * weights @ weights), np.concatenate([slopes, ends])

    used = [name in use for name in NAMES]
    bounds = [(0.0, None if one else 0.0) for one in used] + [(None, None)] * 2
    start = np.append(np.where(used, 0.5, 0.0), (0.0, 0.0))
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return ProductFusion(tuple(found[:-2] / spread), float(found[-2]), float(found[-1]))


def save_fusion(path: Path, fusion: ProductFusion) -> None:
    """Write the weights by name."""
    values = dict(zip(NAMES, fusion.weights, strict=True))
    write_json(path, {"format": FORMAT, "weights": values, "none": fusion.none, "said": fusion.said})


def load_fusion(path: Path) -> ProductFusion:
    """Read what `save_fusion` wrote. Raises InputError for a file of another form."""
    with reading(path, format=FORMAT, writer="isc train task=products") as fields:
        weights = fields.fields("weights")
        return ProductFusion(
            tuple(weights.number(name) for name in NAMES), fields.number("none"), fields.number("said")
        )
