"""Captions of the sample photos for tests: made-up sentences, different for each photo."""

from __future__ import annotations

import csv
import json

import numpy as np

from tests.conftest import SAMPLE

PHOTOS = sorted(path.stem for path in SAMPLE.glob("*.jpg"))
ENGLISH = (
    ["a", "one", "the"],
    ["red", "small", "wet", "happy", "old"],
    ["dog", "house", "boat", "tree", "man", "bird"],
    ["near", "behind", "above"],
    ["water", "snow", "grass", "stones"],
)
GERMAN = (
    ["Ein", "Kein"],
    ["roter", "kleiner", "alter"],
    ["Hund", "Baum", "Mann", "Vogel"],
    ["am", "im"],
    ["Wasser", "Schnee", "Gras"],
)


def sentence(parts, rng):
    return " ".join(str(rng.choice(part)) for part in parts)


def write_captions(path, photos, *, dev=8, each=2):
    """Write a captions file: the last `dev` photos are the dev split."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("photo_id", "language", "split", "caption"))
        for at, photo in enumerate(photos):
            split = "dev" if at >= len(photos) - dev else "train"
            for _ in range(each):
                writer.writerow((photo, "en", split, sentence(ENGLISH, rng) + " ."))
            writer.writerow((photo, "de", split, sentence(GERMAN, rng) + "."))
    return path


def write_bert(folder, *, words=("dog", "cat", "boat", "water"), seed=0):
    """Write a tiny sentence encoder as sentence-transformers does: a transformer of one layer, mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    plain = folder.parent / f"{folder.name}-plain"
    plain.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (plain / "vocab.txt").write_text("\n".join(vocabulary))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(plain)
    BertTokenizerFast(vocab_file=str(plain / "vocab.txt")).save_pretrained(plain)
    model = SentenceTransformer(modules=[Transformer(str(plain)), Pooling(32)], device="cpu")
    model.save(str(folder))
    return folder


def write_clip(folder, *, seed=0):
    """Write a tiny model as open_clip does."""
    import open_clip
    import safetensors.torch
    import torch

    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    made = open_clip.model.CLIP(**model)
    safetensors.torch.save_file(made.state_dict(), folder / "open_clip_model.safetensors")
    return folder
