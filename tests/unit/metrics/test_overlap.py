"""BLEU, chrF and ROUGE know Chinese."""

from __future__ import annotations

import pytest
from rouge_score.rouge_scorer import RougeScorer

from nacre.errors import DataError
from nacre.metrics.overlap import CharacterTokenizer, bleu, chrf, rouge

CHINESE = ["今天的天气很好，我们去公园散步。", "请把发票寄到公司的地址。"]
CLOSE = ["今天天气很好，我们去公园走走。", "请把发票寄到家里的地址。"]
ENGLISH = ["please send the invoice to the office", "we walk in the park today"]


def test_signatures_are_kept_and_name_the_tokenizer() -> None:
    assert "tok:zh" in bleu(CLOSE, CHINESE, "zh").signature
    assert "tok:13a" in bleu(ENGLISH, ENGLISH, "en").signature
    assert "version:" in chrf(CLOSE, CHINESE, "zh").signature


def test_chinese_is_not_scored_by_spaces() -> None:
    assert 20 < bleu(CLOSE, CHINESE, "zh").score < 100
    with pytest.raises(DataError, match="Chinese"):
        bleu(CLOSE, CHINESE, "en")


def test_the_default_rouge_tokenizer_drops_chinese_and_is_guarded() -> None:
    assert RougeScorer(["rouge1"]).score(CHINESE[0], CHINESE[0])["rouge1"].fmeasure == 0.0
    with pytest.raises(DataError, match="Chinese"):
        rouge(CLOSE, CHINESE, "en")
    assert rouge(CHINESE, CHINESE, "zh")["rouge1"].tolist() == [1.0, 1.0]


def test_other_scripts_are_refused_instead_of_vanishing() -> None:
    with pytest.raises(DataError, match="would drop"):
        rouge(["доброе утро"], ["доброе утро"], "ru")


def test_character_tokens_keep_latin_words_whole() -> None:
    assert CharacterTokenizer().tokenize("用GPT-2写诗，共20首") == ["用", "gpt", "2", "写", "诗", "共", "20", "首"]


def test_rouge_by_characters_by_hand() -> None:
    # Five characters each, four shared in order: 4/5.
    assert rouge(["春眠不觉早"], ["春眠不觉晓"], "zh")["rougeL"][0] == pytest.approx(0.8)


def test_a_missing_hypothesis_is_an_error() -> None:
    with pytest.raises(DataError, match="1 hypotheses for 2"):
        bleu(["a"], ENGLISH, "en")
