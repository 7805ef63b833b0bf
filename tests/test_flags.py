"""Flags of pairs: plain, document-like and dark pictures, in each file that holds a probability."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import isc
from isc.cli.match_output import TABLE, as_csv, table_rows
from isc.cli.tables import plain_table, print_table
from isc.data.csv_files import read_predictions
from isc.data.matches import Matches
from isc.find.results import Match, Verdict
from isc.find.results import Matches as Found
from isc.match.flags import flags_of, pair_flags, write_evidence_flags
from isc.match.verification.alignment import compare
from isc.match.verification.features import local_features
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import read_image
from tests.conftest import SAMPLE, Workplace

WORDS = "It is a page of text, with many words in lines, as a letter or a book has them. "


def page(seed: int) -> Image.Image:
    """A page of 620 × 877 pixels, with lines of words in another order for each seed."""
    picture = Image.new("RGB", (620, 877), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    words = WORDS.split()
    for line in range(36):
        chosen = np.random.default_rng((seed, line)).choice(words, 11)
        pen.text((50, 50 + 21 * line), " ".join(chosen), fill="black", font=font)
    return picture


def dark(name: str, share: float = 0.1) -> Image.Image:
    return Image.fromarray((read_image(SAMPLE / name) * share).astype(np.uint8))


PICTURES = {
    "photo": lambda: Image.open(SAMPLE / "S001.jpg"),
    "other": lambda: Image.open(SAMPLE / "S002.jpg"),
    "page": lambda: page(1),
    "second page": lambda: page(2),
    "dark": lambda: dark("S003.jpg"),
    "dusk": lambda: dark("S007.jpg", 0.24),
    "sheet": lambda: Image.new("RGB", (300, 200), "red"),
}


@pytest.mark.parametrize(
    ("one", "two", "flags"),
    [
        ("photo", "other", ()),
        ("page", "photo", ("document-like",)),
        ("page", "second page", ("document-like",)),
        ("dark", "photo", ("document-like", "dark")),  # what is left of it is in one band of grey levels
        ("photo", "dusk", ("dark",)),
        ("sheet", "photo", ("plain",)),
        ("dark", "page", ("document-like", "dark")),
    ],
)
def test_pages_dark_photos_and_sheets_are_flagged(one, two, flags):
    pictures = [PICTURES[name]().convert("RGB") for name in (one, two)]
    evidence, _ = compare(*(local_features(np.asarray(picture)) for picture in pictures))
    assert flags_of(evidence) == flags
    assert isc.compare(*pictures).flags == flags


def evidence_of(**values: float) -> list[float]:
    usual = {"features_query": 300.0, "features_reference": 300.0, "flat": 0.2, "light": 0.8}
    return [(usual | values).get(name, 0.0) for name in EVIDENCE]


def test_the_other_candidates_tell_which_picture_is_dark_or_a_page():
    pairs = {
        ("q", "r"): evidence_of(),
        ("q", "page"): evidence_of(flat=0.9),
        ("q", "night"): evidence_of(light=0.1),
        ("q", "lost"): [np.nan] * len(EVIDENCE),
        ("letter", "r"): evidence_of(flat=0.9),
        ("letter", "page"): evidence_of(flat=0.9),
        ("blank", "r"): evidence_of(features_query=3, flat=1.0),
        ("blank", "night"): evidence_of(features_query=3, flat=1.0, light=0.1),
        ("empty", "white"): evidence_of(features_query=3, features_reference=0),
        ("cave", "only"): evidence_of(light=0.1),
    }
    queries, references = zip(*pairs, strict=True)
    candidates = Matches.from_ids(queries, references, np.zeros(len(pairs)))
    found = pair_flags(candidates, candidates, np.array(list(pairs.values()), np.float32))
    assert dict(zip(pairs, found, strict=True)) == {
        ("q", "r"): "",
        ("q", "page"): "document-like:reference",
        ("q", "night"): "dark:reference",
        ("q", "lost"): "pixels not compared",
        ("letter", "r"): "document-like:query",
        ("letter", "page"): "document-like",
        ("blank", "r"): "plain:query",
        ("blank", "night"): "plain:query;dark:reference",
        ("empty", "white"): "plain",
        ("cave", "only"): "dark",
    }
    order = np.arange(len(pairs))[::-1]
    assert pair_flags(candidates.take(order), candidates, np.array(list(pairs.values()), np.float32)).tolist() == (
        found[order].tolist()
    )
    assert set(pair_flags(candidates)) == {"pixels not compared"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of both tracks: a page, a dark photo, a sheet and a photo against pages and photos; a calibration holds."""
    place = Workplace(tmp_path_factory.mktemp("flags"))
    for side, names in (("q", ("page", "dark", "sheet", "photo")), ("r", ("second page", "other", "photo"))):
        (place / side).mkdir()
        for name in names:
            PICTURES[name]().convert("RGB").save(place / side / f"{name}.png")
        place.done("extract", f"images={side}", f"output={side}.h5", "workers=0")
    sets = ("queries=q.h5", "references=r.h5", "query_images=q", "reference_images=r")
    place.done("match", *sets, "output=pixels", "track=matching", "features=none", "query_views=whole", "workers=1")
    place.done("match", *sets[:2], "output=distances")
    return place


def rows_of(place: Workplace, run: str) -> dict[tuple[str, str], str]:
    """The flags of each pair of probabilities.csv, whose rows are those of predictions.csv."""
    rows = list(csv.DictReader(io.StringIO((place / run / "probabilities.csv").read_text())))
    predictions = read_predictions(place / run / "predictions.csv")
    order = predictions.order()
    assert [row["query_id"] for row in rows] == predictions.query_ids[predictions.query[order]].tolist()
    assert [row["reference_id"] for row in rows] == predictions.reference_ids[predictions.reference[order]].tolist()
    return {(row["query_id"], row["reference_id"]): row["flags"] for row in rows}


def test_the_matching_track_writes_flags_beside_probabilities(runs):
    flags = rows_of(runs, "pixels")
    assert flags["photo", "photo"] == flags["photo", "other"] == ""
    assert flags["photo", "second page"] == "document-like:reference"
    assert flags["page", "photo"] == "document-like:query"
    assert flags["page", "second page"] == "document-like"
    assert flags["dark", "other"] == "document-like:query;dark:query"
    assert flags["sheet", "photo"] == "plain:query"
    report = (runs / "pixels/report/index.html").read_text()
    assert "The probability may not hold: document-like reference." in report
    for line in (runs / "pixels/evidence.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["flags"] == [one for one in flags[record["query_id"], record["reference_id"]].split(";") if one]


def test_without_pixels_there_are_no_flags_and_it_is_said(runs):
    assert set(rows_of(runs, "distances").values()) == {"pixels not compared"}
    page_of_run = (runs / "distances/report/index.html").read_text()
    assert "No pixels were compared, so no pair is flagged" in page_of_run
    assert "No pixels were compared" not in (runs / "pixels/report/index.html").read_text()
    assert (runs / "pixels/predictions.csv").read_text().startswith("query_id,reference_id,score\n")


def test_evidence_of_a_flagged_pair_has_its_flags(tmp_path):
    path = tmp_path / "evidence.jsonl"
    path.write_text(
        '{"query_id": "ß\\u2028", "reference_id": "r", "score": 1.0}\n{"query_id": "a", "reference_id": "b"}\n'
    )
    write_evidence_flags(path, {("ß\u2028", "r"): "plain:query;dark"})
    assert [json.loads(line) for line in path.read_text().split("\n")[:-1]] == [
        {"query_id": "ß\u2028", "reference_id": "r", "score": 1.0, "flags": ["plain:query", "dark"]},
        {"query_id": "a", "reference_id": "b", "flags": []},
    ]


FOUND = Found((
    Match("a\x1b[31m.jpg", "b\n.jpg", Verdict.perhaps, 0.6, 0.9, 3, flags=("document-like", "dark")),
    Match("c.jpg", "d.jpg", Verdict.copy, 0.99, 0.2, 90),
))  # fmt: skip


def test_find_shows_flags_in_its_table_and_csv():
    first, second = csv.DictReader(io.StringIO(as_csv(FOUND)))
    assert (first["flags"], second["flags"]) == ("document-like;dark", "")
    table = plain_table(TABLE, table_rows(FOUND)).splitlines()
    assert table[0].split()[-1] == "flags"
    assert table[1].endswith("document-like, dark")
    assert table[2].split()[-1] == "90"


def test_control_characters_of_names_stay_out_of_tables_and_in_the_csv(capsys, monkeypatch):
    assert "a\x1b[31m.jpg" in as_csv(FOUND)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal, raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        print_table(TABLE, table_rows(FOUND))
        shown = capsys.readouterr().out
        assert "\x1b[31m.jpg" not in shown
        assert r"a\x1b[31m.jpg" in shown
        assert r"b\n.jpg" in shown
