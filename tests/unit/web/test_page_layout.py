"""Layered graphs: whatever the graph, boxes lie apart and edges point to the right."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.web.graph import Sizes, lay_out

SIZES = Sizes()


@st.composite
def dags(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    n = draw(st.integers(1, 24))
    nodes = [f"n{index}" for index in range(n)]
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] < pair[1])
    edges = draw(st.lists(pairs, max_size=40)) if n > 1 else []
    return nodes, [(nodes[source], nodes[target]) for source, target in edges]


@given(dags())
@settings(deadline=None, max_examples=150)
def test_no_two_nodes_overlap_and_every_edge_points_to_the_right(
    graph: tuple[list[str], list[tuple[str, str]]],
) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges)
    assert set(layout.places) == set(nodes)
    boxes = sorted(layout.places.values())
    for index, (x, y) in enumerate(boxes):
        assert 0 <= x <= layout.width - SIZES.width + 0.01
        assert -0.01 <= y <= layout.height - SIZES.height + 0.01
        for other_x, other_y in boxes[index + 1 :]:
            assert other_x >= x + SIZES.width or abs(other_y - y) >= SIZES.height - 0.01
    for source, target in edges:
        assert layout.places[source][0] + SIZES.width < layout.places[target][0]
        points = layout.routes[source, target]
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert points[0][0] == layout.places[source][0] + SIZES.width
        assert points[-1][0] == layout.places[target][0]


@given(dags())
@settings(deadline=None, max_examples=60)
def test_an_edge_passes_beside_nodes_and_not_through_them(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges)
    for (source, target), points in layout.routes.items():
        for x, y in points[1:-1]:
            for name, (left, top) in layout.places.items():
                if name not in (source, target) and left <= x <= left + SIZES.width:
                    assert not top < y < top + SIZES.height


def test_the_order_uncrosses_what_need_not_cross() -> None:
    layout = lay_out(["a", "b", "c", "d", "z"], [("a", "d"), ("b", "c"), ("c", "z"), ("d", "z")])
    above = layout.places["a"][1] < layout.places["b"][1]
    assert above == (layout.places["d"][1] < layout.places["c"][1])


def test_a_cycle_is_refused_and_nothing_is_nothing() -> None:
    with pytest.raises(ValueError, match="cycle"):
        lay_out(["a", "b"], [("a", "b"), ("b", "a")])
    assert lay_out([], []).places == {}
