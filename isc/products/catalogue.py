"""The shop: its items with titles and pictures, and photos whose item is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isc.errors import InputError
from isc.photos.folders import image_files
from isc.words.tables import required, rows

FILE = "items.csv"  # of a catalogue's folder
NAMES = {"item_id": ("item_id", "item"), "title": ("title", "name"), "image": ("image", "img_name")}


@dataclass(frozen=True)
class Item:
    """An item of the shop: its id, title, kind and description, the last two maybe empty, and its pictures.

    Raises InputError for an empty id or title, and for an item without pictures.
    """

    item_id: str
    title: str
    images: tuple[Path, ...]
    kind: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.item_id or not self.title:
            raise InputError(f"item {self.item_id!r} of title {self.title!r}; expected both")
        if not self.images:
            raise InputError(f"item {self.item_id!r} has no pictures; expected at least one")

    @property
    def words(self) -> str:
        """Title, kind and description in one text."""
        return " ".join(part for part in (self.title, self.kind, self.description) if part)


@dataclass(frozen=True)
class Catalogue:
    """The items of a shop, at least two, each id once; `places` {id: place} follows from them.

    Pictures lie below `folder`, if there is one; their names in answers are their paths below it.
    """

    items: tuple[Item, ...]
    folder: Path | None = None
    places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places = {item.item_id: at for at, item in enumerate(self.items)}
        object.__setattr__(self, "places", places)
        if len(places) < len(self.items):
            twice = next(item.item_id for at, item in enumerate(self.items) if places[item.item_id] != at)
            raise InputError(f"two items of the id {twice!r}; expected each id once")
        if len(self.items) < 2:
            raise InputError(f"{len(self.items)} items; expected at least 2")

    def __len__(self) -> int:
        return len(self.items)

    def name_of(self, picture: Path) -> str:
        """Return the name of a picture in answers, which no other picture of the shop has."""
        return str(picture) if self.folder is None else picture.relative_to(self.folder).as_posix()

    @property
    def pictures(self) -> list[tuple[int, Path]]:
        """(place of the item, picture) of all pictures, items in turn."""
        return [(at, path) for at, item in enumerate(self.items) for path in item.images]


def read_catalogue(source: str | Path) -> Catalogue:
    """Read a catalogue: a CSV file, or a folder that holds items.csv.

    Columns are item_id (or item), title (or name), and, if there are any, image (or img_name), kind and description. A
    row is one picture of an item, a path below the CSV's folder; an item with several pictures has several rows, with
    the same title. Without the column image, an item's pictures are the files below that folder whose name without
    suffix is the id, or begins with it and an underscore. Raises InputError, with the line, for an item without
    pictures, a picture that is not there, and two items of one id.
    """
    path = Path(source)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"catalogue={source}: {path} is not there; expected a CSV of items, or a folder with {FILE}")
    found: dict[str, Item] = {}
    files: dict[str, list[Path]] | None = None
    for line, row in rows(path, ()):
        item_id, title = (_of(path, line, row, name) for name in ("item_id", "title"))
        kind, about = (row.get(name, "").strip() for name in ("kind", "description"))
        column = next((name for name in NAMES["image"] if name in row), None)
        images: tuple[Path, ...]
        if column is not None:
            images = (_existing(path, line, required(path, line, row, column)),)
        else:
            files = _by_stem(path.parent) if files is None else files
            images = tuple(files.get(item_id, ()))
        if not images:
            raise InputError(
                f"{path}: line {line}: item {item_id!r} has no pictures; expected {item_id}.jpg, {item_id}_2.jpg or "
                "other suffixes of pictures beside the table, or a column image"
            )
        before = found.get(item_id)
        if before is not None and (column is None or before.title != title):
            raise InputError(f"{path}: line {line}: two items of the id {item_id!r}; expected each id once")
        if before is not None:
            images, kind, about = before.images + images, before.kind or kind, before.description or about
        found[item_id] = Item(item_id, title, images, kind, about)
    if len(found) < 2:
        raise InputError(f"{path}: {len(found)} items; expected at least 2")
    return Catalogue(tuple(found.values()), path.parent)


def _of(path: Path, line: int, row: dict[str, str], name: str) -> str:
    """Return the text of a column that has two names. Raises InputError if there is none of them."""
    column = next((one for one in NAMES[name] if one in row), None)
    if column is None:
        raise InputError(f"{path}: line 1: no column {NAMES[name][0]}; expected item_id and title")
    return required(path, line, row, column)


def _existing(table: Path, line: int, name: str) -> Path:
    path = table.parent / name
    if not path.is_file():
        raise InputError(f"{table}: line {line}: picture {name!r} is not in {table.parent}; expected a file there")
    return path


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures below a folder by their names without suffix, and by what stands before an underscore."""
    found: dict[str, list[Path]] = {}
    for name in sorted(image_files(folder)):
        path = folder / name
        for stem in dict.fromkeys((path.stem, path.stem.rpartition("_")[0])):
            if stem:
                found.setdefault(stem, []).append(path)
    return found


def rows_by_item(items: Iterable[int]) -> dict[int, list[int]]:
    """Return the rows of each item, items in the order of their first rows."""
    found: dict[int, list[int]] = {}
    for at, item in enumerate(items):
        found.setdefault(item, []).append(at)
    return found


@dataclass(frozen=True)
class Labelled:
    """Photos of known items: ids and places in the catalogue, in the order of the table."""

    photos: tuple[str, ...]
    items: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.photos)

    def take(self, chosen: Sequence[int]) -> Labelled:
        """Return these rows only, in this order."""
        return Labelled(tuple(self.photos[at] for at in chosen), tuple(self.items[at] for at in chosen))


def read_labelled(path: Path, catalogue: Catalogue) -> dict[str, Labelled]:
    """Read `photo_id,item_id,split`; return the photos of each split. Without the column split all is `train`.

    Raises InputError, with the line, for an item that the catalogue does not have, and for a photo that occurs twice.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    seen: set[str] = set()
    for line, row in rows(path, ("photo_id", "item_id")):
        photo, item = (required(path, line, row, name) for name in ("photo_id", "item_id"))
        if item not in catalogue.places:
            raise InputError(f"{path}: line {line}: item {item!r} is not in the catalogue; expected one of its ids")
        if photo in seen:
            raise InputError(f"{path}: line {line}: photo {photo!r} occurs twice; expected each photo once")
        seen.add(photo)
        found.setdefault(row.get("split", "train").strip() or "train", []).append((photo, catalogue.places[item]))
    if "train" not in found:
        raise InputError(f"{path}: no photo has the split train; expected some")
    return {split: Labelled(*zip(*photos, strict=True)) for split, photos in found.items()}
