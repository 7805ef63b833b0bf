"""The configuration of isc-benchmark: defaults, units and checks."""

from __future__ import annotations

from dataclasses import dataclass

from isc.config.checks import REQUIRED, check, check_at_least, check_texts
from isc.config.choices import Library, NearDuplicates


@dataclass
class BenchmarkConfig:
    """Options of `isc-benchmark`: photos → a benchmark in the challenge's layout.

    A count of None is derived from the number of photos.
    """

    images: str = REQUIRED
    output: str = REQUIRED
    preset: str = "challenge"  # easy, challenge, hard; the name of one kind of edit; each: all kinds, strengths in turn
    strength: str | None = None  # light, medium, strong: for a preset of one kind of edit, or each
    edits: Library = Library.own
    seed: int = 0
    references: int | None = None  # photos that are searched
    copied: int | None = None  # references that copies are made of
    distractors: int | None = None  # photos for the distractor queries, which have no reference
    training: int | None = None  # further photos, for training
    queries: int | None = None  # copies and distractors together
    distractor_share: float = 0.8  # share of the queries, as in the challenge
    hard_negatives: int = 0  # distractor queries made of photos that look similar to a reference
    near_duplicates: NearDuplicates = NearDuplicates.leave_out
    max_side: int = 320  # pixels; larger photos are shrunk
    workers: int | None = None  # processes; None: one per core

    def __post_init__(self) -> None:
        check_texts(self)
        check_at_least(0, seed=self.seed, hard_negatives=self.hard_negatives)
        check_at_least(64, max_side=self.max_side)
        for name in ("references", "copied", "distractors", "training", "workers"):
            if (value := getattr(self, name)) is not None:
                check_at_least(1, **{name: value})
        if self.queries is not None:
            check_at_least(2, queries=self.queries)
        check(0 < self.distractor_share < 1, "distractor_share", self.distractor_share, "a share above 0, below 1")
