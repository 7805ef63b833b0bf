"""What file names are worth in matching captions with pictures: Debian's stamps of Tux Paint, in many languages.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb stamps
    python -m benchmarks.words_names stamps --languages en de fr es zh_TW ru ar

Each picture has one caption a language in the .txt beside it. For every language all texts of the test half are ranked
for each of its pictures by: chance, TF-IDF of hashed runs of characters (the file name alone), rapidfuzz's
token_set_ratio, and our fusion of all evidence of names with its fixed weights and with weights fitted on the other
half. Halves are whole themes (folders), so that no test theme was seen. Pixels take no part here.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import save
from isc.words.match import EVIDENCE, MatchFusion, fit_fusion, rank
from isc.words.names import name_words
from isc.words.ranking import ABSENT, ranking_figures, ranks_of_right

ALONE = {"TF-IDF of the name": 1, "rapidfuzz, the name": 2}  # the column of the evidence that ranks alone


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


def right_ranks(names: Sequence[str], texts: Sequence[str], fusion: MatchFusion) -> np.ndarray:
    """Return the rank of the right text, texts[i] for names[i]; equal texts are all right."""
    ranked = rank(names, texts, pictures=None, text_vectors=None, fusion=fusion)
    found = []
    for at, (places, rows) in enumerate(zip(ranked.places, ranked.rows, strict=True)):
        scores = rows @ np.array(fusion.weights)
        right = np.array([texts[place] == texts[at] for place in places])
        found.append(int(ranks_of_right(scores[None], right[None])[0]) if right.any() else ABSENT)
    return np.array(found)


def alone(column: int) -> MatchFusion:
    return MatchFusion(tuple(float(at == column) for at in range(len(EVIDENCE))))


def fitted(names: Sequence[str], texts: Sequence[str]) -> MatchFusion:
    ranked = rank(names, texts, pictures=None, text_vectors=None)
    rows, right = [], []
    for at, (places, evidence) in enumerate(zip(ranked.places, ranked.rows, strict=True)):
        if at in places:
            rows.append(evidence)
            right.append(int(np.flatnonzero(places == at)[0]))
    return fit_fusion(rows, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "fr", "es", "ru", "zh_TW"])
    given = parser.parse_args()
    pictures = stamps(given.folder)
    learned, judged = halves([theme for theme, _ in pictures.values()])
    table: list[dict[str, object]] = []
    for language in given.languages:
        sets = []
        for themes in (learned, judged):
            chosen = [name for name, (theme, texts) in pictures.items() if theme in themes and language in texts]
            sets.append((chosen, [pictures[name][1][language] for name in chosen]))
        (fit_names, fit_texts), (names, texts) = sets
        fusions = {name: alone(column) for name, column in ALONE.items()}
        fusions |= {"all evidence, fixed": MatchFusion(), "all evidence, fitted": fitted(fit_names, fit_texts)}
        chance = float(np.mean([1 / np.log2(at + 2) if at < 5 else 0.0 for at in range(len(texts))]))
        row: dict[str, object] = {"language": language, "pictures": str(len(names)), "chance": f"{chance:.3f}"}
        for name, fusion in fusions.items():
            figure = ranking_figures(right_ranks(names, texts, fusion)).ndcg_at_5
            row[name] = f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"
        table.append(row)
        print(row, flush=True)
    assert all(name_words(name) for name in pictures)
    save("words_names", table)


if __name__ == "__main__":
    main()
