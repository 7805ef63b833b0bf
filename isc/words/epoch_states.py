"""The state of a training after each epoch, in the checkpoint of its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isc.config.words import WordsConfig
from isc.errors import InputError
from isc.model.checkpoint import CHECKPOINT_FILE, flat_config, write_checkpoint
from isc.words.training_data import TrainingData


@dataclass(frozen=True)
class EpochStates:
    """The last state of a training, None at its beginning, and where the next ones are kept."""

    path: Path
    made: Mapping[str, Any]
    last: Mapping[str, Any] | None

    @classmethod
    def of(cls, config: WordsConfig, data: TrainingData, state: Mapping[str, Any] | None) -> EpochStates:
        """Return the states of this training. Raises InputError if `state` is of other pictures or captions."""
        learned = data.train
        columns = (learned.pictures, learned.languages, learned.texts)
        parts = ["\0".join(map(str, column)) for column in columns]
        made = {"config": flat_config(config), "captions": hashlib.sha256("\0\0".join(parts).encode()).hexdigest()}
        if state is not None and state["captions"] != made["captions"]:
            raise InputError(f"pairs={config.pairs}: other captions than those of the checkpoint in {config.output}")
        return cls(Path(config.output) / CHECKPOINT_FILE, made, state)

    def keep(self, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of an epoch; if the writing fails, the one before stays."""
        write_checkpoint(self.path, {**self.made, **state})
