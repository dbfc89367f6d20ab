"""Readers of conversations and preferences: every format, what each row can be wrong about, and clear refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_kit import assistant, system, user

from nacre.data.chat.formats import conversation, conversations, judged, kind_of, pairs
from nacre.data.chat.messages import BadRow
from nacre.data.read import read
from nacre.errors import ConfigError, DataError

TALK = [system("be brief"), user("问"), assistant("答")]
HH = "\n\nHuman: hi\n\nAssistant: Hello: how?\n\nHuman: why\nso\n\nAssistant: "


def one(row: dict[str, Any]) -> list[dict[str, Any]]:
    return conversation(row).messages


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": TALK}, TALK),
        ({"messages": [{"role": "developer", "content": "be brief"}, *TALK[1:]]}, TALK),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "问"}]}, TALK[2]]}, TALK[1:]),
        (
            {"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}], "system": "be brief"},
            TALK,
        ),
        ({"conversations": TALK}, TALK),
        ({"instruction": "问", "output": "答", "system": "be brief"}, TALK),
        ({"instruction": "问", "input": "", "output": "答"}, TALK[1:]),
        ({"instruction": "translate", "input": "问", "output": "答"}, [user("translate\n\n问"), assistant("答")]),
        (
            {"instruction": "c", "output": "d", "history": [["a", "b"]]},
            [user("a"), assistant("b"), user("c"), assistant("d")],
        ),
        ({"question": "问", "answer": "答"}, TALK[1:]),
        ({"source": "问", "target": "答"}, TALK[1:]),
        ({"prompt": [user("问")], "completion": [assistant("答")]}, TALK[1:]),
        ({"messages": [user("问"), assistant("答", trained=False), user("x"), assistant("y")]},
         [user("问"), assistant("答", trained=False), user("x"), assistant("y")]),
    ],
)  # fmt: skip
def test_formats_become_messages(row: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert one(row) == expected


CALLED = {"type": "function", "function": {"name": "weather", "arguments": {"city": "上海"}}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", **CALLED}]},
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": '{"city": "上海"}'}}],
        },
        {"role": "function_call", "content": '{"name": "weather", "arguments": {"city": "上海"}}'},
        {"role": "function_call", "content": '[{"name": "weather", "arguments": "{\\"city\\": \\"上海\\"}"}]'},
    ],
)
def test_calls_of_tools_have_one_form(turn: dict[str, Any]) -> None:
    tools = '[{"name": "weather", "parameters": {}}]'
    rest = [{"role": "observation", "content": "sun"}, assistant("晴")]
    read = conversation({"messages": [user("天气?"), turn, *rest], "tools": tools})
    (call,) = read.messages[1]["tool_calls"]
    assert {name: value for name, value in call.items() if name != "id"} == CALLED
    assert read.messages[1]["content"] == ""
    assert read.messages[2] == {"role": "tool", "content": "sun"}
    assert read.tools == [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    assert conversation(read.row()) == read


BAD = {
    "ends with the user": {"messages": [user("a"), assistant("b"), user("c")]},
    "empty answer": {"messages": [user("a"), assistant(" \n")]},
    "no turns": {"messages": []},
    "empty turn of the user": {"messages": [user(""), assistant("b")]},
    "roles out of order: assistant first": {"messages": [assistant("b"), user("a")]},
    "roles out of order: user after user": {"messages": [user("a"), user("b"), assistant("c")]},
    "roles out of order: assistant after assistant": {"messages": [user("a"), assistant("b"), assistant("c")]},
    "roles out of order: system after user": {"messages": [user("a"), system("b"), assistant("c")]},
    "roles out of order: a tool's result that no call asked for": {
        "messages": [user("a"), assistant("b"), {"role": "tool", "content": "c"}, assistant("d")]
    },
    "ends with a turn of tool": {
        "messages": [user("a"), assistant("", tool_calls=[CALLED]), {"role": "tool", "content": "c"}]
    },
    "the role 'critic' is unknown": {"messages": [{"role": "critic", "content": "a"}]},
    "a turn without 'role'": {"messages": ["a"]},
    "a content of the type 'image_url', not text": {
        "messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant("b")]
    },
    "a content that is int, not text": {"messages": [{"role": "user", "content": 3}, assistant("b")]},
    "a function call that is not JSON": {"messages": [user("a"), {"role": "function_call", "content": "weather()"}]},
    "a tool call without a name": {"messages": [user("a"), assistant("", tool_calls=[{"function": {}}])]},
    "'tools' that is not JSON": {"messages": TALK, "tools": "{"},
    "no answer is trained": {"messages": [user("a"), assistant("b", trained=False)]},
    "'trained' is not true or false": {"messages": [user("a"), assistant("b", trained="no")]},
    "the turns are no list": {"messages": "hello"},
}


@pytest.mark.parametrize("reason", sorted(BAD))
def test_bad_rows_say_why_and_are_counted_by_reason(reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        conversation(BAD[reason])
    assert caught.value.message == reason
    assert caught.value.remedy
    dropped: Counter[str] = Counter()
    rows = [{"messages": TALK}, BAD[reason], {"messages": TALK}, BAD[reason]]
    assert len(list(conversations(rows, dropped))) == 2
    assert dropped == {reason: 2}
    with pytest.raises(DataError, match="row 2: "):
        list(conversations(rows))


# --- preferences


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK[:2], "chosen": "好", "rejected": "坏"},
        {"prompt": TALK[:2], "chosen": "好", "rejected": "坏"},
        {"prompt": TALK[:2], "chosen": [assistant("好")], "rejected": [assistant("坏")]},
        {"instruction": "问", "system": "be brief", "input": "", "chosen": "好", "rejected": "坏"},
        {
            "conversations": [{"from": "system", "value": "be brief"}, {"from": "human", "value": "问"}],
            "chosen": {"from": "gpt", "value": "好"},
            "rejected": {"from": "gpt", "value": "坏"},
        },
        {"chosen": [*TALK[:2], assistant("好")], "rejected": [*TALK[:2], assistant("坏")]},
    ],
)
def test_pairs_of_every_format(row: dict[str, Any]) -> None:
    (pair,) = pairs([row])
    assert (pair.messages, pair.chosen, pair.rejected) == (TALK[:2], "好", "坏")
    assert next(pairs([pair.row()])) == pair


def test_transcripts_share_their_beginning() -> None:
    (pair,) = pairs([{"chosen": HH + "yes", "rejected": HH + "no\n\nbut Human: is text"}])
    assert pair.messages == [user("hi"), assistant("Hello: how?"), user("why\nso")]
    assert (pair.chosen, pair.rejected) == ("yes", "no\n\nbut Human: is text")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": " b\n"}, "equal sides"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "empty answer"),
        ({"prompt": [user("a"), assistant("b")], "chosen": "c", "rejected": "d"}, "a prompt that does not end"),
        ({"prompt": "a", "chosen": [user("b"), assistant("c")], "rejected": "d"}, "an answer of several turns"),
        ({"chosen": HH + "a", "rejected": HH.replace("why", "how") + "b"}, "differ before the last answer"),
        ({"chosen": "hello", "rejected": "bye"}, "without 'Human:'"),
        ({"chosen": HH + "a", "rejected": HH.removesuffix("Assistant: ") + "b"}, "differ before|does not end"),
    ],
)
def test_pairs_that_prefer_nothing_are_counted(row: dict[str, Any], reason: str) -> None:
    dropped: Counter[str] = Counter()
    good = {name: (HH + name if "prompt" not in row else name) for name in row}
    assert len(list(pairs([good, row], dropped))) == 1
    assert dropped.total() == 1
    with pytest.raises(DataError, match=reason):
        list(pairs([row]))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK[:2], "answer": "答", "good": False},
        {"messages": TALK, "label": False},
        {"messages": TALK, "kto_tag": False},
        {"prompt": TALK[:2], "completion": [assistant("答")], "label": False},
    ],
)
def test_judged_answers(row: dict[str, Any]) -> None:
    (read,) = judged([row])
    assert (read.messages, read.answer, read.good) == (TALK[:2], "答", False)
    assert next(judged([read.row()])) == read
    with pytest.raises(DataError, match="not true or false"):
        list(judged([row | dict.fromkeys({"good", "label", "kto_tag"} & set(row), "bad")]))


# --- what a file looks like


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "a", "input": "b"}, "look like Alpaca, without 'output'"),
        ({"prompt": "a", "chosen": "b"}, "look like pairs, without 'rejected'"),
        ({"question": "a"}, "look like questions and answers, without 'answer' or 'completion'"),
    ],
)
def test_a_format_that_lacks_a_field_is_named_with_what_it_lacks(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        kind_of(row)
    assert "give every row" in caught.value.remedy


def test_files_of_another_kind_say_what_they_are_and_where_they_belong() -> None:
    with pytest.raises(DataError, match="of no known format") as caught:
        kind_of({"text": "a", "label": 3})
    assert "ShareGPT: 'conversations'" in caught.value.remedy
    with pytest.raises(DataError, match=r"preference pairs \(pairs\), not conversations") as caught:
        list(conversations([{"prompt": "a", "chosen": "b", "rejected": "c"}]))
    assert "tune.preference" in caught.value.remedy
    with pytest.raises(DataError, match=r"conversations \(Alpaca\), not preference pairs") as caught:
        list(pairs([{"instruction": "a", "output": "b"}]))
    assert "tune.sft" in caught.value.remedy
    dropped: Counter[str] = Counter()
    mixed = [{"messages": TALK}, {"instruction": "a", "output": "b"}]
    assert len(list(conversations(mixed, dropped))) == 1
    assert dropped == {"not OpenAI messages, as the first row is": 1}


def test_placeholders_are_filled_and_unknown_ones_told() -> None:
    rows = [{"messages": [user("你是谁"), assistant("我是{{name}}，由{{author}}训练。")]}]
    (read,) = conversations(rows, fill={"name": "贝母", "author": "海"})
    assert read.messages[1]["content"] == "我是贝母，由海训练。"
    with pytest.raises(ConfigError, match=r"placeholder \{\{nam\}\}"):
        list(conversations(rows, fill={"name": "x", "nam": "y"}))


# --- the shared sets, whole


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("source", "read_as", "rows", "dropped"),
    [
        ("sft-en-alpaca", conversations, 16000, 0),
        ("sft-zh-alpaca", conversations, 12595, 6),
        ("sft-bilingual-demo/zh.jsonl.gz", conversations, 1000, 0),
        ("sft-identity", conversations, 91, 0),
        ("sft-toolcall-demo/en.jsonl.gz", conversations, 300, 0),
        ("sft-toolcall-demo/zh.jsonl.gz", conversations, 298, 2),
        ("sft-zh-medical-qa", conversations, 6000, 0),
        ("math-en-gsm8k", conversations, 8792, 0),
        ("pref-en-hh-harmless", pairs, 1693, 7),
        ("pref-bilingual-demo", pairs, 600, 0),
    ],
)
def test_shared_sets_are_read_whole(source: str, read_as: Any, rows: int, dropped: int, shared_data: Path) -> None:
    counted: Counter[str] = Counter()
    assert sum(1 for _ in read_as(read(shared_data / source), counted)) == rows
    assert counted.total() == dropped
