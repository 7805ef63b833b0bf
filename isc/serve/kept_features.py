"""The local features that a service keeps: a cache, which may be lost, and whose damage stops nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from isc.errors import InputError
from isc.match.verification.feature_store import FeatureStore, PhotoKey
from isc.match.verification.features import LocalFeatures

log = logging.getLogger(__name__)
Value = TypeVar("Value")
AGAIN = 60.0  # seconds after which a store that could not be used is tried again


class KeptFeatures:
    """A store of features that is left out while its file is damaged, or that of another version.

    This is said in one line. As soon as somebody has removed the file, features are stored again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: FeatureStore | None = None
        self._said = ""
        self._due = 0.0

    def get_many(self, photos: Iterable[PhotoKey]) -> dict[PhotoKey, LocalFeatures]:
        """Return the stored features by photo; none while the store cannot be used."""
        wanted = list(photos)
        return self._with(lambda store: store.get_many(wanted)) or {}

    def put_many(self, features: Mapping[PhotoKey, LocalFeatures]) -> None:
        """Store features, if that is possible."""
        self._with(lambda store: store.put_many(features))

    def forget(self, paths: Iterable[Path]) -> None:
        """Remove the features of these files."""
        gone = list(paths)
        self._with(lambda store: store.forget(gone))

    def _with(self, action: Callable[[FeatureStore], Value]) -> Value | None:
        """Return what the store gives, None if it cannot be used; this is said once for each reason."""
        if self._store is None and time.monotonic() < self._due:
            return None
        try:
            self._store = self._store or FeatureStore(self._folder)
            found = action(self._store)
        except InputError as error:
            if str(error) != self._said:
                log.error("%s; until then the service makes features anew for each comparison", error)
            if self._store is not None:
                self._store.close()
            self._store, self._said, self._due = None, str(error), time.monotonic() + AGAIN
            return None
        return found
