"""Judged clips of a shop's items, made from photos: videos, what is said in them, and which item they show.

    python -m benchmarks.products_clips PHOTOS photos.csv items.csv OUTPUT --count 200 --others FOLDER

PHOTOS holds the photos of photos.csv (photo_id, item_id, split), by id; items.csv is item_id, name, kind, description.
A clip has 4 to 8 seconds: photos of one item as views, cut or faded, filmed by a hand that shakes, blurred, brighter
and darker, coded at any bit rate; photos of other items for moments between them; and at times the item as a region in
front of another photo. Some clips show no item of the shop: photos of --others, or of items that --hidden-items takes
out of the shop. What is said has the errors of a recogniser, and at times names the kind alone, or another item.

OUTPUT/clips/C0000.mp4 …          a clip's id is its name without the suffix
OUTPUT/transcripts/C0000.srt …    or C0000.json as Whisper writes it
OUTPUT/truth.json                 the layout of isc.products.submission; boxes of the whole photo, in frame and image
OUTPUT/clips.csv                  how each clip was made
OUTPUT/items.csv                  the shop: items.csv without the hidden items
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.products_shots import (
    RATE,
    Film,
    Picture,
    Rng,
    Shot,
    Size,
    filling,
    plain_background,
    region,
    write_film,
)
from benchmarks.products_speech import MODES, Item, speech, srt_text, whisper_values
from isc.data.csv_files import write_csv
from isc.data.files import atomic_folder, write_json, write_text
from isc.errors import InputError
from isc.photos.decode import read_image, size_of
from isc.photos.folders import list_images
from isc.photos.resizing import fit_within
from isc.products.answers import TrueMatch, Truth
from isc.products.submission import write_truth
from isc.runtime.progress import Report, progress
from isc.words.tables import required, rows

SIZES: tuple[Size, ...] = ((480, 360), (640, 360), (360, 480), (400, 400), (576, 432), (480, 480), (270, 480))
BIT_RATES = 120_000, 1_200_000  # a second
LONGEST = 640  # pixels of a photo's longest side
ABSENT = 0.25  # share of the clips without an item of the shop
REGIONS = 0.35  # share of the views that are regions
BETWEEN = 0.45  # share of the views before which something else comes for a moment
FADES, JSON = 0.4, 0.3  # shares of the cuts that are fades, and of the transcripts in JSON
COLUMNS = (
    *("video", "transcript", "item_id", "kind", "seconds", "width", "height", "bit_rate"),
    *("views", "regions", "between", "speech"),
)


@dataclass(frozen=True)
class Shop:
    """Items with their photos and shop images, by item id, and photos of other things.

    `hidden` are the items that the shop does not have. Raises InputError for an unknown hidden item, for no item with
    photos, and for such an item without a shop image.
    """

    items: Mapping[str, Item]
    photos: Mapping[str, Sequence[Path]]
    images: Mapping[str, Mapping[str, Size]]
    others: Sequence[Path] = ()
    hidden: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        unknown = next((name for name in sorted(self.hidden) if name not in self.items), None)
        if unknown is not None:
            raise InputError(f"--hidden-items {unknown}: is not among the {len(self.items):,} items")
        if not self.sold:
            raise InputError("no item of the shop has a photo in this split; expected at least one")
        bare = next((name for name in self.sold if not self.images.get(name)), None)
        if bare is not None:
            raise InputError(f"item {bare!r} has no shop image; expected a file {bare}.* or {bare}_*.*")

    @property
    def sold(self) -> list[str]:
        """Return the items of the shop that have photos."""
        return [name for name in self.items if self.photos.get(name) and name not in self.hidden]

    @property
    def unsold(self) -> list[str]:
        """Return the hidden items that have photos."""
        return [name for name in self.items if self.photos.get(name) and name in self.hidden]


@dataclass(frozen=True)
class Clip:
    """A clip before it is drawn: its film, the item it shows (None for no item of the shop), and what is said how."""

    film: Film
    item_id: str | None
    subject: Item | None
    mode: str


def read_shop(
    photos: Path,
    photos_csv: Path,
    items_csv: Path,
    *,
    split: str,
    images: Path,
    others: Path | None = None,
    hidden: Collection[str] = (),
) -> Shop:
    """Read the items, their photos of a split, and the folder of shop images, ITEM.* or ITEM_*.*, by item.

    Raises InputError, with the line, for an item that is given twice or is unknown, and for a photo without a file.
    """
    items: dict[str, Item] = {}
    for line, row in rows(items_csv, ("item_id", "name", "kind", "description")):
        name = required(items_csv, line, row, "item_id")
        if name in items:
            raise InputError(f"{items_csv}: line {line}: item {name!r} occurs twice; expected each once")
        named, kind = (required(items_csv, line, row, column) for column in ("name", "kind"))
        items[name] = Item(name, named, kind, row["description"].strip())
    files = list_images(photos)
    found: dict[str, list[Path]] = {name: [] for name in items}
    for line, row in rows(photos_csv, ("photo_id", "item_id", "split")):
        photo, name = (required(photos_csv, line, row, column) for column in ("photo_id", "item_id"))
        if name not in items:
            raise InputError(f"{photos_csv}: line {line}: item {name!r} is not in {items_csv}")
        if row["split"] != split:
            continue
        if photo not in files:
            raise InputError(f"{photos_csv}: line {line}: photo {photo!r} has no file in {photos}")
        found[name].append(files[photo])
    sizes: dict[str, dict[str, Size]] = {}
    for image, path in list_images(images).items():
        owner = image if image in items else image.rpartition("_")[0]
        sizes.setdefault(owner, {})[path.name] = size_of(path)
    elsewhere = () if others is None else tuple(list_images(others).values())
    return Shop(items, found, sizes, elsewhere, frozenset(hidden))


def make_clips(
    shop: Shop,
    output: Path,
    *,
    count: int,
    seed: int,
    absent: float = ABSENT,
    seconds: tuple[float, float] = (4.0, 8.0),
    sizes: Sequence[Size] = SIZES,
    report: Report | None = None,
) -> dict[str, Truth]:
    """Make `count` clips in a new folder; return their truths. The same arguments and files give the same bytes.

    `seconds` are the shortest and the longest clip, at least 1; `sizes` those that are drawn from, in even numbers.
    Raises InputError for a folder that holds something, and for a share of clips without an item but no photos of
    anything else.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists; expected a new folder")
    if not 0 <= absent <= 1 or count < 1:
        raise InputError(f"--count {count}, --absent {absent:g}; expected at least 1, and a share from 0 to 1")
    rng = np.random.default_rng([seed])
    without = set(rng.permutation(count)[: round(absent * count)].tolist())
    if without and not (shop.others or shop.unsold):
        raise InputError(f"--absent {absent:g}: nothing else to show; expected --others, --hidden-items, or --absent 0")
    turns = [shop.sold[at] for _ in range(-(-count // len(shop.sold))) for at in rng.permutation(len(shop.sold))]
    truths: dict[str, Truth] = {}
    lines: list[tuple[object, ...]] = []
    with atomic_folder(output) as folder:
        for name in ("clips", "transcripts"):
            (folder / name).mkdir()
        for number in range(count):
            video, one = f"C{number:04}", np.random.default_rng([seed, number])
            size = sizes[int(one.integers(len(sizes)))]
            frames = round(float(one.uniform(*seconds)) * RATE)
            clip = draw_clip(shop, None if number in without else turns[number], frames, size, one)
            truths[video] = truth_of(shop, clip)
            lines.append(_write(folder, video, clip, shop, one))
            if report is not None:
                report(number + 1, count)
        write_truth(folder / "truth.json", truths)
        write_csv(folder / "clips.csv", COLUMNS, iter(lines))
        kept = [one for name, one in shop.items.items() if name not in shop.hidden]
        columns = ("item_id", "name", "kind", "description")
        write_csv(folder / "items.csv", columns, ([getattr(one, name) for name in columns] for one in kept))
    return truths


def draw_clip(shop: Shop, item_id: str | None, frames: int, size: Size, rng: Rng) -> Clip:
    """Draw the shots of a clip of an item, None for something that the shop does not have."""
    subject, photos, fillers = _subject(shop, item_id, rng)
    shots: list[Shot] = []
    for at in range(int(rng.integers(2, 5))):
        photo = _read(photos[at % len(photos)])
        if shots and fillers and rng.random() < BETWEEN:
            shots.append(filling(_read(_one_of(fillers, rng)), size, rng))
        if rng.random() < REGIONS:
            behind = _read(_one_of(shop.others, rng)) if shop.others else plain_background(size, rng)
            shots.append(region(photo, behind, size, rng, item_id=subject))
        else:
            shots.append(filling(photo, size, rng, item_id=subject))
    lasts = _lengths([shot.item_id == subject for shot in shots], frames, rng)
    fades = [0, *(int(rng.integers(6, 11)) if rng.random() < FADES else 0 for _ in shots[1:])]
    fades = [min(fade, lasts[at - 1], lasts[at]) for at, fade in enumerate(fades)]
    mode = str(rng.choice(list(MODES), p=list(MODES.values())))
    return Clip(Film(tuple(shots), tuple(lasts), tuple(fades), size), item_id, shop.items.get(subject), mode)


def truth_of(shop: Shop, clip: Clip) -> Truth:
    """Return the truth of a clip; the place of an item in its shop images is the whole image."""
    if clip.item_id is None:
        return Truth()
    ranges, track = clip.film.seen(clip.item_id)
    matches = [TrueMatch(name, (0, 0, *size), track) for name, size in shop.images[clip.item_id].items()]
    return Truth(clip.item_id, ranges, tuple(matches), shop.items[clip.item_id].kind)


def _subject(shop: Shop, item_id: str | None, rng: Rng) -> tuple[str, Sequence[Path], Sequence[Path]]:
    """Draw what a clip shows: its name ("" for photos of --others), its photos, and those for moments between."""
    if item_id is not None:
        near = [name for name in shop.sold if name != item_id and shop.items[name].kind == shop.items[item_id].kind]
        far = [name for name in shop.sold if name != item_id]
        between = near if near and rng.random() < 0.5 else far
        fillers = [path for name in between for path in shop.photos[name]]
        return item_id, _shuffled(shop.photos[item_id], rng), fillers
    if shop.unsold and (not shop.others or rng.random() < 0.5):
        name = shop.unsold[int(rng.integers(len(shop.unsold)))]
        fillers = [path for other in shop.unsold if other != name for path in shop.photos[other]]
        return name, _shuffled(shop.photos[name], rng), fillers or shop.others
    return "", [_one_of(shop.others, rng)], shop.others


def _lengths(views: list[bool], frames: int, rng: Rng) -> list[int]:
    """Draw the frames of each shot: 7 to 14 of what comes between, a third in all at most, and the rest for the views.

    A view has at least 2 frames if there are 24 in all.
    """
    most = frames // (3 * max(1, views.count(False)))
    lasts = [0 if view else min(most, int(rng.integers(7, 15))) for view in views]
    left = frames - sum(lasts)
    parts = rng.uniform(1, 2, sum(views))
    edges = np.round(np.cumsum(parts) / parts.sum() * left).astype(int)
    shares = iter(np.diff(edges, prepend=0).tolist())
    return [next(shares) if view else last for view, last in zip(views, lasts, strict=True)]


def _write(folder: Path, video: str, clip: Clip, shop: Shop, rng: Rng) -> tuple[object, ...]:
    """Write the video and the transcript of a clip; return its row of COLUMNS."""
    film, (width, height) = clip.film, clip.film.size
    seconds = sum(film.lasts) / RATE
    bit_rate = round(float(np.exp(rng.uniform(*np.log(BIT_RATES)))))
    names = [name for name in shop.items if name not in shop.hidden and name != clip.item_id] or list(shop.items)
    other = shop.items[names[int(rng.integers(len(names)))]]
    spoken = speech(clip.subject, other, seconds, mode=clip.mode, rng=rng)
    transcript = folder / "transcripts" / f"{video}{'.json' if rng.random() < JSON else '.srt'}"
    if transcript.suffix == ".json":
        write_json(transcript, whisper_values(spoken))
    else:
        write_text(transcript, srt_text(spoken))
    write_film(folder / "clips" / f"{video}.mp4", film, bit_rate=bit_rate)
    views = [shot for shot in film.shots if shot.item_id is not None]
    kind = "" if clip.item_id is None else shop.items[clip.item_id].kind
    counts = len(views), sum(shot.behind is not None for shot in views), len(film.shots) - len(views)
    mode = clip.mode if clip.subject is not None or clip.mode == "other" else "chat"
    return (video, transcript.name, clip.item_id or "", kind, f"{seconds:.3f}", width, height, bit_rate, *counts, mode)


def _read(path: Path) -> Picture:
    return fit_within(read_image(path), LONGEST)


def _one_of(paths: Sequence[Path], rng: Rng) -> Path:
    return paths[int(rng.integers(len(paths)))]


def _shuffled(paths: Sequence[Path], rng: Rng) -> list[Path]:
    return [paths[at] for at in rng.permutation(len(paths))]


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    try:
        shop = read_shop(
            given.photos,
            given.photos_csv,
            given.items_csv,
            split=given.split,
            images=given.shop_images or given.photos.parent / "items",
            others=given.others,
            hidden=given.hidden_items,
        )
        with progress("clips", "clips") as report:
            truths = make_clips(
                shop, given.output, count=given.count, seed=given.seed, absent=given.absent, report=report
            )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    shown = [one.item_id for one in truths.values() if one.item_id is not None]
    print(f"{given.output}: {len(truths):,} clips, {len(shown):,} of them of {len(set(shown)):,} items of the shop")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.products_clips",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of the photos, PHOTO_ID.*")
    parser.add_argument("photos_csv", type=Path, metavar="photos.csv", help="photo_id, item_id, split")
    parser.add_argument("items_csv", type=Path, metavar="items.csv", help="item_id, name, kind, description")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a new folder")
    parser.add_argument("--count", type=int, default=200, help="clips (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    parser.add_argument("--split", default="val", help="the photos that are used (default: val)")
    parser.add_argument(
        "--shop-images", type=Path, metavar="FOLDER", help="ITEM.* or ITEM_*.* (default: items beside PHOTOS)"
    )
    parser.add_argument("--others", type=Path, metavar="FOLDER", help="photos of anything that the shop does not have")
    parser.add_argument(
        "--hidden-items", nargs="+", default=(), metavar="ITEM", help="items that the shop does not have"
    )
    parser.add_argument(
        "--absent", type=float, default=ABSENT, help=f"share of clips without an item (default: {ABSENT})"
    )
    return parser


if __name__ == "__main__":
    main()
