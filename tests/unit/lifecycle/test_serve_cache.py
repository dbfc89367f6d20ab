"""The cache: what is kept, for whom, how it is marked, and what nearness may never pass over."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_calls import ALICE, BOB, all_events, call_of, chat, looped

from nacre.errors import ConfigError
from nacre.lifecycle.serve.cache import AnswerCache, CacheConfig, is_fixed, key_of
from nacre.lifecycle.serve.cache_opening import identity_of, open_cache, read_cache
from nacre.lifecycle.serve.cache_store import Kept, MemoryStore, SqliteStore
from nacre.lifecycle.serve.config import parse
from nacre.lifecycle.serve.contract import Refusal, Reply, Usage
from nacre.lifecycle.serve.sameness import may_be_same
from nacre.lifecycle.serve.semantic import Semantic, SemanticConfig

USED = Usage(7, 3, "upstream")


def cache_of(semantic: Semantic | None = None, **config: Any) -> AnswerCache:
    return AnswerCache(CacheConfig(**config), lambda model: f"identity of {model}", semantic)


def reply_of(text: str = "five days", **more: Any) -> Reply:
    body = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
    return Reply(
        "mini", body=json.dumps(body).encode(), usage=USED, headers={"content-type": "application/json"}, **more
    )


def stream_of(*events: bytes, **more: Any) -> Reply:
    async def passing() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    return Reply("mini", events=passing(), usage=USED, headers={"content-type": "text/event-stream"}, **more)


EVENTS = (b'data: {"choices":[{"delta":{"content":"fi', b've"}}]}\n\ndata: {"choices":[]}\n\n', b"data: [DONE]\n\n")


@looped
async def test_a_hit_is_the_same_answer_marked_and_the_callers_own() -> None:
    cache = cache_of()
    assert await cache.get(call_of("chat", chat("how long"))) is None
    await cache.put(call_of("chat", chat("how long")), reply_of())
    found = await cache.get(call_of("chat", chat("how long", user="somebody else")))
    assert found is not None
    assert (found.body, found.model, found.usage) == (reply_of().body, "mini", USED)
    assert found.cached
    assert found.headers["x-nacre-cache"] == "hit"
    assert await cache.get(call_of("chat", chat("how long"), caller=BOB)) is None
    assert await cache.get(call_of("completions", chat("how long"))) is None
    await cache.close()


@looped
async def test_shared_answers_are_everybodys() -> None:
    cache = cache_of(shared=True)
    await cache.put(call_of("chat", chat("how long")), reply_of())
    assert await cache.get(call_of("chat", chat("how long"), caller=BOB)) is not None


@looped
async def test_a_stream_is_recorded_as_it_passes_and_replayed_once() -> None:
    cache = cache_of()
    body = chat("how long", stream=True)
    reply = stream_of(*EVENTS)
    await cache.put(call_of("chat", body), reply)
    assert reply.events is not None
    passed = [chunk async for chunk in reply.events]
    assert passed == list(EVENTS)  # byte for byte, chunk for chunk
    found = await cache.get(call_of("chat", body))
    assert found is not None
    assert await all_events(found) == b"".join(EVENTS)
    assert found.usage == USED
    assert await cache.get(call_of("chat", chat("how long"))) is None  # whose answer has another form


@looped
async def test_only_whole_successful_answers_are_kept() -> None:
    cache = cache_of(longest_bytes=400)
    filtered = Reply("m", body=b'{"choices":[{"finish_reason":"content_filter"}]}')
    wrong = [
        reply_of(status=500), reply_of("x" * 400), filtered, Reply("m", body=b"{"),
        Reply("m", body=b'{"error":{}, "e":1}'),
        Reply("m", body=b'{"error":{"message":"no"}}'), reply_of(cached=True),
    ]  # fmt: skip
    moved = reply_of()
    moved.headers["x-nacre-failover"] = "first,second"
    for number, reply in enumerate([*wrong, moved]):
        await cache.put(call_of("chat", chat(f"question {number}")), reply)
    kept = [n for n in range(len(wrong) + 1) if await cache.get(call_of("chat", chat(f"question {n}")))]
    assert kept == [4]  # an empty error is none
    streams = [
        EVENTS[:2], (*EVENTS[:2], b'data: {"error":{"message":"died"}}\n\n', EVENTS[2]), (b"data: x\n\n", EVENTS[2]),
        (*EVENTS, b'data: {"late":1}\n\n'), (b'data: {"long":"' + b"x" * 400 + b'"}\n\n', EVENTS[2]),
    ]  # fmt: skip
    for number, events in enumerate(streams):
        body = chat(f"stream {number}", stream=True)
        reply = stream_of(*events)
        await cache.put(call_of("chat", body), reply)
        assert await all_events(reply) == b"".join(events)
        assert await cache.get(call_of("chat", body)) is None
    body = chat("stream cut", stream=True)
    reply = stream_of(*EVENTS)
    await cache.put(call_of("chat", body), reply)
    reply.truncated = True
    await all_events(reply)
    assert await cache.get(call_of("chat", body)) is None
    assert sum(cache.counts.not_kept.values()) >= 11


@looped
async def test_a_client_that_leaves_a_stream_keeps_nothing_and_closes_its_source() -> None:
    cache, closed = cache_of(), []

    async def passing() -> AsyncIterator[bytes]:
        try:
            for event in EVENTS:
                yield event
        finally:
            closed.append(True)

    body = chat("how long", stream=True)
    reply = Reply("m", events=passing())
    await cache.put(call_of("chat", body), reply)
    assert reply.events is not None
    await anext(reply.events)
    await reply.events.aclose()  # type: ignore[attr-defined]
    assert closed == [True]
    assert await cache.get(call_of("chat", body)) is None


def test_what_is_fixed() -> None:
    def fixed(route: Any, **body: Any) -> bool:
        return is_fixed(call_of(route, {"model": "m", **body}))

    assert fixed("chat", temperature=0)
    assert fixed("chat", temperature=0.0)
    assert fixed("chat", temperature=1, seed=7)
    assert fixed("embeddings")
    assert fixed("classify")
    assert not fixed("chat")  # OpenAI's default is 1
    assert not fixed("chat", temperature=0.2)
    assert not fixed("chat", temperature=False)
    assert not fixed("chat", temperature=1, seed=None)
    assert not fixed("chat", temperature=0, store=True)
    assert not fixed("search")


@looped
async def test_a_client_may_pass_the_cache_by() -> None:
    cache = cache_of()
    await cache.put(call_of("chat", chat("a"), cache_control="no-store"), reply_of("not kept"))
    assert await cache.get(call_of("chat", chat("a"))) is None
    await cache.put(call_of("chat", chat("a")), reply_of("old"))
    assert await cache.get(call_of("chat", chat("a"), cache_control="no-cache")) is None
    await cache.put(call_of("chat", chat("a"), cache_control="no-cache"), reply_of("new"))
    found = await cache.get(call_of("chat", chat("a")))
    assert found is not None
    assert found.body == reply_of("new").body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(["messages", "temperature", "seed", "stop", "tools", "new_thing"]), JSON)


@given(BODIES, st.text(max_size=5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_key_knows_no_order_and_no_nulls_and_every_field_that_matters(body: Any, user: str, rng: Any) -> None:
    key = key_of("chat", "i", "alice", body)
    fields = list(body.items())
    rng.shuffle(fields)
    assert key_of("chat", "i", "alice", {"user": user, **dict(fields), "top_p": None}) == key
    for changed in ({**body, "top_p": 0.5}, {**body, "new_thing": ["other", body.get("new_thing")]}):
        assert key_of("chat", "i", "alice", changed) != key
    assert (
        len(
            {
                key,
                key_of("completions", "i", "alice", body),
                key_of("chat", "j", "alice", body),
                key_of("chat", "i", "bob", body),
            }
        )
        == 4
    )


def test_spellings_of_a_number_are_one_and_truth_is_no_number() -> None:
    def key(**body: Any) -> bytes:
        return key_of("chat", "i", "a", body)

    assert key(temperature=0) == key(temperature=0.0) == key(temperature=-0.0)
    assert key(seed=1) != key(seed=True)
    assert key(messages=["\ud800"]) != key(messages=["?"])
    assert key(stop="ab", seed=1) != key(stop="a", seed=1)


# --- where answers lie


def kept(text: bytes = b"x" * 100) -> Kept:
    return Kept(text, False, "mini", {}, USED)


def test_memory_is_bounded_in_bytes_and_age_and_the_used_stay() -> None:
    now = [1000.0]
    store = MemoryStore(3 * kept().size, 60.0, lambda: now[0])
    for name in (b"a", b"b", b"c"):
        store.put(name, kept())
    assert store.get(b"a") is not None
    store.put(b"d", kept())
    assert [store.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert store.nbytes == 3 * kept().size
    store.put(b"huge", kept(b"x" * 5000))
    assert store.get(b"huge") is None
    now[0] += 61
    assert store.get(b"a") is None
    assert len(store) == 2  # the rest goes when it is asked for, or when room is needed


@looped
async def test_a_file_keeps_answers_over_a_restart_within_its_bounds_for_its_owner_alone(tmp_path: Path) -> None:
    file, now = tmp_path / "answers.db", [1000.0]

    def opened() -> SqliteStore:
        return SqliteStore(file, 3 * kept().size, 60.0, lambda: now[0])

    store = opened()
    for name in (b"a", b"b", b"c"):
        now[0] += 1
        await store.put(name, kept())
    now[0] += 1
    assert await store.get(b"a") is not None
    await store.put(b"d", kept())
    assert await store.get(b"b") is None
    await store.close()
    await store.close()
    assert file.stat().st_mode & 0o077 == 0
    store = opened()
    found = await store.get(b"a")
    assert found is not None
    assert (found.data, found.model, found.usage) == (kept().data, "mini", USED)
    now[0] += 61
    assert await store.get(b"a") is None
    await store.put(b"e", kept())
    await store.close()
    assert sqlite3.connect(file).execute("SELECT count(*) FROM kept").fetchone() == (1,)


@looped
async def test_a_file_that_fails_is_not_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        SqliteStore(tmp_path, 1000, 60.0)
    store = SqliteStore(tmp_path / "answers.db", 10_000, 60.0)
    await store._do(lambda: store._database.execute("DROP TABLE kept"), None)
    await store.put(b"a", kept())
    assert await store.get(b"a") is None
    await store.close()


# --- nearness


def embedder(vectors: dict[str, Sequence[float]]) -> Any:
    async def embed(text: str) -> Sequence[float]:
        if text not in vectors:
            raise Refusal(503, "down", code="down")
        return vectors[text]

    return embed


NEAR = {
    "How long do refunds take?": [1.0, 0.0],
    "How long does a refund take?": [0.97, 0.243],
    "Where am I": [0.0, 1.0],
}


@looped
async def test_a_near_question_is_answered_marked_with_its_cosine() -> None:
    cache = cache_of(Semantic(SemanticConfig("e", 0.95), embedder(NEAR)))
    first, near, far = NEAR
    asked = call_of("chat", chat(first))
    assert await cache.get(asked) is None
    await cache.put(asked, reply_of())
    found = await cache.get(call_of("chat", chat(near)))
    assert found is not None
    assert found.cached
    assert found.headers["x-nacre-cache"] == "semantic 0.97"
    others = [
        call_of("chat", chat(near), caller=BOB),
        call_of("chat", chat(near, max_tokens=5)),
        call_of("chat", chat(near, model="other")),
        call_of(
            "chat", chat(near) | {"messages": [{"role": "system", "content": "Be brief."}, *chat(near)["messages"]]}
        ),
        call_of("chat", chat(near, stream=True)),
        call_of("chat", chat(near, temperature=1)),
        call_of("chat", chat(far)),
        call_of("chat", chat("a question whose vector cannot be had")),
    ]
    for call in others:
        assert await cache.get(call) is None
    assert (cache.counts.near_hits, cache.counts.hits) == (1, 0)


@looped
async def test_questions_are_bounded() -> None:
    vectors = {f"question {word}": [1.0, n / 50] for n, word in enumerate("abcdefgh")}
    semantic = Semantic(SemanticConfig("e", 0.5, entries=3), embedder(vectors))
    cache = cache_of(semantic)
    for number, text in enumerate(vectors):
        await cache.put(call_of("chat", chat(text, seed=number % 2)), reply_of(text))
    assert sum(map(len, semantic._frames.values())) == semantic._count == 3


SAME = [
    ("How long do refunds take?", "how long does a refund take"),
    ("退款多久到账？", "请问退款多久到账"),
    ("What's the weather like in Paris?", "how is the weather in Paris"),
    ("30 天内可以退货吗", "30天内可以退货么？"),
    ("ｒｅｆｕｎｄ ３０ days", "refund 30 days please"),
]
DIFFERENT = [
    ("Can I return it after 30 days?", "Can I return it after 31 days?"),
    ("Can I return it after thirty days?", "Can I return it after forty days?"),
    ("30 天内可以退货吗", "31 天内可以退货吗"),
    ("三天内可以退货吗", "四天内可以退货吗"),
    ("第一季度的收入", "第二季度的收入"),
    ("1.5 million", "15 million"),
    ("Is it allowed?", "Is it not allowed?"),
    ("Is it allowed?", "Isn't it allowed?"),
    ("I don’t want a refund", "I do want a refund"),
    ("Is this available?", "Is this unavailable?"),
    ("可以退款吗", "不可以退款吗"),
    ("没有收到货", "收到货"),
    ("没收到货怎么办", "收到货怎么办"),
    ("非会员的价格", "会员的价格"),
    ("convert USD to EUR", "convert EUR to USD"),
    ("flight from Berlin to Paris", "flight from Paris to Berlin"),
    ("flight to Paris", "flight to Madrid"),
    ("从北京到上海的票", "从上海到北京的票"),
    ("how to enable it", "how to disable it"),
    ("before the trial", "after the trial"),
    ("会议前", "会议后"),
    ("增加额度", "减少额度"),
    ("error E404", "error E405"),
    ("5 > 3", "5 < 3"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_question_in_other_words_may_be_same(one: str, other: str) -> None:
    assert may_be_same(one, other)
    assert may_be_same(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_near_but_different_is_never_same(one: str, other: str) -> None:
    assert not may_be_same(one, other)
    assert not may_be_same(other, one)


@looped
async def test_numbers_and_negations_are_misses_however_near_the_vectors_are() -> None:
    for one, other in DIFFERENT:
        cache = cache_of(Semantic(SemanticConfig("e"), embedder({one: [1.0, 0.0], other: [1.0, 0.0]})))
        asked = call_of("chat", chat(one))
        await cache.get(asked)
        await cache.put(asked, reply_of())
        assert await cache.get(call_of("chat", chat(other))) is None, (one, other)


# --- from a config


def test_the_section_is_strict_and_names_the_closest_key() -> None:
    def said(section: dict[str, Any]) -> str:
        return " ".join(str(one) for one in read_cache(section, "cache", ["e"])[1])

    assert read_cache({}, "cache", []) == (CacheConfig(), [])
    read, problems = read_cache({"semantic": {"model": "e"}}, "cache", ["e"])
    assert problems == []
    assert read is not None
    assert read.semantic == SemanticConfig("e", 0.95)
    assert "did you mean 'shared'" in said({"sharde": True})
    assert "threshold" in said({"semantic": {"model": "e", "threshold": 97.0}})
    assert "did you mean 'e'" in said({"semantic": {"model": "ee"}})
    assert "cache.keep_s" in said({"keep_s": 0.0})


def test_an_identity_is_the_address_and_the_first_of_a_route() -> None:
    upstream = "upstream: {address: 'https://h.example/v1', model: big}"
    text = f"models: {{a: {{{upstream}}}, b: {{local: {{ref: x}}}}}}\nroutes: {{r: [a, b]}}\n"
    config = parse(text, "serve.yaml")
    assert identity_of("r", config, {}) == identity_of("a", config, {}) == "upstream:https://h.example/v1#big"
    assert identity_of("b", config, {}) is None
    assert identity_of("nothing", config, {}) is None
    with pytest.raises(ConfigError, match="unknown model"):
        open_cache(parse(text + "cache: {semantic: {model: c}}\n", "serve.yaml"), {})


@looped
async def test_without_an_identity_nothing_is_kept() -> None:
    cache = AnswerCache(CacheConfig(), lambda model: None)
    await cache.put(call_of("chat", chat("a")), reply_of())
    assert await cache.get(call_of("chat", chat("a"))) is None
    assert cache.counts.not_kept == {"no identity": 1}


@looped
async def test_many_at_once() -> None:
    cache = cache_of()

    async def one(number: int) -> bool:
        call = call_of("embeddings", {"model": "m", "input": f"text {number % 5}"}, caller=ALICE if number % 2 else BOB)
        if await cache.get(call) is None:
            await asyncio.sleep(0)
            await cache.put(call, Reply("m", body=b'{"data":[]}', usage=USED))
        return await cache.get(call) is not None

    assert all(await asyncio.gather(*(one(number) for number in range(60))))
    assert not cache._keys or len(cache._keys) <= 60
