"""Whose a rung is, part by part, from lineage: own, borrowed (from whom, under what licence), called, or not there.

Lineage decides; the rung's own word (`rung.json`) fills in what lineage does not say, and where the two disagree the
disagreement is noted. A kernel is own only where this store witnessed its pretraining from nothing. Weights trained
here on a borrowed kernel are own, with the kernel they stand on and its licence. An unknown licence is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nacre.errors import IntegrityError, ReferenceNotFound
from nacre.ladder.result import PARTS, Holding, State
from nacre.ladder.words import Words
from nacre.lineage.graph import LICENCE_STOPS, Node, trace
from nacre.lineage.licence import concern
from nacre.lineage.store import Store
from nacre.tiers.rung import ENGINE_FOLDER, Manifest

# Relations that hand a kernel on, changed or not.
_KERNEL = ("finetuned_from", "quantized_from", "pruned_from", "merged_from")
_STATES: tuple[State, ...] = ("own", "borrowed", "called", "none")
_FROM_NOTHING = "pretrain."


def ownership(store: Store, ref: str, manifest: Manifest, language: str = "en") -> dict[str, Holding]:
    """The five parts of the rung at `ref`. Without a lineage record the manifest's word is all there is, and noted."""
    try:
        node = trace(store, ref)
    except (ReferenceNotFound, IntegrityError):
        node = Node(ref, "rung", None, "none", None)
    return holdings(node, manifest, language)


def holdings(node: Node, manifest: Manifest, language: str = "en") -> dict[str, Holding]:
    """As `ownership`, from a lineage that was traced already."""
    words = Words(language)
    if node.record is None:
        note = words("no_lineage")
        return {part: Holding(_said(manifest, part), notes=(note,)) for part in PARTS}
    case = _Case(node, manifest, words)
    found = {
        "kernel": _kernel(case),
        "weights": _weights(case),
        "data": _data(case),
        "prompt": _prompt(case),
        "index": _index(case),
    }
    return {part: _noted(holding, _said(manifest, part), words) for part, holding in found.items()}


@dataclass(frozen=True)
class _Case:
    node: Node
    manifest: Manifest
    words: Words

    def parents(self, *relations: str) -> list[Node]:
        return [parent for parent in self.node.parents if parent.relation in relations]

    @property
    def base(self) -> Node | None:
        return next(iter(self.parents(*_KERNEL)), None)

    @property
    def engine(self) -> Node | None:
        """The engine that the rung calls. One that its solver was given, tried and left is not in the rung's folder."""
        record = self.node.record
        kept = record is not None and any(path.startswith(f"{ENGINE_FOLDER}/") for path in record.files)
        if not kept and self.said("kernel") == "none":
            return None
        return next(iter(self.parents("calls")), None)

    def said(self, part: str) -> State:
        return _said(self.manifest, part)


def _said(manifest: Manifest, part: str) -> State:
    return next((state for state in _STATES if state == manifest.owns.get(part)), "none")


def _kernel(case: _Case) -> Holding:
    if case.base is not None:
        source = foundation(case.base)
        return _own_kernel(source, case.words) if is_own(source) else _of("borrowed", source)
    if case.engine is not None:
        return _engine(case, "kernel")
    said = case.said("kernel")
    if said == "own" and is_own(case.node):
        return Holding("own", notes=(case.words("own_kernel"),))
    return Holding(said)


def _weights(case: _Case) -> Holding:
    trained = case.said("weights") == "own" or case.manifest.trained_parameters > 0
    if case.base is not None:
        source = foundation(case.base)
        if not trained:
            return _of("own" if is_own(source) else "borrowed", source)
        note = () if is_own(source) else (case.words("own_on_borrowed"),)
        return replace(_of("own", source), notes=note)
    if case.engine is not None:
        if trained:
            return Holding("own", notes=(case.words("on_called", ref=_name(case.engine)),))
        return _engine(case, "weights")
    return Holding(case.said("weights"))


def _engine(case: _Case, part: str) -> Holding:
    """A kernel or weights behind an engine: this store's own, a copy that is here, or somebody else's."""
    engine = case.engine
    assert engine is not None  # its callers looked
    source = foundation(engine)
    if is_own(source):
        return replace(_of("own", source), notes=(case.words("own_called"),))
    return _of("borrowed" if case.said(part) == "borrowed" else "called", source)


def _data(case: _Case) -> Holding:
    if case.said("data") == "none":
        return Holding("none")
    sources = list({one.ref: one for one in _raw_data(case.node)}.values())
    foreign = [one for one in sources if one.origin or one.licence or one.ref.startswith("data:")]
    if foreign:
        licences = list(dict.fromkeys(one.licence for one in foreign if one.licence))
        unknown = any(one.licence is None for one in foreign)
        origin = ", ".join(dict.fromkeys(_name(one) for one in foreign))
        return Holding("borrowed", origin, None if unknown else " AND ".join(licences))
    return Holding("own", notes=(case.words("given_file"),) if sources else ())


def _prompt(case: _Case) -> Holding:
    given = next((one for one in case.node.parents if one.kind == "prompt"), None)
    if given is not None and (given.record is None or given.record.stage is None):
        return _of("borrowed", given)
    return Holding(case.said("prompt"))


def _index(case: _Case) -> Holding:
    said = case.said("index")
    if said != "own" or case.engine is None:
        return Holding(said)
    return Holding(said, notes=(case.words("vectors_of", ref=_name(foundation(case.engine))),))


def foundation(node: Node) -> Node:
    """The model at the root of a chain of fine-tuning, merging, quantizing: whose kernel it is."""
    below = [parent for parent in node.parents if parent.relation in _KERNEL or parent.kind == "model"]
    return foundation(below[0]) if below else node


def is_own(node: Node) -> bool:
    """Whether this store witnessed that the kernel was pretrained from nothing."""
    record = node.record
    return (
        record is not None
        and record.basis == "witnessed"
        and str(record.stage).startswith(_FROM_NOTHING)
        and foundation(node) is node
    )


def _own_kernel(source: Node, words: Words) -> Holding:
    return Holding("own", _name(source), source.licence, (words("own_kernel"),))


def _raw_data(node: Node) -> Iterator[Node]:
    """Raw data below a node, models and engines aside: their data are not what the rung learnt from."""
    for parent in node.parents:
        if parent.relation in (*_KERNEL, *LICENCE_STOPS, "calls", "tokenized_by"):
            continue
        if parent.parents:
            yield from _raw_data(parent)
        else:
            yield replace(parent, relation=None, input="")


def _of(state: State, node: Node) -> Holding:
    return Holding(state, _name(node), node.licence)


def _name(node: Node) -> str:
    """What a reader elsewhere can use: where it came from first, else its ref; of a path only its last part."""
    if node.origin:
        return node.origin
    path = "/" in node.ref and "@" not in node.ref and "://" not in node.ref and ":" not in node.ref
    return node.ref.rstrip("/").rpartition("/")[2] if path else node.ref


def _noted(holding: Holding, said: State, words: Words) -> Holding:
    """The holding with what the reader must know: a disagreement, a licence that forbids commerce."""
    notes: Sequence[str] = holding.notes
    if said != holding.state:
        told, found = words(f"state_{said}"), words(f"state_{holding.state}")
        notes = (*notes, words("disagrees", said=told, found=found))
    if holding.licence and concern(holding.licence) == "noncommercial":
        notes = (*notes, words("licence_noncommercial", licence=holding.licence))
    return replace(holding, notes=tuple(notes))
