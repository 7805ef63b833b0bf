"""The folder of a captioner: captioner.json, retrieval.safetensors, captions.csv, and network.safetensors if any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
from safetensors import SafetensorError

from isc.data.csv_files import write_csv
from isc.data.files import atomic_path, write_json
from isc.data.json_files import read_json
from isc.errors import InputError
from isc.words.caption_files import Captions, read_captions
from isc.words.caption_model import Nearest, Writer
from isc.words.evidence import NAMES, CaptionFusion
from isc.words.gram_space import GramSpace
from isc.words.grids import GridShape
from isc.words.networks import AttentionLstm, CaptionNetwork, GridTransformer
from isc.words.retrieval import Array, Retriever
from isc.words.vocabulary import Vocabulary, Words, tokens_of, words_of

FORMAT = "isc-captioner-1"
CARD, RETRIEVAL, NETWORK, CAPTIONS = "captioner.json", "retrieval.safetensors", "network.safetensors", "captions.csv"
COMMAND = "isc train experiment=captioning_retrieval images=PHOTOS pairs=CAPTIONS.csv output=FOLDER"
KINDS: dict[str, type[AttentionLstm | GridTransformer]] = {"lstm": AttentionLstm, "vlp": GridTransformer}


@dataclass(frozen=True)
class Language:
    """The parts of a captioner for a language: its retriever, training captions, their words, and the fusion."""

    retriever: Retriever
    flat: tuple[tuple[str, ...], ...]
    words: Words
    fusion: CaptionFusion
    uses_network: bool
    familiar: float  # Retriever.familiarity from which on probabilities hold


@dataclass(frozen=True)
class CaptionerParts:
    """All parts of a captioner; `kind` is none, lstm or vlp, and `made` says where it came from."""

    shape: GridShape
    nearest: Nearest
    kind: str
    writer: Writer | None
    languages: Mapping[str, Language]
    made: Mapping[str, Any]


def network_of(kind: str, *, features: int, shape: GridShape, rows: int, width: int) -> CaptionNetwork:
    """Return a new network of a kind."""
    return KINDS[kind](features=features, cells=shape.cells, rows=rows, width=width)


def save_captioner(folder: Path, parts: CaptionerParts, captions: Captions) -> None:
    """Write the folder; `captions` are the training captions, pictures in the order of the retrievers."""
    tensors: dict[str, Array] = {}
    for name, language in parts.languages.items():
        for key in ("pictures", "texts", "center", "weights", "axes"):
            tensors[f"{name}.{key}"] = np.ascontiguousarray(getattr(language.retriever, key), np.float16)
    with atomic_path(folder / RETRIEVAL) as beside:
        beside.write_bytes(safetensors.numpy.save(tensors))
    columns = (captions.pictures, captions.languages, captions.splits, captions.texts)
    write_csv(folder / CAPTIONS, ("photo_id", "language", "split", "caption"), zip(*columns, strict=True))
    card: dict[str, Any] = {
        "format": FORMAT, "kind": parts.kind, "grid": asdict(parts.shape), "nearest": asdict(parts.nearest),
        "languages": {
            name: {"fusion": one.fusion.as_dict(), "uses_network": one.uses_network, "familiar": one.familiar}
            for name, one in parts.languages.items()
        },
        "made": dict(parts.made),
    }  # fmt: skip
    if parts.writer is not None:
        network = parts.writer.network
        card |= {"vocabulary": parts.writer.vocabulary.as_dict(), "width": network.width, "features": network.features}
        with atomic_path(folder / NETWORK) as beside:
            beside.write_bytes(safetensors.torch.save({k: v.contiguous() for k, v in network.state_dict().items()}))
    write_json(folder / CARD, card)


def load_captioner(folder: Path) -> CaptionerParts:
    """Read a folder that `save_captioner` wrote; no code of a file is run.

    Raises InputError, with the command that trains one, if there is none, and for files of another form.
    """
    if not (folder / CARD).is_file():
        raise InputError(f"model={folder}: holds no {CARD}; expected the folder of a trained captioner: {COMMAND}")
    card = read_json(folder / CARD, expected="the card of a captioner")
    try:
        if card["format"] != FORMAT:
            raise InputError(f"{folder / CARD}: format {card['format']!r}; expected {FORMAT}")
        shape, nearest, kind = GridShape(**card["grid"]), Nearest(**card["nearest"]), str(card["kind"])
        writer = _writer(folder, card, shape) if kind in KINDS else None
        tensors = safetensors.numpy.load((folder / RETRIEVAL).read_bytes())
        captions = read_captions(folder / CAPTIONS)
        languages = {
            name: _language(name, said, tensors, captions, networked=writer is not None)
            for name, said in card["languages"].items()
        }
        return CaptionerParts(shape, nearest, kind, writer, languages, card["made"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder}: not a whole captioner ({text}); train it again: {COMMAND}") from error


def _writer(folder: Path, card: Mapping[str, Any], shape: GridShape) -> Writer:
    vocabulary = Vocabulary.from_dict(card["vocabulary"])
    network = network_of(
        card["kind"], features=int(card["features"]), shape=shape, rows=len(vocabulary), width=int(card["width"])
    )
    network.load_state_dict(safetensors.torch.load_file(folder / NETWORK))
    return Writer(network.eval(), vocabulary)


def _language(
    name: str, said: Mapping[str, Any], tensors: Mapping[str, Array], captions: Captions, *, networked: bool
) -> Language:
    texts = captions.of(language=name).by_picture()
    several = [[tokens_of(text, name) for text in one] for one in texts.values()]
    space = GramSpace(several)
    parts = {
        key: tensors[f"{name}.{key}"].astype(np.float32) for key in ("pictures", "texts", "center", "weights", "axes")
    }
    if len(parts["axes"]) != space.size or len(parts["pictures"]) != len(several):
        raise ValueError(f"captions.csv does not belong to {RETRIEVAL}")
    flat = tuple(tuple(one) for group in several for one in group)
    weights = said["fusion"]["weights"]
    weights = [*weights, *[0.0] * (len(NAMES) - len(weights))]  # a captioner from before the last kinds of evidence
    fusion = CaptionFusion(**said["fusion"] | {"weights": weights})
    words = words_of([text for one in texts.values() for text in one], name, least=1)
    used, familiar = bool(said["uses_network"]) and networked, float(said.get("familiar", -1.0))  # older ones lack it
    return Language(Retriever(space, **parts), flat, words, fusion, used, familiar)
