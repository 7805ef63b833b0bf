"""Candidate recall by views: the share of copies whose original is among the first candidates.

    python -m benchmarks.candidates FOLDER … --work DIR

Each FOLDER is one that `benchmarks.judge make` wrote. Descriptors are kept in DIR. The distance of two images is that
of their nearest rows, as in match.py track=matching.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks import save
from isc.config.choices import Combine, Runtime
from isc.config.extract import ExtractConfig
from isc.data.csv_files import read_ground_truth, write_csv
from isc.data.hdf5 import read_descriptors
from isc.data.matches import GroundTruth
from isc.errors import InputError
from isc.extract.run import extract
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.regions import propose
from isc.photos.views import parse_views

EVERY = "flip+rotate:90+rotate:180+rotate:270+crop:0.7+crop:0.5+tiles:2+regions:4"
TILES = "tiles:2"  # of the references
TURNS = "rotate:90+rotate:180+rotate:270"
CHOSEN = "flip+rotate:180+regions:1"
VIEWS = (  # of a query, of a reference
    ("whole", "whole"),
    ("flip", "whole"),
    ("rotate:180", "whole"),
    (TURNS, "whole"),
    ("crop:0.7+crop:0.5", "whole"),
    ("tiles:2", "whole"),
    ("regions:1", "whole"),
    ("regions:2", "whole"),
    ("regions:3", "whole"),
    ("regions:4", "whole"),
    (f"flip+{TURNS}+crop:0.7+crop:0.5+tiles:2", "whole"),
    (CHOSEN, "whole"),
    (f"flip+{TURNS}+regions:1", "whole"),
    (EVERY, "whole"),
    ("whole", TILES),
    (CHOSEN, TILES),
    (EVERY, TILES),
)
AMONG = (1, 5, 10, 20, 50, 100)
BY_EDIT = (("whole", "whole"), ("regions:1", "whole"), (CHOSEN, "whole"), (CHOSEN, TILES))  # views of the table by edit
FIRST = 10  # candidates that count in the table by edit

Row = dict[str, object]
Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Descriptors [N, V, D] of N images, one row for each of the V views in `text`."""

    ids: tuple[str, ...]
    vectors: Vectors
    text: str

    def places(self, text: str) -> list[int]:
        """Return the positions of the views of another text; this set must have all of them."""
        return [parse_views(self.text).index(view) for view in parse_views(text)]


def described(images: Path, output: Path, views: str, given: argparse.Namespace) -> Rows:
    """Return the descriptors of a folder's images by extract.py, which reuses an existing file."""
    combine = Combine.average if views == "whole" else Combine.rows
    config = ExtractConfig(
        images=[str(images)],
        output=str(output),
        model=given.model,
        runtime=Runtime(given.runtime),
        views=views,
        combine=combine,
        strict=True,
    )
    found = read_descriptors(extract(config))
    count = len(parse_views(views))
    return Rows(tuple(found.ids[::count].tolist()), found.vectors.reshape(-1, count, found.vectors.shape[1]), views)


def list_copies(folder: Path, truth: GroundTruth, output: Path) -> Path:
    """Write a list of the queries that are copies, for extract.py; the other queries have no original."""
    copies = {query for query, _ in truth.pairs}
    images = list_images(folder / "queries")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_csv(output, ("id", "file"), ((name, images[name].resolve()) for name in sorted(copies)))
    return output


def ranks(queries: Rows, references: Rows, truth: GroundTruth) -> dict[tuple[str, str], Ints]:
    """Return for each of VIEWS how many references are nearer to each query [N] than its nearest original."""
    place = {name: number for number, name in enumerate(references.ids)}
    originals: dict[str, list[int]] = {}
    for query, reference in truth.pairs:
        originals.setdefault(query, []).append(place[reference])
    looks = {(q, r): (queries.places(q), references.places(r)) for q, r in VIEWS}
    found: dict[tuple[str, str], list[int]] = {look: [] for look in looks}
    for name, vectors in zip(queries.ids, queries.vectors, strict=True):
        cosines = np.einsum("vd,nwd->vnw", vectors, references.vectors, optimize=True)
        for look, (seen, shown) in looks.items():
            nearest = cosines[seen][:, :, shown].max(axis=(0, 2))
            found[look].append(int((nearest > nearest[originals[name]].max()).sum()))
    return {look: np.array(values) for look, values in found.items()}


def table(name: str, found: Mapping[tuple[str, str], Ints]) -> list[Row]:
    """Return one row per combination of views: the recall at the ranks of AMONG."""
    return [
        {
            "benchmark": name,
            "views of a query": _short(seen),
            "of a reference": shown,
            "rows a query": len(parse_views(seen)),
            "rows a reference": len(parse_views(shown)),
        }
        | {f"among {most}": f"{(values < most).mean():.3f}" for most in AMONG}
        for (seen, shown), values in found.items()
    ]


def edit_table(name: str, folder: Path, ids: Sequence[str], found: Mapping[tuple[str, str], Ints]) -> list[Row]:
    """Return one row per edit: the copies with it in their chain, and their recall among the first ten."""
    lines = map(json.loads, (folder / "edits.jsonl").read_text(encoding="utf-8").splitlines())
    chains = {line["query_id"]: {edit["name"] for edit in line["edits"]} for line in lines}
    rows: list[Row] = []
    for edit in sorted(set().union(*(chains[query] for query in ids))):
        has = np.array([edit in chains[query] for query in ids])
        shares = {f"{_short(look[0])}; {look[1]}": f"{(found[look][has] < FIRST).mean():.2f}" for look in BY_EDIT}
        rows.append({"benchmark": name, "edit": edit, "copies": int(has.sum())} | shares)
    return rows


def _short(text: str) -> str:
    return {EVERY: "all of these", "whole": "whole"}.get(text, text.replace(TURNS, "3 turns"))


def proposal_ms(folder: Path) -> float:
    """Return the processor time of proposing regions in one query, in ms: the median of 200 queries."""
    cv2.setNumThreads(1)
    times = []
    for path in list(list_images(folder / "queries").values())[:200]:
        picture = read_image(path)
        start = time.process_time()
        propose(picture, count=4)
        times.append(time.process_time() - start)
    return 1000 * float(np.median(times))


def measured(folder: Path, given: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Return both tables of one benchmark."""
    truth = read_ground_truth(folder / "ground_truth.csv")
    work = given.work / folder.name
    copies = list_copies(folder, truth, work / "copies.csv")
    queries = described(copies, work / "copies.h5", EVERY, given)
    references = described(folder / "references", work / "references.h5", TILES, given)
    found = ranks(queries, references, truth)
    return table(folder.name, found), edit_table(folder.name, folder, queries.ids, found)


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    try:
        tables = [measured(folder, given) for folder in given.folders]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    rows = [row for found, _ in tables for row in found]
    save("candidates", [*rows, _environment(rows[0], proposal_ms(given.folders[0]), given)])
    save("candidates_edits", [row for _, found in tables for row in found])


def _environment(row: Row, cost: float, given: argparse.Namespace) -> Row:
    """Return the last row: model, runtime, versions, and the cost of proposing regions."""
    what = (
        f"{given.model}, {given.runtime}; regions: {cost:.1f} ms of one core a query; Python "
        f"{platform.python_version()}, OpenCV {cv2.__version__}, NumPy {np.__version__}"
    )
    empty: Row = dict.fromkeys(row, "")
    return empty | {"benchmark": "environment", "views of a query": what}


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidates", description=description)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="what benchmarks.judge make wrote")
    parser.add_argument("--work", type=Path, required=True, help="where descriptors are kept")
    parser.add_argument("--model", default="isc_small", help="anything that extract.py's model= takes")
    parser.add_argument("--runtime", default="torch", choices=[one.value for one in Runtime])
    return parser


if __name__ == "__main__":
    main()
