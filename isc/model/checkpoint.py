"""The checkpoint of a run: written atomically, and resumed only with an equal configuration."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from isc.config.products import ProductsConfig
from isc.config.train import GONE, TrainConfig
from isc.config.words import WordsConfig
from isc.data.files import atomic_path
from isc.errors import InputError
from isc.model.files import MODEL_FILE

CHECKPOINT_FILE = "checkpoint.pt"
MAY_CHANGE = (
    "images",  # the photos themselves may not: their hash is checked
    "output",
    "resume",
    "device",
    "workers",
    "photo_cache_gb",
    "max_unreadable",
    "validation",
    "sentences",  # of the fusion, which is fitted at the end
    "train.steps",
    "train.lr",
    "train.compile",
    "train.micro_batch",
    "train.checkpoint_every",
    "train.validate_every",
)


def flat_config(config: object) -> dict[str, Any]:
    """Return the configuration as {dotted key: plain value}; list items have their index as key."""

    def walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, list):
            value = {str(place): item for place, item in enumerate(value)}
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(f"{prefix}.{name}" if prefix else name, inner)
        else:
            yield prefix, value.value if isinstance(value, Enum) else value

    return dict(walk("", dataclasses.asdict(config)))  # type: ignore[call-overload]


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint atomically: if the writing fails (full disk), the previous checkpoint stays."""
    data = io.BytesIO()  # torch's own writer would hide the reason if the file cannot be written
    torch.save(state, data)
    with atomic_path(path) as beside:
        beside.write_bytes(data.getvalue())  # not getbuffer(): Python 3.12 may crash if an error outlives the buffer


def checkpoint_to_resume(run: Path, config: TrainConfig | ProductsConfig | WordsConfig) -> dict[str, Any] | None:
    """Return the checkpoint to resume from, or None for a new run.

    Raises InputError if the output folder does not fit the configuration.
    """
    path = run / CHECKPOINT_FILE
    if run.exists() and not run.is_dir():
        raise InputError(f"output={run}: is a file; expected a folder")
    if not path.exists():
        if (run / MODEL_FILE).exists():
            raise InputError(f"output={run}: holds a model without its checkpoint; give another folder")
        return None
    if not config.resume:
        raise InputError(f"output={run}: holds a run already; go on with resume=true, or give another folder")
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); remove it to start again") from error
    now = flat_config(config) | {name: value for name, value in GONE.items() if name in state["config"]}
    for name in state["config"] | now:
        before, asked = state["config"].get(name), now.get(name)
        if not _may_change(name) and before != asked:
            raise InputError(f"output={run}: was made with {name}={before}, now {name}={asked}; expected the same")
    return state


def _may_change(key: str) -> bool:
    """Return whether a resumed run may have another value of this key; an item of a list has the rights of the list."""
    return re.sub(r"\.\d+$", "", key) in MAY_CHANGE
