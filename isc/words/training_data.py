"""Training data of words: captions to learn from and to choose with, and the grids of their pictures."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isc.config.words import WordsConfig
from isc.errors import InputError
from isc.photos.sources import list_photos
from isc.words.caption_files import LANGUAGES, Captions, read_captions
from isc.words.grids import GridShape
from isc.words.picture_rows import PictureRows, picture_rows

METRICS = "metrics.json"


def peak_memory() -> int:
    """Return the most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


@dataclass(frozen=True)
class TrainingData:
    """Captions of readable pictures, to learn from and to choose with, and the grids of these pictures."""

    train: Captions
    dev: Captions
    pictures: PictureRows
    shape: GridShape


def training_data(config: WordsConfig) -> TrainingData:
    """Read the captions and describe their pictures; the output folder is made.

    Raises InputError for a language without captions, and for a picture with captions that is not among the photos.
    """
    photos = list_photos(config.images)
    captions = of_languages(read_captions(Path(config.pairs)), config.languages, config.pairs)
    train, dev = train_and_dev(captions)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    shape = GridShape(config.grid.backbone, config.grid.image_size, config.grid.side)
    path = Path(config.grids) if config.grids else output / "grids.npy"
    pictures = picture_rows(photos, captions, shape=shape, path=path, output=output)
    return TrainingData(_readable(train, pictures), _readable(dev, pictures), pictures, shape)


def of_languages(captions: Captions, languages: Sequence[str], where: str) -> Captions:
    """Return the captions of these languages. Raises InputError for one that is unknown, or has no caption."""
    for language in languages:
        if language not in LANGUAGES:
            raise InputError(f"languages={language}: unknown; expected some of {', '.join(LANGUAGES)}")
        if not (captions.languages == language).any():
            raise InputError(f"languages={language}: {where} holds no caption in {LANGUAGES[language]}")
    return captions.take(np.isin(captions.languages, languages))


def train_and_dev(captions: Captions) -> tuple[Captions, Captions]:
    """Return the captions to learn from and those to choose with: the splits train and dev, or every tenth picture.

    Raises InputError if there is nothing to learn from.
    """
    train, dev = captions.of(split="train"), captions.of(split="dev")
    if not len(train):
        raise InputError("pairs: no caption has the split train; expected some")
    if len(dev):
        return train, dev
    tenth = set(sorted(set(train.pictures))[::10])
    held = np.array([picture in tenth for picture in train.pictures])
    if held.all():
        raise InputError("pairs: captions of one picture alone; expected at least 2 pictures")
    return train.take(~held), train.take(held)


def _readable(captions: Captions, pictures: PictureRows) -> Captions:
    """Return the captions of pictures that could be read."""
    return captions.take(np.array([picture in pictures.places for picture in captions.pictures], bool))
