"""What each part of the recipe is worth: short trainings that differ in one thing, judged on one benchmark.

    python -m benchmarks.ablation PHOTOS JUDGE RUNS [--steps 150]

PHOTOS and JUDGE are made by `python -m benchmarks.judge` (SPLIT/training and DEV). Every run lives in RUNS and is not
made again when it is finished. The base is experiment=isc_small in one stage; short runs say what matters early, and
differences below about 0.02 may be chance.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from benchmarks import save
from isc.train import VALIDATION_FILE

BASE = ("experiment=isc_small", "train.stages=[]", "train.image_size=96", "train.freeze_blocks=3", "train.ema=0.98",
        "model.image_size=128")  # fmt: skip
PLAIN = "augment.overlay=0 augment.screenshot=0 augment.text=0 augment.emoji=0 augment.meme=0"
VARIANTS = {
    "the recipe": "",
    "without KoLeo": "loss.koleo_weight=0",
    "KoLeo × 5": "loss.koleo_weight=5",
    "temperature 0.1": "loss.temperature=0.1",
    "no overlays, screenshots, text, emoji, captions": PLAIN,
    "a memory of 4,096 from 30 % on": "loss.memory=4096 loss.memory_after=0.3",
    "without averaged weights": "train.ema=0",
    "128 px, used at 160": "train.image_size=128 model.image_size=160",
    "without the background": "model.background=0",
    "all blocks learn": "train.freeze_blocks=0",
    "frozen batch norms": "train.freeze_norms=true",
    "contrastive instead of InfoNCE": "loss.contrast=contrastive",
    "half the strength": "train.stages=[{image_size:96,strength:0.5}]",
    "every second photo a hard negative": "train.hard_negatives=8",
    "half the rate": "train.lr=1e-3",
}


def run(name: str, photos: Path, judge: Path, runs: Path, steps: int) -> dict[str, object]:
    """Train one variant, or find it trained; its row."""
    change = VARIANTS[name]
    folder = runs / (name.replace(" ", "-").replace(",", "") + f"-{steps}")
    if not (folder / "model.safetensors").exists():
        command = [sys.executable, "train.py", *BASE, *change.split(), f"images={photos}", f"output={folder}"]
        command += [f"validation={judge}", f"train.steps={steps}", f"train.validate_every={steps}", "resume=true"]
        subprocess.run([part for part in command if not _replaced(part, change)], check=True)
    with (folder / VALIDATION_FILE).open(newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    return {
        "": name,
        "μAP": f"{float(last['average_precision']):.3f}",
        "recall at 90 % precision": f"{float(last['recall_at_p90']):.3f}",
        "recall at rank 1": f"{float(last['recall_at_rank1']):.3f}",
        "option": f"`{change}`" if change else f"{steps} steps",
    }


def _replaced(part: str, change: str) -> bool:
    """Whether the change gives this key of the base another value: Hydra takes each key once."""
    return part in BASE and part.partition("=")[0] in {option.partition("=")[0] for option in change.split()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    rows = []
    for name in VARIANTS:
        rows.append(run(name, given.photos, given.judge, given.runs, given.steps))
        save("ablation", rows)


if __name__ == "__main__":
    main()
