"""Roles that nothing within a model tells apart, settled against a reference, layer by layer.

For the *delta* only: what changed between two matrices can be measured once each has its counterpart. A test statistic
must never be computed on the result: the labels were chosen so that the two sides look alike, which would inflate it
between unrelated models.

Labels are chosen by what no change of basis moves (turned or permuted hidden channels, folded gains, permuted neurons,
shuffled heads, turned or scaled queries, mixed values): strengths of per-head products, their place among the
embedding's second moments, power sums of singular values. Equal values go before all that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from nacre.lifecycle.audit.canonical import Canonical, Key
from nacre.lifecycle.audit.kernel.relabel import relabelled
from nacre.lifecycle.audit.tensors import TensorSource

LEAD = 2.0  # the second best labelling must be this many times as far from the reference as the best
_TABLE_ROWS = 8192
_ATTENTION = ("q", "k", "v", "o")
_NORM_OF = {"q": "norm1", "k": "norm1", "v": "norm1", "gate": "norm2", "up": "norm2", "head": "final_norm"}
_Wide = NDArray[np.float64]


@dataclass(frozen=True)
class _Model:
    canonical: Canonical
    source: TensorSource

    def read(self, layer: int | None, role: str) -> _Wide:
        wide: _Wide = np.nan_to_num(self.canonical.views[layer, role].read(self.source)).astype(np.float64)
        return wide

    def has(self, layer: int | None, role: str) -> bool:
        return (layer, role) in self.canonical.views

    def layer(self, layer: int | None, roles: tuple[str, ...]) -> dict[str, _Wide]:
        return {role: self.read(layer, role) for role in roles if self.has(layer, role)}

    def table(self) -> _Wide | None:
        """Second moments (D, D) of the embedding, without their mean diagonal, of norm 1."""
        if not self.has(None, "embedding"):
            return None
        rows = self.read(None, "embedding")[:_TABLE_ROWS]
        moments = rows.T @ rows
        moments -= np.eye(len(moments)) * np.trace(moments) / len(moments)
        out: _Wide = moments / max(float(np.linalg.norm(moments)), 1e-30)
        return out


def settled(
    subject: Canonical, reference: Canonical, subject_source: TensorSource, reference_source: TensorSource
) -> Canonical:
    """`subject` with its ambiguous roles called as their nearest counterparts in `reference` are.

    Only layers that both have, with equal shapes, are settled; a group leaves `ambiguous` where all its layers were.
    Labels of the reference are taken as they are. Memory: the matrices of one layer of each side.
    """
    ours, theirs = _Model(subject, subject_source), _Model(reference, reference_source)
    tables = None
    left: list[tuple[str, ...]] = []
    groups = sorted(subject.ambiguous, key=lambda group: "norm" not in group[0])  # gains are folded into the others
    for group in groups:
        if set(group) <= set(_ATTENTION) and tables is None:
            tables = ours.table(), theirs.table()
        layers = sorted({layer for layer, role in subject.views if role == group[0]}, key=str)
        is_settled = bool(layers)
        for layer in layers:
            order = _order(ours, theirs, layer, group, tables or (None, None))
            is_settled = is_settled and order is not None
            if order is not None and order != group:
                moved = relabelled(ours.canonical, layer, dict(zip(group, order, strict=True)))
                ours = _Model(moved, subject_source)
        left += [] if is_settled else [group]
    return relabelled(ours.canonical, None, {}, tuple(left))


def _order(
    ours: _Model, theirs: _Model, layer: int | None, group: tuple[str, ...], tables: tuple[_Wide | None, _Wide | None]
) -> tuple[str, ...] | None:
    """The labels of the group's views in order, None where two labellings are about as near."""
    keys: list[Key] = [(layer, role) for role in group]
    if not all(
        key in theirs.canonical.views and theirs.canonical.views[key].shape == ours.canonical.views[key].shape
        for key in keys
    ):
        return None
    needed = (*group, *(_ATTENTION if set(group) <= set(_ATTENTION) else ()))
    roles = tuple(dict.fromkeys((*needed, *(_NORM_OF[role] for role in needed if role in _NORM_OF))))
    mine, yours = ours.layer(layer, roles), theirs.layer(layer, roles)
    sizes = ours.canonical.sizes.head_size, theirs.canonical.sizes.head_size
    goal = _features(yours, group, tables[1], sizes[1])
    far: dict[tuple[str, ...], float] = {}
    for order in permutations(group):
        called = mine | {new: mine[old] for old, new in zip(group, order, strict=True)}
        if all(np.array_equal(called[role], yours[role]) for role in group):
            return order
        found = _features(called, group, tables[0], sizes[0])
        if found.shape != goal.shape:
            return None
        far[order] = float(np.linalg.norm(found - goal))
    best, second = sorted(far, key=lambda order: far[order])[:2]
    return best if far[second] > LEAD * far[best] else None


def _features(at: Mapping[str, _Wide], group: tuple[str, ...], table: _Wide | None, size: int | None) -> _Wide:
    """What no change of basis moves, of one layer under one labelling."""
    if set(group) <= set(_ATTENTION) and size and all(role in at for role in _ATTENTION):
        q, k, v = (_folded(at, role) for role in ("q", "k", "v"))
        return np.concatenate([_pair(q, k, table, size), _pair(at["o"].T, v, table, size)])
    if all(at[role].ndim == 1 for role in group):
        return np.concatenate([np.sort(at[role]) for role in group])
    return np.concatenate([_power_sums(_folded(at, role)) for role in group])


def _folded(at: Mapping[str, _Wide], role: str) -> _Wide:
    norm = at.get(_NORM_OF.get(role, ""))
    return at[role] if norm is None or norm.shape[0] != at[role].shape[-1] else at[role] * norm


def _pair(left: _Wide, right: _Wide, table: _Wide | None, size: int) -> _Wide:
    """Of the per-head products left' right: log strengths, sorted; where their two sides lie among the table's moments.

    left (H*K, D), right (G*K, D). A turn or mix A of one and A^-T of the other cancels in every trace.
    """
    ours, theirs = (one.reshape(-1, size, one.shape[1]) for one in (left, right))
    if len(ours) < len(theirs):
        ours, theirs = theirs, ours
    each = len(ours) // len(theirs)
    strengths, places = [], np.zeros(2)
    for number, one in enumerate(ours):
        other = theirs[number // each]
        first, second = one @ one.T, other @ other.T
        strengths.append(float((first * second).sum()))
        if table is not None and table.shape[0] == one.shape[1]:
            places += [float(((one @ table @ one.T) * second).sum()), float(((other @ table @ other.T) * first).sum())]
    places = places * np.sqrt(left.shape[1]) / max(sum(strengths), 1e-30)
    return np.concatenate([np.sort(np.log(np.maximum(strengths, 1e-30))), places])


def _power_sums(matrix: _Wide) -> _Wide:
    """log tr(G^n) / n for n = 1..4, of the Gram matrix G of the shorter side."""
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    square = gram @ gram
    sums = np.array([np.trace(gram), np.square(gram).sum(), (gram * square).sum(), np.square(square).sum()])
    out: _Wide = np.log(np.maximum(sums, 1e-300)) / np.arange(1, 5)
    return out
