"""Parts that the built-in providers of a worker share: database, network, index, and features of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from isc.model.inference import InferenceModel
from isc.serve.database import Database
from isc.serve.files import PictureFiles
from isc.serve.kept_features import KeptFeatures
from isc.serve.living import LivingIndex
from isc.serve.picture import Examiner
from isc.serve.reading import Reader
from isc.serve.settings import Settings


@dataclass(frozen=True)
class Context:
    """The resources of a worker; each is made when it is first used."""

    database: Database
    settings: Settings

    @cached_property
    def network(self) -> InferenceModel:
        from isc.model.load_inference import load_inference_model

        return load_inference_model(self.settings.model)

    @property
    def weights(self) -> str:
        """The hash of the network's weights, by which descriptors are told apart."""
        return weights_of(self.network)

    @cached_property
    def files(self) -> PictureFiles:
        return PictureFiles(self.settings.data / "pictures")

    @cached_property
    def index(self) -> LivingIndex:
        made = {**self.network.provenance, "image_size": str(self.network.image_size)}
        folder = self.settings.cache_folder / "index" / self.weights[:16]
        return LivingIndex(self.database, folder, model=self.weights, dim=self.network.dim, provenance=made)

    @cached_property
    def features(self) -> KeptFeatures:
        return KeptFeatures(self.settings.cache_folder / "features")

    @cached_property
    def examiner(self) -> Examiner:
        caps = self.settings.caps
        size = self.network.image_size
        return Examiner(
            Reader(image_size=size, seconds=caps.decode_seconds, memory=caps.decode_bytes, pixels=caps.pixels)
        )

    def forget(self, hashes: Iterable[str | None]) -> None:
        """Drop what the examiner, if there is one yet, holds of pictures."""
        if "examiner" in vars(self):
            self.examiner.forget(hashes)

    def place(self, sha256: str, path: str | None) -> Path:
        """Return the file of a picture."""
        return Path(path) if path else self.files.path(sha256)


def weights_of(network: InferenceModel) -> str:
    """Return the hash of a network's weights, or its name if it has none."""
    made = network.provenance
    return str(made.get("weights_sha256") or made.get("model") or "unknown")[:64]
