"""Clips of a shop's items: their videos, truths and transcripts, the same from the same seed; bad input in one line."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from isc.errors import InputError
from tests.conftest import SAMPLE

pytest.importorskip("av", reason="needs PyAV (pip install isc[video])")

import av

from benchmarks.products_clips import main, make_clips, read_shop
from benchmarks.products_shots import RATE, Film, Motion, Shot, filling, motion, plain_background, region, write_film
from benchmarks.products_speech import MODES, Item, cues, misheard, misspelt, sentence, sounding, srt_text
from isc.photos.decode import size_of
from isc.products.answers import Answer, Match
from isc.products.judge import judge
from isc.products.submission import read_truth
from isc.products.transcripts import read_transcript

ITEMS = """item_id,name,kind,description
A,Royal Gala,Apple,"A crispy apple. It has a thin, red and yellow peel."
B,Pink Lady,Apple,Sweet.
C,Bravo Orange Juice,Juice,
H,Leek,Leek,Long and green.
"""
SIZES = ((96, 64), (64, 96))
NO_MOTION = Motion(np.zeros((4, 3, 3)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of photos, P0 … of items A, A, B, B, C, C, H, H, shop images, other photos, and both tables."""
    folder = tmp_path_factory.mktemp("shop")
    for name in ("photos", "items", "others"):
        (folder / name).mkdir()
    lines = ["photo_id,item_id,split", "P0,A,train"]
    for number, item in enumerate("AABBCCHH"):
        shutil.copy(SAMPLE / f"S{number:03}.jpg", folder / "photos" / f"P{number}.jpg")
        lines.append(f"P{number},{item},val")
    for number, name in enumerate(["A_1", "A_2", "B", "C"]):
        shutil.copy(SAMPLE / f"S{number + 20:03}.jpg", folder / "items" / f"{name}.jpg")
    shutil.copy(SAMPLE / "S050.jpg", folder / "others")
    (folder / "photos.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "items.csv").write_text(ITEMS, encoding="utf-8")
    return folder


def shop_of(files, **changes):
    given = {"split": "val", "images": files / "items", "others": files / "others", "hidden": ["H"]} | changes
    return read_shop(files / "photos", files / "photos.csv", files / "items.csv", **given)


@pytest.fixture(scope="module")
def made(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "clips"
    truths = make_clips(shop_of(files), output, count=8, seed=3, seconds=(1.0, 1.5), sizes=SIZES)
    return output, truths


def decoded(path):
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].average_rate == RATE
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_quarter_of_the_clips_shows_nothing_of_the_shop(made, files):
    output, truths = made
    assert sum(one.item_id is None for one in truths.values()) == 2
    assert {one.item_id for one in truths.values()} == {None, "A", "B", "C"}
    assert {one.kind for one in truths.values()} == {None, "Apple", "Juice"}
    with (output / "items.csv").open(encoding="utf-8", newline="") as file:
        assert [row["item_id"] for row in csv.DictReader(file)] == ["A", "B", "C"]


def test_videos_and_truths_belong_together(made, files):
    output, truths = made
    images = {path.name: size_of(path) for path in (files / "items").iterdir()}
    sizes = {}
    for video, truth in truths.items():
        frames = decoded(output / "clips" / f"{video}.mp4")
        height, width = frames[0].shape[:2]
        sizes[video] = width, height
        assert 24 <= len(frames) <= 36
        assert all(last < len(frames) for _, last in truth.frames)
    assert set(sizes.values()) == set(SIZES)
    assert read_truth(output / "truth.json", image_sizes=images, frame_sizes=sizes) == truths
    of_a = next(one for one in truths.values() if one.item_id == "A")
    assert [one.img_name for one in of_a.matches] == ["A_1.jpg", "A_2.jpg"]
    assert of_a.matches[0].item_box == (0, 0, *images["A_1.jpg"])


def test_what_is_said_is_there_for_each_clip(made):
    output, truths = made
    with (output / "clips.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["video"] for line in lines] == list(truths)
    for line in lines:
        spoken = read_transcript(output / "transcripts" / line["transcript"])
        assert 0 < spoken[-1].end <= float(line["seconds"])
        assert line["item_id"] == (truths[line["video"]].item_id or "")
        assert line["speech"] in MODES
        assert int(line["views"]) >= 2
    assert {line["transcript"].rpartition(".")[2] for line in lines} == {"srt", "json"}


def test_the_truth_of_the_clips_is_a_perfect_answer(made):
    _, truths = made
    answers = {}
    for video, one in truths.items():
        frame = one.frames[-1][1] if one.item_id else None
        found = tuple(Match(each.img_name, each.item_box, each.box_at(frame)) for each in one.matches)
        answers[video] = Answer(one.item_id, frame, found)
    assert judge(answers, truths, resamples=10).overall.score.value == pytest.approx(1)


def test_the_same_seed_gives_the_same_bytes(made, files, tmp_path):
    output, _ = made
    make_clips(shop_of(files), tmp_path / "again", count=8, seed=3, seconds=(1.0, 1.5), sizes=SIZES)
    names = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert len(names) == 19
    assert all((output / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    other = make_clips(shop_of(files), tmp_path / "other", count=2, seed=4, seconds=(1.0, 1.0), sizes=SIZES)
    assert other != {video: made[1][video] for video in other}


def test_hidden_items_alone_can_be_what_the_shop_does_not_have(files, tmp_path):
    shop = shop_of(files, others=None)
    truths = make_clips(shop, tmp_path / "a", count=2, seed=0, absent=1, seconds=(1, 1), sizes=SIZES)
    assert all(one.item_id is None for one in truths.values())


@pytest.mark.parametrize("seed", range(5))
def test_the_box_of_a_region_is_where_its_pixels_are(seed):
    rng = np.random.default_rng(seed)
    size = (160, 120)
    white, black = np.full((60, 40, 3), 255, np.uint8), np.zeros((50, 80, 3), np.uint8)
    drawn = region(white, black, size, rng)
    shot = Shot(white, drawn.centre, drawn.scale, drawn.motion, black, drawn.camera)  # neither blurred nor darker
    for seconds in (0.0, 0.7, 3.1):
        bright = shot.draw(seconds, size).mean(axis=2) > 127
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        seen = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        assert np.abs(np.subtract(seen, shot.box(seconds, size))).max() <= 1.6  # a corner that is turned is thin


def test_a_photo_that_fills_the_frame_has_the_box_of_the_frame():
    rng = np.random.default_rng(0)
    photo = plain_background((80, 60), rng)
    shot = filling(photo, (96, 64), rng)
    assert {shot.box(at / 10, (96, 64)) for at in range(80)} == {(0, 0, 96, 64)}
    assert shot.draw(1.0, (96, 64)).shape == (64, 96, 3)


def test_motion_is_smooth_and_bounded():
    moves = motion(np.random.default_rng(1))
    track = np.array([moves.at(at / RATE) for at in range(10 * RATE)])
    assert (np.abs(track).max(axis=0) <= [0.04, 0.04, 3, 0.08]).all()
    assert (np.abs(np.diff(track, axis=0)).max(axis=0) < [0.02, 0.02, 1.3, 0.04]).all()


def test_a_fade_goes_from_one_shot_to_the_next(tmp_path):
    one, two = (
        Shot(np.full((64, 64, 3), grey, np.uint8), (32, 32), 1.2, NO_MOTION, item_id=name)
        for grey, name in ((0, "A"), (200, None))
    )
    film = Film((one, two, one), (10, 10, 10), (0, 6, 0), (64, 64))
    grey = [int(frame.mean()) for frame in film.frames()]
    assert grey[:7] == [0] * 7
    assert grey[7:13] == [17, 50, 83, 117, 150, 183]
    assert grey[13:] == [200] * 7 + [0] * 10
    assert film.seen("A")[0] == ((0, 9), (20, 29))
    assert [frame for frame, _ in film.seen("A")[1]] == [0, 9, 20, 29]
    write_film(tmp_path / "a.mp4", film, bit_rate=400_000)
    assert len(decoded(tmp_path / "a.mp4")) == 30


def test_errors_of_a_recogniser_are_made_at_their_rate():
    rng = np.random.default_rng(0)
    words = ("the royal gala is a crispy and juicy apple " * 50).split()
    assert misheard(words, rate=0, rng=rng) == words
    wrong = misheard(words, rate=0.3, rng=rng)
    assert 0.05 < sum(word not in words for word in wrong) / len(words) < 0.4
    assert all(misheard(["leek"], rate=1, rng=rng) for _ in range(50))
    assert all(misspelt(word, rng=rng) for word in words)
    assert sounding("Pear,", rng=rng) == "pair"
    assert sounding("x", rng=rng) == "x"


@pytest.mark.parametrize("mode", MODES)
def test_sentences_say_what_their_mode_names(mode):
    rng = np.random.default_rng(0)
    item = Item("C", "Bravo Orange Juice", "Juice", "Fresh and sour. Without pulp.")
    words = {"name": "orange", "kind": "juice", "brand": "bravo", "other": "orange"}
    for _ in range(10):
        said = sentence(item, mode=mode, rng=rng).lower()
        assert words.get(mode, "") in said
        if mode == "description":
            assert said.rstrip(".") in ("fresh and sour", "without pulp")
    assert sentence(None, mode="name", rng=rng)


def test_cues_come_back_from_subrip(tmp_path):
    spoken = cues(list("abcdefghijklm"), 3.0, rng=np.random.default_rng(0))
    (tmp_path / "a.srt").write_text(srt_text(spoken), encoding="utf-8")
    assert read_transcript(tmp_path / "a.srt") == spoken
    assert spoken[-1].end <= 3


def arguments_of(files, output, *more):
    return [str(files / "photos"), str(files / "photos.csv"), str(files / "items.csv"), str(output), *more]


@pytest.mark.slow
def test_the_program_makes_clips_and_says_how_many(files, tmp_path, capsys):
    main(arguments_of(files, tmp_path / "made", "--count", "1", "--absent", "0", "--hidden-items", "H"))
    assert "made: 1 clips, 1 of them of 1 items" in capsys.readouterr().out
    frames = decoded(tmp_path / "made" / "clips" / "C0000.mp4")
    assert 4 * RATE <= len(frames) <= 8 * RATE


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "test"], "no item of the shop has a photo"),
        (["--hidden-items", "Z"], "--hidden-items Z: is not among the 4 items"),
        (["--shop-images", "none"], "none: no such folder"),
        (["--others", "none"], "none: no such folder"),
        ([], "item 'H' has no shop image; expected a file H.* or H_*.*"),
        (["--hidden-items", "H", "--count", "0"], "--count 0"),
        (["--hidden-items", "H", "--absent", "1.5"], "--absent 1.5"),
    ],
)
def test_bad_input_is_refused_in_one_line(files, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments_of(files, tmp_path / "made", *more))
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("photos.csv", "photo_id,item_id,split\nP9,A,val\n", r"line 2: photo 'P9' has no file in"),
        ("photos.csv", "photo_id,item_id,split\nP0,Z,val\n", r"line 2: item 'Z' is not in"),
        ("photos.csv", "photo_id,item_id\nP0,A\n", "no column split"),
        ("items.csv", f"{ITEMS}A,x,y,z\n", "line 6: item 'A' occurs twice"),
        ("items.csv", f"{ITEMS}D,,y,z\n", "line 6: name is empty"),
    ],
)
def test_bad_tables_are_refused_by_line(files, tmp_path, name, text, message):
    tables = {other: files / other for other in ("photos.csv", "items.csv")} | {name: tmp_path / name}
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_shop(files / "photos", *tables.values(), split="val", images=files / "items")


def test_a_folder_that_holds_something_is_not_written_to(files, tmp_path):
    (tmp_path / "a").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="exists; expected a new folder"):
        make_clips(shop_of(files), tmp_path, count=1, seed=0)
    with pytest.raises(InputError, match="nothing else to show"):
        make_clips(shop_of(files, others=None, hidden=[], split="train"), tmp_path / "b", count=4, seed=0)
