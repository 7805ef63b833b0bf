"""The front door: copies found, duplicates grouped, the index in step with its folder, two pictures compared."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import isc
from isc.cli.main import main
from isc.errors import InputError
from isc.evaluate.report.texts import bytes_text, probability_text
from isc.find.images import as_pixels
from isc.find.results import Kind, Match, Verdict
from isc.find.verdicts import verdict_of
from isc.match.flags import COLUMN
from isc.match.verification.quantities import EVIDENCE
from isc.photos.decode import read_image

SAMPLE = Path(isc.__file__).parent / "sample"
NAMES = [f"S{number:03d}.jpg" for number in range(1, 25)]
AWKWARD = 'a, "b"\nc ü 猫.jpg'


def edited(name: str, **options: object) -> Image.Image:
    """The photo cropped to three quarters and shrunk."""
    image = Image.open(SAMPLE / name)
    width, height = image.size
    part = image.crop((width // 8, height // 8, width * 7 // 8, height * 7 // 8))
    return part.resize((width // 2, height // 2))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """24 photos in a folder; suspects: three copies, one of a photo that is not there, a red sheet, a torn file."""
    place = tmp_path_factory.mktemp("find")
    photos, inbox = place / "photos", place / "inbox"
    (photos / "below").mkdir(parents=True)
    inbox.mkdir()
    for number, name in enumerate(NAMES):
        shutil.copy(SAMPLE / name, (photos / "below" if number % 5 == 0 else photos) / name)
    shutil.copy(SAMPLE / "S002.jpg", inbox / "the same.jpg")
    edited("S003.jpg").save(inbox / AWKWARD, "jpeg", quality=60)
    ImageOps.mirror(Image.open(SAMPLE / "S004.jpg")).save(inbox / "mirrored.png")
    edited("S100.jpg").save(inbox / "stranger.jpg")
    Image.new("RGB", (200, 150), "red").save(inbox / "red.png")
    (inbox / "torn.jpg").write_bytes((SAMPLE / "S005.jpg").read_bytes()[:3000])
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    yield place
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


def run(capsys, *arguments: object) -> str:
    """What the command prints on stdout."""
    capsys.readouterr()
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def refused(capsys, *arguments: object) -> str:
    """The one line of a refusal."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("error: ")
    return err[-1]


# --- isc find --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_find_names_the_photo_of_each_suspect_the_surest_first(world, capsys, monkeypatch):
    monkeypatch.chdir(world)
    rows = list(csv.DictReader(io.StringIO(run(capsys, "find", "photos", "inbox", "--format", "csv"))))
    assert list(rows[0]) == ["suspect", "photo", "verdict", "probability", "distance", "inliers", "flags"]
    found = {row["suspect"]: row for row in rows}
    assert found["inbox/the same.jpg"]["photo"] == "photos/S002.jpg"
    assert found[f"inbox/{AWKWARD}"]["photo"] == "photos/S003.jpg", "the name comes back through quotes"
    assert found["inbox/mirrored.png"]["photo"] == "photos/S004.jpg"
    for name in ("the same.jpg", AWKWARD, "mirrored.png"):
        assert found[f"inbox/{name}"]["verdict"] == "copy"
        assert float(found[f"inbox/{name}"]["probability"]) >= 0.9
    for name in ("stranger.jpg", "red.png"):
        assert (found[f"inbox/{name}"]["verdict"], found[f"inbox/{name}"]["photo"]) == ("none", "")
    assert "inbox/torn.jpg" not in found
    assert [row["verdict"] for row in rows] == ["copy"] * 3 + ["none"] * 2
    assert rows[0]["suspect"] == "inbox/the same.jpg"
    assert float(rows[0]["probability"]) == 1


@pytest.mark.parametrize("options", [(), ("--fast",)], ids=["pixels", "distance"])
def test_a_photo_that_is_there_in_many_sizes_is_found(world, capsys, tmp_path, options):
    """They look like the suspect all alike, as photos of like things do, but are versions of one picture."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in NAMES[:8]:
        shutil.copy(SAMPLE / name, photos / name)
    whole = Image.open(SAMPLE / NAMES[3])
    for number in range(6):
        share = 0.5 + 0.08 * number
        whole.resize((round(whole.width * share), round(whole.height * share))).save(photos / f"size {number}.png")
    edited(NAMES[3]).save(tmp_path / "suspect.jpg", quality=60)
    (row,) = csv.DictReader(
        io.StringIO(run(capsys, "find", *options, photos, tmp_path / "suspect.jpg", "--format", "csv"))
    )
    assert row["verdict"] == "copy"
    assert float(row["probability"]) > 0.9


def test_every_photo_of_a_collage_is_found(world, tmp_path):
    """They do not speak against one another: each is in a part of its own."""
    sheet = Image.new("RGB", (600, 600))
    for at, name in enumerate(NAMES[3:7]):
        sheet.paste(Image.open(SAMPLE / name).resize((300, 300)), (at % 2 * 300, at // 2 * 300))
    sheet.save(tmp_path / "collage.jpg", quality=80)
    index = isc.Index(tmp_path / "known.index")
    index.add(world / "photos")
    found = index.find(tmp_path / "collage.jpg", k=6)
    assert {Path(match.photo).name for match in found if match.verdict is Verdict.copy} == set(NAMES[3:7])


def test_find_says_what_it_kept_and_what_it_left_out(world, capsys, caplog):
    run(capsys, "find", world / "photos", world / "inbox", "--fast")
    text = caplog.text
    assert "24 unchanged" in text or "24 added" in text
    assert f"descriptors are kept in {world / 'cache'}" in text
    assert f"left out: {world / 'inbox' / 'torn.jpg'}: cannot be decoded" in text


def test_find_writes_a_page_with_both_pictures_a_csv_and_a_json(world, capsys, tmp_path):
    out = run(capsys, "find", world / "photos", world / "inbox", "--output", tmp_path / "found")
    assert "3 copies, 0 perhaps, 2 without a copy" in out
    page = (tmp_path / "found" / "index.html").read_text(encoding="utf-8")
    assert page.count('<li class="card copy"') == 3
    assert page.count("data:image/jpeg;base64,") == 10, "both pictures of each pair"
    assert "Copies of " in page
    assert "torn.jpg" in page
    told = json.loads((tmp_path / "found" / "matches.json").read_text(encoding="utf-8"))
    best = told["matches"][1]
    assert best["verdict"] == "copy"
    assert len(best["suspect_region"]) >= 3
    assert told["unreadable"][0]["path"].endswith("torn.jpg")
    assert (tmp_path / "found" / "matches.csv").read_text(encoding="utf-8").count("copy") == 3


def test_a_photo_that_changed_or_went_is_no_longer_found(world, capsys, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in NAMES[:4]:
        shutil.copy(SAMPLE / name, photos / name)
    ask = ("find", photos, SAMPLE / "S001.jpg", SAMPLE / "S090.jpg", "--format", "json")
    assert json.loads(run(capsys, *ask))["matches"][0]["photo"] == str(photos / "S001.jpg")
    (photos / "S001.jpg").unlink()
    shutil.copy(SAMPLE / "S090.jpg", photos / "S002.jpg")
    told = {Path(one["suspect"]).name: one for one in json.loads(run(capsys, *ask))["matches"]}
    assert told["S001.jpg"]["verdict"] == "none"
    assert told["S090.jpg"]["photo"] == str(photos / "S002.jpg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("find", "photos"), "Missing argument 'SUSPECTS...'"),
        (("find", "photos", "nowhere"), "'nowhere' does not exist"),
        (("find", "photos", "inbox", "--form", "csv"), "--form"),
        (("find", "photos", "inbox", "--format", "xml"), "'xml' is not one of 'table', 'csv', 'json'"),
        (("find", "photos", "text.txt"), "text.txt: of no known kind; expected a photo"),
        (("find", "empty", "inbox"), "no photo there"),
        (("fnd", "photos"), "no such command 'fnd'; did you mean find?"),
        (("duplicates", "text.txt"), "is a file"),
    ],
)
def test_refusals_are_one_line(world, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(world)
    (world / "text.txt").write_text("no photo", encoding="utf-8")
    (world / "empty").mkdir(exist_ok=True)
    assert said in refused(capsys, *arguments)


# --- isc duplicates --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def album(world):
    """Twelve photos, one of them twice, one cropped and one compressed: three groups."""
    folder = world / "album"
    folder.mkdir()
    for name in NAMES[:12]:
        shutil.copy(SAMPLE / name, folder / name)
    shutil.copy(SAMPLE / "S001.jpg", folder / "again.jpg")
    edited("S002.jpg").save(folder / "cropped.jpg", quality=80)
    Image.open(SAMPLE / "S003.jpg").save(folder / "compressed.jpg", quality=25)
    return folder


def test_duplicates_are_grouped_the_best_first_and_never_twice(album, capsys):
    told = json.loads(run(capsys, "duplicates", album, "--format", "json"))
    groups = {Path(group["members"][0]["photo"]).name: group for group in told["groups"]}
    members = [one["photo"] for group in told["groups"] for one in group["members"]]
    assert (told["photos"], len(groups)) == (15, 3)
    assert len(members) == len(set(members)) == 6
    assert {Path(one["photo"]).name for one in groups["S002.jpg"]["members"]} == {"S002.jpg", "cropped.jpg"}
    assert groups["S002.jpg"]["kind"] == groups["S003.jpg"]["kind"] == "edited"
    assert all(group["probability"] >= 0.9 for group in told["groups"])
    exact = next(group for group in told["groups"] if group["kind"] == "exact")
    assert {Path(one["photo"]).name for one in exact["members"]} == {"S001.jpg", "again.jpg"}


def test_the_list_to_delete_leaves_the_best_of_each_group_and_deletes_nothing(album, capsys, tmp_path):
    before = sorted(album.iterdir())
    out = run(capsys, "duplicates", album, "--delete-list", tmp_path / "list.txt", "--output", tmp_path / "same")
    assert "nothing was deleted" in out
    assert sorted(album.iterdir()) == before
    listed = (tmp_path / "list.txt").read_text(encoding="utf-8").splitlines()
    assert {Path(one).name for one in listed} in (
        {"again.jpg", "cropped.jpg", "compressed.jpg"},
        {"S001.jpg", "cropped.jpg", "compressed.jpg"},
    )
    assert (tmp_path / "same" / "index.html").read_text(encoding="utf-8").count('<li class="card ') == 3
    rows = list(csv.DictReader((tmp_path / "same" / "groups.csv").open(encoding="utf-8", newline="")))
    assert [row["best"] for row in rows].count("true") == 3


# --- Python ----------------------------------------------------------------------------------------------------------


def test_the_package_shows_its_names_and_loads_nothing():
    code = "import isc, sys; print(*dir(isc)); assert not {'numpy', 'torch', 'cv2'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Captioner", "Index", "InputError", "Model", "compare", "find_duplicates", "load"]


FIND = """
import sys
import isc
index = isc.Index(sys.argv[1])
index.add(sys.argv[2])
assert index.find(sys.argv[2])[0].verdict.value == "copy"
heavy = {"torch", "torchvision", "timm", "albumentations", "faiss", "hydra", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""


def test_finding_loads_neither_torch_nor_timm_nor_albumentations(world, tmp_path):
    command = [sys.executable, "-c", FIND, tmp_path / "x.index", SAMPLE / "S001.jpg"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 0, done.stderr


def test_an_index_keeps_in_step_with_its_folder(world, tmp_path):
    photos = tmp_path / "p"
    photos.mkdir()
    for name in NAMES[:3]:
        shutil.copy(SAMPLE / name, photos / name)
    (photos / "torn.jpg").write_bytes(b"\xff\xd8\xff torn")
    index = isc.Index(tmp_path / "p.index")
    assert len(index) == 0
    first = index.sync(photos)
    assert (first.added, len(first.unreadable), len(index)) == (3, 1, 3)
    assert str(index.sync(photos)) == "3 unchanged, 1 unreadable"
    os.utime(photos / "S001.jpg")
    assert str(index.sync(photos)) == "3 unchanged, 1 unreadable", "a touched file is read, and is the same"
    shutil.copy(SAMPLE / "S010.jpg", photos / "S001.jpg")
    shutil.copy(SAMPLE / "S011.jpg", photos / "torn.jpg")
    (photos / "S003.jpg").unlink()
    now = index.sync(photos)
    assert (now.added, now.changed, now.removed, now.unchanged, now.unreadable) == (1, 1, 1, 1, ())
    assert index.photos == [str(photos / name) for name in ("S001.jpg", "S002.jpg", "torn.jpg")]
    assert index.remove("S002.jpg") == 1
    with pytest.raises(InputError, match="not in the index; nothing was removed"):
        index.remove("S002.jpg")
    assert "2 photos, isc_small" in repr(isc.Index(tmp_path / "p.index"))


def test_a_killed_update_goes_on_where_it_was(tmp_path):
    code = (
        "import isc, os, isc.find.photo_index as m; m.GROUP = 2; real = m.describe\n"
        "def dying(photos, *a, done, **k):\n"
        "    if done >= 4: os._exit(9)\n"
        "    return real(photos, *a, done=done, **k)\n"
        f"m.describe = dying; isc.Index({str(tmp_path / 'k.index')!r}).add({str(SAMPLE)!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    index = isc.Index(tmp_path / "k.index")
    assert len(index) == 4
    done = index.add(*sorted(SAMPLE.glob("*.jpg"))[:6])
    assert (done.unchanged, done.added) == (4, 2)


def test_all_kinds_of_pictures_have_one_descriptor(world):
    torch = pytest.importorskip("torch")
    path = SAMPLE / "S007.jpg"
    pixels = read_image(path)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    given = [path, str(path), Image.open(path), pixels, tensor, tensor.float() / 255]
    vectors = isc.load().embed(given)
    assert vectors.shape == (6, 256)
    np.testing.assert_array_equal(vectors, vectors[:1].repeat(6, axis=0))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


PIXELS = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (3, TypeError, "is of type builtins.int; expected a path, a PIL image"),
        (None, TypeError, "NoneType"),
        (PIXELS.astype(np.float32), InputError, "type float32; expected uint8"),
        (PIXELS[..., 0], InputError, r"shape \(4, 5\); expected \[H, W, 3\]"),
        (np.zeros((3, 8, 9), np.uint8), InputError, r"transpose\(1, 2, 0\)"),
        (np.zeros((0, 9, 3), np.uint8), InputError, r"shape \(0, 9, 3\)"),
        ("nowhere.jpg", InputError, "nowhere.jpg"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(image, error, said):
    with pytest.raises(error, match=said):
        as_pixels(image)


def test_tensors_of_other_ranges_and_layouts_are_refused():
    torch = pytest.importorskip("torch")
    for tensor, said in (
        (torch.full((3, 4, 5), 1.5), "values 1.5…1.5; expected floats 0…1"),
        (torch.full((3, 4, 5), float("nan")), "expected floats 0…1"),
        (torch.zeros(4, 5, 3), r"shape \(4, 5, 3\); expected \[3, H, W\]"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "torch.int64; expected uint8"),
    ):
        with pytest.raises(InputError, match=said):
            as_pixels(tensor)


def test_lists_that_are_none_are_refused():
    model = isc.load()
    with pytest.raises(InputError, match="no pictures; expected at least one"):
        model.embed([])
    for single in ("a.jpg", PIXELS):
        with pytest.raises(TypeError, match="expected a list of pictures"):
            model.embed(single)


def test_two_pictures_are_compared(world):
    found = isc.compare(SAMPLE / "S006.jpg", edited("S006.jpg"))
    assert found.verdict is Verdict.copy
    assert found.probability > 0.9
    left, top = np.array(found.suspect_region).min(axis=0)
    assert (left, top) == (pytest.approx(0.125, abs=0.02), pytest.approx(0.125, abs=0.02))
    assert isc.compare(SAMPLE / "S006.jpg", SAMPLE / "S007.jpg").verdict is Verdict.none
    assert isc.compare(SAMPLE / "S006.jpg", SAMPLE / "S006.jpg").probability == 1


def test_sheets_of_different_colours_are_no_copies():
    """Their descriptors may be equal, and no point can be compared: that is no evidence."""
    red, green = (Image.new("RGB", (300, 200), colour) for colour in ("red", "green"))
    found = isc.compare(red, green)
    assert found.verdict is not Verdict.copy
    assert "plain" in found.flags


def test_results_have_a_view_for_notebooks(world, album, tmp_path):
    index = isc.Index(tmp_path / "n.index")
    index.add(world / "photos")
    html = index.find(world / "inbox" / "mirrored.png")._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 2
    assert "mirrored" in html
    assert "<script" not in html
    assert isc.find_duplicates(album)._repr_html_().count("data:image") == 6
    assert "copy" in isc.compare(SAMPLE / "S001.jpg", SAMPLE / "S001.jpg")._repr_html_()


# --- values ----------------------------------------------------------------------------------------------------------


def evidence(**values: float) -> np.ndarray:
    row = np.zeros(len(EVIDENCE), np.float32)
    for name, value in values.items():
        row[COLUMN[name]] = value
    return row


@pytest.mark.parametrize(
    ("probability", "row", "aligned", "verdict"),
    [
        (0.99, evidence(log_nfa=50, agreement=0.9), True, Verdict.copy),
        (0.89, evidence(log_nfa=50, agreement=0.9), True, Verdict.perhaps),
        (0.99, evidence(log_nfa=5, agreement=0.9), True, Verdict.perhaps),
        (0.99, evidence(log_nfa=30, agreement=0.1), True, Verdict.perhaps),
        (0.99, evidence(log_nfa=50, agreement=0.1), True, Verdict.copy),
        (0.99, evidence(), False, Verdict.none),
        (0.3, evidence(log_nfa=50, agreement=0.9), True, Verdict.none),
        (0.95, None, False, Verdict.copy),
        (0.6, None, False, Verdict.perhaps),
        (0.4, None, False, Verdict.none),
    ],
)
def test_only_pixels_that_agree_make_a_copy(probability, row, aligned, verdict):
    assert verdict_of(probability, row, aligned=aligned) is verdict


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.9999, "> 0.99"), (0.987, "0.99"), (0.5, "0.50"), (0.001, "< 0.01")]
)
def test_a_probability_has_the_digits_that_mean_something(value, text):
    assert probability_text(value) == text


def test_values_that_make_no_sense_cannot_be_built():
    with pytest.raises(ValueError, match=r"probability 1\.5; expected 0…1"):
        Match("a", "b", Verdict.copy, 1.5, 0.0)
    with pytest.raises(ValueError, match="without a photo"):
        Match("a", None, Verdict.copy, 0.9, None)
    assert Kind.near.value == "near"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "1 kB"), (19_600, "20 kB"), (999_999, "1000 kB"), (1_240_000, "1.24 MB")]
)
def test_sizes_of_files_are_readable(count, text):
    assert bytes_text(count) == text
