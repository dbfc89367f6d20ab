"""Roles from names: the lexicon applied layer by layer, and what only siblings can tell.

`w2` is the gate in Qwen-1 and the down projection in Mixtral; `post_attention_layernorm` follows the attention in
Gemma 2 and precedes the feed-forward in Llama. Which of the two is told by what else the layer holds.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from nacre.lifecycle.audit.kernel.lexicon import CROSS, LAYER, OTHERS, OUTSIDE, SHARED, SIDES
from nacre.lifecycle.audit.kernel.names import Parsed

_CORE_IN = frozenset({"q", "qkv", "q_a", "q_b", "kv"})
_CORE_FFN = frozenset({"down", "up", "gate_up", "gate"})
_OTHER = ("mamba.", "rwkv.", "conv.", "linear.")
_OUTSIDE_OF_A_SIDE = frozenset({"positions", "final_norm", "embedding_norm", "embedding", "token_types"})


@dataclass(frozen=True)
class Placed:
    """A stored tensor with its role. `role` may still be packed (`qkv`, `kv`, `gate_up`)."""

    name: str
    role: str
    part: str
    layer: int | None = None
    expert: int | None = None

    @property
    def key(self) -> str:
        """The role with its expert and its part: `gate.3`, `q.bias`."""
        expert = "" if self.expert is None else f".{self.expert}"
        return f"{self.role}{expert}{'.bias' if self.part == 'bias' else ''}"


@dataclass
class Stack:
    """Tensors of one stack and what stands around it. `label` is empty for the language model's own."""

    prefix: str
    label: str = ""
    placed: list[Placed] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)

    @property
    def layers(self) -> list[int]:
        """Layer numbers, ascending."""
        return sorted({one.layer for one in self.placed if one.layer is not None})

    def of_layer(self, layer: int | None) -> list[Placed]:
        """What one layer holds (None: what stands outside)."""
        return [one for one in self.placed if one.layer == layer]

    def roles(self) -> Counter[str]:
        """How often each role occurs."""
        return Counter(one.role for one in self.placed)


def has_core(roles: Iterable[str]) -> bool:
    """Whether roles of a layer suffice to know what it does: something mixes tokens, and something follows it."""
    found = {role.removeprefix("shared.") for role in roles}
    if any(role.startswith(_OTHER) for role in found):
        return True
    attention = bool(found & _CORE_IN) and "o" in found
    return attention and bool(found & _CORE_FFN) and "down" in found and any(_is_norm(role) for role in found)


def place_layers(prefix: str, parsed: Sequence[Parsed]) -> Stack:
    """Roles inside one stack. Layers without any core (MixFormer's first and last) are left to the outside."""
    stack, by_layer = Stack(prefix), defaultdict(list)
    for one in parsed:
        by_layer[one.layer].append(one)
    for layer in sorted(by_layer, key=lambda one: -1 if one is None else one):
        placed = _of_siblings([(one, layer_role(one.path, by_layer[layer])) for one in by_layer[layer]])
        if layer is None or not any(one.role in _CORE_IN | _CORE_FFN or one.role.startswith(_OTHER) for one in placed):
            stack.unmapped += [one.name for one in by_layer[layer]]
            continue
        known = {one.name for one in placed}
        stack.placed += placed
        stack.unmapped += [one.name for one in by_layer[layer] if one.name not in known]
    return stack


def layer_role(path: str, siblings: Sequence[Parsed]) -> str | None:
    """The role of a path inside a layer, None where the lexicon has no word for it."""
    for marker, pattern, prefix in OTHERS:
        if any(re.fullmatch(marker, f".{one.path}", re.IGNORECASE) for one in siblings):
            match = re.fullmatch(pattern, path, re.IGNORECASE)
            if match:
                return prefix + next(group for group in match.groups() if group).lower()
    role = _first(LAYER, path)
    if role is None:
        return None
    if re.fullmatch(CROSS, path, re.IGNORECASE):
        return f"cross.{role}"
    shared = re.fullmatch(SHARED, path, re.IGNORECASE) and not role.startswith("shared.")
    return f"shared.{role}" if shared else role


def outside_role(path: str) -> str | None:
    """The role of a path outside the layers."""
    return _first(OUTSIDE, path)


def side_of(text: str) -> str | None:
    """`vision` or `audio` where a path's words say so."""
    return next((label for pattern, label in SIDES if re.search(pattern, text, re.IGNORECASE)), None)


def place_outside(parsed: Sequence[Parsed], stacks: Sequence[Stack], main: Stack) -> list[str]:
    """Gives each tensor outside the layers to the stack whose path it shares most of; the names left over."""
    claims: dict[tuple[int, str], list[tuple[int, int, str, Placed]]] = defaultdict(list)
    left = []
    for one in parsed:
        path = one.path if one.layer is None else one.path or one.stack
        role = outside_role(path)
        at, common = _nearest(one.name, stacks, main)
        stranger = at == stacks.index(main) and side_of(path) is not None
        if role is None or role == "projector" or stranger or (stacks[at].label and role not in _OUTSIDE_OF_A_SIDE):
            left.append(one.name)
            continue
        placed = Placed(one.name, role, one.part)
        claims[(at, placed.key)].append((-common, len(one.name), one.name, placed))
    for (at, _), claim in claims.items():
        chosen, *others = sorted(claim, key=lambda one: one[:3])
        stacks[at].placed.append(chosen[3])
        left += [one[2] for one in others]
    return left


def _nearest(name: str, stacks: Sequence[Stack], main: Stack) -> tuple[int, int]:
    words = name.split(".")
    shared = [_common(words, one.prefix.split(".")) for one in stacks]
    most = max(shared)
    at = stacks.index(main)
    return (at, most) if shared[at] == most else (shared.index(most), most)


def _common(words: Sequence[str], others: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(words, others, strict=False)))


def _first(rules: Iterable[tuple[str, str]], path: str) -> str | None:
    for pattern, role in rules:
        match = re.fullmatch(pattern, path, re.IGNORECASE)
        if match:
            return match.expand(role) if "\\" in role else role
    return None


def _is_norm(role: str) -> bool:
    return role in ("norm1", "norm2", "post_attention", "post_ffn")


def _of_siblings(found: Sequence[tuple[Parsed, str | None]]) -> list[Placed]:
    roles = {role for _, role in found if role is not None}
    renamed = {**_feed_forward_words(roles), **_norm_words(roles)}
    placed = []
    for one, role in found:
        if role is None:
            continue
        head, _, tail = role.rpartition(".") if role.startswith("shared.") else ("", "", role)
        role = f"{head}.{renamed.get(tail, tail)}" if head else renamed.get(role, role)
        role = _numbered_norm(one.path, found) if role == "norm?" else role
        placed.append(Placed(one.name, role, one.part, one.layer, one.expert))
    return _single(placed)


def _feed_forward_words(roles: set[str]) -> Mapping[str, str]:
    bare = {role.removeprefix("shared.") for role in roles}
    if "w3" in bare:
        return {"w1": "gate", "w2": "down", "w3": "up"}
    if "down" in bare and "w2" in bare:
        return {"w1": "up", "w2": "gate"}
    return {"w1": "up", "w2": "down"}


def _norm_words(roles: set[str]) -> Mapping[str, str]:
    if "pre_ffn" in roles:
        return {"pre_ffn": "norm2", "norm2": "post_attention"} if "norm2" in roles else {"pre_ffn": "norm2"}
    if "post_ffn" in roles and "norm2" in roles and "norm1" not in roles:
        return {"norm2": "post_attention"}
    return {}


def _numbered_norm(path: str, found: Sequence[tuple[Parsed, str | None]]) -> str:
    """T5 numbers the parts of a block: `layer.1.layer_norm` belongs to what else stands in `layer.1`."""
    within = path.rpartition(".")[0]
    beside = {role for one, role in found if role and role != "norm?" and one.path.startswith(f"{within}.")}
    if any(role.startswith("cross.") for role in beside):
        return "cross.norm"
    return "norm1" if beside & (_CORE_IN | {"o"}) else "norm2"


def _single(placed: list[Placed]) -> list[Placed]:
    """One tensor a role: of several (a decoy beside the real one), the shortest name stays."""
    best: dict[str, Placed] = {}
    for one in sorted(placed, key=lambda one: (len(one.name), one.name)):
        best.setdefault(one.key, one)
    return list(best.values())


def regated(stack: Stack, packed: set[str]) -> None:
    """Turns `up` into `gate_up` for the names in `packed`: two matrices of one width in one tensor."""
    stack.placed = [replace(one, role=one.role.replace("up", "gate_up")) if one.name in packed else one
                    for one in stack.placed]  # fmt: skip
