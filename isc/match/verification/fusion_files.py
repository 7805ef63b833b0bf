"""Fusions fitted by `isc fusion fit`, stored in a separate file or with their model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isc.data.model_files import SHIPPED, beside_model, reading
from isc.match.verification.fusion import Fusion

FORMAT = "isc-fusion-1"
FILE = "fusion.json"  # its name in a run folder
MODEL = "model"  # value of fusion=: the one stored with the model
SHIPPED_MODEL = "isc_small"


@dataclass(frozen=True)
class StoredFusion:
    """A fusion, its file, and the weights and normalisation of the descriptors it was fitted on."""

    path: Path
    fusion: Fusion
    weights_sha256: str | None
    normalize: str


def read_fusion(path: Path) -> StoredFusion:
    """Read a file of `isc fusion fit`. Raises InputError for any other file."""
    with reading(path, format=FORMAT, writer="isc fusion fit") as said:
        fusion = Fusion.from_dict(said.fields("fusion"))
        return StoredFusion(path, fusion, said.text_or_none("weights_sha256"), said.text("normalize"))


def fusion_for(text: str, provenance: Mapping[str, str]) -> tuple[Fusion, str | None]:
    """Return the fusion of fusion=`text`, a FILE.json or `model`, for descriptors of this provenance, and a note.

    The note, or None, says that it was fitted on other descriptors, so that its probabilities are rough.
    """
    path = Path(text)
    if text == MODEL:
        path = beside_model(provenance.get("weights", SHIPPED_MODEL), FILE)
        if not path.is_file():
            path = SHIPPED / f"{SHIPPED_MODEL}.{FILE}"
    stored = read_fusion(path)
    for key, fitted in (("weights_sha256", stored.weights_sha256), ("normalize", stored.normalize)):
        made = provenance.get(key, "none" if key == "normalize" else None)
        if fitted is not None and made != fitted:
            has, had = (made or "unknown")[:12], fitted[:12]
            note = f"{path} was fitted on descriptors of {key} {had}, these have {has}: the order of the pairs is of "
            return stored.fusion, note + "use, their probabilities are rough; isc fusion fit makes one for these"
    return stored.fusion, None
