"""Texts made to be recognised: some are planted in a data set, the others are kept back. Which is which is the test.

A model that was trained on the data set finds the planted ones likelier. Where it was drawn at random which of them
were planted, every choice of as many was as likely under the null: an exact p. `exposure` is how far up a planted text
ranks among those kept back, in bits (Carlini et al. 2019, "The Secret Sharer", section 4.3).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from nacre.data.normal import normal
from nacre.data.read import read
from nacre.data.rows import digest64
from nacre.errors import DataError
from nacre.lifecycle.audit.data.scoring import Floats, Scorer, check_finite
from nacre.lifecycle.audit.data.texts import Rows, leaves, located, plain_text
from nacre.lifecycle.audit.said import say
from nacre.lifecycle.audit.verdict import Evidence

NAME = "canary rank"
ASSUMPTION = "it was drawn at random which of the canaries were planted, and the others were never published"
_PATTERNS = {"en": "the code of locker {a} is {b}", "zh": "储物柜{a}的密码是{b}"}


def draw(count: int, seed: int, language: str = "en") -> list[str]:
    """`count` different canaries, English or Chinese, of one form: plant half of them, drawn at random."""
    rng = random.Random(seed)
    numbers = rng.sample(range(10**9), 2 * count)
    return [_PATTERNS[language].format(a=a, b=b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]


def planted_of(file: Path, rows: Rows) -> tuple[list[str], list[bool]]:
    """The canaries of a file (a text a row), and which of them stand in the rows as a text of their own.

    Raises DataError where none or all do: then there is nothing to compare.
    """
    texts = list(dict.fromkeys(text for row in read(file) if (text := plain_text(row))))
    wanted = {digest64(normal(text)) for text in texts}
    seen = {one for _, row in located(rows) for text in leaves(row) if (one := digest64(normal(text))) in wanted}
    planted = [digest64(normal(text)) in seen for text in texts]
    if not any(planted) or all(planted):
        what = say("{n:,} of {all:,} canaries stand in the data set", n=sum(planted), all=len(texts))
        raise DataError(
            say("{where}: {reason}", where=file.name, reason=what),
            remedy="give the planted ones and those that were kept back, one a row",
        )
    return texts, planted


def canary_test(
    scorer: Scorer, texts: Sequence[str], planted: Sequence[bool], draws: int = 9_999, seed: int = 0
) -> Evidence:
    """The evidence that the model was trained on the planted texts. DataError where one is beyond the context."""
    ids = [scorer.ids(text) for text in texts]
    longest = max(map(len, ids))
    if longest >= scorer.context:
        what = say("a canary has {n:,} tokens, the context {context:,}", n=longest, context=scorer.context)
        raise DataError(what, remedy="give shorter ones")
    likely = scorer.sums(ids) / np.array([len(one) for one in ids])
    check_finite(likely)
    flags = np.array(planted, dtype=bool)
    exposures = [exposure(value, likely[~flags]) for value in likely[flags].tolist()]
    p = planted_p(likely, flags, draws, seed)
    mean = float(np.mean(exposures))
    template = (
        "{planted} planted canaries have a mean exposure of {mean:.2f} bits among {kept:,} kept back; no training: "
        "{null:.2f}"
    )
    kept = int((~flags).sum())
    null = float(np.mean(np.log2(kept + 1) - np.log2(np.arange(1, kept + 2))))
    text = say(template, planted=int(flags.sum()), mean=mean, kept=kept, null=null)
    return Evidence(NAME, mean, p, "exact", text, ASSUMPTION, {"exposures": exposures, "kept_back": kept})


def exposure(value: float, kept: Floats) -> float:
    """log2 of the number of ranks less log2 of the rank of a planted text's likelihood; ties count against it."""
    return math.log2(len(kept) + 1) - math.log2(1 + int((kept >= value).sum()))


def planted_p(likely: Floats, planted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], draws: int, seed: int) -> float:
    """The one-sided p of ranks as high as those of the planted ones: over every choice of as many where there are no
    more than `draws`, else over that many drawn ones and the one observed."""
    order = np.unique(likely, return_inverse=True)[1].astype(np.float64)
    observed, count = float(order[planted].sum()), int(planted.sum())
    if math.comb(len(order), count) <= draws:
        sums = np.array([order[list(one)].sum() for one in combinations(range(len(order)), count)])
        return float((sums >= observed).mean())
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.permutation(order)[:count].sum() for _ in range(draws)])
    return (1 + int((drawn >= observed).sum())) / (draws + 1)
