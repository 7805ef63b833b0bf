"""The origin of a run's scores, written to match.json: a calibration holds only for scores of the same origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isc.data.hdf5 import SAME_IN_BOTH
from isc.data.json_files import Fields
from isc.data.model_files import reading
from isc.errors import InputError

FILE = "match.json"
FORMAT = "isc-match-1"
DISTANCE, PROBABILITY = "distance", "probability"
WEIGHTS = "weights_sha256"
VIEWS = ("views", "combine")  # absent if each image has one view, the whole


@dataclass(frozen=True)
class ScoreOrigin:
    """The origin of the scores of a run.

    `scores` are negative squared distances, or probabilities by the fusion with the hash `fusion_sha256`; `k` is None
    if the best pairs over all queries were kept; `descriptors` is the provenance of the descriptors. Raises ValueError
    for another kind of score, or no queries or references.
    """

    track: str
    scores: str
    normalize: str
    k: int | None
    queries: int
    references: int
    fusion_sha256: str | None = None
    descriptors: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scores not in (DISTANCE, PROBABILITY) or min(self.queries, self.references) < 1:
            raise ValueError(f"scores {self.scores!r} of {self.queries} queries; expected distance or probability")

    @property
    def gives_probabilities(self) -> bool:
        return self.scores == PROBABILITY

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"descriptors": dict(self.descriptors)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | Fields) -> ScoreOrigin:
        """Build an origin from `as_dict`. Raises ValueError for other values."""
        said = Fields.of(values)
        descriptors = said.fields("descriptors")
        return cls(
            track=said.text("track"),
            scores=said.text("scores"),
            normalize=said.text("normalize"),
            k=said.count_or_none("k", least=1),
            queries=said.count("queries"),
            references=said.count("references"),
            fusion_sha256=said.text_or_none("fusion_sha256"),
            descriptors={name: descriptors.text(name) for name in descriptors.values},
        )

    def differences(self, fitted: ScoreOrigin) -> Iterator[str]:
        """Yield, in words, the differences from the `fitted` origin that change the meaning of a score, worst first."""
        for name in (*SAME_IN_BOTH, *VIEWS):
            here, there = self.descriptors.get(name), fitted.descriptors.get(name)
            known = here is not None and there is not None
            if here != there and (known or name in (WEIGHTS, *VIEWS)):
                yield f"{name} {_short(there)}, this run's {_short(here)}"
        for name in ("scores", "normalize", "k", "fusion_sha256"):
            here, there = getattr(self, name), getattr(fitted, name)
            if here != there:
                yield f"{name} {_short(there)}, this run's {_short(here)}"


def read_made(folder: Path) -> ScoreOrigin:
    """Read match.json of a folder that match.py wrote. Raises InputError if it is missing or malformed."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"{path} is not there; expected the output of a match.py run that searched descriptors (one of an older "
            "version, or that judged a CSV, does not say what made its scores: run it again)"
        )
    with reading(path, format=FORMAT, writer="match.py") as said:
        return ScoreOrigin.from_dict(said)


def _short(value: object) -> str:
    return "none" if value is None else f"{str(value)[:40]}" if len(str(value)) < 64 else str(value)[:12]
