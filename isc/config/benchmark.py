"""The configuration of isc benchmark: defaults, units and checks."""

from __future__ import annotations

from dataclasses import dataclass

from isc.config.checks import REQUIRED, check, check_at_least, check_texts, key
from isc.config.choices import Library, NearDuplicates


@dataclass
class BenchmarkConfig:
    """Options of `isc benchmark`: photos → a benchmark in the challenge's layout.

    A count of None is derived from the number of photos.
    """

    images: str = key(REQUIRED, "folder of photos")
    output: str = key(REQUIRED, "folder of the benchmark")
    preset: str = key(
        "challenge",
        "easy, challenge, hard; the name of one kind of edit; each: all kinds, strengths in turn",
    )
    strength: str | None = key(None, "light, medium, strong: for a preset of one kind of edit, or each")
    edits: Library = key(
        Library.own,
        "library of the edits: our own, or AugLy, an outside library that has to be installed",
    )
    seed: int = key(0, "seed of all draws: the same photos, keys and seed give the same files")
    references: int | None = key(None, "photos that are searched")
    copied: int | None = key(None, "references that copies are made of")
    distractors: int | None = key(None, "photos for the distractor queries, which have no reference")
    training: int | None = key(None, "further photos, for training")
    queries: int | None = key(None, "copies and distractors together")
    distractor_share: float = key(0.8, "share of the queries that have no reference, as in the challenge")
    hard_negatives: int = key(0, "distractor queries made of photos that look similar to a reference")
    near_duplicates: NearDuplicates = key(
        NearDuplicates.leave_out,
        "photos that show the same: keep one of each group, keep all, or refuse the run",
    )
    max_side: int = key(320, "longest side in pixels; larger photos are shrunk")
    workers: int | None = key(None, "processes that edit photos; null: one per core")

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
