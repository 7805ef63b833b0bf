"""Training data of products: decoded photos of the splits, and the shop's pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isc.config.products import ProductsConfig
from isc.data.csv_files import write_csv
from isc.errors import InputError
from isc.photos.decode import Pixels, read_image
from isc.photos.listing import Listing
from isc.photos.resizing import fit_within
from isc.photos.sources import list_photos
from isc.products.catalogue import Catalogue, Labelled, read_catalogue, read_labelled, rows_by_item
from isc.runtime.progress import progress
from isc.words.picture_rows import rows_of_pictures

log = logging.getLogger(__name__)
LONGEST = 320  # pixels of the longest side that are kept of each picture, in memory: up to 0.3 MB each


@dataclass(frozen=True)
class Photos:
    """Decoded photos and the places of their items in the catalogue."""

    pixels: list[Pixels]
    items: list[int]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class ProductData:
    """Photos to learn from, held photos for the fusion, photos to judge by, and the shop's pictures."""

    catalogue: Catalogue
    train: Photos
    held: Photos
    val: Photos
    shop: Photos


def product_data(config: ProductsConfig) -> ProductData:
    """Read and decode everything; unreadable photos are left out and listed in OUTPUT/failures.csv.

    Raises InputError for a shop picture that cannot be read, and if there are photos of fewer than two items.
    """
    photos = list_photos(config.images)
    catalogue = read_catalogue(config.catalogue)
    splits = read_labelled(Path(config.pairs), catalogue)
    rows = rows_of_pictures(photos, [name for part in splits.values() for name in part.photos])
    train, held = divided(splits["train"], share=config.held)
    failures: list[tuple[str, str]] = []
    learned, kept, val = (
        _decoded(photos, rows, part, failures) for part in (train, held, splits.get("val", Labelled((), ())))
    )
    if failures:
        path = Path(config.output) / "failures.csv"
        log.warning("%d photos cannot be read, and are left out: %s", len(failures), path)
        write_csv(path, ("id", "reason"), iter(failures))
    if len(set(learned.items)) < 2:
        raise InputError(f"pairs={config.pairs}: readable photos of {len(set(learned.items))} items; expected 2")
    shop = Photos([], [])
    for place, path in catalogue.pictures:
        shop.pixels.append(fit_within(read_image(path), LONGEST))
        shop.items.append(place)
    return ProductData(catalogue, learned, kept, val, shop)


def divided(photos: Labelled, *, share: float) -> tuple[Labelled, Labelled]:
    """Return the photos to learn from and the held ones: of each item the last `share`, rounded, but never all."""
    held: set[int] = set()
    for rows in rows_by_item(photos.items).values():
        count = min(round(share * len(rows)), len(rows) - 1)
        held.update(rows[len(rows) - count :])
    return photos.take([at for at in range(len(photos)) if at not in held]), photos.take(sorted(held))


def _decoded(photos: Listing, rows: dict[str, int], part: Labelled, failures: list[tuple[str, str]]) -> Photos:
    found = Photos([], [])
    with progress("reading", "photos") as report:
        for at, (name, item) in enumerate(zip(part.photos, part.items, strict=True)):
            try:
                found.pixels.append(fit_within(photos.read(rows[name]), LONGEST))
                found.items.append(item)
            except InputError as error:
                failures.append((name, str(error)))
            report(at + 1, len(part))
    return found


def balanced(items: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """Return `count` rows, of as many different items as there are, drawn at random."""
    by_item = rows_by_item(items)
    names = list(by_item)
    order = np.concatenate([rng.permutation(len(names)) for _ in range(-(-count // len(names)))])[:count]
    return [int(rng.choice(by_item[names[place]])) for place in order]
