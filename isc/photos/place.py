"""The place of a photo: a folder or a tar shard."""

from __future__ import annotations

import os
from typing import NamedTuple

MEMBER = "::"  # between a tar and its member
BLOCK = 65536  # photos that are handled at a time


class Place(NamedTuple):
    """A folder or tar file with photos. `stamp` is the size and modification time of a tar, () for a folder."""

    path: str  # absolute, so that workers with another working directory find it
    shown: str  # as the user wrote it
    stamp: tuple[int, ...] = ()

    def shown_file(self, file: str) -> str:
        if self.stamp:
            return f"{self.shown}{MEMBER}{file}"
        return file if self.shown == "." else os.path.join(self.shown, file)  # noqa: PTH118 -- a Path for each is slow


class ListedPhoto(NamedTuple):
    """One photo of a source.

    `tail` is the file name without the id in front, or, if the name does not begin with the id, a NUL and the whole
    name. `offset` and `size` are the bytes of the photo in a tar, −1 in a folder.
    """

    id: str
    tail: str
    place: Place
    offset: int = -1
    size: int = -1
