"""The manifest of an index: the model of its descriptors, written at creation, and checked for all others given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from isc import __version__
from isc.data.descriptors import Descriptors
from isc.data.hdf5 import SAME_IN_BOTH
from isc.data.json_files import read_json
from isc.errors import InputError
from isc.search.index.storage import MANIFEST, now, sync

FORMAT = "isc-index-1"
KEPT = (*SAME_IN_BOTH, "model")  # entries of a file's provenance to keep; the others describe that file


@dataclass(frozen=True)
class Manifest:
    """The required dimension and provenance of the descriptors of an index.

    `model` is the argument of `load_model` that makes more of them, if known; `created` is in UTC.
    """

    dim: int
    provenance: Mapping[str, str]
    model: str | None
    created: str
    code_version: str = __version__
    format: str = FORMAT

    @property
    def image_size(self) -> int | None:
        """The side in pixels of the model's input pictures, if the manifest has it."""
        size = self.provenance.get("image_size", "")
        return int(size) if size.isdecimal() else None

    @classmethod
    def of(cls, dim: int, provenance: Mapping[str, str], model: str | None) -> Manifest:
        return cls(dim, {key: provenance[key] for key in KEPT if key in provenance}, model, now())

    def check(self, what: object, dim: int, provenance: Mapping[str, str]) -> None:
        """Raise InputError, naming `what`, unless its descriptors have the dimension and the model of the index.

        Descriptors without a weight hash fit only an index without one; of the other facts, those that both have must
        agree.
        """
        if dim != self.dim:
            raise InputError(f"{what}: descriptors of {dim} numbers; the index holds those of {self.dim}")
        for key in SAME_IN_BOTH:
            ours, theirs = self.provenance.get(key), provenance.get(key)
            if ours != theirs and (key == "weights_sha256" or (ours is not None and theirs is not None)):
                given, expected = (f"{key} {value[:12]}" if value else f"no {key}" for value in (theirs, ours))
                raise InputError(f"{what}: made with {given}, the index with {expected}; expected the same model")


def require_one_row_each(descriptors: Descriptors) -> None:
    """Raise InputError if images have views: an index holds and compares one descriptor per image."""
    if descriptors.views is not None:
        raise InputError(
            f"id {descriptors.ids[0]!r}: view {descriptors.views[0]!r}; expected one descriptor an image, without "
            "views: extract with combine=average, or compare the files by match.py track=matching"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sync(path)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises InputError if the folder is no index, or the manifest is damaged or of another format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected an index that isc index create made")
    if not path.is_file():
        raise InputError(f"{folder}: holds no {MANIFEST}; expected an index that isc index create made")
    content = read_json(path, expected="the manifest of an index: restore it from a copy")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else content
        raise InputError(f"{path}: its format is {found!r}; this version of isc reads {FORMAT!r}")
    try:
        manifest = Manifest(**content)
    except TypeError as error:
        raise InputError(f"{path}: damaged ({error}); restore it from a copy") from error
    texts = (*manifest.provenance.values(), manifest.created) if isinstance(manifest.provenance, dict) else (None,)
    usable = type(manifest.dim) is int and manifest.dim > 0 and isinstance(manifest.model, str | None)
    if not usable or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: dim, provenance, model or created cannot be used; restore it from a copy")
    return manifest
