"""Which references are recognised as versions of one picture, and which pairs of like things are taken for versions.

    python -m benchmarks.versions PHOTOS ALIKE

Of each of 200 PHOTOS two sizes and two crops are made and saved again: shrunk to 30 to 100 %, a crop by up to a quarter
of each side and with other brightness and contrast, JPEG quality 30 to 90. ALIKE are photos of like things, such as the
references of a judge of `benchmarks.look_alikes`; each is compared with its five nearest others, the pairs that are the
hardest to tell from versions. Take photos that no threshold was chosen on.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

import isc
from benchmarks import save
from isc.evaluate.calibration.versions import NEAR
from isc.find.verdicts import judge_of
from isc.match.verification.alignment import compare
from isc.match.verification.features import local_features
from isc.match.verification.rivals import are_versions
from isc.photos.decode import Pixels, read_image
from isc.photos.folders import list_images

COUNT, NEIGHBOURS = 200, 5
Found = tuple[float, float]


def size(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    share = rng.uniform(0.3, 1)
    return _saved(cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), rng)


def crop(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    cut = rng.uniform(0, 0.25)
    top, left = int(rng.uniform(0, cut) * height), int(rng.uniform(0, cut) * width)
    part = pixels[top : top + int((1 - cut) * height), left : left + int((1 - cut) * width)]
    return size(np.clip(part * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20), 0, 255).astype(np.uint8), rng)


def _saved(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))]
    decoded = cv2.imdecode(cv2.imencode(".jpg", pixels[:, :, ::-1], quality)[1], cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[:, :, ::-1])


def recognised(pairs: list[tuple[Pixels, Pixels]], model: isc.Model) -> Found:
    """Return the share of the pairs that are taken for versions by pixels, and by descriptors alone."""
    told = [compare(local_features(one), local_features(other))[0] for one, other in pairs]
    one, other = (model.embed(list(side)) for side in zip(*pairs, strict=True))
    unrelated = judge_of("isc_small").unrelated_distance(one)
    assert unrelated is not None, "the shipped model has a calibration"
    near = ((one - other) ** 2).sum(axis=1) <= NEAR * unrelated
    return float(are_versions(np.stack(told)).mean()), float(near.mean())


def neighbours(pictures: list[Pixels], model: isc.Model) -> Iterator[tuple[int, int]]:
    """Yield each pair of a picture and one of its nearest others once."""
    vectors = model.embed(pictures)
    apart = 2 - 2 * vectors @ vectors.T
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1)[:, :NEIGHBOURS]
    yield from sorted({(min(at, other), max(at, other)) for at in range(len(near)) for other in near[at].tolist()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("alike", type=Path, metavar="ALIKE")
    given = parser.parse_args()
    rng, model = np.random.default_rng(0), isc.load()
    photos = [read_image(path) for path in list(list_images(given.photos).values())[:COUNT]]
    alike = [read_image(path) for path in list_images(given.alike).values()]
    rows = []
    for name, pairs in (
        ("a size and the whole", [(size(one, rng), one) for one in photos]),
        ("two sizes", [(size(one, rng), size(one, rng)) for one in photos]),
        ("a crop and the whole", [(crop(one, rng), one) for one in photos]),
        ("two crops", [(crop(one, rng), crop(one, rng)) for one in photos]),
        ("two photos of like things", [(alike[a], alike[b]) for a, b in neighbours(alike, model)]),
    ):
        pixels, descriptors = recognised(pairs, model)
        rows.append({
            "pairs": name, "number": f"{len(pairs):,}", "taken for versions by pixels": f"{pixels:.3f}",
            "by descriptors": f"{descriptors:.3f}",
        })  # fmt: skip
    save("versions", rows)


if __name__ == "__main__":
    main()
