"""The canonical graph: what a layer holds, as ordered lines with symbolic sizes; its hash and distance.

A line is an operation with parameters. Lines that begin with `stored:`, `declared:` or `beside:` are told and
compared, and are no part of the design: a head may be tied, dropped or replaced, a config may say anything, and a tower
beside the language model is a model of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOOSE = ("stored:", "declared:", "beside:")

# Roles in the order of computation, with what shape they have. D hidden, V vocabulary, T positions, H query heads,
# G key heads, K head size, F feed-forward, E experts, C and Q' compressed.
_INSIDE: tuple[tuple[str, str], ...] = (
    ("norm1", "(D)"), ("q_a", "(Q', D)"), ("q_a_norm", "(Q')"), ("q_b", "(H*K, Q')"), ("q", "(H*K, D)"),
    ("kv_a", "(C, D)"), ("kv_a_norm", "(C)"), ("kv_b", "(2*H*K, C)"), ("k", "(G*K, D)"), ("v", "(G*K, D)"),
    ("q_norm", "(K)"), ("k_norm", "(K)"), ("sinks", "(H)"), ("o", "(D, H*K)"), ("post_attention", "(D)"),
    ("cross.norm", "(D)"), ("cross.q", "(H*K, D)"), ("cross.k", "(G*K, D)"), ("cross.v", "(G*K, D)"),
    ("cross.q_norm", "(K)"), ("cross.k_norm", "(K)"), ("cross.o", "(D, H*K)"),
    ("norm2", "(D)"), ("router", "(E, D)"), ("router.correction", "(E)"),
    ("gate", "(F, D)"), ("up", "(F, D)"), ("down", "(D, F)"),
    ("experts.gate", "E of (F, D)"), ("experts.up", "E of (F, D)"), ("experts.down", "E of (D, F)"),
    ("shared.router", "(1, D)"), ("shared.gate", "(F, D)"), ("shared.up", "(F, D)"), ("shared.down", "(D, F)"),
    ("post_ffn", "(D)"),
)  # fmt: skip
_OUTSIDE: tuple[tuple[str, str], ...] = (
    ("embedding", "(V, D)"), ("positions", "(T, D)"), ("token_types", "(2, D)"), ("relative_bias", "(buckets, H)"),
    ("embedding_norm", "(D)"), ("final_norm", "(D)"),
)  # fmt: skip
_INSIDE_AT = {role: (at, shape) for at, (role, shape) in enumerate(_INSIDE)}
_OUTSIDE_AT = {role: (at, shape) for at, (role, shape) in enumerate(_OUTSIDE)}
HASHED_OUTSIDE = frozenset(_OUTSIDE_AT)


@dataclass(frozen=True)
class Design:
    """Roles without names and sizes: `outside` the layers, in each kind of layer, and the encoder of an
    encoder-decoder. Layers that hold the same roles are of one kind; how many there are is a size."""

    outside: frozenset[str]
    layers: frozenset[frozenset[str]]
    encoder: Design | None = None

    def lines(self) -> tuple[str, ...]:
        """The operations in order of computation."""
        before, after = _outside_lines(self.outside)
        kinds = sorted((tuple(_layer_lines(kind)) for kind in self.layers), key=lambda one: (len(one), one))
        inside = []
        for number, kind in enumerate(kinds):
            label = "layer" if len(kinds) == 1 else f"layer of kind {number + 1}"
            inside += [f"{label}: {line}" for line in kind]
        encoder = [f"encoder {line}" for line in self.encoder.lines()] if self.encoder else []
        return (*encoder, *before, *inside, *after)


def digest(lines: Iterable[str]) -> str:
    """A hash of the lines that are part of the design."""
    text = "\n".join(line for line in lines if not line.startswith(LOOSE))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def design_lines(lines: Iterable[str]) -> tuple[str, ...]:
    """The lines that are part of the design."""
    return tuple(line for line in lines if not line.startswith(LOOSE))


def distance(one: Sequence[str], other: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """Insertions and deletions between two designs, and which: `+ line` only in `one`, `- line` only in `other`."""
    ours, theirs = design_lines(one), design_lines(other)
    table = _common_lengths(ours, theirs)
    changes: list[str] = []
    at, to = 0, 0
    while at < len(ours) or to < len(theirs):
        if at < len(ours) and to < len(theirs) and ours[at] == theirs[to]:
            at, to = at + 1, to + 1
        elif to == len(theirs) or (at < len(ours) and table[at + 1][to] >= table[at][to + 1]):
            changes.append(f"+ {ours[at]}")
            at += 1
        else:
            changes.append(f"- {theirs[to]}")
            to += 1
    return len(changes), tuple(changes)


def _common_lengths(ours: Sequence[str], theirs: Sequence[str]) -> list[list[int]]:
    table = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for at in range(len(ours) - 1, -1, -1):
        for to in range(len(theirs) - 1, -1, -1):
            same = ours[at] == theirs[to]
            table[at][to] = table[at + 1][to + 1] + 1 if same else max(table[at + 1][to], table[at][to + 1])
    return table


def _layer_lines(kind: frozenset[str]) -> list[str]:
    def place(role: str) -> tuple[int, str]:
        return _INSIDE_AT.get(role.removesuffix(".bias"), (len(_INSIDE), ""))[0], role

    return [f"{role} {_INSIDE_AT.get(role, (0, ''))[1]}".rstrip() for role in sorted(kind, key=place)]


def _outside_lines(roles: frozenset[str]) -> tuple[list[str], list[str]]:
    ordered = sorted(roles, key=lambda role: (_OUTSIDE_AT[role.removesuffix(".bias")][0], role))
    lines = [f"{role} {_OUTSIDE_AT.get(role, (0, ''))[1]}".rstrip() for role in ordered]
    is_last = [bool(re.match(r"final_norm", line)) for line in lines]
    return (
        [line for line, last in zip(lines, is_last, strict=True) if not last],
        [line for line, last in zip(lines, is_last, strict=True) if last],
    )
