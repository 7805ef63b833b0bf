"""The tasks of train.py about captions."""

from __future__ import annotations

from pathlib import Path

from isc.config.words import Task, WordsConfig
from isc.words.train_captioning import train_captioning
from isc.words.train_matching import train_matching


def train_words(config: WordsConfig) -> Path:
    """Train what `config.task` names; return the folder."""
    return train_captioning(config) if config.task is Task.captioning else train_matching(config)
