"""The command isc products: the items that clips show; submissions checked and judged."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isc.cli.console import Group, printable
from isc.cli.tables import print_table, shown_unreadable
from isc.errors import InputError, needing

if TYPE_CHECKING:
    from isc.products.find import Finding
    from isc.products.listening import Recogniser
    from isc.products.transcripts import Spoken

PATH = click.Path(path_type=Path)
RANKING = ("video", "item_id", "probability")


@click.group(cls=Group, short_help="find the items of a shop in clips, check and judge submissions")
def products() -> None:
    """Find which item of a shop a clip shows, as the Watch and Buy challenge asks (docs/products.md)."""


@products.command(short_help="find the items that clips show")
@click.argument("catalogue", type=PATH)
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", required=True, metavar="RUN_DIR", help="Written by isc train task=products.")
@click.option(
    "--transcripts",
    type=PATH,
    metavar="FOLDER",
    help="What is said: CLIP.srt, .vtt or .json.  [default: beside the clips]",
)
@click.option(
    "--listen",
    metavar="NAME",
    help="Recognise speech where there is no transcript: pocketsphinx, or MODULE:FUNCTION of your own.",
)
@click.option("-o", "--output", type=PATH, help="Folder for answers.json, ranking.csv and a page.")
def find(
    catalogue: Path,
    clips: tuple[Path, ...],
    *,
    model: str,
    transcripts: Path | None,
    listen: str | None,
    output: Path | None,
) -> None:
    """Find which item of CATALOGUE each of CLIPS shows: videos, photos, or folders whose photos show one thing.

    CATALOGUE is a folder with items.csv (item_id, title; image, kind and description if there are any) and the shop's
    pictures. A folder that holds videos stands for its videos. The probability of an item and of none of them comes
    from frames and words together; answers.json has the layout of the challenge.

    \b
    isc products find shop clip.mp4 --model runs/shop
    isc products find shop clips --model runs/shop --transcripts texts --output found      then open found/index.html
    """
    with needing("products", extra="words"):
        from isc.products.find import ProductFinder, clip_name
    from isc.products.catalogue import read_catalogue
    from isc.products.listening import recogniser
    from isc.runtime.progress import progress

    files = _clips(clips)
    names = [clip_name(one) for one in files]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise InputError(f"two clips of the name {twice!r}; expected each name once")
    spoken = {clip: _spoken(clip, transcripts) for clip in files}  # refused before any picture is read
    hears = None if listen is None else recogniser(listen)
    finder = ProductFinder(model, read_catalogue(catalogue))
    findings: list[Finding] = []
    unreadable: list[tuple[str, str]] = []
    with progress("finding", "clips") as report:
        for at, clip in enumerate(files):
            try:
                said = spoken[clip]
                findings.append(finder.find(clip, _heard(clip, hears) if said is None else said))
            except InputError as error:
                unreadable.append((str(clip), str(error).removeprefix(f"{clip}: ")))
            report(at + 1, len(files))
    shown_unreadable(unreadable)
    if not findings:
        raise InputError(f"none of {len(unreadable)} clips can be read ({unreadable[0][1]})")
    if output:
        _write(output, findings, unreadable, title=f"Items of {catalogue}")
    rows = [(str(one.clip), *_shown(one)) for one in findings]
    print_table(("clip", "item", "title", "probability", "at"), rows, right=frozenset((3, 4)))
    if output:
        print(printable(f"pictures: {output / 'index.html'}"))


def _clips(given: Sequence[Path]) -> list[Path]:
    """Return the clips: a folder with videos stands for these, any other path for itself."""
    from isc.video.reading import videos_below

    found: list[Path] = []
    for path in given:
        videos = list(videos_below(path)) if path.is_dir() else []
        found += videos or [path]
    return found


def _spoken(clip: Path, folder: Path | None) -> tuple[Spoken, ...] | None:
    """Return the transcript of a clip, None if there is none. Raises InputError for one that is broken."""
    from isc.products.find import clip_name
    from isc.products.transcripts import SUFFIXES, read_transcript

    if folder is not None and not folder.is_dir():
        raise InputError(f"--transcripts {folder}: no such folder; expected one with CLIP.srt, .vtt or .json")
    for suffix in SUFFIXES:
        path = (folder or clip.parent) / f"{clip_name(clip)}{suffix}"
        if path.is_file() and path != clip:
            return read_transcript(path)
    return None


def _heard(clip: Path, hears: Recogniser | None) -> tuple[Spoken, ...]:
    """Return what a recogniser hears in a clip; nothing without one, and for photos."""
    from isc.products.listening import listen
    from isc.video.reading import is_video

    return listen(clip, hears) if hears is not None and is_video(clip) else ()


def _shown(found: Finding) -> tuple[str, str, str, str]:
    """Return id, title, probability and time of a finding, for the table."""
    if found.item is None:
        return "none", "", f"{found.none:.3f}", ""
    return found.item.item_id, found.item.title, f"{found.choices[0].probability:.3f}", f"{found.place.seconds:.1f} s"


def _write(output: Path, findings: Sequence[Finding], unreadable: Sequence[tuple[str, str]], *, title: str) -> None:
    from isc.data.files import make_folder, write_text
    from isc.products.page import write_products_page
    from isc.products.submission import write_answers

    make_folder(output)
    write_answers(output / "answers.json", {one.name: one.answer for one in findings})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RANKING)
    for one in findings:
        writer.writerows((one.name, each.item.item_id, f"{each.probability:.9g}") for each in one.choices)
    write_text(output / "ranking.csv", text.getvalue())
    write_products_page(output / "index.html", findings, unreadable, title=title)


@products.command(short_help="check a submission")
@click.argument("answers", type=PATH)
@click.option("--catalogue", type=PATH, help="Whose items and pictures the answers must name; boxes inside them.")
def check(answers: Path, *, catalogue: Path | None) -> None:
    """Check the form of ANSWERS; the first fault is named by its video.

    \b
    isc products check found/answers.json --catalogue shop
    """
    from isc.products.submission import read_answers

    sizes = None if catalogue is None else _picture_sizes(catalogue)
    found = read_answers(answers, image_sizes=sizes)
    if catalogue is not None:
        from isc.products.catalogue import read_catalogue

        known = read_catalogue(catalogue).places
        wrong = next((name for name, one in found.items() if one.item_id and one.item_id not in known), None)
        if wrong is not None:
            raise InputError(f"{answers}: {wrong}: item {found[wrong].item_id!r} is not in {catalogue}")
    items = sum(one.item_id is not None for one in found.values())
    print(f"{answers}: {len(found):,} clips, {items:,} with an item; in order")


def _picture_sizes(catalogue: Path) -> dict[str, tuple[int, int]]:
    from isc.photos.decode import read_image
    from isc.products.catalogue import read_catalogue

    shop = read_catalogue(catalogue)
    pictures = {shop.name_of(path): read_image(path) for _, path in shop.pictures}
    return {name: (one.shape[1], one.shape[0]) for name, one in pictures.items()}


@products.command(short_help="judge a submission by the right items")
@click.argument("answers", type=PATH)
@click.argument("truth", type=PATH)
@click.option("--ranking", type=PATH, metavar="CSV", help="Of isc products find: judges R@1, R@5 and mAP too.")
@click.option(
    "--format", "form", type=click.Choice(("table", "csv", "json")), default="table", show_default=True,
    help="Of stdout.",
)  # fmt: skip
def judge(answers: Path, truth: Path, *, ranking: Path | None, form: str) -> None:
    """Judge ANSWERS by TRUTH, the same layout: F1 of items, of frames and images, of boxes, and their mean.

    \b
    isc products judge found/answers.json truth.json --ranking found/ranking.csv
    """
    from isc.products.judge import COLUMNS
    from isc.products.judge import judge as judged
    from isc.products.submission import read_answers, read_truth

    scores = judged(read_answers(answers), read_truth(truth), ranking=None if ranking is None else _ranking(ranking))
    if form == "table":
        rows = [(*map(str, row[:3]), *(f"{value:.4f}" for value in row[3:])) for row in scores.rows()]
        print_table(COLUMNS, rows, right=frozenset((1, 3, 4, 5)))
    else:
        sys.stdout.write(scores.as_csv() if form == "csv" else scores.as_json())


def _ranking(path: Path) -> Mapping[str, list[tuple[str, float]]]:
    """Read a ranking. Raises InputError, with the line, for a probability that is no number."""
    from isc.words.tables import required, rows

    found: dict[str, list[tuple[str, float]]] = {}
    for line, row in rows(path, RANKING):
        try:
            value = float(required(path, line, row, "probability"))
        except ValueError as error:
            raise InputError(f"{path}: line {line}: probability {row['probability']!r}; expected a number") from error
        found.setdefault(required(path, line, row, "video"), []).append((required(path, line, row, "item_id"), value))
    return found
