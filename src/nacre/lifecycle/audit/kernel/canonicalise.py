"""A subject's kernel under canonical names: roles, sizes, graph and hashes, from its config and headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from nacre.errors import CheckpointError
from nacre.lifecycle.audit.canonical import Basis, Canonical, Layout, Sizes
from nacre.lifecycle.audit.kernel import declared
from nacre.lifecycle.audit.kernel.configured import from_config
from nacre.lifecycle.audit.kernel.graph import HASHED_OUTSIDE, Design, digest
from nacre.lifecycle.audit.kernel.heads import FITTING, Heads, section, solve_heads
from nacre.lifecycle.audit.kernel.names import Parsed, is_inert, parse
from nacre.lifecycle.audit.kernel.nearest import nearest
from nacre.lifecycle.audit.kernel.quantised import Bits, without_bits
from nacre.lifecycle.audit.kernel.relabel import paired_biases
from nacre.lifecycle.audit.kernel.roles import Stack, regated
from nacre.lifecycle.audit.kernel.shape_hash import shape_hash
from nacre.lifecycle.audit.kernel.sizes import Shape, Solved, gate_in_up, solve
from nacre.lifecycle.audit.kernel.stacks import Stacks, find
from nacre.lifecycle.audit.kernel.unnamed import find_by_shapes
from nacre.lifecycle.audit.kernel.values import told
from nacre.lifecycle.audit.kernel.views import Context, Viewed, expand, views_of
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.subject import Subject

_STATEFUL = ("mamba.", "rwkv.")


@dataclass
class _Side:
    """One stack, solved."""

    stack: Stack
    solved: Solved
    heads: Heads
    viewed: Viewed


@dataclass
class _Found:
    """Everything that the assembly reads."""

    stacks: Stacks
    sides: list[_Side]
    notes: list[str]
    ambiguous: tuple[tuple[str, ...], ...]
    inert: Mapping[str, Shape]
    bits: Bits


def canonicalise(subject: Subject) -> Canonical:
    """The roles, sizes, graph and hashes of a subject's kernel.

    No weights are read but where `subject.tensors` is at hand and shapes leave roles open under names that say nothing
    (`values.told`).
    Raises CheckpointError, with the reason, where no role can be told.
    """
    config = subject.config or {}
    if not subject.infos:
        return from_config(subject)
    bits = without_bits({name: info.shape for name, info in subject.infos.items()})
    parsed = [one for one in parse(bits.shapes) if not is_inert(one.name)]
    shapes = {one.name: bits.shapes[one.name] for one in parsed}
    inert = {name: shape for name, shape in bits.shapes.items() if is_inert(name)}
    stacks, notes, ambiguous = _stacks(subject, parsed, shapes)
    _regate(stacks, shapes, config, notes)
    sides = [_solve(one, shapes, inert, parsed, subject.config, bits) for one in stacks.all()]
    found = _Found(stacks, sides, [*notes, *bits.notes], ambiguous, inert, bits)
    canonical = _assemble(subject, found)
    return told(canonical, subject.tensors) if ambiguous and subject.tensors is not None else paired_biases(canonical)


def _stacks(
    subject: Subject, parsed: list[Parsed], shapes: dict[str, Shape]
) -> tuple[Stacks, list[str], tuple[tuple[str, ...], ...]]:
    """Stacks by names; by shapes where names say nothing or contradict the shapes."""
    stacks = find(parsed, shapes)
    solved = Solved() if stacks is None else solve(stacks.main, shapes)
    if stacks is not None and not solved.problems and not solved.is_mixed:
        return stacks, [], ()
    found = (
        find_by_shapes(parsed, shapes, subject.tensors, trust_names=stacks is None) if any(shapes.values()) else None
    )
    if found is not None and (stacks is None or solved.problems or found.is_exact):
        why = "names say nothing" if stacks is None else "names contradict shapes"
        return found.stacks, [say("{why}: roles were solved from shapes", why=why), *found.notes], found.ambiguous
    if stacks is not None:
        return stacks, [say("shapes contradict names: {problem}", problem=one) for one in solved.problems[:3]], ()
    lacking = "their shapes fit no known design" if any(shapes.values()) else "no shapes are known"
    what = say("none of {n} tensor names says what its tensor does, and {lacking}", n=len(parsed), lacking=lacking)
    raise CheckpointError(what, remedy="compare the weights by exact hashes (stage 3), which need no roles")


def _regate(stacks: Stacks, shapes: Mapping[str, Shape], config: Mapping[str, Any], notes: list[str]) -> None:
    for stack in stacks.all():
        wide = gate_in_up(stack, shapes, solve(stack, shapes))
        is_glm = "up" in stack.roles() and config.get("rmsnorm") is True and not any(shapes.values())
        if is_glm:
            wide = {one.name for one in stack.placed if one.role == "up"}
            notes.append("without shapes, that the feed-forward is gated is taken from the config (rmsnorm of GLM)")
        regated(stack, wide)


def _solve(
    stack: Stack,
    shapes: Mapping[str, Shape],
    inert: Mapping[str, Shape],
    parsed: list[Parsed],
    config: Mapping[str, Any] | None,
    bits: Bits,
) -> _Side:
    solved = solve(stack, shapes)
    heads = solve_heads(stack, shapes, solved, section(config, stack.label), inert)
    context = Context(shapes, {one.name: one for one in parsed}, solved, heads, bits.packed)
    return _Side(stack, solved, heads, views_of(stack, context))


def _assemble(subject: Subject, found: _Found) -> Canonical:
    stacks, sides = found.stacks, found.sides
    config, main = declared.language_config(subject.config), sides[0]
    encoder = next((one for one in sides if one.stack is stacks.encoder), None)
    design = Design(_outside(main.stack), _kinds(main), None if encoder is None else _design(encoder, {"embedding"}))
    beside = [f"beside: {one.stack.label}: {line}" for one in sides if one.stack in stacks.beside
              for line in _design(one).lines()]  # fmt: skip
    stored = sorted(
        f"stored: {role}" for role in main.stack.roles() if role in ("head", "pooler", "task_head", "mlm.dense")
    )
    graph = (*design.lines(), *stored, *declared.lines(config), *beside)
    views = {key: view for one in sides for key, view in one.viewed.views.items()}
    basis: Basis = "shapes" if main.solved.hidden is not None and main.viewed.views else "names"
    sizes, said = _sizes(main, config, basis)
    return Canonical(
        layout=_layout(main, encoder),
        sizes=sizes,
        design=digest(graph),
        shape=_shape(design, [main, encoder], found.bits) if basis == "shapes" else "",
        graph=graph,
        family=nearest(graph, declared.function(config)).family,
        is_gated=any(role.endswith("gate") for kind in design.layers for role in kind),
        views=views,
        names={name: to for one in sides for name, to in one.viewed.names.items()},
        unmapped=tuple(sorted({*stacks.unmapped, *found.inert, *found.bits.dropped})),
        notes=(*found.notes, *said, *(note for one in sides for note in one.viewed.notes)),
        basis=basis,
        ambiguous=found.ambiguous,
    )


def _shape(design: Design, sides: Sequence[_Side | None], bits: Bits) -> str:
    return shape_hash(design, [(one.stack, one.solved) for one in sides if one], bits.shapes, bits.packed)


def _design(side: _Side, without: Set[str] = frozenset()) -> Design:
    """A stack by itself. An encoder's embedding is most often the decoder's, stored again or not."""
    return Design(_outside(side.stack) - without, _kinds(side))


def _outside(stack: Stack) -> frozenset[str]:
    roles = {one.key for one in stack.of_layer(None) if one.role in HASHED_OUTSIDE}
    roles |= {one.key for one in stack.placed if one.role == "relative_bias"}
    return frozenset(role.removesuffix(".bias") if role == "relative_bias.bias" else role for role in roles)


def _kinds(side: _Side) -> frozenset[frozenset[str]]:
    return frozenset(_kind(side, layer) for layer in side.stack.layers)


def _kind(side: _Side, layer: int) -> frozenset[str]:
    roles: set[str] = set()
    for one in side.stack.of_layer(layer):
        if one.role == "relative_bias":
            continue
        is_expert = one.expert is not None or one.name in side.solved.stacked or ".experts." in one.name
        end = ".bias" if one.part == "bias" else ""
        for role in expand(one.role):
            bare = role in ("gate", "up", "down") and (is_expert or "_exps" in one.name)
            roles.add(f"experts.{role}{end}" if bare else f"{role}{end}")
    return frozenset(roles)


def _layout(main: _Side, encoder: _Side | None) -> Layout:
    if encoder is not None:
        return "encoder-decoder"
    if any(role.startswith(_STATEFUL) for role in main.stack.roles()):
        return "other"
    outside = _outside(main.stack)
    is_post_norm = "embedding_norm" in outside and "final_norm" not in outside
    is_encoder = (is_post_norm and "positions" in outside) or "token_types" in outside
    return "encoder" if is_encoder else "decoder"


def _sizes(main: _Side, config: Mapping[str, Any], basis: Basis) -> tuple[Sizes, list[str]]:
    solved, heads, said = main.solved, main.heads, declared.sizes(config)
    layers = len(main.stack.layers)
    if basis == "names":
        sizes = Sizes(layers, said["hidden"], said["heads"], said["kv_heads"], said["head_size"], said["ffn"],
                      said["vocabulary"], said["experts"])  # fmt: skip
        counted = {"layers": layers, "experts": main.solved.experts}
        wrong = declared.contradictions(config, counted)
        return sizes, [*wrong, "the index gives no shapes: sizes but the number of layers are the config's word"]
    sizes = Sizes(layers, solved.hidden, heads.heads, heads.kv_heads, heads.head_size, solved.ffn, solved.vocabulary,
                  solved.experts)  # fmt: skip
    found = {"layers": layers, "hidden": solved.hidden, "heads": heads.heads, "kv_heads": heads.kv_heads,
             "ffn": solved.ffn, "vocabulary": solved.vocabulary, "experts": solved.experts}  # fmt: skip
    notes = declared.contradictions(config, found)
    if solved.query is not None and heads.source != FITTING:
        notes.append(say("the head size was told by {source}", source=heads.source))
    return sizes, notes
