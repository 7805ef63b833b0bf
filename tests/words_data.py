"""Captions of the sample photos for tests: made-up sentences, different for each photo."""

from __future__ import annotations

import csv

import numpy as np

from tests.conftest import SAMPLE

PHOTOS = sorted(path.stem for path in SAMPLE.glob("*.jpg"))
ENGLISH = (
    ["a", "one", "the"],
    ["red", "small", "wet", "happy", "old"],
    ["dog", "house", "boat", "tree", "man", "bird"],
    ["near", "behind", "above"],
    ["water", "snow", "grass", "stones"],
)
GERMAN = (
    ["Ein", "Kein"],
    ["roter", "kleiner", "alter"],
    ["Hund", "Baum", "Mann", "Vogel"],
    ["am", "im"],
    ["Wasser", "Schnee", "Gras"],
)


def sentence(parts, rng):
    return " ".join(str(rng.choice(part)) for part in parts)


def write_captions(path, photos, *, dev=8, each=2):
    """Write a captions file: the last `dev` photos are the dev split."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("photo_id", "language", "split", "caption"))
        for at, photo in enumerate(photos):
            split = "dev" if at >= len(photos) - dev else "train"
            for _ in range(each):
                writer.writerow((photo, "en", split, sentence(ENGLISH, rng) + " ."))
            writer.writerow((photo, "de", split, sentence(GERMAN, rng) + "."))
    return path
