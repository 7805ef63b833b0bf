"""Photos of a folder that show the same, in groups: the same file, an edited copy, or the same scene."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isc.data.descriptors import Descriptors
from isc.data.matches import Matches as Pairs
from isc.errors import InputError
from isc.find.copies import features_folder
from isc.find.file_table import read_states
from isc.find.photo_index import PhotoIndex, cached_path
from isc.find.photos import FileState, below
from isc.find.results import Group, Groups, Kind, Member, Verdict
from isc.find.verdicts import Judge, judge_of, verdict_of
from isc.match.flags import COLUMN
from isc.match.verification.compare import verify
from isc.match.verification.feature_store import FeatureStore
from isc.model.load_inference import DEFAULT_MODEL
from isc.photos.decode import size_of
from isc.runtime.progress import progress
from isc.search.exact import nearest
from isc.search.index.index import Index as DescriptorIndex

NEIGHBOURS = 8  # of each photo whose pixels are compared with its own
FARTHEST = 1.3  # largest squared distance of a compared pair; unrelated photos have about 2
SAME_SHOT = 0.7  # agreement of the grey values from which a pair is one photo, edited, and not two of one scene
SAME_PICTURE = 0.02  # contradiction up to which: two screenshots of one program agree in all but what they show


@dataclass(frozen=True)
class _Link:
    """Two photos, by their places in the list, that show the same."""

    one: int
    other: int
    probability: float
    kind: Kind


def find_duplicates(
    folder: str | os.PathLike[str], *, index: PhotoIndex | None = None, model: str = DEFAULT_MODEL, pixels: bool = True
) -> Groups:
    """Return the groups of photos below the folder that show the same.

    Descriptors are kept in `index`, by default one in the user's cache, which is brought in step with the folder first.
    Without `pixels` only descriptors are compared: faster, and less certain. Raises InputError for a missing folder, or
    one without photos.
    """
    root = Path(folder)
    kept = index or PhotoIndex(cached_path(root, model=model), model=model)
    changes = kept.sync(root)
    above = below(root)
    states = {name: state for name, state in read_states(kept.path).items() if name.startswith(above)}
    if not states:
        raise InputError(f"{folder}: no photo that can be read; the first: {': '.join(changes.unreadable[0])}")
    with DescriptorIndex.open(kept.path).snapshot() as now:
        described = now.descriptors()
    described = described.take(np.flatnonzero([name in states for name in described.ids]))
    names = described.ids.tolist()
    same = _same_files(names, states)
    links = [*same, *_alike(described, judge_of(kept.model, kept.weights_sha256), same, pixels=pixels)]
    shown = {name: str(root / name[len(above) :]) for name in names}
    groups = [_group(members, links, names, states, shown) for members in _components(links)]
    groups.sort(key=lambda one: (-sum(member.bytes for member in one.members[1:]), one.members[0].path))
    return Groups(tuple(groups), len(names), changes.unreadable)


def _same_files(names: Sequence[str], states: Mapping[str, FileState]) -> list[_Link]:
    """Link each file to the first one with the same bytes."""
    first: dict[str, int] = {}
    links = []
    for place, name in enumerate(names):
        one = first.setdefault(states[name].sha256, place)
        if one != place:
            links.append(_Link(one, place, 1.0, Kind.exact))
    return links


def _alike(described: Descriptors, judge: Judge, same: Sequence[_Link], *, pixels: bool) -> list[_Link]:
    """Link the photos whose descriptors are near and whose pixels agree; of equal files only the first is compared."""
    copies = {link.other for link in same}
    kept = np.array([row for row in range(len(described)) if row not in copies])
    pairs = _candidates(described.take(kept))
    if not len(pairs):
        return []
    evidence, aligned = None, np.zeros(len(pairs), bool)
    if pixels:
        files = {str(name): Path(str(name)) for name in pairs.query_ids}
        verified = verify(pairs, files, files, store=FeatureStore(features_folder()))
        evidence = verified.evidence
        aligned[list(verified.alignments)] = True
    apart = judge.unrelated_distance(described.vectors[kept])
    probability = judge.probabilities(
        0.0 - pairs.score.astype(np.float64), evidence, unrelated=None if apart is None else apart[pairs.query],
        suspects=len(kept), photos=len(kept),
    )  # fmt: skip
    links = []
    for row in range(len(pairs)):
        told = None if evidence is None else evidence[row]
        if verdict_of(float(probability[row]), told, aligned=bool(aligned[row])) is Verdict.copy:
            near = told is not None and (
                told[COLUMN["agreement"]] < SAME_SHOT or told[COLUMN["contradiction"]] > SAME_PICTURE
            )
            places = int(kept[pairs.reference[row]]), int(kept[pairs.query[row]])
            links.append(_Link(*places, float(probability[row]), Kind.near if near else Kind.edited))
    return links


def _candidates(described: Descriptors) -> Pairs:
    """Return each pair of near neighbours once; the earlier photo is the reference."""
    with progress("comparing", "photos") as report:
        row, distance = nearest(described.vectors, described.vectors, k=NEIGHBOURS + 1, progress=report)
    one, other = np.repeat(np.arange(len(described)), row.shape[1]), row.reshape(-1)
    low, high = np.minimum(one, other), np.maximum(one, other)
    near = np.flatnonzero((low < high) & (distance.reshape(-1) <= FARTHEST))
    _, first = np.unique((low * len(described) + high)[near], return_index=True)
    rows: npt.NDArray[np.int64] = near[first]
    return Pairs(
        described.ids, described.ids, high[rows], low[rows], (0.0 - distance.reshape(-1)[rows]).astype(np.float32)
    )


def _components(links: Sequence[_Link]) -> list[list[int]]:
    """Return the photos that are linked directly or through others, group by group."""
    parent: dict[int, int] = {}

    def root(one: int) -> int:
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for link in links:
        low, high = sorted((root(link.one), root(link.other)))
        parent[high] = low
    groups = defaultdict(list)
    for one in sorted(parent):
        groups[root(one)].append(one)
    return list(groups.values())


def _group(
    members: Sequence[int],
    links: Sequence[_Link],
    names: Sequence[str],
    states: Mapping[str, FileState],
    shown: Mapping[str, str],
) -> Group:
    """Return the group with its best photo first, and each other photo with its surest link to an earlier one."""
    sizes = {place: size_of(Path(names[place])) for place in members}
    order = sorted(members, key=lambda one: (-sizes[one][0] * sizes[one][1], -states[names[one]].size, names[one]))
    inside = [link for link in links if link.one in sizes and link.other in sizes]
    found = []
    for place in order:
        own = [link for link in inside if place in (link.one, link.other)]
        best = max(own, key=lambda link: (order[0] in (link.one, link.other), link.probability))
        width, height = sizes[place]
        state = states[names[place]]
        found.append(Member(shown[names[place]], width, height, state.size, best.probability, best.kind))
    return Group(tuple(found))
