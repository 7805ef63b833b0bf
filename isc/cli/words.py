"""The commands isc caption and isc words: captions for photos; captions matched with pictures, checked and judged."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isc.cli.console import Group
from isc.cli.tables import print_table, shown_unreadable
from isc.errors import InputError, needing

if TYPE_CHECKING:
    from isc.words.captioner import Caption

FORMATS = ("text", "csv", "json")
COLUMNS = ("photo", "rank", "language", "probability", "caption", "alt_text", "flags")
UNFAMILIAR = "unfamiliar"
PATH = click.Path(path_type=Path)
Row = tuple[str, "Sequence[Caption]"]


@click.command(short_help="write captions and alternative texts for photos")
@click.argument("photos", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", type=PATH, metavar="FOLDER", help="Written by isc train task=captioning; none comes along.")
@click.option("--language", default="en", show_default=True, metavar="en|zh|ar|de|fr|cs", help="Of the captions.")
@click.option("--count", type=click.IntRange(1, 10), default=3, show_default=True, help="Captions of a photo.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Of stdout.")
def caption(photos: tuple[Path, ...], *, model: Path | None, language: str, count: int, form: str) -> None:
    """Write captions for PHOTOS, files or folders.

    The probability is that of being as good as most people's captions; one below 0.5 begins with "May show". So does
    that of a photo with the flag "unfamiliar": it is unlike those that the model learned from, and its probability may
    not hold. The first caption, in at most 125 characters, is the alternative text.

    \b
    isc caption photo.jpg --model captioner
    isc caption photos --model captioner --language de --format csv > captions.csv
    """
    with needing("caption", extra="words"):
        from isc.words.captioner import Captioner
    from isc.find.photos import photo_files

    captioner = Captioner(model)
    captioner.check(language)
    rows: list[Row] = []
    unreadable: list[tuple[str, str]] = []
    for path in photo_files(photos).files.values():
        try:
            rows.append((str(path), captioner.caption(path, language=language, count=count)[0]))
        except InputError as error:
            unreadable.append((str(path), str(error)))
    shown_unreadable(unreadable)
    if not rows:
        raise InputError(f"none of {len(unreadable)} photos can be read ({unreadable[0][1]})")
    sys.stdout.write({"text": _as_text, "csv": _as_csv, "json": _as_json}[form](rows))


def _as_text(rows: Sequence[Row]) -> str:
    lines = []
    for path, captions in rows:
        lines += [f"{path}\n", *(f"  {one.probability:4.0%}  {one.shown}\n" for one in captions)]
        lines.append(f"  alt   {captions[0].alt_text}\n")
        if not captions[0].familiar:
            lines.append(
                f"  flag  {UNFAMILIAR}: unlike the photos that were learned from; probabilities may not hold\n"
            )
    return "".join(lines)


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for path, captions in rows:
        for rank, one in enumerate(captions, start=1):
            flags = "" if one.familiar else UNFAMILIAR
            writer.writerow((path, rank, one.language, f"{one.probability:.4f}", one.text, one.alt_text, flags))
    return text.getvalue()


def _as_json(rows: Sequence[Row]) -> str:
    found = [
        {
            "photo": path,
            "alt_text": captions[0].alt_text,
            "captions": [
                {"caption": one.text, "shown": one.shown, "probability": round(one.probability, 4), "sure": one.sure}
                for one in captions
            ],
            "language": captions[0].language,
            "flags": [] if captions[0].familiar else [UNFAMILIAR],
        }
        for path, captions in rows
    ]
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


@click.group(cls=Group, short_help="match captions with pictures, check and judge submissions")
def words() -> None:
    """Match captions with pictures as the Wikipedia Image/Caption Matching competition asks."""


@words.command(short_help="find the texts of pictures")
@click.argument("images", type=PATH)
@click.argument("captions", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The submission to write.")
@click.option("--model", type=PATH, metavar="FOLDER", help="Of isc train task=captions; without it names alone.")
@click.option("--photos", type=PATH, metavar="FOLDER", help="The pictures, named by id or as in image_url.")
@click.option("--names/--no-names", default=True, show_default=True, help="Use the file names in image_url.")
@click.option("--sentences", is_flag=True, help="Compare what names and texts mean, in any language; 50 ms a text.")
def match(
    images: Path, captions: Path, *, output: Path, model: Path | None, photos: Path | None, names: bool, sentences: bool
) -> None:
    """Find for each of IMAGES (id, image_url) the five texts of CAPTIONS that fit it best, by pixels and file name.

    \b
    isc words match test.tsv test_caption_list.csv --model towers --photos pictures -o submission.csv
    isc words match test.tsv test_caption_list.csv -o by-names.csv
    isc words match test.tsv test_caption_list.csv --sentences -o by-meaning.csv
    """
    from isc.words.caption_files import read_caption_list, read_images
    from isc.words.match import rank, submission_of
    from isc.words.submission import write_submission

    given, texts = read_images(images), read_caption_list(captions)
    if (model is None) != (photos is None):
        raise InputError("--model and --photos go together; expected both, or neither for names alone")
    if sentences and not names:
        raise InputError("--sentences compares file names with texts; expected it without --no-names")
    vectors: tuple[Any, Any] = (None, None)
    meanings: tuple[Any, Any] = (None, None)
    if model is not None and photos is not None:
        with needing("words match", extra="words"):
            from isc.words.embed_pictures import embed_both

        vectors = embed_both(model, photos, given, texts)
    if sentences:
        from isc.words.names import name_words
        from isc.words.sentences import sentence_vectors

        asked = [name_words(url) for url in given.values()]
        meanings = (sentence_vectors(asked, asking=True), sentence_vectors(texts, asking=False))
    with needing("words match", extra="words"):
        ranked = rank(
            [url if names else None for url in given.values()], texts, pictures=vectors[0], text_vectors=vectors[1],
            name_meanings=meanings[0], text_meanings=meanings[1],
        )  # fmt: skip
    write_submission(output, submission_of(ranked, list(given), texts))
    print(f"{output}: {len(given):,} ids, {len(texts):,} texts")


@words.command(short_help="write a captioner's network as ONNX files")
@click.argument("model", type=PATH)
@click.argument("output", type=PATH)
def export(model: Path, output: Path) -> None:
    """Write encoder.onnx and step.onnx of the captioner MODEL into OUTPUT, checked against the original.

    \b
    isc words export captioner onnx
    """
    with needing("words export", extra="words"):
        from isc.words.captioner_files import load_captioner
        from isc.words.export import export_captioner

    for name, apart in export_captioner(load_captioner(model), output).items():
        print(f"{output / name}: differs from the original by at most {apart:.2g}")


@words.command(short_help="check a submission")
@click.argument("submission", type=PATH)
@click.option("--images", type=PATH, metavar="TSV", help="The competition's id and image_url: all ids must be there.")
@click.option("--captions", "texts", type=PATH, metavar="CSV", help="The list of texts, of which all must be.")
def check(submission: Path, *, images: Path | None, texts: Path | None) -> None:
    """Check that SUBMISSION has at most five texts an id, each once and known; the first fault is named by line and id.

    \b
    isc words check submission.csv --images test.tsv --captions test_caption_list.csv
    """
    from isc.words.caption_files import read_caption_list, read_images
    from isc.words.submission import read_submission

    ids = None if images is None else read_images(images)
    found = read_submission(submission, ids=ids, texts=None if texts is None else read_caption_list(texts))
    print(f"{submission}: {len(found):,} ids, {sum(map(len, found.values())):,} rows; in order")


@words.command(short_help="judge a submission by the right texts")
@click.argument("submission", type=PATH)
@click.argument("truth", type=PATH)
@click.option(
    "--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True, help="Of stdout."
)
def judge(submission: Path, truth: Path, *, form: str) -> None:
    """Judge SUBMISSION by TRUTH, the same columns with the right text of each id: NDCG@5, recall, reciprocal rank.

    \b
    isc words judge submission.csv truth.csv
    """
    from isc.words.ranking import ranking_figures, ranks_in_lists
    from isc.words.submission import read_submission

    right = {name: texts[0] for name, texts in read_submission(truth).items()}
    found = read_submission(submission)
    unknown = next((name for name in found if name not in right), None)
    if unknown is not None:
        raise InputError(f"{submission}: id {unknown!r} is not in {truth}; expected its right text there")
    rank = ranks_in_lists([found.get(name, []) for name in right], list(right.values()))
    figures = ranking_figures(rank).as_dict()
    if form == "json":
        print(json.dumps(figures, indent=1))
        return
    rows = [
        (name, *(f"{value:.4f}" for value in values)) for name, values in figures.items() if isinstance(values, list)
    ]
    print_table(("metric", "value", "low", "high"), rows, right=frozenset((1, 2, 3)))
    print(f"{len(right):,} ids; intervals of 95 % by 1,000 resamples")
