"""The tasks of train.py about captions."""

from __future__ import annotations

from pathlib import Path

from isc.config.words import Task, WordsConfig


def train_words(config: WordsConfig) -> Path:
    """Train what `config.task` names; return the folder."""
    if config.task is Task.captioning:
        from isc.words.train_captioning import train_captioning

        return train_captioning(config)
    from isc.words.train_matching import train_matching

    return train_matching(config)
