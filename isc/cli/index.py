"""The command isc-index. Results go to stdout; warnings, progress and errors to stderr."""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

from isc.cli.console import Parser, run_command
from isc.cli.index_output import added_text, as_csv, as_json, as_table, as_text, distances, model_text
from isc.cli.index_sources import (
    DEFAULT_MODEL,
    SOURCES,
    describe_photos,
    embedder,
    query_descriptors,
    read_ids,
    sorted_sources,
)
from isc.data.descriptors import Descriptors
from isc.data.files import write_text
from isc.data.hdf5 import descriptor_blocks, read_provenance
from isc.errors import InputError
from isc.match.inputs import named, read_set
from isc.runtime.progress import progress
from isc.search.index.index import Index, is_index
from isc.search.index.manifest import Manifest, require_one_row_each
from isc.search.index.writer import BATCH, Added, Writer, already_there

log = logging.getLogger(__name__)
DESCRIPTORS = 1 << 16  # descriptors handed to faiss at once
PHOTOS = 1000  # photos that are read, embedded and written to disk together
EXAMPLES = """\
examples:
  isc-index create known.index                         for photos described by the shipped model
  isc-index add known.index photos                     ids are paths below the folder, without suffix
  isc-index add known.index photos more --replace      descriptors of known ids are put in place of the old ones
  isc-index query known.index suspect.jpg -k 5         the five nearest
  isc-index query known.index inbox --max-distance 0.8 --format csv --output found.csv
  isc-index remove known.index holiday/0001 --from withdrawn.txt
  isc-index stats known.index
  isc-match queries=queries.h5 references=known.index output=matched
  isc-index approximate known.index --factory OPQ32,IVF4096,PQ32 --training training.h5 --output known.faiss
  isc-match queries=queries.h5 references=known.index index=known.faiss output=matched

What is acknowledged is on the disk, even if the process is killed the moment after. One process writes, many read.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command isc-index."""
    run_command(
        _parser(),
        argv,
        action=lambda arguments: arguments.run(arguments),
        interrupted="what was acknowledged is kept, and nothing half",
    )


def create(arguments: argparse.Namespace) -> None:
    if arguments.descriptors:
        if arguments.image_size:
            raise InputError("--image-size goes with --model; descriptors say their own")
        descriptors, provenance = read_set(arguments.descriptors)
        index = Index.create(arguments.index, dim=descriptors.dim, provenance=provenance)
    else:
        from isc.model.load_inference import load_inference_model

        model = arguments.model or DEFAULT_MODEL
        network = load_inference_model(model, device="cpu")
        provenance = {**network.provenance, "image_size": str(arguments.image_size or network.image_size)}
        name = str(Path(model).resolve()) if Path(model).exists() else model
        index = Index.create(arguments.index, dim=network.dim, provenance=provenance, model=name)
    print(f"made {index.path}, empty, for {model_text(index.manifest)}")


def add(arguments: argparse.Namespace) -> None:
    index = Index.open(arguments.index)
    sources = sorted_sources(arguments.sources)
    with index.writer() as writer:
        if sources.photos:
            _add_photos(writer, sources.photos, arguments)
        for path in sources.sets:
            _add_set(writer, path, arguments)
        print(f"{index.path} holds {writer.state.live:,} images")


def _add_set(writer: Writer, path: Path, arguments: argparse.Namespace) -> None:
    """Add a descriptor file or an index, read twice: first to check all of it, then to add it block by block.

    A file may be larger than memory. Raises InputError for duplicate ids, and for known ids unless an option allows
    them.
    """
    provenance = Index.open(path).manifest.provenance if is_index(path) else read_provenance(path)
    ids: set[str] = set()
    for block in _blocks(path):
        writer.manifest.check(path, block.dim, provenance)
        if twice := ids.intersection(block.ids):
            raise InputError(f"{path}: id {min(twice)!r} occurs twice; expected each once")
        ids.update(block.ids)
    if not (arguments.replace or arguments.skip_existing) and (known := writer.present(ids)):
        raise InputError(f"{writer.path}: {already_there(sorted(ids), known)}")
    acknowledge, before, total = _acknowledge(f"descriptors of {path}"), 0, Added(0, 0, 0)
    for block in _blocks(path):
        added = writer.add(
            block,
            provenance=provenance,
            replace=arguments.replace,
            skip_existing=arguments.skip_existing,
            progress=lambda done, _, before=before: acknowledge(before + done, len(ids)),  # type: ignore[misc]
        )
        total = Added(*(one + other for one, other in zip(astuple(total), astuple(added), strict=True)))
        before += len(block)
    print(f"{path}: {added_text(total)}")


def _blocks(path: Path) -> Iterator[Descriptors]:
    if is_index(path):
        yield read_set(path)[0]
        return
    for block in descriptor_blocks(path, rows=BATCH):
        with named(path):
            require_one_row_each(block)
        yield block


def _add_photos(writer: Writer, photos: Mapping[str, Path], arguments: argparse.Namespace) -> None:
    """Add the photos in groups of PHOTOS; unreadable photos are logged and left out.

    Raises InputError for known ids unless an option allows them, or if no photo can be read.
    """
    known = writer.present(photos)
    if known and not (arguments.replace or arguments.skip_existing):
        raise InputError(f"{writer.path}: {already_there(photos, known)}")
    ids = [name for name in photos if not (arguments.skip_existing and name in known)]
    unreadable: list[str] = []
    new = replaced = 0
    if ids:
        embed = embedder(writer.manifest, arguments)
        acknowledge = _acknowledge("photos")
    for start in range(0, len(ids), PHOTOS):
        part = ids[start : start + PHOTOS]
        found, failures = describe_photos({name: photos[name] for name in part}, embed)
        unreadable += failures
        if found is not None:
            added = writer.add(found, provenance=writer.manifest.provenance, replace=arguments.replace)
            new, replaced = new + added.new, replaced + added.replaced
            acknowledge(new + replaced, len(ids))
    if len(unreadable) == len(photos):
        raise InputError(f"none of {len(ids):,} photos can be read; the first: {unreadable[0]}")
    print(f"photos: {added_text(Added(new, replaced, len(photos) - len(ids)))}, {len(unreadable):,} unreadable")


def remove(arguments: argparse.Namespace) -> None:
    ids = [*arguments.ids, *(read_ids(arguments.file) if arguments.file else ())]
    if not ids:
        raise InputError("no ids to remove; expected some, or --from FILE")
    with Index.open(arguments.index).writer() as writer:
        removed = writer.remove(ids, missing_ok=arguments.missing_ok)
        print(f"removed {removed:,} images; {arguments.index} holds {writer.state.live:,}")


def query(arguments: argparse.Namespace) -> None:
    index = Index.open(arguments.index)
    queries = query_descriptors(index, sorted_sources(arguments.sources), arguments)
    with progress("searching", "queries") as report:
        matches = index.knn(queries, k=arguments.k, provenance=index.manifest.provenance, progress=report)
    if arguments.max_distance is not None:
        matches = matches.take(distances(matches) <= arguments.max_distance)
    if arguments.min_score is not None:
        matches = matches.take(matches.score >= arguments.min_score)
    text = {"table": as_table, "csv": as_csv, "json": as_json}[arguments.format](matches)
    if arguments.output:
        write_text(arguments.output, text)
        print(f"{len(matches):,} matches of {len(queries):,} queries: {arguments.output}")
    else:
        print(text, end="")


def stats(arguments: argparse.Namespace) -> None:
    found = Index.open(arguments.index).stats()
    print(json.dumps(asdict(found), indent=2, ensure_ascii=False) if arguments.json else as_text(found))


def verify(arguments: argparse.Namespace) -> None:
    with Index.open(arguments.index).snapshot() as snapshot:
        snapshot.verify()
        print(f"{arguments.index} is whole: {len(snapshot):,} images, {snapshot.state.dead:,} dead rows")


def compact(arguments: argparse.Namespace) -> None:
    with Index.open(arguments.index).writer() as writer, progress("compacting", "images") as report:
        dropped = writer.compact(progress=report)
        print(f"dropped {dropped:,} dead rows; {arguments.index} holds {writer.state.live:,} images")


def approximate(arguments: argparse.Namespace) -> None:
    from isc.search.approximate.files import build_on_disk
    from isc.search.approximate.index import Approximate

    output: Path = arguments.output
    if output.exists():
        raise InputError(f"{output}: is there already; expected a new path")
    references, made = read_set(arguments.index)
    training, otherwise = read_set(arguments.training, role="training")
    Manifest.of(references.dim, made, None).check(arguments.training, training.dim, otherwise)
    vectors = references.sorted().vectors  # in the order in which match.py reads them
    index = Approximate.train(arguments.factory, training.vectors)
    with progress("filling the index", "descriptors") as report:
        if arguments.on_disk:
            parts = (vectors[start : start + DESCRIPTORS] for start in range(0, len(vectors), DESCRIPTORS))
            count = len(build_on_disk(output, index, parts, memory_gb=arguments.memory_gb, progress=report))
        else:
            index.add(vectors, progress=report)
            index.save(output)
            count = len(index)
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"made {output}: {count:,} descriptors, {size / count:.0f} bytes each, by {arguments.factory}")


def _acknowledge(what: str) -> Callable[[int, int], None]:
    return lambda done, total: print(f"{done:,} of {total:,} {what} are on the disk", flush=True)


def _at_least(least: float, kind: Callable[[str], float], expected: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (least <= value < math.inf):
            raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    about = "An index of known images that takes, replaces, removes and finds them at any time."
    parser = Parser(prog="isc-index", description=about, epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        one.add_argument("index", type=Path, metavar="INDEX", help="the index's folder")
        one.set_defaults(run=run)
        return one

    _add_changing(command)
    _add_reading(command)
    return parser


def _add_changing(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that make or change an index."""
    one = command("create", create, "make an empty index for the descriptors of one model")
    either = one.add_mutually_exclusive_group()
    model_help = f"what describes photos: a NAME, a run folder or a model file (default: {DEFAULT_MODEL})"
    either.add_argument("--model", metavar="MODEL", help=model_help)
    help_text = "instead: take the model from what this .h5 file says of itself (its rows are not added)"
    either.add_argument("--descriptors", type=Path, metavar="FILE.h5", help=help_text)
    side = _at_least(32, int, "a whole number ≥ 32")
    one.add_argument("--image-size", type=side, metavar="PIXELS", help="side of the pictures (default: the model's)")

    one = command("add", add, "add images; ids that are known already are refused unless an option says what to do")
    one.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help=SOURCES)
    known = one.add_mutually_exclusive_group()
    known.add_argument(
        "--replace", action="store_true", help="put the new descriptors of known ids in place of the old"
    )
    known.add_argument("--skip-existing", action="store_true", help="leave known ids as they are, and go on")
    _add_model_options(one)

    one = command("remove", remove, "remove images by id, all of them or none")
    one.add_argument("ids", nargs="*", metavar="ID")
    one.add_argument("--from", dest="file", type=Path, metavar="FILE", help="a text file of ids, one a line")
    one.add_argument("--missing-ok", action="store_true", help="pass over ids that are not in the index")

    command("compact", compact, "give back the space of removed and replaced images")


def _add_reading(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands that read an index."""
    count = _at_least(1, int, "a whole number ≥ 1")
    one = command("query", query, "find the nearest images")
    one.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help=SOURCES)
    one.add_argument("-k", type=count, default=10, help="nearest images of each query (default: 10)")
    limit = one.add_mutually_exclusive_group()
    distance = _at_least(0, float, "a number ≥ 0")
    limit.add_argument("--max-distance", type=distance, metavar="D", help="leave out what is farther, in ‖q − r‖")
    score = _at_least(-math.inf, float, "a number ≤ 0")
    limit.add_argument(
        "--min-score", type=score, metavar="S", help="leave out what scores less; the score is −‖q − r‖²"
    )
    one.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="csv: predictions for isc-match"
    )
    one.add_argument("--output", type=Path, metavar="FILE", help="write there, whole or not at all (default: stdout)")
    _add_model_options(one)

    one = command("stats", stats, "say what an index holds")
    one.add_argument("--json", action="store_true")
    command("verify", verify, "read everything once and say whether it is whole")
    one = command("approximate", approximate, "make an approximate index of the same images, for match.py index=")
    one.add_argument("--factory", required=True, metavar="TEXT", help="faiss's, as OPQ32,IVF4096,PQ32 or HNSW32")
    one.add_argument("--training", type=Path, required=True, metavar="T.h5", help="descriptors of training photos")
    one.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the index is written")
    one.add_argument("--on-disk", action="store_true", help="keep the lists of an IVF index on the disk as they fill")
    room = _at_least(0.001, float, "a number ≥ 0.001")
    one.add_argument("--memory-gb", type=room, default=2.0, metavar="GB", help="with --on-disk: what waits in memory")


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the embedding of photos."""
    help_text = "where the model is now, if it has moved; another one is refused (default: the index's own)"
    parser.add_argument("--model", metavar="MODEL", help=help_text)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    workers = _at_least(-1, int, "a whole number ≥ −1")
    parser.add_argument("--workers", type=workers, default=-1, help="processes that read photos (default: one a core)")


if __name__ == "__main__":
    main()
