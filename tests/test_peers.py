"""The robustness table: a cell's figures, the hashes, the models' names, the picture, and the whole command."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import imagehash
import numpy as np
import pytest
from PIL import Image

import isc
from benchmarks import heat_map as drawing
from benchmarks.heat_map import colour, heat_map, ink_on, luminance
from benchmarks.peers import __main__ as command
from benchmarks.peers import models as peers_models
from benchmarks.peers.cells import Bench, Figures, figures_by_cell, judged, read_bench
from benchmarks.peers.models import has_fusion, models, named
from benchmarks.peers.tables import by_kind, kinds_by_group, long_form
from isc.benchmark.baselines import HASHES, hasher, write_hashes
from isc.benchmark.edits.chain import EDITS, Edit
from isc.benchmark.edits.strengths import kinds_and_strengths, strength_of
from isc.benchmark.make import make_benchmark
from isc.benchmark.presets import Recipe
from isc.benchmark.sizes import Sizes
from isc.data.csv_files import read_ground_truth, read_predictions
from isc.data.hdf5 import read_descriptors
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.evaluate.metrics import evaluate
from isc.photos.decode import read_image
from isc.photos.folders import list_images

pytestmark = pytest.mark.slow

SAMPLE = Path(isc.__file__).parent / "sample"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Every kind and strength once, and as few distractors as show something."""
    folder = tmp_path_factory.mktemp("peers") / "each"
    sizes = Sizes(references=20, copied=20, distractors=8, training=8, positive_queries=81, distractor_queries=16)
    make_benchmark(SAMPLE, folder, sizes=sizes, seed=3, max_side=128, workers=1, recipe=Recipe("each"))
    return folder


# a cell's figures


def twin(rows, *, copies, of):
    """By definition, in fractions: each prediction (score, right, distractor) is added in turn, wrong ones first."""
    right = wrong = Fraction(0)
    precision, recall = Fraction(0), Fraction(0)
    for _, is_right, distractor in sorted(rows, key=lambda row: (-row[0], row[1])):
        if is_right:
            right += 1
            precision += right / (right + wrong) / copies
            if right / (right + wrong) >= Fraction(9, 10):
                recall = right / copies
        else:
            wrong += Fraction(copies, of) if distractor else 1
    return float(precision), float(recall)


@pytest.mark.parametrize("seed", range(30))
def test_figures_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    number, copies = int(rng.integers(1, 60)), 12
    right = np.zeros(number, bool)
    right[rng.permutation(number)[: min(copies, number // 2)]] = True
    distractor = (rng.random(number) < 0.7) & ~right
    score = rng.integers(0, 9, number) / 8 + right * rng.random(number).round(1)  # ties, the right ones mostly ahead
    rows = list(zip(score.tolist(), right.tolist(), distractor.tolist(), strict=True))
    for of in (copies, 30, 900):
        assert judged(score, right, distractor, copies=copies, of=of) == pytest.approx(
            twin(rows, copies=copies, of=of), abs=1e-12
        )


def test_ninety_per_cent_that_is_just_reached_counts():
    """Nine right ones after ten distractors that count a tenth each: exactly 0.9, whatever floats make of it."""
    right = np.r_[np.zeros(10, bool), np.ones(9, bool)]
    score = -np.arange(19.0)
    assert judged(score, right, ~right, copies=9, of=90)[1] == 1.0
    assert judged(np.r_[1.0, score], np.r_[False, right], np.r_[True, ~right], copies=9, of=90)[1] == 0.0


def made(tables):
    """A run, its truth and its cells, of lines (query, reference, score, right reference or "", cell or None)."""
    query, reference, score = ([row[i] for row in tables] for i in range(3))
    truth = GroundTruth(frozenset(query), frozenset((row[0], row[3]) for row in tables if row[3]))
    return Matches.from_ids(query, reference, score), Bench(Path(), truth, {row[0]: row[4] for row in tables if row[3]})


def test_one_cell_is_what_match_says():
    rng = np.random.default_rng(0)
    cell = ("crop", "light")
    lines = [(f"Q{q}", f"R{r}", float(rng.random()) + (q == r), f"R{q}" if q < 6 else "", cell)
             for q in range(9) for r in range(9)]  # fmt: skip
    matches, one = made(lines)
    (figures,) = figures_by_cell(matches, one)
    expected = evaluate(matches, one.truth)
    assert figures == Figures(
        "crop", "light", 6, pytest.approx(expected.average_precision), expected.recall_at_p90, expected.recall_at_rank1
    )


def test_cells_by_hand():
    """Q0, Q1 cropped, Q2 turned round, Q3 a distractor whose wrong pair outdoes Q1's right one."""
    crop, turn = ("crop", "strong"), ("quarter_turn", None)
    matches, one = made([
        ("Q0", "R0", 0.9, "R0", crop),
        ("Q1", "R1", 0.5, "R1", crop), ("Q1", "R5", 0.6, "R1", crop),
        ("Q2", "R7", 0.3, "R2", turn),
        ("Q3", "R3", 0.7, "", None),
    ])  # fmt: skip
    cropped, turned = figures_by_cell(matches, one)
    # the distractor counts 2/3 in the cell of two of three copies: precision 1, then 2 / (2 + 2/3 + 1)
    assert cropped == Figures("crop", "strong", 2, pytest.approx((1 + 2 / (2 + 2 / 3 + 1)) / 2), 0.5, 0.5)
    assert turned == Figures("quarter_turn", None, 1, 0.0, 0.0, 0.0)


def test_what_is_not_judged_and_other_cells_change_nothing():
    crop, blur = ("crop", "strong"), ("blur", "light")
    lines = [("Q0", "R0", 0.9, "R0", crop), ("Q1", "R9", 0.8, "", None), ("Q2", "R2", 0.1, "R2", blur)]
    matches, one = made(lines)
    unknown = Matches.from_ids(
        ["X", *(row[0] for row in lines)], ["R0", *(row[1] for row in lines)], [2.0, 0.9, 0.8, 0.1]
    )
    again, _ = made([*lines, ("Q2", "R1", 5.0, "", None)])
    expected = figures_by_cell(matches, one)
    assert figures_by_cell(unknown, one) == expected
    assert figures_by_cell(again, one)[1] == expected[1] == Figures("crop", "strong", 1, 1.0, 1.0, 1.0)


def test_a_benchmark_of_each_kind_has_every_cell(bench):
    read = read_bench(bench)
    assert sorted(read.cells.values(), key=str) == sorted(kinds_and_strengths(), key=str)
    assert set(read.cells) == {query for query, _ in read_ground_truth(bench / "ground_truth.csv").pairs}


def test_chains_have_no_cell(tmp_path, bench):
    for name in ("ground_truth.csv", "edits.jsonl"):
        (tmp_path / name).write_bytes((bench / name).read_bytes())
    line = {"query_id": "Q00000", "edits": [{"name": "invert", "params": {}}, {"name": "grayscale", "params": {}}]}
    (tmp_path / "ground_truth.csv").write_text("query_id,reference_id\nQ00000,R000000\n")
    (tmp_path / "edits.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=r"'Q00000' has 2 edits; expected one, .* preset=each"):
        read_bench(tmp_path)


# hashes


@pytest.mark.parametrize("name", HASHES)
def test_squared_distances_of_hashes_are_their_hamming_distances(name, tmp_path):
    if name == "PDQ":
        pytest.importorskip("pdqhash", reason="it needs a C++ compiler")
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(SAMPLE.glob("*.jpg"))[:5]:
        (images / path.name).symlink_to(path)
    write_hashes(images, tmp_path / "hashes.h5", by=hasher(name))
    made = read_descriptors(tmp_path / "hashes.h5")
    assert list(made.ids) == list(list_images(images))
    assert made.dim == {"PDQ": 256, "pHash": 64, "dHash": 64}[name]
    assert set(np.unique(made.vectors)) == {0.0, 1.0}
    if name == "PDQ":
        return
    function = {"pHash": imagehash.phash, "dHash": imagehash.dhash}[name]
    hashes = [function(Image.fromarray(read_image(path))) for path in list_images(images).values()]
    for i in range(5):
        for j in range(5):
            assert np.sum((made.vectors[i] - made.vectors[j]) ** 2) == hashes[i] - hashes[j]


def test_hashes_are_made_once_and_anew_for_other_photos(tmp_path):
    images, output = tmp_path / "images", tmp_path / "hashes.h5"
    images.mkdir()
    (images / "a.jpg").symlink_to(SAMPLE / "S000.jpg")
    by = hasher("dHash")
    write_hashes(images, output, by=by)
    before = output.stat().st_mtime_ns
    write_hashes(images, output, by=by)
    assert output.stat().st_mtime_ns == before
    (images / "b.jpg").symlink_to(SAMPLE / "S001.jpg")
    write_hashes(images, output, by=by)
    assert list(read_descriptors(output).ids) == ["a", "b"]


@pytest.mark.parametrize(("name", "library"), [("PDQ", "pdqhash"), ("dHash", "imagehash")])
def test_a_missing_library_is_named_with_its_extra(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"{name} needs {library}; pip install 'isc\[baselines\]'"):
        hasher(name)


def test_an_unknown_hash_is_refused():
    with pytest.raises(InputError, match="'wHash' is unknown; expected one of PDQ, pHash, dHash"):
        hasher("wHash")


# names


@pytest.mark.parametrize(
    ("argument", "name", "model"),
    [
        ("isc_small", "isc_small", "isc_small"),
        ("PDQ", "PDQ", "PDQ"),
        ("SSCD=sscd.onnx", "SSCD", "sscd.onnx"),
        ("runs/best", "best", "runs/best"),
        ("timm:resnet18", "timm:resnet18", "timm:resnet18"),
        ("https://host/a/sscd.pt#sha256=00", "sscd.pt", "https://host/a/sscd.pt#sha256=00"),
        ("SSCD=https://host/a/sscd.pt#sha256=00", "SSCD", "https://host/a/sscd.pt#sha256=00"),
    ],
)
def test_names(argument, name, model):
    assert (named(argument).name, named(argument).model) == (name, model)


def test_two_models_of_one_name_and_half_names_are_refused():
    with pytest.raises(InputError, match="one/run and two/run are both called run; give NAME=MODEL"):
        models(["one/run", "two/run"])
    for argument in ("name=", "=model"):
        with pytest.raises(InputError, match="expected MODEL or NAME=MODEL"):
            named(argument)
    assert [has_fusion(one) for one in models(["isc_small", "imagenet", "PDQ", "timm:resnet18"])] == [1, 0, 0, 0]


def test_what_a_model_finds_is_kept_by_its_weights(tmp_path):
    (tmp_path / "run").mkdir()
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(b"one")
    one = peers_models._key(str(tmp_path / "run"))
    assert one == peers_models._key(str(weights))
    weights.write_bytes(b"two")
    assert peers_models._key(str(tmp_path / "run")) != one
    assert peers_models._key("isc_small").startswith("isc_small-")  # of the shipped file's bytes
    assert peers_models._key("imagenet") == "imagenet"


def test_a_backbone_of_timm_is_what_imagenet_is_of_ours(tmp_path):
    import torch

    from isc.model.load import load_model

    path = peers_models._timm_file("timm:tf_efficientnet_lite0", tmp_path)
    assert path == peers_models._timm_file("timm:tf_efficientnet_lite0", tmp_path)
    ours, theirs = (load_model(name).state_dict() for name in ("imagenet", path))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# tables and picture

FOUND = {
    "ours": [
        Figures("crop", "strong", 4, 0.5, 0.25, 0.75), Figures("crop", "light", 5, 1.0, 1.0, 1.0),
        Figures("crop", "medium", 3, 1.0, 0.5, 1.0), Figures("invert", None, 6, 1.0, 1.0, 1.0),
        Figures("flip_vertical", None, 6, 1.0, 1.0, 1.0),
    ],
    "a & b, <c>": [
        Figures("crop", "strong", 4, 0.5, 0.0, 0.75), Figures("crop", "light", 5, 1.0, 0.9, 1.0),
        Figures("crop", "medium", 3, 1.0, 0.0, 1.0), Figures("invert", None, 6, 1.0, 0.0, 1.0),
        Figures("flip_vertical", None, 6, 1.0, 0.5, 1.0),
    ],
}  # fmt: skip


def test_tables_by_hand():
    assert kinds_by_group(FOUND) == {"geometry": ["flip_vertical", "crop"], "pixels": ["invert"]}
    flip, crop, invert = by_kind(FOUND)
    assert crop == {
        "edit": "crop", "of": "geometry", "copies": "5 · 3 · 4", "ours": "100 · 50 · 25", "a & b, <c>": "90 · 0 · 0",
    }  # fmt: skip
    assert (flip["ours"], invert["a & b, <c>"]) == ("100", "0")
    assert len(long_form(FOUND)) == 10
    assert long_form(FOUND)[0] == {
        "model": "ours", "kind": "crop", "strength": "strong", "copies": 4, "μAP": 0.5,
        "recall at 90 % precision": 0.25, "recall at rank 1": 0.75,
    }  # fmt: skip
    assert kinds_by_group({"x": [Figures("overlay_emoji", None, 1, 0, 0, 0)]}) == {"other": ["overlay_emoji"]}


def test_the_picture_says_every_figure():
    page = ElementTree.fromstring(heat_map(FOUND, title="30 copies"))
    assert page.get("role") == "img"
    assert page.find(f"{SVG}title").text == "Recall at 90 % precision by edit and strength: 30 copies"
    cells = {cell.find(f"{SVG}title").text: cell for cell in page.iter(f"{SVG}g")}
    assert len(cells) == 10
    for name, figures in FOUND.items():
        for one in figures:
            words = f"{one.kind} {one.strength}" if one.strength else one.kind
            cell = cells[f"{name}, {words}: {100 * one.recall_at_p90:.0f} % of {one.copies} copies"]
            assert cell.find(f"{SVG}text").text == f"{100 * one.recall_at_p90:.0f}"
            rgb = colour(one.recall_at_p90)
            assert cell.find(f"{SVG}rect").get("fill") == f"#{bytes(rgb).hex()}"
    wide, narrow = (float(cells[name].find(f"{SVG}rect").get("width")) for name in cells if name.startswith("ours, ")
                    if "invert" in name or "light" in name)  # fmt: skip
    assert max(wide, narrow) > 2.9 * min(wide, narrow)


@pytest.mark.parametrize("number", [1, 2, 6, 12])
def test_nothing_lies_outside_the_picture_nor_over_another_cell(number):
    found = {f"a model of some name {i}, local verification": FOUND["ours"] for i in range(number)}
    page = ElementTree.fromstring(heat_map(found, title="30 copies"))
    _, _, width, height = map(float, page.get("viewBox").split())
    boxes = [
        tuple(float(rect.get(side)) for side in ("x", "y", "width", "height"))
        for cell in page.iter(f"{SVG}g")
        for rect in cell.iter(f"{SVG}rect")
    ]
    for x, y, w, h in boxes:
        assert min(x, y, w, h) >= 0
        assert x + w <= width
        assert y + h <= height
    for i, (x, y, w, h) in enumerate(boxes):
        assert not any(x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h for x2, y2, w2, h2 in boxes[:i])
    for text in page.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= width
        assert 0 <= float(text.get("y")) <= height


def test_colours_grow_lighter_and_figures_stand_out_on_them():
    shares = [i / 100 for i in range(101)]
    light = [luminance(colour(share)) for share in shares]
    assert light == sorted(light)
    assert light[-1] - light[0] > 0.6
    for share, behind in zip(shares, light, strict=True):
        ink = luminance(tuple(bytes.fromhex(ink_on(colour(share))[1:])))
        assert (max(ink, behind) + 0.05) / (min(ink, behind) + 0.05) >= 4.2, share
    assert colour(-1) == colour(0) == drawing.COLOURS[0]
    assert colour(2) == colour(1) == drawing.COLOURS[-1]


# the command


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Copies of four photos by crop, jpeg and invert, one of each strength, and four distractors."""
    folder = tmp_path_factory.mktemp("peers") / "small"
    sizes = Sizes(references=4, copied=4, distractors=4, training=4, positive_queries=81, distractor_queries=4)
    make_benchmark(SAMPLE, folder, sizes=sizes, seed=1, max_side=96, workers=1, recipe=Recipe("each"))
    truth = dict(line.split(",") for line in (folder / "ground_truth.csv").read_text().splitlines()[1:])
    lines = [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]
    kept = [
        line for line in lines if not truth[line["query_id"]] or line["edits"][0]["name"] in ("crop", "invert", "jpeg")
    ]
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    (folder / "ground_truth.csv").write_text("".join(f"{q['query_id']},{truth[q['query_id']]}\n" for q in kept))
    for path in (folder / "queries").iterdir():
        if path.stem not in {line["query_id"] for line in kept}:
            path.unlink()
    return folder


def test_models_side_by_side(small, tmp_path, capsys):
    """By the real commands: a hash, and the model with its matching track."""
    work = tmp_path / "work"
    arguments = [str(small), "dHash", "ours=isc_small", "--work", str(work)]
    command.main([*arguments, "--matching"])
    said = capsys.readouterr().out
    rows = json.loads((work / "tables" / "peers.json").read_text())
    names = ["dHash", "ours", "ours, local verification"]
    assert list(dict.fromkeys(row["model"] for row in rows)) == names
    assert len(rows) == 3 * 7
    assert {(row["kind"], row["strength"]) for row in rows} == {
        ("invert", ""), *((kind, strength) for kind in ("crop", "jpeg") for strength in ("light", "medium", "strong"))
    }  # fmt: skip
    overall = json.loads((work / "tables" / "peers_models.json").read_text())
    assert [row[""] for row in overall] == names
    for row in overall:
        assert row[""] in said
        figure, low, high = (
            float(part) for part in row["μAP"].replace("(", "").replace(")", "").replace("–", " ").split()
        )
        assert 0 <= low <= figure <= high <= 1
    found = {(row["model"], row["kind"], row["strength"]): row["recall at rank 1"] for row in rows}
    assert found["ours", "invert", ""] == found["ours, local verification", "invert", ""] == 1.0
    assert found["dHash", "jpeg", "light"] == 1.0
    assert found["dHash", "invert", ""] == 0.0  # its differences all change their sign
    assert ElementTree.fromstring((work / "tables" / "robustness.svg").read_text(encoding="utf-8")).tag == f"{SVG}svg"
    (folder,) = work.glob("isc_small-*")
    for name in ("matched", next(folder.glob("matching-*")).name):  # the ten nearest, or here all four, of each query
        assert len(read_predictions(folder / name / "predictions.csv")) == 4 * len(list_images(small / "queries"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["isc_small", "isc_small"], "both called isc_small"),
        (["dHash", "--matching"], "--matching: none of these models has a fusion stored with it"),
        (["no_such_model"], "no_such_model: no such model"),
        (["timm:no_such_backbone"], "timm has no such model"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(small, tmp_path, capsys, arguments, says):
    with pytest.raises(SystemExit) as end:
        command.main([str(small), *arguments, "--work", str(tmp_path / "work")])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert says in said
    assert not (tmp_path / "work" / "tables").exists()


def test_the_table_knows_every_edit():
    groups = kinds_by_group({"x": [Figures(kind, strength_of(Edit(kind, {})), 1, 0, 0, 0) for kind in EDITS]})
    assert list(groups) == ["geometry", "composition", "pixels"]
    assert sorted(kind for kinds in groups.values() for kind in kinds) == sorted(EDITS)
