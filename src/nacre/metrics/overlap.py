"""BLEU, chrF (sacrebleu) and ROUGE (rouge-score) of generated text, with the tokenization that the language needs.

Chinese is never scored through a tokenizer for spaces: BLEU takes sacrebleu's `zh`, ROUGE counts Han characters as
tokens. rouge-score's own tokenizer keeps only [a-z0-9] and would drop every Han character, so it is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from nacre.errors import DataError

_HAN = r"\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_IS_HAN = re.compile(f"[{_HAN}]")
_TOKEN = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")


@dataclass(frozen=True)
class Overlap:
    """A corpus score in 0..100 with sacrebleu's signature. `rows` (N, S) are its per-sentence sums, for `bootstrap`."""

    score: float
    signature: str
    rows: NDArray[np.float64]
    _metric: Any

    def of_sums(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (R,) of summed rows (R, S)."""
        rounded = np.rint(sums).astype(np.int64).tolist()
        return np.array([self._metric._compute_score_from_stats(row).score for row in rounded])


def han_share(texts: Sequence[str]) -> float:
    """Share of Han characters among the letters and digits of the texts."""
    letters = sum(sum(character.isalnum() for character in text) for text in texts)
    return sum(len(_IS_HAN.findall(text)) for text in texts) / letters if letters else 0.0


def _checked(hypotheses: Sequence[str], references: Sequence[str], language: str) -> None:
    if len(hypotheses) != len(references) or not hypotheses:
        raise DataError(
            f"{len(hypotheses)} hypotheses for {len(references)} references",
            remedy="give one non-empty list of references and one hypothesis for each",
        )
    share = han_share(references)
    if language != "zh" and share > 0.3:
        raise DataError(
            f"{share:.0%} of the references' letters are Chinese, but the target language is {language!r}",
            remedy="set the target language to 'zh', or the scores would be counted on the wrong units",
        )


def _overlap(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Overlap:
    score = metric.corpus_score(list(hypotheses), [list(references)]).score
    # sacrebleu's own resampling works on these sums but has no public way to them: a test holds them to the score.
    rows = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
    return Overlap(float(score), str(metric.get_signature()), np.array(rows, dtype=np.float64), metric)


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Overlap:
    """Corpus BLEU (Papineni et al. 2002; Post 2018), one reference each; tokenizer `zh` or `13a`."""
    _checked(hypotheses, references, language)
    return _overlap(BLEU(tokenize="zh" if language == "zh" else "13a"), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Overlap:
    """chrF2, character n-grams up to 6 (Popovic 2015), one reference each."""
    _checked(hypotheses, references, language)
    return _overlap(CHRF(), hypotheses, references)


class CharacterTokenizer:
    """Every Han character is a token; so is every run of other letters or digits, in lower case."""

    def tokenize(self, text: str) -> list[str]:
        """Tokens of `text`, in order."""
        return _TOKEN.findall(text.lower())


def rouge(hypotheses: Sequence[str], references: Sequence[str], language: str) -> dict[str, NDArray[np.float64]]:
    """F-measures (N,) in 0..1 of ROUGE-1, ROUGE-2 and ROUGE-L per example (Lin 2004); a corpus figure is their mean.

    Chinese is counted by characters, other languages by rouge-score's default tokenizer, which knows [a-z0-9] only:
    text in another script is refused, since it would vanish.
    """
    _checked(hypotheses, references, language)
    lost = _unseen_by_default(references) if language != "zh" else 0.0
    if lost > 0.1:
        raise DataError(
            f"rouge-score's tokenizer would drop {lost:.0%} of the references' letters",
            remedy="ROUGE is offered for English and, by characters, for Chinese ('zh'); use chrF for other scripts",
        )
    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, tokenizer=CharacterTokenizer() if language == "zh" else None)
    results = [scorer.score(reference, guess) for reference, guess in zip(references, hypotheses, strict=True)]
    return {name: np.array([result[name].fmeasure for result in results]) for name in names}


def _unseen_by_default(texts: Sequence[str]) -> float:
    letters = [character for text in texts for character in text.lower() if character.isalnum()]
    return sum(not character.isascii() for character in letters) / len(letters) if letters else 0.0
