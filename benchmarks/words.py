"""How good captions are: the figures of trained captioners beside people and simple baselines.

    python -m benchmarks.words CAPTIONS.csv FOLDER [FOLDER …]

FOLDER is what train.py task=captioning wrote; its metrics.json has the figures of the second half of the dev split, on
which nothing was fitted, and judged.csv the captions. The baselines are judged on the same pictures: one person's
caption against the others of the picture, and the most frequent caption of the training pictures. Rows of networks that
are in no FOLDER stay. METEOR (Denkowski & Lavie, WMT 2014), of English alone, is by the program that the package
pycocoevalcap carries; without that package or Java the column has a dash.
"""

import argparse
import csv
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import save, saved
from isc.words.caption_files import LANGUAGES, Captions, read_captions
from isc.words.caption_metrics import caption_figures
from isc.words.train_captioning import JUDGED
from isc.words.vocabulary import tokens_of

FREQUENT, PERSON = "the most frequent caption", "one person, by the others"
METHODS = {
    "retrieval": "retrieval and consensus",
    "network": "network alone",
    "retrieval_and_network": "retrieval and network",
    "all evidence but the matching head": "retrieval and network, without its matching head",
    "all evidence": "retrieval and network, with its matching head",
}
ROWS = [
    METHODS["retrieval"], "LSTM alone", "VLP alone", "retrieval and LSTM", "retrieval and VLP",
    "retrieval and VLP, without its matching head", "retrieval and VLP, with its matching head", FREQUENT, PERSON,
]  # fmt: skip  # of a language, in this order


def meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Return METEOR, 0…1, of English captions whose words are parted by blanks; None where it cannot run."""
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        return None
    if shutil.which("java") is None:
        return None
    said = {at: [caption] for at, caption in enumerate(captions)}
    return float(Meteor().compute_score(dict(enumerate(references)), said)[0])


def cells(figures: Mapping[str, Any], meteor: float | None) -> dict[str, object]:
    """Return the columns of a method: BLEU and METEOR in per cent, CIDEr-D with its interval."""
    bleu = {f"BLEU-{order}": f"{100 * figures[f'bleu_{order}'][0]:.1f}" for order in (1, 2, 3)}
    four = [100 * value for value in figures["bleu_4"]]
    value, low, high = figures["cider_d"]
    return {
        **bleu,
        "BLEU-4": f"{four[0]:.1f} ({four[1]:.1f}–{four[2]:.1f})",
        "CIDEr-D": f"{value:.3f} ({low:.3f}–{high:.3f})",
        "METEOR": "–" if meteor is None else f"{100 * meteor:.1f}",
        "pictures": f"{figures['pictures']}",
    }


def plain(text: str, language: str) -> str:
    """Return the words of a text parted by blanks."""
    return " ".join(tokens_of(text, language))


def meteor_of(folder: Path, by: str, right: Captions) -> float | None:
    """Return METEOR of the English captions in judged.csv that a method wrote; None if the file is not there."""
    if not (folder / JUDGED).is_file():
        return None
    with (folder / JUDGED).open(encoding="utf-8", newline="") as file:
        said = {
            row["photo_id"]: row["caption"]
            for row in csv.DictReader(file)
            if (row["language"], row["by"]) == ("en", by)
        }
    answers = right.by_picture()
    return meteor([plain(one, "en") for one in said.values()], [[plain(one, "en") for one in answers[n]] for n in said])


def baselines(captions: Captions, language: str) -> dict[str, dict[str, object]]:
    """Return the columns of people and of the most frequent caption, on the second half of the dev split."""
    train = [tuple(tokens_of(text, language)) for text in captions.of(language=language, split="train").texts]
    dev = captions.of(language=language, split="dev").by_picture()
    answers = [[tokens_of(text, language) for text in several] for several in list(dev.values())[1::2]]
    said = {FREQUENT: ([list(Counter(train).most_common(1)[0][0])] * len(answers), answers)}
    if all(len(several) > 1 for several in answers):
        said[PERSON] = ([one[0] for one in answers], [one[1:] for one in answers])
    found = {}
    for name, (ours, others) in said.items():
        joined = [" ".join(one) for one in ours], [[" ".join(one) for one in several] for several in others]
        found[name] = cells(caption_figures(ours, others).as_dict(), meteor(*joined) if language == "en" else None)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    captions = read_captions(given.captions)
    table: list[dict[str, object]] = []
    for folder in given.folders:
        kind = json.loads((folder / "captioner.json").read_text(encoding="utf-8"))["kind"]
        said = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        for language, figures in said["languages"].items():
            name = LANGUAGES[language]
            for what, method in METHODS.items():
                shown = method.replace("network", kind.upper()) if kind != "none" else method
                known = {(row["language"], row["captions by"]) for row in table}
                if figures.get(what) and (name, shown) not in known:  # retrieval is the same in every folder
                    by = meteor_of(folder, what, captions.of(language="en", split="dev")) if language == "en" else None
                    table.append({"language": name, "captions by": shown, **cells(figures[what], by)})
            if name not in {row["language"] for row in table if row["captions by"] == FREQUENT}:
                rows = baselines(captions, language).items()
                table += [{"language": name, "captions by": what, **one} for what, one in rows]
    measured = {(row["language"], row["captions by"]) for row in table}
    stay = [row for row in saved("words") if (row["language"], row["captions by"]) not in measured]
    table += [{column: row.get(column, "–") for column in table[0]} for row in stay]
    names = list(LANGUAGES.values())
    table.sort(key=lambda row: (names.index(str(row["language"])), ROWS.index(str(row["captions by"]))))
    save("words", table)


if __name__ == "__main__":
    main()
