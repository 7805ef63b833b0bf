"""The folder of a matcher: matcher.safetensors with both towers, and matcher.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError

from isc.data.files import atomic_path, write_json
from isc.data.json_files import read_json
from isc.errors import InputError
from isc.words.grids import GridShape
from isc.words.matching_model import MatchingModel
from isc.words.text_grams import BUCKETS

FORMAT = "isc-matcher-1"
CARD, TOWERS = "matcher.json", "matcher.safetensors"
COMMAND = "isc train experiment=captions_small images=PHOTOS pairs=CAPTIONS.csv output=FOLDER"


def save_matcher(folder: Path, model: MatchingModel, weights: npt.NDArray[np.float32], shape: GridShape) -> None:
    """Write the folder; `weights` [BUCKETS] are those of the texts' buckets."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / TOWERS) as beside:
        beside.write_bytes(safetensors.torch.save(state | {"rarity": torch.from_numpy(weights)}))
    write_json(
        folder / CARD,
        {"format": FORMAT, "grid": asdict(shape), "features": model.features, "dim": model.dim, "buckets": BUCKETS},
    )


def load_matcher(folder: Path) -> tuple[MatchingModel, npt.NDArray[np.float32], GridShape]:
    """Read a folder that `save_matcher` wrote; no code of a file is run.

    Raises InputError, with the command that trains one, if there is none, and for files of another form.
    """
    if not (folder / CARD).is_file():
        raise InputError(f"model={folder}: holds no {CARD}; expected the folder of trained towers: {COMMAND}")
    card = read_json(folder / CARD, expected="the card of a matcher")
    try:
        if card["format"] != FORMAT or card["buckets"] != BUCKETS:
            raise InputError(f"{folder / CARD}: format {card['format']!r}; expected {FORMAT}")
        state = safetensors.torch.load_file(folder / TOWERS)
        weights = state.pop("rarity").numpy()
        model = MatchingModel(features=int(card["features"]), dim=int(card["dim"]))
        model.load_state_dict(state)
        return model.eval(), weights, GridShape(**card["grid"])
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder}: not whole towers ({text}); train them again: {COMMAND}") from error
