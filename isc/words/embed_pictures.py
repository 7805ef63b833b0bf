"""Vectors of pictures and texts by trained towers, for matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.errors import InputError
from isc.photos.decode import read_image
from isc.photos.folders import SUFFIXES
from isc.words.embed_towers import embed_grids, embed_texts
from isc.words.grids import GridNetwork
from isc.words.matcher_files import load_matcher

Vectors = npt.NDArray[np.float32]


def embed_both(model: Path, folder: Path, images: Mapping[str, str], texts: Sequence[str]) -> tuple[Vectors, Vectors]:
    """Return the unit vectors of the pictures {id: URL} in a folder, and of the texts.

    Raises InputError for a picture that is not there or cannot be read.
    """
    towers, shape = load_matcher(model)
    network = GridNetwork(shape)
    grids = [network.grids([read_image(file_of(folder, name, url))]) for name, url in images.items()]
    return embed_grids(towers, np.concatenate(grids)), embed_texts(towers, texts)


def file_of(folder: Path, name: str, url: str) -> Path:
    """Return the file of a picture: named as the end of its URL, or by its id. Raises InputError if it is not there."""
    end = url.rsplit("/", 1)[-1]
    for candidate in (end, *(f"{name}{suffix}" for suffix in sorted(SUFFIXES))):
        if candidate and (folder / candidate).is_file():
            return folder / candidate
    raise InputError(f"{folder}: holds no picture of id {name!r}; expected {end} or {name}.jpg")
