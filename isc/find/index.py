"""The index of Python programs: photos in, matches out."""

from __future__ import annotations

from typing import Any

from isc.find.copies import find_copies
from isc.find.photo_index import PhotoIndex
from isc.find.results import Matches


class Index(PhotoIndex):
    """Descriptors of photo files in a folder on disk, to find copies of the photos with.

    ```python
    index = isc.Index("photos.index")
    index.add("photos")
    index.find("suspect.jpg")
    ```

    It is made when the first photos are added. Every change is on disk when a method returns; a killed process leaves
    the index whole, and the next call goes on from there. One process writes, any number read.
    """

    def find(self, *suspects: Any, k: int = 1, pixels: bool = True, workers: int = -1) -> Matches:
        """Find the `k` photos that each suspect was most likely made from, the surest first.

        A suspect is a path, a folder, a PIL image, a uint8 array [H, W, 3], or a tensor [3, H, W]. Without `pixels`
        only descriptors are compared: faster, and less certain; so it is for photos whose files are gone. Raises
        InputError if no suspect can be read.
        """
        return find_copies(self, suspects, k=k, pixels=pixels, workers=workers)
