"""Photos found in videos: segment μAP, by `isc find` and by a hash, and seconds of video a second.

    python -m benchmarks.video PHOTOS WORK [--videos 20]

Videos are made from PHOTOS that no training has seen: shots of 2 to 6 seconds, half of them of photos in the library,
edited as videos are (zoom, pan, picture in picture, caption, mirror, blur, dark, fades, low bit rates, and plain cuts),
half of other photos; another part of PHOTOS is in the library and in no video. The score of a segment is the metric of
the Video Similarity Challenge. The peer is PDQ: frames within 31 bits of a photo's hash, joined in the same way. The
bound of reading is PyAV that decodes and does no more.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

import isc
from benchmarks import save
from isc.find.videos import GAP
from isc.photos.decode import read_image
from isc.photos.folders import list_images
from isc.video.reading import Stretch, frames
from isc.video.scoring import Segment, read_segments, segment_ap

Picture = npt.NDArray[np.uint8]
Rng = np.random.Generator
WIDTH, HEIGHT, RATE = 640, 360, 25
SHOTS = 10  # of a video
BITS = 31  # distance of PDQ's hashes up to which its makers call pictures alike


@dataclass(frozen=True)
class Shot:
    """A photo with an edit: a function from time 0…1 to a picture [HEIGHT, WIDTH, 3]."""

    kind: str
    at: Callable[[float], Picture]


def framed(picture: Picture) -> Picture:
    """Scale a picture until it fills the frame, and cut what is over."""
    scale = max(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
    size = max(WIDTH, round(picture.shape[1] * scale)), max(HEIGHT, round(picture.shape[0] * scale))
    large = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    y, x = (large.shape[0] - HEIGHT) // 2, (large.shape[1] - WIDTH) // 2
    return np.asarray(large[y : y + HEIGHT, x : x + WIDTH], np.uint8)


def shot(kind: str, picture: Picture, other: Picture, rng: Rng) -> Shot:
    full = framed(picture)

    def zoom(t: float) -> Picture:
        part = 1 - 0.4 * t
        h, w = int(HEIGHT * part), int(WIDTH * part)
        y, x = (HEIGHT - h) // 2, (WIDTH - w) // 2
        return np.asarray(cv2.resize(full[y : y + h, x : x + w], (WIDTH, HEIGHT)), np.uint8)

    def pan(t: float) -> Picture:
        h, w = int(0.7 * HEIGHT), int(0.7 * WIDTH)
        x, y = int(t * (WIDTH - w)), int(t * (HEIGHT - h))
        return np.asarray(cv2.resize(full[y : y + h, x : x + w], (WIDTH, HEIGHT)), np.uint8)

    place = int(rng.integers(0, WIDTH // 2)), int(rng.integers(0, HEIGHT // 2))
    behind = framed(other)

    def inset(_: float) -> Picture:
        made = behind.copy()
        small = cv2.resize(full, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
        made[place[1] : place[1] + HEIGHT // 2, place[0] : place[0] + WIDTH // 2] = small
        return made

    def caption(_: float) -> Picture:
        made = full.copy()
        made[-80:] = made[-80:] // 4
        cv2.putText(made, "BREAKING: " + "news " * 6, (12, HEIGHT - 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255,) * 3, 2)
        return made

    def fade(t: float) -> Picture:
        return np.asarray(full * min(1.0, 0.1 + 2 * t, 2.1 - 2 * t), np.uint8)

    still: dict[str, Picture] = {
        "cut": full,
        "mirror": np.ascontiguousarray(full[:, ::-1]),
        "blur": np.asarray(cv2.GaussianBlur(full, (0, 0), 3), np.uint8),
        "dark": np.asarray(full * 0.35, np.uint8),
    }
    moving = {"zoom": zoom, "pan": pan, "inset": inset, "caption": caption, "fade": fade}
    return Shot(kind, moving[kind] if kind in moving else lambda _: still[kind])


KINDS = ("cut", "zoom", "pan", "inset", "caption", "mirror", "blur", "dark", "fade")


def make(photos: dict[str, Path], work: Path, videos: int) -> None:
    """Make WORK/videos, WORK/library (links) and WORK/truth.csv."""
    rng = np.random.default_rng(8)
    names = [list(photos)[at] for at in rng.permutation(len(photos))]
    used = videos * SHOTS
    shown, never, others = names[:used:2], names[used : 2 * used], names[1:used:2]
    (work / "library").mkdir(parents=True)
    for name in [*shown, *never]:
        (work / "library" / photos[name].name).symlink_to(photos[name].resolve())
    (work / "videos").mkdir()
    rows = []
    for number in range(videos):
        at = slice(number * SHOTS // 2, (number + 1) * SHOTS // 2)
        order = [*((name, True) for name in shown[at]), *((name, False) for name in others[at])]
        now, shots = 0.0, []
        for place in rng.permutation(len(order)).tolist():
            name, known = order[place]
            kind, seconds = str(rng.choice(KINDS)), float(rng.integers(2, 7))
            other = others[int(rng.integers(len(others)))]
            shots.append((shot(kind, read_image(photos[name]), read_image(photos[other]), rng), seconds))
            if known:
                rows.append((f"v{number:02}.mp4", photos[name].name, now, now + seconds, kind))
            now += seconds
        write(work / "videos" / f"v{number:02}.mp4", shots, crf=int(rng.choice([23, 32, 38])))
    with (work / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "ref_id", "query_start", "query_end", "kind"])
        writer.writerows(rows)


def write(path: Path, shots: list[tuple[Shot, float]], *, crf: int) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        count = 0
        for one, seconds in shots:
            total = round(seconds * RATE)
            for at in range(total):
                frame = av.VideoFrame.from_ndarray(one.at(at / total), format="rgb24")
                frame.pts, frame.time_base = count, Fraction(1, RATE)
                count += 1
                out.mux(stream.encode(frame))
        out.mux(stream.encode())


def by_isc(work: Path, *, pixels: bool) -> list[Segment]:
    index = isc.Index(work / "library.index")
    index.sync(work / "library")
    found = []
    for match in index.find(work / "videos", pixels=pixels):
        stretch = Stretch.parse(match.suspect)
        if stretch is not None and match.photo is not None and stretch.end > stretch.start:
            times = stretch.start, stretch.end
            found.append(Segment(Path(stretch.video).name, Path(match.photo).name, times, score=match.probability))
    return found


def by_pdq(work: Path) -> list[Segment]:
    import pdqhash

    def bits(pixels: Picture) -> npt.NDArray[np.uint8]:
        return np.asarray(pdqhash.compute(np.ascontiguousarray(pixels))[0], np.uint8)

    names = sorted(path.name for path in (work / "library").iterdir())
    known = np.stack([bits(read_image(work / "library" / name)) for name in names])
    found = []
    for video in sorted((work / "videos").iterdir()):
        near: dict[str, list[tuple[float, float, int]]] = {}
        for frame in frames(video):
            apart = np.count_nonzero(known != bits(frame.pixels), axis=1)
            for at in np.flatnonzero(apart <= BITS).tolist():
                near.setdefault(names[at], []).append((frame.start, frame.end, int(apart[at])))
        for name, times in near.items():
            found += [Segment(video.name, name, (start, end), score=-bits) for start, end, bits in joined(times)]
    return found


def joined(times: list[tuple[float, float, int]]) -> Iterator[tuple[float, float, int]]:
    start, end, best = times[0]
    for begin, until, bits in times[1:]:
        if begin - end < GAP:
            end, best = until, min(best, bits)
        else:
            yield start, end, best
            start, end, best = begin, until, bits
    yield start, end, best


def recall_of(kind: str, truth: list[tuple[Segment, str]], found: list[Segment]) -> str:
    wanted = [segment for segment, its in truth if its == kind]
    hit = sum(any(f.query_id == t.query_id and f.ref_id == t.ref_id and f.overlaps(t) for f in found) for t in wanted)
    return f"{hit} of {len(wanted)}"


def timed(action: Callable[[], list[Segment]]) -> tuple[list[Segment], float]:
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--videos", type=int, default=20)
    given = parser.parse_args()
    if not (given.work / "truth.csv").exists():
        make(list_images(given.photos), given.work, given.videos)
    truth = read_segments(given.work / "truth.csv", scored=False)
    with (given.work / "truth.csv").open(encoding="utf-8", newline="") as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    labelled = list(zip(truth, kinds, strict=True))
    videos = sorted((given.work / "videos").iterdir())
    length = 0.0
    start = time.perf_counter()
    for video in videos:
        with av.open(str(video)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                length += frame.width > 0 and 1 / RATE
    bare = time.perf_counter() - start
    start = time.perf_counter()
    looked = sum(1 for video in videos for _ in frames(video))
    reading = time.perf_counter() - start
    by_isc(given.work, pixels=False)  # the library is described once
    runs = {
        "PDQ, frames within 31 bits": timed(lambda: by_pdq(given.work)),
        "isc find --fast": timed(lambda: by_isc(given.work, pixels=False)),
        "isc find": timed(lambda: by_isc(given.work, pixels=True)),
    }
    rows: list[dict[str, object]] = []
    for name, (found, took) in runs.items():
        rows.append(
            {
                "": name,
                "segment μAP": f"{segment_ap(truth, found):.3f}",
                **{kind: recall_of(kind, labelled, found) for kind in KINDS},
                "wrong pairs": sum(
                    not any((f.query_id, f.ref_id) == (t.query_id, t.ref_id) for t in truth) for f in found
                ),
                "s of video a second": f"{length / took:.1f}",
            }
        )
    save("video", rows)
    save(
        "video_reading",
        [
            {"": "PyAV decodes every frame", "s of video a second": f"{length / bare:.0f}", "÷ bare": "1.00"},
            {
                "": f"frames that differ, {looked} of {round(length * RATE)}",
                "s of video a second": f"{length / reading:.0f}",
                "÷ bare": f"{reading / bare:.2f}",
            },
        ],
    )


if __name__ == "__main__":
    main()
