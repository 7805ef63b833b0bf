"""The division of references among the actors of a cluster, and the places of these on its nodes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from isc.runtime.ray_cluster import Node

ROOM = 0.5  # share of the nodes' memory that shards may fill at the same time


@dataclass(frozen=True)
class Shard:
    """A range of references, `number` · `rows` … `number` · `rows` + `rows` − 1 (fewer in the last), and its place.

    The actor runs on `cores` cores of `node`, from its core `core` on, and on one of its GPUs if `gpu`.
    """

    number: int
    rows: int
    node: str
    core: int
    cores: int
    gpu: bool = False

    @property
    def first(self) -> int:
        return self.number * self.rows


def plan(nodes: list[Node], count: int, actors: int | None, *, row_bytes: int) -> list[Shard]:
    """Divide `count` references into shards of one size (the last may be smaller), and assign each to cores of a node.

    If there are more shards than places, several shards use the same place, one after the other. If nodes have GPUs,
    the places are these GPUs, each with its part of the node's cores: a shard on cores alone would be the last by far.
    """
    if with_gpus := [node for node in nodes if node["Resources"].get("GPU", 0) >= 1]:
        return _gpu_shards(with_gpus, count, actors, row_bytes=row_bytes)
    cpus = [int(node["Resources"]["CPU"]) for node in nodes]
    each = min(cpus) if actors is None else _cores_each(cpus, actors)
    used: Counter[str] = Counter()  # cores in use per machine; several nodes may share one
    places: list[tuple[str, int]] = []
    for node, number in zip(nodes, cpus, strict=True):
        for _ in range(number // each):
            places.append((node["NodeID"], used[node["NodeManagerAddress"]]))
            used[node["NodeManagerAddress"]] += each
    if actors is None:
        actors = len(places) * _rounds(nodes, count * row_bytes)
    rows = -(-count // min(actors, count))
    return [Shard(number, rows, *places[number % len(places)], each) for number in range(len(range(0, count, rows)))]


def _rounds(nodes: list[Node], num_bytes: int) -> int:
    """Return how many shards each place needs, one after the other, so that those of one time fit into the nodes."""
    memory = ROOM * sum(node["Resources"].get("memory", 0) for node in nodes)
    return math.ceil(num_bytes / memory) if memory else 1


def _gpu_shards(nodes: list[Node], count: int, actors: int | None, *, row_bytes: int) -> list[Shard]:
    """Return a shard for each GPU, more if the nodes' memory holds fewer references, or `actors` shards."""
    places: list[tuple[str, int, int]] = []
    for node in nodes:
        gpus = int(node["Resources"]["GPU"])
        cores = max(1, int(node["Resources"]["CPU"]) // gpus)
        places += [(node["NodeID"], gpu * cores, cores) for gpu in range(gpus)]
    actors = actors or len(places) * _rounds(nodes, count * row_bytes)
    rows = -(-count // min(actors, count))
    return [
        Shard(number, rows, *places[number % len(places)], gpu=True) for number in range(len(range(0, count, rows)))
    ]


def _cores_each(cpus: list[int], actors: int) -> int:
    """Return the most cores that each of `actors` actors can have at once; 1 if there are more actors than cores."""
    for each in range(min(max(cpus), sum(cpus) // actors), 1, -1):
        if sum(number // each for number in cpus) >= actors:
            return each
    return 1
