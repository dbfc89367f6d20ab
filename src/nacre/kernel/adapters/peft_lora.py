"""Low-rank adapters under PEFT's names.

Where their class joins matrices that a kernel has apart (GPT-2), several adapters are written as one: the same matrix A
once, different ones stacked, with B as a block diagonal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from nacre.errors import CheckpointError
from nacre.kernel.adapters.adapted import adapters
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.adapters.lora import LowRank, is_linear, is_transposed, widths
from nacre.kernel.adapters.names import Names
from nacre.kernel.adapters.peft_files import CONFIG, pattern

PREFIX = "base_model.model."
_PARTS = {"a": ".lora_A.weight", "b": ".lora_B.weight", "magnitude": ".lora_magnitude_vector"}


@dataclass(frozen=True)
class Joined:
    """One adapter as PEFT holds it: `a` (R, in), `b` (out, R), the factor of B A, and with DoRA the `magnitude`."""

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def written(names: Names, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The part of `adapter_config.json` that is LoRA's, and the tensors."""
    found = {where: cast(LowRank, one) for where, one in adapters(names.module, name).items()}
    modules: dict[str, Joined] = {}
    tensors: dict[str, Tensor] = {}
    for place in names.places(list(found)):
        one = _joined([(names.module.get_submodule(part), found.get(part)) for part in place.ours])
        modules[place.theirs] = one
        for key, value in (("a", one.a), ("b", one.b), ("magnitude", one.magnitude)):
            if value is not None:
                tensors[f"{PREFIX}{place.theirs}{_PARTS[key]}"] = value
    configs = [one.lora for one in found.values()]
    rslora = all(one.rslora for one in configs)
    sizes = {
        where: (one.rank, _whole(one.scale * (one.rank**0.5 if rslora else one.rank))) for where, one in modules.items()
    }
    (rank, alpha), _ = Counter(sizes.values()).most_common(1)[0]
    described = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": configs[0].dropout,
        "target_modules": sorted(modules),
        "rank_pattern": {where: size[0] for where, size in sizes.items() if size[0] != rank},
        "alpha_pattern": {where: size[1] for where, size in sizes.items() if size[1] != alpha},
        "use_rslora": rslora,
        "use_dora": configs[0].dora,
        "bias": "none",
        "fan_in_fan_out": names.transposed,
        "init_lora_weights": True,
    }
    return described, tensors


def _joined(parts: Sequence[tuple[nn.Module, LowRank | None]]) -> Joined:
    """The adapters of matrices that are stored as one; a part without an adapter gets zeros."""
    made = [one for _, one in parts if one is not None]
    first = made[0]
    scale, shared = first.lora.scale, all(torch.equal(one.a, first.a) for one in made)
    rows, lengths = [], []
    for host, one in parts:
        out = widths(host)[1]
        own = None if one is None else one.b.detach() * (one.lora.scale / scale)
        if shared:
            rows.append(first.b.new_zeros(out, first.lora.rank) if own is None else own)
        else:
            blocks = [own if it is one and own is not None else it.b.new_zeros(out, it.lora.rank) for it in made]
            rows.append(torch.cat(blocks, dim=1))
        if first.lora.dora:
            weight = cast(Tensor, host.weight).detach()
            plain = torch.linalg.vector_norm(weight.T if is_transposed(host) else weight, dim=1)
            lengths.append(plain if one is None else one.magnitude.detach())
    a = first.a if shared else torch.cat([one.a for one in made])
    return Joined(a.detach(), torch.cat(rows), scale, torch.cat(lengths) if lengths else None)


def _whole(value: float) -> float | int:
    return round(value) if abs(value - round(value)) < 1e-9 else value


Pairs = dict[str, dict[str, Tensor]]


def pairs_of(names: Names, stored: Mapping[str, Tensor]) -> tuple[Pairs, dict[str, Tensor]]:
    """The tensors of a folder as parts of adapters by module, and whole ones, without PEFT's prefix and the body's."""
    pairs: Pairs = {}
    whole: dict[str, Tensor] = {}
    for key, value in stored.items():
        name = key.removeprefix(PREFIX)
        name = name.removeprefix(names.prefix) if names.prefix else name
        for part, end in _PARTS.items():
            if name.endswith(end):
                pairs.setdefault(name.removesuffix(end), {})[part] = value
                break
        else:
            whole[name] = value
    return pairs, whole


def planned(names: Names, pairs: Pairs, given: Mapping[str, Any], train: tuple[str, ...]) -> list[tuple[str, LowRank]]:
    """The adapters that a folder stands for, by the name of their layer; nothing is changed yet."""
    known = names.known()
    found: list[tuple[str, LowRank]] = []
    for where, pair in pairs.items():
        if f"{where}.weight" not in known:
            raise not_here(names, where)
        if set(pair) != {"a", "b"} | ({"magnitude"} if given.get("use_dora") else set()):
            raise CheckpointError(f"the adapter of {where} has the parts {sorted(pair)}", remedy="fetch it again")
        layers = tuple(one.removesuffix(".weight") for one in known[f"{where}.weight"].canonical)
        found += _split(names, where, layers, pair, given, train)
    return found


def not_here(names: Names, where: str) -> CheckpointError:
    """What is said of an adapter's tensor that the model has no place for."""
    kind = names.shown.family + " kernel" if names.shown is not None else type(names.module).__name__
    return CheckpointError(
        f"the adapter tensor {where!r} belongs to nothing that this {kind} has",
        remedy="load the model that the adapter was made for, with its head: kernel.with_head(...)",
    )


def _split(
    names: Names,
    where: str,
    layers: Sequence[str],
    pair: Mapping[str, Tensor],
    given: Mapping[str, Any],
    train: tuple[str, ...],
) -> list[tuple[str, LowRank]]:
    """Several adapters where their layer is several of the model's joined."""
    called = (where, names.prefix + where)
    rank = int(pattern(given.get("rank_pattern") or {}, called, given.get("r", 8)))
    alpha = float(pattern(given.get("alpha_pattern") or {}, called, given.get("lora_alpha", 8)))
    hosts = [names.module.get_submodule(one) for one in layers]
    if not all(map(is_linear, hosts)):
        raise CheckpointError(f"{where} is no linear layer, and only these can be adapted", remedy="merge it with PEFT")
    sizes, n_in = [widths(host)[1] for host in hosts], widths(hosts[0])[0]
    a, b, magnitude = pair["a"], pair["b"], pair.get("magnitude")
    if a.shape != (rank, n_in) or b.shape != (sum(sizes), rank) or (magnitude is not None and len(magnitude) != len(b)):
        what = f"the adapter of {where} has the shapes {tuple(a.shape)}, {tuple(b.shape)}"
        remedy = f"{(rank, n_in)}, {(sum(sizes), rank)} is what {CONFIG} and the model ask for"
        raise CheckpointError(what, remedy=remedy)
    config = AdapterConfig(
        "lora",
        targets=("*",),
        dropout=float(given.get("lora_dropout", 0.0)),
        rank=rank,
        alpha=alpha,
        rslora=bool(given.get("use_rslora", False)),
        dora=bool(given.get("use_dora", False)),
        train=train,
    )
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    made = []
    for layer, host, start, size in zip(layers, hosts, starts, sizes, strict=True):
        adapter = LowRank(config, host, torch.Generator(a.device).manual_seed(0))
        with torch.no_grad():
            adapter.a.copy_(a)
            adapter.b.copy_(b[start : start + size])
            if magnitude is not None:
                adapter.magnitude.copy_(magnitude.flatten()[start : start + size])
        made.append((layer, adapter))
    return made
