"""Generator of docs/augmentations.jpg: every attack of the training on the same photos, whole chains, mixup, cutmix.

python -m docs.augmentations

Text and emoji use the fonts of the machine, so the sheet of another machine differs there.
"""

import random
from itertools import cycle, islice
from pathlib import Path

import albumentations as A
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import isc
from isc.config.train import AugmentConfig
from isc.photos.decode import Pixels, encode_jpeg, read_image
from isc.photos.folders import list_images
from isc.photos.resizing import resize
from isc.train.augment.augmenter import Augmenter, families
from isc.train.augment.mix import cutmix, mixup

ROOT = Path(__file__).parent.parent
PHOTOS, OTHERS = ("S001", "S048", "S066", "S106"), ("S020", "S060", "S076", "S090")
SIDE, ACROSS, LABEL, GAP, INK = 76, 4, 20, 10, (40, 40, 40)
SEED, QUALITY, MOST_BYTES = 4, 60, 650_000


def by_class() -> dict[str, list[A.BasicTransform]]:
    """Return the different attacks, grouped by their option of probability and their class."""
    found: dict[str, list[A.BasicTransform]] = {}
    for family, attacks in families().items():
        for attack in dict.fromkeys(attacks):
            found.setdefault(f"{family} · {type(attack).__name__}", []).append(attack)
    return found


def labelled(label: str, pictures: list[Pixels]) -> Pixels:
    """Return the pictures side by side, with the label above."""
    row = np.hstack(pictures)
    image = Image.new("RGB", (row.shape[1] + GAP, SIDE + LABEL), "white")
    image.paste(Image.fromarray(row), (0, LABEL))
    ImageDraw.Draw(image).text((0, 3), label, fill=INK, font=ImageFont.load_default(13))
    return np.asarray(image)


def rows() -> list[Pixels]:
    files = list_images(Path(isc.__file__).parent / "sample")
    photos, others = ([read_image(files[name]) for name in names] for names in (PHOTOS, OTHERS))
    squares, rest = ([resize(photo, SIDE) for photo in some] for some in (photos, others))
    made = [labelled("the photos", squares)]
    rng = np.random.default_rng(SEED)
    for name, attacks in by_class().items():
        pictures = []
        for attack, square, other in zip(islice(cycle(attacks), len(squares)), squares, others, strict=True):
            attack.set_random_state(rng, random.Random(int(rng.integers(1 << 32))))
            pictures.append(attack(image=square, other=lambda other=other: other)["image"])
        made.append(labelled(name, pictures))
    augmenter = Augmenter(AugmentConfig(), size=SIDE)
    made.append(labelled("the mild view", [augmenter.mild(photo, rng) for photo in photos]))
    for strength in (0.5, 1.0, 1.0, 1.0):
        views = [
            augmenter.hard(photo, lambda other=other: other, rng, strength=strength)
            for photo, other in zip(photos, others, strict=True)
        ]
        made.append(labelled(f"whole chains, strength {strength:g}", views))
    for mix in (mixup, cutmix):
        made.append(labelled(mix.__name__, [mix(a, b, rng)[0] for a, b in zip(squares, rest, strict=True)]))
    return made


def main() -> None:
    made = rows()
    made += [np.full_like(made[0], 255)] * (-len(made) % ACROSS)
    down = len(made) // ACROSS
    sheet = np.hstack([np.vstack(made[column * down : (column + 1) * down]) for column in range(ACROSS)])
    data = encode_jpeg(np.pad(sheet, ((0, 0), (GAP, 0), (0, 0)), constant_values=255), quality=QUALITY)
    if len(data) > MOST_BYTES:
        raise SystemExit(f"{len(data):,} bytes; expected at most {MOST_BYTES:,}: lower QUALITY")
    (ROOT / "docs" / "augmentations.jpg").write_bytes(data)


if __name__ == "__main__":
    main()
