"""Stage 2: one form for every format, and verdicts that training anew, renaming and reformatting do not fool."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import numpy as np
import pytest

from nacre.data.tokenizer import TokenizerConfig, train
from nacre.errors import CheckpointError
from nacre.lifecycle.audit.subject import Subject
from nacre.lifecycle.audit.tokenizers import compare, load_vocabulary
from nacre.lifecycle.audit.tokenizers.similarity import kendall
from nacre.lifecycle.audit.tokenizers.stage import compare_vocabularies
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary


def _texts(seed: int) -> list[str]:
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"] + ["山水", "天地", "春风", "明月"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(400)]
    return [" ".join(rng.choices(words, k=30)) for _ in range(200)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, seed, size in (("one", 1, 700), ("longer", 1, 900), ("other", 2, 700)):
        train(_texts(seed), TokenizerConfig("bpe", size), folder / name)
    return folder


def _edited(source: Path, target: Path, change: object) -> Vocabulary:
    whole = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    change(whole)  # type: ignore[operator]
    target.mkdir()
    (target / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    return load_vocabulary(target)


def test_key_order_and_layout_of_the_file_do_not_matter(trained: Path, tmp_path: Path) -> None:
    def shuffle(whole: dict) -> None:
        items = list(whole["model"]["vocab"].items())
        random.Random(0).shuffle(items)
        whole["model"]["vocab"] = dict(items)

    one = load_vocabulary(trained / "one")
    assert _edited(trained / "one", tmp_path / "shuffled", shuffle).digest == one.digest


def test_formats_of_one_tokenizer_are_identical(trained: Path, tmp_path: Path) -> None:
    whole = json.loads((trained / "one" / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in whole["model"]["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    one = load_vocabulary(trained / "one")
    listed = load_vocabulary(tmp_path)
    assert listed.digest == one.digest
    vocab = sorted(whole["model"]["vocab"], key=whole["model"]["vocab"].get)
    special = {entry["content"] for entry in whole["added_tokens"]}
    header = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": vocab,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in vocab],
        "tokenizer.ggml.merges": merges,
    }
    assert load_vocabulary(header).digest == one.digest
    ranks = sorted(one.ids, key=lambda token: one.ids[token])
    lines = [f"{base64.b64encode(token).decode()} {one.ids[token]}" for token in ranks]
    (tmp_path / "ranks.tiktoken").write_text("\n".join(lines), encoding="utf-8")
    found = compare_vocabularies(load_vocabulary(tmp_path / "ranks.tiktoken"), one)
    assert found.verdict == "IDENTICAL"
    assert found.not_tested  # special tokens, which the file does not list


def test_wordpiece_of_a_gguf_header_reads_as_its_vocab_txt(tmp_path: Path) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##ing", "中", "##中", "[unused1]"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    special = tokens[:5]
    spelled = [t if t[0] == "[" else t[2:] if t.startswith("##") else f"▁{t}" for t in tokens]
    header = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": spelled,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
    }
    assert load_vocabulary(header).digest == load_vocabulary(tmp_path / "vocab.txt").digest


def test_independent_corpora_are_no_evidence_and_power_is_stated(trained: Path) -> None:
    found = compare_vocabularies(load_vocabulary(trained / "one"), load_vocabulary(trained / "other"))
    assert found.verdict in ("NO_EVIDENCE", "SAME_DESIGN")
    assert found.power
    assert found.p_value is not None
    assert found.p_value > 0.01


def test_the_same_corpus_to_a_larger_size_is_inconclusive_not_derived(trained: Path) -> None:
    """A longer training begins with the shorter one: an extension of it looks the same."""
    found = compare_vocabularies(load_vocabulary(trained / "longer"), load_vocabulary(trained / "one"))
    assert found.verdict == "INCONCLUSIVE"
    assert "cannot be told apart" in (found.reason or "")


def _bpe(learned: list[bytes], begin: int = 260, special: dict[str, int] | None = None) -> Vocabulary:
    ids = {bytes([byte]): byte for byte in range(256)}
    ids |= {token: begin + place for place, token in enumerate(learned)}
    return Vocabulary("bpe", "bytes", ids, tuple(learned), special or {"<s>": 256})


def _tokens(n: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return list(dict.fromkeys(bytes(rng.choices(range(97, 123), k=rng.randint(2, 6))) for _ in range(n)))


def test_an_extension_behind_kept_special_tokens_is_derived() -> None:
    """Special tokens that stand at the end of the smaller one and stay where they are: no longer training does that."""
    base, more = _tokens(1000, 1), _tokens(300, 2)
    more = [token for token in more if token not in base]
    end = 256 + len(base)
    small = _bpe(base, 256, {"<|end|>": end})
    ids = dict(small.ids) | {token: end + 1 + place for place, token in enumerate(more)}
    large = Vocabulary("bpe", "bytes", ids, (*base, *more), {"<|end|>": end})
    found = compare_vocabularies(large, small)
    assert (found.verdict, found.kind, found.tier) == ("DERIVED", "vocabulary-extended", "exact")


def test_tokens_added_by_hand_give_the_same_word_in_both_directions() -> None:
    base = _bpe(_tokens(800, 1))
    more = Vocabulary("bpe", "bytes", base.ids, base.learned, base.special, {"new": 5000})
    found = [compare_vocabularies(more, base), compare_vocabularies(base, more)]
    assert [one.verdict for one in found] == ["DERIVED", "DERIVED"]
    assert all(one.kind == "vocabulary-extended" and "cannot be told apart" in one.text for one in found)


def test_a_pruned_vocabulary_is_derived_although_no_id_is_kept() -> None:
    base = _tokens(1500, 1)
    rng = random.Random(3)
    kept = [token for token in base if rng.random() < 0.6]
    found = compare_vocabularies(_bpe(kept, 300), _bpe(base))
    assert (found.verdict, found.kind) == ("DERIVED", "pruned")
    assert found.detail["same_id"] < 0.01


def test_part_of_the_order_is_inconclusive_not_derived() -> None:
    base = _tokens(1500, 1)
    changed = list(base)
    tail = changed[700:]
    random.Random(0).shuffle(tail)
    changed[700:] = tail
    assert compare_vocabularies(_bpe(changed), _bpe(base)).verdict == "INCONCLUSIVE"


def test_two_sorted_vocabularies_are_not_alike_by_their_order() -> None:
    """Sorting puts shared tokens in one order whoever collected them."""
    shared = _tokens(600, 1)
    one, other = sorted(shared + _tokens(900, 2)), sorted(shared + _tokens(900, 3))
    found = compare_vocabularies(_bpe(list(dict.fromkeys(one))), _bpe(list(dict.fromkeys(other))))
    assert found.verdict in ("NO_EVIDENCE", "SAME_DESIGN")
    assert any("order" in one for one in found.not_tested)


def test_what_cannot_be_read_is_untestable_with_the_reason(tmp_path: Path) -> None:
    damaged = tmp_path / "tokenizer.json"
    damaged.write_text('{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', encoding="utf-8")
    side = Subject("x", tmp_path, tokenizer=damaged)
    found = compare(side, side)
    assert (found.verdict, found.stage) == ("UNTESTABLE", "tokenizer")
    assert "no token id" in (found.reason or "")
    gone = compare(Subject("y", tmp_path, missing={"tokenizer": "the folder has none"}), side)
    assert gone.reason == "the folder has none"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"model": 3}', '{"model": {"type": "BPE", "vocab": [], "merges": 1}}', "[" * 100_000],
)
def test_damaged_files_raise_one_kind_of_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError):
        load_vocabulary(file)


def test_kendall_counts_inversions() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 8, 37):
        order = rng.permutation(n)
        inversions = sum(order[i] > order[j] for i in range(n) for j in range(i + 1, n))
        assert kendall(order) == pytest.approx(1 - 4 * inversions / (n * (n - 1)))


@pytest.mark.shared_data
def test_known_pairs_of_real_tokenizers(shared_data: Path) -> None:
    folder = shared_data / "tokenizers"

    def verdict(one: str, other: str) -> str:
        return compare_vocabularies(load_vocabulary(folder / one), load_vocabulary(folder / other)).verdict

    assert verdict("bert-base-chinese/vocab.txt", "bge-large-zh/tokenizer.json") == "IDENTICAL"
    assert verdict("llama2/tokenizer.json", "ggml-vocab/ggml-vocab-llama-spm.gguf") == "IDENTICAL"
    assert verdict("mistral-v3/tokenizer.model", "mistral-v1/tokenizer.model") == "DERIVED"
    assert verdict("mistral-v1/tokenizer.model", "mistral-v3/tokenizer.model") == "DERIVED"
    assert verdict("mistral-v1/tokenizer.model", "llama2/tokenizer.json") == "NO_EVIDENCE"
    assert verdict("minimind/tokenizer.json", "xlnet/spiece.model") == "NO_EVIDENCE"
