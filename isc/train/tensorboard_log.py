"""TensorBoard curves: the only module that writes TensorBoard files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from isc.errors import InputError
from isc.train.distributed import rank

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"  # name of the log folder in a run folder


class Board:
    """A writer of values by step; without a `SummaryWriter` (all ranks but the first) it writes nothing."""

    def __init__(self, writer: SummaryWriter | None) -> None:
        self._writer = writer

    @classmethod
    @contextmanager
    def of(cls, run: Path, step: int) -> Iterator[Board]:
        """Open the board of a run folder, and close it at the end; hide values of an interrupted run after `step`."""
        if rank() > 0:
            yield cls(None)
            return
        from torch.utils.tensorboard import SummaryWriter

        with _named(run / FOLDER):
            writer = SummaryWriter(str(run / FOLDER), purge_step=step + 1, flush_secs=30)
        try:
            yield cls(writer)
        finally:
            with _named(run / FOLDER):
                writer.close()

    def write(self, values: Mapping[str, float], step: int, *, group: str = "training") -> None:
        if self._writer is not None:
            with _named(Path(self._writer.log_dir)):
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, step)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turn an OSError into an InputError that names the folder; errors of the writer's thread come at the next call."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error
