"""Random draws of an edit: numbers, colours, words, and other photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image

Thing = TypeVar("Thing")
Params = dict[str, Any]  # JSON
Made = tuple[Image.Image, Params]  # a picture and its drawn parameters
Colour = tuple[int, int, int]

WORDS = (
    "the", "best", "day", "of", "our", "summer", "look", "what", "I", "found", "never", "again", "mood", "when", "you",
    "say", "just", "five", "more", "minutes", "home", "sweet", "friends", "forever", "new", "post", "link", "in", "bio",
    "sale", "today", "only", "who", "did", "this", "thanks", "for", "watching", "true", "story", "part", "two", "wow",
)  # fmt: skip
NAMES = ("mira.k", "old_town", "paul_89", "daily.views", "the.kitchen", "wanderer", "club_7", "sunny", "lena", "news24")


@dataclass(frozen=True)
class Draws:
    """A random stream, the ids of other photos, and the function that opens one of them."""

    rng: np.random.Generator
    ids: Sequence[str]
    open: Callable[[str], Image.Image]

    def number(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 4)

    def whole(self, low: int, high: int) -> int:
        """Return an integer from low…high, both included."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, things: Sequence[Thing]) -> Thing:
        return things[int(self.rng.integers(len(things)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def sign(self) -> int:
        return 1 if self.chance(0.5) else -1

    def seed(self) -> int:
        return self.whole(0, 2**31 - 1)

    def colour(self) -> Colour:
        """Return black, white, or any colour."""
        anything = self.whole(0, 255), self.whole(0, 255), self.whole(0, 255)
        return self.one_of(((0, 0, 0), (255, 255, 255), anything, anything))

    def words(self, fewest: int, most: int) -> str:
        return " ".join(self.one_of(WORDS) for _ in range(self.whole(fewest, most)))

    def other(self) -> tuple[str, Image.Image]:
        """Return the id of another photo, and the photo."""
        name = self.one_of(self.ids)
        return name, self.open(name)

    def others(self, number: int) -> tuple[list[str], list[Image.Image]]:
        """Return the ids of `number` other photos, and the photos; all are different if there are enough."""
        drawn = self.rng.choice(len(self.ids), number, replace=len(self.ids) < number)
        names = [self.ids[int(i)] for i in drawn]
        return names, [self.open(name) for name in names]


def hexed(colour: Colour) -> str:
    """Return the colour as ImageMagick takes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
