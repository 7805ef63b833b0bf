"""Pictures that are no photos, drawn by a program: pages, tables, charts, windows, logos, drawings, gradients, night.

    python -m benchmarks.graphics PHOTOS OUTPUT --count 1500 --seed 1
    python -m benchmarks.graphics SPLIT/dev GRAPHICS --count 1400 --seed 11 --table photos.csv \
        --kinds page table chart window logo drawing gradient night
    python -m benchmarks.judge make GRAPHICS JUDGES/graphics-dev --seed 5 --queries 1000

Most wrong matches with certainty are of such pictures: they have few colours, much white, and shapes that return. The
files are named G000000.png …, evenly of all KINDS; the same seed and photos give the same files. PHOTOS are used for
night and dark photos alone; with a table of their sources (columns id and source), those that come from screenshots,
charts, maps, scans and the like are linked beside what is drawn, as they are. Text is random words of the scripts that
the installed fonts have (Debian: fonts-noto-core, fonts-noto-cjk, fonts-dejavu-core), so that pages of many scripts
come.
"""

import argparse
import csv
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from isc.photos.decode import read_image
from isc.photos.folders import list_images

Rng = np.random.Generator
Colour = tuple[int, int, int]
SCRIPTS = {  # first and last code point of letters, and the fonts that have them
    "Latin": (0x61, 0x7A),
    "Greek": (0x3B1, 0x3C9),
    "Cyrillic": (0x430, 0x44F),
    "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x628, 0x63A),
    "Devanagari": (0x915, 0x939),
    "Thai": (0xE01, 0xE2E),
    "Georgian": (0x10D0, 0x10F0),
    "Han": (0x4E00, 0x5500),
    "Kana": (0x3042, 0x3093),
}
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
REAL = (  # parts of the names of sources whose pictures are graphics
    "screen", "chart", "map", "icon", "comic", "meme", "receipt", "manuscript", "clip", "logo", "hexo", "wesnoth",
    "wallpapers_d3ext", "playcanvas",
)  # fmt: skip
SHORT_LINE = 0.15  # share of lines that end a paragraph


@cache
def fonts(script: str) -> tuple[str, ...]:
    """Return the font files that have the letters of a script, by fontconfig."""
    first, _ = SCRIPTS[script]
    listed = subprocess.run(
        ["fc-list", f":charset={first:x}", "file"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return tuple(sorted(line.rstrip(": ") for line in listed if line.rstrip(": ").endswith((".ttf", ".otf", ".ttc"))))


def font(rng: Rng, script: str, size: int) -> ImageFont.FreeTypeFont:
    files = fonts(script) or fonts("Latin")
    return ImageFont.truetype(files[int(rng.integers(len(files)))], size)


def words(rng: Rng, script: str, count: int) -> str:
    first, last = SCRIPTS[script]
    made = (
        "".join(chr(int(code)) for code in rng.integers(first, last + 1, int(rng.integers(2, 9)))) for _ in range(count)
    )
    return " ".join(made)


def any_script(rng: Rng) -> str:
    return list(SCRIPTS)[int(rng.integers(len(SCRIPTS)))]


def colour(rng: Rng, low: int = 0, high: int = 256) -> Colour:
    red, green, blue = (int(one) for one in rng.integers(low, high, 3))
    return red, green, blue


def size(rng: Rng) -> tuple[int, int]:
    """Return width and height: portrait, landscape or square."""
    long, short = int(rng.integers(420, 900)), int(rng.integers(300, 420))
    return ((long, short), (short, long), (short, short))[int(rng.integers(3))]


def paper(rng: Rng) -> Colour:
    """Return a ground: mostly white, at times tinted or dark."""
    kind = rng.random()
    return WHITE if kind < 0.6 else colour(rng, 215, 256) if kind < 0.85 else colour(rng, 0, 50)


def ink(ground: Colour) -> Colour:
    return BLACK if sum(ground) > 380 else WHITE


@dataclass(frozen=True)
class Lettering:
    """Letters of one font, size and colour, and the script that the font has."""

    face: ImageFont.FreeTypeFont
    script: str
    fill: Colour

    @classmethod
    def drawn(cls, rng: Rng, script: str, height: int, fill: Colour) -> "Lettering":
        return cls(font(rng, script, height), script, fill)

    def fill_box(self, draw: ImageDraw.ImageDraw, rng: Rng, box: tuple[int, int, int, int]) -> None:
        """Write lines of random words into the box (left, top, right, bottom)."""
        left, y, right, bottom = box
        height = round(self.face.size)
        while y + height < bottom:
            line = words(rng, self.script, 14)
            while line and self.face.getlength(line) > right - left:
                line = line[:-2]
            if rng.random() < SHORT_LINE:
                line = line[: len(line) // 2]
            draw.text((left, y), line, font=self.face, fill=self.fill)
            y += round(height * 1.45)


def page(rng: Rng, _: list[Path]) -> Image.Image:
    width, height = size(rng)
    ground = paper(rng)
    picture = Image.new("RGB", (width, height), ground)
    draw, script, margin = ImageDraw.Draw(picture), any_script(rng), int(rng.integers(15, 60))
    letter = int(rng.integers(9, 18))
    draw.text((margin, margin), words(rng, script, 3), font=font(rng, script, letter * 2), fill=ink(ground))
    columns = int(rng.integers(1, 4))
    step = (width - 2 * margin) // columns
    for column in range(columns):
        left = margin + column * step
        text = Lettering.drawn(rng, script, letter, ink(ground))
        text.fill_box(draw, rng, (left, margin + letter * 4, left + step - 12, height - margin))
    return picture


def table(rng: Rng, _: list[Path]) -> Image.Image:
    width, height = size(rng)
    ground = paper(rng)
    picture = Image.new("RGB", (width, height), ground)
    draw, script = ImageDraw.Draw(picture), any_script(rng)
    rows, columns, margin = int(rng.integers(4, 18)), int(rng.integers(2, 7)), int(rng.integers(8, 40))
    tall, wide = (height - 2 * margin) / rows, (width - 2 * margin) / columns
    face, head = font(rng, script, max(8, int(min(tall * 0.5, 18)))), colour(rng)
    draw.rectangle((margin, margin, width - margin, margin + tall), fill=head)
    for row in range(rows):
        for column in range(columns):
            left, top = margin + column * wide, margin + row * tall
            draw.rectangle((left, top, left + wide, top + tall), outline=ink(ground))
            value = words(rng, script, 1) if column == 0 or row == 0 else f"{rng.normal(50, 40):.1f}"
            draw.text((left + 4, top + 3), value, font=face, fill=ink(head if row == 0 else ground))
    return picture


def chart(rng: Rng, _: list[Path]) -> Image.Image:
    width, height = size(rng)
    ground = paper(rng)
    picture = Image.new("RGB", (width, height), ground)
    draw, values = ImageDraw.Draw(picture), rng.random(int(rng.integers(3, 16)))
    left, top, right, bottom = 45, 40, width - 25, height - 40
    draw.text((left, 8), words(rng, script := any_script(rng), 3), font=font(rng, script, 16), fill=ink(ground))
    kind = int(rng.integers(4))
    if kind == 3:
        ends = np.cumsum(values / values.sum()) * 360
        for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True):
            radius = min(right - left, bottom - top)
            draw.pieslice((left, top, left + radius, top + radius), start, end, fill=colour(rng))
        return picture
    draw.line((left, top, left, bottom, right, bottom), fill=ink(ground), width=2)
    at = np.linspace(left + 10, right - 10, len(values))
    level = bottom - values * (bottom - top)
    if kind == 0:
        bar, fill = (at[1] - at[0]) * 0.35, colour(rng)
        for x, y in zip(at, level, strict=True):
            draw.rectangle((x - bar, y, x + bar, bottom), fill=fill)
    elif kind == 1:
        for _ in range(int(rng.integers(1, 4))):
            draw.line(
                list(zip(at, bottom - rng.random(len(at)) * (bottom - top), strict=True)), fill=colour(rng), width=3
            )
    else:
        fill = colour(rng)
        for x, y in zip(rng.uniform(left, right, 80), rng.uniform(top, bottom, 80), strict=True):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=fill)
    return picture


def window(rng: Rng, _: list[Path]) -> Image.Image:
    width, height = size(rng)
    ground, accent, script = paper(rng), colour(rng), any_script(rng)
    picture = Image.new("RGB", (width, height), ground)
    draw, face = ImageDraw.Draw(picture), font(rng, script, int(rng.integers(9, 15)))
    bar, side = int(rng.integers(22, 60)), int(rng.integers(0, 3)) * width // 8
    draw.rectangle((0, 0, width, bar), fill=accent)
    draw.text((10, bar // 4), words(rng, script, 3), font=face, fill=ink(accent))
    if side:
        draw.rectangle((0, bar, side, height), fill=tuple(max(0, one - 18) for one in ground))
        text = Lettering.drawn(rng, script, 10, ink(ground))
        text.fill_box(draw, rng, (8, bar + 10, side - 4, height))
    for _ in range(int(rng.integers(2, 9))):
        x, y = int(rng.integers(side + 8, width - 60)), int(rng.integers(bar + 8, height - 40))
        box = (x, y, min(width - 8, x + int(rng.integers(50, 260))), min(height - 8, y + int(rng.integers(20, 160))))
        draw.rounded_rectangle(box, radius=int(rng.integers(0, 12)), outline=ink(ground), fill=colour(rng, 120, 256))
        text = Lettering.drawn(rng, script, 11, BLACK)
        text.fill_box(draw, rng, (box[0] + 6, box[1] + 4, box[2] - 4, box[3]))
    return picture


def logo(rng: Rng, _: list[Path]) -> Image.Image:
    width, height = size(rng)
    picture = Image.new("RGB", (width, height), paper(rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(1, 5))):
        x, y, r = (
            rng.uniform(0.3, 0.7) * width,
            rng.uniform(0.3, 0.7) * height,
            rng.uniform(0.1, 0.3) * min(width, height),
        )
        kind = int(rng.integers(3))
        if kind == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour(rng))
        elif kind == 1:
            draw.rounded_rectangle((x - r, y - r / 2, x + r, y + r / 2), radius=r / 5, fill=colour(rng))
        else:
            draw.regular_polygon((x, y, r), int(rng.integers(3, 8)), rotation=int(rng.integers(360)), fill=colour(rng))
    script = any_script(rng)
    draw.text(
        (width * 0.25, height * 0.8), words(rng, script, 1), font=font(rng, script, height // 10), fill=colour(rng)
    )
    return picture


def drawing(rng: Rng, _: list[Path]) -> Image.Image:
    """Draw lines of a pen: smooth curves on paper."""
    width, height = size(rng)
    ground = paper(rng)
    picture = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 14))):
        turn = np.cumsum(rng.normal(0, 0.35, 60)) + rng.uniform(0, 6.28)
        x = rng.uniform(0.1, 0.9) * width + np.cumsum(np.cos(turn) * width * 0.012)
        y = rng.uniform(0.1, 0.9) * height + np.cumsum(np.sin(turn) * height * 0.012)
        draw.line(list(zip(x, y, strict=True)), fill=ink(ground), width=int(rng.integers(1, 5)))
    return picture


def gradient(rng: Rng, _: list[Path]) -> Image.Image:
    width, height = size(rng)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    angle = rng.uniform(0, 6.28)
    share = x * np.cos(angle) + y * np.sin(angle)
    if rng.random() < 0.4:
        share = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
    share = (share - share.min()) / np.ptp(share)
    one, other = (np.array(colour(rng, 0, 256 if rng.random() < 0.6 else 70)) for _ in range(2))
    pixels = one + share[..., None] * (other - one) + rng.normal(0, rng.uniform(0, 2), (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def sheet(rng: Rng, _: list[Path]) -> Image.Image:
    return Image.new("RGB", size(rng), colour(rng))


def night(rng: Rng, photos: list[Path]) -> Image.Image:
    """Darken a photo to 4–20 % of its light, with the noise of a sensor."""
    pixels = read_image(photos[int(rng.integers(len(photos)))]).astype(float) * rng.uniform(0.04, 0.2)
    return Image.fromarray((pixels + rng.normal(0, 1.5, pixels.shape)).clip(0, 255).astype(np.uint8))


def dark(rng: Rng, photos: list[Path]) -> Image.Image:
    """Darken the first photo to 6–15 % of its light, without noise."""
    pixels = read_image(photos[0]).astype(float) * rng.uniform(0.06, 0.15)
    return Image.fromarray(pixels.astype(np.uint8))


KINDS: dict[str, Callable[[Rng, list[Path]], Image.Image]] = {
    "page": page,
    "table": table,
    "chart": chart,
    "window": window,
    "logo": logo,
    "drawing": drawing,
    "gradient": gradient,
    "night": night,
    "sheet": sheet,
    "dark": dark,
}


def real_graphics(table: Path) -> set[str]:
    """Return the ids of the photos of a table with the columns id and source whose source is one of REAL."""
    with table.open(newline="", encoding="utf-8") as file:
        return {row["id"] for row in csv.DictReader(file) if any(part in row["source"].lower() for part in REAL)}


def make(
    photos: Path,
    output: Path,
    *,
    count: int,
    seed: int,
    kinds: tuple[str, ...] = tuple(KINDS),
    real: frozenset[str] | set[str] = frozenset(),
) -> None:
    """Write `count` pictures of these kinds in turn, each with a random stream of its own number.

    Photos with the ids `real` are linked as they are, and never darkened. Dark photos are taken in order, so that none
    comes twice: a photo at two lights would be a copy of itself.
    """
    output.mkdir(parents=True, exist_ok=True)
    listed = list_images(photos)
    for photo_id in real & listed.keys():
        (output / listed[photo_id].name).symlink_to(listed[photo_id].resolve())
    files = [path for photo_id, path in listed.items() if photo_id not in real]
    for number in range(count):
        kind, first = kinds[number % len(kinds)], number % max(1, len(files))
        choice = files[first:] if kind == "dark" else files
        KINDS[kind](np.random.default_rng([seed, number]), choice).save(output / f"G{number:06d}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=tuple(KINDS))
    parser.add_argument("--table", type=Path, metavar="PHOTOS.csv", help="the sources of PHOTOS (columns id, source)")
    given = parser.parse_args()
    real = real_graphics(given.table) if given.table else set()
    make(given.photos, given.output, count=given.count, seed=given.seed, kinds=tuple(given.kinds), real=real)
