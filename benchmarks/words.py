"""How good captions are: the figures of trained captioners beside people and simple baselines.

    python -m benchmarks.words CAPTIONS.csv FOLDER [FOLDER …]

FOLDER is what train.py task=captioning wrote; its metrics.json has the figures of the second half of the dev split,
on which nothing was fitted. The baselines are judged on the same pictures: one person's caption against the others of
the picture, and the most frequent caption of the training pictures.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import save
from isc.words.caption_files import LANGUAGES, Captions, read_captions
from isc.words.caption_metrics import caption_figures
from isc.words.vocabulary import tokens_of

FREQUENT = "the most frequent caption"
METHODS = {
    "retrieval": "retrieval and consensus",
    "network": "network alone",
    "retrieval_and_network": "retrieval and network",
}


def cells(figures: Mapping[str, Any]) -> dict[str, object]:
    """Return the columns of a method: BLEU in per cent, CIDEr-D with its interval."""
    bleu = {f"BLEU-{order}": f"{100 * figures[f'bleu_{order}'][0]:.1f}" for order in (1, 2, 3)}
    four = [100 * value for value in figures["bleu_4"]]
    value, low, high = figures["cider_d"]
    return {
        **bleu,
        "BLEU-4": f"{four[0]:.1f} ({four[1]:.1f}–{four[2]:.1f})",
        "CIDEr-D": f"{value:.3f} ({low:.3f}–{high:.3f})",
        "pictures": f"{figures['pictures']}",
    }


def baselines(captions: Captions, language: str) -> dict[str, Mapping[str, Any]]:
    """Return the figures of people and of the most frequent caption, on the second half of the dev split."""
    train = [tuple(tokens_of(text, language)) for text in captions.of(language=language, split="train").texts]
    dev = captions.of(language=language, split="dev").by_picture()
    answers = [[tokens_of(text, language) for text in several] for several in list(dev.values())[1::2]]
    frequent = Counter(train).most_common(1)[0][0]
    found = {FREQUENT: caption_figures([frequent] * len(answers), answers)}
    if all(len(several) > 1 for several in answers):
        found["one person, by the others"] = caption_figures([one[0] for one in answers], [one[1:] for one in answers])
    return {name: figures.as_dict() for name, figures in found.items()}


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
                    table.append({"language": name, "captions by": shown, **cells(figures[what])})
            if name not in {row["language"] for row in table if row["captions by"] == FREQUENT}:
                rows = baselines(captions, language).items()
                table += [{"language": name, "captions by": what, **cells(one)} for what, one in rows]
    table.sort(key=lambda row: list(LANGUAGES.values()).index(str(row["language"])))
    save("words", table)


if __name__ == "__main__":
    main()
