"""What names and pixels are worth in matching captions with pictures: Debian's stamps of Tux Paint, in many languages.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb stamps
    python -m benchmarks.words_names stamps TOWERS --languages en de fr es zh_TW ru ar

Each picture has one caption a language in the .txt beside it. For every language all texts of the test half are
ranked for each of its pictures by: chance; TF-IDF of hashed runs of characters (the file name alone); rapidfuzz's
token_set_ratio; the cosine of sentence vectors (multilingual-e5-small, an outside model); and our fusion of all
evidence of names, with sentence vectors and without, its weights fitted on the other half. The last row has the texts
of all languages at once; there each text of a picture is right. Halves are whole themes (folders), so that no test
theme was seen. "Among the candidates" is the share of pictures whose right text is one of those that are ranked: the
bound of every ranker. LightGBM's lambdarank (`pip install lightgbm`, an outside ranker) learns from all that our
fusion sees, and from the rank of a text by each kind of evidence and its length; its rounds are those that are best
on every fifth picture of the half that is fitted on. Pixels, alone and in the fusion, are judged by TOWERS, the
folder of train.py task=captions; rsvg-convert draws the stamps that are drawings.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import save
from isc.config.words import Reads
from isc.photos.decode import Pixels, read_image
from isc.words.embed_towers import embed_grids
from isc.words.grids import GridNetwork
from isc.words.match import EVIDENCE, MatchFusion, Ranked, fit_fusion, rank
from isc.words.matcher_files import load_matcher
from isc.words.names import name_words
from isc.words.ranking import ABSENT, ranking_figures, ranks_of_right
from isc.words.sentences import sentence_vectors

Stamps = Mapping[str, tuple[str, Mapping[str, str]]]  # {name: (theme, {language: caption})}
ALL = "all at once"
LETTERS = "letters of the name, fitted"
MEANING = "letters and meaning, fitted"
PIXELS = "pixels, letters and meaning, fitted"
FOREST = "the same, LightGBM's lambdarank"
AMONG = "among the candidates: letters · and meaning · and pixels"
KINDS = ("meaning", "pixels")  # of evidence, beside the letters of names


@dataclass(frozen=True)
class Half:
    """Pictures of some themes, by name, with texts; `owner` [T] is the number of each text's picture."""

    names: list[str]
    texts: list[str]
    owner: npt.NDArray[np.int64]
    name_meanings: npt.NDArray[np.float32]
    text_meanings: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.float32]
    text_vectors: npt.NDArray[np.float32]

    def ranked(self, fusion: MatchFusion, *, uses: Sequence[str]) -> Ranked:
        """Rank the texts by letters of names and by these other KINDS of evidence."""
        meanings = (self.name_meanings, self.text_meanings) if "meaning" in uses else (None, None)
        pixels = (self.pictures, self.text_vectors) if "pixels" in uses else (None, None)
        return rank(
            self.names, self.texts, pictures=pixels[0], text_vectors=pixels[1], name_meanings=meanings[0],
            text_meanings=meanings[1], fusion=fusion,
        )  # fmt: skip

    def right(self, at: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of these texts [N] are right for a picture: its own, and those that say the same."""
        own = {self.texts[place] for place in np.flatnonzero(self.owner == at)}
        return np.array([self.texts[place] in own for place in places], bool)


def stamps(folder: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Return {name: (theme, {language: caption})} of all pictures with captions."""
    found = {}
    for path in sorted(folder.rglob("*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        texts = {"en": lines[0].strip()} if lines and lines[0].strip() else {}
        for line in lines[1:]:
            language, found_it, text = line.partition(".utf8=")
            if found_it and text.strip():
                texts[language] = text.strip()
        found[path.stem] = (path.parent.name, texts)
    return found


def halves(themes: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the themes to fit and to test with: every second one."""
    ordered = sorted(set(themes))
    return set(ordered[::2]), set(ordered[1::2])


def pixels_of(path: Path) -> Pixels:
    """Read a picture; a drawing is drawn by rsvg-convert."""
    if path.suffix != ".svg":
        return read_image(path)
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.png"
        subprocess.run(["rsvg-convert", "--width=400", "--output", drawn, path], check=True, timeout=60)
        return read_image(drawn)


class Encoder:
    """Vectors of names, texts and pictures, each computed once."""

    def __init__(self, folder: Path, towers: Path) -> None:
        self.model, shape = load_matcher(towers)
        self.files = {path.stem: path for kind in ("svg", "png") for path in sorted(folder.rglob(f"*.{kind}"))}
        self._network = GridNetwork(shape)
        self._sentences: dict[tuple[bool, str], npt.NDArray[np.float32]] = {}
        self._pictures: dict[str, npt.NDArray[np.float32]] = {}

    def sentences(self, texts: Sequence[str], *, asking: bool) -> npt.NDArray[np.float32]:
        """Return what texts mean, [N, 384]."""
        new = list(dict.fromkeys(one for one in texts if (asking, one) not in self._sentences))
        for one, vector in zip(new, sentence_vectors(new, asking=asking), strict=True):
            self._sentences[asking, one] = vector
        return np.stack([self._sentences[asking, one] for one in texts])

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the towers' vectors of texts."""
        tower = self.model.text
        rows = self.sentences(texts, asking=False) if tower.reads is Reads.meaning else tower.rows(texts)
        return np.asarray(self.model.texts(rows).numpy())

    def pictures(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the towers' vectors of pictures."""
        for name in names:
            if name not in self._pictures:
                grid = self._network.grids([pixels_of(self.files[name])])
                self._pictures[name] = embed_grids(self.model, grid)[0]
        return np.stack([self._pictures[name] for name in names])


def half_of(pictures: Stamps, themes: set[str], languages: Sequence[str], encoder: Encoder) -> Half:
    """Return the pictures of these themes that have a text in one of these languages."""
    chosen = [
        name for name, (theme, texts) in pictures.items() if theme in themes and any(one in texts for one in languages)
    ]
    pairs = [
        (at, pictures[name][1][one]) for at, name in enumerate(chosen) for one in languages if one in pictures[name][1]
    ]
    texts = [text for _, text in pairs]
    return Half(
        chosen, texts, np.array([at for at, _ in pairs], np.int64),
        encoder.sentences([name_words(name) for name in chosen], asking=True),
        encoder.sentences(texts, asking=False), encoder.pictures(chosen), encoder.texts(texts),
    )  # fmt: skip


def right_ranks(half: Half, fusion: MatchFusion, *, uses: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the rank of the best right text of each picture."""
    ranked = half.ranked(fusion, uses=uses)
    found = []
    for at, (places, rows) in enumerate(zip(ranked.places, ranked.rows, strict=True)):
        scores, right = rows @ np.array(fusion.weights), half.right(at, places)
        found.append(int(ranks_of_right(scores[None], right[None])[0]) if right.any() else ABSENT)
    return np.array(found)


def alone(evidence: str) -> MatchFusion:
    return MatchFusion(tuple(float(one == evidence) for one in EVIDENCE))


def fitted(half: Half, *, uses: Sequence[str]) -> MatchFusion:
    """Fit the weights to the pictures that have a right text among their candidates."""
    ranked = half.ranked(MatchFusion(), uses=uses)
    rows, right = [], []
    for at, (places, evidence) in enumerate(zip(ranked.places, ranked.rows, strict=True)):
        if (own := half.right(at, places)).any():
            rows.append(evidence)
            right.append(int(np.flatnonzero(own)[0]))
    return fit_fusion(rows, right)


def features(half: Half, places: npt.NDArray[np.int64], evidence: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return [N, 2 E + 1]: evidence [N, E], the rank of each text by every kind of it, and the words of the text."""
    ranks = np.stack([(column[None] > column[:, None]).sum(axis=1) for column in evidence.T], axis=1)
    words = np.array([[len(half.texts[place].split())] for place in places])
    return np.concatenate((evidence, ranks, words), axis=1)


def lambdarank(learned: Half, judged: Half, *, uses: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the rank of the best right text of each judged picture by LightGBM's lambdarank (Burges, 2010)."""
    import lightgbm

    def examples(half: Half) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
        ranked = half.ranked(MatchFusion(), uses=uses)
        pairs = zip(ranked.places, ranked.rows, strict=True)
        return [(features(half, places, rows), half.right(at, places)) for at, (places, rows) in enumerate(pairs)]

    def data(chosen: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]) -> "lightgbm.Dataset":
        rows, right = (np.concatenate([one[part] for one in chosen]) for part in (0, 1))
        return lightgbm.Dataset(rows, label=right.astype(int), group=[len(one[1]) for one in chosen])

    known = [one for one in examples(learned) if one[1].any()]
    options = {
        "objective": "lambdarank", "metric": "ndcg", "eval_at": [5], "learning_rate": 0.05, "num_leaves": 15,
        "min_data_in_leaf": 20, "num_threads": 1, "seed": 0, "deterministic": True, "verbose": -1,
    }  # fmt: skip
    held, rest = known[::5], [one for at, one in enumerate(known) if at % 5]
    stop = lightgbm.early_stopping(30, verbose=False)
    tried = lightgbm.train(options, data(rest), num_boost_round=400, valid_sets=[data(held)], callbacks=[stop])
    ranker = lightgbm.train(options, data(known), num_boost_round=tried.best_iteration)
    found = [
        int(ranks_of_right(ranker.predict(rows)[None], right[None])[0]) if right.any() else ABSENT
        for rows, right in examples(judged)
    ]
    return np.array(found)


def among(half: Half, uses: Sequence[str]) -> float:
    """Return the share of pictures that have a right text among their candidates."""
    return float(np.mean([half.right(at, places).any() for at, places in enumerate(
        half.ranked(MatchFusion(), uses=uses).places)]))  # fmt: skip


def row(language: str, learned: Half, judged: Half) -> dict[str, object]:
    """Return NDCG@5 of the judged half by each way, with 95 % intervals."""
    ways = {
        "TF-IDF of the name": (alone("name_cosine"), ()),
        "rapidfuzz, the name": (alone("token_set"), ()),
        "multilingual-e5-small, the name": (alone("meaning"), ("meaning",)),
        LETTERS: (fitted(learned, uses=()), ()),
        MEANING: (fitted(learned, uses=("meaning",)), ("meaning",)),
        "pixels": (alone("pixels"), ("pixels",)),
        PIXELS: (fitted(learned, uses=KINDS), KINDS),
    }
    print({name: [round(one, 2) for one in fusion.weights] for name, (fusion, _) in ways.items()}, flush=True)
    each = len(judged.texts) / len(judged.names)  # right texts of a picture
    chance = sum(each / len(judged.texts) / np.log2(at + 2) for at in range(5))
    said: dict[str, object] = {
        "language": language, "pictures": str(len(judged.names)), "texts": f"{len(judged.texts):,}",
        "chance": f"{chance:.3f}",
    }  # fmt: skip
    for name, (fusion, uses) in ways.items():
        said[name] = shown(right_ranks(judged, fusion, uses=uses))
    said[FOREST] = shown(lambdarank(learned, judged, uses=KINDS))
    said[AMONG] = " · ".join(f"{among(judged, uses):.3f}" for uses in ((), ("meaning",), KINDS))
    return said


def shown(ranks: npt.NDArray[np.int64]) -> str:
    """Return NDCG@5 with its interval."""
    figure = ranking_figures(ranks).ndcg_at_5
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("towers", type=Path)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "fr", "es", "ru", "zh_TW", "ar"])
    given = parser.parse_args()
    encoder = Encoder(given.folder, given.towers)
    pictures = {name: one for name, one in stamps(given.folder).items() if name in encoder.files}
    learned, judged = halves([theme for theme, _ in pictures.values()])
    table: list[dict[str, object]] = []
    for language, languages in [*((one, [one]) for one in given.languages), (ALL, given.languages)]:
        both = [half_of(pictures, themes, languages, encoder) for themes in (learned, judged)]
        table.append(row(language, *both))
        print(table[-1], flush=True)
    save("words_names", table)


if __name__ == "__main__":
    main()
