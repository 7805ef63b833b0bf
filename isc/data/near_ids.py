"""Ids of a ground truth against those it judges: differences that are no accident, and would give μAP 0 in silence."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from isc.data.matches import GroundTruth
from isc.errors import InputError

_SUFFIX = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|heic|heif)$", re.IGNORECASE)


def require_same_ids(path: Path, truth: GroundTruth, queries: Collection[str], references: Collection[str]) -> None:
    """Raise InputError unless the ground truth of `path` names these queries and references as they are named.

    Refused are an id that differs from one of them by the suffix of a picture alone, and a ground truth that names none
    of the queries; or none of the references, if it would but for capitals and folders.
    """
    if not len(queries):
        return
    named = {reference for _, reference in truth.pairs}
    for what, judged, known in (("query", truth.queries, set(queries)), ("reference", named, set(references))):
        if found := _but_for(_without_suffix, judged - known, known, unlike=judged):
            raise InputError(
                f"{path}: {what} id {found[0]!r}, but {found[1]!r} is given; expected the same ids, without suffix"
            )
        if judged & known:
            continue
        found = _but_for(_last_part, judged, known, unlike=judged)
        if found or what == "query":
            hint = f", such as {found[0]!r} for {found[1]!r}" if found else f", such as {min(judged)!r}"
            raise InputError(
                f"{path}: none of its {len(judged):,} {what} ids{hint} is among the {len(known):,} given, such as "
                f"{min(known)!r}; expected the same ids"
            )


def _but_for(
    form: Callable[[str], str], missing: Iterable[str], known: Collection[str], *, unlike: Collection[str]
) -> tuple[str, str] | None:
    """Return the first missing id, and a known id that is not judged itself, that have the same form; or None."""
    forms = {form(one): one for one in known if one not in unlike}
    return next(((one, forms[form(one)]) for one in sorted(missing) if form(one) in forms), None)


def _without_suffix(name: str) -> str:
    return _SUFFIX.sub("", name) if "." in name else name


def _last_part(name: str) -> str:
    return _without_suffix(name).rpartition("/")[2].casefold()
