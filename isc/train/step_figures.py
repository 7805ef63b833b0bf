"""The figures of training steps: checked and read at once on a CPU, and every 20 steps on a GPU.

Reading a number of a GPU waits until the GPU has done all its work, so that it idles until the next step is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from isc.train.checks import check_finite

EVERY = 20  # steps whose figures stay on a GPU


class StepFigures:
    """The figures of the last steps, on the device until `read`.

    On a GPU a figure that is not finite is found by the next `read`, which comes before every checkpoint: the weights
    that it has spoiled are not saved.
    """

    def __init__(self, device: torch.device) -> None:
        self.every = EVERY if device.type == "cuda" else 1
        self._steps: list[Mapping[str, Tensor | float]] = []
        self._checks: list[tuple[str, Tensor | float, Callable[[], str], int]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def check(self, what: str, value: Tensor | float, photos: Callable[[], str], *, step: int) -> None:
        """Raise InputError, which names the `photos`, if a figure is not finite: now, or on a GPU in `read`."""
        if self.every == 1:
            check_finite(what, float(value), photos, step=step)
        else:
            self._checks.append((what, value, photos, step))

    def put(self, figures: Mapping[str, Tensor | float]) -> None:
        """Keep the figures of a step."""
        self._steps.append(figures)

    def due(self) -> bool:
        """Return whether it is time to read."""
        return len(self._steps) >= self.every

    def read(self, photos_per_second: float) -> list[dict[str, float]]:
        """Return the figures of the kept steps, in order, and forget them. Raises InputError for `check`.

        All numbers come by one copy. `photos_per_second` is the speed if it had been a single step.
        """
        values = [value for _, value, _, _ in self._checks] + [value for one in self._steps for value in one.values()]
        numbers = iter(_floats(values))
        for what, _, photos, step in self._checks:
            check_finite(what, next(numbers), photos, step=step)
        speed = {"photos_per_second": photos_per_second * len(self._steps)}
        found = [{name: next(numbers) for name in one} | speed for one in self._steps]
        self._steps, self._checks = [], []
        return found


def _floats(values: list[Tensor | float]) -> list[float]:
    """Return numbers and tensors [] as floats, with one copy for all tensors."""
    tensors = [value.detach().double() for value in values if isinstance(value, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(numbers) if isinstance(value, Tensor) else float(value) for value in values]
