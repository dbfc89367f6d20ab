"""Tier 0 as a solver: every kind of task, what it chooses, what it writes, and the rung opened again."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nacre.data.write import write_json, write_jsonl
from nacre.errors import CheckpointError, ConfigError, DataError, MissingDependency
from nacre.lineage.digest import digest_folder
from nacre.recipe import catalogue
from nacre.recipe.stage import Work
from nacre.tiers.baseline import stages
from nacre.tiers.baseline.baseline import Examples, Grams, Search, fit
from nacre.tiers.baseline.bm25 import Bm25, terms_of
from nacre.tiers.baseline.stages import ClassifyChoice, GenerateChoice, RankChoice, SolveConfig, TagChoice, solve
from nacre.tiers.baseline.tagger import Majority, Tagged, features_of, shape_of
from nacre.tiers.baseline.writers import Lead
from nacre.tiers.rung import Answer, open_rung, read_manifest
from nacre.tiers.task import load

Rows = list[dict[str, Any]]
METRIC = {"classify": "accuracy", "tag": "entity_f1", "generate": "exact", "rank": "ndcg@10"}
INTENTS = [
    ("where is my parcel", "delivery"), ("track the parcel please", "delivery"), ("我的包裹到哪里了", "delivery"),
    ("快递还没有送到", "delivery"), ("i want my money back", "refund"), ("refund the payment", "refund"),
    ("我要退款", "refund"), ("请把钱退给我", "refund"),
]  # fmt: skip
CITIES, PEOPLE = ["北京", "上海", "成都", "杭州"], ["王伟", "李娜", "张三", "陈静"]
DOCUMENTS = {"d1": "房屋租赁合同 landlord", "d2": "离婚后子女抚养", "d3": "traffic accident liability", "d4": "，。！"}


def labelled(pairs: list[tuple[str, str]]) -> Rows:
    return [{"id": f"r{number}", "text": text, "label": label} for number, (text, label) in enumerate(pairs)]


def tagged() -> Rows:
    rows: Rows = []
    for city in CITIES:
        for person in PEOPLE:
            tags = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]
            rows.append({"id": f"r{len(rows)}", "tokens": [*person, "去", *city, "了"], "tags": tags})
    return rows


def task(folder: Path, kind: str, train: Rows, valid: Rows, **changes: Any) -> Path:
    labels = sorted({tag for row in train for tag in (row.get("tags") or [row.get("label")]) if tag})
    plain = {"name": "t", "kind": kind, "about": "Do it.", "metric": METRIC[kind], "language": "zh",
             "target_language": "", "labels": labels, "descriptions": {}, "languages": ["zh"], **changes}  # fmt: skip
    write_json(folder / "task" / "task.json", plain)
    write_jsonl(folder / "task" / "train.jsonl", train)
    write_jsonl(folder / "task" / "valid.jsonl", valid)
    if kind == "rank":
        corpus = [{"id": name, "text": text} for name, text in DOCUMENTS.items()]
        write_jsonl(folder / "task" / "corpus.jsonl", corpus)
    return folder / "task"


def solved(folder: Path, given: Path, config: SolveConfig | None = None, out: str = "rung") -> dict[str, Any]:
    (folder / "scratch").mkdir(exist_ok=True)
    (folder / out).mkdir()
    return dict(solve(config or SolveConfig(), Work({"task": given}, folder / out, folder / "scratch")))


def answers(folder: Path, rows: Rows) -> list[Answer]:
    rung = open_rung(folder / "rung")
    found = rung.answer(rows)
    assert rung.answer([]) == []
    assert [rung.answer([row])[0].value for row in rows] == [one.value for one in found]  # alone as in company
    rung.close()
    return found


def test_the_stage_is_in_the_catalogue() -> None:
    assert catalogue.find("baseline.solve") is stages.solve


def test_classes_are_told_in_both_languages(tmp_path: Path) -> None:
    given = task(tmp_path, "classify", labelled(INTENTS), labelled(INTENTS[::3]))
    metrics = solved(tmp_path, given)
    found = answers(tmp_path, [{"text": "包裹在哪里"}, {"text": "money back now"}, {"text": ""}])
    assert [one.value for one in found[:2]] == ["delivery", "refund"]
    assert found[2].value in ("delivery", "refund")
    assert sum(found[0].scores.values()) == pytest.approx(1, abs=1e-5)
    assert max(found[0].scores, key=lambda name: found[0].scores[name]) == found[0].value
    manifest = read_manifest(tmp_path / "rung")
    assert manifest.owns == {"kernel": "none", "weights": "own", "data": "own", "prompt": "none", "index": "none"}
    assert manifest.trained_parameters == metrics["trained_parameters"] > 100
    assert set(json.loads((tmp_path / "rung" / "choices.json").read_text())["validation"]) == {"C=0.3", "C=1", "C=3"}


def test_c_is_chosen_by_the_metric_of_the_task() -> None:
    train, valid = Examples(*zip(*INTENTS, strict=True)), Examples(["parcel", "退款"], ["delivery", "refund"])
    asked: list[tuple[str, ...]] = []

    def third_is_best(true: Any, predicted: Any) -> float:
        asked.append(tuple(predicted))
        return float(len(asked) == 3)

    found = fit(train, valid, Search(Grams("both")), third_is_best)
    assert (found.model.c, found.validation) == (3.0, {0.3: 0.0, 1.0: 0.0, 3.0: 1.0})


def test_the_validation_figure_is_that_of_the_metric(tmp_path: Path) -> None:
    valid = labelled([*INTENTS[::3], ("refund", "delivery"), ("parcel", "delivery"), ("the parcel", "delivery")])
    given = task(tmp_path, "classify", labelled(INTENTS), valid, metric="macro_f1")
    metrics = solved(tmp_path, given, SolveConfig(ClassifyChoice(candidates=(1.0,)), refit=False))
    judged = load(given).quality.judge(valid, [one.value for one in answers(tmp_path, valid)])
    assert metrics["valid_macro_f1"] == pytest.approx(judged.score, abs=1e-6)
    assert judged.score != pytest.approx(5 / 6)  # the accuracy: one row has the wrong label


def test_refitting_learns_from_validation_rows_too(tmp_path: Path) -> None:
    valid = [*INTENTS[::3], ("wormwood", "refund"), ("wormwood again", "refund")]
    given = task(tmp_path, "classify", labelled(INTENTS), labelled(valid))
    solved(tmp_path, given)
    assert answers(tmp_path, [{"text": "wormwood"}])[0].value == "refund"
    solved(tmp_path, given, SolveConfig(ClassifyChoice(candidates=(1.0,)), refit=False), out="without")
    assert "wormwood" not in (tmp_path / "without" / "baseline.json").read_text()


def test_a_crf_finds_entities_it_has_not_seen(tmp_path: Path) -> None:
    rows = tagged()
    metrics = solved(tmp_path, task(tmp_path, "tag", rows[:12], rows[12:]))
    found = answers(tmp_path, [{"tokens": [*"赵敏去广州了"]}, {"tokens": []}])
    assert found[0].value == ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O"]
    assert found[1].value == []
    assert metrics["valid_entity_f1"] == 1.0
    manifest = read_manifest(tmp_path / "rung")
    assert manifest.trained_parameters > 10
    assert manifest.how["solver"] == "crf"


def test_the_majority_tagger_is_taken_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tagged()
    given = task(tmp_path, "tag", rows[:12], rows[12:])
    solved(tmp_path, given, SolveConfig(tag=TagChoice("majority")))
    assert read_manifest(tmp_path / "rung").solver == "commonest tag per token"
    assert answers(tmp_path, [{"tokens": ["王", "云", "京"]}])[0].value == ["B-PER", "O", "I-LOC"]
    monkeypatch.setattr("nacre.lazy.find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as caught:
        solved(tmp_path, given, out="crf")
    assert "nacre[baseline]" in caught.value.remedy


def test_majority_breaks_ties_by_name() -> None:
    rows = Tagged([["a", "a", "b"]], [["B-X", "O", "O"]])
    assert Majority.of(rows).tag(["a", "?"]) == ["B-X", "O"]


def test_features_look_at_shape_ends_and_neighbours() -> None:
    assert [shape_of(token) for token in ("Paris", "2026", "京", "iPhone4", "，", "@me")] == [
        "Aa",
        "d",
        "h",
        "aAad",
        "p",
        "@a",
    ]
    features = features_of(["New", "York"])
    assert {"0=new", "1=york", "2=</s>", "-1=<s>", "s1=Aa", "<2=ne", ">3=new", "0|new|york"} <= set(features[0])
    assert not any(feature.startswith(("<2", ">2")) for feature in features_of(["京"])[0])


def pairs(texts: list[tuple[str, str]]) -> Rows:
    return [{"id": f"r{n}", "source": source, "target": target} for n, (source, target) in enumerate(texts)]


@pytest.mark.parametrize(
    ("train", "valid", "chosen", "asked", "said"),
    [
        ([("an apple", "苹果"), ("the sky", "天")], [("apple", "苹果"), ("sky", "天")], "memory", "sky?", "天"),
        ([("a b", "x"), ("c d", "x"), ("e f", "y")], [("q r", "x"), ("e f g", "x")], "frequent", "new", "x"),
        ([("One. Two.", "One."), ("第一。第二。", "第一。")], [("A b. C.", "A b.")], "lead", "甲乙！丙。", "甲乙！"),
        ([("same", "same"), ("也是", "也是")], [("one. two", "one. two")], "copy", "x. y", "x. y"),
    ],
)  # fmt: skip
def test_the_writer_that_validates_best_is_taken(
    train: Any, valid: Any, chosen: str, asked: str, said: str, tmp_path: Path
) -> None:
    metrics = solved(tmp_path, task(tmp_path, "generate", pairs(train), pairs(valid)))
    assert metrics["chosen"] == chosen
    assert set(json.loads((tmp_path / "rung" / "choices.json").read_text())["validation"]) == {
        "lead", "copy", "frequent", "memory",
    }  # fmt: skip
    assert answers(tmp_path, [{"source": asked}])[0].value == said
    owns = read_manifest(tmp_path / "rung").owns
    assert (owns["weights"], owns["index"]) == ("none", "own" if chosen == "memory" else "none")


@pytest.mark.parametrize(
    ("source", "first"),
    [("What? Yes.", "What?"), ("他说：“好。”然后走了。", "他说：“好。”"), ("v1.2 is out. Now.", "v1.2 is out."), 
     ("no end", "no end"), ("\n a\nb", "a"), ("", "")],
)  # fmt: skip
def test_the_lead_is_the_first_sentence(source: str, first: str) -> None:
    assert Lead().write([source]) == [first]


def test_ranking_finds_documents_by_words_and_pairs_of_characters(tmp_path: Path) -> None:
    queries = [
        {"id": "q1", "query": "离婚 抚养", "relevant": ["d2"]},
        {"id": "q2", "query": "Accident", "relevant": ["d3"]},
    ]
    metrics = solved(tmp_path, task(tmp_path, "rank", queries, queries))
    assert metrics["valid_ndcg@10"] == 1.0
    found = answers(tmp_path, [{"query": "租赁合同"}, {"query": "ACCIDENT landlord"}, {"query": "无"}, {"query": ""}])
    assert found[0].value == ["d1"]
    assert set(found[1].value) == {"d1", "d3"}
    assert [one.value for one in found[2:]] == [None, None]
    assert found[2].problem == "no word of the query is in the corpus"
    assert len(json.loads((tmp_path / "rung" / "choices.json").read_text())["validation"]) == 16


def test_terms_are_words_and_pairs() -> None:
    assert terms_of("ＲＴＸ 5090显卡多少钱？ok") == ["rtx", "5090", "显卡", "卡多", "多少", "少钱", "ok"]
    assert terms_of("我 a") == ["我", "a"]


def test_bm25_is_the_formula() -> None:
    corpus = [{"id": str(n), "text": text} for n, text in enumerate(["a a b c", "b c d", "a e", "北京北京大学"])]
    index = Bm25.of(corpus).tuned(1.6, 0.4)
    documents = [Counter(terms_of(row["text"])) for row in corpus]
    mean = sum(map(Counter.total, documents)) / len(documents)
    for query in ("a b b", "北京", "zzz", "大学 d"):
        wanted = []
        for counts in documents:
            score = 0.0
            for term in terms_of(query):
                n, tf = sum(term in one for one in documents), counts[term]
                idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
                score += idf * tf * 2.6 / (tf + 1.6 * (0.6 + 0.4 * counts.total() / mean))
            wanted.append(score)
        np.testing.assert_allclose(index.scores([query])[0], wanted, atol=1e-12)


def test_equal_scores_keep_the_corpus_order_and_depth_cuts() -> None:
    index = Bm25.of({"id": name, "text": "same text"} for name in "zyx")
    assert [one for one, _ in index.rank(["text"], 2)[0]] == ["z", "y"]
    with pytest.raises(DataError, match="no word"):
        Bm25.of([{"id": "a", "text": "!!!"}])


@pytest.mark.parametrize("kind", ["classify", "tag", "generate", "rank"])
def test_solving_twice_writes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    queries = [{"id": "q1", "query": "离婚", "relevant": ["d2"]}]
    texts = pairs([("red apple", "红苹果"), ("blue sky", "蓝天")])
    rows = {"classify": labelled(INTENTS), "tag": tagged(), "generate": texts, "rank": queries}[kind]
    given = task(tmp_path, kind, rows, rows[:1] if kind != "classify" else rows[::3])
    solved(tmp_path, given, out="first")
    solved(tmp_path, given, out="second")
    assert digest_folder(tmp_path / "first") == digest_folder(tmp_path / "second")


@pytest.mark.parametrize(
    ("kind", "file"),
    [("classify", "weights.npz"), ("tag", "crf.model"), ("generate", "writer.json"), ("rank", "bm25.npz")],
)
def test_damaged_files_of_a_rung_are_told(kind: str, file: str, tmp_path: Path) -> None:
    queries = [{"id": "q1", "query": "离婚", "relevant": ["d2"]}]
    texts = pairs([("red apple", "红苹果"), ("blue sky", "蓝天")])
    rows = {"classify": labelled(INTENTS), "tag": tagged(), "generate": texts, "rank": queries}[kind]
    solved(tmp_path, task(tmp_path, kind, rows, rows[:1] if kind != "classify" else rows[::3]))
    whole = (tmp_path / "rung" / file).read_bytes()
    for damaged in (b"", b"no such thing", whole[: len(whole) // 2]):
        (tmp_path / "rung" / file).write_bytes(damaged)
        with pytest.raises(CheckpointError):
            open_rung(tmp_path / "rung")
    (tmp_path / "rung" / file).unlink()
    with pytest.raises(CheckpointError):
        open_rung(tmp_path / "rung")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TagChoice(c1=()), "c1"),
        (lambda: TagChoice(iterations=0), "iterations"),
        (lambda: RankChoice(b=(1.5,)), "b from 0 to 1"),
        (lambda: RankChoice(depth=0), "depth"),
        (lambda: GenerateChoice(writers=()), "no writers"),
        (lambda: ClassifyChoice(candidates=(0.0,)), "candidates"),
    ],
)
def test_wrong_choices_are_refused(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()
