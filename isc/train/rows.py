"""From a batch of views to the rows that the losses compare."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from isc.model.copy_model import CopyModel
from isc.train.augment.on_device import edited
from isc.train.dataset import Batch
from isc.train.distillation import Teacher
from isc.train.distributed import gather
from isc.train.memory_bank import Memory
from isc.train.memory_use import in_parts
from isc.train.objective import Rows


@dataclass(frozen=True)
class Embedding:
    """The networks of a step, and how they are applied.

    `project` is the model's own or compiled; `keys` the averaged weights if they embed the mild views; `micro_batch`
    the pictures whose activations are held at a time, 0 for all.
    """

    model: CopyModel
    project: Callable[[Tensor], Tensor]
    keys: CopyModel | None
    teacher: Teacher | None
    hard_views: int
    micro_batch: int
    device: torch.device

    def rows(self, batch: Batch, memory: Memory, *, autocast: Callable[[], AbstractContextManager[object]]) -> Rows:
        """Return the input of the losses, gathered over all ranks.

        With momentum keys, the averaged weights embed the mild views, which go into the memory instead of the rows.
        """
        views = batch.views.to(self.device, non_blocking=True)
        if batch.edits is not None:
            views = edited(views, batch.edits)
        views = views.contiguous(memory_format=torch.channels_last)
        instances = batch.instances.to(self.device, non_blocking=True)
        hard = self.hard_views
        mild, count, keys = len(views) // (1 + hard), 1 + hard, None
        if self.keys is not None:
            with torch.no_grad(), autocast():
                projected, keys = self.keys.project_cells(views[:mild])
                embedded = self.keys.finish(projected)
            memory.push(gather(embedded, views=1), gather(instances[:mild], views=1))
            views, instances, count = views[mild:], instances[mild:], hard
        cells = None
        with autocast():
            known = None if self.teacher is None else self.teacher(views)
            if batch.places is None:
                projected = in_parts(self.project, views, self.model, size=self.micro_batch)
            else:
                projected, found = in_parts(self.model.project_cells, views, self.model, size=self.micro_batch)
                keys = found[:mild] if keys is None else keys
                places = batch.places.to(self.device, non_blocking=True)
                cells = found[-hard * mild :], keys.repeat(hard, 1, 1, 1), places
        return Rows(
            self.model.finish(gather(projected, views=count)),
            gather(instances, views=count),
            None if known is None else gather(known, views=count),
            cells,
        )
