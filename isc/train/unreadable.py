"""Unreadable training photos: each one is logged once, and too many of them stop the run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from isc.data.csv_files import write_csv
from isc.errors import InputError

log = logging.getLogger(__name__)


@dataclass
class UnreadablePhotos:
    """The unreadable photos of a run: `reasons` by file. At most the share 0…1 of all `photos` may be unreadable."""

    images: str
    photos: int
    share: float
    reasons: dict[str, str] = field(default_factory=dict)

    def note(self, failures: Iterable[tuple[str, str]]) -> None:
        """Add (file, reason) pairs; raise InputError if too many photos are unreadable."""
        for path, reason in failures:
            if path not in self.reasons:
                self.reasons[path] = reason
                log.warning("skipped: %s", reason)
        bad = len(self.reasons)
        if bad >= self.photos:
            what = f"none of the {self.photos} photos can be read"
        elif bad > self.share * self.photos:
            what = f"{bad} of {self.photos} photos cannot be read, more than max_unreadable={self.share:g}"
        else:
            return
        raise InputError(f"images={self.images}: {what}; the last: {list(self.reasons.values())[-1]}")

    def write(self, path: Path) -> None:
        """Write the files and reasons as CSV, if there are any."""
        if self.reasons:
            write_csv(path, ("file", "reason"), iter(self.reasons.items()))
            log.warning("%d photos could not be read; see %s", len(self.reasons), path)
