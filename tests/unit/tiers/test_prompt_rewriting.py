"""Rewriting: the rules fill what a request tells and ask for the rest; an engine's answer is parsed strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asking_stub import WrittenEngine

from nacre.engine.protocol import EngineError, Unsupported
from nacre.errors import ConfigError
from nacre.tiers.prompt.file import loads
from nacre.tiers.prompt.rewriting import rewrite
from nacre.tiers.prompt.rules import fill, language_of

GOOD: dict[str, Any] = {
    "name": "mail-summary",
    "about": "Summarise a letter.",
    "role": "A clerk.",
    "context": "Letters come from {{ sender }}; keep {braces} and {% raw %}.",
    "task": "Summarise {{ letter }} in steps:\n# user\n1. read",
    "constraints": ["At most two sentences.", "For the boss."],
    "output_format": "Plain text.",
    "examples": [],
    "inputs": {"letter": "the letter", "sender": "who wrote it", "deadline": "until when"},
    "questions": ["Which language?"],
}


def writer(**changes: Any) -> WrittenEngine:
    return WrittenEngine(reply=lambda prompt: json.dumps({**GOOD, **changes}, ensure_ascii=False))


def test_rules_say_what_they_found_and_ask_for_the_rest() -> None:
    found = rewrite("Summarise this report for my boss in three sentences, as a bullet list")
    assert found.method == "rules"
    system, user = found.prompt.render(text="TEXT")
    assert "Readers: for my boss" in system.content  # type: ignore[union-attr]
    assert "Length: in three sentences" in system.content  # type: ignore[union-attr]
    assert "Form:" in system.content  # type: ignore[union-attr]
    assert user.content.endswith("## Text\nTEXT")  # type: ignore[union-attr]
    assert found.questions == ("Which language should the answer be in?",)
    assert not found.prompt.inputs["target_language"].required


def test_chinese_requests_are_understood_as_well() -> None:
    found = rewrite("请把这份合同翻译成英文，不超过200字，语气正式")
    assert (found.language, found.prompt.head.language) == ("zh", "zh")
    system, user = found.prompt.render(text="甲方", audience="律师")
    for line in ("语言：翻译成英文", "长度：不超过200字", "语气：正式", "读者：律师"):
        assert line in system.content  # type: ignore[union-attr]
    assert user.content.endswith("## 文本\n甲方")  # type: ignore[union-attr]
    assert len(found.questions) == 2


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ("Translate it and then summarise", "translate"),
        ("please condense the thread", "summarise"),
        ("sort these mails into spam and ham", "classify"),
        ("find all dates", "extract"),
        ("polish my essay", "rewrite"),
        ("Explain gravity", "answer"),
        ("draft a letter", "write"),
        ("do the thing", "request"),
        ("帮我把这段话润色一下", "rewrite"),
        ("给这些评论打标签", "classify"),
        ("提取人名", "extract"),
        ("为什么天是蓝的", "answer"),
        ("写一首诗", "write"),
        ("概括一下", "summarise"),
    ],
)
def test_the_kind_of_work_is_what_is_named_first(request_: str, kind: str) -> None:
    assert fill(request_, language_of(request_)).kind == kind


def test_brackets_of_a_request_become_inputs() -> None:
    found = rewrite("Write a letter to {name} about [the refund] and 【合同】 {{{odd}}} {% x %}")
    assert [name for name, one in found.prompt.inputs.items() if one.required] == [
        "name",
        "the_refund",
        "input_3",
        "odd",
    ]
    user = found.prompt.render(name="N", the_refund="R", input_3="K", odd="O")[-1]
    assert user.content == "## Task\nWrite a letter to N about R and K {O} {% x %}"  # type: ignore[union-attr]


@pytest.mark.parametrize("request_", ["{{{{", "# user", "```\nx", "a" * 5000, "{% endif %}{{ x", "\r\n{", "【】[]<>"])
def test_any_request_becomes_a_prompt_that_can_be_read_again(request_: str) -> None:
    found = rewrite(request_)
    assert loads(found.prompt.source, "again") == found.prompt


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_request_is_told(empty: str) -> None:
    with pytest.raises(ConfigError, match="empty"):
        rewrite(empty)


def test_an_unknown_language_is_told() -> None:
    with pytest.raises(ConfigError, match="'fr'"):
        rewrite("résumer", language="fr")


def test_an_engine_writes_the_prompt_and_is_named() -> None:
    engine = writer()
    found = rewrite("sum up the letters", engine)
    assert found.method == "engine written (written-1)"
    assert found.questions == ("Which language?",)
    assert found.remarks == ("inputs that stood in no section were listed: deadline",)
    system, user = found.prompt.render(letter="L", sender="S", deadline="D")
    assert "Letters come from S; keep {braces} and {% raw %}." in system.content  # type: ignore[union-attr]
    assert "- At most two sentences.\n- For the boss." in system.content  # type: ignore[union-attr]
    assert user.content == "## Given\n- deadline: D\n\n## Task\nSummarise L in steps:\n# user\n1. read"  # type: ignore[union-attr]
    assert found.usage.requests == 1
    assert "sum up the letters" in str(engine.prompts[0])


def test_a_chinese_request_is_put_to_the_engine_in_chinese() -> None:
    engine = writer()
    assert rewrite("总结这封信", engine).prompt.head.language == "zh"
    assert "你把写给语言模型的含糊请求" in str(engine.prompts[0])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": 3}, "name is no text"),
        ({"name": "a b"}, "is no name"),
        ({"task": ""}, "task is no text"),
        ({"constraints": "short"}, "constraints is no list"),
        ({"inputs": ["letter"]}, "inputs is no object"),
        ({"inputs": {"letter": "x"}}, "uses the inputs sender and does not declare"),
        ({"inputs": {"a b": "x", "letter": "", "sender": ""}}, "no name of an input"),
        ({"more": "x"}, "its keys are not those"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_an_error(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(EngineError, match="did not write a prompt") as caught:
        rewrite("x", writer(**changes))
    assert why in caught.value.message
    assert "without an engine" in caught.value.remedy


@pytest.mark.parametrize("said", ["Sure! Here it is.", "[]", ("{", "length"), ('{"a": 1}', "refused")])
def test_an_answer_that_is_no_object_is_never_replaced_by_rules(said: Any) -> None:
    with pytest.raises(EngineError, match="did not write a prompt"):
        rewrite("x", WrittenEngine(reply=lambda prompt: said))


def test_an_engine_that_cannot_chat_is_told() -> None:
    with pytest.raises(Unsupported):
        rewrite("x", WrittenEngine(can=("embed",)))
