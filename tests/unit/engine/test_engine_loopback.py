"""The loopback server, asked by the official client, and by clients that ask for nonsense."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import urllib3

from nacre.engine import loopback
from nacre.engine.address import engine_folder
from nacre.engine.echo import Echo, EchoSettings
from nacre.engine.loopback import serve
from nacre.engine.openai_http import HttpSettings, OpenAIHttp
from nacre.engine.protocol import EngineError, Sampling
from nacre.errors import ConfigError, ReferenceNotFound
from nacre.lineage.store import Store
from nacre.recipe.references import open_store

KEY = "secret"
HI: Any = [{"role": "user", "content": "你好 world"}]


@pytest.fixture
def url() -> Iterator[str]:
    with serve(Echo(), model="echo", key=KEY) as address:
        yield address.url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as found:
        yield found


def test_the_official_client_chats(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="echo", messages=HI, max_completion_tokens=9, temperature=0)
    assert found.choices[0].message.content == "你好 world"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 3)
    short = client.chat.completions.create(model="echo", messages=HI, max_tokens=1)
    assert (short.choices[0].message.content, short.choices[0].finish_reason) == ("你", "length")
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}]
    assert client.chat.completions.create(model="echo", messages=parts).choices[0].message.content == "in parts"


def test_the_official_client_streams(client: openai.OpenAI) -> None:
    events = list(
        client.chat.completions.create(model="echo", messages=HI, stream=True, stream_options={"include_usage": True})
    )
    assert [one.choices[0].delta.content for one in events if one.choices] == ["你", "好", " world", None]
    assert events[-2].choices[0].finish_reason == "stop"
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == 3
    pieces = client.completions.create(model="echo", prompt="a b", stream=True)
    assert "".join(one.choices[0].text for one in pieces) == "a b"


def test_the_official_client_completes_and_scores(client: openai.OpenAI) -> None:
    found = client.completions.create(model="echo", prompt=["a b", "c"], max_tokens=5)
    assert [one.text for one in found.choices] == ["a b", "c"]
    scored = client.completions.create(model="echo", prompt="a b a", max_tokens=0, echo=True, logprobs=1)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", " b", " a"]
    assert logprobs.text_offset == [0, 1, 3]


def test_the_official_client_embeds_in_base64_by_default(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="echo", input=["x", "包裹"])
    expected = Echo().embed(["x", "包裹"]).vectors
    np.testing.assert_array_equal(np.array([one.embedding for one in found.data], np.float32), expected)
    plain = client.embeddings.create(model="echo", input="x", encoding_format="float")
    np.testing.assert_array_equal(np.array(plain.data[0].embedding, np.float32), expected[0])


def test_the_official_client_lists_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").id == "echo"


def test_errors_are_those_that_the_official_client_knows(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.chat.completions.create(model="other", messages=HI)
    with pytest.raises(openai.BadRequestError, match="n and best_of"):
        client.chat.completions.create(model="echo", messages=HI, n=2)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="echo", messages=HI, temperature=3)
    with pytest.raises(openai.BadRequestError, match="at least one message"):
        client.chat.completions.create(model="echo", messages=[])
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="x")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()
    odd = {"Authorization": "Bearer s\xe9cret"}
    assert urllib3.request("GET", f"{url}/models", headers=odd, retries=False).status == 401


def test_what_the_engine_cannot_do_is_a_bad_request() -> None:
    only = Echo(EchoSettings(can=("embed",)))
    with (
        serve(only, model="echo") as address,
        openai.OpenAI(base_url=address.url, api_key="x", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="cannot chat"):
            client.chat.completions.create(model="echo", messages=HI)
        with pytest.raises(openai.BadRequestError, match="cannot chat"):
            client.chat.completions.create(model="echo", messages=HI, stream=True)


class Broken(Echo):
    """Fails in the middle of a stream, and at once without one."""

    def generate(self, prompts: Any, how: Sampling, *, on_token: Any = None) -> Any:
        if on_token is None:
            raise ZeroDivisionError("a fault")
        on_token(0, "first")
        raise EngineError("gone", remedy="none")


def test_a_fault_of_the_engine_is_an_error_and_no_hang() -> None:
    with serve(Broken(), model="echo") as address:
        settings = HttpSettings(address.url, "echo", offers=("complete", "stream"), attempts=2, backoff_s=0.001)
        with OpenAIHttp(settings) as engine:
            with pytest.raises(EngineError, match="a fault"):
                engine.generate(["x"], Sampling())
            with pytest.raises(EngineError, match="gone"):
                engine.generate(["x"], Sampling(), on_token=lambda i, piece: None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"[1]", 400),
        (b'{"model": "echo", "messages": "x"}', 400),
        (b'{"model": "echo", "messages": [{"role": "robot", "content": "x"}]}', 400),
        (b'{"model": "echo", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "tools": [1]}', 400),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "stop": [1]}', 400),
        (b'{"messages": []}', 404),
    ],
)
def test_bad_requests_have_openais_shape(url: str, body: bytes, status: int) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    found = urllib3.request("POST", f"{url}/chat/completions", body=body, headers=headers, retries=False)
    assert found.status == status
    assert set(found.json()["error"]) == {"message", "type", "code"}


def test_a_body_too_large_is_refused_before_it_is_parsed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "LARGEST_BODY", 1000)
    found = urllib3.request("POST", f"{url}/embeddings", body=b" " * 3000, retries=False)
    assert found.status == 413


def test_one_connection_serves_many_requests(url: str) -> None:
    pool = urllib3.HTTPConnectionPool("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]), maxsize=1)
    for _ in range(5):
        pool.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert pool.num_connections == 1
    pool.close()


def test_the_server_ends_with_its_block_and_leaves_no_threads() -> None:
    before = threading.active_count()
    with serve(Echo(), model="echo") as address:
        idle = socket.create_connection(("127.0.0.1", int(address.url.rpartition(":")[2].partition("/")[0])))
        urllib3.request("GET", f"{address.url}/models")
        assert threading.active_count() > before
    assert threading.active_count() == before
    idle.close()
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"{address.url}/models", retries=False)


# --- addresses as references


def test_an_address_is_a_reference_to_an_engines_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    found = store.resolve("http://localhost:8000/v1/?offers=chat,embed&key_variable=MY_KEY#Qwen/Qwen3-8B")
    assert found.path.parent == store.root / "engines"
    assert json.loads((found.path / "engine.json").read_text()) == {
        "engine": "openai_http",
        "address": "http://localhost:8000/v1",
        "model": "Qwen/Qwen3-8B",
        "offers": ["chat", "embed"],
        "key_variable": "MY_KEY",
    }
    again = store.resolve(found.ref)
    assert (again.path, store.digest(again)) == (found.path, store.digest(found))
    assert store.resolve("http://localhost:8000/v1#other").path != found.path


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://localhost:8000/v1", "no model"),
        ("https://user:hunter2@host/v1#m", "password"),
        ("http:///v1#m", "no host"),
        ("http://host:port/v1#m", "no address"),
        ("http://host/v1?key=hunter2#m", "'key' cannot be set"),
    ],
)
def test_addresses_that_say_too_little_or_too_much(address: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        engine_folder(tmp_path, address)
    assert "hunter2" not in str(caught.value)


def test_a_store_that_knows_no_addresses_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match="served model"):
        Store(tmp_path).resolve("http://localhost:8000/v1#m")
