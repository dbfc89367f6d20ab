"""What several references make up together of one subject, and who was first: what no pair alone can say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from nacre.errors import NacreError
from nacre.lifecycle.audit.canonical import Canonical, Key
from nacre.lifecycle.audit.said import say, term
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Pair, StageVerdict

if TYPE_CHECKING:
    from nacre.lifecycle.audit.audit import Opened
    from nacre.lifecycle.audit.tensors import Floats
    from nacre.lifecycle.audit.weights.mixture import Known, Mixture

_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
_LOOKED_AT = 4  # matrices that the direction is told from


def is_candidate(pair: Pair) -> bool:
    """Whether the reference may be part of a merge."""
    weights = pair.stages.get("weights")
    return weights is not None and weights.verdict in ("DERIVED", "SHARED_INIT")


def with_mixture(ours: Opened, found: Sequence[tuple[Pair, Opened]], seed: int) -> list[Pair]:
    """The pairs, in order, with what their references explain together in `detail["mixture"]` of the weights' verdict,
    and where that is a merge with kind and share. Fewer than two that lie in one basis with the subject change nothing.
    """
    pairs = [pair for pair, _ in found]
    chosen, why = _in_one_basis(ours, found)
    if len(chosen) < 2:
        if sum(map(is_candidate, pairs)) < 2:
            return pairs
        told: dict[str, Any] = {"is_merge": None, "words": say("shares were not computed: {reason}", reason=why)}
    else:
        try:
            mixture = _mixture(ours, [found[place] for place in chosen], seed)
        except NacreError as error:
            mixture, why = None, error.message
        if mixture is None:
            told = {
                "is_merge": None,
                "words": say("shares were not computed: {reason}", reason=why or "the references do not differ"),
            }
        else:
            told = {**mixture.to_dict(), "words": _sentence(mixture)}
            return [_with(pair, told, mixture) for pair in pairs]
    return [_with(pair, told, None) if is_candidate(pair) else pair for pair in pairs]


def _in_one_basis(ours: Opened, found: Sequence[tuple[Pair, Opened]]) -> tuple[list[int], str]:
    """Places of the references that lie in the subject's basis with the subject's shapes, and why others do not."""
    places, why = [], "no reference lies in one basis with the subject"
    for place, (pair, theirs) in enumerate(found):
        if not is_candidate(pair) or ours.canonical is None or theirs.canonical is None:
            continue
        if _shapes(ours.canonical) != _shapes(theirs.canonical):
            why = "the references' matrices have other shapes"
            continue
        if _is_in_one_basis(pair.stages["weights"]):
            places.append(place)
    return places, why if len(places) != 1 else "one reference alone lies in one basis with the subject"


def _is_in_one_basis(weights: StageVerdict) -> bool:
    from nacre.lifecycle.audit.weights import basis

    return any(one.test == basis.TEST and basis.fires(one) for one in weights.evidence)


def _shapes(canonical: Canonical) -> dict[Key, tuple[int, ...]]:
    return {key: view.shape for key, view in canonical.views.items() if key[1].partition(".")[0] in _MATRICES}


def _mixture(ours: Opened, found: Sequence[tuple[Pair, Opened]], seed: int) -> Mixture | None:
    from nacre.lifecycle.audit.weights.entrywise import HIT, entrywise
    from nacre.lifecycle.audit.weights.mixture import Row, is_there, matrices, solve
    from nacre.lifecycle.audit.weights.side import Settings

    settings = Settings(seed=seed)
    known = list(_known(ours, found, settings))
    names = [one.name for one in known]
    best = None
    for folded in (False, True):  # gains that were folded away are put back where the plain weights explain too little
        one = solve([Row.of(each) for each in matrices(known, settings, folded=folded)], names)
        if one is not None and (best is None or one.explained > best.explained + 1e-3):
            best = one
        if best is None or best.is_merge:
            return best
    assert best is not None
    parents = [one.reference for one in best.shares if one.reference != best.base and is_there(one)]
    if best.base is None or len(parents) < 2:
        return best
    places = [names.index(one) for one in parents]
    single = entrywise(matrices(known, settings), names.index(best.base), places)
    is_merge = single is not None and single["hits"] >= HIT
    return replace(best, is_merge=is_merge, way="entrywise" if is_merge else best.way, entrywise=single)


def _known(ours: Opened, found: Sequence[tuple[Pair, Opened]], settings: Any) -> Iterator[Known]:
    from nacre.lifecycle.audit.weights.align import align
    from nacre.lifecycle.audit.weights.mixture import Known
    from nacre.lifecycle.audit.weights.side import Side
    from nacre.lifecycle.audit.weights.tokens import shared_tokens

    assert ours.canonical is not None
    shared = [shared_tokens(ours.subject, each.subject, ours.canonical, _canonical(each)) for _, each in found]
    first = shared[0].a
    is_one = first is not None and all(one.a is not None and np.array_equal(one.a, first) for one in shared)
    for (pair, theirs), tokens in zip(found, shared, strict=True):
        a = Side(_canonical(theirs), _source(theirs.subject), tokens.b if is_one else None)
        b = Side(ours.canonical, _source(ours.subject), tokens.a if is_one else None)
        order = next(one for one in pair.stages["weights"].evidence if one.test == "basis")
        layers = [{"a": int(one["b"]), "b": int(one["a"])} for one in order.detail["layers"]]
        yield Known(pair.reference, a, b, align(a, b, layers, settings, same_basis=True))


def _canonical(side: Opened) -> Canonical:
    assert side.canonical is not None
    return side.canonical


def _source(subject: Subject) -> Any:
    assert subject.tensors is not None
    return subject.tensors


def _sentence(found: Mixture) -> str:
    explained = found.entrywise["hits"] if found.way == "entrywise" and found.entrywise else found.explained
    if not found.is_merge:
        return say(
            "no merge of these references alone: together they explain {explained:.0%} of its difference from the "
            "nearest of them, {nearest}",
            explained=max(0.0, explained), nearest=_short(found.nearest),
        )  # fmt: skip
    parts = [_part(one) for one in found.parents]
    return say("a merge of {parts}; {explained:.1%} explained", parts=parts, explained=explained)


def _part(one: Any) -> str:
    if one.low is None:
        return f"{_short(one.reference)} {one.share:.0%}"
    return f"{_short(one.reference)} {one.share:.0%} ({one.low:.0%}-{one.high:.0%})"


def _short(ref: str) -> str:
    return PurePath(ref).name or ref


def _with(pair: Pair, told: Mapping[str, Any], mixture: Mixture | None) -> Pair:
    """The pair with the mixture in its weights' verdict; kind and share where it is a parent of a merge."""
    weights = pair.stages.get("weights")
    if weights is None or not is_candidate(pair):
        return pair
    changed = replace(weights, detail={**weights.detail, "mixture": told})
    share = next((one for one in mixture.parents if one.reference == pair.reference), None) if mixture else None
    if mixture is not None and mixture.is_merge and share is not None and weights.verdict == "DERIVED":
        text = say("derived (merged): {words}", words=told["words"])
        changed = replace(changed, kind="merged", share=min(1.0, max(0.0, share.share)), text=text)
    return replace(pair, stages={**pair.stages, "weights": changed})


# Who was first


def with_direction(pair: Pair, ours: Opened, theirs: Opened) -> Pair:
    """The pair with `detail["direction"]` in a weights' verdict of DERIVED; claims of records are shown, not used."""
    from nacre.lifecycle.audit.weights.direction import told

    weights = pair.stages.get("weights")
    if weights is None or weights.verdict != "DERIVED":
        return pair
    mixture = weights.detail.get("mixture") or {}
    found = told(
        weights.kind,
        weights.detail.get("numbers", {}),
        _pairs(ours, theirs, weights),
        is_merge=bool(mixture.get("is_merge")) and weights.kind == "merged",
        claims=_claims(ours.subject, "subject") + _claims(theirs.subject, "reference"),
    )
    changed = replace(weights, detail={**weights.detail, "direction": found.to_dict()})
    return replace(pair, stages={**pair.stages, "weights": changed})


def _pairs(ours: Opened, theirs: Opened, weights: StageVerdict) -> Iterator[tuple[Floats, Floats]]:
    """A few matrices of the stack as (reference's, subject's), where both lie in one basis."""
    if not _is_in_one_basis(weights) or ours.canonical is None or theirs.canonical is None:
        return
    shared = sorted(key for key in _shapes(ours.canonical) if key in _shapes(theirs.canonical) and key[0] is not None)
    for key in shared[:: max(1, len(shared) // _LOOKED_AT)][:_LOOKED_AT]:
        yield (
            theirs.canonical.views[key].read(_source(theirs.subject)),
            ours.canonical.views[key].read(_source(ours.subject)),
        )


def _claims(subject: Subject, side: str) -> tuple[str, ...]:
    """What its record says of when and of what it was made."""
    record = subject.record
    if record is None:
        return ()
    dated = "the {side}'s record ({basis}) is dated {date}"
    named = "the {side}'s record names {parent} ({relation}, {basis})"
    found = [say(dated, side=term(side), basis=record.basis, date=record.created)] if record.created else []
    found += [
        say(named, side=term(side), parent=one.ref, relation=one.relation, basis=one.basis) for one in record.parents
    ]
    return tuple(found)
