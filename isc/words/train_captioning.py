"""train.py task=captioning: pictures and captions → the folder of a captioner."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from isc import __version__
from isc.config.words import WordsConfig, Writes
from isc.data.csv_files import write_csv
from isc.data.files import write_json
from isc.errors import InputError
from isc.model.checkpoint import checkpoint_to_resume
from isc.words.caption_batches import numbered
from isc.words.caption_metrics import CiderD, caption_figures, cider_scores
from isc.words.caption_model import Nearest, Proposed, Writer, propose, ranked
from isc.words.captioner_files import CaptionerParts, Language, network_of, save_captioner
from isc.words.epoch_states import EpochStates
from isc.words.evidence import NAMES, CaptionFusion, Floats, fit_fusion
from isc.words.fit_captions import Schedule, fit, held_out_loss
from isc.words.networks import GridTransformer
from isc.words.retrieval import fit_retriever, pooled
from isc.words.training_data import METRICS, TrainingData, peak_memory, training_data
from isc.words.vocabulary import Vocabulary, tokens_of, words_of

log = logging.getLogger(__name__)
Said = Mapping[int, Sequence[str]]  # the caption of each judged picture, by its place in the dev split
UNMATCHED = tuple(name for name in NAMES if name != "matching")
ORDERS = {
    "consensus": ("consensus", "likeness"),  # likeness is one for a whole picture
    "all evidence but the matching head": UNMATCHED,
    "all evidence": NAMES,
}
JUDGED = "judged.csv"
STRANGE = 0.02  # share of the pictures to choose with that are less familiar than those whose probabilities hold
QUARTER = 0.25  # a caption is good if it agrees with people as well as all but the worst quarter of people's captions


def train_captioning(config: WordsConfig) -> Path:
    """Train a captioner into `config.output`; return the folder.

    The captions with split `train` are learned from. Those of `dev`, or every tenth picture without any, choose: one
    half fits the fusion of evidence, the other gives the figures of metrics.json, whose captions are in judged.csv. A
    checkpoint is kept after every epoch of the network. Seconds and memory are those of this process alone. Raises
    InputError for a language without captions, for a picture with captions that is not among the photos, and for a
    folder whose checkpoint is of another training.
    """
    begun, output = time.monotonic(), Path(config.output)
    state = checkpoint_to_resume(output, config)
    data = training_data(config)
    seconds = {"grids": time.monotonic() - begun}
    writer, losses = _writer(config, data, EpochStates.of(config, data, state))
    seconds["network"] = time.monotonic() - begun - sum(seconds.values())
    languages: dict[str, Language] = {}
    figures: dict[str, Any] = {}
    judged: list[tuple[str, str, str, str]] = []
    for language in config.languages:
        languages[language], figures[language], rows = _language(language, data, writer)
        judged += rows
        log.info("%s: %s", language, _line(figures[language]["shown"]))
    seconds["retrieval"] = time.monotonic() - begun - sum(seconds.values())
    seen = len(data.pictures.places)
    made = {"isc": __version__, "pictures": seen, "seed": config.seed, "train": asdict(config.train)}
    parts = CaptionerParts(data.shape, Nearest(), config.writes.value, writer, languages, made)
    save_captioner(output, parts, data.train)
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    write_csv(output / JUDGED, ("photo_id", "language", "by", "caption"), iter(judged))
    write_json(output / METRICS, {"languages": figures, "loss": losses, "seconds": seconds, "memory_mb": peak_memory()})
    log.info("%s: a captioner in %s, after %.0f s", output, ", ".join(languages), time.monotonic() - begun)
    return output


def _writer(config: WordsConfig, data: TrainingData, states: EpochStates) -> tuple[Writer | None, Mapping[str, Any]]:
    """Return the trained network, None if none is wanted, and its losses."""
    if config.writes is Writes.none:
        return None, {}
    import torch

    vocabulary = Vocabulary(
        {one: words_of(data.train.of(language=one).texts, one, least=config.least) for one in config.languages}
    )
    torch.manual_seed(config.seed)
    grids = data.pictures.grids
    network = network_of(
        config.writes.value, features=grids.shape[2], shape=data.shape, rows=len(vocabulary), width=config.train.width
    )
    chosen = config.train
    schedule = Schedule(
        epochs=chosen.epochs, pretrain=chosen.pretrain if config.writes is Writes.vlp else 0, captions=chosen.captions,
        lr=chosen.lr, smoothing=chosen.smoothing,
    )  # fmt: skip
    learned, held = (numbered(one, vocabulary, data.pictures.places) for one in (data.train, data.dev))
    loss = fit(
        network, grids, learned, vocabulary, schedule=schedule, seed=config.seed, state=states.last, keep=states.keep
    )
    held_out = held_out_loss(network, grids, held, vocabulary)
    log.info("loss %.3f; of a word of the dev split: %s", loss, {k: round(v, 3) for k, v in held_out.items()})
    return Writer(network, vocabulary), {"train": loss, "dev": held_out}


def _language(
    language: str, data: TrainingData, writer: Writer | None
) -> tuple[Language, dict[str, Any], list[tuple[str, str, str, str]]]:
    """Fit retriever and fusion of a language; return them with the figures of the second half of the dev split.

    The rows of judged.csv come last. The network's captions, and evidence beside consensus, are used only if they win
    on the first half.
    """
    texts, held = (
        {name: [tuple(tokens_of(one, language)) for one in several] for name, several in of.by_picture().items()}
        for of in (data.train.of(language=language), data.dev.of(language=language))
    )
    if len(texts) < 2 or len(held) < 2:
        raise InputError(
            f"languages={language}: {len(texts)} pictures to learn from, {len(held)} to choose with; expected 2"
        )
    pictures = data.pictures
    features = pooled(np.stack([pictures.grids[pictures.places[name]] for name in texts]))
    retriever = fit_retriever(list(texts.values()), features)
    flat = tuple(one for several in texts.values() for one in several)
    grids = np.stack([pictures.grids[pictures.places[name]] for name in held])
    answers = list(held.values())
    chosen, second = range(0, len(held), 2), range(1, len(held), 2)
    good = human_quarter(answers)
    best: tuple[float, Writer | None, list[Proposed], CaptionFusion, str] | None = None
    judged: dict[str, Said] = {}
    for option in [None] if writer is None else [None, writer]:
        proposed = propose(retriever, flat, grids, pooled(grids), language=language, writer=option, nearest=Nearest())
        quality = qualities(proposed, answers)
        rows, values = [proposed[at].rows for at in chosen], [quality[at] for at in chosen]
        fusions = {name: fit_fusion(rows, values, good=good, use=use) for name, use in ORDERS.items()}
        worth = {name: worth_of(proposed, fusion, answers, chosen) for name, fusion in fusions.items()}
        order = max(worth, key=lambda name: worth[name])  # the first of equals: the fewest kinds of evidence
        name = "retrieval" if option is None else "retrieval_and_network"
        judged[name] = best_captions(proposed, fusions[order], second)
        if option is not None:
            judged["network"] = network_captions(proposed, second)
            for way in list(ORDERS)[1:] if isinstance(option.network, GridTransformer) else []:
                judged[way] = best_captions(proposed, fusions[way], second)
        if best is None or worth[order] > best[0]:
            best = (worth[order], option, proposed, fusions[order], order)
    assert best is not None
    _, used, proposed, fusion, order = best
    judged["shown"] = best_captions(proposed, fusion, second)
    figures: dict[str, Any] = {
        name: caption_figures(list(said.values()), [answers[at] for at in said]).as_dict() if said else None
        for name, said in judged.items()
    }
    figures["uses_network"], figures["ordered_by"] = used is not None, order
    familiarity = retriever.familiarity(pooled(grids))
    familiar = float(np.quantile(familiarity[::2], STRANGE))
    figures["good"], figures["familiar"] = fusion.good, float((familiarity[1::2] >= familiar).mean())
    figures["reliability"] = reliability_of(proposed, fusion, answers, second)
    words = words_of(data.train.of(language=language).texts, language, least=1)
    names = list(held)
    lines = [
        (names[at], language, by, words.sentence(caption))
        for by, said in judged.items() if by != "shown" for at, caption in said.items()
    ]  # fmt: skip
    return Language(retriever, flat, words, fusion, used is not None, familiar), figures, lines


def worth_of(
    proposed: Sequence[Proposed], fusion: CaptionFusion, answers: Sequence[Sequence[Sequence[str]]],
    rows: Sequence[int],
) -> float:  # fmt: skip
    """Return CIDEr-D plus BLEU-4 of the best captions of these pictures, by which one way is chosen over another."""
    shown = [proposed[at].captions[ranked(proposed[at], fusion)[0]] for at in rows]
    figures = caption_figures(shown, [answers[at] for at in rows], resamples=1)
    return figures.cider.value + figures.bleu[3].value


def qualities(proposed: Sequence[Proposed], answers: Sequence[Sequence[Sequence[str]]]) -> list[Floats]:
    """Return the CIDEr-D of every candidate of each picture."""
    judge = CiderD(answers)
    return [
        np.array([judge.score(one, right) for one in several.captions])
        for several, right in zip(proposed, answers, strict=True)
    ]


def human_quarter(answers: Sequence[Sequence[Sequence[str]]]) -> float:
    """Return the lower quartile of the CIDEr-D of one person's caption against the others of the picture.

    With one caption a picture there is no second opinion: 0.2 then, a fifth of the words' weight in common.
    """
    several = [one for one in answers if len(one) > 1]
    if not several:
        return 0.2
    return float(np.quantile(cider_scores([one[0] for one in several], [one[1:] for one in several]), QUARTER))


def best_captions(proposed: Sequence[Proposed], fusion: CaptionFusion, places: Iterable[int]) -> Said:
    """Return the caption of these pictures that the fusion puts first."""
    return {at: proposed[at].captions[ranked(proposed[at], fusion)[0]] for at in places}


def network_captions(proposed: Sequence[Proposed], places: Iterable[int]) -> Said:
    """Return the network's most probable caption of these pictures; none if it was not asked."""
    return {at: proposed[at].captions[proposed[at].written.index(True)] for at in places if any(proposed[at].written)}


def reliability_of(
    proposed: Sequence[Proposed], fusion: CaptionFusion, answers: Sequence[Sequence[Sequence[str]]],
    places: Sequence[int],
) -> dict[str, float]:  # fmt: skip
    """Return how well probabilities hold: the mean probability, the share of good captions, and the Brier score."""
    quality = qualities([proposed[at] for at in places], [answers[at] for at in places])
    best = [ranked(proposed[at], fusion)[0] for at in places]
    probability = np.array([fusion.probability(proposed[at].rows)[one] for at, one in zip(places, best, strict=True)])
    right = np.array([values[one] >= fusion.good for values, one in zip(quality, best, strict=True)], float)
    brier = float(np.mean((probability - right) ** 2))
    return {"probability": float(probability.mean()), "good": float(right.mean()), "brier": brier}


def _line(figures: Mapping[str, Any]) -> str:
    return f"BLEU-4 {100 * figures['bleu_4'][0]:.1f}, CIDEr-D {figures['cider_d'][0]:.3f} on the second half of dev"
