"""Equal tensors of two models: found without reading what a glance tells apart, and never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Canonical, Key, Sizes, View
from nacre.lifecycle.audit.tensors import Floats, TensorInfo
from nacre.lifecycle.audit.weights.contents import labels
from nacre.lifecycle.audit.weights.side import Side

ROWS, COLUMNS = 600, 40
Arrays = dict[Key, np.ndarray]


class Source:
    """Arrays as a source of tensors; counts the bytes it gives. `cut` is how long its blocks are."""

    def __init__(self, arrays: Mapping[str, np.ndarray], cut: int) -> None:
        self.arrays, self.cut, self.given = dict(arrays), cut, 0
        words = {"float32": "F32", "float16": "F16"}
        self._infos = {
            name: TensorInfo(name, words[str(one.dtype)], one.shape, one.nbytes, "x") for name, one in arrays.items()
        }

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def read(self, name: str, rows: slice | None = None) -> Floats:
        values = self.arrays[name] if rows is None else self.arrays[name][rows]
        self.given += values.nbytes
        return values.astype(np.float32)

    def blocks(self, name: str) -> Iterator[memoryview]:
        whole = self.arrays[name].tobytes()
        for start in range(0, len(whole), self.cut):
            piece = whole[start : start + self.cut]
            self.given += len(piece)
            yield memoryview(piece)


def side(arrays: Arrays, cut: int = 4096, transposed: frozenset[Key] = frozenset()) -> Side:
    stored, views = {}, {}
    for key, values in arrays.items():
        name = f"{key[0]}.{key[1]}"
        stored[name] = np.ascontiguousarray(values.T) if key in transposed else values
        views[key] = View(name, values.shape, transposed=key in transposed)
    return Side(Canonical("decoder", Sizes(), "", "", (), views=views), Source(stored, cut))


def drawn(seed: int, layers: int = 3) -> Arrays:
    draw = np.random.default_rng(seed)
    return {(layer, "up"): draw.normal(size=(ROWS, COLUMNS)).astype(np.float32) for layer in range(layers)}


def met(ours: Side, theirs: Side) -> set[tuple[Key, Key]]:
    a, b = labels(ours, theirs)
    return {(one, other) for one in a for other in b if a[one] == b[other]}


def given(one: Side) -> int:
    assert isinstance(one.source, Source)
    return one.source.given


@pytest.mark.parametrize("cut", [4096, 1000, 7])
def test_copies_meet_wherever_their_layers_and_blocks_end(cut: int) -> None:
    arrays = drawn(0)
    turned: Arrays = {(2 - (layer or 0), role): values for (layer, role), values in arrays.items()}
    assert met(side(arrays), side(turned, cut)) == {((layer, "up"), (2 - layer, "up")) for layer in range(3)}


@pytest.mark.parametrize("row", [0, 1, 150, 299, 450, 598, 599])
def test_one_other_value_anywhere_is_another_tensor(row: int) -> None:
    arrays, other = drawn(0), drawn(0)
    other[1, "up"][row, 13] = np.nextafter(other[1, "up"][row, 13], np.float32(9))
    assert met(side(arrays), side(other)) == {((0, "up"), (0, "up")), ((2, "up"), (2, "up"))}


def test_strangers_cost_a_glance_and_copies_one_reading() -> None:
    ours, theirs = side(drawn(0)), side(drawn(1))
    assert not met(ours, theirs)
    whole = sum(values.nbytes for values in drawn(0).values())
    assert given(ours) + given(theirs) < whole // 10
    ours, theirs = side(drawn(0)), side(drawn(0))
    assert len(met(ours, theirs)) == 3
    assert given(theirs) < whole * 1.1


def test_repeated_layers_meet_each_of_their_copies() -> None:
    arrays = drawn(0)
    arrays[1, "up"] = arrays[0, "up"].copy()
    other = drawn(0, layers=2)
    found = met(side(arrays), side(other))
    assert found == {((0, "up"), (0, "up")), ((1, "up"), (0, "up"))}
    arrays[1, "up"][ROWS // 4, 0] += 1  # of one glance with layer 0, and another tensor
    assert met(side(arrays), side(other)) == {((0, "up"), (0, "up"))}


def test_a_wider_dtype_and_another_order_hold_the_same_values() -> None:
    half = {key: values.astype(np.float16) for key, values in drawn(0).items()}
    wide: Arrays = {key: values.astype(np.float32) for key, values in half.items()}
    assert len(met(side(half), side(wide))) == 3
    turned = side(wide, transposed=frozenset({(1, "up")}))
    assert ((1, "up"), (1, "up")) in met(side(wide), turned)
    wide[2, "up"][ROWS // 4, 3] += 1
    assert ((2, "up"), (2, "up")) not in met(side(half), side(wide))


def test_zero_has_one_value_where_dtypes_differ() -> None:
    half = {key: values.astype(np.float16) for key, values in drawn(0).items()}
    half[0, "up"][0, 0] = np.float16(0.0)
    wide: Arrays = {key: values.astype(np.float32) for key, values in half.items()}
    wide[0, "up"][0, 0] = np.float32(-0.0)
    assert len(met(side(half), side(wide))) == 3


def test_what_is_no_number_is_an_error_where_values_are_compared() -> None:
    half = {key: values.astype(np.float16) for key, values in drawn(0).items()}
    half[0, "up"][ROWS // 4, 0] = np.float16("nan")
    wide: Arrays = {key: values.astype(np.float32) for key, values in half.items()}
    with pytest.raises(CheckpointError, match="not finite"):
        labels(side(half), side(wide))


def test_a_part_of_a_packed_matrix_meets_the_matrix_of_its_own() -> None:
    arrays = drawn(0, layers=2)
    packed = side({(0, "up"): np.concatenate([arrays[0, "up"], arrays[1, "up"]])})
    views = {
        (layer, "up"): View("0.up", (ROWS, COLUMNS), start=layer * ROWS, stop=(layer + 1) * ROWS) for layer in (0, 1)
    }
    parts = Side(Canonical("decoder", Sizes(), "", "", (), views=views), packed.source)
    assert met(parts, side(arrays)) == {((layer, "up"), (layer, "up")) for layer in range(2)}
