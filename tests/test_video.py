"""Frames of videos of all kinds, whole and damaged."""

from __future__ import annotations

import resource
import struct
from itertools import cycle, islice

import numpy as np
import pytest

from isc.errors import InputError
from tests.videos import picture, slides, write_video

pytest.importorskip("av", reason="needs PyAV (pip install isc[video])")

import av

from isc.video import reading
from isc.video.reading import Stretch, any_metadata, frame_at, frames, is_video, rate_and_size
from isc.video.sound import sound


def times(found):
    return [(round(one.start, 2), round(one.end, 2)) for one in found]


def like(pixels, expected):
    return np.abs(pixels.astype(int) - expected).mean() < 20


def test_a_still_picture_is_one_frame_that_lasts_until_the_next(tmp_path):
    found = list(frames(write_video(tmp_path / "a.mp4", slides([3, 7, 3]))))
    assert times(found) == [(0, 2), (2, 4), (4, 6)]
    assert [like(one.pixels, picture(number)) for one, number in zip(found, [3, 7, 3], strict=True)] == [True] * 3


def test_a_change_is_seen_at_once_and_slow_motion_every_second(tmp_path):
    photo = picture(5, (640, 480))
    moving = [photo[at // 4 : at // 4 + 240, at // 4 : at // 4 + 320] for at in range(100)]
    found = list(frames(write_video(tmp_path / "a.mkv", [*slides([9], seconds=0.6), *moving])))
    assert times(found) == [(0, 0.6), (0.6, 1.6), (1.6, 2.6), (2.6, 3.6), (3.6, 4.6)]


def test_a_flicker_is_no_sequence_of_scenes(tmp_path):
    flicker = islice(cycle([picture(1), picture(2)]), 50)
    assert len(list(frames(write_video(tmp_path / "a.mp4", flicker)))) <= 2 / reading.LEAST


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mov", "libx264", "yuv444p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
    ],
)
def test_usual_files_are_read(tmp_path, name, codec, pix_fmt):
    found = list(frames(write_video(tmp_path / name, slides([3, 7], seconds=1), codec=codec, pix_fmt=pix_fmt)))
    assert len(found) == 2
    assert found[0].start == 0
    assert found[-1].end == pytest.approx(2, abs=0.1)
    assert [like(one.pixels, picture(number)) for one, number in zip(found, [3, 7], strict=True)] == [True, True]


def test_frames_of_any_length_keep_their_times(tmp_path):
    shown, at = [picture(number) for number in (1, 2, 3, 4)], [0, 10, 85, 100]
    found = frames(write_video(tmp_path / "a.mkv", shown, times=at))
    assert [start for start, _ in times(found)] == pytest.approx([0, 0.4, 3.4, 4.0], abs=0.02)


def test_a_portrait_keeps_its_shape_and_a_large_frame_shrinks(tmp_path):
    assert next(frames(write_video(tmp_path / "a.mp4", [picture(1, (240, 320))]))).pixels.shape == (320, 240, 3)
    assert next(frames(write_video(tmp_path / "b.mp4", [picture(1, (1920, 1080))]))).pixels.shape == (576, 1024, 3)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_turned_video_is_upright(tmp_path, matrix, turns):
    path = write_video(tmp_path / "a.mp4", slides([3], seconds=0.2))
    a, b, c, d = (one << 16 for one in matrix)
    straight = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    at = data.index(straight, data.index(b"tkhd"))  # the display matrix of the track
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + turned + data[at + len(straight) :])
    assert like(next(frames(path)).pixels, np.rot90(picture(3), turns))


def test_half_a_video_gives_its_first_half(tmp_path, caplog):
    path = write_video(tmp_path / "a.mkv", slides(range(8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = list(frames(path))
    assert 2 <= len(found) < 8
    assert like(found[1].pixels, picture(1))


def test_a_damaged_part_is_passed_over(tmp_path):
    path = write_video(tmp_path / "a.mkv", slides(range(8)))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    found = list(frames(path))
    assert like(found[0].pixels, picture(0))
    assert found[-1].end > 12


@pytest.mark.slow
def test_a_video_without_an_end_is_left_after_a_number_of_frames(tmp_path, caplog):
    photo = picture(5, (640, 480))
    moving = [photo[at % 200 : at % 200 + 240, at : at + 320] for at in range(300)]
    path = write_video(tmp_path / "a.ts", moving)
    assert len(list(frames(path, every=0.2, most=10))) <= 10
    stream = tmp_path / "b.mkv"  # of a length that is not written, as a recording that goes on
    stream.write_bytes(write_video(tmp_path / "c.mkv", moving).read_bytes().replace(b"\x44\x89", b"\xec\x88"))
    assert len(list(frames(stream, every=0.2, most=5))) == 5
    assert "only the first" in caplog.text


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    path = write_video(tmp_path / "a.mp4", (picture(at % 60) for at in range(300)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in frames(path, every=0.04)) > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kilobytes


def _sound(path):
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "make", "part"),
    [
        ("no.mp4", None, "no such file"),
        ("empty.mp4", lambda path: path.write_bytes(b""), "cannot be read as a video"),
        ("text.mp4", lambda path: path.write_text("not a video"), "cannot be read as a video"),
        ("sound.mp4", _sound, "has no pictures"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, name, make, part):
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        list(frames(tmp_path / name))
    assert part in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_frame_at_a_time(tmp_path):
    path = write_video(tmp_path / "a.mp4", slides([3, 7, 9]))
    for seconds, number in ((0, 3), (1.9, 3), (2.1, 7), (5.5, 9), (99, 9)):
        assert like(frame_at(path, seconds), picture(number)), seconds


@pytest.mark.parametrize("video", ["a.mp4", "/b/a clip, cut.MOV", "a#t=1.00,2.00.mkv"])
def test_a_stretch_is_written_and_read(video):
    one = Stretch(video, 1.5, 12.25)
    assert str(one) == f"{video}#t=1.50,12.25"
    assert Stretch.parse(str(one)) == one


@pytest.mark.parametrize(
    "text", ["a.mp4", "a.jpg#t=1.00,2.00", "a.mp4#t=1,2", "a.mp4#t=3.00,2.00", "a.mp4#t=1.00,2.00x"]
)
def test_other_names_are_no_stretch(text):
    assert Stretch.parse(text) is None


def test_wrong_values_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a start"):
        Stretch("a.mp4", 2, 1)
    with pytest.raises(ValueError, match="positive"):
        next(frames(tmp_path / "a.mp4", every=0))
    assert is_video("x/a.MP4")
    assert not is_video("x/.mp4")
    assert not is_video("a.jpg")


def test_pictures_of_an_unknown_codec_are_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", slides([0], seconds=0.2), codec="mpeg4")
    data = path.read_bytes()
    assert data.count(b"V_MPEG4/ISO/ASP") == 1
    path.write_bytes(data.replace(b"V_MPEG4/ISO/ASP", b"V_UNKNOWN/X/YZ!"))
    for read in (rate_and_size, lambda one: next(frames(one)), lambda one: frame_at(one, 0)):
        with pytest.raises(InputError, match=r"a\.mkv: its pictures are of a codec that is not known here"):
            read(path)


def test_a_title_that_is_no_utf8_refuses_no_video(tmp_path):
    with av.open(str(tmp_path / "plain.mp4"), "w") as out:
        out.metadata["title"] = "TITLE"
        stream = out.add_stream("libx264", rate=5)
        stream.width = stream.height = 64
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode())
    written = (tmp_path / "plain.mp4").read_bytes()
    assert b"TITLE" in written
    (tmp_path / "odd.mp4").write_bytes(written.replace(b"TITLE", b"\xfc\xff\xfe\xe9\xe8"))
    assert len(list(frames(tmp_path / "odd.mp4"))) == 1
    assert len(sound(tmp_path / "odd.mp4")) == 0


def test_pyav_19_has_no_word_for_metadata(monkeypatch):
    """Python 3.12 gets a newer PyAV than 3.11, which refuses the keyword."""
    monkeypatch.setattr(av, "__version__", "19.0.2")
    assert any_metadata() == {}
    monkeypatch.setattr(av, "__version__", "14.0.0")
    assert any_metadata() == {"metadata_errors": "ignore"}
