"""Generator of docs/captions.jpg: what a captioner's network writes about sample photos, in each of its languages.

    python docs/captions.py captioner docs/captions.jpg

`captioner` is a folder that train.py task=captioning wrote. The first row has the photos that it is surest of, by the
sentence of its first language; the second every thirtieth sample photo, none of them chosen. The sentences are the
network's own, the best by the fusion of evidence; those of training captions are left out, since they belong to others.
How many of the photos are familiar, like those that the captioner learned from, is printed.
It needs playwright, chromium on PATH, and fonts of the scripts (fonts-droid-fallback).
"""

import sys
from html import escape
from pathlib import Path

import numpy as np
from browser import draw, image_tag

from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE
from isc.words.caption_model import propose, ranked
from isc.words.captioner_files import CaptionerParts, load_captioner
from isc.words.grids import GridNetwork, Grids
from isc.words.retrieval import pooled

SUREST, EVERY = 4, 30


def sentences(parts: CaptionerParts, grid: Grids, language: str) -> tuple[str, float | None] | None:
    """Return the best sentence that the network wrote for a grid [1, C, F], and its probability; None without one.

    An unfamiliar picture has no probability, since it may not hold.
    """
    known = parts.languages[language]
    (proposed,) = propose(
        known.retriever, known.flat, grid, pooled(grid), language=language, writer=parts.writer, nearest=parts.nearest
    )
    probability = known.fusion.probability(proposed.rows)
    for at in ranked(proposed, known.fusion):
        if proposed.written[at] and proposed.captions[at] not in set(known.flat):
            familiar = known.retriever.familiarity(pooled(grid))[0] >= known.familiar
            return known.words.sentence(proposed.captions[at]), float(probability[at]) if familiar else None
    return None


def figure(parts: CaptionerParts, path: Path, grid: Grids) -> str:
    """Return a photo with a line in each language."""
    lines = []
    for language in parts.languages:
        if found := sentences(parts, grid, language):
            said = "unfamiliar" if found[1] is None else f"{found[1]:.0%}"
            lines.append(f'<p dir="auto" lang="{language}">{escape(found[0])} <small>{said}</small></p>')
    return f"<figure>{image_tag(read_image(path))}{''.join(lines)}</figure>"


def main() -> None:
    parts, output = load_captioner(Path(sys.argv[1])), Path(sys.argv[2])
    network, first = GridNetwork(parts.shape), next(iter(parts.languages))
    grids = {path: network.grids([read_image(path)]) for path in sorted(SAMPLE.glob("*.jpg"))}
    sure = {path: (sentences(parts, grid, first) or ("", None))[1] or 0.0 for path, grid in grids.items()}
    shown = [*sorted(grids, key=lambda path: -sure[path])[:SUREST], *list(grids)[::EVERY]]
    draw("".join(figure(parts, path, grids[path]) for path in shown), output)
    known = parts.languages[first]
    familiar = known.retriever.familiarity(pooled(np.concatenate(list(grids.values())))) >= known.familiar
    print(f"{familiar.sum()} of {len(grids)} sample photos are familiar")


if __name__ == "__main__":
    main()
