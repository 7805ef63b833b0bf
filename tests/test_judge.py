"""The outside judge: which photo is whose, what is drawn, and where AugLy is installed, what it makes."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFont

import isc
from benchmarks import judge, judge_make, judge_score
from isc.benchmark.edit_log import read_edits
from isc.benchmark.edits import augly as augly_edits
from isc.benchmark.edits import augly_geometry
from isc.benchmark.edits.augly import Edit
from isc.benchmark.edits.augly_draws import (
    ALTERNATIVES,
    CUTTING,
    EDITS,
    FAMILIES,
    INSTALL,
    PASTING,
    Dice,
    draw_names,
    require_augly,
)
from isc.benchmark.edits.chain import region
from isc.benchmark.make import make_benchmark
from isc.benchmark.presets import Recipe, kinds_of
from isc.benchmark.sizes import Sizes
from isc.config.choices import Library
from isc.data.csv_files import read_ground_truth, write_ground_truth
from isc.data.matches import GroundTruth, Matches
from isc.errors import InputError
from isc.photos.decode import read_image
from isc.photos.folders import list_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning"),  # AugLy's
]

SAMPLE = Path(isc.__file__).parent / "sample"


def problem():
    """Why AugLy cannot be used here; None where it can."""
    try:
        require_augly()
    except InputError as error:
        return str(error)
    return None


needs_augly = pytest.mark.skipif(problem() is not None, reason=f"an outside library, not a dependency: {problem()}")


MOVES = {  # every kind that moves, with something drawn
    "change_aspect_ratio": {"ratio": 0.8},
    "clip_image_size": {"max_resolution": 30000},
    "crop": {"x1": 0.1, "y1": 0.3, "x2": 0.8, "y2": 0.9},
    "hflip": {},
    "meme_format": {"text": "so true", "caption_height": 60, "meme_bg_color": [255, 255, 255]},
    "overlay_onto_background_image": {
        "background_image": "other", "overlay_size": 0.6, "x_pos": 0.1, "y_pos": 0.3, "opacity": 0.95,
    },
    "overlay_onto_screenshot": {
        "template_filepath": "web.png", "crop_src_to_fit": False, "resize_src_to_match_template": False,
    },
    "pad": {"w_factor": 0.2, "h_factor": 0.05, "color": [255, 0, 255]},
    "pad_square": {"color": [255, 255, 255]},
    "perspective_transform": {"sigma": 25.0, "seed": 3, "crop_out_black_border": False},
    "rotate": {"degrees": -27.0},
    "scale": {"factor": 0.6},
    "skew": {"skew_factor": 0.3, "axis": 1},
    "vflip": {},
}  # fmt: skip


def picture(width=96, height=80, seed=0):
    """Noise in coarse blocks, so that every edit leaves a trace and JPEG does not flatten it."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# split


@pytest.mark.parametrize(
    ("photo", "part"),
    [
        ("T000000", "dev"),
        ("T000001", "test"),
        ("T000002", "training"),
        ("T000011", "training"),
        ("T000012", "dev"),
        ("T017365", "test"),
        ("below/2020/S13", "test"),
    ],
)
def test_the_number_decides_the_part(photo, part):
    assert judge.part_of(photo) == part


def test_a_name_without_a_number_is_refused():
    with pytest.raises(InputError, match=r"'cat'.*ends in no number"):
        judge.part_of("cat")


def test_split_links_every_photo_into_one_part(tmp_path):
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    for number in range(26):
        picture(seed=number).save(photos / ("below" if number % 2 else ".") / f"T{number:06d}.png")
    for _ in range(2):  # a second time changes nothing
        counts = judge.split(photos, tmp_path / "split")
    parts = {part: list_images(tmp_path / "split" / part) for part in ("dev", "test", "training")}
    assert counts == {"dev": 3, "test": 3, "training": 20}
    assert {part: len(images) for part, images in parts.items()} == counts
    assert set().union(*parts.values()) == set(list_images(photos))
    assert set(parts["test"]) == {"below/T000001", "below/T000013", "below/T000025"}
    assert np.array_equal(read_image(parts["dev"]["T000012"]), read_image(photos / "T000012.png"))


# what is drawn


def test_every_edit_belongs_to_one_family_and_the_shares_sum_to_one():
    assert sum(len(edits) for _, edits in FAMILIES.values()) == len(EDITS) == 32
    assert sum(share for share, _ in FAMILIES.values()) == pytest.approx(1)
    assert set().union(*ALTERNATIVES, PASTING, CUTTING) <= EDITS.keys()


def test_chains_have_different_edits_and_cut_before_they_paste():
    rng = np.random.default_rng(0)
    for number in (1, 2, 3, 4):
        for _ in range(200):
            names = draw_names(rng, number)
            assert len(set(names)) == len(names) == number
            assert all(len(group & set(names)) <= 1 for group in ALTERNATIVES)
            pasted = [at for at, name in enumerate(names) if name in PASTING]
            assert all(at < pasted[0] for at, name in enumerate(names) if pasted and name in CUTTING)


def test_every_edit_is_drawn():
    rng = np.random.default_rng(0)
    assert {name for _ in range(600) for name in draw_names(rng, 2)} == EDITS.keys()


def test_a_factor_is_never_nearly_one():
    dice = Dice(np.random.default_rng(0), 64, 64, ())
    factors = np.array([dice.factor(0.4, 2.0) for _ in range(500)])
    assert factors.min() >= 0.4
    assert factors.max() <= 2.0
    assert np.abs(factors - 1).min() >= 0.1 - 1e-6
    assert 0.4 < np.mean(factors < 1) < 0.6


# shims


def test_the_names_of_2022_are_there_within_and_nowhere_else():
    with augly_edits._names_of_2022():
        assert np.float is float
        assert hasattr(ImageFont.FreeTypeFont, "getsize_multiline")
    assert not hasattr(np, "float")
    assert not hasattr(ImageFont.FreeTypeFont, "getsize_multiline")


def test_the_size_of_text_grows_with_its_lines_and_letters():
    font = ImageFont.load_default(size=20)
    width, height = augly_edits._getsize_multiline(font, "one")
    assert 20 < width < 60
    assert 10 < height < 30
    assert augly_edits._getsize_multiline(font, "one one")[0] > 2 * width
    assert augly_edits._getsize_multiline(font, "one\none")[0] == width
    assert augly_edits._getsize_multiline(font, "one\none")[1] > 1.5 * height


def test_without_augly_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    for name in ("augly", "augly.image"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stopped:
        judge.main(["make", str(SAMPLE), str(tmp_path / "judge"), "--seed", "1"])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("\n") == 1
    assert INSTALL in message
    assert not (tmp_path / "judge").exists()


# AugLy at work


@needs_augly
@pytest.mark.parametrize("name", sorted(EDITS))
def test_every_edit_works_does_something_and_does_it_again(name):
    rng = np.random.default_rng(7)
    image = picture(120, 90)
    changed = False
    for _ in range(6):
        edit = Edit(name, EDITS[name](Dice(rng, image.width, image.height, ("other",))))
        assert json.loads(json.dumps(edit.params)) == edit.params
        copies = [augly_edits.apply(image, edit, lambda _: picture(seed=1)) for _ in range(2)]
        assert copies[0].mode == "RGB"
        assert copies[0].size == copies[1].size
        assert copies[0].tobytes() == copies[1].tobytes()
        changed |= copies[0].size != image.size or copies[0].tobytes() != image.tobytes()
    assert changed
    assert image.tobytes() == picture(120, 90).tobytes()  # the argument is left as it was


@needs_augly
def test_a_caption_lies_over_the_picture():
    edit = Edit("meme_format", {"text": "so true", "caption_height": 40})
    copy = augly_edits.apply(picture(), edit, lambda _: picture())
    assert copy.size == (96, 120)
    assert np.array_equal(np.asarray(copy)[40:], np.asarray(picture()))
    caption = np.asarray(copy)[:40]
    assert caption.min() < 60  # letters
    assert (caption == 255).mean() > 0.5


@needs_augly
def test_a_perspective_of_no_strength_changes_nothing():
    edit = Edit("perspective_transform", {"sigma": 0.0})
    copy = augly_edits.apply(picture(), edit, lambda _: picture())
    difference = np.asarray(copy).astype(int) - np.asarray(picture())
    assert np.abs(difference[1:-1, 1:-1]).max() <= 1


@needs_augly
def test_a_failing_edit_names_itself():
    with pytest.raises(AssertionError) as failed:
        augly_edits.apply(picture(), Edit("crop", {"x1": 2}), lambda _: picture())
    assert "crop({'x1': 2})" in failed.value.__notes__[0]


@needs_augly
def test_a_picture_of_which_nothing_is_left_is_refused(monkeypatch):
    monkeypatch.setattr(augly_edits, "MIN_SIDE", 100_000)
    with pytest.raises(InputError, match="no chain of edits leaves enough of a picture of 96 × 80"):
        augly_edits.edit_chain(picture(), np.random.default_rng(0), ("other",), lambda _: picture(seed=1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "made"
    judge_make.make(SAMPLE, folder, seed=3, queries=30, workers=2)
    return folder


@needs_augly
def test_the_layout_is_the_challenges(made):
    references, queries = list_images(made / "references"), list_images(made / "queries")
    truth = read_ground_truth(made / "ground_truth.csv")
    assert list(references) == [f"R{i:06d}" for i in range(round(0.66 * 118))]
    assert list(queries) == [f"Q{i:05d}" for i in range(30)]
    assert truth.queries == set(queries)
    assert len(truth.pairs) == 15
    assert {reference for _, reference in truth.pairs} <= set(references)
    assert all(max(read_image(path).shape) <= 320 for path in [*references.values(), *queries.values()])
    copies = sorted(query for query, _ in truth.pairs)
    assert copies != [f"Q{i:05d}" for i in range(15)]  # an id does not tell


@needs_augly
def test_no_photo_has_two_roles(made):
    lines = [json.loads(line) for line in (made / "edits.jsonl").read_text().splitlines()]
    with (made / "photos.csv").open(newline="") as file:
        references = {row["id"]: Path(row["file"]).stem for row in csv.DictReader(file)}
    distractors = {line["source"] for line in lines if not line["reference_id"]}
    others = {
        edit["params"][key]
        for line in lines
        for edit in line["edits"]
        for key in ("background_image", "overlay")
        if key in edit["params"]
    }
    assert all(references[line["reference_id"]] == line["source"] for line in lines if line["reference_id"])
    assert len(distractors) == 15
    assert others
    assert not distractors & others
    assert not set(references.values()) & (distractors | others)
    assert all(1 <= len(line["edits"]) <= 4 for line in lines)


@needs_augly
def test_a_query_can_be_made_again_from_its_line(made):
    from isc.photos.decode import encode_jpeg
    from isc.photos.resizing import fit_within

    images = list_images(SAMPLE)

    def photo(name):
        return Image.fromarray(read_image(images[name]))

    line = json.loads((made / "edits.jsonl").read_text().splitlines()[0])
    copy = photo(line["source"])
    for edit in line["edits"]:
        copy = augly_edits.apply(copy, Edit(edit["name"], edit["params"]), photo)
    small = fit_within(np.array(copy), 320)
    files = {encode_jpeg(small, quality=quality) for quality in range(85, 96)}
    assert (made / "queries" / f"{line['query_id']}.jpg").read_bytes() in files


@needs_augly
def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(made, tmp_path):
    judge_make.make(SAMPLE, tmp_path / "again", seed=3, queries=30, workers=1)
    assert contents(tmp_path / "again") == contents(made)
    judge_make.make(SAMPLE, tmp_path / "other", seed=4, queries=30, workers=1)
    assert contents(tmp_path / "other")["queries/Q00000.jpg"] != contents(made)["queries/Q00000.jpg"]


@needs_augly
def test_what_is_there_is_not_written_over(made):
    with pytest.raises(InputError, match="is not empty"):
        judge_make.make(SAMPLE, made, seed=3)


# where the picture lies


def sample(name):
    return Image.fromarray(read_image(SAMPLE / f"{name}.jpg"))


@needs_augly
@pytest.mark.parametrize("name", [*MOVES, *sorted(EDITS.keys() - MOVES.keys())])
def test_the_matrix_tells_where_each_edit_moves_a_photo(name):
    """The photo, moved by the matrix, looks like the copy inside its region."""
    image, other = sample("S024"), lambda _: sample("S051")
    rng = np.random.default_rng(11)
    params = MOVES.get(name) or EDITS[name](Dice(rng, image.width, image.height, ("other",)))
    edit = Edit(name, params)
    copy = np.asarray(augly_edits.apply(image, edit, other))
    matrix = augly_geometry.chain_matrix(image.size, (edit,), other)
    assert matrix is not None
    if name not in MOVES:
        assert np.array_equal(matrix, np.eye(3))
        assert copy.shape[:2] == (image.height, image.width)
        return
    moved, inside = (
        cv2.warpPerspective(pixels, matrix, copy.shape[1::-1], flags=cv2.INTER_AREA)
        for pixels in (np.asarray(image), np.full((image.height, image.width), 255, np.uint8))
    )
    shown = cv2.erode(inside, np.ones((5, 5), np.uint8)) == 255
    assert shown.mean() > 0.05
    pair = [cv2.GaussianBlur(pixels, (0, 0), 1.5).astype(float)[shown].ravel() for pixels in (moved, copy)]
    assert np.corrcoef(*pair)[0, 1] > 0.97
    off = matrix.copy()
    off[0, 2] += 6
    wrong = cv2.warpPerspective(np.asarray(image), off, copy.shape[1::-1], flags=cv2.INTER_AREA)
    pair[0] = cv2.GaussianBlur(wrong, (0, 0), 1.5).astype(float)[shown].ravel()
    assert np.corrcoef(*pair)[0, 1] < 0.97  # six pixels off would be seen


@needs_augly
def test_the_matrix_of_a_chain_is_that_of_all_its_edits():
    image = sample("S024")
    chain = [
        Edit("pad", MOVES["pad"]),
        Edit("blur", {"radius": 2.0}),
        Edit("hflip", {}),
        Edit("scale", {"factor": 0.5}),
    ]
    matrix = augly_geometry.chain_matrix(image.size, chain, lambda _: image)
    copy = image
    for edit in chain:
        copy = augly_edits.apply(copy, edit, lambda _: image)
    left, top = 0.2 / 1.4, 0.05 / 1.1
    wanted = [[1 - left, top], [left, top], [left, 1 - top], [1 - left, 1 - top]]
    assert np.allclose(region(np.asarray(image), np.asarray(copy), matrix), wanted, atol=0.01)


@needs_augly
def test_nothing_left_to_tell_is_said():
    edit = Edit("crop", {"x1": 0.5, "y1": 0.5, "x2": 0.52, "y2": 0.52})
    assert augly_geometry.chain_matrix((200, 200), (edit,), lambda _: picture()) is None


# isc benchmark edits=augly


@needs_augly
def test_a_benchmark_by_augly(tmp_path):
    sizes = Sizes(references=8, copied=8, distractors=4, training=6, positive_queries=16, distractor_queries=8)
    for name, workers in (("one", 1), ("two", 2)):
        make_benchmark(
            SAMPLE, tmp_path / name, sizes=sizes, seed=1, workers=workers, recipe=Recipe(library=Library.augly)
        )
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    lines = [json.loads(line) for line in (tmp_path / "one" / "edits.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    assert all(1 <= len(line["edits"]) <= 4 and line["library"] == "augly" for line in lines)
    assert all(line["region"] is None or np.shape(line["region"]) == (4, 2) for line in lines)
    words = read_edits(tmp_path / "one" / "edits.jsonl")
    assert all(edit.describe() for edits in words.values() for edit in edits)


@needs_augly
def test_a_preset_of_auglys_is_one_of_its_kinds(tmp_path):
    sizes = Sizes(references=4, copied=4, distractors=2, training=2, positive_queries=4, distractor_queries=2)
    recipe = Recipe("overlay_text", library=Library.augly)
    make_benchmark(SAMPLE, tmp_path / "made", sizes=sizes, seed=1, recipe=recipe)
    names = {edit.name for edits in read_edits(tmp_path / "made" / "edits.jsonl").values() for edit in edits}
    assert names == {"overlay_text"}
    assert {kind for kind, _ in Recipe("each", library=Library.augly).cells} == EDITS.keys()
    with pytest.raises(InputError, match="no such preset with edits=augly; one of easy"):
        Recipe("quarter_turn", library=Library.augly)
    with pytest.raises(InputError, match="AugLy's edits have no strengths"):
        Recipe("each", "light", library=Library.augly)
    assert kinds_of(Library.augly) == tuple(sorted(EDITS))


def test_a_benchmark_without_augly_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "augly", None)
    monkeypatch.setitem(sys.modules, "augly.image", None)
    sizes = Sizes(references=4, copied=4, distractors=2, training=2, positive_queries=4, distractor_queries=2)
    with pytest.raises(InputError, match=r"augly not installed; expected AugLy 1\.0\.0: python -m pip"):
        make_benchmark(SAMPLE, tmp_path / "made", sizes=sizes, seed=1, recipe=Recipe(library=Library.augly))
    assert not list(tmp_path.iterdir())


# judging


def predictions():
    """Copies a, b, c of x, y, z; a found best, then a wrong pair of the distractor d, then b; c never."""
    matches = Matches.from_ids(["a", "d", "b"], ["x", "x", "y"], np.array([-0.1, -0.2, -0.3], np.float32))
    return matches, GroundTruth(frozenset("abcd"), frozenset({("a", "x"), ("b", "y"), ("c", "z")}))


def test_the_standard_error_is_that_of_slow_resampling():
    matches, truth = predictions()
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        drawn = ["abcd"[i] for i in rng.integers(4, size=4)]
        seen = right = gain = 0.0
        for name, times in ((name, drawn.count(name)) for name in "adb"):  # a query drawn twice counts as one step of 2
            seen += times
            right += times * (name != "d")
            gain += times * (name != "d") * right / max(seen, 1)
        found.append(gain / max(sum(query != "d" for query in drawn), 1))
    assert judge_score.standard_error(matches, truth, resamples=40) == pytest.approx(np.std(found))


def test_the_standard_error_falls_with_more_queries():
    rng = np.random.default_rng(0)

    def error(number):
        names = [f"{i:04d}" for i in range(number)]
        matches = Matches.from_ids(names, [f"r{name}" for name in names], rng.random(number).astype(np.float32))
        return judge_score.standard_error(
            matches, GroundTruth(frozenset(names), frozenset((name, f"r{name}") for name in names[: number // 2]))
        )

    assert 2 < error(100) / error(1600) < 8  # 4 = √16


def test_recall_by_edit_counts_copies_alone(tmp_path):
    from isc.data.csv_files import write_ground_truth, write_predictions

    matches, _ = predictions()
    chains = {"a": ["crop"], "b": ["crop", "blur"], "c": ["blur"], "d": ["crop", "hflip"]}
    truth = {"a": "x", "b": "y", "c": "z", "d": ""}
    lines = [
        {"query_id": query, "reference_id": truth[query], "edits": [{"name": name, "params": {}} for name in chain]}
        for query, chain in chains.items()
    ]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_ground_truth(tmp_path / "ground_truth.csv", list(truth.items()))
    write_predictions(tmp_path / "predictions.csv", matches)
    rows = [
        judge_score.Scored("sure", {"threshold_at_p90": -0.1}, tmp_path),
        judge_score.Scored("all", {"threshold_at_p90": -0.3}, tmp_path),
        judge_score.Scored("never", {"threshold_at_p90": None}, tmp_path),
    ]
    table = {
        row["edit"]: [row[key] for key in ("copies", "sure", "all", "never")]
        for row in judge_score.recall_by_edit(tmp_path, rows)
    }
    assert table == {
        "crop": [2, "0.50", "1.00", "0.00"],
        "blur": [2, "0.00", "0.50", "0.00"],
        "one edit": [2, "0.50", "0.50", "0.00"],
        "2 edits": [1, "0.00", "1.00", "0.00"],
    }


def test_a_model_may_be_given_a_name(tmp_path):
    run = tmp_path / "lr=0.3"
    run.mkdir()
    assert judge_score._named("imagenet") == ("imagenet", "imagenet")
    assert judge_score._named(f"ours={run}") == ("ours", str(run))
    assert judge_score._named(str(run)) == ("lr=0.3", str(run))


def test_descriptors_are_kept_by_the_weights_not_the_name(tmp_path):
    for name, weights in (("one", b"w"), ("two", b"w"), ("three", b"v")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    keys = [judge_score._key(str(tmp_path / name)) for name in ("one", "two", "three")]
    assert keys[0] == keys[1] != keys[2]
    assert judge_score._key(str(tmp_path / "one" / "model.safetensors")) == keys[0]
    assert judge_score._key("imagenet") == "imagenet"


def test_normalisation_without_training_photos_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        judge.main(["score", str(tmp_path), "imagenet", "--normalize", "subtract"])
    assert "go together" in capsys.readouterr().err


@needs_augly
def test_a_judge_scores_a_model(made, capsys):
    judge.main(["score", str(made), "start=imagenet", "--image-size", "64"])
    out = capsys.readouterr().out
    assert "start, 64 px" in out
    table = json.loads((made / "scores" / "judge.json").read_text(encoding="utf-8"))
    assert 0 < float(table[-1]["μAP"]) <= 1
    assert sum(row["copies"] for row in json.loads((made / "scores" / "judge_edits.json").read_text())[-4:]) == 15


def test_a_table_is_aligned():
    text = judge.text_table([{"": "a model", "μAP": "0.5"}, {"": "b", "μAP": "0.25"}])
    assert text == "          μAP\na model   0.5\nb        0.25"


def test_queries_of_photos_that_training_saw_are_not_judged(tmp_path, monkeypatch):
    lines = [
        {"query_id": "Q0", "reference_id": "R0", "source": "T1"},
        {"query_id": "Q1", "reference_id": "R1", "source": "T2"},
        {"query_id": "Q2", "reference_id": "", "source": "T3"},
    ]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    write_ground_truth(tmp_path / "ground_truth.csv", [("Q0", "R0"), ("Q1", "R1"), ("Q2", "")])
    monkeypatch.setattr(judge_score, "left_out", lambda: frozenset({"T9"}))
    assert judge_score.judged_truth(tmp_path) == tmp_path / "ground_truth.csv"
    monkeypatch.setattr(judge_score, "left_out", lambda: frozenset({"T1", "T9"}))
    truth = read_ground_truth(judge_score.judged_truth(tmp_path))
    assert (truth.queries, truth.pairs) == ({"Q1", "Q2"}, {("Q1", "R1")})
    matches = Matches.from_ids(["Q0", "Q1", "Q2"], ["R0", "R1", "R1"], [3.0, 2.0, 1.0])
    assert judge_score.standard_error(matches, truth, resamples=20) >= 0
