"""A benchmark out of the sample photos: whole, repeatable, and honest about what is in it."""

import csv
import itertools
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import isc
from isc.benchmark import presets
from isc.benchmark import render as pictures
from isc.benchmark.edit_log import read_edits
from isc.benchmark.edits.chain import Edit
from isc.benchmark.edits.pixels import DEGRADATION, RECOMPRESSION
from isc.benchmark.make import make_benchmark
from isc.benchmark.plan import planned
from isc.benchmark.presets import Recipe
from isc.benchmark.sizes import Sizes, Wanted, sizes_for
from isc.benchmark.work_folder import finish, part_of, workshop
from isc.data.csv_files import read_ground_truth
from isc.errors import InputError
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.photos.resizing import fit_within

SAMPLE = Path(isc.__file__).parent / "sample"
SIZES = Sizes(references=12, copied=8, distractors=6, training=7, positive_queries=20, distractor_queries=26)
SIDE = 160
NOT_A_MOVE = set(DEGRADATION) | {"text", "photo_on_top", "emoji", "stripes"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark") / "made"
    make_benchmark(SAMPLE, output, sizes=SIZES, seed=3, max_side=SIDE, workers=1)
    return output


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(folder):
    return [json.loads(line) for line in (folder / "edits.jsonl").read_text(encoding="utf-8").splitlines()]


def photo_files(folder):
    with (folder / "photos.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row["file"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_same_bytes_again_whatever_the_workers(made, tmp_path, workers):
    make_benchmark(SAMPLE, tmp_path / "again", sizes=SIZES, seed=3, max_side=SIDE, workers=workers)
    assert contents(tmp_path / "again") == contents(made)


def test_another_seed_gives_another_benchmark(made, tmp_path):
    make_benchmark(SAMPLE, tmp_path / "other", sizes=SIZES, seed=4, max_side=SIDE)
    assert photo_files(tmp_path / "other") != photo_files(made)
    assert [line["edits"] for line in lines_of(tmp_path / "other")] != [line["edits"] for line in lines_of(made)]


def test_layout(made):
    assert sorted(list_images(made / "references")) == [f"R{i:06d}" for i in range(12)]
    assert sorted(list_images(made / "training")) == [f"T{i:06d}" for i in range(7)]
    assert sorted(list_images(made / "queries")) == [f"Q{i:05d}" for i in range(46)]
    assert not [path for path in made.parent.iterdir() if path != made]
    for path in list_images(made / "queries").values():
        height, width = read_image(path).shape[:2]
        assert 64 <= min(height, width) <= max(height, width) <= 640


def test_references_and_training_are_the_photos_named(made):
    for name, file in photo_files(made).items():
        folder = made / ("references" if name.startswith("R") else "training")
        written, source = read_image(folder / f"{name}.jpg"), fit_within(read_image(SAMPLE / file), SIDE)
        assert written.shape == source.shape
        assert np.abs(written.astype(int) - source).mean() < 6


def test_splits_are_disjoint(made):
    files = photo_files(made)
    distractors = {line["source"] for line in lines_of(made) if not line["reference_id"]}
    assert len(files) == len(set(files.values())) == 19
    assert len(distractors) == 6
    assert not distractors & set(files.values())


def test_ground_truth_agrees_with_the_edits(made):
    truth, lines, files = read_ground_truth(made / "ground_truth.csv"), lines_of(made), photo_files(made)
    assert [line["query_id"] for line in lines] == [f"Q{i:05d}" for i in range(46)]
    assert truth.queries == {line["query_id"] for line in lines}
    assert truth.pairs == {(line["query_id"], line["reference_id"]) for line in lines if line["reference_id"]}
    positives = [line for line in lines if line["reference_id"]]
    assert len(positives) == 20
    assert all(files[line["reference_id"]] == line["source"] for line in positives)
    assert [line["seed"] for line in lines] == [[3, i] for i in range(46)]


def test_queries_are_spread_evenly_and_mixed(made):
    lines = lines_of(made)
    for number, uses in ((8, [line["reference_id"] for line in lines if line["reference_id"]]),
                         (6, [line["source"] for line in lines if not line["reference_id"]])):  # fmt: skip
        counts = [uses.count(name) for name in set(uses)]
        assert len(counts) == number
        assert max(counts) - min(counts) <= 1
    kinds = [bool(line["reference_id"]) for line in lines]
    assert sum(one != two for one, two in itertools.pairwise(kinds)) > 8


def test_the_region_is_where_the_photo_is(made):
    """Pulled back by its region, a query that was moved alone looks like its source."""
    checked = 0
    for line in lines_of(made):
        names = {edit["name"] for edit in line["edits"]}
        if not names & NOT_A_MOVE and not {"crop", "rotate"} & names:  # what these cut off may be filled by the next
            query = read_image(made / "queries" / f"{line['query_id']}.jpg")
            source = fit_within(read_image(SAMPLE / line["source"]), SIDE)
            height, width = source.shape[:2]
            there = (np.array(line["region"]) * query.shape[1::-1]).astype(np.float32)
            here = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
            matrix = cv2.getPerspectiveTransform(there, here)
            back = cv2.warpPerspective(query, matrix, (width, height))
            inside = cv2.warpPerspective(np.ones(query.shape[:2], np.uint8), matrix, (width, height))
            inside = cv2.erode(inside, np.ones((7, 7), np.uint8)) > 0
            pair = [cv2.GaussianBlur(picture, (0, 0), 2).astype(float)[inside].ravel() for picture in (source, back)]
            assert np.corrcoef(*pair)[0, 1] > 0.8, line
            checked += 1
    assert checked >= 4


def test_overlays_never_show_a_reference_or_the_source(made, tmp_path, monkeypatch):
    shown = {}

    def spy(pixels, rng, other, *, count):
        others = [other() for _ in range(25)]
        assert not any(picture is pixels for picture in others)
        shown.update({picture.tobytes(): picture for picture in others})
        return pixels.copy(), (Edit("invert", {}),), np.eye(3)

    monkeypatch.setattr(presets, "edit_chain", spy)
    make_benchmark(SAMPLE, tmp_path / "spied", sizes=SIZES, seed=3, max_side=SIDE, workers=1)
    allowed = {file for name, file in photo_files(made).items() if name.startswith("T")}
    allowed |= {line["source"] for line in lines_of(made) if not line["reference_id"]}
    assert shown.keys() == {fit_within(read_image(SAMPLE / file), SIDE).tobytes() for file in allowed}


def test_a_recompressed_query_keeps_its_artefacts(tmp_path, monkeypatch):
    asked = []
    encode = pictures.encode_jpeg

    def spy(pixels, *, quality):
        asked.append(quality)
        return encode(pixels, quality=quality)

    monkeypatch.setattr(pictures, "encode_jpeg", spy)
    make_benchmark(SAMPLE, tmp_path / "spied", sizes=SIZES, seed=3, max_side=SIDE, workers=1)
    wanted = [95 if line["edits"][-1]["name"] in RECOMPRESSION else 92 for line in lines_of(tmp_path / "spied")]
    assert asked == [92] * 19 + wanted
    assert 95 in wanted


def test_made_once_is_left_alone(made, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    monkeypatch.setattr(presets, "edit_chain", None)  # whoever draws again fails
    make_benchmark(SAMPLE, made, sizes=SIZES, seed=3, max_side=SIDE)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 4}, "seed 3 there, 4 asked for"),
        ({"max_side": 200}, "max_side 160 there, 200 asked for"),
        ({"sizes": replace(SIZES, training=9)}, "sizes.training 7 there, 9 asked for"),
    ],
)
def test_made_differently_is_refused_by_name(made, changed, named):
    before = contents(made)
    with pytest.raises(InputError, match=named):
        make_benchmark(SAMPLE, made, **({"sizes": SIZES, "seed": 3, "max_side": SIDE} | changed))
    assert contents(made) == before


def test_made_of_other_photos_is_refused(made, tmp_path):
    for path in list(list_images(SAMPLE).values())[:40]:
        shutil.copy(path, tmp_path)
    with pytest.raises(InputError, match="the photos have changed"):
        make_benchmark(tmp_path, made, sizes=SIZES, seed=3, max_side=SIDE)


def test_a_folder_of_something_else_is_refused_and_an_empty_one_used(tmp_path):
    (tmp_path / "mine").mkdir()
    few = Sizes(references=1, copied=1, distractors=1, training=2, positive_queries=1, distractor_queries=1)
    make_benchmark(SAMPLE, tmp_path / "mine", sizes=few, seed=0, max_side=SIDE)
    for record in ("[1, 2]", None):
        if record:
            (tmp_path / "mine" / "benchmark.json").write_text(record, encoding="utf-8")
        else:
            (tmp_path / "mine" / "benchmark.json").unlink()
        with pytest.raises(InputError, match="exists but is no benchmark"):
            make_benchmark(SAMPLE, tmp_path / "mine", sizes=few, seed=0, max_side=SIDE)


def test_too_few_photos(tmp_path):
    with pytest.raises(
        InputError, match=r"holds 118 photos that can be used; expected at least 213 = 200 references \+ 6 .* \+ 7"
    ):
        make_benchmark(SAMPLE, tmp_path / "never", sizes=replace(SIZES, references=200), seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_no_benchmark_and_is_gone_on_with(made, tmp_path, monkeypatch, failure):
    calls, draw = [], presets.edit_chain

    def fail_at_the_tenth(*arguments, **options):
        calls.append(1)
        if len(calls) == 10:
            raise failure
        return draw(*arguments, **options)

    monkeypatch.setattr(presets, "edit_chain", fail_at_the_tenth)
    with pytest.raises(failure):
        make_benchmark(SAMPLE, tmp_path / "later", sizes=SIZES, seed=3, max_side=SIDE, workers=1)
    part = part_of(tmp_path / "later")
    assert list(tmp_path.iterdir()) == [part]
    finished = {path.name: path.stat().st_ino for path in part.rglob("benchmark/*/*.jpg")}
    assert len(finished) == 19 + 9

    with (part / "journal.jsonl").open("a") as journal:
        journal.write('{"query_id": "Q000')  # as a kill may leave it
    make_benchmark(SAMPLE, tmp_path / "later", sizes=SIZES, seed=3, max_side=SIDE, workers=1)
    assert len(calls) == 10 + 46 - 9  # the nine are not drawn again
    assert finished.items() <= {path.name: path.stat().st_ino for path in tmp_path.rglob("*.jpg")}.items()
    assert contents(tmp_path / "later") == contents(made)
    assert list(tmp_path.iterdir()) == [tmp_path / "later"]


def test_a_query_whose_picture_is_gone_is_made_again(made, tmp_path):
    work = tmp_path / "work"
    run = pictures.Run(SAMPLE, work, 3, SIDE, Recipe())
    plan = planned(list(list_images(SAMPLE).values()), SIZES, seed=3)
    for _ in range(2):
        lines = pictures.make_pictures(run, plan, journal=tmp_path / "journal.jsonl", workers=1)
        assert "".join(f"{line}\n" for line in lines) == (made / "edits.jsonl").read_text(encoding="utf-8")
        (work / "queries" / "Q00007.jpg").unlink()
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 46


def test_what_another_configuration_left_is_not_used(made, tmp_path, monkeypatch, caplog):
    draw = presets.edit_chain
    monkeypatch.setattr(presets, "edit_chain", None)
    with pytest.raises(TypeError):
        make_benchmark(SAMPLE, tmp_path / "made", sizes=SIZES, seed=4, max_side=SIDE, workers=1)
    monkeypatch.setattr(presets, "edit_chain", draw)
    make_benchmark(SAMPLE, tmp_path / "made", sizes=SIZES, seed=3, max_side=SIDE, workers=1)
    assert "seed 4 there, 3 asked for" in caplog.text
    assert contents(tmp_path / "made") == contents(made)


def test_two_at_once_are_refused(tmp_path):
    from isc.runtime.locks import sole_writer

    part = part_of(tmp_path / "made")
    part.mkdir()
    with sole_writer(part / "lock"), pytest.raises(InputError, match="expected one writer at a time"):
        make_benchmark(SAMPLE, tmp_path / "made", sizes=SIZES, seed=3, max_side=SIDE)


def test_what_cannot_be_used_is_left_out_and_listed(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in list(list_images(SAMPLE).values())[:14]:
        shutil.copy(path, photos)
    (photos / "torn.jpg").write_bytes((photos / "S003.jpg").read_bytes()[:5000])
    cv2.imwrite(str(photos / "tiny.png"), np.zeros((31, 200, 3), np.uint8))
    sizes = make_benchmark(photos, tmp_path / "made", sizes=Wanted(), seed=0, max_side=SIDE)
    assert sizes == sizes_for(14)
    with (tmp_path / "made" / "unreadable.csv").open(newline="") as file:
        listed = {row["id"]: (row["file"], row["reason"]) for row in csv.DictReader(file)}
    assert listed.keys() == {"torn", "tiny"}
    assert listed["tiny"] == (str(photos / "tiny.png"), "200 × 31 pixels; expected at least 32 a side")
    assert "decoded" in listed["torn"][1]
    assert not {"torn.jpg", "tiny.png"} & set(photo_files(tmp_path / "made").values())
    assert json.loads((tmp_path / "made" / "benchmark.json").read_text())["made"]["unreadable"] == 2


# how many


def test_sizes_follow_from_the_photos():
    assert sizes_for(118) == Sizes(44, 40, 20, 54, 120, 480)
    assert sizes_for(12) == Sizes(4, 3, 2, 6, 9, 36)
    assert sizes_for(1_000_000) == Sizes(2000, 500, 1000, 997_000, 500, 2000)
    with pytest.raises(InputError, match="11 photos; expected at least 12"):
        sizes_for(11)


@pytest.mark.parametrize(
    ("wanted", "sizes"),
    [
        ({"queries": 100}, Sizes(44, 20, 20, 54, 20, 80)),
        ({"queries": 100, "distractor_share": 0.5}, Sizes(44, 40, 20, 54, 50, 50)),
        ({"queries": 2, "distractor_share": 0.01}, Sizes(44, 1, 1, 73, 1, 1)),
        ({"references": 100}, Sizes(100, 90, 17, 1, 270, 1080)),
        ({"references": 10, "copied": 2, "training": 3}, Sizes(10, 2, 20, 3, 6, 24)),
        ({"cells": 4}, Sizes(44, 40, 20, 54, 100, 400)),
    ],
)
def test_what_is_asked_for_holds_and_the_rest_follows(wanted, sizes):
    assert Wanted(**wanted).sizes(118) == sizes


@pytest.mark.parametrize("wanted", [{"references": 118}, {"references": 60, "distractors": 60}, {"training": 200}])
def test_more_than_there_are_is_refused(wanted):
    with pytest.raises(InputError, match=r"118 photos.*expected at least"):
        Wanted(**wanted).sizes(118)


# presets


def test_each_deals_all_cells_equally_often():
    recipe = Recipe("each")
    cells = recipe.cells
    assert len(cells) == len(set(cells)) > 60
    sizes = Wanted(queries=4 * len(cells), distractor_share=0.5).sizes(118)
    plan = planned(list(list_images(SAMPLE).values()), sizes, seed=1, cells=cells)
    for positive in (True, False):
        dealt = [query.cell for query in plan.queries if bool(query.reference_id) is positive]
        assert {cell: dealt.count(cell) for cell in cells} == dict.fromkeys(cells, 2)


def test_a_strength_narrows_the_cells():
    assert {strength for _, strength in Recipe("each", "strong").cells} == {"strong"}
    assert Recipe("crop", "light").cells == (("crop", "light"),)
    assert Recipe("crop").cells == (("crop", None),)
    assert Recipe("invert").cells == (("invert", None),)
    assert Recipe("hard").cells == ()


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        (("melt",), "preset=melt: no such preset with edits=own; one of easy, challenge, hard, each, crop"),
        (("crop", "mild"), "strength=mild; expected one of light, medium, strong"),
        (("hard", "light"), "goes with one kind of edit, or with each"),
        (("invert", "light"), "invert has no degrees"),
    ],
)
def test_presets_check_themselves(recipe, problem):
    with pytest.raises(InputError, match=problem):
        Recipe(*recipe)


@pytest.mark.parametrize(
    ("preset", "fewest", "most"), [("easy", 1, 1), ("challenge", 1, 4), ("hard", 3, 6), ("rotate", 1, 1)]
)
def test_a_preset_has_its_number_of_edits(tmp_path, preset, fewest, most):
    sizes = replace(SIZES, distractor_queries=10)
    make_benchmark(SAMPLE, tmp_path / "made", sizes=sizes, seed=3, max_side=SIDE, recipe=Recipe(preset))
    lines = lines_of(tmp_path / "made")
    counts = [len(line["edits"]) for line in lines]
    assert fewest == min(counts) <= max(counts) <= most
    assert max(counts) == most or preset == "hard"
    if preset == "rotate":
        assert {edit["name"] for line in lines for edit in line["edits"]} == {"rotate"}
        assert {edit["strength"] for line in lines for edit in line["edits"]} == {"light", "medium", "strong"}
    if preset == "easy":
        assert {edit.get("strength") for line in lines for edit in line["edits"]} == {"light", None}


@pytest.mark.parametrize("knob", asdict(SIZES))
def test_sizes_check_themselves(knob):
    with pytest.raises(InputError, match=f"sizes.{knob}=0; expected at least 1"):
        replace(SIZES, **{knob: 0})


@pytest.mark.parametrize(("knob", "value"), [("copied", 13), ("copied", 21), ("distractors", 27)])
def test_every_photo_that_is_asked_for_can_be_used(knob, value):
    with pytest.raises(InputError, match=f"sizes.{knob}={value}; expected at most"):
        replace(SIZES, **{knob: value})


def test_edits_read_back(made):
    edits = read_edits(made / "edits.jsonl")
    lines = lines_of(made)
    assert list(edits) == [line["query_id"] for line in lines]
    for line in lines:
        for edit, written in zip(edits[line["query_id"]], line["edits"], strict=True):
            assert {"name": edit.name, "params": dict(edit.params)} == {key: written[key] for key in ("name", "params")}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"query_id": "Q2"}', "'edits'"),
        ('{"query_id": "", "edits": []}', "query_id '' is no name"),
        ('{"query_id": "Q2", "edits": [{"name": "melt", "params": {}}]}', "edit 'melt' is unknown"),
        ('{"query_id": "Q2", "edits": [{"name": "crop", "params": {}}]}', "area_percent"),
        ('{"query_id": "Q2", "edits": [{"name": "crop", "params": {"area_percent": "much"}}]}', "format code"),
        ('{"query_id": "Q1", "edits": []}', "'Q1' was already given"),
    ],
)
def test_malformed_edits_are_refused_by_row(tmp_path, line, problem):
    path = tmp_path / "edits.jsonl"
    path.write_text('{"query_id": "Q1", "edits": [{"name": "invert", "params": {}}]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"edits\.jsonl: row 2: .*" + problem):
        read_edits(path)


def test_auglys_edits_are_read_by_name_or_by_what_the_line_says(tmp_path):
    path, crop = tmp_path / "edits.jsonl", {"x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.75}
    edits = [{"name": "crop", "params": crop}, {"name": "overlay_emoji", "params": {"emoji_size": 0.3}}]
    records = [
        {"query_id": "Q1", "edits": edits},  # can only be AugLy's
        {"query_id": "Q2", "edits": [{"name": "crop", "params": {"area_percent": 30}}]},
        {"query_id": "Q3", "edits": [{"name": "meme_format", "params": {"caption_height": 40}}], "library": "augly"},
        {"query_id": "Q4", "edits": []},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    words = {query: [edit.describe() for edit in edits] for query, edits in read_edits(path).items()}
    assert words["Q1"] == ["crop 0.10…0.50 × 0.20…0.75", "emoji 0.30 of the height"]
    assert words["Q2"] == ["crop 30 %"]
    assert words["Q3"] == ["caption above 40 px"]
    assert words["Q4"] == []
    path.write_text(json.dumps({"query_id": "Q1", "edits": edits[:1], "library": "augly"}).replace("x1", "left"))
    with pytest.raises(InputError, match="row 1: 'x1'"):
        read_edits(path)


def test_missing_edits_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_edits(tmp_path / "none.jsonl")


def test_temporary_files_of_a_killed_writer_are_no_part_of_the_benchmark(tmp_path):
    with workshop(tmp_path / "made", {"version": 2}) as part:
        (part / "benchmark").mkdir()
        for folder in (part, part / "benchmark"):
            (folder / ".benchmark.json.0123abcd.part").write_text("half")
        (part / "benchmark" / "edits.jsonl").write_text("")
    with workshop(tmp_path / "made", {"version": 2}) as part:
        finish(part, tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["edits.jsonl"]
