"""The views of a photo that are described, and how their descriptors become one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.config.choices import Combine
from isc.photos.decode import Pixels
from isc.photos.regions import propose
from isc.photos.resizing import resize
from isc.photos.views import View, parse_views, placed


@dataclass(frozen=True)
class Looks:
    """How each photo is looked at: the views, the network's input size in pixels, and what becomes of the views."""

    image_size: int
    views: tuple[View, ...] = parse_views("whole")
    combine: Combine = Combine.average

    @property
    def rows(self) -> int:
        """Descriptors of each photo."""
        return len(self.views) if self.combine is Combine.rows else 1

    @property
    def sides(self) -> dict[int, list[int]]:
        """Which views are shown to the network at which size, in pixels."""
        found: dict[int, list[int]] = {}
        for number, view in enumerate(self.views):
            found.setdefault(view.side(self.image_size), []).append(number)
        return found

    @property
    def regions(self) -> int:
        """Views whose region is looked for in each photo."""
        return sum(view.found > 0 for view in self.views)

    def views_of(self, picture: Pixels) -> tuple[View, ...]:
        """The views of a photo [H, W, 3], its regions among them."""
        return placed(self.views, propose(picture, count=self.regions)) if self.regions else self.views

    def pictures(self, picture: Pixels, views: Sequence[View]) -> list[Pixels]:
        """What the network is shown of a photo [H, W, 3] by its own views: for each of the `sides` [V, S, S, 3]."""
        return [
            np.stack([resize(views[number].pixels(picture), side) for number in numbers])
            for side, numbers in self.sides.items()
        ]

    def combined(self, found: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Descriptors of P photos, for each of the `sides` [P, V, D], → [P, rows, D] in the order of the views."""
        order = np.argsort(list(itertools.chain.from_iterable(self.sides.values())))
        vectors: npt.NDArray[np.float32] = np.concatenate(found, axis=1)[:, order]
        if self.rows == vectors.shape[1]:
            return vectors
        mean: npt.NDArray[np.float32] = vectors.mean(axis=1, keepdims=True)
        mean /= np.maximum(np.linalg.norm(mean, axis=2, keepdims=True), np.finfo(np.float32).tiny)
        return mean
