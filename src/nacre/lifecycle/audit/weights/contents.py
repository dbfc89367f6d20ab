"""Which tensors of two models hold the same values, without reading whole what a glance tells apart.

A glance is a hash of the first, middle and last rows: where two glances differ, so do the tensors. What they leave open
is read whole: two tensors, one of each side, are compared piece by piece up to their first difference, and where more
share a glance (defaults, repeated layers) each is hashed. So copies cost one reading of both sides, strangers a few
pages of each tensor, and no two tensors are called equal of which a byte was not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from nacre.lifecycle.audit.canonical import Key, View
from nacre.lifecycle.audit.tensors import Floats
from nacre.lifecycle.audit.weights.side import Side, finite

Labels = Mapping[Key, bytes]  # equal for equal contents, between two sides as within one
Member = tuple[Side, Key]
_PLAIN = frozenset({"F32", "F16", "BF16", "F64"})
_GLANCED_AT = 256  # values of each of three places
_PIECE = 4 << 20  # values held at once


def labels(a: Side, b: Side) -> tuple[Labels, Labels]:
    """A label for every tensor of each side: two are equal where both hold the same values in the same shape.

    Tensors of one dtype that lie as they are read are equal bit for bit, others in float32, with -0.0 as 0.0. Tensors
    that only one side holds may share a label that says nothing. Raises CheckpointError where bytes are missing or a
    number that was read is not finite.
    """
    sides = (a, b)
    found = tuple({key: _glanced((side, key)) for key in side.canonical.views} for side in sides)
    groups: dict[bytes, tuple[list[Key], list[Key]]] = {}
    for place, glances in enumerate(found):
        for key, glance in glances.items():
            groups.setdefault(glance, ([], []))[place].append(key)
    for ours, theirs in groups.values():
        if len(ours) == len(theirs) == 1:
            if not _are_equal((a, ours[0]), (b, theirs[0])):
                found[0][ours[0]] += b"subject"
                found[1][theirs[0]] += b"reference"
        elif ours and theirs:
            raw = _lie_alike([*((a, key) for key in ours), *((b, key) for key in theirs)])
            for place, keys in enumerate((ours, theirs)):
                found[place].update({key: _digest((sides[place], key), raw) for key in keys})
    return found[0], found[1]


def is_whole(view: View, stored: tuple[int, ...]) -> bool:
    """Whether a view is the stored tensor as it lies."""
    return not view.transposed and view.index is None and view.shape == stored


def _glanced(member: Member) -> bytes:
    return member[0].once(("glance", _view(member)), lambda: _glance(member))


def _glance(member: Member) -> bytes:
    """A hash of the shape and of some rows."""
    view = _view(member)
    digest = hashlib.sha256(repr(view.shape).encode())
    if 0 in view.shape or not view.shape:
        digest.update(np.ascontiguousarray(view.read(member[0].source) + 0.0).data)
        return digest.digest()
    read, rows = _rows_of(member), min(view.shape[0], -(-_GLANCED_AT // _row(view)))
    for start in sorted({0, (view.shape[0] - rows) // 2, view.shape[0] - rows}):
        digest.update(np.ascontiguousarray(read(slice(start, start + rows)) + 0.0).data)
    return digest.digest()


def _lie_alike(members: Iterable[Member]) -> bool:
    """Whether all are stored whole in one dtype, so that their bytes can be compared as they lie."""
    infos = [(_view(one), one[0].source.infos[_view(one).name]) for one in members]
    dtypes = {info.dtype for _, info in infos}
    return len(dtypes) == 1 and dtypes <= _PLAIN and all(is_whole(view, info.shape) for view, info in infos)


def _are_equal(ours: Member, theirs: Member) -> bool:
    if _lie_alike((ours, theirs)):
        left, right = (one[0].source.blocks(_view(one).name) for one in (ours, theirs))
        return _same_stream(left, right)
    return all(np.array_equal(one, other) for one, other in zip(_pieces(ours), _pieces(theirs), strict=True))


def _same_stream(ours: Iterator[memoryview], theirs: Iterator[memoryview]) -> bool:
    """Whether two streams of blocks hold the same bytes, wherever their blocks end."""
    left, right = memoryview(b""), memoryview(b"")
    while True:
        left = left if len(left) else next(ours, memoryview(b""))
        right = right if len(right) else next(theirs, memoryview(b""))
        length = min(len(left), len(right))
        if length == 0:
            return len(left) == len(right)
        if not _same_bytes(left[:length], right[:length]):
            return False
        left, right = left[length:], right[length:]


def _same_bytes(left: memoryview, right: memoryview) -> bool:
    """Eight bytes at a time: memory views themselves are compared number by number."""
    words = len(left) // 8 * 8
    same = np.array_equal(np.frombuffer(left[:words], np.uint64), np.frombuffer(right[:words], np.uint64))
    return bool(same) and bytes(left[words:]) == bytes(right[words:])


def _digest(member: Member, raw: bool) -> bytes:
    digest = hashlib.sha256(repr(_view(member).shape).encode())
    if raw:
        for block in member[0].source.blocks(_view(member).name):
            digest.update(block)
    else:
        for piece in _pieces(member):
            digest.update(np.ascontiguousarray(piece + 0.0).data)  # -0.0 and 0.0 are one value
    return digest.digest()


def _pieces(member: Member) -> Iterator[Floats]:
    """The values in float32, some rows at a time; the cut depends on the shape alone."""
    view = _view(member)
    if 0 in view.shape or not view.shape:
        yield finite(view.read(member[0].source), view.name)
        return
    read, step = _rows_of(member), max(1, _PIECE // _row(view))
    for start in range(0, view.shape[0], step):
        yield finite(read(slice(start, min(start + step, view.shape[0]))), view.name)


def _rows_of(member: Member) -> Callable[[slice], Floats]:
    """Reads rows of a view: by range where it is rows of its tensor in order, else from all of its values."""
    view, source = _view(member), member[0].source
    if not view.transposed and view.index is None and view.step == view.block:
        first = view.start
        return lambda rows: source.read(view.name, slice(first + rows.start, first + rows.stop))
    values = view.read(source)
    return lambda rows: values[rows]


def _view(member: Member) -> View:
    return member[0].canonical.views[member[1]]


def _row(view: View) -> int:
    return max(1, int(np.prod(view.shape[1:], dtype=np.int64)))
