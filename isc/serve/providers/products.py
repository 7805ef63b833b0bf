"""Items of a shop, found by our own models, as suggestions that people accept or reject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from isc.data.model_files import RUN_MODEL, beside_model
from isc.errors import InputError, needing
from isc.photos.decode import encode_jpeg, read_image
from isc.photos.resizing import fit_within
from isc.products.catalogue import Catalogue, read_catalogue
from isc.products.fusion import FILE, load_fusion
from isc.serve.kinds import Kind
from isc.serve.picture import Picture
from isc.serve.providers.base import Answer, Limits, Provider
from isc.serve.providers.context import Context
from isc.serve.reading import Unreadable
from isc.serve.results import Product, Region, Result, ShopPicture

with needing("provider product", extra="words"):
    from isc.products.find import COMMAND, Choice, Look, ProductFinder

SIDE = 512  # pixels of the longest side of the shop's picture, as people see it
LONGEST = {"id": 200, "title": 500, "kind": 200, "picture": 255}  # characters that are kept


class ProductProvider(Provider):
    """Finds items of the shop `catalogue` by the run folder `model`: up to `count`, each likelier than none of them."""

    name = "product"
    kinds: ClassVar[frozenset[Kind]] = frozenset((Kind.product,))
    group = "products"

    def __init__(self, *, context: Context, model: str, catalogue: str, count: int = 1) -> None:
        del context
        if count < 1:
            raise InputError(f"count={count}; expected at least 1")
        self._model, self._count, self._catalogue = model, count, read_catalogue(catalogue)
        _check_names(self._catalogue)
        made = _digest_of_model(model)
        self.version = f"product-{made[:16]}-{_digest_of_shop(self._catalogue)[:16]}-{count}"
        # the first call describes the shop's pictures as well
        self.limits = Limits(batch=8, seconds=300.0 + len(self._catalogue.pictures))

    @cached_property
    def _finder(self) -> ProductFinder:
        return ProductFinder(self._model, self._catalogue)

    def describe(self, pictures: Sequence[Picture]) -> Sequence[Answer]:
        return [self._answer(one) for one in pictures]

    def _answer(self, picture: Picture) -> Answer:
        try:
            pixels = picture.pixels
        except Unreadable as error:
            return error
        look = self._finder.look_at(pixels)
        choices, none = self._finder.weigh(look)
        found: list[Result] = [
            self._product(look, one, choices, none) for one in choices[: self._count] if one.probability > none
        ]
        return found

    def _product(self, look: Look, choice: Choice, choices: Sequence[Choice], none: float) -> Product:
        region, picture = self._finder.best_view(look, choice.item)
        return Product(
            item_id=choice.item.item_id,
            title=choice.item.title[: LONGEST["title"]],
            probability=choice.probability,
            picture=_shown(picture),
            item_kind=choice.item.kind[: LONGEST["kind"]],
            region=_corners(region),
            evidence=_evidence(choice, choices, none),
        )


def _evidence(choice: Choice, choices: Sequence[Choice], none: float) -> Mapping[str, Any]:
    """Return the likeness of the best region, the likeliest other item, and the probability of none."""
    other = next(one for one in choices if one is not choice)
    return {
        "cosine": round(choice.evidence["best"], 4),
        "next_item": other.item.item_id,
        "next_title": other.item.title[: LONGEST["title"]],
        "next_probability": round(other.probability, 6),
        "none": round(none, 6),
    }


def _corners(region: tuple[float, float, float, float]) -> Region:
    left, top, right, bottom = region
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _shown(picture: Path) -> ShopPicture:
    return ShopPicture(picture.name, encode_jpeg(fit_within(read_image(picture), SIDE), quality=85))


def _check_names(catalogue: Catalogue) -> None:
    """Raise InputError for an id, or the name of a picture, that is too long to be kept."""
    named = [("id", item.item_id) for item in catalogue.items]
    named += [("picture", path.name) for _, path in catalogue.pictures]
    for what, name in named:
        if len(name) > LONGEST[what]:
            raise InputError(f"catalogue: {what} {name!r:.60}; expected at most {LONGEST[what]} characters")


def _digest_of_model(model: str) -> str:
    """Return the SHA-256 of a run folder's weights and fusion. Raises InputError if one is not there."""
    path = Path(model)
    weights, fusion = path / RUN_MODEL if path.is_dir() else path, beside_model(model, FILE)
    for file in (weights, fusion):
        if not file.is_file():
            raise InputError(f"model={model}: {file} is not there; expected the run folder of {COMMAND}")
    load_fusion(fusion)
    return hashlib.sha256(_digest(weights) + _digest(fusion)).hexdigest()


def _digest_of_shop(catalogue: Catalogue) -> str:
    """Return the SHA-256 of the items' ids, titles and kinds, and of the bytes of their pictures."""
    rows = [[one.item_id, one.title, one.kind, [_digest(path).hex() for path in one.images]] for one in catalogue.items]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
