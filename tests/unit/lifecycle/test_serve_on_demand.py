"""Models that are opened when they are first asked: one start for all, two at a time, none closed while it answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serve_calls import all_events, call_of, chat, looped

from nacre.errors import CheckpointError
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Ability, Call, Refusal, Reply
from nacre.lifecycle.serve.local import on_demand
from nacre.lifecycle.serve.local.offers import Offer, offer_of, offers
from nacre.lifecycle.serve.local.on_demand import OnDemand, Room, when_asked
from nacre.lineage.store import Store

CHAT: frozenset[Ability] = frozenset({"chat", "stream"})


class Scripted:
    """A model that notes when it is started and closed. `gate` holds its start back; `fails` times it cannot start."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log
        self.gate: asyncio.Event | None = None
        self.fails: list[Exception] = []
        self.go_on = asyncio.Event()

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"chat"})

    async def start(self) -> None:
        self.log.append(f"start {self.name}")
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)

    async def answer(self, call: Call) -> Reply:
        return Reply(self.name, events=self._events()) if call.stream else Reply(self.name, body=b"{}")

    async def _events(self) -> AsyncIterator[bytes]:
        yield b"one"
        await self.go_on.wait()
        yield b"two"

    async def healthy(self) -> str | None:
        return None

    async def close(self) -> None:
        self.log.append(f"close {self.name}")


def models(names: str, most: int = 2) -> tuple[list[str], dict[str, Scripted], dict[str, OnDemand]]:
    log: list[str] = []
    inner = {name: Scripted(name, log) for name in names}
    room = Room(most)
    return log, inner, {name: OnDemand(name, lambda one=one: one, CHAT, room) for name, one in inner.items()}  # type: ignore[misc]


async def settled() -> None:
    for _ in range(30):
        await asyncio.sleep(0.005)


@looped
async def test_nothing_opens_before_it_is_asked_and_one_start_serves_all() -> None:
    log, inner, lazy = models("ab")
    inner["a"].gate = asyncio.Event()
    for one in lazy.values():
        await one.start()
    assert log == []
    assert lazy["a"].abilities == CHAT
    assert await lazy["a"].healthy() is None
    asked = [asyncio.create_task(lazy["a"].answer(call_of("chat", chat("x")))) for _ in range(5)]
    await settled()
    assert log == ["start a"]
    inner["a"].gate.set()
    assert {reply.model for reply in await asyncio.gather(*asked)} == {"a"}
    assert log == ["start a"]
    assert lazy["a"].abilities == {"chat"}, "an open model says itself what it can do"
    await lazy["a"].close()
    assert log == ["start a", "close a"]


@looped
async def test_a_caller_that_leaves_does_not_end_the_start_of_the_others() -> None:
    log, inner, lazy = models("a")
    inner["a"].gate = asyncio.Event()
    leaves, stays = (asyncio.create_task(lazy["a"].answer(call_of("chat", chat("x")))) for _ in range(2))
    await settled()
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    inner["a"].gate.set()
    assert (await stays).model == "a"
    assert log == ["start a"]
    await lazy["a"].close()


@looped
async def test_the_least_recently_used_is_closed_and_never_one_that_answers() -> None:
    log, inner, lazy = models("abc")
    stream = await lazy["a"].answer(call_of("chat", chat("x", stream=True)))
    assert stream.events is not None
    assert await anext(stream.events) == b"one"
    await lazy["b"].answer(call_of("chat", chat("x")))
    await lazy["c"].answer(call_of("chat", chat("x")))
    assert log == ["start a", "start b", "close b", "start c"], "a is older, and still answers"
    inner["a"].go_on.set()
    assert await all_events(stream) == b"two"
    await lazy["b"].answer(call_of("chat", chat("x")))
    assert log[4:] == ["close c", "start b"], "a was used after c"
    for one in lazy.values():
        await one.close()
    assert log.count("close a") == log.count("start a") == 1


@looped
async def test_whoever_finds_all_places_answering_waits_until_one_is_idle_or_its_time_is_up() -> None:
    log, _, lazy = models("ab", most=1)
    stream = await lazy["a"].answer(call_of("chat", chat("x", stream=True)))
    with pytest.raises(Refusal) as told:
        await lazy["b"].answer(call_of("chat", chat("x"), seconds=0.05))
    assert told.value.status == 504
    waits = asyncio.create_task(lazy["b"].answer(call_of("chat", chat("x"))))
    await settled()
    assert not waits.done()
    await stream.events.aclose()  # type: ignore[union-attr]
    assert (await waits).model == "b"
    assert log == ["start a", "close a", "start b"]
    await lazy["b"].close()


@looped
async def test_a_start_that_fails_is_told_to_each_and_tried_anew_later(monkeypatch: pytest.MonkeyPatch) -> None:
    log, inner, lazy = models("ab", most=1)
    inner["a"].fails = [CheckpointError("model.safetensors is cut short", remedy="fetch it again")]
    told = await asyncio.gather(
        *(lazy["a"].answer(call_of("chat", chat("x"))) for _ in range(3)), return_exceptions=True
    )
    for one in told:
        assert isinstance(one, Refusal)
        assert one.status == 503
        assert "cut short" in one.message
        assert "fetch it again" in one.message
    assert "cut short" in str(await lazy["a"].healthy())
    with pytest.raises(Refusal):
        await lazy["a"].answer(call_of("chat", chat("x")))
    assert log == ["start a", "close a"], "asked again at once, it is not tried again"
    await lazy["b"].answer(call_of("chat", chat("x")))  # its place is free again
    monkeypatch.setattr(on_demand, "_NOT_AGAIN_S", 0.0)
    assert (await lazy["a"].answer(call_of("chat", chat("x")))).model == "a"
    assert await lazy["a"].healthy() is None
    await lazy["a"].close()


@looped
async def test_a_failure_that_nobody_foresaw_tells_no_details() -> None:
    _, inner, lazy = models("a")
    inner["a"].fails = [RuntimeError("secret path")]
    with pytest.raises(Refusal) as told:
        await lazy["a"].answer(call_of("chat", chat("x")))
    assert "secret path" not in told.value.message
    await lazy["a"].close()


@looped
async def test_closing_ends_a_start_under_way_and_tells_who_waits() -> None:
    log, inner, lazy = models("a")
    inner["a"].gate = asyncio.Event()
    waits = asyncio.create_task(lazy["a"].answer(call_of("chat", chat("x"))))
    await settled()
    await lazy["a"].close()
    with pytest.raises(Refusal) as told:
        await waits
    assert told.value.code == "closing"
    assert log == ["start a", "close a"]


@looped
async def test_models_are_made_in_a_thread() -> None:
    made: list[str] = []
    _, inner, _ = models("a")

    def make() -> Scripted:
        made.append(threading.current_thread().name)
        return inner["a"]

    lazy = OnDemand("a", make, CHAT, Room(1))
    await lazy.answer(call_of("chat", chat("x")))
    assert made != [threading.main_thread().name]
    await lazy.close()


# --- what a store offers

CLASSIFIER = {"architectures": ["BertForSequenceClassification"]}
DECODER = {"architectures": ["LlamaForCausalLM"]}


def folder(path: Path, **files: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (path / f"{name}.json").write_text(text, encoding="utf-8")
    return path


def rung(kind: str, tier: str = "tune") -> dict[str, Any]:
    return {"tier": tier, "solver": "bert under a head", "task": "desk", "kind": kind, "language": "en", "labels": []}


@pytest.mark.parametrize(
    ("files", "kind", "abilities"),
    [
        ({"rung": rung("classify")}, "rung", {"classify"}),
        ({"rung": rung("generate")}, "rung", {"chat", "stream"}),
        ({"rung": rung("rank")}, "rung", {"search"}),
        ({"index": {}}, "index", {"search"}),
        ({"config": CLASSIFIER}, "classifier", {"classify"}),
        ({"config": DECODER}, "model", {"completions", "stream", "embeddings"}),
        (
            {"config": DECODER, "tokenizer_config": {"chat_template": "{{ messages }}"}},
            "model",
            {"chat", "completions", "stream", "embeddings"},
        ),
        ({"config": {"architectures": ["BertForMaskedLM"]}}, "model", {"embeddings"}),
        ({"engine": {"engine": "openai_http", "offers": ["chat", "stream"]}}, "model", {"chat", "stream"}),
    ],
)
def test_what_a_folder_can_do_is_told_without_opening_it(
    tmp_path: Path, files: dict[str, Any], kind: str, abilities: set[str]
) -> None:
    offer = offer_of(folder(tmp_path, **files))
    assert isinstance(offer, Offer)
    assert (offer.kind, offer.abilities) == (kind, abilities)


def test_a_store_offers_the_newest_version_of_what_answers_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for version in (1, 2):
        folder(tmp_path / "store" / "ladder" / "desk" / "tune" / str(version), rung=rung("classify"), lineage={})
    folder(tmp_path / "store" / "words" / "1", rung=rung("tag"), lineage={})
    folder(tmp_path / "store" / "torn" / "1", rung="{", lineage={})
    folder(tmp_path / "store" / "encoder" / "1", config={"architectures": ["BertModel"]}, lineage={})
    folder(tmp_path / "store" / "data" / "1", report={}, lineage={})
    found = offers(store)
    assert {name: ref for name, (ref, _) in found.found.items()} == {"ladder/desk/tune": "ladder/desk/tune@2"}
    assert set(found.left_out) == {"words@1", "torn@1"}
    assert "tag" in found.left_out["words@1"]
    assert found.config.names == ("ladder/desk/tune",)


def test_a_damaged_folder_is_told_at_the_start(tmp_path: Path) -> None:
    where = folder(tmp_path / "m", rung="{")
    opener = when_asked(lambda name, config: pytest.fail("not asked yet"), Store(tmp_path), 2)
    with pytest.raises(CheckpointError, match=r"rung\.json cannot be read"):
        opener("m", LocalConfig(str(where)))
