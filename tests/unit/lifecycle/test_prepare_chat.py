"""data.chat: any chat format into one artifact, bad rows counted, prompts in one split only, placeholders filled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_kit import assistant, system, user

from nacre.data.split import SplitConfig
from nacre.errors import ConfigError, DataError
from nacre.lifecycle.prepare.chat import ChatConfig, chat, check
from nacre.recipe.stage import Work


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def written(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def made(source: Path, place: Path, **config: Any) -> tuple[Path, dict[str, Any]]:
    out = place / "out"
    out.mkdir(parents=True)
    settings, inputs = ChatConfig(**config), {"source": source}
    check(settings, inputs)
    return out, dict(chat(settings, Work(inputs, out, place / "scratch")))


ALPACA = [{"instruction": f"translate {number} 号", "input": "", "output": f"answer {number}"} for number in range(200)]


def test_a_file_becomes_splits_of_messages(tmp_path: Path) -> None:
    out, metrics = made(written(tmp_path / "alpaca.jsonl", ALPACA), tmp_path)
    parts = {name: rows_in(out / f"{name}.jsonl") for name in ("train", "valid", "test")}
    assert sum(map(len, parts.values())) == 200
    assert all(parts.values())
    assert metrics["dropped"] == 0
    assert metrics["turns"] == 400
    assert set(parts["train"][0]) == {"messages"}
    told = json.loads((out / "report.json").read_text())
    assert told["formats"] == ["Alpaca"]
    assert str(tmp_path) not in (out / "report.json").read_text()


def test_a_prompt_is_in_one_split_only_and_more_rows_move_none(tmp_path: Path) -> None:
    twice = [*ALPACA, *({**row, "output": f"another {row['output']}"} for row in ALPACA)]
    out, _ = made(written(tmp_path / "twice.jsonl", twice), tmp_path / "a")
    where: dict[str, set[str]] = {}
    for name in ("train", "valid", "test"):
        for row in rows_in(out / f"{name}.jsonl"):
            where.setdefault(row["messages"][0]["content"], set()).add(name)
    assert all(len(splits) == 1 for splits in where.values())
    once, _ = made(written(tmp_path / "once.jsonl", ALPACA[:100]), tmp_path / "b")
    for name in ("train", "valid", "test"):
        for row in rows_in(once / f"{name}.jsonl"):
            assert where[row["messages"][0]["content"]] == {name}


def test_bad_rows_and_duplicates_are_counted_with_samples(tmp_path: Path) -> None:
    bad = [{"instruction": "a", "output": ""}, {"instruction": "", "output": "b"}, {"question": "a", "answer": "b"}]
    source = written(tmp_path / "rows.jsonl", [*ALPACA[:20], *bad, ALPACA[3]])
    out, metrics = made(source, tmp_path / "a", split=SplitConfig({"train": 1.0}))
    assert metrics == {"train_rows": 20, "dropped": 4, "turns": 40}
    steps = {one["step"]: one for one in json.loads((out / "report.json").read_text())["dropped"]["steps"]}
    reasons = steps["read as a chat"]["dropped"]
    assert {reason: event["count"] for reason, event in reasons.items()} == {
        "empty answer": 1, "empty turn of the user": 1, "not Alpaca, as the first row is": 1
    }  # fmt: skip
    assert "line 21" in reasons["empty answer"]["samples"][0]["where"]
    assert list(steps["duplicates"]["dropped"]) == ["the same texts as an earlier row"]
    kept, metrics = made(source, tmp_path / "b", duplicates="keep", split=SplitConfig({"train": 1.0}))
    assert len(rows_in(kept / "train.jsonl")) == metrics["train_rows"] == 21
    with pytest.raises(DataError, match=r"line 21, byte .*: empty answer"):
        made(source, tmp_path / "c", bad_rows="raise")


def test_held_out_texts_leave_training(tmp_path: Path) -> None:
    written(tmp_path / "set/train.jsonl", ALPACA[:30])
    written(tmp_path / "set/test.jsonl", ALPACA[20:40])
    out, metrics = made(tmp_path / "set", tmp_path, valid_share=0.2, limit={"test": 15})
    assert metrics["train_rows"] + metrics["valid_rows"] == 20
    assert metrics["test_rows"] == 15
    assert {row["messages"][0]["content"] for row in rows_in(out / "test.jsonl")} <= {
        row["instruction"] for row in ALPACA[20:40]
    }


def test_placeholders_are_filled_and_system_turns_added(tmp_path: Path) -> None:
    rows = [
        {"messages": [user(f"你是谁 {number}"), assistant("我是{{name}}，{{other}}。")]} for number in range(3)
    ] + [{"messages": [system("mine"), user("who?"), assistant("{{name}}")]}]  # fmt: skip
    source = written(tmp_path / "who.jsonl", rows)
    everything = SplitConfig({"train": 1.0})
    out, _ = made(source, tmp_path / "a", fill={"name": "贝母"}, system="你是助手。", split=everything)
    found = rows_in(out / "train.jsonl")
    assert found[0]["messages"] == [system("你是助手。"), user("你是谁 0"), assistant("我是贝母，{{other}}。")]
    assert found[3]["messages"][0] == system("mine")
    noted = json.dumps(json.loads((out / "report.json").read_text())["dropped"])
    assert "a placeholder that fill does not name: {{other}}" in noted
    with pytest.raises(ConfigError, match=r"placeholder \{\{nam\}\}"):
        made(source, tmp_path / "b", fill={"nam": "x"}, split=everything)


def test_pairs_and_judged_answers_keep_their_sides(tmp_path: Path) -> None:
    pairs = [{"prompt": f"q {number}", "chosen": "好", "rejected": "坏"} for number in range(5)]
    pairs += [{"prompt": "q 1", "chosen": "坏", "rejected": "好"}, {"prompt": "q", "chosen": "x", "rejected": "x"}]
    out, metrics = made(written(tmp_path / "p.jsonl", pairs), tmp_path / "a", split=SplitConfig({"train": 1.0}))
    assert metrics["train_rows"] == 6
    assert rows_in(out / "train.jsonl")[0] == {"messages": [user("q 0")], "chosen": "好", "rejected": "坏"}
    judged = [{"prompt": f"q {number}", "completion": "好", "label": number > 2} for number in range(5)]
    out, _ = made(written(tmp_path / "j.jsonl", judged), tmp_path / "b", split=SplitConfig({"train": 1.0}))
    assert rows_in(out / "train.jsonl")[4] == {"messages": [user("q 4")], "answer": "好", "good": True}
    with pytest.raises(DataError, match=r"p.jsonl, line 1.*preference pairs \(pairs\), not conversations"):
        check(ChatConfig(kind="conversations"), {"source": tmp_path / "p.jsonl"})


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first = made(written(tmp_path / "a/x.jsonl", ALPACA), tmp_path / "1")[0]
    second = made(written(tmp_path / "b/c/x.jsonl", ALPACA), tmp_path / "2")[0]
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_sources_without_conversations_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of no known format"):
        check(ChatConfig(), {"source": written(tmp_path / "t.jsonl", [{"text": "a"}])})
    with pytest.raises(DataError, match="look like Alpaca, without 'output'"):
        check(ChatConfig(), {"source": written(tmp_path / "u.jsonl", [{"instruction": "a"}])})
    with pytest.raises(DataError, match="no training rows are left"):
        made(written(tmp_path / "v.jsonl", [{"question": "a", "answer": ""}]), tmp_path / "x")
    with pytest.raises(ConfigError, match="limit"):
        ChatConfig(limit={"tests": 3})
    with pytest.raises(ConfigError, match="system is empty"):
        ChatConfig(system=" ")
    with pytest.raises(DataError, match="no files named train"):
        check(ChatConfig(splits="source"), {"source": written(tmp_path / "w.jsonl", ALPACA)})
