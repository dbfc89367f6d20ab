"""Stage 4: overlap, contamination, teachers, and the order of training."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest

from nacre.lifecycle.audit.data import compare
from nacre.lifecycle.audit.data.contamination import contamination
from nacre.lifecycle.audit.data.overlap import overlap
from nacre.lifecycle.audit.data.teachers import answers_of, listen, self_identifications
from nacre.lifecycle.audit.subject import Subject

Row = dict[str, object]


def _rows(n: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(3, 8))) for _ in range(500)]
    return [{"text": " ".join(rng.choices(words, k=14)), "label": rng.choice("ab")} for _ in range(n)]


def _write(path: Path, rows: list[Row]) -> Subject:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return Subject(path.name, path, data=path)


def test_the_same_rows_in_another_format_order_and_field_are_identical(tmp_path: Path) -> None:
    rows = _rows(120, 1)
    one = _write(tmp_path / "train.jsonl", rows)
    table = tmp_path / "copy.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "sentence"])
        writer.writerows([row["label"], f"  {str(row['text']).upper()} "] for row in reversed(rows))
    found = compare(Subject("copy", table, data=table), one)
    assert found.verdict == "IDENTICAL"


def test_part_of_a_set_is_derived_with_share_and_interval_both_ways(tmp_path: Path) -> None:
    reference = _rows(400, 1)
    subject = reference[:100] + _rows(300, 2)
    found = compare(_write(tmp_path / "a.jsonl", subject), _write(tmp_path / "b.jsonl", reference))
    assert found.verdict == "DERIVED"
    assert found.share == pytest.approx(0.25)
    low, high = (found.evidence[0].detail[name] for name in ("low", "high"))
    assert low < 0.25 < high
    assert "the subject contains 25.0%" in found.text
    assert "who was first is not told" in found.text


def test_an_edited_field_and_near_duplicates_are_found() -> None:
    reference = [{"en": row["text"], "zh": f"第{i}句话的译文在这里写得足够长"} for i, row in enumerate(_rows(60, 1))]
    translated = [{"source": row["en"], "target": f"another {i}"} for i, row in enumerate(reference)]
    found = overlap(translated, reference)
    assert found.subject.telling == 60
    assert found.subject.same == 0
    swapped = [{"text": " ".join([*str(row["text"]).split(), "extra"])} for row in _rows(60, 1)]
    near = overlap(swapped, _rows(60, 1))
    assert near.subject.near == 60
    assert near.subject.exact == 0


def test_a_prompt_in_many_rows_is_no_overlap() -> None:
    prompt = "translate the following sentence into the other language and answer with nothing else"
    one = [{"instruction": prompt, "output": row["text"]} for row in _rows(50, 1)]
    other = [{"instruction": prompt, "output": row["text"]} for row in _rows(50, 2)]
    found = overlap(one, other)
    assert found.subject.exact == 0
    assert found.boilerplate == 1


def test_strangers_are_no_evidence_with_power(tmp_path: Path) -> None:
    found = compare(_write(tmp_path / "a.jsonl", _rows(80, 1)), _write(tmp_path / "b.jsonl", _rows(90, 2)))
    assert found.verdict == "NO_EVIDENCE"
    assert found.power is not None
    assert "one shared row" in found.power


def test_what_cannot_be_read_is_untestable(tmp_path: Path) -> None:
    good = _write(tmp_path / "a.jsonl", _rows(5, 1))
    empty = tmp_path / "b.jsonl"
    empty.write_text("", encoding="utf-8")
    assert compare(Subject("b", empty, data=empty), good).verdict == "UNTESTABLE"
    labels = _write(tmp_path / "c.jsonl", [{"label": "x"}] * 3)
    assert compare(labels, good).verdict == "UNTESTABLE"
    assert compare(Subject("none", tmp_path), good).reason == "none: there is no data set"


def test_contamination_counts_planted_test_rows() -> None:
    test, train = _rows(100, 1), _rows(300, 2)
    found = contamination(train + test[:7], test)
    assert (found.same, found.train_same, found.train_ngram) == (7, 7, 7)


@pytest.mark.shared_data
def test_known_overlaps_of_real_splits(shared_data: Path) -> None:
    from nacre.data.read import read

    def leaked(name: str, split: str) -> int:
        folder = shared_data / name
        test = list(read(folder / f"{split}.jsonl.gz"))
        return contamination(list(read(folder / "train.jsonl.gz")), test, ngrams=False).same

    assert leaked("cls-zh-news-titles-thuc", "test") == 7
    assert leaked("cls-en-trec", "test") == 10
    assert leaked("sum-en-scitldr", "test") == 0


def test_teachers_are_read_from_answers_only() -> None:
    said = "I am a large language model trained by OpenAI."
    asked = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "Good to know."}]}
    answered = {"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": said}]}
    shared = {
        "conversations": [{"from": "human", "value": said}, {"from": "gpt", "value": "我是由阿里云开发的通义千问。"}]
    }
    voices = listen([asked, answered, shared, {"text": said}])
    assert dict(voices.teachers) == {"OpenAI": 1, "Alibaba": 1}
    assert (voices.rows, voices.rows_with_answers, voices.named) == (4, 3, 2)
    assert answers_of(shared) == ["我是由阿里云开发的通义千问。"]


def test_refusals_are_counted() -> None:
    rows = [
        {"output": text} for text in ("I'm sorry, but I can't help with that.", "很抱歉，我无法回答这个问题。", "Sure!")
    ]
    assert listen(rows).refusals == 2


def test_precision_and_recall_on_the_labelled_set() -> None:
    """Hard negatives speak about makers, quote them, or are people who work for them."""
    rows = [json.loads(line) for line in _labelled().read_text(encoding="utf-8").splitlines()]
    found = {row["text"]: bool(self_identifications(row["text"])) for row in rows}
    hits = [row for row in rows if found[row["text"]]]
    right = [row for row in hits if row["teacher"]]
    positives = [row for row in rows if row["teacher"]]
    assert len(right) / len(hits) >= 0.95
    assert len(right) / len(positives) >= 0.85
    named = [row for row in right if row["teacher"] in {name for name, _ in self_identifications(row["text"])}]
    assert len(named) == len(right)


def _labelled() -> Path:
    return Path(__file__).with_name("audit_teachers.jsonl")


def test_order_p_values_are_exact_under_the_null() -> None:
    order = pytest.importorskip("nacre.lifecycle.audit.data.order")
    rng = np.random.default_rng(0)
    values = rng.normal(size=40)
    p = [order.permuted_spearman(values, rng.permutation(40).astype(float), 199, seed)[1] for seed in range(200)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.09
    assert abs(np.mean(p) - 0.5) < 0.06
    assert order.permuted_spearman(values, values, 199)[1] == 1 / 200
