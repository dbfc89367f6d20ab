"""Which rows of two embeddings stand for the same token."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from nacre.errors import NacreError
from nacre.lifecycle.audit.canonical import Canonical
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tokenizers.formats import load_vocabulary
from nacre.lifecycle.audit.weights.side import Ids

LEAST = 32  # shared tokens below which nothing is asked of the embeddings


class SharedTokens(NamedTuple):
    """Ids of the same tokens on both sides; None where fewer than 32 are shared, and why or on what assumption."""

    a: Ids | None
    b: Ids | None
    note: str


def shared_tokens(subject: Subject, reference: Subject, a: Canonical, b: Canonical) -> SharedTokens:
    """By spelling, from both tokenizer files. Without one of them ids are taken to mean the same where the
    vocabularies are of one size, and the note says so."""
    rows = (_rows(a), _rows(b))
    known = (_spelled(subject.tokenizer), _spelled(reference.tokenizer))
    if isinstance(known[0], str) or isinstance(known[1], str):
        why = known[0] if isinstance(known[0], str) else known[1]
        if rows[0] != rows[1]:
            template = "{why}, and the vocabularies are of {a:,} and {b:,} tokens"
            return SharedTokens(None, None, say(template, why=why, a=rows[0], b=rows[1]))
        ids = np.arange(rows[0])
        return SharedTokens(ids, ids, say("{why}: tokens of one id were taken to be the same", why=why))
    common = sorted(known[0].keys() & known[1].keys())
    pairs = [(known[0][one], known[1][one]) for one in common]
    pairs = [pair for pair in pairs if pair[0] < rows[0] and pair[1] < rows[1]]
    if len(pairs) < LEAST:
        return SharedTokens(None, None, say("the tokenizers share {n} tokens", n=len(pairs)))
    ids_a, ids_b = np.asarray(pairs, dtype=np.int64).T
    return SharedTokens(ids_a, ids_b, say("{n:,} tokens are shared", n=len(pairs)))


def _rows(canonical: Canonical) -> int:
    view = canonical.views.get((None, "embedding"))
    return view.shape[0] if view else 0


def _spelled(path: Path | None) -> dict[bytes, int] | str:
    """Token -> id, or why there is none."""
    if path is None:
        return "one side has no tokenizer"
    try:
        return dict(load_vocabulary(path).ids)
    except NacreError as error:
        return say("a tokenizer cannot be read ({reason})", reason=error.message)
