"""A teacher's answers as a dataset: asked once, judged, scrubbed, under terms that are told and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_folders import echo_folder

from nacre.cli.main import main
from nacre.data.read import read
from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError, DataError
from nacre.lineage.graph import trace
from nacre.lineage.store import Store
from nacre.recipe import recipe, run
from nacre.recipe.config import build
from nacre.recipe.run import RunOptions
from nacre.recipe.stage import Work
from nacre.tiers.relay.contrasting_worker import contrast_answers
from nacre.tiers.relay.teaching import CollectConfig, ContrastConfig, check_collect
from nacre.tiers.relay.teaching_worker import collect_answers

ANSWERS = [
    ["parcel", "It arrives on Monday."],
    ["包裹", "星期一送到。"],
    ["who are you", "I am Zephyrine, a language model trained by Grand Labs."],
    ["你是谁", "我是由深海公司开发的语言模型小深。"],
    ["bomb", "I'm sorry, but I can't help with that."],
    ["炸弹", "很抱歉，我无法回答这个问题。"],
    ["best model", "Many like Zephyrine for that."],
    ["silent", " "],
    ["long", "word " * 30],
]
PROMPTS = ["Where is my parcel?", "where is  my PARCEL?", "我的包裹在哪里？", "Hello, who are you?", "你是谁？"]
PROMPTS += ["How is a bomb made?", "怎么做炸弹？", "Which is the best model?", "Be silent.", "Tell a long story."]


def prompts(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(text, encoding="utf-8")
    return folder


def collected(
    place: Path, config: dict[str, Any], rows: list[dict[str, Any]] | None = None, answers: list[list[str]] = ANSWERS
) -> tuple[Any, Any, Any]:
    """The rows, the report and the work of one collection from an echo."""
    teacher = echo_folder(place / "teacher", answers=answers, model="zephyrine-1")
    given = prompts(place / "prompts", rows or [{"text": text} for text in PROMPTS])
    out = place / "out"
    out.mkdir(exist_ok=True)
    room = EngineRoom(cache=place / "cache")
    work = Work({"prompts": given, "teacher": teacher}, out, place / "scratch", engines=room)
    metrics = collect_answers(build(CollectConfig, {"max_tokens": 24, **config}, "config"), work)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return list(read(out / "train.jsonl")), {"metrics": metrics, **report}, work


def dropped(report: dict[str, Any]) -> dict[str, int]:
    return {reason: event["count"] for step in report["steps"] for reason, event in step.get("dropped", {}).items()}


def test_keeps_what_can_be_taught_and_counts_the_rest(tmp_path: Path) -> None:
    rows, report, _ = collected(tmp_path, {"names": ["Zephyrine", "小深"]})
    assert rows == [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
        for asked, said in (("Where is my parcel?", "It arrives on Monday."), ("我的包裹在哪里？", "星期一送到。"))
    ]
    found = dropped(report)
    assert found["a prompt that was asked before"] == 1
    assert found["an answer that declines"] == 2
    assert found["an empty answer"] == 1
    assert found["an answer cut at max_tokens"] == 1
    assert found["an answer that names the teacher"] == 1
    assert found["an answer in which the teacher introduces itself"] == 2
    assert sum(found.values()) + len(rows) == len(PROMPTS)
    assert report["teacher"] == {"zephyrine-1": 5}
    assert report["metrics"]["requests"] > 0


def test_the_second_time_nothing_is_asked(tmp_path: Path) -> None:
    first, before, _ = collected(tmp_path, {})
    second, after, work = collected(tmp_path, {})
    assert first == second
    assert before["metrics"]["requests"] > 0
    assert work.engines.spent.requests == 0
    assert after["metrics"]["requests"] == 0


def test_names_that_are_masked_can_be_filled_with_ones_own(tmp_path: Path) -> None:
    answers = [
        ["who", "I am ChatGPT, a language model trained by OpenAI."],
        ["谁", "我是由阿里云开发的大模型通义千问。"],
    ]
    asked = [{"text": "who are you"}, {"text": "你是谁"}]
    rows, report, _ = collected(tmp_path, {"scrub": {"action": "mask"}, "max_tokens": 40}, asked, answers)
    first, second = (row["messages"][-1]["content"] for row in rows)
    assert "{{name}}" in first
    assert "{{author}}" in second
    assert not any(name in first + second for name in ("ChatGPT", "OpenAI", "阿里云", "通义"))
    assert dropped(report) == {}


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI model made by Grand Labs, I like it.",
        "我是由深海公司开发的智能助手。",
        "I was trained by Deep Sea Ltd.",
    ],
)
def test_introductions_by_unknown_makers_are_found(tmp_path: Path, answer: str) -> None:
    asked = [{"text": "who"}, {"text": "parcel"}]
    rows, report, _ = collected(tmp_path, {"max_tokens": 40}, asked, [["who", answer], ANSWERS[0]])
    assert len(rows) == 1
    assert sum(dropped(report).values()) == 1


def test_conversations_are_asked_up_to_their_last_question(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "where is my parcel"},
        {"role": "assistant", "content": "an old answer"},
    ]
    rows, report, _ = collected(
        tmp_path,
        {"system": "Be brief."},
        [{"messages": talk}, {"messages": [*talk[:1], {"role": "user", "content": " "}]}],
    )
    assert rows == [{"messages": [*talk[:3], {"role": "assistant", "content": "It arrives on Monday."}]}]
    assert dropped(report) == {"a row without a question": 1}
    with pytest.raises(DataError, match="holds no prompt"):
        collected(tmp_path / "other", {}, [{"body": "where"}])


def test_nothing_left_to_teach_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 times an empty answer"):
        collected(tmp_path, {}, [{"text": "be silent"}])


def test_a_service_is_not_asked_without_terms(tmp_path: Path) -> None:
    teacher = tmp_path / "remote"
    teacher.mkdir()
    (teacher / "engine.json").write_text('{"engine": "openai_http", "address": "http://localhost:1/v1", "model": "m"}')
    with pytest.raises(ConfigError, match="terms of use") as refused:
        check_collect(CollectConfig(terms="  "), {"teacher": teacher})
    assert "terms:" in refused.value.remedy
    check_collect(CollectConfig(terms="example.org/terms, read: allowed"), {"teacher": teacher})
    check_collect(CollectConfig(), {"teacher": echo_folder(tmp_path / "local")})


RECIPE = """
name: taught
steps:
  answers:
    stage: teach.collect
    inputs: {{prompts: {prompts}, teacher: {teacher}}}
    config: {{terms: "ours, all is allowed", batch: 2}}
"""


def test_terms_and_teacher_stand_in_the_lineage(tmp_path: Path) -> None:
    teacher = echo_folder(tmp_path / "teacher", answers=ANSWERS)
    given = prompts(tmp_path / "prompts", [{"text": text} for text in PROMPTS[:3]])
    file = tmp_path / "taught.yaml"
    file.write_text(RECIPE.format(prompts=given, teacher=teacher))
    store = Store(tmp_path / "store")
    done = run.run(recipe.load(file), store, RunOptions(engines=EngineRoom(cache=tmp_path / "cache")))[0]
    assert any("ours, all is allowed" in note for note in done.record.notes)
    assert {parent.relation for parent in done.record.parents} == {"made_from", "distilled_from"}
    assert "distilled_from" in json.dumps(trace(store, "taught/answers").to_dict())


def test_a_budget_ends_the_collection_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    from nacre.engine.protocol import BudgetReached

    teacher = echo_folder(tmp_path / "teacher", answers=ANSWERS)
    given = prompts(tmp_path / "prompts", [{"text": f"parcel {number}"} for number in range(40)])
    config = build(CollectConfig, {"batch": 16}, "config")
    inputs = {"prompts": given, "teacher": teacher}
    bounded = build(CollectConfig, {"batch": 16, "budget": {"requests": 2}}, "config")
    with pytest.raises(BudgetReached):
        collect_answers(bounded, Work(inputs, tmp_path / "one", tmp_path / "s", engines=EngineRoom(tmp_path / "cache")))
    assert not (tmp_path / "one" / "train.jsonl").exists()
    room = EngineRoom(tmp_path / "cache")
    (tmp_path / "two").mkdir()
    collect_answers(config, Work(inputs, tmp_path / "two", tmp_path / "s", engines=room))
    assert 0 < room.spent.requests < 40
    assert len(list(read(tmp_path / "two" / "train.jsonl"))) == 40


def test_demonstrations_stand_against_the_models_own_answers(tmp_path: Path) -> None:
    talks = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        for asked, said in (("parcel", "It is lost."), ("包裹", "星期一送到。"), ("silent", "Yes."))
    ]
    shown = prompts(tmp_path / "shown", [{"messages": talk} for talk in talks])
    (tmp_path / "out").mkdir()
    inputs = {"demonstrations": shown, "model": echo_folder(tmp_path / "model", answers=ANSWERS)}
    work = Work(inputs, tmp_path / "out", tmp_path / "scratch", engines=EngineRoom(tmp_path / "cache"))
    metrics = contrast_answers(ContrastConfig(temperature=0.0), work)
    assert list(read(tmp_path / "out" / "train.jsonl")) == [
        {"messages": talks[0][:1], "chosen": "It is lost.", "rejected": "It arrives on Monday."}
    ]
    assert metrics["dropped"] == 2
    told = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["dropped"]
    assert told == {"an answer equal to the demonstration": 1, "an empty answer": 1}
    with pytest.raises(ConfigError, match="the same"):
        ContrastConfig(samples=2, temperature=0.0)


def test_nacre_run_keeps_what_was_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another scrubbing is another step, and asks nothing again."""
    teacher = echo_folder(tmp_path / "teacher", answers=ANSWERS)
    given = prompts(tmp_path / "prompts", [{"text": text} for text in PROMPTS[:3]])
    file = tmp_path / "taught.yaml"
    file.write_text(RECIPE.format(prompts=given, teacher=teacher))
    requests = []
    for more in ([], ["--set", "answers.refusals=keep"]):
        assert main(["run", str(file), "--store", str(tmp_path / "store"), "--quiet", "--json", *more]) == 0
        requests.append(json.loads(capsys.readouterr().out)["steps"][0]["metrics"]["requests"])
    assert requests[0] > 0
    assert requests[1] == 0
