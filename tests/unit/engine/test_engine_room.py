"""What a room puts around an engine: the exact cache, the budget, the ledger."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folders import echo_folder
from scripted_upstream import reply, scripted, status

from nacre.engine.base import BaseEngine, spread
from nacre.engine.cached import AnswerCache, key_of
from nacre.engine.echo import Echo, EchoSettings
from nacre.engine.metered import Metered
from nacre.engine.opening import open_bare
from nacre.engine.prices import Prices
from nacre.engine.protocol import BudgetReached, EngineError, Message, Prompt, Sampling
from nacre.engine.room import Budget, EngineRoom
from nacre.errors import CheckpointError

HOW = Sampling(max_tokens=8)
ALL = ["chat", "complete", "score", "embed", "stream"]


def chat(text: str) -> Prompt:
    return (Message("user", text),)


def test_what_was_asked_before_is_not_sent_again(tmp_path: Path) -> None:
    with scripted() as upstream:
        folder = upstream.folder(tmp_path / "engine", offers=ALL)
        for round_ in range(2):
            room = EngineRoom(cache=tmp_path / "cache")
            with room.open(folder) as engine:
                found = engine.generate([chat("a 你好"), chat("b")], HOW)
                vectors_ = engine.embed(["x", "yy"])
            assert [one.text for one in found] == ["a 你好", "b"]
            assert vectors_.vectors[:, 0].tolist() == [1.0, 2.0]
            assert [one.usage.cached for one in found] == [bool(round_)] * 2
            assert vectors_.usage.cached is bool(round_)
            assert vectors_.usage.prompt_tokens == 3
            assert room.spent.requests == (0 if round_ else 3)
        assert len(upstream.requests) == 3


def test_only_misses_are_sent(tmp_path: Path) -> None:
    with scripted() as upstream:
        room = EngineRoom(cache=tmp_path / "cache")
        with room.open(upstream.folder(tmp_path / "engine", offers=ALL)) as engine:
            engine.embed(["a", "bb"])
            found = engine.embed(["ccc", "a", "bb", "ccc"])
            assert found.vectors[:, 0].tolist() == [3.0, 1.0, 2.0, 3.0]
            assert not found.usage.cached
            engine.generate([chat("one")], HOW)
            answers = engine.generate([chat("two"), chat("one"), chat("two")], HOW)
            assert [one.usage.cached for one in answers] == [False, True, True]
        assert [one.body["input"] for one in upstream.requests if "input" in one.body] == [["a", "bb"], ["ccc"]]
        assert len(upstream.requests) == 4


def test_another_question_is_another_answer(tmp_path: Path) -> None:
    with scripted() as upstream:
        room = EngineRoom(cache=tmp_path / "cache")
        asked = [
            (chat("a"), HOW),
            (chat("b"), HOW),
            ("a", HOW),
            ((Message("system", "a"),), HOW),
            (chat("a"), Sampling(max_tokens=9)),
            (chat("a"), Sampling(max_tokens=8, stop=("x",))),
            (chat("a"), Sampling(max_tokens=8, temperature=0.5, seed=1)),
            (chat("a"), Sampling(max_tokens=8, temperature=0.5, seed=2)),
        ]
        for model in ("scripted", "other"):
            with room.open(upstream.folder(tmp_path / model, offers=ALL, model=model)) as engine:
                for prompt, how in asked:
                    engine.generate([prompt], how)
        assert len(upstream.requests) == 2 * len(asked)


def test_drawn_answers_without_a_seed_are_not_kept(tmp_path: Path) -> None:
    with scripted() as upstream:
        room = EngineRoom(cache=tmp_path / "cache")
        with room.open(upstream.folder(tmp_path / "engine")) as engine:
            for _ in range(2):
                found = engine.generate([chat("a"), chat("a")], Sampling(temperature=1.0))
                assert not any(one.usage.cached for one in found)
        assert len(upstream.requests) == 4


def test_what_was_answered_before_an_error_is_kept(tmp_path: Path) -> None:
    with scripted([reply("1"), reply("2"), status(400)]) as upstream:
        folder = upstream.folder(tmp_path / "engine", concurrency=1)
        room = EngineRoom(cache=tmp_path / "cache")
        prompts = [chat(str(n)) for n in range(4)]
        with room.open(folder) as engine:
            with pytest.raises(EngineError):
                engine.generate(prompts, HOW)
            assert room.spent.requests == 3
            assert [one.text for one in engine.generate(prompts, HOW)] == ["1", "2", "2", "3"]
        assert len(upstream.requests) == 5


def test_the_budget_ends_cleanly_and_the_next_run_goes_on(tmp_path: Path) -> None:
    prompts = [chat(str(n)) for n in range(6)]
    with scripted() as upstream:
        folder = upstream.folder(tmp_path / "engine", concurrency=1)
        for limits, sent in ((Budget(requests=2), 2), (Budget(tokens=30), 5), (Budget(requests=9), 6)):
            room = EngineRoom(cache=tmp_path / "cache", budget=limits)
            with room.open(folder) as engine:
                if sent < 6:
                    with pytest.raises(BudgetReached) as caught:
                        engine.generate(prompts, HOW)
                    assert "what was answered is kept" in caught.value.remedy
                else:
                    assert len(engine.generate(prompts, HOW)) == 6
            assert len(upstream.requests) == sent


def test_a_budget_of_requests_counts_those_under_way(tmp_path: Path) -> None:
    with scripted() as upstream:
        room = EngineRoom(budget=Budget(requests=5))
        with room.open(upstream.folder(tmp_path, concurrency=4)) as engine, pytest.raises(BudgetReached):
            engine.generate([chat(str(n)) for n in range(50)], HOW)
        assert len(upstream.requests) == 5


def test_money_is_paid_by_kind_and_unknown_prices_stay_unknown(tmp_path: Path) -> None:
    prices = Prices(input_per_million=1e6, output_per_million=1e7, embedding_per_million=1e3)
    with scripted() as upstream:
        folder = upstream.folder(tmp_path / "engine", offers=ALL)
        room = EngineRoom(prices=prices)
        with room.open(folder) as engine:
            engine.generate([chat("a")], HOW)  # 7 read, 3 written
            assert room.spent.money == pytest.approx(7 + 30)
            engine.embed(["abcd"])
            assert room.spent.money == pytest.approx(37.004)
        unknown = EngineRoom()
        with unknown.open(folder) as engine:
            engine.generate([chat("a")], HOW)
        assert (unknown.spent.money, unknown.spent.unpriced) == (0.0, 1)


def test_what_runs_here_is_priced_by_its_seconds(tmp_path: Path) -> None:
    class Slow(Echo):
        priced_by_time = True

    room = EngineRoom(prices=Prices(input_per_million=1e9, machine_hour=3600.0))
    Metered(Slow(), room).generate(["x"], HOW)
    assert 0 < room.spent.money < 1


def test_failed_attempts_are_in_the_ledger(tmp_path: Path) -> None:
    with scripted([status(500), status(500), reply("x")]) as upstream:
        room = EngineRoom()
        with room.open(upstream.folder(tmp_path)) as engine:
            engine.generate([chat("a")], HOW)
        assert room.spent.requests == 3


def test_cached_answers_are_streamed_as_well(tmp_path: Path) -> None:
    room = EngineRoom(cache=tmp_path / "cache")
    with room.open(echo_folder(tmp_path / "echo")) as engine:
        for _ in range(2):
            heard: dict[int, str] = {}
            engine.generate(
                ["x", "你好 there"], HOW, on_token=lambda i, piece, to=heard: to.update({i: to.get(i, "") + piece})
            )
            assert heard == {0: "x", 1: "你好 there"}


def test_cut_texts_are_counted_from_the_cache_too(tmp_path: Path) -> None:
    class Cutting(Echo):
        def embed(self, texts: Any) -> Any:
            from dataclasses import replace

            return replace(super().embed(texts), truncated=1, cut=(1,))

    engine = Metered(Cutting(), EngineRoom(), AnswerCache(tmp_path))
    for _ in range(2):
        found = engine.embed(["a", "b", "c"])
        assert (found.truncated, found.cut) == (1, (1,))
    assert found.usage.cached


def test_local_engines_answer_from_the_cache_over_either_way(tmp_path: Path) -> None:
    folder, room = echo_folder(tmp_path / "echo"), EngineRoom(cache=tmp_path / "cache")
    with room.open(folder) as here:
        first = here.embed(["a", "我"])
    with room.open(folder, remote=True) as there:
        second = there.embed(["a", "我"])
    assert second.usage.cached
    np.testing.assert_array_equal(first.vectors, second.vectors)


# --- the file


def test_a_damaged_cache_is_put_aside_and_said(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put([(key_of("e", "v", 1), {"text": "x"}, None)])
    cache.close()
    cache.file.write_bytes(b"this is no database, but long enough to look like one" * 40)
    again = AnswerCache(tmp_path)
    assert again.get([key_of("e", "v", 1)]) == {}
    again.put([(key_of("e", "v", 2), {"text": "y"}, b"z")])
    assert again.get([key_of("e", "v", 2)]) == {key_of("e", "v", 2): ({"text": "y"}, b"z")}
    assert "put aside" in again.remarks[0]
    assert [one.name for one in tmp_path.iterdir() if "damaged" in one.name]


def test_damage_in_the_middle_never_reaches_the_user(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put([(key_of("e", "v", n), {"text": "x" * 500}, None) for n in range(400)])
    cache.close()
    with sqlite3.connect(cache.file) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(cache.file.read_bytes())
    data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
    cache.file.write_bytes(data)
    again = AnswerCache(tmp_path)
    again.get([key_of("e", "v", n) for n in range(400)])
    again.put([(key_of("e", "v", 1), {"text": "new"}, None)])
    assert again.get([key_of("e", "v", 1)])[key_of("e", "v", 1)][0] == {"text": "new"}


def test_an_unusable_place_is_said_once_and_the_engine_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    room = EngineRoom(cache=tmp_path / "file" / "cache")
    with room.open(echo_folder(tmp_path / "echo")) as engine:
        for _ in range(2):
            assert engine.generate(["a"], HOW)[0].text == "a"
        assert len(engine.remarks) == 1  # type: ignore[attr-defined]
        assert "cannot be used" in engine.remarks[0]  # type: ignore[attr-defined]


def _write_forever(folder: Path, start: int) -> None:
    cache = AnswerCache(folder)
    for n in range(start, start + 10**6):
        cache.put([(key_of("e", "v", n), {"n": n}, None)])


def test_killed_writers_leave_a_whole_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_forever, args=(tmp_path, start)) for start in (0, 10**7)]
    for one in writers:
        one.start()
    deadline = time.monotonic() + 20
    reader = AnswerCache(tmp_path)
    while not all(reader.get([key_of("e", "v", start + 5)]) for start in (0, 10**7)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for one in writers:
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    again = AnswerCache(tmp_path)
    for start in (0, 10**7):
        assert again.get([key_of("e", "v", start + 3)]) == {key_of("e", "v", start + 3): ({"n": start + 3}, None)}
    again.put([(key_of("e", "v", "after"), {}, None)])
    with sqlite3.connect(again.file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert again.remarks == reader.remarks == []


def test_threads_write_to_one_cache(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)

    def work(first: int) -> None:
        for n in range(first, first + 50):
            cache.put([(key_of("e", "v", n), {"n": n}, None)])

    threads = [threading.Thread(target=work, args=(50 * n,)) for n in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = cache.get([key_of("e", "v", n) for n in range(300)])
    assert sorted(body["n"] for body, _ in found.values()) == list(range(300))


# --- opening


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither") as caught:
        open_bare(tmp_path, EngineRoom())
    assert "http://HOST/v1#MODEL" in caught.value.remedy


def test_spreading_keeps_order_and_raises_the_first_error() -> None:
    assert spread(lambda n: n * n, range(20), 4) == [n * n for n in range(20)]
    with pytest.raises(EngineError):
        spread(_fails, range(20), 4)


def _fails(n: int) -> int:
    raise EngineError("no", remedy="none")


def test_the_base_engine_can_nothing() -> None:
    from nacre.engine.protocol import Capabilities, Unsupported

    engine = BaseEngine("none", "none", Capabilities())
    for call in (lambda: engine.generate(["a"], HOW), lambda: engine.score([("a", "b")]), lambda: engine.embed(["a"])):
        with pytest.raises(Unsupported, match="it can: nothing"):
            call()


# --- the echo


def test_echo_answers_by_rules(tmp_path: Path) -> None:
    rules = [["refund (\\w+)", "class: \\1"], ["退(款|货)", "类别：退\\1"]]
    with EngineRoom().open(echo_folder(tmp_path, answers=rules)) as engine:
        found = engine.generate(["please refund me", chat("我要退款"), "first\nlast line"], HOW)
    assert [one.text for one in found] == ["class: me", "类别：退款", "last line"]


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("Choose one.\n- card_lost\n- refund\n\nMy card is lost", "card_lost"),
        ("Labels: lost card, refund, delivery\n\nI want a refund now", "refund"),
        ("从下面选择：\n- 退款：要求退钱\n- 物流：包裹在哪\n\n我的包裹在哪里", "物流"),
        ("标签：退款、物流、密码\n\n忘记密码了", "密码"),
    ],
)
def test_echo_picks_the_label_that_overlaps_most(prompt: str, label: str) -> None:
    assert Echo(EchoSettings(pick_label=True)).generate([prompt], HOW)[0].text == label


@pytest.mark.parametrize(
    ("near", "far"),
    [(("refund my order", "please refund the order"), "reset a password"), (("退款怎么办", "我要退款"), "包裹在哪里")],
)
def test_echo_puts_similar_texts_near_each_other(near: tuple[str, str], far: str) -> None:
    found = Echo().embed([*near, far]).vectors
    assert found[0] @ found[1] > found[0] @ found[2] + 0.1
