"""Outside judges: photos kept out of training, edited by AugLy 1.0.0 or by other tools that no training here uses.

    python -m benchmarks.judge split PHOTOS SPLIT            every twelfth photo to dev, another twelfth to test
    python -m benchmarks.judge make SPLIT/dev DEV --seed 1   references, queries, ground truth, as match.py takes them
    python -m benchmarks.judge make SPLIT/dev DEV2 --seed 3 --edits tools
    python -m benchmarks.judge score DEV MODEL …             PDQ and the models, by extract.py and match.py

The names of the files in PHOTOS end in a number, such as T000000.webp: 0 mod 12 goes to SPLIT/dev, 1 to SPLIT/test, all
others to SPLIT/training, the only photos that a model may learn from. Choose models on dev and report test; `score
--publish` keeps the tables for docs/results.md. isc/benchmark/edits/augly.py explains how to install AugLy,
benchmarks/tool_judge how to install the tools.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import apart, save
from benchmarks.judge_make import EDITORS, make
from benchmarks.judge_score import judge_name, recall_by_edit, score, summary
from isc.data.files import write_json
from isc.errors import InputError
from isc.photos.folders import list_images

PARTS = {0: "dev", 1: "test"}  # by number modulo MODULUS
MODULUS = 12


def part_of(photo_id: str) -> str:
    """Return dev, test or training, by the number at the end of the id. Raises InputError if there is none."""
    found = re.search(r"(\d+)$", photo_id)
    if found is None:
        raise InputError(f"photo {photo_id!r}: its name ends in no number; expected names such as T000000")
    return PARTS.get(int(found[1]) % MODULUS, "training")


def split(photos: Path, output: Path) -> dict[str, int]:
    """Link every photo into output/dev, output/test or output/training, and return the number in each.

    Photos of dev and test that show the same as a training photo (benchmarks.apart) are left out.
    """
    images = list_images(photos)
    counts: dict[str, int] = {}
    shown_in_training = apart.left_out()
    for photo_id, path in images.items():
        part = part_of(photo_id)
        if photo_id in shown_in_training:
            continue
        link = output / part / path.relative_to(photos)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
        counts[part] = counts.get(part, 0) + 1
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    try:
        if given.verb == "split":
            for part, count in sorted(split(given.photos, given.output).items()):
                print(f"{count} photos in {given.output / part}")
        elif given.verb == "make":
            started = time.monotonic()
            make(
                given.photos,
                given.output,
                seed=given.seed,
                queries=given.queries,
                workers=given.workers,
                edits=given.edits,
            )
            print(f"{given.queries} queries in {given.output}, {time.monotonic() - started:.0f} s")
        else:
            _score(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _score(given: argparse.Namespace) -> None:
    rows = score(
        given.judge,
        given.models,
        image_size=given.image_size,
        normalize=given.normalize,
        training=given.training,
        verified=given.verified,
    )
    name = judge_name(given.judge)
    tables = {name: summary(given.judge, rows), f"{name}_edits": recall_by_edit(given.judge, rows)}
    for name, table in tables.items():
        print(f"\n{text_table(table)}")
        write_json(given.judge / "scores" / f"{name}.json", table)
        if given.publish:
            save(name, table)
    if given.publish:
        save("judge_sizes", [{"references": len(list_images(given.judge / "references"))}])


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the rows as text in aligned columns, the first column to the left, the others to the right."""
    columns = list(rows[0])
    width = {column: max(len(column), *(len(str(row[column])) for row in rows)) for column in columns}
    lines = [dict(zip(columns, columns, strict=True)), *rows]
    return "\n".join(
        "  ".join(
            str(line[column]).ljust(width[column]) if column == columns[0] else str(line[column]).rjust(width[column])
            for column in columns
        )
        for line in lines
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("split", help="link photos into dev, test and training")
    one.add_argument("photos", type=Path)
    one.add_argument("output", type=Path)
    one = verbs.add_parser("make", help="make a benchmark of the photos of one part")
    one.add_argument("photos", type=Path)
    one.add_argument("output", type=Path)
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--queries", type=int, default=1200, help="half of them copies (default: 1200)")
    one.add_argument("--workers", type=int, help="processes (default: one a core)")
    one.add_argument("--edits", choices=tuple(EDITORS), default="augly", help="who edits (default: augly)")
    one = verbs.add_parser("score", help="judge models, and PDQ where pdqhash is installed")
    one.add_argument("judge", type=Path, help="what make wrote")
    one.add_argument("models", nargs="+", metavar="[NAME=]MODEL", help="anything that extract.py's model= takes")
    one.add_argument("--image-size", type=int, help="pixels (default: each model's own)")
    one.add_argument("--normalize", help="match.py's steps, such as whiten or subtract, with --training")
    one.add_argument("--training", type=Path, help="folder of training photos to normalise with")
    one.add_argument("--verified", metavar="NAME", help="the model that is judged on the matching track as well")
    one.add_argument("--publish", action="store_true", help="keep the tables for docs/results.md")
    return parser


if __name__ == "__main__":
    main()
