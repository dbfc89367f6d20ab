"""Attacks by name, with what an audit should make of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nacre.lifecycle.audit.attacks import bases, pruning, rounding, shapes, tampering
from nacre.lifecycle.audit.attacks.model import Model


@dataclass(frozen=True)
class Attack:
    """`apply(model, seed)`. `keeps_function`: to rounding. `kind`: the kind of derivation that was made."""

    name: str
    kind: str
    apply: Callable[[Model, int], Model]
    keeps_function: bool = False


def _all_bases(model: Model, seed: int) -> Model:
    """Every change of basis at once: rotated and folded, neurons and heads shuffled, queries turned, values mixed."""
    model = bases.rotate_hidden(model, seed)
    model = bases.permute_neurons(model, seed + 1, scale=0.5)
    model = bases.permute_heads(model, seed + 2)
    model = bases.rotate_queries(model, seed + 3)
    return bases.mix_values(model, seed + 4)


_BASES: dict[str, Callable[[Model, int], Model]] = {
    "permute-hidden": bases.permute_hidden,
    "fold-gains": lambda model, seed: bases.fold_gains(model),
    "rotate-hidden": bases.rotate_hidden,
    "permute-neurons": lambda model, seed: bases.permute_neurons(model, seed, scale=0.5),
    "permute-heads": bases.permute_heads,
    "rotate-queries": bases.rotate_queries,
    "mix-values": bases.mix_values,
    "all-bases": _all_bases,
}
_DERIVED: dict[str, tuple[str, Callable[[Model, int], Model]]] = {
    "dummy-neurons": ("width-changed", lambda model, seed: bases.add_neurons(model, 0.25, seed)),
    "float8": ("quantized", lambda model, seed: rounding.round_float8(model)),
    "2:4": ("pruned", lambda model, seed: pruning.prune_pattern(model)),
    "drop-layer": ("depth-changed", lambda model, seed: shapes.drop_layers(model, 1)),
    "stack-layers": ("depth-changed", lambda model, seed: shapes.stack_layers(model, max(1, model.config.layers // 2))),
    "prune-heads": ("width-changed", lambda model, seed: pruning.prune_heads(model, 1)),
    "grow-vocabulary": ("vocabulary-extended", lambda model, seed: shapes.grow_vocabulary(model, 64, seed)),
    "new-embedding": ("re-embedded", lambda model, seed: tampering.reinitialise(model, ["embedding"], seed)),
    "new-head": ("re-embedded", lambda model, seed: tampering.reinitialise(model, ["head"], seed)),
}
BITS, PRUNED, NARROWED = (8, 4, 3, 2), (0.3, 0.5, 0.7, 0.9), (0.1, 0.25, 0.5)
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def _table() -> dict[str, Attack]:
    found = {name: Attack(name, "renamed", apply, keeps_function=True) for name, apply in _BASES.items()}
    found |= {name: Attack(name, kind, apply, name == "dummy-neurons") for name, (kind, apply) in _DERIVED.items()}

    def add(name: str, kind: str, apply: Callable[[Model, int], Model]) -> None:
        found[name] = Attack(name, kind, apply)

    for bits in BITS:
        add(f"int{bits}", "quantized", lambda model, seed, bits=bits: rounding.round_groups(model, bits))  # type: ignore[misc]
    for share in PRUNED:
        add(f"prune-{share:g}", "pruned", lambda model, seed, s=share: pruning.prune_magnitude(model, s))  # type: ignore[misc]
    for share in NARROWED:
        add(f"narrow-{share:g}", "width-changed", lambda model, seed, s=share: pruning.prune_neurons(model, s))  # type: ignore[misc]
    for sigma in SIGMAS:
        add(f"noise-{sigma:g}", "noised", lambda model, seed, s=sigma: tampering.add_noise(model, s, seed))  # type: ignore[misc]
    return found


ATTACKS: Mapping[str, Attack] = _table()
