"""Where a photo lies: a folder, or a tar shard."""

from __future__ import annotations

import os
from typing import NamedTuple

MEMBER = "::"  # between a tar and its member
BLOCK = 65536  # photos that are handled at a time


class Place(NamedTuple):
    """Where photos lie: a folder, or a tar file. `stamp` is the size and time of change of a tar, () of a folder."""

    path: str  # absolute, so that workers with another working directory find it
    shown: str  # as the user wrote it
    stamp: tuple[int, ...] = ()

    def shown_file(self, file: str) -> str:
        if self.stamp:
            return f"{self.shown}{MEMBER}{file}"
        return file if self.shown == "." else os.path.join(self.shown, file)  # noqa: PTH118 -- a Path for each is slow


class ListedPhoto(NamedTuple):
    """What a source tells of one photo. `tail` is the file name less the id in front, or, where it does not begin with
    the id, a NUL and the whole name. `offset` and `size` say where in a tar it lies."""

    id: str
    tail: str
    place: Place
    offset: int = -1
    size: int = -1
