"""Stage 3's verdict: which probes run, which p-values decide, what is said where none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from nacre.errors import CheckpointError
from nacre.lifecycle.audit import calibration
from nacre.lifecycle.audit.calibration import Calibration
from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.kernel.exchange import settled
from nacre.lifecycle.audit.kernel.relabel import relabelled
from nacre.lifecycle.audit.said import clauses, say, term
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, untestable
from nacre.lifecycle.audit.weights import basis, body, exact, invariant, polar
from nacre.lifecycle.audit.weights.align import Alignment, align
from nacre.lifecycle.audit.weights.attention import attention_is_same
from nacre.lifecycle.audit.weights.control import control_of, thinned
from nacre.lifecycle.audit.weights.delta import MatrixDelta, deltas
from nacre.lifecycle.audit.weights.kinds import Context, Finding, tell
from nacre.lifecycle.audit.weights.side import Kept, Settings, Side
from nacre.lifecycle.audit.weights.tokens import shared_tokens

STAGE = "weights"
_CONTROL_LAYERS, _CONTROL_SEEDS = 4, 2
_EXACT_SHARE = 0.01  # of the error allowed that each exact test gets
_TAIL_DOUBT = 10  # times larger than it looks a p-value off the bank's tail is taken to be
_SCREEN = 0.3  # trace from which the polar screen calls for a second look


@dataclass(frozen=True)
class Options:
    """`alpha`: largest corrected p that decides. `references`: how many models the subject is held against in all.

    `calibration` None is the table shipped. `control`: whether the control runs (twice the reading).
    """

    settings: Settings = field(default_factory=Settings)
    alpha: float = calibration.LEVEL
    references: int = 1
    calibration: Calibration | None = None
    control: bool = True


def compare(
    subject: Subject,
    reference: Subject,
    a: Canonical,
    b: Canonical,
    options: Options | None = None,
    kept: Kept | None = None,
) -> StageVerdict:
    """The verdict on the subject's weights beside the reference's; `a` and `b` are their canonical forms.

    `kept`, the same for all references of one subject, spares what was looked at beside an earlier one.
    What cannot be tested, damaged tensors included, is UNTESTABLE with the reason; nothing is raised for it.
    """
    for side, canonical in ((subject, a), (reference, b)):
        reason = _missing(side, canonical)
        if reason:
            return untestable(STAGE, reason)
    if subject.tensors is None or reference.tensors is None:
        return untestable(STAGE, "there are no weights to read")
    shared = shared_tokens(subject, reference, a, b)
    cache = {} if kept is None else kept.of(shared.a)
    ours, theirs = Side(a, subject.tensors, shared.a, cache), Side(b, reference.tensors, shared.b)
    found = decide(ours, theirs, options or Options(), notes=(shared.note,))
    for side in (subject, reference):
        if side.adapter is not None and side.made_for is None and found.verdict != "UNTESTABLE":
            found = _supposed(found, side)
    return found


def decide(subject: Side, reference: Side, options: Options, notes: Sequence[str] = ()) -> StageVerdict:
    """The verdict on two sides that can be read."""
    try:
        return _decided(subject, reference, options, tuple(notes))
    except CheckpointError as error:
        return untestable(STAGE, error.message)


def _missing(side: Subject, canonical: Canonical) -> str | None:
    """Why a side has no weights that could be tested."""
    if side.tensors is None or not canonical.views:
        return side.missing.get(STAGE, say("{ref} has no weights that can be read", ref=side.ref))
    return None


def _supposed(found: StageVerdict, side: Subject) -> StageVerdict:
    """The verdict on the model that an adapter makes of a base that nothing ties it to: every adapter of these shapes
    would be given the same, as it rests on the base."""
    reason = say(
        "nothing in {ref} tells for which weights it was made, and the finding rests on those of {base}: merge them "
        "and audit the result to ask about the two together",
        ref=side.ref,
        base=side.base,
    )
    text = clauses((reason, found.text))
    return replace(found, verdict="INCONCLUSIVE", kind=None, share=None, power=None, text=text, reason=reason)


def _unlike(a: Side, b: Side) -> str | None:
    """Why two sides cannot be held against each other by their neurons."""
    if not a.depths or not b.depths:
        return "one side has no feed-forward layers by whose neurons it could be known"
    if a.canonical.layout != b.canonical.layout:
        return say("different architectures: {a} and {b}", a=a.canonical.layout, b=b.canonical.layout)
    gated = [side.blocks(side.depths[0])[0].gate is not None for side in (a, b)]
    if gated[0] != gated[1]:
        return "different architectures: one feed-forward is gated, the other is not"
    if min(len(a.depths), len(b.depths)) < 2:
        return "a single layer: chance was measured on models of two layers and more"
    return None


def _decided(subject: Side, reference: Side, options: Options, notes: tuple[str, ...]) -> StageVerdict:
    first = exact.probe(subject, reference, options.settings)
    if first.detail["same"]:
        text = "every tensor is the reference's, value for value"
        return StageVerdict(STAGE, "IDENTICAL", text, p_value=first.p_value, tier="exact", evidence=(first,))
    reason = _unlike(subject, reference)
    if reason and not first.detail["counted"]:
        return replace(untestable(STAGE, reason), evidence=(first,), notes=notes)
    found = [first, *([] if reason else _probes(subject, reference, options))]
    corrected, best = _corrected(found, options)
    table = options.calibration or calibration.shipped()
    if corrected > options.alpha:
        if best is not None and corrected <= options.alpha * options.references:
            words = "p = {p:.2g} for all {n} references: it would decide for one alone"
            reason = say(words, p=corrected, n=options.references)
            return StageVerdict(STAGE, "INCONCLUSIVE", reason, p_value=corrected, tier=best.tier,
                                evidence=tuple(found), reason=reason, notes=notes)  # fmt: skip
        return _none(found, corrected, best, table, notes)
    control: dict[str, Any] = {"ran": False, "fired": False, "why": reason or "it was not asked for"}
    if options.control and not reason:
        control = _control(subject, reference, options)
        if control["fired"]:
            why = control["why"]
            detail = {"control": control}
            return StageVerdict(
                STAGE, "INCONCLUSIVE", why, evidence=tuple(found), reason=why, notes=notes, detail=detail
            )
    related = _related(subject, reference, found, (corrected, best), options, notes)
    return replace(related, detail={**related.detail, "control": control})


def _probes(a: Side, b: Side, options: Options) -> list[Evidence]:
    """C2 to C5, with the p-values that the bank gives to those that need one."""
    table = options.calibration or calibration.shipped()
    found = []
    for module in (basis, invariant, body, polar):
        one = module.probe(a, b, options.settings)
        if one.value is not None and one.p_value is None:
            p, tier = table.p_value(one.test, one.value)
            detail = {**one.detail, "tail_p": table.tail(one.test, one.value)}
            one = replace(one, p_value=p, tier=tier, detail=detail)
        found.append(one)
    return found


def _corrected(found: Sequence[Evidence], options: Options) -> tuple[float, Evidence | None]:
    """The smallest p of the tests that may decide, corrected for them and for all references.

    Where no rank in the bank could decide (among many references, or for a test with few pairs), a statistic above all
    of the bank's may by its tail: the verdict's tier says so.
    """
    corrected, best = _least(found, options)
    if corrected <= options.alpha:
        return corrected, best
    tails = [_by_tail(one) for one in found]
    return min((corrected, best), _least(tails, options), key=lambda one: one[0])


def _by_tail(one: Evidence) -> Evidence:
    p = one.detail.get("tail_p")
    return replace(one, p_value=min(1.0, _TAIL_DOUBT * p), tier="extrapolated") if p else one


def _least(found: Sequence[Evidence], options: Options) -> tuple[float, Evidence | None]:
    """Holm's weighted procedure (1979, section 4): exact tests get a hundredth of the error each, as a derivation that
    they see at all takes them to 1e-100; those that the bank gives a p share the rest."""
    able = [one for one in found if one.p_value is not None and one.tier != "heuristic"]
    if not able:
        return 1.0, None
    ranked = sum(one.tier != "exact" for one in able)
    rest = (1 - _EXACT_SHARE * (len(able) - ranked)) / max(ranked, 1)
    weighted = [float(one.p_value or 0.0) / (_EXACT_SHARE if one.tier == "exact" else rest) for one in able]
    least = min(range(len(able)), key=lambda one: weighted[one])
    return min(1.0, weighted[least] * max(1, options.references)), able[least]


def _control(subject: Side, reference: Side, options: Options) -> dict[str, Any]:
    """Whether an unrelated model passes for a relative, in both of two draws (one of a hundred may by chance)."""
    ours, theirs = thinned(subject, _CONTROL_LAYERS), thinned(reference, _CONTROL_LAYERS)
    fired: list[str] = []
    for seed in range(_CONTROL_SEEDS):
        corrected, best = _corrected(_probes(ours, control_of(theirs, seed), options), options)
        if corrected > options.alpha or best is None:
            why = "no test fired on an unrelated model of the reference's shape"
            return {"ran": True, "fired": False, "p_value": corrected, "why": why}
        fired.append(best.test)
    names = ", ".join(sorted(set(fired)))
    words = "the control, an unrelated model of the reference's shape, fired in {tests}: this stage is void"
    why = say(words, tests=names)
    return {"ran": True, "fired": True, "tests": names, "why": why}


def _named(found: Sequence[Evidence], test: str) -> Evidence | None:
    return next((one for one in found if one.test == test and one.value is not None), None)


def _none(
    found: Sequence[Evidence], corrected: float, best: Evidence | None, table: Calibration, notes: tuple[str, ...]
) -> StageVerdict:
    """Nothing fired: NO_EVIDENCE with its power, or what stood in the way of a test that could have."""
    evidence, asked = tuple(found), _named(found, "invariant")
    common: dict[str, Any] = {"p_value": corrected, "tier": best.tier if best else None, "evidence": evidence}
    if asked is None:
        lacking = next((one.text for one in found if one.test == "invariant"), "neurons could not be asked")
        unseen = say("{why}: a change of basis would not be seen", why=clauses(notes) if notes else lacking)
        return replace(untestable(STAGE, unseen), evidence=evidence)
    if asked.tier == "heuristic" and asked.detail["log10_p_normal"] < -6:
        reason = "the invariant test fired, and nothing is known of its chance of error: there is no calibration table"
        return StageVerdict(STAGE, "INCONCLUSIVE", reason, reason=reason, notes=notes, **common)
    screen = _named(found, "polar")
    if screen is not None and screen.value is not None and screen.value >= _SCREEN:
        reason = "the embeddings lie in one basis, and no test that may decide has fired"
        return StageVerdict(STAGE, "INCONCLUSIVE", reason, reason=reason, notes=notes, **common)
    power = table.caught() or "the bank has not been measured: what would have been caught is not known"
    text = say("no sign of common weights (p = {p:.2g}); {power}", p=corrected, power=power)
    return StageVerdict(STAGE, "NO_EVIDENCE", text, power=power, not_tested=_HOLES, notes=notes, **common)


_HOLES = (
    "embeddings retrained after further tuning",
    "a merge that keeps under about 40 % of the reference, in another basis",
    "noise of more than about two standard deviations of the weights",
    "distillation from outputs, which leaves no trace in weights",
)


def _related(
    subject: Side,
    reference: Side,
    found: Sequence[Evidence],
    decision: tuple[float, Evidence | None],
    options: Options,
    notes: tuple[str, ...],
) -> StageVerdict:
    corrected, best = decision
    over, measured = None, list[MatrixDelta]()
    if best is not None and best.test == body.TEST:
        told = Finding(
            "re-embedded", "the layers are the reference's, seen in their own axes; the embedding is not", {}
        )
    else:
        subject, reference = _settled(subject, reference)
        tried = [_held(one, reference, found, options) for one in _labellings(subject)]
        subject, over, measured, same_attention = max(tried, key=_likeness)
        told = _parts_only(found[0])
        if over:
            told = tell(reference, subject, over, measured, Context(found[0].detail, same_attention))
    detail = {
        "numbers": dict(told.numbers),
        "layers": [{"reference": i, "subject": j} for i, j in over.layers] if over else [],
        "delta": [one.to_dict() for one in measured],
        "alignment": over.note if over else "",
    }
    common: dict[str, Any] = {
        "p_value": corrected, "tier": best.tier if best else None, "evidence": tuple(found), "detail": detail,
        "notes": notes,
    }  # fmt: skip
    if told.kind is None:
        text = say("a common start, trained apart: {words}", words=told.words)
        return StageVerdict(STAGE, "SHARED_INIT", text, **common)
    text = say("derived ({kind}): {words}", kind=term(told.kind), words=told.words)
    return StageVerdict(STAGE, "DERIVED", text, kind=told.kind, share=told.share, **common)


def _settled(subject: Side, reference: Side) -> tuple[Side, Side]:
    """Both sides with the roles that names and values left open chosen so that the two are alike: for what has been
    decided to be related only, never before a test."""
    for_subject = settled(subject.canonical, reference.canonical, subject.source, reference.source)
    for_reference = settled(reference.canonical, for_subject, reference.source, subject.source)
    return _under(subject, for_subject), _under(reference, for_reference)


def _under(side: Side, canonical: Canonical) -> Side:
    return side if canonical is side.canonical else replace(side, canonical=canonical, cache={})


def _labellings(side: Side) -> list[Side]:
    """The side, and with each pair of roles that nothing has settled exchanged in all layers: at most eight."""
    found = [side]
    for one, other in (("embedding", "head"), ("k", "q"), ("gate", "up")):
        if (one, other) in side.canonical.ambiguous:
            layers = [layer for layer, role in side.canonical.views if role == one]
            for turned in tuple(found):
                canonical = turned.canonical
                for layer in layers:
                    canonical = relabelled(canonical, layer, {one: other, other: one})
                found.append(_under(turned, canonical))
    return found


class _Held(NamedTuple):
    """A subject held over the reference: how, what differs, and whether attention is one function."""

    subject: Side
    over: Alignment | None
    measured: list[MatrixDelta]
    same_attention: bool


def _held(subject: Side, reference: Side, found: Sequence[Evidence], options: Options) -> _Held:
    over, measured = _difference(subject, reference, found, options)
    same = over is not None and over.fits and attention_is_same(reference, subject, over)
    return _Held(subject, over, measured, same)


def _likeness(held: _Held) -> tuple[bool, float]:
    along = sorted(one.along for one in held.measured if one.layer is not None)
    return held.same_attention, along[len(along) // 2] if along else 0.0


def _parts_only(first: Evidence) -> Finding:
    share = float(first.detail["share"])
    words = say("{equal}; nothing else could be compared", equal=first.text)
    return Finding("merged", words, {"share": share}, share)


def _difference(
    subject: Side, reference: Side, found: Sequence[Evidence], options: Options
) -> tuple[Alignment | None, list[MatrixDelta]]:
    """The reference's weights taken from the subject's, in one basis: that of C2 where it fired, else of C3."""
    order, asked, own = (_named(found, test) for test in ("basis", "invariant", "body"))
    same_basis = order is not None and basis.fires(order)
    source = order if same_basis else asked or own
    if source is None:
        return None, []
    pairs = [_turned(one) for one in source.detail["layers"]]
    over = align(reference, subject, pairs, options.settings, same_basis=same_basis)
    return over, deltas(reference, subject, over, options.settings)


def _turned(row: Mapping[str, Any]) -> dict[str, int]:
    """A pair of layers as the probes list it (subject, reference), the other way round."""
    turned = {"a": int(row["b"]), "b": int(row["a"])}
    if "block_a" in row:
        turned |= {"block_a": int(row["block_b"]), "block_b": int(row["block_a"])}
    return turned
