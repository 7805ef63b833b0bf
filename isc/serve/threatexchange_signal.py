"""Our descriptor as a signal type of hasher-matcher-actioner's package `threatexchange` (1.2).

`threatexchange config extensions add isc.serve.threatexchange_signal` makes it known; the signal is named `isc_copy`.
A signal is the descriptor as 16-bit floats, 4 hexadecimal digits each. It compares descriptors alone: what pixels would
add, the probability and the region, is what `isc serve` is for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from threatexchange.content_type.content_base import ContentType
from threatexchange.content_type.photo import PhotoContent
from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest
from threatexchange.signal_type.index import IndexMatchUntyped, SignalSimilarityInfoWithSingleDistance, SignalTypeIndex
from threatexchange.signal_type.signal_base import BytesHasher, SignalComparisonResult, SimpleSignalType

from isc.errors import InputError
from isc.find.verdicts import judge_of
from isc.model.inference import InferenceModel
from isc.model.load_inference import DEFAULT_MODEL, load_inference_model
from isc.photos.decode import read_image
from isc.photos.resizing import resize

Vectors = npt.NDArray[np.float32]
DIM = 256
FORM = re.compile(rf"[0-9a-f]{{{4 * DIM}}}")
GROWTH = 1024  # rows that an index begins with
FARTHEST, GAPS = 4.0, 1 << 14  # largest squared distance of two descriptors of unit length, and steps to try up to it


@cache
def _network() -> InferenceModel:
    return load_inference_model(DEFAULT_MODEL)


@cache
def _least_gap() -> float:
    """Return the gap to unrelated pictures from which on a pair is accepted, by the model's own calibration."""
    calibration = judge_of(DEFAULT_MODEL).by_distance
    assert calibration is not None, "the model of the package has a calibration"
    wanted = calibration.wanted.threshold
    assert wanted is not None, "at which the precision that it promises is reached"
    gaps = np.linspace(-FARTHEST, FARTHEST, 1 + GAPS)
    return float(gaps[np.searchsorted(calibration.fitted(gaps, np.zeros(len(gaps)), None), wanted)])


def threshold(query: Vectors) -> float:
    """Return the distance up to which nine in ten accepted pairs are copies, for the descriptor [256] of a query.

    It is smaller for a query that lies near unrelated pictures too, as a page of text does (docs/calibration.md).
    """
    apart = judge_of(DEFAULT_MODEL).unrelated_distance(query[None])
    assert apart is not None, "the model of the package has a calibration"
    return math.sqrt(max(0.0, float(apart[0]) - _least_gap()))


def to_signal(vector: Vectors) -> str:
    """Return a descriptor [256] as text."""
    return vector.astype("<f2").tobytes().hex()


def to_vector(signal: str) -> Vectors:
    """Return the descriptor of a signal. Raises ValueError for a text of another form."""
    if not FORM.fullmatch(signal):
        raise ValueError(f"a signal of {len(signal)} characters; expected {4 * DIM} hexadecimal digits")
    vector = np.frombuffer(bytes.fromhex(signal), "<f2").astype(np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("a signal with NaN or infinite numbers")
    return vector


class IscIndex(SignalTypeIndex[Any]):
    """Exact search among signals, one matrix product a query; 1 KB of memory each."""

    def __init__(self) -> None:
        self._rows: Vectors = np.zeros((GROWTH, DIM), np.float32)
        self._entries: list[Any] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, signal_str: str, entry: Any) -> None:
        """Add an entry; one of the same signal stays beside it."""
        if len(self) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[len(self)] = to_vector(signal_str)
        self._entries.append(entry)

    def query(self, query: str) -> Sequence[IndexMatchUntyped[Any, Any]]:
        """Return the entries within the threshold, the nearest first."""
        rows, vector = self._rows[: len(self)], to_vector(query)
        squared = np.square(rows).sum(axis=1) - 2 * (rows @ vector) + float(np.square(vector).sum())
        near = np.flatnonzero(squared <= threshold(vector) ** 2)
        order = near[np.argsort(squared[near], kind="stable")]
        exact = np.sqrt(np.square(rows[order] - vector).sum(axis=1)).tolist()
        return [
            IndexMatchUntyped(SignalSimilarityInfoWithSingleDistance(float(distance)), self._entries[at])
            for at, distance in zip(order.tolist(), exact, strict=True)
        ]


class IscCopySignal(SimpleSignalType, BytesHasher):
    """The descriptor of isc_small: edited copies of a photo lie near each other."""

    INDICATOR_TYPE = "HASH_ISC_COPY"

    @classmethod
    def get_name(cls) -> str:
        return "isc_copy"

    @classmethod
    def get_content_types(cls) -> list[type[ContentType]]:
        return [PhotoContent]

    @classmethod
    def get_index_cls(cls) -> type[IscIndex]:
        return IscIndex

    @classmethod
    def validate_signal_str(cls, signal_str: str) -> str:
        """Return the signal in small letters. Raises ValueError for another form."""
        signal = signal_str.strip().lower()
        to_vector(signal)
        return signal

    @classmethod
    def hash_from_bytes(cls, bytes_: bytes) -> str:
        """Return the signal of a picture's file, an empty text for one that cannot be decoded."""
        network = _network()
        try:
            picture = resize(read_image(bytes_), network.image_size)
        except InputError:
            return ""
        return to_signal(network.embed(picture[None].transpose(0, 3, 1, 2))[0])

    @classmethod
    def compare_hash(cls, hash1: str, hash2: str) -> SignalComparisonResult:
        """Compare the signal of a reference with that of a query by their Euclidean distance."""
        query = to_vector(hash2)
        distance = float(np.linalg.norm(to_vector(hash1) - query))
        return SignalComparisonResult.from_simple_dist(distance, threshold(query))

    @staticmethod
    def get_examples() -> list[str]:
        """Return signals of unit length along three axes: of no photo, far from each other."""
        return [to_signal(np.eye(DIM, dtype=np.float32)[at]) for at in (0, 100, 200)]


TX_MANIFEST = ThreatExchangeExtensionManifest(signal_types=(IscCopySignal,))
