"""Baselines: perceptual hashes of outside libraries, as descriptors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.data.hdf5 import read_provenance, write_descriptors
from isc.errors import InputError, needing
from isc.photos.decode import Pixels
from isc.photos.sources import list_photos
from isc.runtime.progress import progress

HASHES = ("PDQ", "pHash", "dHash")

Bits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hasher:
    """A hash and the version of its library. `bits` maps a picture to [256] (PDQ) or [64] numbers, each 0 or 1."""

    name: str
    version: str
    bits: Callable[[Pixels], Bits]


def hasher(name: str) -> Hasher:
    """Return one of HASHES.

    PDQ (Facebook, 256 bits) comes from pdqhash; pHash (of a cosine transform) and dHash (of differences between
    neighbouring pixels), 64 bits each, come from imagehash. Raises InputError for an unknown name, or if the library
    is not installed.
    """
    if name not in HASHES:
        raise InputError(f"hash {name!r} is unknown; expected one of {', '.join(HASHES)}")
    library, bits = ("pdqhash", _pdq) if name == "PDQ" else ("imagehash", _imagehash)
    with needing(name, extra="baselines"):
        return Hasher(name, version(library), bits(name))


def _pdq(_name: str) -> Callable[[Pixels], Bits]:
    import pdqhash

    return lambda pixels: np.asarray(pdqhash.compute(pixels)[0], np.float32)


def _imagehash(name: str) -> Callable[[Pixels], Bits]:
    import imagehash
    from PIL import Image

    compute = operator.attrgetter(name.lower())(imagehash)
    return lambda pixels: np.asarray(compute(Image.fromarray(pixels)).hash, np.float32).ravel()


def write_hashes(images: Path, output: Path, *, by: Hasher) -> None:
    """Write the photos' hashes as descriptors of 0 and 1, whose squared distance is the Hamming distance.

    An output made from the same photos by the same version is left unchanged.
    """
    photos = list_photos(images)
    made_with = {"model": by.name, "version": by.version, "image_list_sha256": photos.sha256()}
    if output.exists() and made_with.items() <= read_provenance(output).items():
        return
    bits = []
    with progress(f"{by.name} of {images}", "photos") as report:
        for row in range(len(photos)):
            bits.append(by.bits(photos.read(row)))
            report(len(bits), len(photos))
    write_descriptors(output, Descriptors(np.array(photos.ids(), dtype=object), np.array(bits)), made_with)
