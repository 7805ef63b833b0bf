"""CPU time of a view of training: all attacks on the CPU, the last ones left to the device, and decoded photos cached.

    python -m benchmarks.train_loader [--views 320] [--side 1024]

One process makes the same samples, of one mild and one hard view each, in every way. Its own CPU time is counted, with
one thread; the sample photos are enlarged to `--side` pixels first. A device's time for the attacks left to it is not
in the table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import cv2
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from benchmarks import save
from isc.cli.hydra_app import to_config
from isc.cli.keys import CONF
from isc.config.train import TrainConfig
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.folders import SAMPLE
from isc.photos.sources import list_photos
from isc.train.augment.augmenter import Augmenter
from isc.train.dataset import Source, TrainingViews
from isc.train.photo_cache import PhotoCache

RECIPES = {"default": [], "sscd": ["experiment=sscd"]}
SIZES = (160, 224, 384)
PHOTOS = 24
WARM = 4  # samples before the time is taken: tables and fonts are made once
ALL, LEFT = "all attacks on the CPU", "last attacks left"
WAYS = {ALL: (False, False), LEFT: (True, False), "all, photos cached": (False, True), "left, cached": (True, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=320)
    parser.add_argument("--side", type=int, default=1024)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        photos = enlarged(Path(folder), side=given.side)
        save(
            "train_loader",
            [
                row(photos, recipe, size, samples=given.views // 2, cache=Path(folder))
                for recipe in RECIPES
                for size in SIZES
            ],
        )


def enlarged(folder: Path, *, side: int) -> Path:
    """Write PHOTOS sample photos with a longest side of `side` pixels into a folder, and return it."""
    there = folder / "photos"
    there.mkdir()
    for path in sorted(SAMPLE.glob("*.jpg"))[:PHOTOS]:
        picture = read_image(path)
        scale = side / max(picture.shape[:2])
        shape = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        large = cv2.resize(picture, shape, interpolation=cv2.INTER_CUBIC)
        (there / path.name).write_bytes(encode_jpeg(large, quality=90))
    return there


def row(photos: Path, recipe: str, size: int, *, samples: int, cache: Path) -> dict[str, object]:
    """Return the milliseconds a view of each way, and the share of the hard views with attacks that can be left."""
    config = recipe_config(RECIPES[recipe])
    source = Source(list_photos(str(photos)))
    kept = PhotoCache(cache / f"{recipe}-{size}.cache", limit=1 << 32)
    made = {
        way: TrainingViews(
            source, Augmenter(config.augment, size=size), seed=config.seed, mix=config.augment.mix, defers=defers,
            hard_views=config.train.hard_views, cache=kept if cached else None,
        )
        for way, (defers, cached) in WAYS.items()
    }  # fmt: skip
    for number in range(len(source)):
        kept.photo(source.photos, number, longest=2 * size)
    times, left, hard = dict.fromkeys(WAYS, 0.0), 0, 0
    for number in range(-WARM, samples):
        for way, views in made.items():  # in turns, so that a busy machine slows all of them
            start = time.process_time()
            sample = views[abs(number)]
            if number >= 0:
                times[way] += time.process_time() - start
                if way == LEFT:
                    left += sum(bool(view.edits) for view in sample.hard)
                    hard += len(sample.hard)
    views_made = samples * (1 + config.train.hard_views)
    columns = {f"{way}, ms": f"{1000 * took / views_made:.2f}" for way, took in times.items()}
    return {"recipe": recipe, "px": size} | columns | {"hard views with attacks left": f"{left / hard:.0%}"}


def recipe_config(overrides: list[str]) -> TrainConfig:
    ConfigStore.instance().store(name="train_defaults", node=TrainConfig)
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        config: TrainConfig = to_config(compose("train", ["images=[-]", "output=-", *overrides]))
    return config


if __name__ == "__main__":
    main()
