"""Stage 2: the verdict on two tokenizers. It never rests on a name or a size, only on what the vocabularies hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nacre.errors import NacreError
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tokenizers import null
from nacre.lifecycle.audit.tokenizers.formats import load_vocabulary
from nacre.lifecycle.audit.tokenizers.segment import agreement
from nacre.lifecycle.audit.tokenizers.similarity import Similarity, similarity
from nacre.lifecycle.audit.tokenizers.vocabulary import Algorithm, Vocabulary
from nacre.lifecycle.audit.verdict import Evidence, StageVerdict, untestable

STAGE = "tokenizer"
LEAST_LEARNED = 100  # fewer learned tokens tell nothing
SORTED = 0.95
SAME_CORPUS = (
    "the same program on the same corpus gives the same vocabulary: copied and trained anew on that corpus "
    "cannot be told apart"
)
ASSUMPTION = "each corpus shares at most {share:.0%} of its text with the other; trained as in the table of the null"


def compare(subject: Subject, reference: Subject) -> StageVerdict:
    """Stage 2 of two opened artifacts. What cannot be read makes the stage UNTESTABLE, with the reason."""
    sides: list[Vocabulary] = []
    for side in (subject, reference):
        if side.tokenizer is None:
            return untestable(STAGE, side.missing.get(STAGE, f"{side.ref} has no tokenizer"))
        try:
            sides.append(load_vocabulary(side.tokenizer))
        except (NacreError, OSError) as error:
            reason = error.message if isinstance(error, NacreError) else str(error)
            return untestable(STAGE, f"{side.ref}: {reason}")
    return compare_vocabularies(*sides)


def compare_vocabularies(subject: Vocabulary, reference: Vocabulary) -> StageVerdict:
    """The verdict on two vocabularies, with every measure taken."""
    if len(subject.ids) == 0 or len(reference.ids) == 0:
        return untestable(STAGE, "a vocabulary has no ordinary tokens")
    found = similarity(subject, reference)
    detail = _detail(subject, reference, found)
    if _is_identical(subject, reference):
        return _identical(subject, reference, detail)
    least = min(len(subject.learned), len(reference.learned))
    if least < LEAST_LEARNED:
        return untestable(STAGE, f"only {least:,} learned tokens on one side, {LEAST_LEARNED} are needed")
    return _judge(subject, reference, found, detail)


def _is_identical(subject: Vocabulary, reference: Vocabulary) -> bool:
    """The same learned tokens in the same order, and the same segmentation; ids may be shifted by special tokens."""
    if subject.merges and reference.merges and subject.merges != reference.merges:
        return False
    if subject.body_digest == reference.body_digest:
        unknown = not (subject.knows_special and reference.knows_special)
        return unknown or subject.added.keys() == reference.added.keys()
    same = len(subject.learned) > 0 and _is_same_learned(subject, reference)
    beside = subject.alphabet == reference.alphabet and subject.added.keys() == reference.added.keys()
    return same and beside and _scores_agree(subject, reference)


def _is_same_learned(subject: Vocabulary, reference: Vocabulary) -> bool:
    """The same tokens in the same order. Where every id is the same and a file only implies the order (SentencePiece
    scores that are equal, runs of blanks as a rule), up to a thousandth of the tokens may stand elsewhere."""
    if subject.learned_digest == reference.learned_digest:
        return True
    if subject.ids != reference.ids or subject.merges or reference.merges or subject.algorithm != "bpe":
        return False
    pairs = zip(subject.learned, reference.learned, strict=True)
    return sum(ours != theirs for ours, theirs in pairs) * 1000 <= len(subject.learned)


def _scores_agree(subject: Vocabulary, reference: Vocabulary) -> bool:
    return all(abs(score - reference.scores.get(token, 0.0)) < 2e-3 for token, score in subject.scores.items())


def _identical(subject: Vocabulary, reference: Vocabulary, detail: dict[str, Any]) -> StageVerdict:
    whole = subject.digest == reference.digest
    unknown = [] if subject.knows_special and reference.knows_special else ["special tokens: a file does not list them"]
    text = f"the same vocabulary: {len(subject.learned):,} learned tokens in the same order"
    if not whole and not unknown:
        text += ", with other special tokens or shifted ids"
    detail["exact"] = whole
    evidence = Evidence("digest of the content", 1.0, text=f"sha256 {subject.body_digest[:16]}")
    return StageVerdict(
        STAGE, "IDENTICAL", f"{text}; {SAME_CORPUS}", evidence=(evidence,), not_tested=tuple(unknown), detail=detail
    )


def _judge(subject: Vocabulary, reference: Vocabulary, found: Similarity, detail: dict[str, Any]) -> StageVerdict:
    algorithms: set[Algorithm] = {subject.algorithm, reference.algorithm}
    values = {"kept": found.kept, "jaccard": found.jaccard}
    not_tested: tuple[str, ...] = ()
    if found.sorted_share >= SORTED:
        values.pop("kept")
        not_tested = ("the order of learning: a vocabulary is sorted, so its order says nothing",)
    most = null.p_values(values, algorithms, null.MOST)
    # Which tokens are shared hangs on the texts' kind as well; their order does not: it alone is held to the half.
    first = {name: values[name] for name in list(values)[:1]}
    half = null.p_values(first, algorithms, null.HALF)
    evidence = tuple(_evidence(name, values[name], most.p[name], half.p.get(name)) for name in values)
    if most.least <= null.ALPHA:
        verdict = _derived(subject, reference, found, most.least)
    elif half.least <= null.ALPHA:
        verdict = _inconclusive(
            "more alike than tokenizers of corpora that share half of their text, "
            "no more than those that share nine tenths",
            half.least,
        )
    else:
        verdict = _unrelated(subject, reference, algorithms, half.least)
    return StageVerdict(
        **{**vars(verdict), "evidence": evidence, "detail": detail, "not_tested": (*not_tested, *verdict.not_tested)}
    )


def _derived(subject: Vocabulary, reference: Vocabulary, found: Similarity, p: float) -> StageVerdict:
    """Beyond what independent training explains. Whoever extends or prunes a vocabulary keeps its order exactly."""
    if not found.is_same_order:
        return _inconclusive(
            f"{found.kept:.0%} of the order is the same, which independent corpora do not give, yet not all of it: "
            "a common ancestor, the same corpus under other settings, or a changed copy",
            p,
        )
    small, large = sorted((subject, reference), key=lambda one: (len(one.learned), len(one)))
    if _is_longer_training(small, large, found):
        return _inconclusive(f"one vocabulary begins with the whole other one; {SAME_CORPUS}, to a larger size", p)
    is_shorter = small is subject and len(small.learned) < len(large.learned)
    kind = "pruned" if is_shorter else "vocabulary-extended"
    share = found.in_reference
    what = (
        f"{found.shared:,} learned tokens are shared, all in the same order, "
        f"{found.same_id:.0%} of the smaller vocabulary's with the same id"
    )
    if len(small.learned) == len(large.learned) and found.prefix == len(small.learned):
        what += f"; tokens were added by hand to a vocabulary that is otherwise the same ({SAME_CORPUS})"
    return StageVerdict(
        STAGE, "DERIVED", f"{what}; who was first is not told", kind=kind, share=share, p_value=p, tier="calibrated"
    )


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


def _unrelated(subject: Vocabulary, reference: Vocabulary, algorithms: set[Algorithm], p: float) -> StageVerdict:
    power = (
        f"seen would be a vocabulary that keeps {null.critical(algorithms, null.MOST, 'kept'):.1%} of the other's "
        f"neighbouring tokens, or {null.critical(algorithms, null.MOST, 'jaccard'):.0%} of its tokens"
    )
    open_ = ("a copy with both order and tokens replaced beyond that",)
    if _is_same_design(subject, reference):
        text = (
            f"the same recipe ({subject.algorithm} over {subject.surface}, the same size, alphabet and special tokens) "
            "with other learned tokens: a public recipe explains it"
        )
        return StageVerdict(
            STAGE, "SAME_DESIGN", text, p_value=p, tier="calibrated", not_tested=open_, detail={}, power=power
        )
    text = "no more alike than tokenizers trained independently on corpora that share half of their text"
    return StageVerdict(STAGE, "NO_EVIDENCE", text, p_value=p, tier="calibrated", not_tested=open_, power=power)


def _is_same_design(subject: Vocabulary, reference: Vocabulary) -> bool:
    alike = subject.algorithm == reference.algorithm and subject.surface == reference.surface
    units = len(subject.alphabet & reference.alphabet) / max(1, len(subject.alphabet | reference.alphabet))
    sizes = len(subject) == len(reference)
    return alike and sizes and units >= 0.8 and subject.special.keys() == reference.special.keys()


def _inconclusive(reason: str, p: float) -> StageVerdict:
    return StageVerdict(STAGE, "INCONCLUSIVE", f"not decided: {reason}", p_value=p, tier="calibrated", reason=reason)


def _evidence(name: str, value: float, p_most: float, p_half: float | None) -> Evidence:
    texts = {
        "kept": "of the smaller vocabulary's neighbouring tokens, the share that are neighbours in the other as well",
        "jaccard": "shared learned tokens among all, both sides cut to the same length",
    }
    return Evidence(
        name, value, p_most, "calibrated", texts[name], ASSUMPTION.format(share=float(null.MOST)),
        {"p_if_corpora_share_half": p_half},
    )  # fmt: skip


def _detail(subject: Vocabulary, reference: Vocabulary, found: Similarity) -> dict[str, Any]:
    ours, theirs = {**subject.special, **subject.added}, {**reference.special, **reference.added}
    merges = None
    if subject.merges and reference.merges:
        merges = len(set(subject.merges) & set(reference.merges))
    return {
        **asdict(found),
        "segmentation_agreement": agreement(subject, reference),
        "shared_merges": merges,
        "algorithms": [subject.algorithm, reference.algorithm],
        "sizes": [len(subject), len(reference)],
        "learned": [len(subject.learned), len(reference.learned)],
        "digests": [subject.digest, reference.digest],
        "special_only_in_subject": sorted(ours.keys() - theirs.keys())[:50],
        "special_only_in_reference": sorted(theirs.keys() - ours.keys())[:50],
        "special_with_other_ids": sum(ours[token] != theirs[token] for token in ours.keys() & theirs.keys()),
        "notes": [*subject.notes, *reference.notes],
    }
