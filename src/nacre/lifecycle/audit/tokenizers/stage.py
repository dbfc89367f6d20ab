"""Stage 2: the verdict on two tokenizers. It never rests on a name or a size, only on what the vocabularies hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from nacre.errors import NacreError
from nacre.lifecycle.audit.said import Said, clauses, say, term
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tokenizers import null
from nacre.lifecycle.audit.tokenizers.formats import load_vocabulary
from nacre.lifecycle.audit.tokenizers.segment import agreement
from nacre.lifecycle.audit.tokenizers.similarity import Similarity, similarity
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, Tier, untestable

STAGE = "tokenizer"
LEAST_LEARNED = 100  # fewer learned tokens tell nothing
SORTED = 0.95
SAME_ORDER = 0.98  # of the falling links: a copy keeps them all, up to a few tokens moved by hand
SAME_CORPUS = (
    "the same program on the same corpus gives the same vocabulary: copied and trained anew on that corpus "
    "cannot be told apart"
)
APART = "trained apart on corpora that share at most nine tenths of their text"


def compare(subject: Subject, reference: Subject) -> StageVerdict:
    """Stage 2 of two opened artifacts. What cannot be read makes the stage UNTESTABLE, with the reason."""
    sides: list[Vocabulary] = []
    for side in (subject, reference):
        if side.tokenizer is None:
            return untestable(STAGE, side.missing.get(STAGE, say("{ref} has no tokenizer", ref=side.ref)))
        try:
            sides.append(load_vocabulary(side.tokenizer))
        except (NacreError, OSError) as error:
            reason = error.message if isinstance(error, NacreError) else str(error)
            return untestable(STAGE, say("{where}: {reason}", where=side.ref, reason=reason))
    return compare_vocabularies(*sides)


def compare_vocabularies(subject: Vocabulary, reference: Vocabulary) -> StageVerdict:
    """The verdict on two vocabularies, with every measure taken."""
    if len(subject.ids) == 0 or len(reference.ids) == 0:
        return untestable(STAGE, "a vocabulary has no ordinary tokens")
    found = similarity(subject, reference)
    verdict = decide(subject, reference, found)
    return replace(verdict, detail={**_detail(subject, reference, found), **verdict.detail})


def decide(subject: Vocabulary, reference: Vocabulary, found: Similarity) -> StageVerdict:
    """The verdict from what two vocabularies share, without the measures that decide nothing."""
    if _is_identical(subject, reference):
        return _identical(subject, reference, found)
    least = min(len(subject.learned), len(reference.learned))
    if least < LEAST_LEARNED:
        template = "only {n:,} learned tokens on one side, {least} are needed"
        return untestable(STAGE, say(template, n=least, least=LEAST_LEARNED))
    return _judge(subject, reference, found)


def _is_identical(subject: Vocabulary, reference: Vocabulary) -> bool:
    """The same learned tokens in the same order, and the same segmentation; ids may differ. Where the longest token
    wins (WordPiece, tries) no order takes part in cutting, so the same tokens are enough."""
    if subject.merges and reference.merges and subject.merges != reference.merges:
        return False
    unknown = not (subject.knows_special and reference.knows_special)
    added = subject.added.keys() == reference.added.keys()
    if subject.body_digest == reference.body_digest:
        return unknown or added
    if subject.algorithm == reference.algorithm and subject.algorithm in ("wordpiece", "trie"):
        return added and subject.ids.keys() == reference.ids.keys()
    same = len(subject.learned) > 0 and _is_same_learned(subject, reference)
    return same and added and subject.alphabet == reference.alphabet and _scores_agree(subject, reference)


def _is_same_learned(subject: Vocabulary, reference: Vocabulary) -> bool:
    """The same tokens in the same order. Where every id is the same and a file only implies the order (SentencePiece
    scores that are equal, runs of blanks as a rule), up to a thousandth of the tokens may stand elsewhere."""
    if subject.learned_digest == reference.learned_digest:
        return True
    if subject.ids != reference.ids or subject.merges or reference.merges or subject.algorithm != "bpe":
        return False
    if len(subject.learned) != len(reference.learned):
        return False
    pairs = zip(subject.learned, reference.learned, strict=True)
    return sum(ours != theirs for ours, theirs in pairs) * 1000 <= len(subject.learned)


def _scores_agree(subject: Vocabulary, reference: Vocabulary) -> bool:
    return all(abs(score - reference.scores.get(token, 0.0)) < 2e-3 for token, score in subject.scores.items())


def _identical(subject: Vocabulary, reference: Vocabulary, found: Similarity) -> StageVerdict:
    whole = subject.digest == reference.digest
    unknown = [] if subject.knows_special and reference.knows_special else ["special tokens: a file does not list them"]
    ordinary = sum(reference.ids.get(token) == i for token, i in subject.ids.items()) / max(1, len(subject.ids))
    template = "the same tokenizer: all {n:,} learned tokens agree, and every text is cut alike"
    parts = [say(template, n=len(subject.learned))]
    if ordinary < 1:
        parts.append(_other_ids(1 - ordinary, found))
    if not unknown and {**subject.special} != {**reference.special}:
        parts.append(say("special tokens differ"))
    digests = sorted({subject.body_digest[:16], reference.body_digest[:16]})
    told = say("sha256 {a}", a=digests[0])
    if len(digests) > 1:
        told = say("sha256 {a} and {b}", a=digests[0], b=digests[1])
    evidence = Evidence("digest of the content", 1.0, text=told)
    return StageVerdict(
        STAGE,
        "IDENTICAL",
        clauses((*parts, SAME_CORPUS)),
        evidence=(evidence,),
        not_tested=tuple(unknown),
        detail={"exact": whole},
    )


def _other_ids(share: float, found: Similarity) -> Said:
    if found.shift and found.aligned > 0.5:
        template = "{share:.0%} of the tokens have other ids (most are shifted by {shift:,})"
        return say(template, share=share, shift=abs(found.shift))
    return say("{share:.0%} of the tokens have other ids", share=share)


def _judge(subject: Vocabulary, reference: Vocabulary, found: Similarity) -> StageVerdict:
    cells = null.cells(subject, reference)
    values, not_tested = {"order": found.order, "jaccard": found.jaccard}, _untold(found)
    if not_tested:
        values.pop("order")
    ranked = null.p_values(values, cells)
    p = null.exact(found.falling, found.n_kept) if "order" in values else 1.0
    beyond = {name for name, rank in ranked.p.items() if rank <= null.ALPHA}
    if "order" in beyond and found.order >= SAME_ORDER and p <= null.ALPHA:
        verdict = _derived(subject, reference, found, p)
    elif "order" in beyond:
        reason = say(
            "{order:.0%} of the order of shared tokens is the same, which tokenizers {apart} do not show, yet "
            "not all of it: a common ancestor, the same corpus under other settings, or a changed copy",
            order=found.order,
            apart=APART,
        )
        verdict = _inconclusive(reason, ranked.least)
    elif beyond:
        reason = say(
            "{n:,} learned tokens are shared, more than by tokenizers {apart}, yet not in one order: "
            "texts of one kind, or a copy that was put in another order",
            n=found.shared,
            apart=APART,
        )
        verdict = _inconclusive(reason, ranked.least)
    else:
        verdict = _unrelated(subject, reference, found, ranked.least)
    evidence = _evidence(values, ranked.p, p if "order" in values else None)
    return replace(verdict, evidence=evidence, not_tested=(*not_tested, *verdict.not_tested))


def _untold(found: Similarity) -> tuple[str, ...]:
    """Why the order of learning says nothing, if it does not."""
    if found.sorted_share >= SORTED:
        return ("the order of learning: a vocabulary is sorted, so its order says nothing",)
    if found.falling < null.LEAST_FALLING:
        template = (
            "the order of learning: the {n:,} shared tokens have {falling} steps that convention "
            "does not explain, {least} are needed"
        )
        return (say(template, n=found.shared, falling=found.falling, least=null.LEAST_FALLING),)
    return ()


def _derived(subject: Vocabulary, reference: Vocabulary, found: Similarity, p: float) -> StageVerdict:
    """Beyond what independent training explains, in one order. Whoever extends or prunes a vocabulary keeps that."""
    small, large = sorted((subject, reference), key=lambda one: (len(one.learned), len(one)))
    if _is_longer_training(small, large, found):
        template = "one vocabulary begins with the whole other one; {same_corpus}, to a larger size"
        return _inconclusive(say(template, same_corpus=SAME_CORPUS), p, "exact")
    kind = None
    if found.shared == len(small.learned):
        kind = "pruned" if small is subject and len(small.learned) < len(large.learned) else "vocabulary-extended"
    parts = [_shared(found)]
    if len(small.learned) == len(large.learned) and found.prefix == len(small.learned):
        template = "tokens were added by hand to a vocabulary that is otherwise the same ({same_corpus})"
        parts.append(say(template, same_corpus=SAME_CORPUS))
    text = clauses((*parts, "who was first is not told"))
    return StageVerdict(STAGE, "DERIVED", text, kind=kind, share=found.in_reference, p_value=p, tier="exact")


def _shared(found: Similarity) -> Said:
    template = (
        "one vocabulary was made from the other: they share {n:,} learned tokens "
        "({ours:.0%} of the subject's, {theirs:.0%} of the reference's), {order} and {same_id:.0%} with the "
        "same id; tokenizers {apart} keep {most:.0%} of that order at most"
    )
    order = "all in the same order" if found.order == 1 else say("{share:.1%} in the same order", share=found.order)
    return say(
        template,
        n=found.shared,
        ours=found.in_reference,
        theirs=found.in_subject,
        order=order,
        same_id=found.same_id,
        apart=APART,
        most=_largest("order"),
    )


def _largest(name: str) -> float:
    """The largest value of a statistic in the whole table."""
    rows = [row for rows in null.table()["null"].values() for row in rows.values()]
    return float(max(max(row[name]) for row in rows))


def _is_longer_training(small: Vocabulary, large: Vocabulary, found: Similarity) -> bool:
    """Whether training on for longer explains the larger one: it begins with all of the smaller one, and none of the
    smaller's tokens after the learned ones (characters, special tokens) kept its place before learned ones."""
    if found.prefix < len(small.learned) or len(small.learned) == len(large.learned):
        return False
    if small.algorithm != "bpe" or large.algorithm != "bpe":
        return False
    last = max((small.ids[token] for token in small.learned), default=0)
    after = {token: i for token, i in small.ids.items() if i > last and token in small.alphabet}
    by_hand = {token: i for token, i in {**small.special, **small.added}.items() if i > last}
    everything = {**large.special, **large.added}
    beyond = max((large.ids[token] for token in large.learned), default=0)
    kept = [i for token, i in after.items() if large.ids.get(token) == i < beyond]
    kept += [i for token, i in by_hand.items() if everything.get(token) == i < beyond]
    return not kept


def _unrelated(subject: Vocabulary, reference: Vocabulary, found: Similarity, p: float) -> StageVerdict:
    cells = null.cells(subject, reference)
    power = say(
        "seen would be a vocabulary that keeps {order:.0%} of the order of shared tokens, "
        "or {tokens:.0%} of the tokens",
        order=null.critical(cells, "order"),
        tokens=null.critical(cells, "jaccard"),
    )
    open_ = ("a copy with both order and tokens replaced beyond that",)
    if _is_same_design(subject, reference):
        text = say(
            "the same recipe ({algorithm} over {surface}, the same size, alphabet and special tokens) "
            "with other learned tokens: a public recipe explains it",
            algorithm=subject.algorithm,
            surface=term(f"surface_{subject.surface}"),
        )
        return StageVerdict(
            STAGE, "SAME_DESIGN", text, p_value=p, tier="calibrated", not_tested=open_, detail={}, power=power
        )
    text = say(
        "nothing points to a copy: {n:,} learned tokens are shared and "
        "{order:.0%} of their order, no more than tokenizers {apart}",
        n=found.shared,
        order=found.order,
        apart=APART,
    )
    return StageVerdict(STAGE, "NO_EVIDENCE", text, p_value=p, tier="calibrated", not_tested=open_, power=power)


def _is_same_design(subject: Vocabulary, reference: Vocabulary) -> bool:
    alike = subject.algorithm == reference.algorithm and subject.surface == reference.surface
    units = len(subject.alphabet & reference.alphabet) / max(1, len(subject.alphabet | reference.alphabet))
    sizes = len(subject) == len(reference)
    return alike and sizes and units >= 0.8 and subject.special.keys() == reference.special.keys()


def _inconclusive(reason: str, p: float, tier: Tier = "calibrated") -> StageVerdict:
    text = say("not decided: {reason}", reason=reason)
    return StageVerdict(STAGE, "INCONCLUSIVE", text, p_value=p, tier=tier, reason=reason)


def _evidence(values: Mapping[str, float], ranks: Mapping[str, float], p: float | None) -> tuple[Evidence, ...]:
    order = "of the steps between shared tokens that no convention explains, the share that both sides took"
    texts = {"order": order, "jaccard": "shared learned tokens among all, both sides cut to the same length"}
    apart = say("the null: tokenizers {apart}", apart=APART)
    ranked = [
        Evidence(f"{name}, ranked", value, ranks[name], "calibrated", texts[name], apart)
        for name, value in values.items()
    ]
    if p is None:
        return tuple(ranked)
    return (Evidence("order", values["order"], p, "exact", order, _assumption()), *ranked)


def _assumption() -> Said:
    """What the exact p-value stands on."""
    template = (
        "of tokenizers {apart}, each of these steps survives with a chance of at most {most:.0%}, whatever the "
        "steps before it did; in the table no eighth of any order kept more than {largest:.0%}"
    )
    return say(template, apart=APART, most=null.MOST_KEPT, largest=max(null.table()["largest_eighth"].values()))


def _detail(subject: Vocabulary, reference: Vocabulary, found: Similarity) -> dict[str, Any]:
    ours, theirs = {**subject.special, **subject.added}, {**reference.special, **reference.added}
    merges = None
    if subject.merges and reference.merges:
        merges = len(set(subject.merges) & set(reference.merges))
    return {
        **asdict(found),
        "segmentation_agreement": agreement(subject, reference),
        "shared_merges": merges,
        "scripts": [subject.script, reference.script],
        "algorithms": [subject.algorithm, reference.algorithm],
        "sizes": [len(subject), len(reference)],
        "learned": [len(subject.learned), len(reference.learned)],
        "digests": [subject.digest, reference.digest],
        "special_only_in_subject": sorted(ours.keys() - theirs.keys())[:50],
        "special_only_in_reference": sorted(theirs.keys() - ours.keys())[:50],
        "special_with_other_ids": sum(ours[token] != theirs[token] for token in ours.keys() & theirs.keys()),
        "notes": [*subject.notes, *reference.notes],
    }
