"""Decided pairs as the files that `isc train`, `isc calibrate` and `isc fusion` read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from isc.data.csv_files import write_csv, write_ground_truth
from isc.data.descriptors import Descriptors
from isc.data.files import atomic_folder, write_json
from isc.data.hdf5 import write_descriptors
from isc.errors import InputError
from isc.evaluate.calibration.score_origin import FILE, FORMAT
from isc.evaluate.calibration.versions import COLUMNS as VERSION_COLUMNS
from isc.evaluate.calibration.versions import FILE as VERSIONS
from isc.find.verdicts import judge_of
from isc.serve.captions import written_captions
from isc.serve.database import Database, rows_among
from isc.serve.feedback import LabelledPair, decided_lines, labelled_pairs, shown_items
from isc.serve.files import PictureFiles
from isc.serve.schema import descriptor, image
from isc.serve.settings import Settings

OWNED = (
    "pairs.csv",
    "captions.csv",
    "products.csv",
    "ground_truth.csv",
    "predictions.csv",
    "versions.csv",
    "decisions.jsonl",
    "queries.h5",
    "references.h5",
    FILE,
)
COLUMNS = ("query_id", "reference_id", "score")
CAPTIONS = ("image_id", "caption", "language", "writer")
PRODUCTS = ("photo_id", "item_id", "split")


def write_labelled(database: Database, settings: Settings, output: Path) -> str:
    """Write the files of `isc feedback export`, all or none; return what was written, in words.

    Ids are the SHA-256 of the pictures. Raises InputError if nothing was decided yet.
    """
    pairs = labelled_pairs(database)
    items = shown_items(database)
    lines = list(decided_lines(database))
    with database.reading() as connection:
        written = written_captions(connection)
    if not lines and not written:
        raise InputError(
            f"{settings.data}: nothing was decided yet; expected at least one vote or caption in isc serve"
        )
    copies = [(pair.query, pair.reference) for pair in pairs if pair.copy]
    others = sorted({pair.query for pair in pairs} - {query for query, _ in copies})
    with atomic_folder(output, owned=OWNED) as folder:
        (folder / "decisions.jsonl").write_text("".join(lines), encoding="utf-8")
        if written:
            rows_of_captions = ((one.sha256, one.text, one.language or "", one.writer) for one in written)
            write_csv(folder / "captions.csv", CAPTIONS, rows_of_captions)
        if pairs:
            write_csv(folder / "pairs.csv", COLUMNS[:2], iter(copies))
            write_ground_truth(folder / "ground_truth.csv", [*copies, *((query, "") for query in others)])
            rows = sorted(((p.query, p.reference, p.fused) for p in pairs), key=lambda row: -row[2])
            write_csv(folder / "predictions.csv", COLUMNS, ((q, r, repr(score)) for q, r, score in rows))
            if versions := [(p.query, p.reference, p.version_of) for p in pairs if p.version_of is not None]:
                write_csv(folder / VERSIONS, VERSION_COLUMNS, iter(versions))
            _write_origin(folder, database, settings, pairs)
            _write_vectors(folder, database, pairs)
        if items:
            write_csv(folder / "products.csv", PRODUCTS, ((one.sha256, one.item_id, "train") for one in items))
        if pairs or items:
            photos = {p.query: p.query_path for p in pairs} | {p.reference: p.reference_path for p in pairs}
            _link_photos(folder / "photos", settings, photos | {one.sha256: one.path for one in items})
    others_count = len(pairs) - len(copies)
    said = f"{output}: {len(lines):,} decisions, of them {len(copies):,} copies and {others_count:,} other pairs"
    said += f"; {len(items):,} photos of items of a shop" if items else ""
    return f"{said}; {len(written):,} captions that people wrote" if written else said


def _write_origin(folder: Path, database: Database, settings: Settings, pairs: Sequence[LabelledPair]) -> None:
    """Write what the scores are: the fusion's probabilities before any calibration, by the model of the service.

    The pairs were found among all pictures of the collection, so that all of them are the references.
    """
    judge = judge_of(settings.model)
    if judge.by_pixels is None:
        return
    queries = len({pair.query for pair in pairs})
    with database.reading() as connection:
        references = connection.execute(sa.select(sa.func.count()).select_from(image)).scalar_one()
    made = replace(judge.by_pixels.made, queries=queries, references=references)
    write_json(folder / FILE, {"format": FORMAT, **made.as_dict()})


def _write_vectors(folder: Path, database: Database, pairs: Sequence[LabelledPair]) -> None:
    """Write the descriptors of both sides, for `isc fusion fit`."""
    for name, wanted in (("queries", {p.query for p in pairs}), ("references", {p.reference for p in pairs})):
        with database.reading() as connection:
            vectors = sa.select(image.c.sha256, descriptor.c.vector, descriptor.c.model)
            joined = vectors.join(descriptor, descriptor.c.image_id == image.c.id).order_by(image.c.sha256)
            rows = rows_among(connection, joined, image.c.sha256, sorted(wanted))
        if not rows:
            return
        model = rows[-1].model
        kept = [row for row in rows if row.model == model]
        ids = np.array([row.sha256 for row in kept], dtype=object)
        numbers = np.frombuffer(b"".join(row.vector for row in kept), "<f4").reshape(len(kept), -1)
        write_descriptors(folder / f"{name}.h5", Descriptors(ids, numbers), {"weights_sha256": model})


def _link_photos(folder: Path, settings: Settings, photos: Mapping[str, str | None]) -> None:
    """Link the pictures {id: path} under their ids; the content decides their format, so the suffix says nothing."""
    folder.mkdir()
    files = PictureFiles(settings.data / "pictures")
    for digest, path in photos.items():
        (folder / f"{digest}.jpg").symlink_to(path or files.path(digest))
