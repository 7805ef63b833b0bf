"""A network that turns pictures into descriptors, whatever computes it. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from isc.config.choices import Precision
from isc.errors import InputError

Pictures = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

GROUP = (2, 2)  # small, large pictures that a CPU core embeds at a time; larger groups are no faster
SMALL = 320  # the largest side of a small picture, in pixels


@dataclass(frozen=True)
class InferenceModel:
    """A network that turns pictures into descriptors.

    forward: uint8 [B, 3, S, S] RGB in 0…255 → float32 [B, dim] of unit length, with numpy arrays, on the CPU.
    """

    forward: Callable[[Any], Any]
    dim: int
    image_size: int  # default side of the pictures, in pixels
    precision: Precision = Precision.float32
    provenance: Mapping[str, str] = field(default_factory=dict)
    only_size: int | None = None  # the only possible side, in pixels, if fixed
    groups: tuple[int, int] = GROUP  # small, large pictures that a CPU core embeds at a time

    @property
    def on_gpu(self) -> bool:
        return False

    @property
    def device_name(self) -> str:
        return "cpu"

    def embed(self, pictures: Pictures) -> Vectors:
        """Embed uint8 [B, 3, S, S] to float32 [B, dim], by one thread, in groups of one size.

        The last group is padded with black pictures: kernels of another shape would round differently.
        """
        small, large = self.groups
        size = small if pictures.shape[-1] <= SMALL else large
        parts = [self._run(padded(pictures[at : at + size], size)) for at in range(0, len(pictures), size)]
        return np.concatenate([np.zeros((0, self.dim), np.float32), *parts])[: len(pictures)]

    def _run(self, pictures: Pictures) -> Vectors:
        found: Vectors = self.forward(pictures)
        return found

    def check_size(self, side: int) -> None:
        """Raise InputError unless the network takes squares of this side, in pixels."""
        if self.only_size not in (None, side):
            raise InputError(
                f"the model takes pictures of {self.only_size} px alone; expected no other, such as {side}"
            )


def padded(pictures: Pictures, size: int) -> Pictures:
    """Pad [B, …] with black pictures to [size, …]."""
    missing = size - len(pictures)
    if not missing:
        return pictures
    return np.concatenate([pictures, np.zeros((missing, *pictures.shape[1:]), pictures.dtype)])
