"""How many photos go where, and how many queries are made of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from isc.errors import InputError

FEWEST_PHOTOS = 12
DISTRACTOR_SHARE = 0.8  # of the queries, as in the challenge
QUERIES_OF_A_CELL = 25  # of each kind of edit and strength, where they come in turn


@dataclass(frozen=True)
class Sizes:
    """How many photos go where, and how many queries are made of them; all positive.

    Of the `references` the first `copied` are edited into `positive_queries`, as evenly as possible; of further
    `distractors` photos the `distractor_queries` are made, which have no reference; `training` photos are apart.
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
    """The counts that were asked for; what is None follows from the number of photos.

    `queries` counts copies and distractors together, of which `distractor_share`, above 0 and below 1, are distractors.
    `cells` kinds of edit take turns, of which each gets equally many copies.
    """

    references: int | None = None
    copied: int | None = None
    distractors: int | None = None
    training: int | None = None
    queries: int | None = None
    distractor_share: float = DISTRACTOR_SHARE
    cells: int | None = None

    def sizes(self, photos: int) -> Sizes:
        """How a benchmark divides this many photos: the rest of them, most where there are many, is for training.

        Raises InputError where the photos are too few.
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
        """The numbers of copies and of distractors."""
        if self.queries is not None:
            distracting = min(max(round(self.queries * self.distractor_share), 1), self.queries - 1)
            return self.queries - distracting, distracting
        positive = min(500, 3 * copied) if self.cells is None else QUERIES_OF_A_CELL * self.cells
        return positive, max(1, round(positive * self.distractor_share / (1 - self.distractor_share)))


def sizes_for(photos: int) -> Sizes:
    """How a benchmark divides this many photos where nothing else is asked for. InputError where they are too few."""
    return Wanted().sizes(photos)
