"""Duplicates in a folder, found by isc duplicates and by other programs: time, and what each finds.

    python -m benchmarks.duplicates JUDGE … [--photos FOLDER] [--peers PYTHON]

A JUDGE is a half of `python -m benchmarks.judge`: its references and queries are put into one folder. A copy is found
if its group holds the photo that it was made from. A pair is two photos of one group, as the other programs list them;
it is right if one photo is at the root of both. AugLy pastes many photos into the same few screenshots: these are near
one another, and count as wrong. "Spare" are the files that --delete-list names, right if made from the photo that is
kept, or from the same. FOLDER holds photos for the time alone. PYTHON is that of an
environment with the other programs, `pip install imagededup==0.3.3.post2 czkawka==0.1.2`, which need not be ours.
imagededup's neural method is left out: it downloads its weights when it first runs.
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import save
from isc.data.csv_files import read_ground_truth
from isc.evaluate.metrics import wilson
from isc.photos.folders import list_images

Pairs = frozenset[frozenset[str]]
OURS = """
import json, sys
from isc.find.duplicates import find_duplicates
from isc.find.photo_index import PhotoIndex
found = find_duplicates(sys.argv[1], index=PhotoIndex(sys.argv[1] + ".index"), pixels=PIXELS)
kept = {member.path: group.members[0].path for group in found for member in group.members}
groups = [[member.path for member in group.members] for group in found]
print(json.dumps({"groups": groups, "spare": [[kept[path], path] for path in found.spare]}))
"""
IMAGEDEDUP = """
import json, logging, sys
logging.disable()
from imagededup.methods import METHOD
if __name__ == "__main__":
    found = METHOD(verbose=False).find_duplicates(image_dir=sys.argv[1], max_distance_threshold=10)
    print(json.dumps([[one, other] for one, others in found.items() for other in others]))
"""
CZKAWKA = """
import json, sys
from czkawka import ImageSimilarity
finder = ImageSimilarity()
finder.set_directories([sys.argv[1]])
finder.set_similarity(LEVEL)
print("\\n" + json.dumps([[str(path) for path in group] for group in finder.find_similar()]))
"""
PROGRAMS = {  # name: (its source, is it one of the others)
    "isc duplicates": (OURS.replace("PIXELS", "True"), False),
    "isc duplicates --fast": (OURS.replace("PIXELS", "False"), False),
    "imagededup PHash": (IMAGEDEDUP.replace("METHOD", "PHash"), True),
    "imagededup DHash": (IMAGEDEDUP.replace("METHOD", "DHash"), True),
    "czkawka, similarity 5": (CZKAWKA.replace("LEVEL", "5"), True),
    "czkawka, similarity 15": (CZKAWKA.replace("LEVEL", "15"), True),
}


@dataclass(frozen=True)
class Found:
    """The pairs of file names that a program put into one group, its spare files, and its seconds from a cold start.

    `spare` has a pair for each file that could be deleted, with the file that is kept; None of a program without such.
    """

    pairs: Pairs
    spare: Pairs | None
    seconds: float


def found_by(source: str, python: str, photos: Path) -> Found:
    """Run a program on a folder of photos, links to them included."""
    with tempfile.TemporaryDirectory() as folder:
        photos_only = Path(folder) / "photos"
        photos_only.mkdir()
        for path in list_images(photos).values():
            (photos_only / path.name).hardlink_to(path.resolve())
        started = time.perf_counter()
        done = subprocess.run([python, "-c", source, str(photos_only)], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{source}\nstatus {done.returncode}: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    groups, spare = (said["groups"], pairs_of(said["spare"])) if isinstance(said, dict) else (said, None)
    return Found(pairs_of(groups), spare, seconds)


def pairs_of(groups: Iterable[Iterable[str]]) -> Pairs:
    """Return all pairs of file names that one of the groups of paths holds."""
    names = ([Path(member).name for member in group] for group in groups)
    return frozenset(frozenset(pair) for group in names for pair in itertools.combinations(group, 2))


def joined(judge: Path, folder: Path) -> tuple[dict[str, str], Pairs]:
    """Put a judge's pictures into one folder; return {copy: its photo} and all right pairs, by file name.

    Two pictures of a distractor's photo are a right pair too.
    """
    for part in ("queries", "references"):
        for path in list_images(judge / part).values():
            (folder / path.name).hardlink_to(path.resolve())
    name = {photo_id: path.name for photo_id, path in list_images(folder).items()}
    with (judge / "photos.csv").open(newline="", encoding="utf-8") as file:
        source = {row["id"]: Path(row["file"]).stem for row in csv.DictReader(file)}
    for line in (judge / "edits.jsonl").read_text(encoding="utf-8").splitlines():
        edited = json.loads(line)
        source[edited["query_id"]] = edited["source"]
    families = defaultdict(list)
    for photo_id, photo in source.items():
        families[photo].append(name[photo_id])
    pairs = (pair for family in families.values() for pair in itertools.combinations(family, 2))
    truth = read_ground_truth(judge / "ground_truth.csv")
    return {name[query]: name[reference] for query, reference in truth.pairs}, frozenset(map(frozenset, pairs))


def judge_rows(judge: Path, programs: Iterable[tuple[str, str, str]]) -> list[dict[str, object]]:
    """Return a row for each program (name, source, Python)."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=judge.parent) as folder:
        root, right = joined(judge, Path(folder))
        count = len(list_images(Path(folder)))
        for name, source, python in programs:
            print(f"{judge.name}: {name} …", flush=True)
            found = found_by(source, python, Path(folder))
            copies = sum(frozenset(pair) in found.pairs for pair in root.items())
            rows.append(
                {
                    "photos": f"{judge.name}, {count:,}",
                    "program": name,
                    "copies found": f"{copies / len(root):.3f}",
                    "pairs": f"{len(found.pairs):,}",
                    "right": share(found.pairs, right),
                    "spare": "" if found.spare is None else f"{len(found.spare):,}",
                    "spare right": "" if found.spare is None else share(found.spare, right),
                    "seconds": f"{found.seconds:.1f}",
                    "photos/s": f"{count / found.seconds:.0f}",
                }
            )
    return rows


def share(pairs: Pairs, right: Pairs) -> str:
    """Return the share of right pairs with its interval of 95 % (Wilson)."""
    correct = len(pairs & right)
    low, high = wilson(correct, len(pairs)) if pairs else (0.0, 1.0)
    return f"{correct / max(len(pairs), 1):.3f} ({low:.3f} … {high:.3f})"


def time_rows(photos: Path, programs: Iterable[tuple[str, str, str]]) -> list[dict[str, object]]:
    """Return a row for each program on photos of which nothing is known."""
    count = len(list_images(photos))
    rows: list[dict[str, object]] = []
    for name, source, python in programs:
        print(f"{count:,} photos: {name} …", flush=True)
        found = found_by(source, python, photos)
        rows.append(
            {
                "photos": f"{count:,} others",
                "program": name,
                "copies found": "",
                "pairs": f"{len(found.pairs):,}",
                "right": "",
                "spare": "",
                "spare right": "",
                "seconds": f"{found.seconds:.1f}",
                "photos/s": f"{count / found.seconds:.0f}",
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judges", type=Path, nargs="+", metavar="JUDGE")
    parser.add_argument("--photos", type=Path, help="photos for the time alone")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has the other programs")
    given = parser.parse_args(arguments)
    programs = [
        (name, source, given.peers if other else sys.executable)
        for name, (source, other) in PROGRAMS.items()
        if given.peers or not other
    ]
    rows = [row for judge in given.judges for row in judge_rows(judge, programs)]
    save("duplicates", rows + (time_rows(given.photos, programs) if given.photos else []))


if __name__ == "__main__":
    main()
