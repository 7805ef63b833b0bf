"""What a learned pair matcher adds to distance and local evidence, on an outside judge.

    python -m benchmarks.pair_matcher tokens PHOTOS WORK [--photos 7000] [--views 17000]
    python -m benchmarks.pair_matcher train WORK [--steps N] [--batch B] [--lr L]
    python -m benchmarks.pair_matcher judge JUDGE WORK [--publish]

`tokens` keeps in WORK what the backbone of isc_small says of places in photos and in attacked views of them; `train`
learns from that which view shows which photo. JUDGE is a folder of `python -m benchmarks.judge make`: of each query the
ten nearest references are compared, by distance, by the learned logit, by the shipped fusion of distance and local
evidence, and by both of these together, cross-fitted over queries in five folds. Measured are μAP, recall at 90 %
precision and at rank 1, what μAP gains with its 95 % interval, and how many of the copies are found for which the
geometry finds no alignment. Each command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import save
from benchmarks.pair_matcher import network
from benchmarks.pair_matcher.data import SIZE, TokenMaker, make_tokens, photo, read_tokens, shown_by, view
from benchmarks.pair_matcher.judge import judged
from benchmarks.pair_matcher.training import WEIGHTS_FILE, Settings, Source, train
from isc.config import Precision
from isc.errors import InputError
from isc.images import Pixels, list_hash, list_images
from isc.io import write_json
from isc.network import load_network

SEED = 0
MADE_FILE = "tokens.json"  # what the tokens in WORK were made of


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pair_matcher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("tokens", help="of photos and of attacked views of them")
    one.add_argument("images", metavar="PHOTOS", type=Path, help="a folder of photos kept out of the judge")
    one.add_argument("work", metavar="WORK", type=Path)
    one.add_argument("--photos", type=int, default=7000, help="the first so many of the folder (default 7000)")
    one.add_argument("--views", type=int, default=17000, help="attacked views of them (default 17000)")
    one.set_defaults(run=run_tokens)
    one = commands.add_parser("train", help="on the tokens in WORK")
    one.add_argument("work", metavar="WORK", type=Path)
    one.add_argument("--steps", type=int, default=Settings.steps, help=f"(default {Settings.steps})")
    one.add_argument("--batch", type=int, default=Settings.batch, help=f"views a step (default {Settings.batch})")
    one.add_argument("--lr", type=float, default=Settings.lr, help=f"(default {Settings.lr})")
    one.set_defaults(run=run_train)
    one = commands.add_parser("judge", help="what the matcher in WORK finds")
    one.add_argument("judge", metavar="JUDGE", type=Path)
    one.add_argument("work", metavar="WORK", type=Path)
    one.add_argument("--publish", action="store_true", help="keep the table for docs/results.md")
    one.set_defaults(run=run_judge)
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def token_maker() -> TokenMaker:
    return TokenMaker(load_network("isc_small", device="cpu", precision=Precision.auto, image_size=SIZE))


def run_tokens(given: argparse.Namespace) -> None:
    images = list_images(given.images)
    if not 0 < given.photos <= len(images):
        raise InputError(f"--photos={given.photos}: {given.images} holds {len(images)}; expected 1…{len(images)}")
    if given.views < 1:
        raise InputError(f"--views={given.views}; expected at least 1")
    paths = list(images.values())[: given.photos]
    made = {"photos": given.photos, "views": given.views, "list": list_hash(images)}
    path = given.work / MADE_FILE
    if path.exists() and (before := read_made(path)) != made:
        raise InputError(f"{path}: says {before}, asked {made}; expected the same, or another WORK")
    given.work.mkdir(parents=True, exist_ok=True)
    write_json(path, made)
    maker, shows = token_maker(), shown_by(given.views, photos=len(paths), seed=SEED)
    make_tokens(maker, len(paths), functools.partial(photo, paths), given.work / "photos")

    def attacked(number: int) -> Pixels:
        return view(paths, number, shows=int(shows[number]), seed=SEED)

    make_tokens(maker, given.views, attacked, given.work / "views")


def read_made(path: Path) -> dict[str, Any]:
    """What `run_tokens` wrote."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        return {name: made[name] for name in ("photos", "views", "list")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the command tokens, into another WORK") from error


def run_train(given: argparse.Namespace) -> None:
    made = read_made(given.work / MADE_FILE)
    settings = Settings(steps=given.steps, batch=given.batch, lr=given.lr)
    views, photos = (read_tokens(given.work / name, made[name]) for name in ("views", "photos"))
    shows = shown_by(len(views), photos=len(photos), seed=SEED)
    print(train(settings, Source.of(views, photos, shows), given.work / "run"))


def run_judge(given: argparse.Namespace) -> None:
    matcher = network.load(given.work / "run" / WEIGHTS_FILE)
    rows = judged(given.judge, given.work / "judge", matcher=matcher, maker=token_maker())
    if given.publish:
        save("pair_matcher", rows)
    else:
        for line in rows:
            print("  ".join(f"{key} {value}" for key, value in line.items()))


if __name__ == "__main__":
    main()
