"""Models of ours behind the gateway: checkpoints, classifiers, rungs and indexes, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folders import echo_folder, foreign_folder, native_folder
from serve_calls import all_events, call_of, chat, chunks_of, looped, text_of

from nacre.data.tokenizer import Tokenizer
from nacre.engine.native import Native
from nacre.engine.protocol import Message, Sampling
from nacre.errors import CheckpointError, NacreError, UsageError
from nacre.kernel import hf
from nacre.kernel.running import Drawn
from nacre.lazy import named
from nacre.lifecycle.evaluate.answer import answer
from nacre.lifecycle.evaluate.predict import open_model
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.local.model import LocalModel
from nacre.lifecycle.serve.local.opening import open_local
from nacre.lifecycle.serve.local.slots import Slots
from nacre.lifecycle.serve.local.writing import Rounds
from nacre.lineage.store import Store
from nacre.progress import Silent

TEXTS = ["where is my parcel", "我的包裹在哪里？", "a longer question about refunds, cards and 发货", "x"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder, an encoder, a classifier, an encoder-decoder and an echo."""
    top = tmp_path_factory.mktemp("models")
    for kind in ("decoder", "encoder", "encoder-decoder"):
        native_folder(top / kind, kind)
    echo_folder(top / "echo")
    native_folder(top / "classifier", "encoder", seed=1)
    labels = ("billing", "shipping", "退款")
    hf.save(hf.load(top / "classifier").with_head("classify", labels=labels), top / "classifier")
    return top


def local(folder: Path, **config: Any) -> LocalModel:
    return open_local("m", LocalConfig(str(folder), "cpu", **config), Store(folder.parent / "store"))


def body_of(reply: Any) -> Any:
    assert reply.body is not None
    return json.loads(reply.body)


async def refused(served: LocalModel, route: Any, /, **body: Any) -> Refusal:
    with pytest.raises(Refusal) as found:
        await served.answer(call_of(route, {"model": "m", **body}))
    return found.value


@looped
async def test_chats_are_the_engines_whole_and_streamed(folders: Path) -> None:
    engine = Native(folders / "decoder")
    model = local(folders / "decoder", batch=3)
    await model.start()
    assert model.abilities == {"chat", "completions", "embeddings", "stream"}
    rng = random.Random(5)

    async def one(text: str, stream: bool, most: int) -> None:
        await asyncio.sleep(rng.random() * 0.05)
        asked = chat(text, max_tokens=most, stream=stream, stream_options={"include_usage": True})
        if not stream:
            del asked["stream_options"]
        reply = await model.answer(call_of("chat", asked))
        alone = engine.generate([(Message("user", text),)], Sampling(most))[0]
        if stream:
            data = await all_events(reply)
            chunks = chunks_of(data)
            said, finish, usage = text_of(data), chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]
            assert data.endswith(b"data: [DONE]\n\n")
            assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
            assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        else:
            body = body_of(reply)
            said, finish = body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]
            usage = body["usage"]
        assert said == alone.text
        assert finish == {"end": "stop", "length": "length"}[alone.stopped]
        counted = (alone.usage.prompt_tokens, alone.usage.completion_tokens)
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == counted
        assert (reply.usage.prompt, reply.usage.completion, reply.usage.counted_by) == (*counted, "tokenizer")
        assert reply.headers["x-nacre-engine"] == "decoder"

    await asyncio.gather(*(one(rng.choice(TEXTS), rng.random() < 0.5, rng.randint(1, 12)) for _ in range(16)))
    await model.close()


@looped
async def test_completions_of_several_prompts_stops_and_seeds(folders: Path) -> None:
    engine, model = Native(folders / "decoder"), local(folders / "decoder")
    await model.start()
    asked = {"model": "m", "prompt": TEXTS, "max_tokens": 6, "temperature": 0.8, "top_p": 0.9, "seed": 11, "stop": "e"}
    body = body_of(await model.answer(call_of("completions", asked)))
    alone = engine.generate(TEXTS, Sampling(6, 0.8, 0.9, ("e",), 11))
    assert [one["text"] for one in body["choices"]] == [one.text for one in alone]
    assert body["usage"]["completion_tokens"] == sum(one.usage.completion_tokens or 0 for one in alone)
    again = body_of(await model.answer(call_of("completions", asked)))
    assert again["choices"] == body["choices"]
    scored = {"model": "m", "prompt": "where 我的", "echo": True, "logprobs": 1, "max_tokens": 0}
    found = body_of(await model.answer(call_of("completions", scored)))
    assert len(found["choices"][0]["logprobs"]["token_logprobs"]) == len(engine.token_scores("where 我的"))
    await model.close()


@looped
async def test_what_cannot_be_done_is_named(folders: Path) -> None:
    model = local(folders / "decoder")
    await model.start()
    hi = {"messages": [{"role": "user", "content": "hi"}]}
    unable: dict[str, Any] = {
        "logit_bias": {"5": 1}, "n": 2, "tools": [{"type": "function"}], "response_format": {"type": "json_schema"},
        "presence_penalty": 0.5, "logprobs": True, "top_k": 5, "never_heard_of": 1, "max_tokens": 0,
        "temperature": 3, "seed": 1.5, "stream_options": {"other": True}, "stop": [""], "max_completion_tokens": True,
    }  # fmt: skip
    for name, value in unable.items():
        found = await refused(model, "chat", **hi, **{name: value})
        assert found.status == 400
        assert name.replace("max_completion_tokens", "max_tokens") in found.message
    idle = {
        "logit_bias": {}, "n": 1, "tools": [], "response_format": {"type": "text"}, "presence_penalty": 0.0,
        "logprobs": False, "user": "u", "metadata": {"a": "b"}, "top_p": None, "stop": None, "max_tokens": 1,
    }  # fmt: skip
    assert (await model.answer(call_of("chat", {"model": "m", **hi, **idle}))).status == 200
    assert (await refused(model, "chat", messages=[{"role": "tool", "content": "x"}])).status == 400
    assert "positions" in (await refused(model, "completions", prompt="long " * 400)).message
    assert (await refused(model, "classify", input="x")).status == 400
    assert (await refused(model, "embeddings", input=[[1, 2]])).status == 400
    assert (await refused(model, "embeddings", input=["a", " "])).message.startswith("text 2")
    assert "dimensions" in (await refused(model, "embeddings", input="a", dimensions=3)).message
    await model.close()
    assert (await refused(model, "chat", **hi)).status == 503
    assert await model.healthy() == "m is closed"


@looped
async def test_embeddings_are_the_engines_in_any_batch(folders: Path) -> None:
    engine, model = Native(folders / "encoder"), local(folders / "encoder", batch=4)
    await model.start()
    assert model.abilities == {"embeddings"}
    whole = engine.embed(TEXTS)

    async def one(rows: list[int], encoding: str) -> None:
        texts = [TEXTS[row] for row in rows]
        asked = {"model": "m", "input": texts, "encoding_format": encoding}
        reply = await model.answer(call_of("embeddings", asked))
        for row, found in zip(rows, body_of(reply)["data"], strict=True):
            vector = found["embedding"]
            if encoding == "base64":
                vector = np.frombuffer(base64.b64decode(vector), "<f4")
            np.testing.assert_allclose(vector, whole.vectors[row], atol=1e-5)
        alone = engine.embed(texts)
        assert (reply.usage.prompt, reply.usage.completion) == (alone.usage.prompt_tokens, 0)

    rng = random.Random(2)
    await asyncio.gather(
        *(one(rng.sample(range(4), rng.randint(1, 4)), rng.choice(["float", "base64"])) for _ in range(12))
    )
    long = await model.answer(call_of("embeddings", {"model": "m", "input": ["short", "word " * 300]}))
    assert body_of(long)["truncated"] == [1]
    await model.close()


async def until(held: Callable[[], bool]) -> None:
    """Waits for what other tasks bring about."""
    async with asyncio.timeout(60):
        while not held():
            await asyncio.sleep(0.005)


@looped
async def test_a_client_that_leaves_frees_its_slot(folders: Path) -> None:
    model = local(folders / "decoder", batch=1, queue=1)
    await model.start()
    writer: Slots = model._writer  # type: ignore[attr-defined]
    step, go = writer._running.step, threading.Event()

    def held() -> list[Drawn]:
        assert go.wait(60)
        return step()

    writer._running.step = held  # type: ignore[method-assign]
    body = {"model": "m", "prompt": "x", "max_tokens": 80, "temperature": 0.9, "seed": 2}
    first = asyncio.create_task(model.answer(call_of("completions", body | {"stream": True})))
    await until(lambda: len(writer._seats) == 1)
    waits = asyncio.create_task(model.answer(call_of("completions", body | {"max_tokens": 2})))
    await until(lambda: len(writer._waiting) == 1)
    full = await refused(model, "completions", **body)
    go.set()
    reply = await first
    assert (full.status, full.code) == (429, "queue_full")
    assert full.retry_after is not None
    assert reply.events is not None
    await reply.events.aclose()  # type: ignore[attr-defined]  # before a single event was read
    assert (await waits).status == 200
    task = asyncio.create_task(model.answer(call_of("completions", body)))
    await asyncio.sleep(0.02)
    task.cancel()
    assert (await model.answer(call_of("completions", body | {"max_tokens": 1}))).status == 200
    await model.close()


@looped
async def test_a_deadline_is_kept_before_and_inside_a_stream(folders: Path) -> None:
    model = local(folders / "decoder")
    await model.start()
    with pytest.raises(Refusal) as late:
        await model.answer(call_of("chat", chat("hi"), seconds=0.0))
    assert late.value.status == 504
    call = call_of("completions", {"model": "m", "prompt": "x", "max_tokens": 80, "seed": 2, "stream": True})
    reply = await model.answer(call)
    call.deadline = time.monotonic()
    data = await all_events(reply)
    assert reply.truncated
    assert b'"error"' in data
    assert b"[DONE]" not in data
    await model.close()


@looped
async def test_engines_without_slots_write_in_rounds(folders: Path) -> None:
    model = local(folders / "echo")
    await model.start()
    replies = await asyncio.gather(*(model.answer(call_of("chat", chat(f"line {n}"))) for n in range(9)))
    assert [body_of(one)["choices"][0]["message"]["content"] for one in replies] == [f"line {n}" for n in range(9)]
    data = await all_events(await model.answer(call_of("chat", chat("你好 there", stream=True))))
    assert text_of(data) == "你好 there"
    found = await model.answer(call_of("embeddings", {"model": "m", "input": ["a b", "c"]}))
    assert found.usage.prompt == 3
    await model.close()


@pytest.mark.slow
@looped
async def test_a_model_of_transformers_is_served_too(tmp_path: Path) -> None:
    model = local(foreign_folder(tmp_path / "neox", "decoder"))
    await model.start()
    replies = await asyncio.gather(
        *(
            model.answer(call_of("completions", {"model": "m", "prompt": text, "max_tokens": 4, "temperature": 0}))
            for text in TEXTS
        )
    )
    engine = model.engine  # type: ignore[attr-defined]
    for text, reply in zip(TEXTS, replies, strict=True):
        assert body_of(reply)["choices"][0]["text"] == engine.generate([text], Sampling(4))[0].text
    await model.close()


@looped
async def test_which_engine_gets_slots(folders: Path) -> None:
    for name, kind in (("decoder", Slots), ("encoder-decoder", Slots), ("echo", Rounds)):
        model = local(folders / name)
        await model.start()
        assert isinstance(model._writer, kind)  # type: ignore[attr-defined]
        await model.close()


@looped
async def test_a_classifier_says_label_scores_and_tokens(folders: Path) -> None:
    model = local(folders / "classifier", batch=2)
    await model.start()
    assert model.abilities == {"classify"}
    expected = answer(open_model(folders / "classifier", None, "cpu", 8, Silent()), TEXTS, {}, top=3).answers
    reply = await model.answer(call_of("classify", {"model": "m", "input": TEXTS, "top_k": 2}))
    body = body_of(reply)
    assert (body["object"], body["model"]) == ("list", "m")
    for index, (found, one) in enumerate(zip(body["data"], expected, strict=True)):
        assert (found["index"], found["label"], len(found["scores"])) == (index, one["label"], 2)
        for score, best in zip(found["scores"], one["top"], strict=False):
            assert score["label"] == best["label"]
            assert score["score"] == pytest.approx(best["probability"], abs=2e-4)
    tokenizer = Tokenizer.load(folders / "classifier")
    assert body["usage"]["prompt_tokens"] == sum(len(tokenizer.encode(text)) for text in TEXTS) == reply.usage.prompt
    single = body_of(await model.answer(call_of("classify", {"model": "m", "input": TEXTS[1]})))
    assert single["data"][0]["label"] == expected[1]["label"]
    assert (await refused(model, "classify", input="x", top_k=0)).param == "top_k"
    assert (await refused(model, "classify", input="x", temperature=1)).param == "temperature"
    assert (await refused(model, "chat", **chat("x"))).status == 400
    await model.close()


def rung_folder(folder: Path, kind: str, answers: dict[str, Any]) -> Path:
    """A rung that is opened by `FakeRung` of this file."""
    folder.mkdir()
    manifest = {
        "tier": "baseline", "solver": "fake", "task": "desk", "kind": kind, "language": "en", "labels": ["a", "b"],
        "how": {"answers": answers},
    }  # fmt: skip
    (folder / "rung.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


class FakeRung:
    """Answers from its manifest."""

    def __init__(self, folder: Path, manifest: Any, room: Any) -> None:
        self.answers = manifest.how["answers"]
        self.field = {"classify": "text", "generate": "source", "rank": "query"}[manifest.kind]

    def answer(self, rows: Any) -> list[Any]:
        made, cited = named("nacre.tiers.rung:Answer"), named("nacre.tiers.rung:Citation")
        out = []
        for row in rows:
            value = self.answers.get(row[self.field])
            where = (cited("faq.md", 3, 9, "passage", 0.5),) if value else ()
            out.append(made(value, None if value else "nothing fits", {"a": 0.25, "b": 0.75}, citations=where))
        return out

    def close(self) -> None:
        self.answers = None


@pytest.fixture
def fake_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    import nacre.tiers.rung

    monkeypatch.setattr(nacre.tiers.rung, "OPENERS", {"baseline": f"{__name__}:FakeRung"})


@looped
async def test_a_rung_classifies_and_cites(tmp_path: Path, fake_rungs: None) -> None:
    model = local(rung_folder(tmp_path / "rung", "classify", {"hello": "b"}))
    await model.start()
    reply = await model.answer(call_of("classify", {"model": "m", "input": ["hello", "other"]}))
    first, second = body_of(reply)["data"]
    assert first["label"] == "b"
    assert first["scores"] == [{"label": "b", "score": 0.75}, {"label": "a", "score": 0.25}]
    assert first["citations"][0] == {"source": "faq.md", "start": 3, "end": 9, "text": "passage", "score": 0.5}
    assert (second["label"], second["problem"]) == (None, "nothing fits")
    assert (reply.usage.prompt, reply.usage.counted_by) == (None, "nobody")
    await model.close()


@looped
async def test_a_rung_that_writes_answers_chats(tmp_path: Path, fake_rungs: None) -> None:
    model = local(rung_folder(tmp_path / "rung", "generate", {"多久到账": "五天"}))
    await model.start()
    assert model.abilities == {"chat", "stream"}
    body = body_of(await model.answer(call_of("chat", chat("多久到账"))))
    assert body["choices"][0]["message"]["content"] == "五天"
    assert body["citations"][0]["source"] == "faq.md"
    data = await all_events(await model.answer(call_of("chat", chat("多久到账", stream=True))))
    assert text_of(data) == "五天"
    assert data.endswith(b"data: [DONE]\n\n")
    assert (await refused(model, "chat", **chat("unknown"))).code == "no_answer"
    assert (await refused(model, "chat", **chat("x") | {"temperature": 0.7})).param == "temperature"
    assert (await refused(model, "chat", **chat("x", max_tokens=5))).param == "max_tokens"
    two = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
    assert (await refused(model, "chat", messages=two)).param == "messages"
    await model.close()


@looped
async def test_a_rung_that_ranks_searches(tmp_path: Path, fake_rungs: None) -> None:
    model = local(rung_folder(tmp_path / "rung", "rank", {"money": ["faq.md", "a", "b"]}))
    await model.start()
    body = body_of(await model.answer(call_of("search", {"model": "m", "query": "money", "limit": 2})))
    assert [(hit["source"], hit["text"], hit["score"]) for hit in body["data"]] == [
        ("faq.md", "passage", 0.5), ("a", None, 0.25),
    ]  # fmt: skip
    await model.close()


@looped
async def test_a_tagger_and_an_empty_folder_are_refused_at_the_start(tmp_path: Path, fake_rungs: None) -> None:
    model = local(rung_folder(tmp_path / "rung", "tag", {}))
    with pytest.raises(CheckpointError, match="no route"):
        await model.start()
    await model.close()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="can be served"):
        local(tmp_path / "empty")
    with pytest.raises(NacreError, match="no file or folder"):
        local(tmp_path / "missing")


PAGES = {
    "refund.md": ("Money comes back in five days.", "money"),
    "parcel.md": ("A late parcel is looked for.", "post"),
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    pages = tmp_path / "pages"
    pages.mkdir()
    for name, (text, topic) in PAGES.items():
        (pages / name).write_text(
            f"---\ntopic: {topic}\n---\n\n{text}\n\n退款五天内到账，{topic}。\n", encoding="utf-8"
        )
    named("nacre.tiers.retrieval.build:build_index")(pages, tmp_path / "index")
    return tmp_path / "index"


@looped
async def test_an_index_finds_cites_and_filters(index: Path) -> None:
    model = local(index, batch=4)
    await model.start()
    assert model.abilities == {"search"}

    async def hits(query: str, **more: Any) -> list[Any]:
        return list(body_of(await model.answer(call_of("search", {"model": "m", "query": query, **more})))["data"])

    asked = [("late parcel", "parcel.md"), ("money back", "refund.md")] * 5
    for (_, source), found in zip(asked, await asyncio.gather(*(hits(q, limit=1) for q, _ in asked)), strict=True):
        assert found[0]["source"] == source
        text = (index.parent / "pages" / source).read_text(encoding="utf-8")
        assert text[found[0]["start"] : found[0]["end"]] == found[0]["text"]
        assert found[0]["score"] > 0
    assert {hit["source"] for hit in await hits("退款到账", filter={"topic": "post"})} == {"parcel.md"}
    assert len(await hits("退款到账", filter={"topic": ["post", "money"]})) == 2
    assert (await refused(model, "search", query="x", filter={"topik": "post"})).message.count("topic")
    assert (await refused(model, "search", query="x", filter=["topic"])).param == "filter"
    assert (await refused(model, "search", query="x", limit=1000)).param == "limit"
    assert (await refused(model, "search", query="x", mode="dense")).status == 400
    assert (await refused(model, "search", query="  ")).status == 400
    await model.close()


@looped
async def test_an_index_of_vectors_wants_its_engine(index: Path, folders: Path) -> None:
    build, room = named("nacre.tiers.retrieval.build:build_index"), named("nacre.engine.room:EngineRoom")
    with room().open(folders / "echo") as engine:
        build(index.parent / "pages", index.parent / "dense", engine=engine)
    manifest = json.loads((index.parent / "dense" / "index.json").read_text())
    (index.parent / "dense" / "index.json").write_text(json.dumps(manifest | {"mode": "dense"}))
    model = local(index.parent / "dense")
    with pytest.raises(UsageError, match="echo"):
        await model.start()
    await model.close()


@looped
async def test_the_meters_hear_what_waits_and_runs(folders: Path) -> None:
    heard = []
    config = LocalConfig(str(folders / "decoder"), "cpu", batch=1)
    model = open_local("m", config, Store(folders / "store"), lambda *told: heard.append(told))
    await model.start()
    await asyncio.gather(*(model.answer(call_of("chat", chat(text, max_tokens=3))) for text in TEXTS))
    assert max(waiting for _, waiting, _ in heard) >= 2
    assert max(running for _, _, running in heard) == 1
    assert heard[-1] == ("m", 0, 0)
    await model.close()
