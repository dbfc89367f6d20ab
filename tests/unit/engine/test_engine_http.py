"""The HTTP engine against an upstream that misbehaves: every misbehaviour is detected, and requests are counted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from scripted_upstream import (
    Upstream,
    cut_short,
    dropped,
    late,
    raw,
    reply,
    scripted,
    status,
    truncated_stream,
    vectors,
)

from nacre.engine import http_client
from nacre.engine.base import BaseEngine
from nacre.engine.openai_http import HttpSettings, OpenAIHttp
from nacre.engine.openai_wire import is_same_model
from nacre.engine.opening import open_bare
from nacre.engine.protocol import EngineError, Message, Sampling, Unsupported
from nacre.engine.room import EngineRoom
from nacre.errors import ConfigError, UsageError

ASK = (Message("user", "where is my parcel 我的包裹在哪"),)
ALL = ["chat", "complete", "score", "embed", "stream"]


@contextmanager
def engine_of(upstream: Upstream, folder: Path, **settings: Any) -> Iterator[Any]:
    with open_bare(upstream.folder(folder, **({"offers": ALL} | settings)), EngineRoom()) as engine:
        assert isinstance(engine, BaseEngine)
        yield engine


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422, 501])
def test_a_bad_request_is_sent_exactly_once(code: int, tmp_path: Path) -> None:
    with scripted([status(code, "no such thing")]) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError, match="no such thing") as caught:
            engine.generate([ASK], Sampling())
        assert len(upstream.requests) == 1
        assert (caught.value.status, caught.value.sent) == (code, 1)
        assert caught.value.remedy


@pytest.mark.parametrize(
    "failure",
    [
        status(429, after=0),
        status(500),
        status(502),
        status(503, after=0),
        status(529),
        status(408),
        dropped(),
        cut_short(reply("a long answer that does not arrive")),
        raw("<html>a proxy's page</html>"),
        raw("[1]"),
    ],
    ids=["429", "500", "502", "503", "529", "408", "dropped", "cut", "html", "list"],
)
def test_what_may_pass_is_tried_again(failure: Any, tmp_path: Path) -> None:
    with scripted([failure, failure, reply("done")]) as upstream, engine_of(upstream, tmp_path) as engine:
        answer = engine.generate([ASK], Sampling())[0]
        assert (answer.text, answer.timing.retries, answer.usage.requests) == ("done", 2, 3)
        assert len(upstream.requests) == 3


def test_attempts_are_bounded_and_the_error_says_how_many(tmp_path: Path) -> None:
    with scripted(default=status(500, "broken")) as upstream, engine_of(upstream, tmp_path, attempts=4) as engine:
        with pytest.raises(EngineError, match="4 times and failed: HTTP 500: broken") as caught:
            engine.generate([ASK], Sampling())
        assert len(upstream.requests) == caught.value.sent == 4


def test_a_timeout_is_tried_again(tmp_path: Path) -> None:
    with (
        scripted([late(2, reply("too late")), reply("in time")]) as upstream,
        engine_of(upstream, tmp_path, read_timeout_s=0.2) as engine,
    ):
        assert engine.generate([ASK], Sampling())[0].text == "in time"
        assert len(upstream.requests) == 2


class Waits(list[float]):
    """Stands for `time.sleep`."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    found = Waits()
    monkeypatch.setattr(http_client.time, "sleep", found)
    return found


def test_retry_after_is_waited_for_and_jitter_is_bounded(tmp_path: Path, waits: Waits) -> None:
    script = [status(429, after=3), status(500), status(500), reply("x")]
    with scripted(script) as upstream, engine_of(upstream, tmp_path, backoff_s=0.5) as engine:
        engine.generate([ASK], Sampling())
    found = [one for one in waits if one]  # the scripted server sleeps as well: for its delays of 0
    assert found[0] == 3.0
    assert found[1] <= 1.0
    assert found[2] <= 2.0
    assert len(found) == 3


def test_retry_after_may_be_a_date(tmp_path: Path, waits: Waits) -> None:
    from datetime import UTC, datetime, timedelta

    when = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    with scripted([status(503, after=when), reply("x")]) as upstream, engine_of(upstream, tmp_path) as engine:
        engine.generate([ASK], Sampling())
    assert 30 < max(waits) <= 40


def test_an_upstream_that_asks_for_too_much_patience_is_given_up_at_once(tmp_path: Path) -> None:
    with scripted(default=status(429, after=9999)) as upstream, engine_of(upstream, tmp_path, total_s=5) as engine:
        with pytest.raises(EngineError, match="asks for 9999 s of patience"):
            engine.generate([ASK], Sampling())
        assert len(upstream.requests) == 1


def test_a_used_up_quota_is_no_matter_of_patience(tmp_path: Path) -> None:
    script = [status(429, "quota", kind="insufficient_quota")]
    with scripted(script) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError, match="quota"):
            engine.generate([ASK], Sampling())
        assert len(upstream.requests) == 1


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    with scripted([status(307)]) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError) as caught:
            engine.generate([ASK], Sampling())
        assert "elsewhere" in caught.value.remedy
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{}", "no choices"),
        ('{"choices": []}', "no choices"),
        ('{"choices": [{"index": 0}]}', "neither message nor text"),
        ('{"choices": [{"message": {"role": "assistant"}}]}', "no content"),
        ('{"choices": [{"message": {"content": 7}}]}', "no text"),
    ],
)
def test_a_reply_without_its_fields_is_an_error_at_once(body: str, said: str, tmp_path: Path) -> None:
    with scripted([raw(body)]) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError, match=said):
            engine.generate([ASK], Sampling())
        assert len(upstream.requests) == 1


def test_an_unreachable_upstream_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
    engine = OpenAIHttp(HttpSettings(address, "m", offers=("chat",), backoff_s=60))
    for call in (engine.ping, lambda: engine.generate([ASK], Sampling())):
        with pytest.raises(EngineError, match=address) as caught:
            call()
        assert "cannot be reached" in str(caught.value)


def test_ping_is_free_of_posts(tmp_path: Path) -> None:
    with scripted() as upstream, engine_of(upstream, tmp_path) as engine:
        engine.ping()
        assert upstream.requests == []


# --- streams


def test_a_stream_gives_pieces_that_join_to_the_text(tmp_path: Path) -> None:
    with scripted([reply("你好 world")]) as upstream, engine_of(upstream, tmp_path) as engine:
        pieces: list[str] = []
        answer = engine.generate([ASK], Sampling(), on_token=lambda i, piece: pieces.append(piece))[0]
        assert answer.text == "".join(pieces) == "你好 world"
        assert len(pieces) > 2
        assert answer.usage.prompt_tokens == 7
        assert answer.timing.first_token_s is not None
        assert upstream.requests[0].body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("broken", [truncated_stream("abcdef", 0), dropped(), status(503), raw("")])
def test_a_stream_that_breaks_before_its_first_piece_is_tried_again(broken: Any, tmp_path: Path) -> None:
    with scripted([broken, reply("abcdef")]) as upstream, engine_of(upstream, tmp_path) as engine:
        pieces: list[str] = []
        answer = engine.generate([ASK], Sampling(), on_token=lambda i, piece: pieces.append(piece))[0]
        assert answer.text == "".join(pieces) == "abcdef"
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("broken", [truncated_stream("abcdef", 2), cut_short(reply("abcdef" * 9), keep=300)])
def test_a_stream_that_breaks_later_is_an_error_and_not_repeated(broken: Any, tmp_path: Path) -> None:
    with scripted([broken]) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError, match="after a part of the answer"):
            engine.generate([ASK], Sampling(), on_token=lambda i, piece: None)
        assert len(upstream.requests) == 1


def test_an_error_inside_a_stream_is_an_error(tmp_path: Path) -> None:
    event = 'data: {"error": {"message": "overloaded"}}\n\n'
    with scripted(default=raw(event)) as upstream, engine_of(upstream, tmp_path, attempts=2) as engine:
        with pytest.raises(EngineError, match="overloaded"):
            engine.generate([ASK], Sampling(), on_token=lambda i, piece: None)
        assert len(upstream.requests) == 2


# --- what an answer says of itself


def test_refusals_and_filters_are_told_apart_from_answers(tmp_path: Path) -> None:
    script = [
        reply(None, refusal="I cannot help with that."),
        reply("", finish="content_filter"),
        status(400, "filtered", kind="content_filter"),
        reply("cut", finish="length"),
    ]
    with scripted(script) as upstream, engine_of(upstream, tmp_path, concurrency=1) as engine:
        found = engine.generate([ASK] * 4, Sampling())
    assert [one.stopped for one in found] == ["refused", "filtered", "filtered", "length"]
    assert found[0].text == "I cannot help with that."
    assert found[0].text not in found[1].text
    assert len(upstream.requests) == 4


def test_another_models_name_is_kept_and_remarked_once(tmp_path: Path) -> None:
    with scripted(default=reply("x", model="smaller-model")) as upstream, engine_of(upstream, tmp_path) as engine:
        found = engine.generate([ASK] * 3, Sampling())
        assert {one.model for one in found} == {"smaller-model"}
        assert engine.remarks == ["asked for scripted, answered by smaller-model"]
        assert engine.noted[engine.remarks[0]] == 3


@pytest.mark.parametrize(
    ("asked", "given", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True),
        ("claude-sonnet", "claude-sonnet-20250219", True),
        ("Qwen/Qwen3-8B", "qwen3-8b", True),
        ("llama3", "llama3:latest", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20", False),
        ("a", "b", False),
    ],
)
def test_dated_names_are_the_same_model(asked: str, given: str, same: bool) -> None:
    assert is_same_model(asked, given) is same


def test_uncounted_usage_is_unknown_and_not_zero(tmp_path: Path) -> None:
    body = json.dumps({"model": "scripted", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})
    with scripted([raw(body)]) as upstream, engine_of(upstream, tmp_path) as engine:
        usage = engine.generate([ASK], Sampling())[0].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.counted_by) == (None, None, "nobody")


# --- embeddings


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1.0, 2.0]], "1 embeddings for 2 texts"),
        ([[1.0, 2.0], [1.0]], "1, 2 dimensions"),
        ([[1.0, 2.0], [float("nan"), 1.0]], "not finite"),
        ([[1.0, 2.0], [1e39, 1.0]], "not finite"),
        ([[1.0, 2.0], ["x", 1.0]], "no list of numbers"),
        ([[], []], "0 dimensions"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_unusable_vectors_are_errors(rows: Any, said: str, tmp_path: Path) -> None:
    with scripted([vectors(rows)]) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError, match=said):
            engine.embed(["a", "b"])
        assert len(upstream.requests) == 1


def test_dimensions_must_not_change_between_requests(tmp_path: Path) -> None:
    with scripted([vectors([[1.0, 2.0]]), vectors([[1.0]])]) as upstream, engine_of(upstream, tmp_path) as engine:
        engine.embed(["a"])
        with pytest.raises(EngineError, match="1 dimensions, not 2"):
            engine.embed(["b"])


def test_embeddings_keep_their_order_whatever_order_they_come_in(tmp_path: Path) -> None:
    data = [{"index": i, "embedding": [float(i)]} for i in (2, 0, 1)]
    body = json.dumps({"model": "scripted", "data": data})
    with scripted([raw(body)]) as upstream, engine_of(upstream, tmp_path) as engine:
        assert engine.embed(["a", "b", "c"]).vectors[:, 0].tolist() == [0.0, 1.0, 2.0]


def test_embeddings_are_asked_in_batches(tmp_path: Path) -> None:
    with scripted() as upstream, engine_of(upstream, tmp_path, batch=4, concurrency=2) as engine:
        found = engine.embed(["x" * n for n in range(1, 11)])
        assert found.vectors[:, 0].tolist() == list(range(1, 11))
        assert sorted(len(one.body["input"]) for one in upstream.requests) == [2, 4, 4]
        assert (found.usage.requests, found.usage.prompt_tokens) == (3, 55)


# --- scores


def test_a_score_counts_the_tokens_that_end_behind_the_prompt(tmp_path: Path) -> None:
    logprobs = {
        "tokens": ["ab", "c", "de", "f", "x"],
        "text_offset": [0, 2, 3, 5, 6],
        "token_logprobs": [None, -1.0, -2.0, -4.0, -8.0],
    }
    body = {"model": "scripted", "choices": [{"text": "", "logprobs": logprobs, "finish_reason": "length"}]}
    told = raw(json.dumps(body))
    del logprobs["text_offset"]
    untold = raw(json.dumps(body))
    with scripted([told, untold]) as upstream, engine_of(upstream, tmp_path) as engine:
        for _ in range(2):
            found = engine.score([("abcd", "ef")])[0]
            assert (found.log_probability, found.tokens) == (-6.0, 2)
        assert upstream.requests[0].body["max_tokens"] == 0


def test_a_score_without_log_probabilities_is_an_error(tmp_path: Path) -> None:
    with scripted([reply("x")]) as upstream, engine_of(upstream, tmp_path) as engine:
        with pytest.raises(EngineError, match="no log-probabilities"):
            engine.score([("a", "b")])
        with pytest.raises(Unsupported):
            engine.score([(ASK, "b")])


# --- concurrency


def test_requests_run_at_the_same_time_and_keep_their_order(tmp_path: Path) -> None:
    def slow(received: Any) -> Any:
        text = received.body["messages"][0]["content"]
        return late(0.1 if int(text) % 2 else 0.02, reply(text))(received)

    with scripted(default=slow) as upstream, engine_of(upstream, tmp_path, concurrency=5) as engine:
        prompts = [(Message("user", str(n)),) for n in range(20)]
        assert [one.text for one in engine.generate(prompts, Sampling())] == [str(n) for n in range(20)]
        assert 2 <= upstream.busiest <= 5


def test_after_an_error_nothing_more_is_begun(tmp_path: Path) -> None:
    def fails(received: Any) -> Any:
        return late(0.05, status(400))(received)

    with scripted(default=fails) as upstream, engine_of(upstream, tmp_path, concurrency=2) as engine:
        with pytest.raises(EngineError):
            engine.generate([ASK] * 40, Sampling())
        assert len(upstream.requests) < 10


# --- keys and settings

KEY = "sk-very-secret-0123456789"


def test_a_missing_key_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NACRE_TEST_KEY", raising=False)
    with scripted() as upstream, pytest.raises(UsageError, match="NACRE_TEST_KEY"):
        open_bare(upstream.folder(tmp_path, key_variable="NACRE_TEST_KEY"), EngineRoom())


def test_a_key_is_sent_and_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NACRE_TEST_KEY", KEY)
    caplog.set_level(0)
    script = [status(401, f"Incorrect key {KEY}"), raw(f"<html>{KEY}"), status(500, KEY)]
    settings: dict[str, Any] = {"key_variable": "NACRE_TEST_KEY", "attempts": 1}
    with scripted(script) as upstream, engine_of(upstream, tmp_path, **settings) as engine:
        for _ in range(3):
            with pytest.raises(EngineError) as caught:
                engine.generate([ASK], Sampling())
            assert KEY not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.remedy}"
        assert upstream.requests[0].headers["Authorization"] == f"Bearer {KEY}"
        assert KEY not in f"{engine!r} {engine.identity} {engine.name} {vars(engine.settings)} {caplog.text}"


def test_a_key_does_not_travel_in_the_open() -> None:
    with pytest.raises(ConfigError, match="plain http"):
        OpenAIHttp(HttpSettings("http://models.example/v1", "m"), KEY)
    OpenAIHttp(HttpSettings("http://models.example/v1", "m", insecure=True), KEY).close()
    OpenAIHttp(HttpSettings("https://models.example/v1", "m"), KEY).close()
    OpenAIHttp(HttpSettings("http://localhost:1/v1", "m"), KEY).close()
    OpenAIHttp(HttpSettings("http://[::1]:1/v1", "m"), KEY).close()


@pytest.mark.parametrize(
    "address", ["localhost:8000", "ftp://host/v1", "http://user:pass@host/v1", "http://host/v1?key=1", "http://"]
)
def test_addresses_that_cannot_be_called_are_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        OpenAIHttp(HttpSettings(address, "m"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adress": "x"}, "adress"),
        ({"concurrency": "8"}, "concurrency"),
        ({"concurrency": 0}, "concurrency"),
        ({"offers": ["chatt"]}, "chatt"),
        ({"model": ""}, "model"),
    ],
)
def test_settings_are_strict(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with scripted() as upstream, pytest.raises(ConfigError, match=said):
        open_bare(upstream.folder(tmp_path, **settings), EngineRoom())


def test_what_is_not_offered_is_not_tried(tmp_path: Path) -> None:
    with scripted() as upstream, engine_of(upstream, tmp_path, offers=["chat"]) as engine:
        calls = [
            lambda: engine.embed(["a"]),
            lambda: engine.score([("a", "b")]),
            lambda: engine.generate(["a"], Sampling()),
            lambda: engine.generate([ASK], Sampling(), on_token=lambda i, piece: None),
        ]
        for call in calls:
            with pytest.raises(Unsupported) as caught:
                call()
            assert caught.value.remedy
        assert upstream.requests == []


def test_settings_reach_the_request(tmp_path: Path) -> None:
    settings = {"max_tokens_name": "max_completion_tokens", "extra": {"top_k": 5}}
    with scripted() as upstream, engine_of(upstream, tmp_path, **settings) as engine:
        engine.generate([ASK], Sampling(9, 0.5, 0.9, ("\n",), 3))
        body = upstream.requests[0].body
        plain = engine_of(upstream, tmp_path / "other")
        with plain as other:
            assert other.identity != engine.identity
    assert body["max_completion_tokens"] == 9
    assert (body["temperature"], body["top_p"], body["stop"], body["seed"]) == (0.5, 0.9, ["\n"], 3)
    assert body["top_k"] == 5
    assert "max_tokens" not in body


def test_the_proxy_of_the_environment_is_not_used_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with scripted() as upstream, engine_of(upstream, tmp_path) as engine:
        assert engine.generate([ASK], Sampling())[0].text == ASK[0].content


def test_threads_may_share_an_engine(tmp_path: Path) -> None:
    with scripted() as upstream, engine_of(upstream, tmp_path) as engine:
        found: dict[int, str] = {}

        def ask(n: int) -> None:
            found[n] = engine.generate([(Message("user", str(n)),)], Sampling())[0].text

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {n: str(n) for n in range(12)}
