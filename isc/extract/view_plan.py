"""The views of a photo that are described, and the combination of their descriptors."""

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
class ViewPlan:
    """The plan for each photo: its views, the network's input size in pixels, and the combination of the views."""

    image_size: int
    views: tuple[View, ...] = parse_views("whole")
    combine: Combine = Combine.average

    @property
    def rows(self) -> int:
        """The number of descriptors per photo."""
        return len(self.views) if self.combine is Combine.rows else 1

    @property
    def sides(self) -> dict[int, list[int]]:
        """The numbers of the views that the network receives at each input size, in pixels."""
        found: dict[int, list[int]] = {}
        for number, view in enumerate(self.views):
            found.setdefault(view.side(self.image_size), []).append(number)
        return found

    @property
    def regions(self) -> int:
        """The number of views that show a region proposed for each photo."""
        return sum(view.found > 0 for view in self.views)

    def views_of(self, picture: Pixels) -> tuple[View, ...]:
        """Return the views of a photo [H, W, 3], with its proposed regions."""
        return placed(self.views, propose(picture, count=self.regions)) if self.regions else self.views

    def pictures(self, picture: Pixels, views: Sequence[View]) -> list[Pixels]:
        """Return the network's inputs for a photo [H, W, 3] and its own views: for each of `sides` [V, S, S, 3]."""
        return [
            np.stack([resize(views[number].pixels(picture), side) for number in numbers])
            for side, numbers in self.sides.items()
        ]

    def combined(self, found: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Combine descriptors of P photos, for each of `sides` [P, V, D], to [P, rows, D] in the order of the views."""
        order = np.argsort(list(itertools.chain.from_iterable(self.sides.values())))
        vectors: npt.NDArray[np.float32] = np.concatenate(found, axis=1)[:, order]
        if self.rows == vectors.shape[1]:
            return vectors
        mean: npt.NDArray[np.float32] = vectors.mean(axis=1, keepdims=True)
        mean /= np.maximum(np.linalg.norm(mean, axis=2, keepdims=True), np.finfo(np.float32).tiny)
        return mean
