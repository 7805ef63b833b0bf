"""Ablation of the recipe: short trainings that differ in one option, judged on two benchmarks.

    python -m benchmarks.ablation PHOTOS RUNS JUDGE JUDGE [--steps 100] [--start imagenet] [--only NAME …]

PHOTOS is SPLIT/training. Each JUDGE is a dev half of `python -m benchmarks.judge`: one with AugLy's edits, one with
those of other tools. Every run is a folder in RUNS. A finished run is not trained again; its row is added to the table.
All runs start from the same weights and cost the same: if a step costs more, fewer steps are made (Variant.steps). The
start is ImageNet's network: from a trained one, a hundred steps change nothing that can be measured. Short runs show
early what matters; differences below about 0.01 may be chance.
"""

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import RESULTS, save
from benchmarks.judge_score import _extract, _match

BASE = {
    "experiment": "isc_small",
    "train.stages": "[]",
    "train.image_size": "128",
    "train.freeze_blocks": "3",
    "train.lr": "2e-3",
    "train.warmup": "0.05",
    "train.ema": "0.99",
    "train.precision": "float32",
    "model.background": "2048",
}
NEW_PATTERNS = ("print", "screen", "strip", "blend", "collage", "layout", "artistic", "palette", "light", "warp",
                "resave", "occlude")  # fmt: skip
KEYS = "train.momentum_keys=true loss.memory=8192"


@dataclass(frozen=True)
class Variant:
    """Options on top of BASE, and the steps as a share of BASE's, so that all variants cost the same."""

    options: str = ""
    steps: float = 1.0
    photos_below: int | None = None  # use only photos with a lower number: those of archives 0 to 2


VARIANTS = {
    "the recipe": Variant(),
    "photos of everyday scenes and goods alone": Variant(photos_below=17381),
    "without the twelve new patterns": Variant(" ".join(f"augment.{name}=0" for name in NEW_PATTERNS)),
    "keys by averaged weights, memory 8,192, two hard views of 52 photos": Variant(
        f"{KEYS} train.hard_views=2 train.batch_size=52"
    ),
    "a memory of 4,096": Variant("loss.memory=4096"),
    "CopyNCE": Variant("loss.copy_nce_weight=1", 0.9),
    "160 px": Variant("train.image_size=160", 0.66),
    "small regions: crops down to 5 %": Variant("augment.min_crop=0.05"),
    "two photos in one picture three times as often": Variant("augment.mix=0.15"),
    "every second photo a hard negative": Variant("train.hard_negatives=8"),
    "three quarters of the strength": Variant("train.stages=[{image_size:128,strength:0.75}]"),
    "temperature 0.03": Variant("loss.temperature=0.03"),
    "temperature 0.08": Variant("loss.temperature=0.08"),
    "KoLeo × 3": Variant("loss.koleo_weight=3"),
    "batches of 128": Variant("train.batch_size=128", 0.5),
    "all blocks learn": Variant("train.freeze_blocks=0", 0.6),
    "EfficientNet-Lite1": Variant("model.backbone=tf_efficientnet_lite1", 0.7),
    "EfficientNet-Lite2": Variant("model.backbone=tf_efficientnet_lite2", 0.5),
}


def command(name: str, given: argparse.Namespace, folder: Path) -> list[str]:
    """Return train.py's arguments for a variant."""
    variant = VARIANTS[name]
    options = dict(BASE, **{"model.weights": given.start, "images": str(given.photos), "output": str(folder)})
    options["train.steps"] = str(max(1, round(variant.steps * given.steps)))
    options |= dict(option.split("=", 1) for option in variant.options.split())
    if variant.photos_below is not None:
        options["images"] = str(
            _linked(given.photos, given.runs / f"photos-{variant.photos_below}", variant.photos_below)
        )
    return [f"{key}={value}" for key, value in options.items()] + ["resume=true"]


def _linked(photos: Path, folder: Path, below: int) -> Path:
    """Return a folder of links to the photos whose number is lower than `below`."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in photos.iterdir():
        link = folder / photo.name
        if int(re.sub(r"\D", "", photo.stem)) < below and not link.exists():
            link.symlink_to(photo.resolve())
    return folder


def row(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Train one variant unless it is trained already, judge it, and return its row."""
    folder = given.runs / f"{list(VARIANTS).index(name):02d}-{given.steps}"
    if not (folder / "model.safetensors").exists():
        subprocess.run([sys.executable, "train.py", *command(name, given, folder)], check=True)
    found: dict[str, object] = {"": name}
    for judge in given.judges:
        descriptors = folder / judge.name
        for role in ("queries", "references"):
            _extract(judge / role, descriptors / f"{role}.h5", str(folder), [])
        metrics = _match(name, judge, descriptors, descriptors / "matched").metrics
        found[f"{judge.name} μAP"] = f"{metrics['average_precision']:.3f}"
        found[f"{judge.name} recall at P90"] = f"{metrics['recall_at_p90']:.3f}"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found["steps"] = config["train.steps"]
    found["option"] = f"`{VARIANTS[name].options}`" if VARIANTS[name].options else ""
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("judges", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--start", default="imagenet", help="what all variants go on from (default: imagenet)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", default=list(VARIANTS))
    given = parser.parse_args()
    kept = RESULTS / "ablation.json"
    known = {one[""]: one for one in json.loads(kept.read_text(encoding="utf-8"))} if kept.exists() else {}
    for name in given.only:
        known[name] = row(name, given)
        save("ablation", [known[each] for each in VARIANTS if each in known])


if __name__ == "__main__":
    main()
