"""train.py task=captions: pictures and captions → two towers that put both into one space."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isc.config.words import WordsConfig
from isc.data.files import write_json
from isc.errors import InputError
from isc.model.checkpoint import checkpoint_to_resume
from isc.words.caption_files import Captions
from isc.words.embed_towers import embed_grids, embed_texts
from isc.words.epoch_states import EpochStates
from isc.words.fit_captions import rate
from isc.words.grids import Grids
from isc.words.matcher_files import save_matcher, text_tower
from isc.words.matching_model import MatchingModel, contrast
from isc.words.ranking import ranking_figures, ranks_of_right
from isc.words.text_towers import Rows
from isc.words.training_data import METRICS, peak_memory, training_data

log = logging.getLogger(__name__)
DIM = 256  # numbers of a vector
MEMORY = 2048  # texts of earlier steps that are wrong for every picture of a batch
PICTURES = 128  # of a batch
EACH = 2  # texts of a picture in a batch
EVERY = 50  # steps between two lines of the log


def train_matching(config: WordsConfig) -> Path:
    """Train the towers into `config.output`; return the folder. metrics.json has the figures of the dev split.

    A checkpoint is kept after every epoch. Raises InputError for a language without captions, for a picture with
    captions that is not among the photos, and for a folder whose checkpoint is of another training.
    """
    begun, output = time.monotonic(), Path(config.output)
    text_tower(config.reads, config.encoder, DIM)  # refused here, before any photo is read, if it cannot be had
    state = checkpoint_to_resume(output, config)
    data = training_data(config)
    states = EpochStates.of(config, data, state)
    grids, places = data.pictures.grids, data.pictures.places
    torch.manual_seed(config.seed)
    model = MatchingModel(text_tower(config.reads, config.encoder, DIM), features=grids.shape[2], dim=DIM)
    rows = model.text.learn(list(data.train.texts), output)
    loss = fit_towers(
        model, grids, data.train, places, rows, epochs=config.train.epochs, lr=config.train.lr, seed=config.seed,
        state=states.last, keep=states.keep,
    )  # fmt: skip
    figures = {
        language: figures_of(model, grids, data.dev.of(language=language), places) for language in config.languages
    }
    save_matcher(output, model, data.shape, languages=config.languages)
    seconds = round(time.monotonic() - begun, 1)
    write_json(output / METRICS, {"languages": figures, "loss": loss, "seconds": seconds, "memory_mb": peak_memory()})
    for language, one in figures.items():
        log.info("%s: %s", language, one)
    return output


def fit_towers(
    model: MatchingModel, grids: Grids, captions: Captions, places: Mapping[str, int], rows: Rows, *, epochs: int,
    lr: float, seed: int, state: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> float:  # fmt: skip
    """Train the towers; return the mean loss of the last epoch. An epoch takes EACH captions of every picture.

    `rows` are what the text tower reads in the captions. Batches and dropout follow from the seed and the number of the
    epoch alone, so that a training that goes on from the `state` of an epoch, which `keep` was given after it, takes
    the steps of one without a pause. Raises InputError if the loss is not finite.
    """
    by_picture: dict[str, list[int]] = {}
    for row, picture in enumerate(captions.pictures):
        by_picture.setdefault(picture, []).append(row)
    names = list(by_picture)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    size = min(PICTURES, len(names))
    steps = epochs * (len(names) // size)
    memory, done, mean = torch.zeros(0, model.dim), 0, 0.0
    if state is not None:
        model.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        memory, done, mean = state["memory"], state["epoch"], state["loss"]
    step = done * (len(names) // size)
    for epoch in range(done, epochs):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(1 << 62)))
        model.train()
        losses = []
        order = rng.permutation(len(names))
        for first in range(0, len(order) - size + 1, size):
            chosen = [names[at] for at in order[first : first + size]]
            drawn = [rng.choice(by_picture[name], min(EACH, len(by_picture[name])), replace=False) for name in chosen]
            owners = torch.from_numpy(np.repeat(np.arange(size), [len(one) for one in drawn]))
            grid = torch.from_numpy(grids[[places[name] for name in chosen]].astype(np.float32))
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps)
            text = model.texts(rows[np.concatenate(drawn)])
            loss = contrast(model.pictures(grid), text, owners, memory, scale=model.scale)
            if not torch.isfinite(loss):
                raise InputError(f"step {step}: the loss is {float(loss)}; expected a lower train.lr")
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            memory = torch.cat((text.detach(), memory))[:MEMORY]
            losses.append(float(loss.detach()))
            step += 1
            if step % EVERY == 0 or step == steps:
                log.info("step %d of %d: loss %.3f", step, steps, np.mean(losses[-EVERY:]))
        mean = float(np.mean(losses))
        if keep:
            parts = {"network": model.state_dict(), "optimizer": optimizer.state_dict(), "memory": memory}
            keep({"epoch": epoch + 1, "loss": mean, **parts})
    model.eval()
    return mean


def figures_of(
    model: MatchingModel, grids: Grids, captions: Captions, places: Mapping[str, int]
) -> dict[str, list[float] | int]:
    """Return the ranking figures of finding, among one text of each picture, that of a picture."""
    if not len(captions):
        raise InputError("no caption to judge by; expected a dev split in every language")
    first = {picture: texts[0] for picture, texts in captions.by_picture().items()}
    pictures = embed_grids(model, np.stack([grids[places[name]] for name in first]))
    texts = embed_texts(model, list(first.values()))
    found = list(first.values())
    right = np.array([[one == other for other in found] for one in found])
    return {**ranking_figures(ranks_of_right(pictures @ texts.T, right)).as_dict(), "texts": len(found)}
