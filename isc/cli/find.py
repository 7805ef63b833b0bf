"""The command isc find: which photo each suspect was made from."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isc.cli.console import printable
from isc.cli.match_output import FORMATS, NUMBERS, TABLE, as_csv, as_json, table_rows
from isc.cli.tables import print_table, shown_unreadable

if TYPE_CHECKING:
    from isc.find.results import Matches

log = logging.getLogger(__name__)


@click.command(short_help="find the photos that suspects were made from")
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.argument("suspects", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for a CSV, a JSON and a page.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", help="What stdout gets.",
    show_default=True,
)  # fmt: skip
@click.option("--fast", is_flag=True, help="Compare descriptors alone, not pixels: quicker, less certain.")
@click.option(
    "--index", "index_path", type=click.Path(path_type=Path), help="Keep descriptors of PHOTOS here, not in the cache."
)
@click.option("--model", default="isc_small", show_default=True, help="A name, a run folder, or a model file.")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes that read and compare.  [default: one a core]"
)
def find(
    photos: Path,
    suspects: tuple[Path, ...],
    *,
    output: Path | None,
    form: str,
    fast: bool,
    index_path: Path | None,
    model: str,
    workers: int | None,
) -> None:
    """Find which of PHOTOS each of SUSPECTS was made from, where, and how surely.

    PHOTOS is an index, a folder or a photo; SUSPECTS are photos and folders. Descriptors of PHOTOS are kept, so that
    the next call takes seconds. The verdict of a suspect is copy, perhaps (look yourself), or none.

    \b
    isc find my-photos inbox
    isc find my-photos suspect.jpg --output found        then open found/index.html
    isc find my-photos inbox --format csv > found.csv
    """
    from isc.data.files import make_folder
    from isc.find.index import Index
    from isc.find.pages import write_matches_page
    from isc.find.photo_index import cached_path
    from isc.search.index.index import is_index

    if is_index(photos):
        index = Index(photos)
    else:
        index = Index(index_path or cached_path(photos, model=model), model=model)
        changes = index.sync(photos) if photos.is_dir() else index.add(photos)
        log.info("%s: %s; descriptors are kept in %s", photos, changes, index.path)
        shown_unreadable(changes.unreadable)
    found = index.find(*suspects, pixels=not fast, workers=workers or -1)
    found = _as_given(found, photos)
    shown_unreadable(found.unreadable)
    if output:
        make_folder(output)
        _write(output / "matches.csv", as_csv(found))
        _write(output / "matches.json", as_json(found))
        write_matches_page(output / "index.html", found, title=f"Copies of {photos}")
    if form == "table":
        _print_table(found)
        if output:
            print(printable(f"pictures: {output / 'index.html'}"))
    else:
        sys.stdout.write(as_csv(found) if form == "csv" else as_json(found))


def _as_given(found: Matches, photos: Path) -> Matches:
    """Return the matches with the photos' paths as the user wrote them."""
    from dataclasses import replace

    from isc.find.photos import absolute, below

    above, whole = below(photos), absolute(photos)

    def shown(path: str | None) -> str | None:
        if path is None or photos.is_absolute():
            return path
        return str(photos) if path == whole else str(photos / path[len(above) :]) if path.startswith(above) else path

    return replace(found, rows=tuple(replace(row, photo=shown(row.photo)) for row in found.rows))


def _print_table(found: Matches) -> None:
    from isc.find.results import Verdict

    print_table(TABLE, table_rows(found), right=NUMBERS)
    counts = {verdict: len(found.of_verdict(verdict)) for verdict in Verdict}
    print(
        f"{counts[Verdict.copy]:,} copies, {counts[Verdict.perhaps]:,} perhaps, {counts[Verdict.none]:,} without a copy"
    )


def _write(path: Path, text: str) -> None:
    from isc.data.files import write_text

    write_text(path, text)
