"""Attacks that move the photo: crop, rotation, squeeze, padding, perspective, and a tiny photo on a plain ground."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from isc.photos.decode import Pixels
from isc.photos.resizing import resize
from isc.train.augment.attack import Attack, Colour, any_colour, plain, plain_colour, put, put_anywhere, scaled
from isc.train.augment.trace import Frame


def random_frame(shape: tuple[int, ...], rng: np.random.Generator, *, least: float, stretch: float) -> Frame:
    """Draw a part of a photo of this shape with `least`…1 of its area, cut at whole pixels.

    The aspect ratio differs from the photo's by at most a factor of `stretch`, as far as the area allows. (The aspect
    range of albumentations' RandomResizedCrop is absolute, so it always cuts the same middle out of a panorama.)
    """
    share = rng.uniform(least, 1.0)
    factor = math.exp(rng.uniform(-1, 1) * min(math.log(stretch), -math.log(share)))  # no side exceeds the photo's
    sides = math.sqrt(share / factor), math.sqrt(share * factor)
    height, width = (max(1, round(side * full)) for side, full in zip(sides, shape[:2], strict=True))
    top, left = (int(rng.integers(0, full - part + 1)) for full, part in zip(shape, (height, width), strict=False))
    return Frame(top / shape[0], left / shape[1], height / shape[0], width / shape[1])


def cut(photo: Pixels, frame: Frame, size: int) -> Pixels:
    """Return the part of the photo, squeezed to [size, size, 3]; the caller mirrors it."""
    height, width = photo.shape[:2]
    top, left = round(frame.top * height), round(frame.left * width)
    part = photo[top : top + round(frame.height * height), left : left + round(frame.width * width)]
    return resize(part, size)


def ground_of(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a ground of the picture's shape: one colour (probability ¾) or the blurred picture."""
    if rng.random() < 0.75:
        return plain(picture.shape, plain_colour(picture, rng))
    return blurred(picture)


def blurred(picture: Pixels) -> Pixels:
    """Return the middle of the picture, enlarged and blurred, as apps fill the sides of a narrow video."""
    height, width = picture.shape[:2]
    middle = picture[height // 6 : height - height // 6, width // 6 : width - width // 6]
    return scaled(np.asarray(cv2.blur(scaled(middle, 16, 16), (3, 3)), np.uint8), width, height)


class Pad(Attack):
    """Bars of any colour, or of the blurred photo, on one to four sides; 40–95 % of each padded side stays."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        down, across = rng.random(2) < 0.65
        if not (down or across):
            down = True
        kept = [self.amount(rng, 0.95, 0.4) if padded else 1.0 for padded in (down, across)]
        if rng.random() < 0.3:
            kept = [min(kept)] * 2
        result = ground_of(picture, rng)
        patch = scaled(picture, round(kept[1] * width), round(kept[0] * height))
        if rng.random() < 0.5:
            put(result, patch, top=(height - patch.shape[0]) // 2, left=(width - patch.shape[1]) // 2)
        else:
            put_anywhere(result, patch, rng)
        return result


class Tiny(Attack):
    """The photo on a plain ground, at 15–40 % of the side."""

    shrinks = True

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        share = self.amount(rng, 0.4, 0.15)
        height, width = (max(1, round(share * side)) for side in picture.shape[:2])
        result = plain(picture.shape, plain_colour(picture, rng))
        put_anywhere(result, scaled(picture, width, height), rng)
        return result


class Squeeze(Attack):
    """Another aspect ratio: one side squeezed to 45–90 % and the rest filled, or stretched and the rest cut off.

    (Every picture is squeezed to a square in the end, so a change of the aspect ratio alone would have no effect.)
    """

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        share, axis = self.amount(rng, 0.9, 0.45), int(rng.integers(2))
        sides = list(picture.shape[:2])
        sides[axis] = max(1, round(share * sides[axis]))
        start = [(full - part) // 2 for full, part in zip(picture.shape[:2], sides, strict=True)]
        if rng.random() < 0.5:
            middle = picture[start[0] : start[0] + sides[0], start[1] : start[1] + sides[1]]
            return scaled(np.ascontiguousarray(middle), picture.shape[1], picture.shape[0])
        result = ground_of(picture, rng)
        put(result, scaled(picture, sides[1], sides[0]), top=start[0], left=start[1])
        return result


class Turn(Attack):
    """A rotation by 3–180° either way at the same scale, shrunk to keep all corners, or enlarged to hide the ground."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        matrix, mode, colour = self.drawn(picture, rng)
        turned = cv2.warpAffine(
            picture, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=mode, borderValue=colour
        )
        return np.asarray(turned, np.uint8)

    def drawn(self, picture: Pixels, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], int, Colour]:
        """Draw the map [2, 3] of pixels, OpenCV's kind of border, and its colour."""
        height, width = picture.shape[:2]
        degrees = self.amount(rng, 3, 180 if rng.random() < 0.6 else 25) * (1 if rng.random() < 0.5 else -1)
        sine, cosine = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
        scale = [1.0, 1 / (sine + cosine), sine + cosine][rng.integers(3)]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
        mode = cv2.BORDER_CONSTANT if rng.random() < 0.85 else cv2.BORDER_REFLECT_101
        return np.asarray(matrix, np.float64), mode, plain_colour(picture, rng)


class QuarterTurn(Attack):
    """A rotation by 90, 180 or 270°, squeezed back to the shape."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        turned = np.ascontiguousarray(np.rot90(picture, self.quarters(rng)))
        return scaled(turned, picture.shape[1], picture.shape[0])

    def quarters(self, rng: np.random.Generator) -> int:
        """Draw the number of quarter turns, anticlockwise."""
        return int(rng.integers(1, 4))


class Tilt(Attack):
    """A perspective view: each corner moves in or out by up to 30 % of the side; one colour fills the rest."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        matrix, colour = self.drawn(picture, rng)
        tilted = cv2.warpPerspective(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=colour)
        return np.asarray(tilted, np.uint8)

    def drawn(self, picture: Pixels, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], Colour]:
        """Draw the map [3, 3] of pixels, and the colour around."""
        height, width = picture.shape[:2]
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (width, height)
        shift = inwards * rng.random((4, 2)) * self.amount(rng, 0.06, 0.3)
        source, target = corners, (corners + shift).astype(np.float32)
        if rng.random() < 0.4:  # the inverse: everything outside the four corners is lost
            source, target = target, corners
        matrix = cv2.getPerspectiveTransform(source, target)
        return np.asarray(matrix, np.float64), plain_colour(picture, rng)


class Border(Attack):
    """A border or bars of one or two colours, 2–12 % of the side each, with the photo squeezed between them."""

    def edit(self, picture: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = picture.shape[:2]
        result = plain(picture.shape, any_colour(rng) if rng.random() < 0.4 else plain_colour(picture, rng))
        low, high = self.amount(rng, 0.02, 0.12), self.amount(rng, 0.02, 0.12)
        if rng.random() < 0.6:
            high = low
        edges = [max(1, round(share * side)) for share, side in zip((low, high), (height, width), strict=True)]
        if rng.random() < 0.3:
            line = [round(edge * 0.6) for edge in edges]
            result[line[0] : height - line[0], line[1] : width - line[1]] = any_colour(rng)
        inside = scaled(picture, max(1, width - 2 * edges[1]), max(1, height - 2 * edges[0]))
        put(result, inside, top=edges[0], left=edges[1])
        return result
