"""The command isc duplicates: the photos of a folder that show the same."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isc.cli.console import printable
from isc.cli.tables import print_table, shown_unreadable

if TYPE_CHECKING:
    from isc.find.results import Groups

COLUMNS = ("group", "photo", "best", "kind", "probability", "width", "height", "bytes")


@click.command(short_help="find photos in a folder that show the same")
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write groups.csv, groups.json and a page here.")
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", help="What stdout gets.",
    show_default=True,
)  # fmt: skip
@click.option(
    "--delete-list", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the paths of the exact and edited copies here, one a line; nothing is deleted.",
)  # fmt: skip
@click.option("--fast", is_flag=True, help="Compare descriptors alone, not pixels: quicker, less certain.")
@click.option("--index", "index_path", type=click.Path(path_type=Path), help="Keep descriptors here, not in the cache.")
@click.option("--model", default="isc_small", show_default=True, help="A name, a run folder, or a model file.")
def duplicates(
    photos: Path,
    *,
    output: Path | None,
    form: str,
    delete_list: Path | None,
    fast: bool,
    index_path: Path | None,
    model: str,
) -> None:
    """Find the photos below the folder PHOTOS that show the same, in groups, the best file of each first.

    A group is exact (the same bytes), edited (the same photo, resized, cropped, filtered …) or near (the same scene,
    perhaps another shot of it). The best file has most pixels, then most bytes.

    \b
    isc duplicates my-photos
    isc duplicates my-photos --output same               then open same/index.html
    isc duplicates my-photos --delete-list copies.txt
    """
    from isc.data.files import make_folder, write_text
    from isc.find.duplicates import find_duplicates
    from isc.find.index import Index
    from isc.find.pages import write_groups_page

    index = Index(index_path, model=model) if index_path else None
    found = find_duplicates(photos, index=index, model=model, pixels=not fast)
    shown_unreadable(found.unreadable)
    if output:
        make_folder(output)
        write_text(output / "groups.csv", as_csv(found))
        write_text(output / "groups.json", as_json(found))
        write_groups_page(output / "index.html", found, title=f"Photos of {photos} that show the same")
    if delete_list:
        write_text(delete_list, "".join(f"{path}\n" for path in found.spare))
    if form == "table":
        _print_table(found)
        if output:
            print(printable(f"pictures: {output / 'index.html'}"))
        if delete_list:
            print(f"{len(found.spare):,} paths in {delete_list}; nothing was deleted")
    else:
        sys.stdout.write(as_csv(found) if form == "csv" else as_json(found))


def as_csv(found: Groups) -> str:
    """Return a row a photo: `group,photo,best,kind,probability,width,height,bytes`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, group in enumerate(found, 1):
        for place, one in enumerate(group.members):
            kind, probability = ("", "") if not place else (one.kind.value, f"{one.probability:.4f}")
            best = "true" if not place else "false"
            writer.writerow((number, one.path, best, kind, probability, one.width, one.height, one.bytes))
    return text.getvalue()


def as_json(found: Groups) -> str:
    """Return {photos, groups: [{kind, probability, members: […]}], unreadable: [{path, reason}]}."""
    groups = [
        {
            "kind": group.kind.value,
            "probability": round(group.probability, 6),
            "members": [
                {
                    "photo": one.path,
                    "best": not place,
                    "kind": one.kind.value if place else None,
                    "probability": round(one.probability, 6) if place else None,
                    "width": one.width,
                    "height": one.height,
                    "bytes": one.bytes,
                }
                for place, one in enumerate(group.members)
            ],
        }
        for group in found
    ]
    unreadable = [{"path": path, "reason": reason} for path, reason in found.unreadable]
    return (
        json.dumps({"photos": found.photos, "groups": groups, "unreadable": unreadable}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _print_table(found: Groups) -> None:
    from isc.evaluate.report.texts import bytes_text, probability_text

    rows = []
    for number, group in enumerate(found, 1):
        for place, one in enumerate(group.members):
            kind, sure = ("best", "") if not place else (one.kind.value, probability_text(one.probability))
            rows.append((str(number), kind, one.path, sure, f"{one.width} × {one.height}", bytes_text(one.bytes)))
    if rows:
        print_table(("group", "kind", "photo", "probability", "size", "bytes"), rows, right={0, 3, 5})
    copies = sum(len(group.members) - 1 for group in found)
    print(f"{found.photos:,} photos: {len(found):,} groups, {copies:,} photos beside the best of each")
