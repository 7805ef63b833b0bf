"""Copies of photos found in videos, and the metric of segments."""

from __future__ import annotations

import importlib
import json
import os

import numpy as np
import pytest

import isc
from isc.data.hdf5 import read_descriptors
from isc.errors import InputError
from isc.find.index import Index
from isc.find.pages import write_matches_page
from isc.find.results import Verdict
from isc.video.scoring import Segment, read_segments, segment_ap
from tests.videos import PHOTOS, picture, slides, write_video

pytest.importorskip("av", reason="needs PyAV (pip install isc[video])")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    made = Index(tmp_path_factory.mktemp("known") / "known.index")
    made.add(*PHOTOS[:6])
    return made


@pytest.mark.slow
def test_a_photo_is_found_at_its_seconds_and_shown_on_the_page(index, tmp_path):
    path = write_video(tmp_path / "clip.mp4", slides([40, 2, 41, 4, 2], size=(480, 360)))
    found = index.find(str(path))
    copies = found.of_verdict(Verdict.copy)
    assert [(one.suspect, one.photo) for one in copies] == [
        (f"{path}#t=2.00,4.00", str(PHOTOS[2])),
        (f"{path}#t=6.00,8.00", str(PHOTOS[4])),
        (f"{path}#t=8.00,10.00", str(PHOTOS[2])),
    ]
    assert [one.frame for one in copies] == [2, 6, 8]
    write_matches_page(tmp_path / "index.html", found, title="Copies")
    text = (tmp_path / "index.html").read_text()
    assert text.count("data:image/jpeg") == 2 * len(found)
    assert 'href="clip.mp4"' in text


@pytest.mark.slow
def test_frames_of_one_photo_join_over_a_short_gap(index, tmp_path):
    photo = picture(3, (640, 480))
    pan = [photo[at : at + 380, at : at + 500] for at in range(75)]
    path = write_video(tmp_path / "pan.mp4", [*pan, *slides([40], seconds=1, size=(500, 380)), *reversed(pan)])
    copies = index.find(str(path)).of_verdict(Verdict.copy)
    assert [(one.suspect, one.photo) for one in copies] == [(f"{path}#t=0.00,7.00", str(PHOTOS[3]))]


def test_a_video_without_a_copy_has_one_row(index, tmp_path):
    path = write_video(tmp_path / "other.mp4", slides([40, 41, 42]))
    (row,) = index.find(str(path))
    assert (row.suspect, row.verdict) == (str(path), Verdict.none)


def test_a_folder_of_photos_and_videos(index, tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    write_video(folder / "clip.mp4", slides([1]))
    (folder / "copy.jpg").write_bytes(PHOTOS[5].read_bytes())
    (folder / "broken.mp4").write_bytes(b"no video")
    found = index.find(str(folder))
    assert {(row.suspect, row.photo) for row in found if row.verdict is Verdict.copy} == {
        (f"{folder}/clip.mp4#t=0.00,2.00", str(PHOTOS[1])),
        (f"{folder}/copy.jpg", str(PHOTOS[5])),
    }
    ((path, reason),) = found.unreadable
    assert path == f"{folder}/broken.mp4"
    assert "cannot be read as a video" in reason


def test_a_folder_of_videos_alone_and_programs_in_typescript(index, tmp_path):
    """A file .ts is a video if its bytes are those of a transport stream."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    write_video(folder / "clip.ts", slides([1]))
    (folder / "page.ts").write_text("export const answer: number = 42;\n")
    (folder / "short.ts").write_text("Game.start()\n")  # its first byte is that of a packet
    found = index.find(str(folder))
    assert [(row.suspect, row.photo) for row in found] == [(f"{folder}/clip.ts#t=0.00,2.00", str(PHOTOS[1]))]
    assert found.unreadable == ()


@pytest.mark.slow
def test_frames_follow_their_videos_and_a_broken_one_of_a_folder_is_left_out(place):
    clips = place.folder / "clips"
    clips.mkdir()
    write_video(clips / "a.mp4", slides([1, 40]))
    (clips / "b.mp4").write_bytes(b"no video")
    (clips / "photo.jpg").write_bytes(PHOTOS[5].read_bytes())
    done = place.done("extract", "images=clips", "output=clips.h5", "model=isc_small")
    assert "b.mp4" in done.err
    assert "left out" in done.err
    assert read_descriptors(place.folder / "clips.h5").ids.tolist() == ["a.mp4#t=0.00", "a.mp4#t=2.00", "photo"]
    write_video(clips / "a.mp4", slides([40]))
    os.utime(clips / "a.mp4", (1, 1))  # older than the frames of the one before, as a copied file may be
    place.done("extract", "images=clips", "output=clips.h5", "model=isc_small", "overwrite=true")
    assert read_descriptors(place.folder / "clips.h5").ids.tolist() == ["a.mp4#t=0.00", "photo"]
    assert sorted(one.name for one in (place.folder / "clips.h5.frames" / "a.mp4").iterdir()) == [
        "0000000.00.jpg", "frames.csv",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_commands_take_videos(index, place, capsys):
    main = importlib.import_module("isc.cli.main").main
    write_video(place.folder / "clip.mp4", slides([1, 40]))
    main(["index", "query", str(index.path), str(place.folder / "clip.mp4"), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["matches"][0]["suspect"].endswith("clip.mp4#t=0.00,2.00")
    place.done("extract", "images=clip.mp4", "output=clip.h5", "model=isc_small")
    found = read_descriptors(place.folder / "clip.h5")
    assert found.ids.tolist() == ["clip.mp4#t=0.00", "clip.mp4#t=2.00"]
    photo = isc.load().embed([PHOTOS[1]])[0]
    assert float(np.linalg.norm(found.vectors[0] - photo)) < 0.4
    before = (place.folder / "clip.h5").stat().st_mtime_ns
    place.done("extract", "images=clip.mp4", "output=clip.h5", "model=isc_small")
    assert (place.folder / "clip.h5").stat().st_mtime_ns == before
    (place.folder / "broken.mp4").write_bytes(b"no video")
    place.refused("extract", "images=broken.mp4", "output=b.h5", naming=("broken.mp4", "cannot be read as a video"))


A, B = ("a.mp4", "r1"), ("a.mp4", "r2")


def seg(pair, start, end, score=1.0, ref=(0.0, 1.0)):
    return Segment(*pair, (start, end), ref, score)


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([seg(A, 0, 10, 0.9), seg(B, 20, 30, 0.8)], 1),
        ([seg(A, 0, 10)], 0.5),
        ([], 0),
        # the first half of one: recall √(5/20 · 1/2), precision 1
        ([seg(A, 0, 5)], np.sqrt(0.25 * 0.5)),
        # twice too long: recall of one of two, precision √(10/20 · 1)
        ([seg(A, 0, 20)], 0.5 * np.sqrt(0.5)),
        # a wrong one first: precision √(10/20 · 1/2) when the right one comes
        ([seg(("b.mp4", "r1"), 0, 10, 0.9), seg(A, 0, 10, 0.8)], 0.5 * np.sqrt(0.25)),
        # the same again adds nothing
        ([seg(A, 0, 10, 0.9), seg(A, 0, 10, 0.8), seg(B, 20, 30, 0.7)], 1),
    ],
)
def test_the_metric_by_hand(predictions, expected):
    truth = [seg(A, 0, 10), seg(B, 20, 30)]
    assert segment_ap(truth, predictions) == pytest.approx(expected)


def test_the_metric_counts_seconds_as_a_grid_does():
    """The same by counting hundredths of a second, for pairs of videos with times on both sides."""
    rng = np.random.default_rng(3)

    def some(count, scored):
        made = []
        for _ in range(count):
            q, r = rng.integers(0, 80, 2)
            long = rng.integers(1, 20, 2)
            pair = ("abc"[rng.integers(3)], "rs"[rng.integers(2)])
            score = float(rng.random()) if scored else 1.0
            made.append(seg(pair, int(q), int(q + long[0]), score, (int(r), int(r + long[1]))))
        return made

    truth, predictions = some(8, False), some(30, True)

    def cells(segments, axis):
        return {
            (one.query_id, one.ref_id, second)
            for one in segments
            for second in range(*map(int, one.ref if axis else one.query))
        }

    total = recall = 0.0
    ordered = sorted(predictions, key=lambda one: -one.score)
    for count in range(1, len(ordered) + 1):
        said = ordered[:count]
        met = [
            t for t in truth if any((t.query_id, t.ref_id) == (p.query_id, p.ref_id) and t.overlaps(p) for p in said)
        ]
        hit = [len(cells(said, axis) & cells(met, axis)) for axis in (0, 1)]
        now = np.sqrt(hit[0] * hit[1] / (len(cells(truth, 0)) * len(cells(truth, 1))))
        precision = np.sqrt(hit[0] * hit[1] / (len(cells(said, 0)) * len(cells(said, 1))))
        total, recall = total + precision * (now - recall), now
    assert segment_ap(truth, predictions) == pytest.approx(total)
    assert 0 < total < 1


def test_segments_are_read_and_bad_ones_refused(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("query_id,ref_id,query_start,query_end,score\na.mp4,r1,0,10,0.5\n")
    assert read_segments(path, scored=True) == [seg(A, 0, 10, 0.5)]
    path.write_text("query_id,ref_id,query_start,query_end,score\na.mp4,r1,10,10,0.5\n")
    with pytest.raises(InputError, match=r"s\.csv, line 2: query from 10\.0 to 10\.0 s"):
        read_segments(path, scored=True)
    path.write_text("query_id,ref_id\n")
    with pytest.raises(InputError, match="no column query_end, query_start"):
        read_segments(path, scored=False)
    with pytest.raises(InputError, match="no true segments"):
        segment_ap([], [])
