"""Masking of requests to the gateway: bodies, tool arguments, policies by route, answers whole and in pieces."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from nacre.data.masking import Found
from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import ANYONE, Call, Refusal, Reply
from nacre.lifecycle.serve.masked import Covering, Mask

ID, PHONE, MAIL = "11010519491231002X", "13800138000", "zhang@qq.com"
SECRETS = (ID, PHONE, MAIL)


def call(body: dict[str, Any], route: str = "chat", model: str = "m") -> Call:
    now = time.monotonic()
    return Call("r1", route, ANYONE, model, body, orjson.dumps(body), False, now, now + 60)  # type: ignore[arg-type]


def chat(content: Any, **more: Any) -> Call:
    return call({"model": "m", "messages": [{"role": "user", "content": content}], **more})


def cover(one: Call, mask: Mask | None = None, **section: Any) -> Covering | None:
    made = mask or Mask.from_section(section or {"default": "mask"}, "serve.yaml: masking")
    assert made is not None
    return asyncio.run(made.cover(one))


def event(choice: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


def delta(text: str) -> bytes:
    return event({"delta": {"content": text}, "finish_reason": None})


def stream(covered: Covering, chunks: list[bytes]) -> bytes:
    async def events() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def read() -> bytes:
        reply = covered.restore(Reply("m", events=events()))
        assert reply.events is not None
        return b"".join([chunk async for chunk in reply.events])

    return asyncio.run(read())


def said(data: bytes, key: str = "content") -> str:
    """What a client makes of the events."""
    text = ""
    for line in data.splitlines():
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice.get("delta", {}).get(key) or ""
    return text


def test_every_text_of_a_request_is_masked_and_raw_with_it() -> None:
    one = chat(
        [
            {"type": "text", "text": f"我是{ID}"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ],
        user=MAIL,
        metadata={"from": PHONE},
    )
    covered = cover(one)
    assert covered is not None
    assert covered.found == 3
    assert one.body["messages"][0]["content"][0]["text"] == "我是[ID_1]"
    assert one.body["model"] == "m"
    assert orjson.loads(one.raw) == one.body
    assert not any(secret.encode() in one.raw for secret in SECRETS)


@pytest.mark.parametrize(
    ("route", "field", "value"),
    [("embeddings", "input", [PHONE, "x"]), ("completions", "prompt", PHONE), ("search", "query", f"找{PHONE}")],
)
def test_inputs_prompts_and_queries_are_masked(route: str, field: str, value: Any) -> None:
    one = call({"model": "m", field: value}, route)
    assert cover(one) is not None
    assert PHONE not in str(one.body)


def test_tool_arguments_stay_json_and_numbers_in_them_are_masked() -> None:
    arguments = json.dumps({"note": f"line\n{MAIL}", "tel": int(PHONE), MAIL: [1, True, None]})
    message = {"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": arguments}}]}
    one = call({"model": "m", "messages": [message]})
    assert cover(one) is not None
    masked = json.loads(one.body["messages"][0]["tool_calls"][0]["function"]["arguments"])
    assert masked == {"note": "line\n[EMAIL_1]", "tel": "[PHONE_1]", "[EMAIL_1]": [1, True, None]}


def test_arguments_without_personal_data_are_not_rewritten() -> None:
    arguments = '{"a" :  1,"手机":"无"}'
    one = call({"model": "m", "messages": [{"tool_calls": [{"function": {"arguments": arguments}}], "content": PHONE}]})
    assert cover(one) is not None
    assert one.body["messages"][0]["tool_calls"][0]["function"]["arguments"] == arguments


def test_a_request_without_personal_data_is_left_as_it_came() -> None:
    one = chat("今天天气怎么样")
    body, raw = one.body, one.raw
    assert cover(one) is None
    assert one.body is body
    assert one.raw is raw


def test_a_whole_answer_is_restored_and_values_are_escaped_inside_arguments() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"
    covered = cover(chat(f"{PHONE} {key}"))
    assert covered is not None
    message = {"content": "回[PHONE_1]", "tool_calls": [{"function": {"arguments": '{"k": "[PRIVATE_KEY_1]"}'}}]}
    reply = covered.restore(Reply("m", body=json.dumps({"choices": [{"message": message}]}).encode()))
    assert reply.body is not None
    restored = json.loads(reply.body)["choices"][0]["message"]
    assert restored["content"] == f"回{PHONE}"
    assert json.loads(restored["tool_calls"][0]["function"]["arguments"]) == {"k": key}


def test_an_answer_that_names_no_placeholder_keeps_its_bytes() -> None:
    covered = cover(chat(PHONE))
    assert covered is not None
    body = b'{ "choices" : [ ] }'
    assert covered.restore(Reply("m", body=body)).body == body
    events = [delta("你好 ["), delta("1]"), b": ping\n\n", b"data: [DONE]\n\n"]
    assert said(stream(covered, events)) == "你好 [1]"
    plain = [delta("你好"), b": ping\n\n", b"data: [DONE]\n\n"]
    assert stream(covered, plain) == b"".join(plain)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_a_placeholder_split_over_events_and_bytes_is_restored(size: int) -> None:
    covered = cover(chat(f"{PHONE}和{ID}"))
    assert covered is not None
    pieces = ["打", "[", "PHO", "NE_", "1]", "，证件[ID", "_1", "]。"]
    sent = b"".join([*map(delta, pieces), event({"delta": {}, "finish_reason": "stop"}), b"data: [DONE]\n\n"])
    out = stream(covered, [sent[start : start + size] for start in range(0, len(sent), size)])
    assert said(out) == f"打{PHONE}，证件{ID}。"
    assert out.endswith(b"data: [DONE]\n\n")


def test_what_was_held_back_is_sent_before_the_end() -> None:
    covered = cover(chat(PHONE))
    assert covered is not None
    finished = stream(covered, [delta("a [PHO"), event({"delta": {}, "finish_reason": "stop"}), b"data: [DONE]\n\n"])
    assert said(finished) == "a [PHO"
    assert finished.count(b"finish_reason") == 2
    cut_short = stream(covered, [delta("a [PHO")])
    assert said(cut_short) == "a [PHO"


def test_streamed_arguments_are_restored_and_escaped() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"
    covered = cover(chat(key))
    assert covered is not None

    def piece(text: str) -> bytes:
        return event({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}, "finish_reason": None})

    end = event({"delta": {}, "finish_reason": "tool_calls"})
    out = stream(
        covered, [piece('{"k": "[PRIV'), piece("ATE_KEY"), piece('_1]"'), piece("}"), end, b"data: [DONE]\n\n"]
    )
    arguments = ""
    for line in out.splitlines():
        if line.startswith(b"data: {"):
            for call_ in json.loads(line[6:])["choices"][0]["delta"].get("tool_calls", []):
                arguments += call_["function"]["arguments"]
    assert json.loads(arguments) == {"k": key}


def test_two_choices_are_restored_apart() -> None:
    covered = cover(chat(PHONE))
    assert covered is not None
    events = [event({"index": number, "delta": {"content": text}}) for text in ("[PHONE", "_1]") for number in (0, 1)]
    assert said(stream(covered, events)) == PHONE * 2


def test_blocked_kinds_are_refused_by_name_and_count_never_by_value() -> None:
    with pytest.raises(Refusal) as refused:
        cover(chat(f"{ID}、{PHONE}"), kinds={"identity": "block"})
    assert refused.value.status == 400
    assert "Chinese identity number (1)" in refused.value.message
    assert not any(secret in str(refused.value.body()) for secret in SECRETS)


def test_policies_differ_by_route_and_model() -> None:
    section = {"default": "mask", "routes": {"embeddings": {"default": "allow"}, "inner": {"default": "allow"}}}
    mask = Mask.from_section(section, "here", models=("inner",))
    assert cover(call({"model": "m", "input": PHONE}, "embeddings"), mask) is None
    assert cover(call({"model": "inner", "prompt": PHONE}, "completions", "inner"), mask) is None
    assert cover(call({"model": "m", "prompt": PHONE}, "completions"), mask) is not None


def test_what_cannot_be_looked_into_is_let_through_or_refused() -> None:
    ids = call({"model": "m", "prompt": [[1, 2, 3]]}, "completions")
    assert cover(ids) is None
    with pytest.raises(Refusal, match="token ids"):
        cover(ids, opaque="block")
    with pytest.raises(Refusal, match="images"):
        cover(chat([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]), opaque="block")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"defualt": "mask"}, "defualt"),
        ({"kinds": {"mobil": "mask"}}, "mobil"),
        ({"kinds": {"mobile": "hide"}}, "mobile"),
        ({"routes": {"chatt": {"default": "allow"}}}, "chatt"),
        ({"tagger": "nacre.nowhere:tag"}, "nowhere"),
    ],
)
def test_a_wrong_section_is_named_at_start(section: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        Mask.from_section(section, "serve.yaml: masking")
    assert named in str(error.value)


def test_no_section_is_no_masking_and_a_tagger_finds_names() -> None:
    assert Mask.from_section({}, "here") is None
    section = {"tagger": f"{__name__}:tag"}
    import sys

    sys.modules[__name__].__dict__["tag"] = lambda text: [Found("name", 2, 4)] if "张三" in text else []
    one = chat("我叫张三")
    assert cover(one, **section) is not None
    assert one.body["messages"][0]["content"] == "我叫[NAME_1]"


def test_meters_hear_kinds_and_counts() -> None:
    heard: list[dict[str, int]] = []

    class Meters:
        def masked(self, kinds: dict[str, int]) -> None:
            heard.append(dict(kinds))

    mask = Mask.from_section({"default": "mask"}, "here", meters=Meters())  # type: ignore[arg-type]
    cover(chat(f"{PHONE} {PHONE}"), mask)
    cover(chat("无"), mask)
    assert heard == [{"mobile": 2}]


def test_deeply_nested_arguments_are_refused_not_followed() -> None:
    arguments = "[" * 200 + "]" * 200
    one = call({"model": "m", "messages": [{"tool_calls": [{"function": {"arguments": arguments}}]}]})
    with pytest.raises(Refusal, match="nested"):
        cover(one)
