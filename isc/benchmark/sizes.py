"""The sizes of a benchmark: numbers of references, distractors, training photos and queries."""

from __future__ import annotations

from dataclasses import dataclass, fields

from isc.errors import InputError

FEWEST_PHOTOS = 12
DISTRACTOR_SHARE = 0.8  # of all queries, as in the challenge
QUERIES_OF_A_CELL = 25  # copies per kind of edit and strength, if these take turns


@dataclass(frozen=True)
class Sizes:
    """The numbers of photos and queries; all positive. Raises InputError if they contradict each other.

    The first `copied` of the `references` are edited into the `positive_queries`, as evenly as possible. Another
    `distractors` photos are edited into the `distractor_queries`, which have no reference. The `training` photos are
    further photos.
    """

    references: int
    copied: int
    distractors: int
    training: int
    positive_queries: int
    distractor_queries: int

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = getattr(self, knob.name)
            if value < 1:
                raise InputError(f"sizes.{knob.name}={value}; expected at least 1")
        for few, many in (
            ("copied", "references"),
            ("copied", "positive_queries"),
            ("distractors", "distractor_queries"),
        ):
            if getattr(self, few) > getattr(self, many):
                raise InputError(f"sizes.{few}={getattr(self, few)}; expected at most {many}={getattr(self, many)}")

    @property
    def photos(self) -> int:
        return self.references + self.distractors + self.training


@dataclass(frozen=True)
class Wanted:
    """The requested counts; a count of None is derived from the number of photos.

    `queries` counts copies and distractors together; the share `distractor_share`, above 0 and below 1, of them are
    distractors. If `cells` kinds of edit take turns, each gets the same number of copies.
    """

    references: int | None = None
    copied: int | None = None
    distractors: int | None = None
    training: int | None = None
    queries: int | None = None
    distractor_share: float = DISTRACTOR_SHARE
    cells: int | None = None

    def sizes(self, photos: int) -> Sizes:
        """Return the sizes of a benchmark of this many photos; all photos left over are for training.

        Raises InputError if there are too few photos.
        """
        if photos < FEWEST_PHOTOS:
            raise InputError(f"{photos} photos; expected at least {FEWEST_PHOTOS} to make a benchmark of")
        references = self.references or min(2000, photos * 44 // 118)
        positive, distracting = self._queries(self.copied or max(1, min(500, references * 10 // 11)))
        copied = self.copied or max(1, min(500, references * 10 // 11, positive))
        left = photos - references - (self.training or 1)
        distractors = self.distractors or max(1, min(1000, photos * 20 // 118, distracting, left))
        training = self.training or photos - references - distractors
        if training < 1 or references + distractors + training > photos:
            raise InputError(
                f"{photos:,} photos are usable; expected at least {references + distractors + max(1, training):,} = "
                f"{references:,} references + {distractors:,} distractors + {max(1, training):,} training"
            )
        return Sizes(references, copied, distractors, training, positive, distracting)

    def _queries(self, copied: int) -> tuple[int, int]:
        """Return the numbers of copy queries and of distractor queries."""
        if self.queries is not None:
            distracting = min(max(round(self.queries * self.distractor_share), 1), self.queries - 1)
            return self.queries - distracting, distracting
        positive = min(500, 3 * copied) if self.cells is None else QUERIES_OF_A_CELL * self.cells
        return positive, max(1, round(positive * self.distractor_share / (1 - self.distractor_share)))


def sizes_for(photos: int) -> Sizes:
    """Return the default sizes of a benchmark of this many photos. Raises InputError if there are too few photos."""
    return Wanted().sizes(photos)
