"""Dynamic batches and continuous batching: order, bounds, blame, cancellation, and the same answers as alone."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence

import pytest
import torch
from engine_folders import native_folder
from pico import pico, tokens
from serve_calls import looped

from nacre.engine.native import Native
from nacre.engine.protocol import Generation, Sampling
from nacre.errors import DataError
from nacre.kernel.generate import GenerationConfig, generate
from nacre.kernel.running import Asked, Running
from nacre.kernel.sampling import SamplingConfig
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.local.batcher import Batcher, Bounds
from nacre.lifecycle.serve.local.slots import Slots
from nacre.lifecycle.serve.local.worker import Pace, Worker


class Model:
    """Answers items with themselves; holds its batches until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.go.wait(10)
        self.batches.append(list(items))
        if "bad" in items:
            raise DataError("this text is bad", remedy="leave it out")
        if "broken" in items:
            raise RuntimeError("secret prompt text")
        return [item.upper() for item in items]


@looped
async def test_texts_of_many_requests_share_batches_and_keep_their_order() -> None:
    model = Model()
    model.go.clear()
    worker, batcher = opened(model, Bounds(8, 0.001, 64))
    asked = [asyncio.create_task(batcher.ask([f"{n}-{k}" for k in range(n % 3 + 1)])) for n in range(12)]
    await asyncio.sleep(0.01)
    model.go.set()
    for number, answer in enumerate(await asyncio.gather(*asked)):
        assert answer == [f"{number}-{k}" for k in range(number % 3 + 1)]
    assert max(map(len, model.batches)) == 8
    assert len(model.batches) < 12
    await batcher.close()
    await worker.close()


def opened(model: Model, bounds: Bounds) -> tuple[Worker, Batcher[str, str]]:
    worker = Worker("model")
    batcher = Batcher("model", model, worker, bounds)
    batcher.start()
    return worker, batcher


@looped
async def test_a_full_queue_is_429_with_the_measured_wait() -> None:
    model = Model()
    model.go.clear()
    worker, batcher = opened(model, Bounds(2, 0.0, 3))
    batcher.pace.note(8.0, 2)  # four seconds each
    waiting = [asyncio.create_task(batcher.ask(["a"])) for _ in range(3)]
    await asyncio.sleep(0.02)
    with pytest.raises(Refusal) as refused:
        await batcher.ask(["b"])
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
    assert refused.value.retry_after is not None
    assert 4.0 <= refused.value.retry_after <= 12.0
    with pytest.raises(Refusal, match="takes 6"):
        await batcher.ask(["x"] * 7)
    model.go.set()
    assert await asyncio.gather(*waiting) == [["A"]] * 3
    assert await batcher.ask(["again"]) == ["AGAIN"]
    await batcher.close()
    await worker.close()


@looped
async def test_a_bad_text_fails_its_own_request_only() -> None:
    model = Model()
    model.go.clear()
    worker, batcher = opened(model, Bounds(8, 0.001, 64))
    asked = [asyncio.create_task(batcher.ask(items)) for items in (["a"], ["b", "bad"], ["c"])]
    await asyncio.sleep(0.01)
    model.go.set()
    good, bad, other = await asyncio.gather(*asked, return_exceptions=True)
    assert (good, other) == (["A"], ["C"])
    assert isinstance(bad, Refusal)
    assert (bad.status, "bad" in bad.message) == (400, True)
    with pytest.raises(Refusal) as broken:
        await batcher.ask(["broken"])
    assert broken.value.status == 500
    assert "secret" not in broken.value.message
    await batcher.close()
    await worker.close()


@looped
async def test_whoever_leaves_the_queue_is_not_computed_and_closing_tells_the_rest() -> None:
    model = Model()
    model.go.clear()
    worker, batcher = opened(model, Bounds(1, 0.0, 8))
    first, second, third = (asyncio.create_task(batcher.ask([name])) for name in "abc")
    await asyncio.sleep(0.02)
    second.cancel()
    await asyncio.sleep(0)
    model.go.set()
    assert (await first, await third) == (["A"], ["C"])
    assert ["b"] not in model.batches
    model.go.clear()
    last = asyncio.create_task(batcher.ask(["d"]))
    await asyncio.sleep(0.02)
    model.go.set()
    await batcher.close()
    with pytest.raises(Refusal) as refused:
        await last
    assert refused.value.status == 503
    assert batcher.waiting == 0
    await worker.close()


def test_the_wait_is_whole_seconds_and_bounded() -> None:
    pace = Pace()
    assert pace.wait_s(100) == 1.0
    pace.note(1.0)
    assert pace.wait_s(30) == 30.0
    assert pace.wait_s(10_000) == 120.0


@pytest.mark.parametrize("name", ["gpt2", "llama3", "mistral", "qwen3", "t5"])
def test_texts_that_come_and_go_are_written_as_alone(name: str) -> None:
    """Random arrivals and departures: every text is what `generate` writes for it alone, greedy and drawn."""
    rng = random.Random(name)
    kernel = pico(name)
    prompts = [tokens(1, rng.randint(1, 14), seed=n)[0].tolist() for n in range(10)]
    configs = [
        GenerationConfig(rng.randint(1, 18), SamplingConfig(rng.choice([0.0, 0.0, 0.9]), top_p=0.95), seed=n)
        for n in range(10)
    ]
    running, coming, done, leaving = Running(kernel), list(range(10)), {}, {3, 7}
    while coming or running:
        new = [coming.pop(0) for _ in range(rng.randint(0, 3)) if coming]
        running.admit([Asked(n, prompts[n], configs[n]) for n in new])
        if rng.random() < 0.3 and leaving:
            gone = leaving & set(range(10)) - set(coming)
            running.leave(gone)
            leaving -= gone
        for drawn in running.step():
            if drawn.done is not None:
                done[drawn.number] = drawn.done
    assert len(done) >= 8
    for number, found in done.items():
        alone = generate(kernel, [prompts[number]], configs[number])[0]
        assert found.ids == alone.ids
        assert found.stopped == alone.stopped
        torch.testing.assert_close(
            torch.tensor(found.log_probabilities), torch.tensor(alone.log_probabilities), atol=2e-4, rtol=1e-4
        )


def test_padding_does_not_pile_up_in_the_cache() -> None:
    """A batch that never empties stays as long as its longest text, not as its history."""
    running = Running(pico("llama3"))
    for number in range(30):
        running.admit([Asked(number, [5, 6, 7], GenerationConfig(6, SamplingConfig(0.0)))])
        running.step()
        running.step()
        assert running._cache.length <= 3 + 6 + 1


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return Native(native_folder(tmp_path_factory.mktemp("decoder"), "decoder"))


@looped
async def test_slots_answer_as_the_engine_alone(engine: Native) -> None:
    rng = random.Random(3)
    texts = ["where is my parcel", "我的包裹在哪里？", "refund 发货", "x", "a longer question about cards", "hello"]
    asks = [
        (
            rng.choice(texts),
            Sampling(
                rng.randint(1, 12), rng.choice([0.0, 0.8]), stop=rng.choice([(), ("e",), ("。", " t")]), seed=number
            ),
        )
        for number in range(14)
    ]
    worker = Worker("slots")
    slots = Slots(engine, worker, Bounds(4, 0.0, 64))
    slots.start()

    async def one(text: str, how: Sampling, delay: float) -> tuple[str, Generation]:
        await asyncio.sleep(delay)
        writing, pieces = await slots.write(text, how), list[str]()
        while isinstance(found := await writing.next(), str):
            pieces.append(found)
        return "".join(pieces), found

    written = await asyncio.gather(*(one(text, how, rng.random() * 0.05) for text, how in asks))
    await slots.close()
    await worker.close()
    for (text, how), (streamed, answer) in zip(asks, written, strict=True):
        alone = engine.generate([text], how)[0]
        assert (answer.text, answer.stopped, answer.usage) == (alone.text, alone.stopped, alone.usage)
        assert streamed == alone.text


@looped
async def test_a_new_request_waits_for_a_round_not_for_the_longest(engine: Native) -> None:
    worker, rounds = Worker("slots"), list[int]()
    slots = Slots(engine, worker, Bounds(2, 0.0, 8))
    inner = slots._round

    def counted(gone: Sequence[int], new: Sequence[object]) -> object:
        rounds.append(len(new))
        return inner(gone, new)  # type: ignore[arg-type]

    slots._round = counted  # type: ignore[method-assign,assignment]
    slots.start()
    long = await slots.write("x", Sampling(60, 0.9, seed=1))
    await long.next()
    before = len(rounds)
    short = await slots.write("where is", Sampling(1))
    await short.whole()
    assert not long.ended
    assert len(rounds) - before <= 6  # its own round, and those under way while its prompt was cut into tokens
    long.leave()
    await slots.close()
    await worker.close()


@looped
async def test_leaving_frees_the_slot_and_a_full_queue_refuses(engine: Native) -> None:
    worker = Worker("slots")
    slots = Slots(engine, worker, Bounds(1, 0.0, 1))
    slots.start()
    holder = await slots.write("x", Sampling(80, 0.9, seed=2))
    await holder.next()
    waits = await slots.write("where", Sampling(2))
    with pytest.raises(Refusal) as refused:
        await slots.write("three", Sampling(2))
    assert (refused.value.status, refused.value.retry_after is not None) == (429, True)
    holder.leave()
    assert (await waits.whole()).usage.completion_tokens is not None
    with pytest.raises(DataError, match="shorten"):
        await slots.write("long " * 200, Sampling(2))
    await slots.close()
    await worker.close()


@looped
async def test_a_kernel_that_fails_tells_everyone_and_goes_on(engine: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("slots")
    slots = Slots(engine, worker, Bounds(4, 0.0, 8))
    slots.start()
    with monkeypatch.context() as patch:
        patch.setattr(Running, "step", lambda self: 1 / 0)
        writing = await slots.write("x", Sampling(3))
        with pytest.raises(Refusal) as refused:
            await writing.whole()
        assert refused.value.status == 500
    again = await (await slots.write("x", Sampling(3))).whole()
    assert again.text == engine.generate(["x"], Sampling(3))[0].text
    await slots.close()
    await worker.close()
