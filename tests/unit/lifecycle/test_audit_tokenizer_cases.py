"""Stage 2 on tokenizers trained here, English and Chinese: what people do to a tokenizer, and what they are told."""

from __future__ import annotations

import itertools
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nacre.data.tokenizer import TokenizerConfig, train
from nacre.lifecycle.audit.tokenizers import load_vocabulary, null
from nacre.lifecycle.audit.tokenizers.similarity import similarity
from nacre.lifecycle.audit.tokenizers.stage import compare_vocabularies
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary
from nacre.lifecycle.audit.verdict import LEAST_P, StageVerdict

LANGUAGES = ("en", "zh")
_HAN = [chr(0x4E00 + 37 * i) for i in range(260)]
_SYLLABLES = ["".join(pair) for pair in itertools.product("bcdfglmnprst", "aeiou")]


def _texts(language: str, seed: int, count: int = 150, words: int = 500) -> list[str]:
    """Sentences over words that are the same for every seed, as often as natural ones (Zipf)."""
    units, rng = (_HAN if language == "zh" else _SYLLABLES), random.Random(7)
    lexicon = ["".join(rng.choices(units, k=rng.randint(2, 4))) for _ in range(words)]
    weights = [1 / (place + 3) for place in range(words)]
    rng = random.Random(seed)
    blank = "" if language == "zh" else " "
    return [blank.join(rng.choices(lexicon, weights, k=12)) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for language in LANGUAGES:
        train(_texts(language, 1), TokenizerConfig("bpe", 900), folder / f"bpe-{language}")
    train(_texts("en", 1), TokenizerConfig("wordpiece", 700, style="bert"), folder / "wordpiece-en")
    for language in LANGUAGES:
        config = TokenizerConfig("unigram", 900, style="t5", sentinels=0)
        train(_texts(language, 1), config, folder / f"unigram-{language}")
    return folder


def _changed(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Vocabulary:
    whole = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    change(whole)
    target.mkdir(parents=True)
    (target / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    return load_vocabulary(target)


def _both_ways(one: Vocabulary, other: Vocabulary) -> list[StageVerdict]:
    return [compare_vocabularies(one, other), compare_vocabularies(other, one)]


def _prune(whole: dict[str, Any]) -> None:
    """Every third token that no merge builds on goes, and ids close up."""
    model = whole["model"]
    used = {part for merge in model["merges"] for part in merge}
    leaves = [left + right for left, right in model["merges"] if left + right not in used]
    gone = set(leaves[::3])
    assert len(gone) > 30
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) not in gone]
    kept = [token for token in sorted(model["vocab"], key=model["vocab"].get) if token not in gone]
    model["vocab"] = {token: index for index, token in enumerate(kept)}


def _shuffle_ids(whole: dict[str, Any]) -> None:
    vocab = whole["model"]["vocab"]
    special = {entry["content"] for entry in whole["added_tokens"]}
    names = [token for token in vocab if token not in special]
    ids = [vocab[token] for token in names]
    random.Random(0).shuffle(ids)
    whole["model"]["vocab"] = {**vocab, **dict(zip(names, ids, strict=True))}


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_anew_on_the_same_corpus_is_identical_and_says_that_it_cannot_be_told(
    trained: Path, tmp_path: Path, language: str
) -> None:
    train(_texts(language, 1), TokenizerConfig("bpe", 900), tmp_path)
    found = compare_vocabularies(load_vocabulary(tmp_path), load_vocabulary(trained / f"bpe-{language}"))
    assert found.verdict == "IDENTICAL"
    assert "cannot be told apart" in found.text


@pytest.mark.parametrize("name", ["bpe-en", "bpe-zh", "wordpiece-en"])
def test_ids_put_in_another_order_are_still_the_same_tokenizer(trained: Path, tmp_path: Path, name: str) -> None:
    found = compare_vocabularies(
        _changed(trained / name, tmp_path / "x", _shuffle_ids), load_vocabulary(trained / name)
    )
    assert found.verdict == "IDENTICAL"
    assert found.detail["exact"] is False
    assert found.detail["same_id"] < 0.05
    assert "other ids" in found.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pruned_tokenizer_is_derived_beside_many_references(trained: Path, tmp_path: Path, language: str) -> None:
    source = trained / f"bpe-{language}"
    found, back = _both_ways(_changed(source, tmp_path / "x", _prune), load_vocabulary(source))
    assert [(one.verdict, one.tier) for one in (found, back)] == [("DERIVED", "exact")] * 2
    assert (found.kind, back.kind) == ("pruned", "vocabulary-extended")
    assert found.p_value is not None
    assert LEAST_P <= found.p_value <= null.ALPHA / 1000  # still decided where the library has a thousand models
    assert (found.share, back.share) == (1.0, pytest.approx(found.detail["in_subject"]))


def test_tokens_added_by_hand_are_an_extension(trained: Path, tmp_path: Path) -> None:
    def add(whole: dict[str, Any]) -> None:
        first = max(whole["model"]["vocab"].values()) + 1
        for place, content in enumerate(("<tool>", "千问", "nacre")):
            entry = {**whole["added_tokens"][0], "id": first + place, "content": content, "special": False}
            whole["added_tokens"].append(entry)

    for found in _both_ways(_changed(trained / "bpe-zh", tmp_path / "x", add), load_vocabulary(trained / "bpe-zh")):
        assert (found.verdict, found.kind) == ("DERIVED", "vocabulary-extended")
        assert "千问" in found.detail["special_only_in_subject"] + found.detail["special_only_in_reference"]


def test_another_special_token_leaves_it_the_same(trained: Path, tmp_path: Path) -> None:
    def rename(whole: dict[str, Any]) -> None:
        entry = whole["added_tokens"][0]
        whole["model"]["vocab"]["<|new|>"] = whole["model"]["vocab"].pop(entry["content"])
        entry["content"] = "<|new|>"

    found = compare_vocabularies(
        _changed(trained / "bpe-en", tmp_path / "x", rename), load_vocabulary(trained / "bpe-en")
    )
    assert (found.verdict, found.detail["exact"]) == ("IDENTICAL", False)
    assert "special tokens differ" in found.text
    assert found.detail["special_only_in_subject"] == ["<|new|>"]


def _sentencepiece(pieces: list[tuple[str, float, int]], kind: int) -> bytes:
    """A SentencePiece file: pieces (1: text, 2: score, 3: type), then the trainer's part (3: model type)."""

    def sized(tag: int, value: bytes) -> bytes:
        length, size = len(value), b""
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([tag << 3 | 2]) + size + bytes([length]) + value

    entries = (
        sized(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([3 << 3, type_])
        for text, score, type_ in pieces
    )
    return b"".join(sized(1, entry) for entry in entries) + sized(2, bytes([3 << 3, kind]))


@pytest.mark.parametrize("language", LANGUAGES)
def test_unigram_of_a_sentencepiece_file_is_its_tokenizer_json(trained: Path, tmp_path: Path, language: str) -> None:
    source = trained / f"unigram-{language}"
    whole = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    special = {entry["content"] for entry in whole["added_tokens"]}
    pieces = []
    for text, score in whole["model"]["vocab"]:
        kind = 3 if text in special else 6 if text.startswith("<0x") else 1
        pieces.append((text if kind == 3 else text.replace(" ", "▁"), score, kind))
    (tmp_path / "tokenizer.model").write_bytes(_sentencepiece(pieces, 1))
    found = compare_vocabularies(load_vocabulary(tmp_path), load_vocabulary(source))
    assert found.verdict == "IDENTICAL"
    header = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": [text for text, _, _ in pieces],
        "tokenizer.ggml.scores": [score for _, score, _ in pieces],
        "tokenizer.ggml.token_type": [kind for _, _, kind in pieces],
    }
    assert compare_vocabularies(load_vocabulary(header), load_vocabulary(source)).verdict == "IDENTICAL"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_corpora_that_share_nine_tenths_are_never_called_a_copy(tmp_path: Path, algorithm: str, language: str) -> None:
    """Rare tokens have equal counts and stand in the order of their spelling on both sides: no sign of a copy."""
    shared = _texts(language, 1, 135)
    config = TokenizerConfig(algorithm, 900, style="t5" if algorithm == "unigram" else "gpt", sentinels=0)  # type: ignore[arg-type]
    sides = []
    for seed in (2, 3):
        train(shared + _texts(language, seed, 15), config, tmp_path / f"{seed}")
        sides.append(load_vocabulary(tmp_path / f"{seed}"))
    found = compare_vocabularies(*sides)
    assert found.verdict not in ("DERIVED", "IDENTICAL")


def _ordered(learned: list[bytes]) -> Vocabulary:
    return Vocabulary("bpe", "bytes", {token: place for place, token in enumerate(learned)}, tuple(learned))


def test_steps_that_rise_are_no_evidence_of_an_order() -> None:
    """Runs of ties, each in the order of spelling: most steps agree, and convention explains all of them."""
    rng = random.Random(0)
    tokens = sorted({bytes(rng.choices(range(97, 123), k=4)) for _ in range(1200)})
    runs = [tokens[i::150] for i in range(150)]
    one = [token for run in runs for token in run]
    rng.shuffle(runs)
    other = [token for run in runs for token in run]
    found = similarity(_ordered(one), _ordered(other))
    assert found.kept > 0.8
    assert found.order < 0.05
    told = compare_vocabularies(_ordered(one), _ordered(other))
    assert told.verdict == "INCONCLUSIVE"
    assert "not in one order" in (told.reason or "")


def test_lists_sorted_backwards_tell_nothing_by_their_order() -> None:
    rng = random.Random(0)
    draws = [bytes(rng.choices(range(97, 123), k=rng.randint(3, 6))) for _ in range(1500)]
    one, other = (
        sorted(set(draws[:500] + draws[part]), reverse=True) for part in (slice(500, 1000), slice(1000, 1500))
    )
    found = compare_vocabularies(_ordered(one), _ordered(other))
    assert found.verdict not in ("DERIVED", "IDENTICAL")
    assert any("sorted" in line for line in found.not_tested)


def test_a_few_tokens_moved_by_hand_do_not_hide_a_copy(trained: Path) -> None:
    source = load_vocabulary(trained / "bpe-en")
    moved = list(source.learned)
    moved.append(moved.pop(40))
    found = compare_vocabularies(_ordered(moved), _ordered(list(source.learned)))
    assert found.verdict == "DERIVED"
    assert found.detail["tau"] < 1


def test_the_exact_tail_is_the_binomial_one_and_never_below_what_may_be_claimed() -> None:
    assert null.exact(4, 4) == pytest.approx(0.75**4)
    assert null.exact(3, 2) == pytest.approx(0.75**3 + 3 * 0.75**2 * 0.25)
    assert null.exact(20, 0) == pytest.approx(1.0)
    assert null.exact(5000, 5000) == LEAST_P


def test_what_the_exact_p_value_assumes_holds_in_the_whole_table() -> None:
    largest = null.table()["largest_eighth"].values()
    assert largest
    assert max(largest) < null.MOST_KEPT
    for rows in null.table()["null"].values():
        for row in rows.values():
            assert 1 / (len(row["order"]) + 1) <= null.ALPHA


def test_the_report_can_be_cited(trained: Path, tmp_path: Path) -> None:
    found = compare_vocabularies(
        _changed(trained / "bpe-zh", tmp_path / "x", _prune), load_vocabulary(trained / "bpe-zh")
    )
    measured = {"in_subject", "in_reference", "same_id", "tau", "prefix", "order", "segmentation_agreement", "scripts"}
    assert measured <= found.detail.keys()
    assert found.text.startswith("one vocabulary was made from the other")
    assert "who was first is not told" in found.text
    [exact] = [one for one in found.evidence if one.tier == "exact"]
    assert "at most 75%" in exact.assumption
