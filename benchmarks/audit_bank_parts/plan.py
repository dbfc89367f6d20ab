"""What the bank consists of: models, and pairs of which it is known whether one derives from the other.

Two sides never share a model or a recipe: thresholds are fixed on `calibration` and reported on `report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations
from typing import Any, Literal

from nacre.lifecycle.audit.attacks.catalogue import ATTACKS

SideName = Literal["calibration", "report"]
SIDES: tuple[SideName, ...] = ("calibration", "report")


@dataclass(frozen=True)
class Size:
    """Fields of KernelConfig."""

    name: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    ffn_size: int
    tied: bool

    def choices(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "name"}


@dataclass(frozen=True)
class Recipe:
    """What a model is trained on and how; `half` of its corpus, which its tokenizer is trained on too."""

    name: str
    corpus: str
    half: int
    vocabulary: int
    optimizer: str
    schedule: str
    lr: float


@dataclass(frozen=True)
class Spec:
    """A model that training makes. Without a parent it begins at random; `begun_with` are attacks on the parent first.

    `train`: what is trained: `all`, `lora`, `embedding` (and head), `head`, or `outputs` (a fresh student on texts that
    the parent wrote). `budget` is in parts of a pretraining's steps. `half` other than the recipe's: other texts.
    """

    name: str
    side: SideName
    recipe: Recipe
    size: Size
    steps: int
    init_seed: int
    order_seed: int
    parent: str | None = None
    begun_with: tuple[str, ...] = ()
    train: Literal["all", "lora", "embedding", "head", "outputs"] = "all"
    budget: float = 1.0
    rank: int = 0
    half: int | None = None


@dataclass(frozen=True)
class Pair:
    """A subject beside a reference. The subject is `source` after `steps`: attacks, merges with `other`, file attacks.

    `expected`: the verdict words that are right; `kinds`: the kinds that are, for DERIVED. `must`: whether it is
    asked of the audit; a pair that only maps a limit is not.
    """

    name: str
    side: SideName
    group: str
    source: str
    reference: str
    expected: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    other: str | None = None
    share: float | None = None
    rank: int | None = None
    must: bool = True
    truth: Literal["stranger", "shared-init", "derived"] = "derived"


@dataclass(frozen=True)
class Part:
    """How much of the bank: seeds per recipe and size on either side, how many models of either side become parents,
    and for how long to train. p-values can be no smaller than one over the calibration side's pairs, and no rate of
    error is known better than one over the report side's."""

    name: str
    sizes: tuple[Size, ...]
    corpora: tuple[str, ...]
    seeds: tuple[int, int]
    parents: tuple[int, int]
    steps: int


_TINY = Size("small", 32, 3, 4, 4, 80, tied=False)
_SMALL = Size("small", 64, 4, 4, 4, 192, tied=False)
_GROUPED = Size("grouped", 96, 4, 6, 2, 240, tied=True)
_WIDE = Size("wide", 128, 6, 8, 2, 344, tied=False)
PARTS = {
    one.name: one
    for one in (
        Part("pico", (_TINY,), ("desk",), seeds=(2, 2), parents=(1, 1), steps=12),
        Part("desk", (_SMALL, _GROUPED), ("desk",), seeds=(15, 6), parents=(2, 2), steps=120),
        Part("hour", (_SMALL, _GROUPED), ("desk", "books"), seeds=(13, 19), parents=(4, 12), steps=120),
        Part(
            "night", (_SMALL, _GROUPED, _WIDE), ("desk", "books", "poetry"), seeds=(13, 13), parents=(9, 24), steps=400
        ),
    )
}


def recipes(part: Part, side: SideName) -> list[Recipe]:
    """One per corpus; the sides differ in corpus half, vocabulary, optimiser and schedule."""
    half = SIDES.index(side)
    found = []
    for number, corpus in enumerate(part.corpora):
        muon = (number + half) % 2 == 1
        found.append(
            Recipe(
                name=f"{corpus}-{half}",
                corpus=corpus,
                half=half,
                vocabulary=(768, 1024)[(number + half) % 2],
                optimizer="muon" if muon else "adamw",
                schedule="wsd" if muon else "cosine",
                lr=3e-3,
            )
        )
    return found


def bases(part: Part, side: SideName) -> list[Spec]:
    """Models from scratch: every recipe in every size with every seed. Nothing shared but recipe and size."""
    found: list[Spec] = []
    for recipe in recipes(part, side):
        for size in part.sizes:
            for seed in range(part.seeds[SIDES.index(side)]):
                name = f"{side}-{recipe.name}-{size.name}-{seed}"
                number = int.from_bytes(sha256(name.encode()).digest()[:4]) // 4
                found.append(Spec(name, side, recipe, size, part.steps, number, number + 500_000))
    return found


LOOKED_AT = 13  # seeds of the report side whose strangers had been judged when the audit's level was chosen


def seed_of(name: str) -> int:
    """The seed of a model from scratch, or of the one that it stems from."""
    return int(name.partition("+")[0].partition("=")[0].rpartition("-")[2])


def parents(part: Part, side: SideName) -> list[Spec]:
    """The models that others derive from: the first seeds of every recipe and size in turn."""
    by_seed = sorted(bases(part, side), key=lambda one: seed_of(one.name))
    return by_seed[: part.parents[SIDES.index(side)]]


RANKS = (1, 2, 4, 8, 16)
BUDGETS = (0.01, 0.1, 1.0, 3.0)


def children(parent: Spec) -> list[Spec]:
    """What training makes of a parent. Tuned ones see the other half of the corpus."""
    other = 1 - parent.recipe.half

    def child(word: str, **how: Any) -> Spec:
        seed = parent.order_seed + 7919 * (1 + sum(map(ord, word)))
        return replace(parent, name=f"{parent.name}+{word}", parent=parent.name, order_seed=seed, **how)

    found = [child(f"tuned-{budget:g}", budget=budget, half=other) for budget in BUDGETS]
    found.append(child("sibling", budget=0.3, half=parent.recipe.half))
    found += [child(f"lora-{rank}", train="lora", rank=rank, budget=0.3, half=other) for rank in RANKS]
    found.append(child("re-embedded", train="embedding", budget=0.5, begun_with=("new-embedding",)))
    found.append(child("recovered", budget=0.1, half=other, begun_with=("prune-0.5",)))
    found.append(child("narrowed", budget=0.3, half=other, begun_with=("narrow-0.25",)))
    found.append(child("shortened", budget=0.3, half=other, begun_with=("drop-layer",)))
    found.append(child("deepened", budget=0.3, half=other, begun_with=("stack-layers",)))
    found.append(child("extended", budget=0.1, half=other, begun_with=("grow-vocabulary",)))
    if not parent.size.tied:
        found.append(child("re-headed", train="head", budget=0.3, begun_with=("new-head",)))
    fresh = parent.init_seed + 300_000
    found.append(replace(child("student", train="outputs"), init_seed=fresh))
    return found


def twins(parent: Spec) -> list[Spec]:
    """Models that share the parent's first weights or its order of texts and nothing else."""
    name, again = parent.name, parent.order_seed + 77
    return [
        replace(parent, name=f"{name}=init", order_seed=again),
        replace(parent, name=f"{name}=init-other-half", order_seed=again + 1, half=1 - parent.recipe.half),
        replace(parent, name=f"{name}=order", init_seed=parent.init_seed + 200_000),
    ]


def specs(part: Part) -> list[Spec]:
    """All models, parents before their children, the cheap and needed ones first."""
    found: list[Spec] = []
    for side in SIDES:
        found += bases(part, side)
    for side in SIDES:
        for parent in parents(part, side):
            found += twins(parent) + children(parent)
    return found


def pairs(part: Part, side: SideName) -> list[Pair]:
    """All pairs of one side, strangers first."""
    found = list(_strangers(part, side))
    for parent in parents(part, side):
        found += _twin_pairs(parent) + _tuned_pairs(parent) + _attacked_pairs(parent) + _merged_pairs(parent)
        found += _diluted_pairs(parent)
    if side == "report":
        known = {pair.name for pair in found}
        more = (pair for one in bases(part, side) for pair in _attacked_pairs(one) if pair.source == one.name)
        found += [pair for pair in more if pair.steps in ON_EVERY_MODEL and pair.name not in known]
    return found


def _strangers(part: Part, side: SideName) -> Iterator[Pair]:
    """Every pair of models from scratch. Those of one recipe and size are the hard ones."""
    for a, b in combinations(bases(part, side), 2):
        if a.size != b.size:
            group = "stranger: other size"
        else:
            group = "stranger: same recipe" if a.recipe == b.recipe else "stranger: other recipe"
        words = ("NO_EVIDENCE", "SAME_DESIGN", "UNTESTABLE")
        yield Pair(f"{a.name}~{b.name}", side, group, a.name, b.name, words, truth="stranger")


def _twin_pairs(parent: Spec) -> list[Pair]:
    init, other, order = (one.name for one in twins(parent))
    strangers = ("NO_EVIDENCE", "SAME_DESIGN", "UNTESTABLE")

    def pair(group: str, name: str, words: tuple[str, ...], truth: Any) -> Pair:
        return Pair(f"{name}~{parent.name}", parent.side, group, name, parent.name, words, truth=truth)

    return [
        pair("shared init", init, ("SHARED_INIT",), "shared-init"),
        pair("shared init, other texts", other, ("SHARED_INIT",), "shared-init"),
        pair("stranger: same order", order, strangers, "stranger"),
        pair("outputs only (cannot be seen)", f"{parent.name}+student", strangers, "stranger"),
    ]


_FINE = ("fine-tuned",)


def _tuned_pairs(parent: Spec) -> list[Pair]:
    groups: dict[str, tuple[str, tuple[str, ...]]] = {
        **{f"tuned-{one:g}": (f"tuned {100 * one:g} % of the budget", _FINE) for one in BUDGETS},
        **{f"lora-{one}": (f"LoRA rank {one}, merged", ("lora",)) for one in RANKS},
        "re-embedded": ("re-embedded, then its embedding trained", ("re-embedded",)),
        "recovered": ("pruned 50 %, then tuned", ("pruned", "fine-tuned")),
        "narrowed": ("narrowed 25 %, then tuned", ("width-changed",)),
        "shortened": ("a layer dropped, then tuned", ("depth-changed",)),
        "deepened": ("layers stacked, then tuned", ("depth-changed",)),
        "extended": ("vocabulary extended, then tuned", ("vocabulary-extended",)),
        "re-headed": ("head begun anew and trained", ("re-embedded", "fine-tuned")),
    }
    found = []
    for one in children(parent):
        word = one.name.rpartition("+")[2]
        if word in groups:
            group, kinds = groups[word]
            must = word not in ("re-embedded", "narrowed")
            found.append(_derived(parent, group, kinds, source=one.name, rank=one.rank or None, must=must))
    return found


def _derived(parent: Spec, group: str, kinds: tuple[str, ...], **more: Any) -> Pair:
    source = more.pop("source", parent.name)
    steps = more.get("steps", ())
    name = f"{'+'.join((source, *steps))}~{parent.name}"
    words = ("DERIVED", "IDENTICAL") if "renamed" in kinds else ("DERIVED",)
    return Pair(name, parent.side, group, source, parent.name, words, kinds, **more)


# What no training is needed for is asked of every model of the report side, so that rates are known well.
ON_EVERY_MODEL = tuple(
    (one,)
    for one in (
        *("rename", "permute-hidden", "permute-neurons", "fold-gains", "rotate-hidden", "all-bases"),
        *("int8", "int4", "prune-0.5", "prune-0.7"),
    )
)
FILES = ("rename", "reshard", "transpose", "pack", "split", "extra-tensors", "decoy", "edit-config", "bf16")
# Chains: attacks on the parent or on one of its children.
CHAINS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("tuned-0.1", ("all-bases", "rename"), _FINE),
    ("tuned-1", ("all-bases",), _FINE),
    ("tuned-0.1", ("int4",), ("quantized", "fine-tuned")),
    ("tuned-0.1", ("prune-0.5", "permute-neurons"), ("pruned", "fine-tuned")),
    ("lora-4", ("int8", "rename"), ("lora", "quantized")),
    ("lora-4", ("permute-hidden",), ("lora",)),
    ("", ("int4", "all-bases"), ("quantized", "fine-tuned", "noised")),
    ("", ("prune-0.5", "all-bases"), ("pruned", "fine-tuned", "noised")),
    ("", ("noise-0.03", "all-bases"), ("noised", "fine-tuned")),
    ("", ("dummy-neurons", "all-bases", "rename"), ("width-changed", "renamed")),
    ("", ("drop-layer", "all-bases"), ("depth-changed",)),
    ("", ("all-bases", "rename", "extra-tensors", "reshard"), ("renamed",)),
)
_HARD = frozenset({"prune-0.9", "narrow-0.5", "noise-1", "noise-3", "int2", "new-embedding", "new-head", "prune-heads"})


def _attacked_pairs(parent: Spec) -> list[Pair]:
    found = []
    for name, attack in ATTACKS.items():
        if name == "new-head" and parent.size.tied:
            continue
        found.append(_derived(parent, name, (attack.kind,), steps=(name,), must=name not in _HARD))
    for name in FILES:
        kinds = ("renamed", "quantized") if name == "bf16" else ("renamed",)
        found.append(_derived(parent, f"file: {name}", kinds, steps=(name,), must=name != "split"))
    found.append(_derived(parent, "upcycled to 4 experts", ("upcycled",), steps=("upcycle",)))
    for child, steps, kinds in CHAINS:
        source = f"{parent.name}+{child}" if child else parent.name
        group = " > ".join(filter(None, (child, *steps)))
        found.append(_derived(parent, f"chain: {group}", kinds, source=source, steps=steps))
    return found


SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


def _merged_pairs(parent: Spec) -> list[Pair]:
    """Two children of one parent merged: beside the parent, and beside the first child with its share."""
    first, second = f"{parent.name}+tuned-1", f"{parent.name}+sibling"
    found = []
    for way in ("linear", "slerp", "ties", "dare"):
        for share in SHARES if way == "linear" else (0.3, 0.5, 0.7):
            step = (f"merge-{way}-{share:g}",)
            name = f"{first}+{step[0]}"
            common: dict[str, Any] = {"steps": step, "other": second, "share": share}
            kinds = ("merged", "fine-tuned")
            group = f"merged, {way}"
            found.append(Pair(f"{name}~{first}", parent.side, group, first, first, ("DERIVED",), kinds, **common))
            beside = f"merged, {way}: beside the base"
            more = {**common, "share": None}
            found.append(
                Pair(f"{name}~{parent.name}", parent.side, beside, first, parent.name, ("DERIVED",), kinds, **more)
            )
    return found


def _diluted_pairs(parent: Spec) -> list[Pair]:
    """The parent merged with a stranger: it destroys the function, and is the purest test of the share."""
    stranger = parent.name.rpartition("-")[0] + f"-{int(parent.name.rpartition('-')[2]) + 1}"
    found = []
    for share in (0.3, 0.4, 0.5, 0.7, 0.9):
        step = (f"merge-linear-{share:g}",)
        name, group = f"{parent.name}+{step[0]}~{parent.name}", "merged with a stranger"
        how: dict[str, Any] = {"steps": step, "other": stranger, "share": share, "must": False}
        found.append(Pair(name, parent.side, group, parent.name, parent.name, ("DERIVED",), ("merged",), **how))
    return found
