"""The local features of references during a run: stored on disk, or held in memory if that fails."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from isc.match.verification.feature_store import FeatureStore, PhotoKey, num_bytes
from isc.match.verification.features import LocalFeatures
from isc.match.verification.tasks import Described

BATCH = 64  # photos stored in one transaction, which may be lost if the process is killed
HELD = 1 << 30  # bytes of features held in memory if they cannot be stored; about 13,000 photos


class FeatureShelf:
    """The place of new features: the store, in batches, or else memory.

    The thread `disk` writes one batch at a time, so that the processes need not wait for it.
    """

    def __init__(self, store: FeatureStore | None) -> None:
        self.held: dict[int, LocalFeatures | str] = {}
        self._store = store
        self._room = HELD
        self._batch: dict[int, tuple[PhotoKey, LocalFeatures]] = {}
        self._writing: tuple[dict[int, tuple[PhotoKey, LocalFeatures]], Future[bool]] | None = None

    @property
    def full(self) -> bool:
        """Return whether neither memory nor store can take more features."""
        return self._room <= 0 and (self._store is None or not self._store.writable)

    def put(self, described: Described, disk: ThreadPoolExecutor) -> None:
        for number, key, features in described.photos:
            if isinstance(features, str):
                self.held[number] = features
            elif self._store is None or key is None:
                self._hold(number, features)
            else:
                self._batch[number] = key, features
        if len(self._batch) >= BATCH:
            self._write(disk)

    def flush(self, disk: ThreadPoolExecutor) -> None:
        """Store all remaining features, and wait until this is done."""
        self._write(disk)
        self._settle()

    def _write(self, disk: ThreadPoolExecutor) -> None:
        self._settle()
        if self._store is not None and self._batch:
            values = dict(self._batch.values())
            self._writing = self._batch, disk.submit(self._store.put_many, values)
            self._batch = {}

    def _settle(self) -> None:
        """Wait for the batch that is being written; hold it in memory if this failed."""
        if self._writing is None:
            return
        (batch, stored), self._writing = self._writing, None
        if not stored.result():
            for number, (_, features) in batch.items():
                self._hold(number, features)

    def _hold(self, number: int, features: LocalFeatures) -> None:
        if self._room > 0:
            self.held[number] = features
            self._room -= num_bytes(features)
