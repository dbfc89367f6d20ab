"""The contract of `engine/protocol.py`, held by every engine of the catalogue, directly and over loopback HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folders import echo_folder, foreign_folder, native_folder

from nacre.engine.catalogue import ENGINES, find
from nacre.engine.opening import open_bare
from nacre.engine.protocol import Capabilities, Engine, Message, Prompt, Sampling, Unsupported, Usage
from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError, DataError

MAKERS: dict[str, Any] = {
    "echo": echo_folder,
    **{f"native-{kind}": partial(native_folder, kind=kind) for kind in ("encoder", "decoder", "encoder-decoder")},
    **{
        f"transformers-{kind}": partial(foreign_folder, kind=kind) for kind in ("encoder", "decoder", "encoder-decoder")
    },
}
WAYS = [*MAKERS, *(f"openai_http-{name}" for name in MAKERS)]
TEXTS = [
    "where is my parcel",
    "我的包裹在哪里？",
    "a much longer question about refunds, cards and 发货 that goes on for a while",
    "x",
    "退款",
    "café 🙂 naïve",
    "where is my parcel",
]
HOW = Sampling(max_tokens=6)


@pytest.fixture(scope="session")
def engine_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("engines")
    return {name: make(top / name) for name, make in MAKERS.items()}


@pytest.fixture(params=WAYS)
def engine(request: pytest.FixtureRequest, engine_folders: dict[str, Path]) -> Iterator[Engine]:
    """Every engine, as a room opens it, without the cache."""
    way = request.param.removeprefix("openai_http-")
    with EngineRoom().open(engine_folders[way], remote=way != request.param) as found:
        yield found


def prompts_for(engine: Engine) -> list[Prompt]:
    """Texts, messages, or both, as the engine can take them."""
    out: list[Prompt] = []
    if engine.capabilities.complete:
        out += TEXTS
    if engine.capabilities.chat:
        out += [(Message("system", "be brief"), Message("user", text)) for text in TEXTS]
    return out


def test_every_engine_of_the_catalogue_is_held_to_the_contract() -> None:
    assert set(ENGINES) == {way.partition("-")[0] for way in WAYS}
    with pytest.raises(ConfigError, match="did you mean 'native'"):
        find("nativ")


def test_the_right_engine_opens_a_folder(engine_folders: dict[str, Path]) -> None:
    for name, folder in engine_folders.items():
        with open_bare(folder, EngineRoom()) as engine:
            assert engine.identity.partition("/")[0].partition(":")[0] == name.partition("-")[0]


def test_it_is_an_engine_with_something_to_offer(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.name
    assert engine.capabilities != Capabilities()


def test_identity_is_that_of_what_answers(engine_folders: dict[str, Path]) -> None:
    for folder in engine_folders.values():
        room = EngineRoom()
        with (
            room.open(folder) as here,
            room.open(folder, remote=True) as there,
            room.open(folder, remote=True) as again,
        ):
            assert here.identity == there.identity == again.identity
            assert there.name == f"{here.name} over loopback HTTP"
        with EngineRoom(through_http=False).open(folder, remote=True) as direct:
            assert direct.name == here.name


def test_writing_keeps_order_and_counts(engine: Engine) -> None:
    prompts = prompts_for(engine)
    if not prompts:
        pytest.skip("does not write")
    alone = [engine.generate([prompt], HOW)[0] for prompt in prompts]
    together = engine.generate(prompts, HOW)
    assert [one.text for one in together] == [one.text for one in alone]
    for one in together:
        assert one.stopped in ("end", "length", "stop")
        assert one.usage.requests == 1
        assert one.usage.counted_by in ("tokenizer", "upstream")
        assert one.usage.prompt_tokens is not None
        assert one.usage.prompt_tokens > 0
        assert one.usage.completion_tokens is not None
        assert one.usage.completion_tokens <= HOW.max_tokens
        assert one.timing.seconds >= 0
        assert one.model in engine.name


def test_pieces_join_to_the_text(engine: Engine) -> None:
    prompts = prompts_for(engine)
    if not engine.capabilities.stream:
        with pytest.raises(Unsupported):
            engine.generate(prompts or ["x"], HOW, on_token=lambda i, piece: None)
        return
    plain = engine.generate(prompts, Sampling(max_tokens=20))
    pieces: list[list[str]] = [[] for _ in prompts]
    found = engine.generate(prompts, Sampling(max_tokens=20), on_token=lambda i, piece: pieces[i].append(piece))
    assert ["".join(one) for one in pieces] == [one.text for one in found] == [one.text for one in plain]


def test_stop_strings_end_an_answer_and_never_show(engine: Engine) -> None:
    prompts = prompts_for(engine)[:3]
    if not prompts:
        pytest.skip("does not write")
    long = Sampling(max_tokens=20)
    for prompt, whole in zip(prompts, engine.generate(prompts, long), strict=True):
        middle = whole.text[len(whole.text) // 2 :][:2]
        if not middle or "\ufffd" in whole.text:
            continue
        pieces: list[str] = []
        how = Sampling(max_tokens=20, stop=(middle,))
        found = engine.generate([prompt], how, on_token=lambda i, piece, to=pieces: to.append(piece))[0]
        assert found.text == whole.text[: whole.text.find(middle)]
        assert "".join(pieces) == found.text


def test_a_seed_fixes_a_drawn_answer_whatever_stands_beside_it(engine: Engine) -> None:
    prompts = prompts_for(engine)[:4]
    if not prompts:
        pytest.skip("does not write")
    how = Sampling(max_tokens=6, temperature=1.0, seed=5)
    together = [one.text for one in engine.generate(prompts, how)]
    assert together == [engine.generate([prompt], how)[0].text for prompt in prompts]


def test_vectors_do_not_depend_on_their_neighbours(engine: Engine) -> None:
    if not engine.capabilities.embed:
        with pytest.raises(Unsupported) as caught:
            engine.embed(["x"])
        assert "embed" in caught.value.remedy
        return
    together = engine.embed(TEXTS)
    assert together.vectors.shape == (len(TEXTS), engine.capabilities.dimensions)
    assert together.vectors.dtype == np.float32
    alone = np.concatenate([engine.embed([text]).vectors for text in TEXTS])
    np.testing.assert_allclose(together.vectors, alone, atol=1e-5)
    np.testing.assert_allclose(together.vectors[0], together.vectors[-1], atol=1e-5)
    assert not np.allclose(together.vectors[0], together.vectors[1])
    assert together.usage.prompt_tokens == sum(engine.embed([text]).usage.prompt_tokens or 0 for text in TEXTS)


def test_texts_beyond_the_context_are_counted(engine: Engine) -> None:
    if not engine.capabilities.embed or engine.capabilities.context is None:
        pytest.skip("no embeddings, or no limit")
    found = engine.embed(["short", "long 长 " * 200, "short"])
    assert (found.truncated, found.cut) == (1, (1,))
    assert np.isfinite(found.vectors).all()


def test_scores_are_sums_over_the_continuation(engine: Engine) -> None:
    pairs: list[tuple[Prompt, str]] = [("where is my", " parcel"), ("我的包裹", "在哪里"), ("a", "b")]
    if not engine.capabilities.score:
        with pytest.raises(Unsupported):
            engine.score(pairs)
        return
    together = engine.score(pairs)
    for pair, one in zip(pairs, together, strict=True):
        assert one.log_probability < 0
        assert one.tokens > 0
        assert one.usage.requests == 1
        assert engine.score([pair])[0].log_probability == pytest.approx(one.log_probability, abs=1e-5)


def test_scores_are_the_same_over_http(engine_folders: dict[str, Path]) -> None:
    pairs: list[tuple[Prompt, str]] = [
        ("where is my", " parcel"),
        ("我的包裹", "在哪里"),
        ("pa", "rcel 包裹"),
        ("", "订单"),
    ]
    for name in ("native-decoder", "transformers-decoder", "echo"):
        with (
            EngineRoom().open(engine_folders[name]) as here,
            EngineRoom().open(engine_folders[name], remote=True) as far,
        ):
            for mine, theirs in zip(here.score(pairs), far.score(pairs), strict=True):
                assert (mine.tokens, round(mine.log_probability, 4)) == (
                    theirs.tokens,
                    round(theirs.log_probability, 4),
                )


def test_nothing_asked_is_nothing_answered(engine: Engine) -> None:
    able = engine.capabilities
    if able.complete or able.chat:
        assert engine.generate([], HOW) == []
    if able.score:
        assert engine.score([]) == []
    if able.embed:
        assert engine.embed([]).vectors.shape[0] == 0
        assert engine.embed([]).usage == Usage()


@pytest.mark.parametrize("verb", ["chat", "complete", "score", "embed"])
def test_what_is_not_declared_is_refused_with_a_remedy(engine: Engine, verb: str) -> None:
    calls = {
        "chat": lambda: engine.generate([(Message("user", "hi"),)], HOW),
        "complete": lambda: engine.generate(["hi"], HOW),
        "score": lambda: engine.score([("a", "b")]),
        "embed": lambda: engine.embed(["a"]),
    }
    if getattr(engine.capabilities, verb):
        assert calls[verb]()
        return
    with pytest.raises(Unsupported, match=verb) as caught:
        calls[verb]()
    assert caught.value.remedy


def test_threads_share_an_engine(engine: Engine) -> None:
    prompts = prompts_for(engine)[:4]
    expected = engine.generate(prompts, HOW) if prompts else []
    vectors = engine.embed(TEXTS).vectors if engine.capabilities.embed else None
    wrong: list[Any] = []

    def work() -> None:
        if prompts and [one.text for one in engine.generate(prompts, HOW)] != [one.text for one in expected]:
            wrong.append("texts")
        if vectors is not None and not np.allclose(engine.embed(TEXTS).vectors, vectors, atol=1e-5):
            wrong.append("vectors")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_twice_does_no_harm(engine: Engine) -> None:
    engine.close()
    engine.close()


@pytest.mark.parametrize("name", ["native-decoder", "transformers-decoder"])
def test_a_prompt_without_room_is_an_error_and_not_cut(name: str, engine_folders: dict[str, Path]) -> None:
    with EngineRoom().open(engine_folders[name]) as engine, pytest.raises(DataError, match="positions"):
        engine.generate(["long 长 " * 200], HOW)


@pytest.mark.parametrize("name", ["native-decoder", "transformers-decoder"])
def test_answers_end_where_the_positions_do(name: str, engine_folders: dict[str, Path]) -> None:
    with EngineRoom().open(engine_folders[name]) as engine:
        found = engine.generate(["where is my parcel", "where"], Sampling(max_tokens=400, stop=("\x00",)))
        alone = engine.generate(["where"], Sampling(max_tokens=400, stop=("\x00",)))[0]
        assert all(one.stopped in ("length", "end") for one in found)
        assert found[1].text == alone.text
