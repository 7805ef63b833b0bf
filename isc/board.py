"""Curves for TensorBoard: the only module that writes its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from isc.distributed import rank
from isc.errors import InputError

FOLDER = "tensorboard"  # its name in a run folder


class Board:
    """Figures by step. Without a writer, on all ranks but the first, it does nothing."""

    def __init__(self, writer: SummaryWriter | None) -> None:
        self._writer = writer

    @classmethod
    @contextmanager
    def of(cls, run: Path, step: int) -> Iterator[Board]:
        """The board of a run folder, closed at the end. What an interrupted run wrote after `step` is hidden."""
        if rank() > 0:
            yield cls(None)
            return
        try:
            with SummaryWriter(str(run / FOLDER), purge_step=step + 1, flush_secs=30) as writer:
                yield cls(writer)
        except OSError as error:  # found by the writer's own thread, and raised by whatever is written next
            raise InputError(f"{run / FOLDER}: cannot be written ({error.strerror or error})") from error

    def write(self, values: Mapping[str, float], step: int, *, group: str = "training") -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
