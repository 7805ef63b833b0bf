"""The card of a saved approximate index: a JSON file with its factory string, its size and its hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from isc import __version__
from isc.data.files import write_json
from isc.data.json_files import Fields, read_json
from isc.errors import InputError
from isc.search.approximate.faiss_adapter import faiss_module, one_line_errors

FORMAT = "isc-approximate-1"
CARD, INDEX, LISTS = "index.json", "index.faiss", "lists.ivfdata"


@dataclass(frozen=True)
class Card:
    """Description of an index of `count` references of `dim` numbers, identified by a hash of some of their rows."""

    factory: str
    dim: int
    count: int
    seed: int
    training_sha256: str
    references_sha256: str


def write_index(folder: Path, index: Any, card: Card) -> None:
    with one_line_errors(f"{folder.parent}: the index cannot be written"):
        faiss_module().write_index(index, str(folder / INDEX))
    paths = [path for path in (folder / INDEX, folder / LISTS) if path.exists()]
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}
    made = {"code_version": __version__, "faiss": faiss_module().__version__}
    write_json(folder / CARD, {"format": FORMAT} | asdict(card) | made | {"files": files})


def read_card(folder: Path) -> tuple[Card, Mapping[str, tuple[int, str]]]:
    """Return the card, and {file name: (bytes, SHA-256)}.

    Raises InputError if the card is missing, damaged or of another format.
    """
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the folder of a saved index")
    try:
        told = Fields(read_json(path, expected="the card of an index: build it again"))
        stored = told.fields("files")
        each = {name: stored.fields(name) for name in stored.values}
        files = {name: (one.count("bytes"), one.text("sha256")) for name, one in each.items()}
        values: dict[str, Any] = {
            one.name: told.count(one.name) if one.type == "int" else told.text(one.name) for one in fields(Card)
        }
        card = Card(**values)
        written = told.value("format")
        known = written == FORMAT and INDEX in files and files.keys() <= {INDEX, LISTS}
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); build the index again") from error
    if not known:
        raise InputError(f"{path}: of format {written!r}; expected {FORMAT}: build the index again")
    return card, files


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
