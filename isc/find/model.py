"""A model for Python programs: pictures in, descriptors out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.find.images import as_pixels
from isc.model.inference import InferenceModel
from isc.model.load_inference import DEFAULT_MODEL, load_inference_model
from isc.photos.resizing import resize

TOGETHER = 64  # pictures held in memory at once


class Model:
    """A model that describes pictures; `isc.load` makes one.

    model = isc.load()
    a, b = model.embed(["a.jpg", pil_image])
    distance = np.linalg.norm(a - b)      # 0 for the same picture, about 1.4 for unrelated ones
    """

    def __init__(self, name: str, network: InferenceModel) -> None:
        self.name = name
        self._network = network

    @property
    def dim(self) -> int:
        """The length of a descriptor."""
        return self._network.dim

    @property
    def image_size(self) -> int:
        """The side in pixels of the squares that pictures are resized to."""
        return self._network.image_size

    def embed(self, images: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Return the descriptors of the pictures, float32 [N, dim] of unit length, in their order.

        A picture is a path, a PIL image, a uint8 array [H, W, 3] RGB, or a tensor [3, H, W] of uint8 or of floats 0…1.
        Raises TypeError for anything else, and InputError for an empty list, another layout, or an unreadable picture.
        """
        if isinstance(images, str | bytes) or not isinstance(images, Iterable) or hasattr(images, "shape"):
            raise TypeError(f"images is of type {type(images).__name__}; expected a list of pictures")
        vectors: list[npt.NDArray[np.float32]] = []
        waiting: list[npt.NDArray[np.uint8]] = []
        for number, image in enumerate(images):
            waiting.append(resize(as_pixels(image, name=f"picture {number}"), self.image_size))
            if len(waiting) == TOGETHER:
                vectors.append(self._embedded(waiting))
                waiting = []
        if waiting:
            vectors.append(self._embedded(waiting))
        if not vectors:
            raise InputError("no pictures; expected at least one")
        return np.concatenate(vectors)

    def __repr__(self) -> str:
        return f"isc.Model({self.name!r}): {self.dim} numbers a picture, {self.image_size} px"

    def _embedded(self, pictures: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        return self._network.embed(np.stack(pictures).transpose(0, 3, 1, 2))


def load(name: str = DEFAULT_MODEL, *, device: str = "auto") -> Model:
    """Load a model: `isc_small`, a run folder, a model file, an ONNX file, or a URL with its SHA-256.

    `device` is auto, cpu or cuda. Raises InputError if there is no such model.
    """
    return Model(name, load_inference_model(str(name), device=device))
