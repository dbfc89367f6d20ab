"""A layered layout of a directed acyclic graph, left to right: longest paths give the layers, barycentres the order.

After Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures" (1981). Edges over
several layers keep a narrow place of their own in each layer between, so that they pass beside nodes and not through.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

Edge = tuple[str, str]
Dots = list[tuple[float, float]]
_SWEEPS = 12
_PASS = 12.0  # the height that an edge takes in a layer it passes


@dataclass(frozen=True)
class Sizes:
    """Measures in pixels: of a node, and between two layers and two neighbours of one layer."""

    width: float = 188
    height: float = 46
    across: float = 108
    between: float = 16


@dataclass(frozen=True)
class Layout:
    """`places`: the upper left corner of each node. `routes`: the points of each edge, from its source's right side to
    its target's left side, two for every gap between layers that it crosses."""

    width: float
    height: float
    places: Mapping[str, tuple[float, float]]
    routes: Mapping[Edge, Dots]


def lay_out(nodes: Sequence[str], edges: Iterable[Edge], sizes: Sizes = Sizes()) -> Layout:
    """Where to draw `nodes` so that every edge (source, target) points to the right and no two nodes overlap.

    Raises ValueError for a cycle.
    """
    edges = list(dict.fromkeys(edges))
    layer = _layers(nodes, edges)
    columns, chains = _with_passes(nodes, edges, layer)
    links = [pair for chain in chains.values() for pair in pairwise(chain)]
    _order(columns, links)
    heights = dict.fromkeys(nodes, sizes.height)
    middle = _heights(columns, links, heights, sizes.between)
    left = {name: number * (sizes.width + sizes.across) for number, column in enumerate(columns) for name in column}
    places = {name: (left[name], middle[name] - sizes.height / 2) for name in nodes}
    ports = _ports(edges, middle, chains, sizes.height)
    routes = {edge: _route(chain, ports[edge], left, middle, sizes.width) for edge, chain in chains.items()}
    width = max((x + sizes.width for x, _ in places.values()), default=0.0)
    bottom = max((y + heights.get(name, _PASS) / 2 for name, y in middle.items()), default=0.0)
    return Layout(width, bottom, places, routes)


def _layers(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The layer of each node: as far to the right as the longest path to a sink allows."""
    targets: dict[str, list[str]] = {name: [] for name in nodes}
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        targets[source].append(target)
        sources[target].append(source)
    waiting = {name: len(targets[name]) for name in nodes}
    ready = [name for name in nodes if not waiting[name]]
    depth = dict.fromkeys(ready, 0)
    for name in ready:  # grows as nodes become ready
        for source in sources[name]:
            depth[source] = max(depth.get(source, 0), depth[name] + 1)
            waiting[source] -= 1
            if not waiting[source]:
                ready.append(source)
    if len(ready) < len(nodes):
        raise ValueError("the edges form a cycle")
    deepest = max(depth.values(), default=0)
    return {name: deepest - depth[name] for name in nodes}


def _with_passes(
    nodes: Sequence[str], edges: Sequence[Edge], layer: Mapping[str, int]
) -> tuple[list[list[str]], dict[Edge, list[str]]]:
    """The layers, with one more place for each layer that an edge passes, and each edge as a chain of neighbours."""
    columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in nodes:
        columns[layer[name]].append(name)
    chains = {}
    for number, (source, target) in enumerate(edges):
        passed = [f"\0{number}:{index}" for index in range(layer[source] + 1, layer[target])]
        for index, place in enumerate(passed, layer[source] + 1):
            columns[index].append(place)
        chains[source, target] = [source, *passed, target]
    return columns, chains


def _order(columns: list[list[str]], links: Sequence[Edge]) -> None:
    """Sorts each layer by the mean place of its neighbours, to and fro, and keeps the order with fewest crossings."""
    right: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for source, target in links:
        right.setdefault(source, []).append(target)
        left.setdefault(target, []).append(source)
    best, fewest = [list(column) for column in columns], _crossings(columns, right)
    for sweep in range(_SWEEPS):
        neighbours, order = (right, columns[::-1]) if sweep % 2 == 0 else (left, columns)
        for fixed, column in pairwise(order):
            place = {name: index for index, name in enumerate(fixed)}
            own = {name: index for index, name in enumerate(column)}
            weight = {
                name: fmean(found) if (found := [place[one] for one in neighbours.get(name, ())]) else float(own[name])
                for name in column
            }
            column.sort(key=weight.__getitem__)
        count = _crossings(columns, right)
        if count < fewest:
            best, fewest = [list(column) for column in columns], count
    columns[:] = best


def _crossings(columns: Sequence[Sequence[str]], right: Mapping[str, Sequence[str]]) -> int:
    count = 0
    for column, following in pairwise(columns):
        place = {name: index for index, name in enumerate(following)}
        ends = [end for name in column for end in sorted(place[one] for one in right.get(name, ()))]
        count += sum(later < earlier for index, earlier in enumerate(ends) for later in ends[index + 1 :])
    return count


def _heights(
    columns: Sequence[Sequence[str]], links: Sequence[Edge], heights: Mapping[str, float], between: float
) -> dict[str, float]:
    """The middle of every place, near the mean of its neighbours, in order and without overlap."""
    beside: dict[str, list[str]] = {}
    for source, target in links:
        beside.setdefault(source, []).append(target)
        beside.setdefault(target, []).append(source)
    middle: dict[str, float] = {}
    for column in columns:
        for index, name in enumerate(column):
            middle[name] = index * 40.0
    for _ in range(_SWEEPS):
        for column in [*columns, *columns[::-1]]:
            wanted = [fmean(middle[one] for one in beside[name]) if name in beside else middle[name] for name in column]
            middle.update(zip(column, _spaced(column, wanted, heights, between), strict=True))
    top = min((y - heights.get(name, _PASS) / 2 for name, y in middle.items()), default=0.0)
    return {name: y - top for name, y in middle.items()}


def _spaced(
    column: Sequence[str], wanted: Sequence[float], heights: Mapping[str, float], between: float
) -> list[float]:
    """The heights closest to `wanted` (least squares) that keep order and distance: pool adjacent violators."""
    offsets, at = [], 0.0
    for index, name in enumerate(column):
        half = heights.get(name, _PASS) / 2
        at += half + between if index else 0.0
        offsets.append(at)
        at += half
    pools: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        pools.append((mean, count))
    levels = [mean for mean, count in pools for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]


def _ports(
    edges: Sequence[Edge], middle: Mapping[str, float], chains: Mapping[Edge, Sequence[str]], height: float
) -> dict[Edge, tuple[float, float]]:
    """The height at which each edge leaves its source and meets its target: spread over their sides, in order."""
    leaves: dict[str, list[Edge]] = {}
    meets: dict[str, list[Edge]] = {}
    for edge in edges:
        leaves.setdefault(edge[0], []).append(edge)
        meets.setdefault(edge[1], []).append(edge)
    begins = _spread(leaves, {edge: middle[chains[edge][1]] for edge in edges}, middle, height)
    ends = _spread(meets, {edge: middle[chains[edge][-2]] for edge in edges}, middle, height)
    return {edge: (begins[edge], ends[edge]) for edge in edges}


def _spread(
    groups: Mapping[str, list[Edge]], towards: Mapping[Edge, float], middle: Mapping[str, float], height: float
) -> dict[Edge, float]:
    found = {}
    for name, group in groups.items():
        for index, edge in enumerate(sorted(group, key=towards.__getitem__), 1):
            found[edge] = middle[name] + height * (index / (len(group) + 1) - 0.5)
    return found


def _route(
    chain: Sequence[str], ports: tuple[float, float], left: Mapping[str, float], middle: Mapping[str, float],
    width: float,
) -> Dots:  # fmt: skip
    points = [(left[chain[0]] + width, ports[0])]
    for place in chain[1:-1]:
        points += [(left[place], middle[place]), (left[place] + width, middle[place])]
    return [*points, (left[chain[-1]], ports[1])]
