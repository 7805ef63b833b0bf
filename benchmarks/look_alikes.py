"""Photos of like things, parted by thing: the hardest pictures to tell from copies.

    python -m benchmarks.look_alikes PHOTOS TABLE.csv OUTPUT
    python -m benchmarks.judge make OUTPUT/dev JUDGES/alike-dev --seed 9 --queries 600
    python -m benchmarks.judge make OUTPUT/test JUDGES/alike-test --seed 10 --queries 600 --edits tools

TABLE.csv has the columns photo_id and item_id: several photos of each item, as people take them of goods in shops. The
items in their order go to OUTPUT/training, dev and test in turn, so that no item is in two of them. In a judge of them
every query has references that show the same thing, or a thing of its kind, and are no copies.
"""

import argparse
import csv
from pathlib import Path

from isc.photos.folders import list_images

PARTS = ("training", "dev", "test")


def part(photos: Path, table: Path, output: Path) -> dict[str, int]:
    """Link the photos into the folders of PARTS; return the number in each. Raises KeyError for an unlisted photo."""
    with table.open(newline="", encoding="utf-8") as file:
        item_of = {row["photo_id"]: row["item_id"] for row in csv.DictReader(file)}
    place = {item: at % len(PARTS) for at, item in enumerate(sorted(set(item_of.values())))}
    counts = dict.fromkeys(PARTS, 0)
    for photo_id, path in list_images(photos).items():
        name = PARTS[place[item_of[photo_id]]]
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path.resolve())
        counts[name] += 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("table", type=Path, metavar="TABLE.csv")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    given = parser.parse_args()
    for name, count in part(given.photos, given.table, given.output).items():
        print(f"{count} photos in {given.output / name}")
