"""Sentences on two data sets that a reader can cite; their Chinese stands in `messages_data.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nacre.lifecycle.audit.data.contamination import Contamination, Leak
from nacre.lifecycle.audit.data.overlap import Example, Found, Overlap, OverlapConfig
from nacre.lifecycle.audit.data.texts import DataSet
from nacre.lifecycle.audit.said import say, term


def contains(theirs: Found, ours: Found) -> str:
    """Both shares with their intervals, as of what the subject contains."""
    template = (
        "the subject contains {theirs:.1%} ({theirs_low:.1%} to {theirs_high:.1%}) of the reference's {n_theirs:,} "
        "rows; {ours:.1%} ({low:.1%} to {high:.1%}) of the subject's {n:,} rows stand in the reference"
    )
    (low, high), (theirs_low, theirs_high) = ours.interval, theirs.interval
    return say(
        template, theirs=theirs.share, theirs_low=theirs_low, theirs_high=theirs_high, n_theirs=theirs.rows,
        ours=ours.share, low=low, high=high, n=ours.rows,
    )  # fmt: skip


def overlap(found: Overlap, config: OverlapConfig) -> Iterator[str]:
    """A sentence for each direction."""
    for side, other, one in (("subject", "reference", found.subject), ("reference", "subject", found.reference)):
        low, high = one.interval
        yield say(
            "Of the {n:,} rows of the {side}, {exact:,} stand in the {other} with the same text and {near:,} more as "
            "near-duplicates (Jaccard similarity of 3-grams {threshold:g} or more, estimated over {looked:,} rows): "
            "{share:.1%}, 95 % interval {low:.1%} to {high:.1%}.",
            n=one.rows, side=term(side), exact=one.exact, other=term(other), near=one.near,
            threshold=config.near_threshold, looked=one.near_looked, share=one.share, low=low, high=high,
        )  # fmt: skip


def contamination(leaked: Mapping[Leak, Contamination]) -> Iterator[str]:
    """A sentence for each held-out split beside training rows."""
    for leak, one in leaked.items():
        low, high = one.interval
        yield say(
            "Of the {n:,} {split} rows of the {held_out}, {same:,} stand in the training rows of the {train}, "
            "{distinct:,} different texts: {share:.2%}, 95 % interval {low:.2%} to {high:.2%}.",
            n=one.test_rows, split=term(f"split_{leak.split}"), held_out=term(leak.held_out), same=one.same,
            train=term(leak.train), distinct=one.distinct, share=one.share, low=low, high=high,
        )  # fmt: skip
        yield from examples(one.examples)


_HOW = {
    "same": "for example {a} and {b} are the same: {text}",
    "telling": "for example {a} and {b} share a long text: {text}",
    "near": "for example {a} and {b} are nearly the same: {text}",
}


def examples(found: Sequence[Example]) -> Iterator[str]:
    """Where rows that were found stand, on both sides."""
    for one in found:
        a, b = _place(one.subject), _place(one.reference)
        yield say(_HOW[one.how], a=a, b=b, text=one.text.replace("\n", " "))


def _place(told: str) -> str:
    """The file and line of a row as a sentence, where it has both."""
    file, _, number = told.rpartition(", line ")
    return say("{file}, line {line}", file=file, line=number) if file else told


def reading(name: str, data: DataSet, found: Found) -> Iterator[str]:
    """What reading a side left out or took as found."""
    side = term(name)
    if data.n_unread:
        yield say("{n:,} rows of the {side} cannot be read and were left out", n=data.n_unread, side=side)
    if found.empty:
        yield say("{n:,} rows of the {side} have no text in what is compared", n=found.empty, side=side)
    if found.repeated_ids:
        yield say("{n:,} rows of the {side} repeat the id of an earlier row", n=found.repeated_ids, side=side)
    for one in data.noted:
        yield say("reading the {side}: {what}", side=side, what=one)
