"""Files of the chains that `isc normalize search` selects, on their own or beside the model of their descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isc.config.chain import MODEL, Chain, parse
from isc.data.model_files import beside_model, reading
from isc.errors import InputError

FORMAT = "isc-normalize-1"
FILE = "normalize.json"  # the name of the file in a run folder


@dataclass(frozen=True)
class NormalizationFile:
    """A stored chain: its file, the weights of its descriptors, and the number of photos it was selected with."""

    path: Path
    chain: Chain
    weights_sha256: str | None
    training_rows: int


def read_stored(path: Path) -> NormalizationFile:
    """Read a stored chain. Raises InputError if `isc normalize search` did not write the file."""
    with reading(path, format=FORMAT, writer="isc normalize search") as said:
        return NormalizationFile(
            path, parse(said.text("normalize")), said.text_or_none("weights_sha256"), said.count("training_rows")
        )


def stored_for(text: str, made: Path, provenance: Mapping[str, str]) -> NormalizationFile:
    """Return the chain of normalize=`text`, which is a FILE.json or `model`, for the descriptors of the file `made`.

    Raises InputError if there is no such chain, or it was selected for descriptors of another model.
    """
    if text == MODEL:
        for key in ("weights", "weights_sha256"):
            if key not in provenance:
                raise InputError(
                    f"normalize=model: {made} does not say its model's {key}; expected a file that extract.py wrote, "
                    "or normalize=FILE.json"
                )
        path = beside_model(provenance["weights"], FILE)
        if not path.is_file():
            raise InputError(
                f"normalize=model: {path} is not there; expected isc normalize search --model "
                f"{provenance['weights']} to have written it, or normalize=FILE.json"
            )
    else:
        path = Path(text)
    stored = read_stored(path)
    weights = provenance.get("weights_sha256")
    if stored.weights_sha256 is not None and weights is not None and stored.weights_sha256 != weights:
        raise InputError(
            f"{path}: found for weights {stored.weights_sha256[:12]}, {made} was made with {weights[:12]}; expected "
            f"the same: run isc normalize search again, or give normalize={stored.chain}"
        )
    return stored
