"""Sizes from shapes: which side of a matrix is the hidden one, which tensors lie transposed, how wide everything is.

Every matrix of a layer has the hidden size D on one side: queries, keys, values and what enters the feed-forward read
it (their columns), `o` and `down` write it (their rows). What does not fit these equations is a contradiction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nacre.lifecycle.audit.kernel.roles import Placed, Stack
from nacre.lifecycle.audit.said import say

Shape = tuple[int, ...]

READERS = frozenset({"q", "k", "v", "qkv", "kv", "gate", "up", "gate_up", "router", "q_a", "kv_a"})
WRITERS = frozenset({"o", "down"})
_WIDTH_D = frozenset({"norm1", "norm2", "post_attention", "post_ffn", "final_norm", "embedding_norm"})


@dataclass
class Solved:
    """Numbers of one stack.

    `flipped` says of each stored matrix whether it lies (in, out), `is_mixed` whether only some do; `problems` are
    shapes that contradict their roles. `stacked` are tensors that hold a matrix for each expert.
    """

    hidden: int | None = None
    query: int | None = None
    key: int | None = None
    ffn: int | None = None
    vocabulary: int | None = None
    experts: int | None = None
    flipped: dict[str, bool] = field(default_factory=dict)
    stacked: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    is_mixed: bool = False


def solve(stack: Stack, shapes: Mapping[str, Shape]) -> Solved:
    """Solves the equations of one stack; shapes that are unknown (an index, packed integers) are passed over."""
    solved = Solved(hidden=_hidden(stack, shapes))
    if solved.hidden is None:
        return solved
    matrices = [one for one in stack.placed if one.part != "bias" and len(shapes.get(one.name, ())) >= 2]
    _orient(matrices, shapes, solved)
    solved.query = _most(_out_in(one, shapes, solved)[1] for one in _of(matrices, "o"))
    solved.query = solved.query or _most(_out_in(one, shapes, solved)[0] for one in _of(matrices, "q"))
    solved.key = _key_width(matrices, shapes, solved)
    solved.ffn = _most(_out_in(one, shapes, solved)[1] for one in _of(matrices, "down"))
    solved.experts = _experts(stack, shapes, solved)
    embedding = next((one for one in stack.placed if one.role == "embedding" and shapes.get(one.name)), None)
    solved.vocabulary = shapes[embedding.name][0] if embedding else None
    _check(matrices, shapes, solved)
    return solved


def gate_in_up(stack: Stack, shapes: Mapping[str, Shape], solved: Solved) -> set[str]:
    """Names of `up` matrices that are twice as wide as `down` reads: gate and up in one."""
    wide = set()
    for one in stack.placed:
        same = next((other for other in stack.of_layer(one.layer) if other.role == _down_of(one.role)
                     and other.expert == one.expert and other.part == "weight"), None)  # fmt: skip
        if one.role.removeprefix("shared.") != "up" or same is None or one.part == "bias":
            continue
        if shapes.get(one.name) and shapes.get(same.name):
            width = _out_in(one, shapes, solved)[0]
            if width == 2 * _out_in(same, shapes, solved)[1]:
                wide.add(one.name)
    biases = {_bare(one.name) for one in stack.placed if one.name in wide}
    return wide | {one.name for one in stack.placed if one.part == "bias" and _bare(one.name) in biases}


def out_in(one: Placed, shapes: Mapping[str, Shape], solved: Solved) -> Shape:
    """The shape of a stored tensor as torch.nn.Linear would hold it (one matrix of a stack of experts)."""
    return _out_in(one, shapes, solved)


def _bare(name: str) -> str:
    return name.rpartition(".")[0]


def _down_of(role: str) -> str:
    return role.replace("gate_up", "down").replace("up", "down")


def _of(matrices: Sequence[Placed], role: str) -> list[Placed]:
    return [one for one in matrices if one.role == role]


def _most(values: object) -> int | None:
    counted = Counter(values)  # type: ignore[call-overload]
    return max(counted, key=lambda one: (counted[one], one)) if counted else None


def _hidden(stack: Stack, shapes: Mapping[str, Shape]) -> int | None:
    norms = [shapes[one.name][0] for one in stack.placed if one.role in _WIDTH_D and len(shapes.get(one.name, ())) == 1]
    sides = Counter(side for one in stack.placed if one.role in READERS | WRITERS and one.part != "bias"
                    for side in set(shapes.get(one.name, ())[-2:]))  # fmt: skip
    if norms:
        return Counter(norms).most_common(1)[0][0]
    return sides.most_common(1)[0][0] if sides else None


def _orient(matrices: Sequence[Placed], shapes: Mapping[str, Shape], solved: Solved) -> None:
    """Where both sides equal D the shape cannot tell: such a matrix lies as most others of its stack do."""
    votes: Counter[bool] = Counter()
    open_ones = []
    for one in matrices:
        if len(shapes[one.name]) == 3 and _bare_role(one.role) in ("gate", "up", "down", "gate_up"):
            solved.stacked.add(one.name)
        is_reader, is_writer = _reads(one.role), _writes(one.role)
        if not is_reader and not is_writer:
            solved.flipped[one.name] = False
            continue
        rows, columns = shapes[one.name][-2:]
        if rows == columns:
            open_ones.append(one.name)
            continue
        hidden_first = rows == solved.hidden
        solved.flipped[one.name] = hidden_first if is_reader else not hidden_first
        votes[solved.flipped[one.name]] += one.name not in solved.stacked
    solved.is_mixed = votes[True] > 0 and votes[False] > 0
    for name in open_ones:
        solved.flipped[name] = votes[True] > votes[False]


def _bare_role(role: str) -> str:
    return role.removeprefix("shared.").removeprefix("cross.")


def _reads(role: str) -> bool:
    return _bare_role(role) in READERS


def _writes(role: str) -> bool:
    return _bare_role(role) in WRITERS


def _out_in(one: Placed, shapes: Mapping[str, Shape], solved: Solved) -> Shape:
    shape = shapes[one.name]
    if len(shape) == 3 and one.name in solved.stacked:
        shape = shape[1:]
    return shape[::-1] if solved.flipped.get(one.name) else shape


def _key_width(matrices: Sequence[Placed], shapes: Mapping[str, Shape], solved: Solved) -> int | None:
    key = _most(_out_in(one, shapes, solved)[0] for one in _of(matrices, "k"))
    if key is not None:
        return key
    both = _most(_out_in(one, shapes, solved)[0] for one in _of(matrices, "kv"))
    if both is not None:
        return both // 2
    packed = _most(_out_in(one, shapes, solved)[0] for one in _of(matrices, "qkv"))
    if packed is None or solved.query is None or packed <= solved.query:
        return None
    return (packed - solved.query) // 2


def _experts(stack: Stack, shapes: Mapping[str, Shape], solved: Solved) -> int | None:
    numbers = {one.expert for one in stack.placed if one.expert is not None}
    stacked = [shapes[name][0] for name in solved.stacked if name in shapes]
    return len(numbers) or (max(stacked) if stacked else None)


def _check(matrices: Sequence[Placed], shapes: Mapping[str, Shape], solved: Solved) -> None:
    inner: dict[tuple[int | None, int | None, str], set[int]] = {}
    is_latent = bool(_of(matrices, "kv_a"))
    for one in matrices:
        if not _reads(one.role) and not _writes(one.role):
            continue
        out, into = _out_in(one, shapes, solved)
        wanted = into if _reads(one.role) else out
        if wanted != solved.hidden and not one.role.startswith("cross."):
            solved.problems.append(
                say(
                    "{name} {shape} cannot be {role} beside hidden size {hidden}",
                    name=one.name,
                    shape=str(shapes[one.name]),
                    role=one.role,
                    hidden=solved.hidden,
                )
            )
        if _bare_role(one.role) in ("gate", "up", "down"):
            width = into if _writes(one.role) else out
            inner.setdefault((one.layer, one.expert, one.role.rpartition(".")[0]), set()).add(width)
        if one.role in ("k", "v") and solved.key is not None and out != solved.key:
            solved.problems.append(
                say("{name} gives {out} rows, other keys and values {key}", name=one.name, out=out, key=solved.key)
            )
        if one.role == "q" and not is_latent and solved.query is not None and out != solved.query:
            solved.problems.append(
                say("{name} gives {out} rows where o reads {query}", name=one.name, out=out, query=solved.query)
            )
    for where, widths in inner.items():
        doubled = len(widths) == 2 and max(widths) == 2 * min(widths)
        if len(widths) > 1 and not doubled:
            template = "layer {layer}: gate, up and down disagree on the feed-forward's size {widths}"
            solved.problems.append(say(template, layer=where[0], widths=str(sorted(widths))))
