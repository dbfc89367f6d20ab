"""`task.prepare` and `task.test`: what solvers see, what they are judged on, and what is found between the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nacre.data.normal import normal
from nacre.data.read import read
from nacre.data.write import write_jsonl
from nacre.errors import DataError
from nacre.ladder.stages import CorpusConfig, Duplicates, Limit, Splits, TaskConfig, corpus, prepare
from nacre.ladder.stages import test as hold_out
from nacre.lineage.digest import digest_folder
from nacre.recipe.stage import Work
from nacre.tiers.task import load, text_of

Rows = list[dict[str, Any]]
BASE: dict[str, Any] = {"name": "t", "kind": "classify", "about": "Sort.", "metric": "accuracy", "language": "en"}
METRIC = {"classify": "accuracy", "tag": "entity_f1", "generate": "exact", "rank": "ndcg@10"}
WORDS = ["apple", "stone", "river", "cloud", "horse", "silver", "window", "garden", "engine", "paper"]


def texts(n: int, start: int = 0) -> Rows:
    """Rows that do not resemble each other."""
    rows = []
    for number in range(start, start + n):
        words = [WORDS[(number * step + step) % 10] + str(number * step) for step in range(1, 6)]
        rows.append({"text": " ".join(words), "label": "ab"[number % 2]})
    return rows


def config(**changes: Any) -> TaskConfig:
    kind = changes.get("kind", "classify")
    return TaskConfig(**{**BASE, "metric": METRIC[kind], **changes})


def inputs(folder: Path, **rows: Rows) -> dict[str, Path]:
    for name, some in rows.items():
        write_jsonl(folder / "in" / name / "rows.jsonl", some)
    return {name: folder / "in" / name / "rows.jsonl" for name in rows}


def made(folder: Path, config: TaskConfig, given: dict[str, Path], stage: Any = prepare) -> tuple[Path, dict[str, Any]]:
    out = folder / f"out-{stage.name}-{len(list(folder.iterdir()))}"
    out.mkdir()
    if stage.check is not None:
        stage.check(config, given)
    return out, dict(stage(config, Work(given, out, folder / "scratch")))


def test_solvers_see_no_test_row_and_the_judge_sees_nothing_else(tmp_path: Path) -> None:
    given = inputs(tmp_path, train=texts(30), test=texts(10, 100))
    about = config(descriptions={"a": "first", "b": "second"}, languages=("en",))
    out, metrics = made(tmp_path, about, given)
    test, same = made(tmp_path, about, given, hold_out)
    assert metrics == same
    assert sorted(path.name for path in out.iterdir()) == [
        "labels.json", "report.json", "task.json", "train.jsonl", "valid.jsonl",
    ]  # fmt: skip
    assert sorted(path.name for path in test.iterdir()) == ["report.json", "test.jsonl"]
    task = load(out)
    assert (task.labels, task.descriptions, task.unlabelled) == (("a", "b"), {"a": "first", "b": "second"}, None)
    assert len(task.train) + len(task.valid) == 30
    assert metrics["valid_rows"] == len(task.valid) > 0
    assert {row["text"] for row in read(test / "test.jsonl")} == {row["text"] for row in texts(10, 100)}


def test_a_test_text_is_taken_out_of_training_however_it_is_written(tmp_path: Path) -> None:
    leaks = [
        {"text": "ｗｈｅｒｅ  is MY parcel", "label": "a"},
        {"text": "我要 退款，谢谢", "label": "b"},
        {"text": "untouched", "label": "b"},
    ]
    test = [{"text": "Where is my parcel", "label": "a"}, {"text": "我要退款,谢谢", "label": "a"}]
    given = inputs(tmp_path, train=texts(20) + leaks, valid=texts(5, 50) + leaks[:1], test=test)
    out, metrics = made(tmp_path, config(), given)
    held, _ = made(tmp_path, config(), given, hold_out)
    tested = {normal(row["text"]) for row in read(held / "test.jsonl")}
    task = load(out)
    assert not tested & {normal(text_of(row, "classify")) for row in (*task.train, *task.valid)}
    assert any(row["text"] == "untouched" for row in task.train)
    assert (metrics["train_in_test"], metrics["valid_in_test"], metrics["test_rows"]) == (2, 1, 2)
    assert metrics["conflicting"] == 1  # the refund has another label in test
    seen, full = (out / "report.json").read_text(), (held / "report.json").read_text()
    assert "parcel" not in seen.lower()
    assert "退款" not in seen
    assert "我要 退款，谢谢" in full


def test_a_training_text_that_is_also_in_valid_goes_so_that_choices_are_honest(tmp_path: Path) -> None:
    given = inputs(tmp_path, train=texts(20), valid=texts(5), test=texts(5, 100))
    out, metrics = made(tmp_path, config(), given)
    assert (metrics["train_in_valid"], metrics["train_rows"], metrics["valid_rows"]) == (5, 15, 5)
    assert not {row["text"] for row in load(out).train} & {row["text"] for row in load(out).valid}


def test_near_duplicates_are_counted_and_go_only_on_request(tmp_path: Path) -> None:
    long = "the quick brown fox jumps over the lazy dog and runs far away into the deep dark forest to hide"
    given = inputs(
        tmp_path,
        train=[*texts(20), {"text": long + " today", "label": "a"}],
        valid=texts(5, 50),
        test=[*texts(5, 100), {"text": long, "label": "a"}],
    )
    _, metrics = made(tmp_path, config(), given)
    assert (metrics["near_duplicates"], metrics["train_rows"]) == (1, 21)
    _, metrics = made(tmp_path, config(duplicates=Duplicates("exclude")), given)
    assert (metrics["near_duplicates"], metrics["train_rows"]) == (1, 20)


def test_duplicates_within_test_stay_and_are_counted(tmp_path: Path) -> None:
    given = inputs(tmp_path, train=texts(20), test=texts(4, 100) + texts(2, 100))
    _, metrics = made(tmp_path, config(), given, hold_out)
    assert (metrics["test_rows"], metrics["test_duplicates"]) == (6, 2)


def test_a_label_that_training_lacks_stays_in_test_and_is_counted(tmp_path: Path) -> None:
    strange = [{"text": "what nobody saw", "label": "c"}]
    given = inputs(tmp_path, train=texts(20), valid=[*texts(4, 50), {"text": "seen once", "label": "d"}],
                   test=texts(4, 100) + strange)  # fmt: skip
    out, metrics = made(tmp_path, config(descriptions={"a": "x", "z": "typo"}), given)
    assert (metrics["unanswerable"], metrics["valid_unseen_labels"], metrics["test_rows"]) == (1, 1, 5)
    assert (metrics["described_unknown"], metrics["undescribed"]) == (1, 2)
    assert load(out).labels == ("a", "b", "d")  # a label of the test rows alone is nobody's to know


def test_empty_texts_go_and_are_counted(tmp_path: Path) -> None:
    given = inputs(
        tmp_path, train=[*texts(20), {"text": " \n", "label": "a"}], test=[*texts(4, 100), {"text": "", "label": "a"}]
    )
    _, metrics = made(tmp_path, config(), given)
    assert (metrics["empty"], metrics["test_rows"]) == (2, 4)


def test_only_the_fields_of_the_kind_are_kept(tmp_path: Path) -> None:
    rows = [{**row, "label_number": 3, "lang": "en"} for row in texts(20)]
    given = inputs(tmp_path, train=rows, test=texts(4, 100))
    out, _ = made(tmp_path, config(), given)
    assert set(load(out).train[0]) == {"id", "text", "label", "lang"}


def test_ids_stay_where_they_are_unique(tmp_path: Path) -> None:
    train = [{**row, "id": number if number < 15 else 7} for number, row in enumerate(texts(20))]
    given = inputs(tmp_path, train=train, valid=texts(3, 50), test=[{**row, "id": 3} for row in texts(1, 100)])
    out, _ = made(tmp_path, config(), given)
    names = [row["id"] for row in load(out).train]
    assert len(set(names)) == 20
    assert "5" in names
    assert "7" not in names  # two rows had it
    assert "3" not in names  # a test row has it too
    assert "train-4" in names


def test_test_rows_lie_in_one_order_that_does_not_depend_on_the_sources(tmp_path: Path) -> None:
    rows = texts(40, 100)
    first = inputs(tmp_path / "x", train=texts(20), test=rows)
    second = inputs(tmp_path / "y", train=texts(20)[::-1], test=rows[::-1])
    orders = []
    for number, given in enumerate((first, second)):
        folder = tmp_path / str(number)
        folder.mkdir()
        out, _ = made(folder, config(), given, hold_out)
        orders.append([row["text"] for row in read(out / "test.jsonl")])
    assert orders[0] == orders[1] != [row["text"] for row in rows]
    other, _ = made(tmp_path, config(splits=Splits(seed=1)), first, hold_out)
    assert [row["text"] for row in read(other / "test.jsonl")] != orders[0]


def test_a_limit_takes_the_first_rows_of_that_order(tmp_path: Path) -> None:
    given = inputs(tmp_path, train=texts(40), valid=texts(5, 60), test=texts(30, 100))
    whole, _ = made(tmp_path, config(), given, hold_out)
    part, metrics = made(tmp_path, config(limit=Limit(train=12, test=7)), given, hold_out)
    first = [row["id"] for row in read(whole / "test.jsonl")][:7]
    assert [row["id"] for row in read(part / "test.jsonl")] == first
    assert (metrics["train_rows"], metrics["valid_rows"], metrics["test_rows"]) == (12, 5, 7)
    assert json.loads((part / "report.json").read_text())["limit"] == {"train": 12, "test": 7}


def test_both_stages_write_the_same_bytes_again(tmp_path: Path) -> None:
    given = inputs(tmp_path, train=texts(30), test=texts(10, 95), unlabelled=[{"text": "some text of no label"}])
    for stage in (prepare, hold_out):
        digests = {digest_folder(made(tmp_path, config(), given, stage)[0]) for _ in range(2)}
        assert len(digests) == 1


def test_one_source_may_hold_all_splits(tmp_path: Path) -> None:
    named = [{**row, "split": "dev"} for row in texts(5, 50)] + [{**row, "split": "test"} for row in texts(5, 100)]
    given = inputs(tmp_path, all=[{**row, "split": "train"} for row in texts(20)] + named)
    _, metrics = made(tmp_path, config(), given)
    assert (metrics["train_rows"], metrics["valid_rows"], metrics["test_rows"]) == (20, 5, 5)
    with pytest.raises(DataError, match="names its split"):
        made(tmp_path, config(splits=Splits(test=0.2)), given)


def test_a_test_split_is_cut_only_where_the_task_says_so(tmp_path: Path) -> None:
    given = inputs(tmp_path, all=texts(60))
    with pytest.raises(DataError, match="which split") as caught:
        made(tmp_path, config(), given)
    assert "splits: {test: 0.2}" in caught.value.remedy
    _, metrics = made(tmp_path, config(splits=Splits(valid=0.2, test=0.3)), given)
    assert metrics["train_rows"] + metrics["valid_rows"] + metrics["test_rows"] == 60
    assert metrics["test_rows"] > 5
    named = inputs(tmp_path, all=[{**row, "split": "train"} for row in texts(9)])
    with pytest.raises(DataError, match="no row is named test"):
        made(tmp_path, config(), named)


def test_a_folder_gives_the_file_of_the_split(tmp_path: Path) -> None:
    for name, rows in (("train", texts(20)), ("valid", texts(4, 50)), ("test", texts(5, 100))):
        write_jsonl(tmp_path / "set" / f"{name}.jsonl", rows)
    folder = tmp_path / "set"
    _, metrics = made(tmp_path, config(), {"train": folder, "valid": folder, "test": folder})
    assert (metrics["train_rows"], metrics["valid_rows"], metrics["test_rows"]) == (20, 4, 5)


def test_unlabelled_texts_that_hold_a_test_text_go(tmp_path: Path) -> None:
    held = texts(3, 100)
    long = " ".join(f"word{number}" for number in range(20))
    unlabelled = [{"text": f"before {long} after"}, {"text": held[0]["text"]}, {"text": "fine text"}, {"text": ""}]
    given = inputs(tmp_path, train=texts(20), test=[*held, {"text": long, "label": "a"}], unlabelled=unlabelled)
    out, metrics = made(tmp_path, config(), given)
    assert list(read(out / "unlabelled.jsonl")) == [{"text": "fine text"}]
    assert (metrics["unlabelled_rows"], metrics["unlabelled_removed"]) == (1, 2)


def test_a_limit_does_not_let_the_rest_of_the_test_rows_into_unlabelled_texts(tmp_path: Path) -> None:
    held = texts(9, 100)
    given = inputs(tmp_path, train=texts(20), test=held, unlabelled=[*held, {"text": "fine text", "label": "a"}])
    out, metrics = made(tmp_path, config(limit=Limit(test=2)), given)
    assert [row["text"] for row in read(out / "unlabelled.jsonl")] == ["fine text"]
    assert metrics["test_rows"] == 2


def test_a_named_corpus_loses_the_test_texts_too(tmp_path: Path) -> None:
    test, _ = made(tmp_path, config(), inputs(tmp_path, train=texts(20), test=texts(4, 100)), hold_out)
    texts_of = [{"text": "a passage"}, {"text": texts(1, 100)[0]["text"]}]
    for name in ("train", "test"):
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", texts_of if name == "train" else [{"text": "held out"}])
    out = tmp_path / "clean"
    metrics = corpus(CorpusConfig("classify"), Work({"corpus": tmp_path / "corpus", "test": test}, out, tmp_path))
    assert list(read(out / "train.jsonl")) == [{"text": "a passage"}]
    assert metrics == {"train_rows": 1, "removed_test_texts": 1}


def test_ranking_needs_its_corpus_and_every_relevant_id_in_it(tmp_path: Path) -> None:
    queries = [{"query": row["text"], "relevant": [f"d{number}"]} for number, row in enumerate(texts(20))]
    test = [{"query": "where", "relevant": ["d1"]}]
    documents = [{"id": f"d{number}", "text": f"text {number}"} for number in range(20)]
    about = config(kind="rank")
    out, metrics = made(tmp_path, about, inputs(tmp_path, train=queries, test=test, corpus=documents))
    assert metrics["corpus_rows"] == 20
    assert load(out).corpus[3] == {"id": "d3", "text": "text 3"}
    with pytest.raises(DataError, match="no corpus"):
        made(tmp_path, about, inputs(tmp_path, train=queries, test=test))
    with pytest.raises(DataError, match="names 'd19'"):
        made(tmp_path, about, inputs(tmp_path, train=queries, test=test, corpus=documents[:19]))
    with pytest.raises(DataError, match="'d0' stands in"):
        made(tmp_path, about, inputs(tmp_path, train=queries, test=test, corpus=[*documents, documents[0]]))
    empty = [*queries, {"query": "to nobody", "relevant": []}]
    _, metrics = made(tmp_path, about, inputs(tmp_path, train=empty, test=test, corpus=documents))
    assert metrics["empty"] == 1


def test_translations_map_their_fields_and_keep_several_references(tmp_path: Path) -> None:
    rows = [{"en": row["text"], "zh": f"译文{number}"} for number, row in enumerate(texts(20))]
    test = [{"en": "one more", "zh": "再一个", "refs": ["再一个", "又一个"]}]
    about = config(kind="generate", fields={"source": "en", "target": "zh", "targets": "refs"})
    given = inputs(tmp_path, train=[*rows, {"en": rows[0]["en"], "zh": "另一种译法"}], test=test)
    out, metrics = made(tmp_path, about, given, hold_out)
    assert list(read(out / "test.jsonl")) == [
        {"id": "test-1", "source": "one more", "target": "再一个", "targets": ["再一个", "又一个"]}
    ]
    assert metrics["several_answers"] == 1
    assert "conflicting" not in metrics


def test_tagged_rows_are_held_apart_by_their_tokens(tmp_path: Path) -> None:
    rows = [{"tokens": list("我在北京"), "tags": ["O", "O", "B-LOC", "I-LOC"]}, {"tokens": ["a"], "tags": ["B-PER"]}]
    more = [{"tokens": row["text"].split(), "tags": ["B-PER"] + ["O"] * 4} for row in texts(20)]
    given = inputs(tmp_path, train=more + rows, test=[rows[0]])
    out, metrics = made(tmp_path, config(kind="tag", descriptions={"LOC": "place", "PER": "person"}), given)
    assert metrics["train_in_test"] == 1
    assert metrics["unanswerable"] == 1  # no place is left in training
    assert load(out).labels[0] == "O"


@pytest.mark.parametrize(
    ("kind", "bad", "said"),
    [
        ("classify", {"text": "x"}, r"rows\.jsonl, line 21.*no field 'label'"),
        ("classify", {"text": "x", "label": None}, "no text: it is NoneType"),
        ("classify", {"text": 5, "label": "a"}, "line 21.*field 'text' is no text"),
        ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, "line 21.*tokens and tags differ in number: 2 and 1"),
        ("tag", {"tokens": ["a"], "tags": ["PERSON"]}, "line 21.*neither O nor ROLE-TYPE"),
        ("generate", {"source": "x", "target": ["y"]}, "line 21.*no text"),
        ("generate", {"source": "x", "target": "y", "targets": "z"}, "line 21.*no list of texts"),
        ("rank", {"query": 3, "relevant": ["d"]}, "line 21.*query is no text"),
    ],
)
def test_rows_that_do_not_fit_are_named_with_their_place(
    kind: Any, bad: dict[str, Any], said: str, tmp_path: Path
) -> None:
    good: dict[str, Rows] = {
        "classify": texts(20),
        "tag": [{"tokens": row["text"].split(), "tags": ["O"] * 5} for row in texts(20)],
        "generate": [{"source": row["text"], "target": "x"} for row in texts(20)],
        "rank": [{"query": row["text"], "relevant": ["d"]} for row in texts(20)],
    }
    extra: dict[str, Rows] = {"corpus": [{"id": "d", "text": "t"}]} if kind == "rank" else {}
    given = inputs(tmp_path, train=[*good[kind], bad], test=good[kind][:3], **extra)
    with pytest.raises(DataError, match=said) as caught:
        made(tmp_path, config(kind=kind), given)
    assert caught.value.remedy


def test_nothing_to_learn_or_to_judge_is_an_error(tmp_path: Path) -> None:
    same = [{**row, "label": "a"} for row in texts(20)]
    with pytest.raises(DataError, match="one and the same label 'a'"):
        made(tmp_path, config(), inputs(tmp_path, train=same, test=texts(4, 100)))
    with pytest.raises(DataError, match=r"no train rows are left.*also in test"):
        made(tmp_path, config(), inputs(tmp_path, train=texts(4), valid=texts(4, 50), test=texts(4)))
    with pytest.raises(DataError, match="no valid rows are left"):
        made(tmp_path, config(splits=Splits(valid=0.001)), inputs(tmp_path, train=texts(4), test=texts(4, 100)))
    with pytest.raises(DataError, match="no test rows") as caught:
        made(tmp_path, config(), inputs(tmp_path, train=texts(4)))
    assert "test: ..." in caught.value.remedy
    with pytest.raises(DataError, match="no training rows"):
        made(tmp_path, config(), inputs(tmp_path, test=texts(4)))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "kind", "fields", "in_test", "in_valid"),
    [
        ("ner-zh-weibo", "tag", {}, 38, 40),
        ("cls-en-trec", "classify", {}, 10, 14),
        ("mt-en-zh-tldr", "generate", {"source": "en", "target": "zh"}, 25, 34),
        ("cls-en-banking77", "classify", {}, 6, 0),
    ],
)
def test_the_known_overlaps_of_shared_data_are_found(
    name: str, kind: Any, fields: dict[str, str], in_test: int, in_valid: int, shared_data: Path, tmp_path: Path
) -> None:
    given = {split: shared_data / name / f"{split}.jsonl.gz" for split in ("train", "valid", "test")}
    out, metrics = made(tmp_path, config(kind=kind, fields=fields), given)
    # The stated counts are of equal rows; equal up to spelling are found as well.
    assert metrics["train_in_test"] >= in_test
    assert metrics["train_in_valid"] + metrics["train_in_test"] >= in_valid
    test = {
        normal(text_of(row, kind))
        for row in read(made(tmp_path, config(kind=kind, fields=fields), given, hold_out)[0] / "test.jsonl")
    }
    task = load(out)
    assert not test & {normal(text_of(row, kind)) for row in (*task.train, *task.valid)}


def test_other_test_rows_leave_what_solvers_see_as_it_is(tmp_path: Path) -> None:
    """Else a corrected test file would train every tier anew."""
    first, _ = made(tmp_path, config(), inputs(tmp_path, train=texts(30), valid=texts(5, 60), test=texts(10, 100)))
    seen = {file.name: file.read_bytes() for file in first.iterdir()}
    other, _ = made(tmp_path, config(), inputs(tmp_path, train=texts(30), valid=texts(5, 60), test=texts(12, 200)))
    assert {file.name: file.read_bytes() for file in other.iterdir()} == seen
