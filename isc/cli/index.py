"""The command isc index. Results go to stdout; warnings, progress and errors to stderr."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isc.cli.console import FiniteRange, Group, at_most_one, say_after_interrupt
from isc.cli.match_output import FORMATS, NUMBERS, TABLE, as_csv, as_json, table_rows
from isc.cli.tables import plain_table, print_table, shown_unreadable
from isc.errors import InputError

if TYPE_CHECKING:
    from isc.find.photo_index import Changes, PhotoIndex

log = logging.getLogger(__name__)
PATH = click.Path(path_type=Path)
SHOWN = 10  # photos named for each suspect
DESCRIPTORS = 1 << 16  # descriptors handed to faiss at once

index_argument = click.argument("path", metavar="INDEX", type=PATH)
model_option = click.option("--model", help="Where the index's model is now, if it has moved; another one is refused.")


@click.group(cls=Group, short_help="keep descriptors of photos, and find among them at any time")
def index() -> None:
    """Keep an index of known photos, which takes, replaces, removes and finds them at any time.

    What is acknowledged is on the disk, even if the process is killed the moment after. One process writes, many read.

    \b
    isc index create known.index                     for photos described by the shipped model
    isc index sync known.index photos                as the folder is now; again when it has changed
    isc index query known.index suspect.jpg -k 5     the five likeliest photos, with probability and verdict
    isc index remove known.index S001.jpg
    isc index add known.index descriptors.h5         descriptors that isc extract wrote
    isc match queries=q.h5 references=known.index output=matched
    """
    say_after_interrupt("what was acknowledged is kept, and nothing half")


@index.command(short_help="make an empty index for the descriptors of one model")
@index_argument
@click.option("--model", help="What describes photos: a name, a run folder or a model file.  [default: isc_small]")
@click.option(
    "--descriptors", type=PATH, metavar="FILE.h5",
    help="Instead: take the model from what this file says of itself; its rows are not added.",
)  # fmt: skip
@click.option(
    "--image-size", type=click.IntRange(min=32), metavar="PIXELS", help="Side of the pictures.  [default: the model's]"
)
def create(path: Path, *, model: str | None, descriptors: Path | None, image_size: int | None) -> None:
    """Make an empty index for the descriptors of one model."""
    from isc.cli.index_output import model_text
    from isc.match.inputs import read_set
    from isc.search.index.index import Index

    if descriptors is not None:
        for given, option in ((model, "--model"), (image_size, "--image-size")):
            if given is not None:
                raise InputError(f"{option} does not go with --descriptors, which say their own; give one")
        described, provenance = read_set(descriptors)
        made = Index.create(path, dim=described.dim, provenance=provenance)
    else:
        from isc.find.photo_index import PhotoIndex

        made = PhotoIndex(path, model=model).create(image_size=image_size)
    print(f"made {path}, empty, for {model_text(made.manifest)}")


@index.command(short_help="add photos, or descriptors")
@index_argument
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=PATH)
@click.option("--replace", "replaces", is_flag=True, help="Put descriptors of known ids in place of the old ones.")
@click.option("--skip-existing", is_flag=True, help="Leave known ids as they are, and add the other descriptors.")
@model_option
def add(path: Path, sources: tuple[Path, ...], *, replaces: bool, skip_existing: bool, model: str | None) -> None:
    """Add photos, folders of photos, descriptors (.h5) and other indexes.

    Photos that are unchanged are left as they are, changed ones are described anew. Descriptors of known ids are
    refused unless an option says what to do with them.
    """
    from isc.cli.index_sources import acknowledged, add_set, is_set
    from isc.search.index.index import Index

    opened = Index.open(path)
    sets = [source for source in sources if is_set(source)]
    photos = [source for source in sources if source not in sets]
    at_most_one(replace=replaces, skip_existing=skip_existing)
    if (replaces or skip_existing) and not sets:
        raise InputError("--replace and --skip-existing are for descriptors; changed photos are described anew anyway")
    if photos:
        changes = _photos(path, model).add(*photos, acknowledge=acknowledged("photos"))
        _say(changes, "photos")
    if sets:
        with opened.writer() as writer:
            for source in sets:
                add_set(writer, source, replace=replaces, skip_existing=skip_existing)
    _say_size(path)


@index.command(short_help="bring the index in step with a folder of photos")
@index_argument
@click.argument("folder", type=PATH)
@model_option
def sync(path: Path, folder: Path, *, model: str | None) -> None:
    """Bring the index in step with a folder of photos.

    New photos are added, changed ones described anew, and those that are gone from the folder removed. A photo has
    changed if its size, or its time and its content, have. Photos of other folders stay.
    """
    from isc.cli.index_sources import acknowledged

    _say(_photos(path, model).sync(folder, acknowledge=acknowledged("photos")), str(folder))
    _say_size(path)


@index.command(short_help="remove photos by id, path or file name")
@index_argument
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--from", "file", type=PATH, metavar="FILE", help="A text file with one name a line.")
@click.option("--missing-ok", is_flag=True, help="Pass over names that are not in the index.")
def remove(path: Path, names: tuple[str, ...], *, file: Path | None, missing_ok: bool) -> None:
    """Remove photos, all of those named or none.

    A NAME is an id, the path of a photo, or its file name if no other photo of the index has the same.
    """
    from isc.cli.index_sources import read_names

    wanted = [*names, *(read_names(file) if file else ())]
    if not wanted:
        raise InputError("no names to remove; expected some, or --from FILE")
    removed = _photos(path).remove(*wanted, missing_ok=missing_ok)
    print(f"removed {removed:,} images; {path} holds {len(_photos(path)):,}")


@index.command(short_help="name the photos that suspects were made from")
@index_argument
@click.argument("suspects", nargs=-1, required=True, metavar="SUSPECT...")
@click.option("-k", type=click.IntRange(min=1), metavar="N", help="Photos named for each suspect.  [default: 10]")
@click.option(
    "--max-distance", type=FiniteRange(min=0), metavar="D", help="Leave out photos whose descriptors are farther."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="What is written."
)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write there, whole or not at all, not to stdout.")
@click.option("--fast", is_flag=True, help="Compare descriptors alone, not pixels: quicker, less certain.")
@click.option("--allow-url", is_flag=True, help="Fetch suspects that are named by http:// or https:// from the web.")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Processes that read and compare.  [default: one a core]"
)
@model_option
def query(
    path: Path,
    suspects: tuple[str, ...],
    *,
    k: int | None,
    max_distance: float | None,
    form: str,
    output: Path | None,
    fast: bool,
    allow_url: bool,
    workers: int | None,
    model: str | None,
) -> None:
    """Name the photos that each SUSPECT was most likely made from, the surest first.

    A SUSPECT is a photo, a folder of photos, - for a picture on standard input, an http:// or https:// address of a
    picture, or descriptors (.h5, or another index). Pixels are compared where both pictures are there.

    \b
    isc index query known.index suspect.jpg
    isc index query known.index inbox -k 3 --format csv --output found.csv
    isc index query known.index - < suspect.jpg
    """
    from isc.cli.index_query import matches_of, within

    photos = _photos(path, model)
    if k and k > len(photos) > 0:
        log.info("-k %d: the index holds %d images; each suspect gets %d", k, len(photos), len(photos))
    found = matches_of(photos, suspects, k=k or SHOWN, pixels=not fast, workers=workers or -1, allow_url=allow_url)
    if max_distance is not None:
        found = within(found, max_distance)
    shown_unreadable(found.unreadable)
    if form == "table":
        rows = table_rows(found, nearest=True)
        if output is None:
            print_table(TABLE, rows, right=NUMBERS)
            return
        text = plain_table(TABLE, rows, right=NUMBERS)
    else:
        text = as_csv(found, nearest=True) if form == "csv" else as_json(found, nearest=True)
    if output is None:
        print(text, end="")
        return
    from isc.data.files import write_text

    write_text(output, text)
    print(f"{len(found):,} rows: {output}")


@index.command(short_help="say what an index holds")
@index_argument
@click.option("--json", "as_values", is_flag=True, help="Write JSON, for programs.")
def stats(path: Path, *, as_values: bool) -> None:
    """Say what an index holds."""
    import json
    from dataclasses import asdict

    from isc.cli.index_output import as_text
    from isc.search.index.index import Index

    found = Index.open(path).stats()
    print(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_values else as_text(found))


@index.command(short_help="read everything once, and say whether it is whole")
@index_argument
def verify(path: Path) -> None:
    """Read everything once, and say whether it is whole."""
    from isc.search.index.index import Index

    with Index.open(path).snapshot() as snapshot:
        snapshot.verify()
        print(f"{path} is whole: {len(snapshot):,} images, {snapshot.state.dead:,} dead rows")


@index.command(short_help="give back the space of removed and replaced images")
@index_argument
def compact(path: Path) -> None:
    """Give back the space of removed and replaced images."""
    from isc.runtime.progress import progress
    from isc.search.index.index import Index

    with Index.open(path).writer() as writer, progress("compacting", "images") as report:
        dropped = writer.compact(progress=report)
        print(f"dropped {dropped:,} dead rows; {path} holds {writer.state.live:,} images")


@index.command(short_help="make an approximate index of the same images")
@index_argument
@click.option("--factory", required=True, metavar="TEXT", help="Faiss's description: OPQ32,IVF4096,PQ32, or HNSW32.")
@click.option("--training", type=PATH, required=True, metavar="T.h5", help="Descriptors of training photos.")
@click.option("--output", type=PATH, required=True, metavar="FOLDER", help="Where the index is written.")
@click.option("--on-disk", is_flag=True, help="Keep the lists of an IVF index on the disk as they fill.")
@click.option(
    "--memory-gb", type=FiniteRange(min=0.001), default=2.0, show_default=True,
    help="With --on-disk: GB that wait in memory.",
)  # fmt: skip
def approximate(path: Path, *, factory: str, training: Path, output: Path, on_disk: bool, memory_gb: float) -> None:
    """Make an approximate index of the same images, for isc match index=FOLDER."""
    from isc.match.inputs import read_set
    from isc.runtime.progress import progress
    from isc.search.approximate.files import build_on_disk
    from isc.search.approximate.index import Approximate
    from isc.search.index.manifest import Manifest

    if output.exists():
        raise InputError(f"{output}: is there already; expected a new path")
    references, made = read_set(path)
    trained_on, otherwise = read_set(training, role="training")
    Manifest.of(references.dim, made, None).check(training, trained_on.dim, otherwise)
    vectors = references.sorted().vectors  # in the order in which match.py reads them
    built = Approximate.train(factory, trained_on.vectors)
    with progress("filling the index", "descriptors") as report:
        if on_disk:
            parts = (vectors[start : start + DESCRIPTORS] for start in range(0, len(vectors), DESCRIPTORS))
            count = len(build_on_disk(output, built, parts, memory_gb=memory_gb, progress=report))
        else:
            built.add(vectors, progress=report)
            built.save(output)
            count = len(built)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"made {output}: {count:,} descriptors, {size / count:.0f} bytes each, by {factory}")


def _photos(path: Path, model: str | None = None) -> PhotoIndex:
    """Open the index. Raises InputError if there is none."""
    from isc.find.photo_index import PhotoIndex
    from isc.search.index.index import Index

    Index.open(path)
    return PhotoIndex(path, model=model)


def _say(changes: Changes, what: str) -> None:
    """Print what was done, and name what could not be read. Raises InputError if that is all."""
    if len(changes.unreadable) == changes.given > 0:
        where, reason = changes.unreadable[0]
        raise InputError(f"none of {changes.given:,} photos can be read; the first: {where}: {reason}")
    shown_unreadable(changes.unreadable)
    print(f"{what}: {changes}")


def _say_size(path: Path) -> None:
    from isc.search.index.index import Index

    with Index.open(path).snapshot() as now:
        print(f"{path} holds {len(now):,} images")
