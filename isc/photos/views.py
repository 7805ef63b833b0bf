"""Views of a photo, written as text: the whole picture, and further ones such as crops.

`flip+crop:0.7` has two steps joined by `+`, which needs no quotes in a shell. The whole picture comes first, then the
views of each step in the order of the text:

    flip          mirrored left to right
    rotate:90     turned counter-clockwise like `numpy.rot90`; also rotate:180 and rotate:270
    crop:0.7      the middle, 0.7 of the width and of the height
    crop:0:0:0.5:1  the region left:top:right:bottom in fractions of width and height
    tiles:2       2 × 2 regions, K × K for tiles:K: sides of 2/(K + 1) of the picture's, starts every 1/(K + 1), so that
                  neighbours overlap by half (for K = 2: sides of 2/3, starts at 0 and 1/3)
    scale:1.25    the whole picture, given to the network at 1.25 × its input size
    regions:4     the four likeliest places of another picture inside this one, different in each photo: `placed` puts
                  them among the views of one photo

This module handles texts, fractions and arrays only. It does not open, resize or describe photos, or find regions.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isc.data.option_texts import split_steps
from isc.errors import InputError

Pixels = npt.NDArray[np.uint8]
Region = tuple[float, float, float, float]

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
STEP = 32  # pixels: networks halve a picture five times
DIGITS = 6  # decimals of a fraction; precise to 1/50 pixel for a side of 20,000 pixels
LEAST_CROP, LEAST_SCALE, MOST_SCALE, MOST_TILES, MOST_REGIONS = 0.1, 0.25, 4.0, 8, 8
LONGEST_NAME = len("crop:") + 4 * len("0.123456") + 3  # characters of a view's name


@dataclass(frozen=True)
class View:
    """One view of a photo; without arguments the whole photo.

    `turn` counts quarter turns counter-clockwise, 0…3; `flip` mirrors left to right; `region` is left, top, right,
    bottom in fractions of width and height, 0…1; `scale` multiplies the side of the network's square input; `found` is
    the number, from 1, of a region that must still be found in the photo, or 0. A view differs from the whole in at
    most one field. Raises InputError if it differs in more, or if a value is out of its range.
    """

    turn: int = 0
    flip: bool = False
    region: Region = WHOLE
    scale: float = 1.0
    found: int = 0

    def __post_init__(self) -> None:
        left, top, right, bottom = (round(float(edge), DIGITS) for edge in self.region)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise InputError(f"region {self.region}; expected left < right and top < bottom, all in 0…1")
        object.__setattr__(self, "region", (left, top, right, bottom))
        object.__setattr__(self, "scale", round(float(self.scale), DIGITS))
        if self.turn not in range(4):
            raise InputError(f"turn={self.turn}; expected quarter turns, 0…3")
        if not LEAST_SCALE <= self.scale <= MOST_SCALE:
            raise InputError(f"scale={self.scale}; expected {LEAST_SCALE:g}…{MOST_SCALE:g}")
        if self.found not in range(MOST_REGIONS + 1):
            raise InputError(f"found={self.found}; expected the number of a region, 1…{MOST_REGIONS}, or 0 for none")
        if len(self._steps()) > 1:
            raise InputError(f"{'+'.join(self._steps())} in one view; expected one of them")

    @property
    def name(self) -> str:
        """The name stored with a descriptor: `whole`, `flip`, `rotate:90`, `crop:0.15:0.15:0.85:0.85`, `scale:1.25`.

        `region:1` is not stored: the region must still be found.
        """
        return next(iter(self._steps()), "whole")

    def pixels(self, picture: Pixels) -> Pixels:
        """Return the part of the photo [H, W, 3] that the view shows, turned, not resized; at least one pixel.

        The result may share memory with `picture`. Raises ValueError if the region must still be found.
        """
        if self.found:
            raise ValueError(f"{self.name} is another in each photo; expected the views of one, as `placed` gives them")
        height, width = picture.shape[:2]
        left, top, right, bottom = self.region
        rows, columns = _span(top, bottom, height), _span(left, right, width)
        seen = np.rot90(picture[rows, columns], self.turn)
        return np.ascontiguousarray(seen[:, ::-1] if self.flip else seen)

    def side(self, image_size: int) -> int:
        """Return the side, in pixels, of the square input of a network that normally takes `image_size`.

        With a scale it is the nearest multiple of 32 to the scaled side, at least 32.
        """
        if self.scale == 1:
            return image_size
        return max(STEP, STEP * int(image_size * self.scale / STEP + 0.5))

    def _steps(self) -> list[str]:
        """Return the steps by which the view differs from the whole photo."""
        named = {
            "flip": self.flip,
            f"rotate:{90 * self.turn}": self.turn != 0,
            f"crop:{':'.join(map(_written, self.region))}": self.region != WHOLE,
            f"scale:{_written(self.scale)}": self.scale != 1,
            f"region:{self.found}": self.found != 0,
        }
        return [name for name, holds in named.items() if holds]


def parse_views(text: str) -> tuple[View, ...]:
    """Parse `whole`, or steps joined by `+`; the first view is always the whole picture, named or not.

    Raises InputError, with the step, if it is unknown, out of its range, or repeats a view.
    """
    views = [View()]
    try:
        for name, given in _further_steps(text):
            step = name if given is None else f"{name}:{given}"
            for view in STEPS[name](step, given.split(":") if given else []):
                if view in views:
                    raise InputError(f"{step} gives {view.name} again; expected each view once")
                views.append(view)
    except InputError as error:
        raise InputError(f"views={text}: {error}") from error
    return tuple(views)


def _further_steps(text: str) -> list[tuple[str, str | None]]:
    """Return (name, text after its colon or None) of each step after the whole picture."""
    further = text.removeprefix("whole+")
    expected = f"whole, or steps joined by +: {', '.join(FORMS)}"
    return [] if text == "whole" else split_steps(further, STEPS, expected=expected)


def views_text(views: Sequence[View]) -> str:
    """Return the text of the views, the whole picture first; `parse_views` returns the same views.

    Crops and tiles are written as their regions, so that the text keeps its meaning if tiles:K changes.
    """
    regions = sum(view.found > 0 for view in views)
    return "+".join(f"regions:{regions}" if view.found else view.name for view in views if view.found <= 1)


def placed(views: Sequence[View], regions: Sequence[Region]) -> tuple[View, ...]:
    """Return the views of one photo, with the first of the `regions` found in it in place of regions:K.

    If there are too few, the middle 0.7, the middle 0.5, the tiles of tiles:2, of tiles:3 and so on follow. Views that
    are already present are skipped, so that no view of a photo occurs twice.
    """
    taken = {view for view in views if not view.found}
    others = _others(taken, regions)
    return tuple(next(others) if view.found else view for view in views)


def _others(taken: set[View], regions: Sequence[Region]) -> Iterator[View]:
    """Yield views of the regions, then further views without end; each once, and none of `taken`."""
    seen = set(taken)
    for view in itertools.chain((View(region=region) for region in regions), _fillers()):
        if view not in seen:
            seen.add(view)
            yield view


def _fillers() -> Iterator[View]:
    """Yield middle crops, then tiles, without end."""
    yield from (_middle(0.7), _middle(0.5))
    for number in itertools.count(2):
        yield from _grid(number)


def _flip(text: str, parts: list[str]) -> Iterator[View]:
    _require(not parts and ":" not in text, text, "flip alone")
    yield View(flip=True)


def _rotate(text: str, parts: list[str]) -> Iterator[View]:
    _require(parts in (["90"], ["180"], ["270"]), text, "rotate:90, rotate:180 or rotate:270, counter-clockwise")
    yield View(turn=int(parts[0]) // 90)


def _crop(text: str, parts: list[str]) -> Iterator[View]:
    numbers = [_number(part) for part in parts]
    if len(numbers) == 4:
        left, top, right, bottom = numbers
        fits = 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and tuple(numbers) != WHOLE
        _require(fits, text, "crop:LEFT:TOP:RIGHT:BOTTOM, fractions in 0…1, less than the whole")
        yield View(region=(left, top, right, bottom))
        return
    fits = len(numbers) == 1 and LEAST_CROP <= numbers[0] < 1
    _require(fits, text, f"crop:SHARE with a share of both sides in {LEAST_CROP:g}…1, below 1")
    yield _middle(numbers[0])


def _middle(share: float) -> View:
    margin = (1 - share) / 2
    return View(region=(margin, margin, 1 - margin, 1 - margin))


def _tiles(text: str, parts: list[str]) -> Iterator[View]:
    number = int(parts[0]) if len(parts) == 1 and re.fullmatch(r"\d", parts[0], re.ASCII) else 0
    _require(2 <= number <= MOST_TILES, text, f"tiles:K with K in 2…{MOST_TILES}, for K × K tiles")
    yield from _grid(number)


def _grid(number: int) -> Iterator[View]:
    parted = number + 1
    for row, column in itertools.product(range(number), repeat=2):
        yield View(region=(column / parted, row / parted, (column + 2) / parted, (row + 2) / parted))


def _scale(text: str, parts: list[str]) -> Iterator[View]:
    value = _number(parts[0]) if len(parts) == 1 else np.nan
    fits = LEAST_SCALE <= value <= MOST_SCALE and value != 1
    _require(fits, text, f"scale:FACTOR in {LEAST_SCALE:g}…{MOST_SCALE:g}, but 1")
    yield View(scale=value)


def _regions(text: str, parts: list[str]) -> Iterator[View]:
    number = int(parts[0]) if len(parts) == 1 and re.fullmatch(r"\d", parts[0], re.ASCII) else 0
    _require(1 <= number <= MOST_REGIONS, text, f"regions:K with K in 1…{MOST_REGIONS}")
    yield from (View(found=one + 1) for one in range(number))


STEPS: dict[str, Callable[[str, list[str]], Iterator[View]]] = {
    "flip": _flip,
    "rotate": _rotate,
    "crop": _crop,
    "tiles": _tiles,
    "scale": _scale,
    "regions": _regions,
}
FORMS = (
    "flip", "rotate:90", "rotate:180", "rotate:270", "crop:0.7", "crop:0:0:0.5:1", "tiles:2", "scale:1.25", "regions:4",
)  # fmt: skip


def _require(holds: bool, text: str, expected: str) -> None:
    if not holds:
        raise InputError(f"{text}: expected {expected}")


def _number(text: str) -> float:
    """Parse a plain decimal; return NaN, which lies in no range, for any other text."""
    plain = re.fullmatch(r"\d{1,6}(\.\d*)?|\.\d+", text, re.ASCII)
    return round(float(text), DIGITS) if plain else float("nan")


def _written(value: float) -> str:
    return f"{value:.{DIGITS}f}".rstrip("0").rstrip(".")


def _span(start: float, end: float, count: int) -> slice:
    """Return the pixels between two fractions of `count`: at least one; adjacent spans leave no pixel out."""
    first = min(round(start * count), count - 1)
    return slice(first, max(first + 1, round(end * count)))
