"""The stages data.prepare, data.stdlib and data.digits: artifacts, reports, and clear errors for bad input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nacre.data.read import read
from nacre.data.rows import Row
from nacre.data.write import write_jsonl
from nacre.errors import ConfigError, DataError
from nacre.lifecycle.prepare.data import PrepareConfig, prepare
from nacre.lifecycle.prepare.digits import digits
from nacre.lifecycle.prepare.stdlib import StdlibConfig, library, stdlib
from nacre.recipe import catalogue
from nacre.recipe.config import build
from nacre.recipe.stage import Stage, Work


def run(
    stage: Stage, folder: Path, config: Mapping[str, Any] | None = None, **inputs: Path
) -> tuple[Path, Mapping[str, Any]]:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    built = build(stage.config_type, config or {}, "test")
    if stage.check:
        stage.check(built, inputs)
    metrics = stage(built, Work(inputs=inputs, out=out, scratch=scratch))
    assert list(scratch.iterdir()) == []
    return out, metrics


def rows_in(out: Path, name: str) -> list[Row]:
    return list(read(out / f"{name}.jsonl"))


def reviews(n: int = 200) -> list[Row]:
    subjects = ["房间", "早餐", "服务", "位置", "价格"]
    return [
        {
            "review": f"第{k}次入住，{subjects[k % 5]}{'很好' if k % 2 else '太差'}。",
            "stars": k % 2,
            "id": k,
            "lang": "zh" if k % 4 else "en",
        }
        for k in range(n)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "reviews.jsonl", reviews())
    return tmp_path / "reviews.jsonl"


MAPPED = {"fields": {"text": "review", "label": "stars"}}


def test_a_file_becomes_a_split_artifact_with_labels_and_report(tmp_path: Path, source: Path) -> None:
    out, metrics = run(
        prepare,
        tmp_path / "w",
        MAPPED | {"split": {"ratios": {"train": 0.6, "valid": 0.2, "test": 0.2}}},
        source=source,
    )
    assert sorted(p.name for p in out.iterdir()) == [
        "labels.json",
        "report.json",
        "test.jsonl",
        "train.jsonl",
        "valid.jsonl",
    ]
    assert json.loads((out / "labels.json").read_text()) == ["0", "1"]
    parts = {name: rows_in(out, name) for name in ("train", "valid", "test")}
    assert sum(map(len, parts.values())) == 200
    assert set(parts["train"][0]) == {"text", "label", "id", "lang"}
    report = json.loads((out / "report.json").read_text())
    assert report["task"] == "classify"
    assert report["rows"] == {name: len(rows) for name, rows in parts.items()}
    assert str(tmp_path) not in (out / "report.json").read_text()
    assert metrics["classes"] == 2


def test_the_same_source_elsewhere_gives_the_same_bytes(tmp_path: Path, source: Path) -> None:
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / "reviews.jsonl"
    moved.write_bytes(source.read_bytes())
    first, _ = run(prepare, tmp_path / "a", MAPPED, source=source)
    second, _ = run(prepare, tmp_path / "b", MAPPED, source=moved)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_where_limit_and_field_splits(tmp_path: Path) -> None:
    rows = [row | {"split": "dev" if row["id"] % 5 == 0 else "train"} for row in reviews()]
    write_jsonl(tmp_path / "a.jsonl", rows)
    config = MAPPED | {"where": {"lang": "zh"}, "limit": {"train": 50}}
    out, metrics = run(prepare, tmp_path / "w", config, source=tmp_path / "a.jsonl")
    assert (metrics["train_rows"], metrics["valid_rows"]) == (50, 30)
    assert {row["lang"] for row in rows_in(out, "train")} == {"zh"}
    report = json.loads((out / "report.json").read_text())
    assert report["splits"] == "field"
    reasons = {
        reason: event["count"]
        for step in report["dropped"]["steps"]
        for reason, event in step.get("dropped", {}).items()
    }
    assert reasons == {"lang is not zh": 50, "over the limit of 50 rows": 70}


def source_with_overlap(folder: Path) -> Path:
    folder.mkdir()
    texts = [f"how do i use my card in country {n}?" for n in range(40)]
    rows = [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts)]
    write_jsonl(
        folder / "train.jsonl",
        [*rows[:30], {"text": texts[3].upper(), "label": "b"}, {"text": texts[35], "label": "a"}],
    )
    write_jsonl(folder / "validation.jsonl", [*rows[30:34], rows[36]])
    write_jsonl(folder / "test.jsonl", [*rows[35:], rows[39]])
    return folder


def test_overlapping_source_splits_lose_train_rows_not_test_rows(tmp_path: Path) -> None:
    source = source_with_overlap(tmp_path / "source")
    out, metrics = run(prepare, tmp_path / "w", source=source)
    assert (metrics["train_rows"], metrics["valid_rows"], metrics["test_rows"]) == (30, 4, 6)
    assert {row["text"].lower() for row in rows_in(out, "train")}.isdisjoint(
        row["text"] for row in rows_in(out, "test")
    )
    _, metrics = run(prepare, tmp_path / "v", {"overlaps": "report", "dedup": {"method": "none"}}, source=source)
    assert (metrics["train_rows"], metrics["valid_rows"], metrics["test_rows"]) == (32, 5, 6)
    report = json.loads((tmp_path / "v" / "out" / "report.json").read_text())
    noted = next(step for step in report["dropped"]["steps"] if step["step"] == "overlap")["noted"]
    assert noted["train row that is also in test"]["count"] == 1


def test_valid_is_carved_from_train_by_content(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    rows = [{"text": row["review"], "label": str(row["stars"])} for row in reviews()]
    write_jsonl(tmp_path / "source" / "train.jsonl", rows[:150])
    write_jsonl(tmp_path / "source" / "test.jsonl", rows[150:])
    _, metrics = run(prepare, tmp_path / "w", {"valid_share": 0.2}, source=tmp_path / "source")
    assert metrics["test_rows"] == 50
    assert 15 <= int(metrics["valid_rows"]) <= 45


@pytest.mark.parametrize("ending", [{"duplicates": "remove"}, {"duplicates": "keep_together"}])
def test_near_duplicates_are_removed_or_kept_on_one_side(tmp_path: Path, ending: dict[str, str]) -> None:
    base = [" ".join(f"w{(n * 7 + k * k) % 97}" for k in range(30)) for n in range(60)]
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in base + [f"{text} again" for text in base]])
    config = {"dedup": {"method": "near"}, "split": {"ratios": {"train": 0.5, "valid": 0.25, "test": 0.25}}}
    out, _ = run(prepare, tmp_path / "w", config | ending, source=tmp_path / "a.jsonl")
    where: dict[str, list[str]] = {}
    for name in ("train", "valid", "test"):
        for row in rows_in(out, name):
            where.setdefault(row["text"].removesuffix(" again"), []).append(name)
    assert all(len(set(names)) == 1 for names in where.values())
    assert {len(names) for names in where.values()} == ({1} if ending["duplicates"] == "remove" else {2})


def test_tagging_translation_chat_and_plain_text(tmp_path: Path) -> None:
    kinds: dict[str, list[Row]] = {
        "tag": [{"tokens": ["张", "三", str(n)], "tags": ["B-PER", "I-PER", "O"]} for n in range(60)],
        "translate": [{"en": f"number {n}", "zh": f"第{n}号"} for n in range(60)],
        "chat": [
            {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "好"}]}
            for n in range(60)
        ],
        "text": [{"text": f"第{n}首"} for n in range(60)],
    }
    for task, rows in kinds.items():
        write_jsonl(tmp_path / f"{task}.jsonl", rows)
        config: dict[str, Any] = {"fields": {"source": "en", "target": "zh"}} if task == "translate" else {}
        config["split"] = {"ratios": {"train": 0.7, "test": 0.3}}
        out, _ = run(prepare, tmp_path / f"w-{task}", config, source=tmp_path / f"{task}.jsonl")
        assert json.loads((out / "report.json").read_text())["task"] == task
        assert (out / "labels.json").exists() == (task == "tag")
    assert json.loads((tmp_path / "w-tag" / "out" / "labels.json").read_text()) == ["O", "B-PER", "I-PER"]
    assert set(rows_in(tmp_path / "w-translate" / "out", "train")[0]) == {"source", "target"}


def test_scrub_repeated_lines_and_decontamination_are_part_of_it(tmp_path: Path) -> None:
    planted = " ".join(f"question{n}" for n in range(20))
    rows = [{"text": f"Header of the site\nthis is text number {n} of the collection\nbye {n}"} for n in range(80)]
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": f"so {planted} it goes"}])
    write_jsonl(tmp_path / "bench.jsonl", [{"text": planted}])
    config = {"repeated_lines": 50, "split": {"ratios": {"train": 1.0}}, "scrub": {"fields": ["text"]}}
    out, metrics = run(prepare, tmp_path / "w", config, source=tmp_path / "a.jsonl", against=tmp_path / "bench.jsonl")
    assert metrics["train_rows"] == 80
    assert not any("Header" in row["text"] or planted in row["text"] for row in rows_in(out, "train"))


BAD: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "empty": (b"", {}, "the file is empty"),
    "encoding": ("r\xe9sum\xe9\n".encode("latin-1"), {}, "neither UTF-8 nor GB18030"),
    "unmapped": (b'{"sentence": "a"}\n', {}, "make no row"),
    "misnamed": (b'{"sentence": "a"}\n', {"fields": {"text": "sentense"}}, "no field 'sentense'"),
    "later": (b'{"text": "a", "label": "x"}\n{"text": "b"}\n', {}, "line 2, byte 28: no field 'label'"),
    "tags": (b'{"tokens": ["a", "b"], "tags": ["O"]}\n', {}, "tokens and tags differ in number: 2 and 1"),
    "one class": (b"".join(b'{"text": "%d", "label": "x"}\n' % n for n in range(99)), {}, "one and the same label 'x'"),
    "no rows left": (b'{"text": "a", "lang": "en"}\n', {"where": {"lang": "zh"}}, "no training rows are left"),
    "no such field": (b'{"text": "a"}\n', {"where": {"lang": "zh"}}, "no field 'lang' to filter by"),
    "empty split": (
        b'{"text": "a"}\n',
        {"split": {"ratios": {"train": 0.999999, "test": 0.000001}}},
        "the split test has no rows",
    ),
    "no such split": (b'{"text": "a", "split": "other"}\n', {"splits": "field"}, "names no split"),
    "not a label": (b'{"text": "a", "label": ["x"]}\n', {}, "field 'label' is no text"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_one_clear_error(tmp_path: Path, name: str) -> None:
    data, config, said = BAD[name]
    path = tmp_path / ("a.txt" if name in ("empty", "encoding") else "a.jsonl")
    path.write_bytes(data)
    with pytest.raises(DataError, match=said) as error:
        run(prepare, tmp_path / "w", config, source=path)
    assert error.value.remedy
    assert not list((tmp_path / "w" / "out").glob("labels.json"))


def test_what_can_be_known_is_said_at_plan_time(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    write_jsonl(tmp_path / "source" / "train.jsonl", [{"text": "a", "label": "x"}])
    write_jsonl(tmp_path / "source" / "other.jsonl", [{"text": "a", "label": "x"}])
    assert prepare.check is not None
    with pytest.raises(DataError, match=r"names its split and other\.jsonl does not"):
        prepare.check(PrepareConfig(), {"source": tmp_path / "source"})
    with pytest.raises(DataError, match="no files named train"):
        prepare.check(PrepareConfig(splits="source"), {"source": tmp_path / "source" / "other.jsonl"})
    for wrong in (
        {"fields": {"txt": "a"}},
        {"limit": {"tset": 3}},
        {"clean": {"edits": ["htm"]}},
        {"repeated_lines": 1},
    ):
        with pytest.raises(ConfigError):
            build(PrepareConfig, wrong, "test")


def test_rows_that_do_not_fit_are_dropped_and_counted_when_asked(tmp_path: Path) -> None:
    good = "".join(json.dumps({"text": f"t{n}", "label": "ab"[n % 2]}) + "\n" for n in range(80))
    (tmp_path / "a.jsonl").write_text(good + '{"text": "b"}\n{broken\n')
    config = {"read": {"on_error": "drop"}, "split": {"ratios": {"train": 0.8, "test": 0.2}}}
    out, metrics = run(prepare, tmp_path / "w", config, source=tmp_path / "a.jsonl")
    assert metrics["dropped"] == 2
    assert "source, line 81" in (out / "report.json").read_text()


def test_the_standard_library_is_a_dataset_of_its_files(tmp_path: Path) -> None:
    config = {"exclude": [*StdlibConfig().exclude, "asyncio", "email", "encodings", "multiprocessing", "unittest"]}
    out, metrics = run(stdlib, tmp_path / "w", config)
    rows = {row["path"]: row["text"] for name in ("train", "valid", "test") for row in rows_in(out, name)}
    assert rows["json/decoder.py"] == (library() / "json" / "decoder.py").read_text(encoding="utf-8")
    assert not any("asyncio" in path or "test" in Path(path).parts for path in rows)
    assert metrics["train_rows"] > metrics["valid_rows"] > 0
    with pytest.raises(ConfigError, match=r"python 2\.7"):
        run(stdlib, tmp_path / "v", {"python": "2.7"})


def test_the_digits_are_images_from_zero_to_one(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out, metrics = run(digits, tmp_path / "w")
    assert sum(int(metrics[f"{name}_rows"]) for name in ("train", "valid", "test")) == 1797
    pixels = np.array([row["pixels"] for row in rows_in(out, "test")], dtype=np.float32)[:, None]
    assert pixels.shape[1:] == (1, 8, 8)
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert json.loads((out / "labels.json").read_text()) == [str(digit) for digit in range(10)]


@pytest.mark.shared_data
def test_known_overlaps_of_real_sets_are_found(tmp_path: Path, shared_data: Path) -> None:
    out, metrics = run(prepare, tmp_path / "w", source=shared_data / "ner-zh-weibo")
    assert metrics["test_rows"] == 270
    overlap = next(
        step for step in json.loads((out / "report.json").read_text())["dropped"]["steps"] if step["step"] == "overlap"
    )
    assert overlap["dropped"]["train row that is also in test"]["count"] >= 38


def test_the_stages_are_in_the_catalogue() -> None:
    for name, stage in (("data.prepare", prepare), ("data.stdlib", stdlib), ("data.digits", digits)):
        assert catalogue.find(name) is stage


def test_files_for_different_tasks_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("只有文本\n", encoding="utf-8")
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"text": "t", "label": "x"}])
    with pytest.raises(DataError, match=r"task text, .*b\.jsonl.* one for classify") as caught:
        run(prepare, tmp_path / "out", source=tmp_path / "in")
    assert "set task" in caught.value.remedy


def test_an_empty_split_says_which_rows_went_before(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "always the same"}] * 50)
    config = {"split": {"ratios": {"train": 0.999999, "test": 0.000001}}}
    with pytest.raises(DataError, match=r"has no rows of 1 \(dedup dropped 49: duplicate\)"):
        run(prepare, tmp_path / "out", config, source=tmp_path / "a.jsonl")
