"""Captions found by pixels alone, in both directions: the towers of train.py task=captions on the dev split.

    python -m benchmarks.words_pixels PHOTOS CAPTIONS.csv TOWERS [TOWERS …] [--grids FILE.npy]

TOWERS are folders that training wrote. For each language one caption of every dev picture is a text; each picture
ranks all texts of the language, each text all pictures, and each picture the texts of all languages at once, of which
those of its own are right. Chance is the expected NDCG@5 of a random order. The names of these photos are numbers, so
that names say nothing.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks import save
from isc.config.words import Task, WordsConfig
from isc.words.caption_files import LANGUAGES, Captions
from isc.words.embed_towers import embed_grids, embed_texts
from isc.words.matcher_files import CARD, load_matcher
from isc.words.ranking import Figure, gain, ranking_figures, ranks_of_right
from isc.words.training_data import TrainingData, training_data


def shown(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def one_of_each(captions: Captions) -> dict[str, str]:
    """Return the first caption of every picture."""
    return {picture: texts[0] for picture, texts in captions.by_picture().items()}


def row(name: str, towers: Mapping[str, object], scores: np.ndarray, right: np.ndarray) -> dict[str, object]:
    """Return the figures of finding the right texts [Q, T] of pictures, and back."""
    found, back = (ranking_figures(ranks_of_right(*both)) for both in ((scores, right), (scores.T, right.T)))
    # the best of several right texts counts, which chance finds sooner
    chance = np.mean(gain(np.arange(scores.shape[1] // round(right.sum(axis=1).mean()))))
    return {
        "texts in": name,
        **towers,
        "pictures": f"{scores.shape[0]:,}",
        "texts": f"{scores.shape[1]:,}",
        "chance": f"{chance:.3f}",
        "NDCG@5": shown(found.ndcg_at_5),
        "R@1": shown(found.recall_at_1),
        "R@5": shown(found.recall_at_5),
        "R@10": shown(found.recall_at_10),
        "MRR": shown(found.reciprocal_rank),
        "text → picture, NDCG@5": shown(back.ndcg_at_5),
    }


def rows(folder: Path, data: TrainingData) -> list[dict[str, object]]:
    """Return the row of each language, learned or not, and that of all languages together."""
    model, _ = load_matcher(folder)
    learned = json.loads((folder / CARD).read_text(encoding="utf-8"))["languages"]
    every = set(learned) == set(LANGUAGES)
    names_of = "all" if every else ", ".join(LANGUAGES[one] for one in learned)
    towers = {"learned from": names_of, "the text tower reads": model.text.reads.value}
    places, grids = data.pictures.places, data.pictures.grids
    table, everything = [], []
    for language in LANGUAGES:
        texts = one_of_each(data.dev.of(language=language))
        vectors = embed_texts(model, list(texts.values()))
        everything.append((list(texts), vectors))
        pictures = embed_grids(model, np.stack([grids[places[name]] for name in texts]))
        said = np.array(list(texts.values()))
        table.append(row(LANGUAGES[language], towers, pictures @ vectors.T, said[:, None] == said))
        print(table[-1], flush=True)
    names = list(dict.fromkeys(name for several, _ in everything for name in several))
    pictures = embed_grids(model, np.stack([grids[places[name]] for name in names]))
    owner = np.array([name for several, _ in everything for name in several])
    vectors = np.concatenate([one for _, one in everything])
    table.append(row("all languages at once", towers, pictures @ vectors.T, np.array(names)[:, None] == owner))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("captions", type=Path)
    parser.add_argument("towers", type=Path, nargs="+")
    parser.add_argument("--grids", type=Path, help="grids that a training has kept (default: in the first TOWERS)")
    given = parser.parse_args()
    config = WordsConfig(
        task=Task.captions, images=[str(given.photos)], pairs=str(given.captions), output=str(given.towers[0]),
        languages=list(LANGUAGES), grids=str(given.grids) if given.grids else None,
    )  # fmt: skip
    data = training_data(config)
    table = [one for folder in given.towers for one in rows(folder, data)]
    order = [*LANGUAGES.values(), table[-1]["texts in"]]
    save("words_pixels", sorted(table, key=lambda one: order.index(one["texts in"])))


if __name__ == "__main__":
    main()
