"""Real clients against `nacre serve`: openai in this process, LiteLLM's SDK and the `llm` command in another.

The last two are looked for in the interpreters that NACRE_CLIENT_PYTHON_LITELLM and NACRE_CLIENT_PYTHON_LLM name, and
else in this one: LiteLLM pulls in a hundred packages, so it is no dependency of the tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from raw_upstream import Heard, Line, RawUpstream, answers, resets, streams
from served_process import served, upstream_beside

from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import KeyStore

HELLO: list[Any] = [{"role": "user", "content": "你好"}]
BEGUN = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]
KEYS: dict[str, dict[str, Any]] = {
    "all": {},
    "narrow": {"models": ("other*",)},
    "once": {"allowance": Allowance(requests_per_minute=1)},
    "poor": {"allowance": Allowance(tokens=1)},
    "gone": {},
}


async def as_told(heard: Heard, line: Line) -> None:
    """Does what the last message names: `500`, `429`, `reset`, `die`; else it says 你好！."""
    word = heard.body["messages"][-1]["content"] if "messages" in heard.body else ""
    if word in ("500", "503", "400", "422", "429", "401"):
        await answers("theirs", status=int(word), retry_after="7")(heard, line)
    elif word == "reset":
        await resets()(heard, line)
    elif word == "die":
        await streams(BEGUN, end="reset")(heard, line)
    else:
        await answers("你好！")(heard, line)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str], RawUpstream]]:
    """A gateway with keys: its address, the keys' secrets, its upstream."""
    home = tmp_path_factory.mktemp("clients")
    store = KeyStore(home / "gateway.db")
    secrets = {name: store.create(name, **options).secret for name, options in KEYS.items()}
    store.revoke("gone")
    store.close()
    with upstream_beside(as_told) as upstream:
        described = {"address": upstream.url, "model": "theirs", "timeouts": {"first_byte_s": 2.0, "between_s": 2.0}}
        able = [*("chat", "completions", "embeddings", "stream", "tools", "json_schema")]
        models = {"m": {"upstream": {**described, "abilities": able}}, "plain": {"upstream": described}}
        config = home / "gateway.yaml"
        config.write_text(yaml.safe_dump({"models": models, "state": {"database": str(home / "gateway.db")}}))
        with served(home, str(config)) as (_, url):
            yield url, secrets, upstream


Place = tuple[str, dict[str, str], RawUpstream]
Ask = Callable[[openai.OpenAI], Any]


def client_of(place: Place, key: str = "all") -> openai.OpenAI:
    url, secrets, _ = place
    return openai.OpenAI(base_url=url, api_key=secrets.get(key, key), max_retries=0)


def chat(text: str = "hi", model: str = "m", **more: Any) -> Ask:
    return lambda client: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], **more
    )


# Key, what is asked, the client's class for the refusal, its code, words of its message.
REFUSALS: dict[str, tuple[str, Ask, type[openai.APIError], str | None, str]] = {
    "no such key": ("nacre-nobody", chat(), openai.AuthenticationError, "invalid_api_key", "not known here"),
    "revoked key": ("gone", chat(), openai.AuthenticationError, "key_revoked", "is revoked: ask for a new one"),
    "out of scope": ("narrow", chat(), openai.NotFoundError, "model_not_found", "may not use it"),
    "no such model": ("all", chat(model="mm"), openai.NotFoundError, "model_not_found", "did you mean 'm'"),
    "no messages": ("all", lambda c: c.chat.completions.create(model="m", messages=[]), openai.BadRequestError,
                    "invalid_field", "at least one message"),
    "no tools there": ("all", chat(model="plain", tools=TOOLS), openai.BadRequestError, "unsupported", "`tools`"),
    "too large": ("all", chat("x" * 17_000_000), openai.APIStatusError, "body_too_large", "send less at a time"),
    "no budget": ("poor", chat(), openai.APIStatusError, "budget_tokens", "leaves too little"),
    "their 400": ("all", chat("400"), openai.BadRequestError, "theirs", "m: theirs"),
    "their 422": ("all", chat("422"), openai.UnprocessableEntityError, "theirs", "m: theirs"),
    "their 429": ("all", chat("429"), openai.RateLimitError, "theirs", "m: theirs"),
    "their 500": ("all", chat("500"), openai.InternalServerError, "theirs", "m: theirs"),
    "their 401": ("all", chat("401"), openai.InternalServerError, "upstream_key", "tell whoever runs it"),
    "they reset": ("all", chat("reset"), openai.InternalServerError, "no_answer", "closed the connection"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_each_refusal_is_the_openai_clients_own_exception(place: Place, name: str) -> None:
    key, ask, kind, code, words = REFUSALS[name]
    with client_of(place, key) as client, pytest.raises(kind) as raised:
        ask(client)
    error: Any = raised.value
    assert type(error) is kind
    assert error.code == code
    assert words in error.message
    assert error.response.headers["x-nacre-id"].startswith("req-")
    assert error.type
    assert place[1].get(key, "nacre-nobody") not in str(error)


def test_a_rate_is_told_with_the_time_to_wait(place: Place) -> None:
    with client_of(place, "once") as client:
        chat()(client)
        with pytest.raises(openai.RateLimitError, match="1 requests a minute") as raised:
            chat()(client)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 61
    with client_of(place) as client, pytest.raises(openai.RateLimitError) as raised:
        chat("429")(client)
    assert raised.value.response.headers["retry-after"] == "7"


def test_the_openai_client_reads_everything(place: Place) -> None:
    url, secrets, upstream = place
    with client_of(place) as client:
        assert [one.id for one in client.models.list()] == ["m", "plain"]
        assert client.models.retrieve("m").owned_by == "nacre"
        assert client.embeddings.create(model="m", input=["a", "b"]).data[1].embedding == [0.5, 1.0]
        usage = list(chat(stream=True, stream_options={"include_usage": True})(client))[-1].usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)
        with client.chat.completions.stream(model="m", messages=HELLO) as stream:
            assert "".join(one.delta for one in stream if one.type == "content.delta") == "你好！"
        called = chat(tools=TOOLS)(client).choices[0].message.tool_calls[0].function
        assert (called.name, json.loads(called.arguments)) == ("weather", {"city": "上海"})
        with pytest.raises(openai.APIError, match="in the middle of its answer"):
            list(chat("die", stream=True)(client))

    async def several() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=url, api_key=secrets["all"], max_retries=0) as client:
            pieces = [one async for one in await client.chat.completions.create(model="m", messages=HELLO, stream=True)]
            assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == "你好！"
            with pytest.raises(openai.NotFoundError):
                await client.embeddings.create(model="nobody", input="a")
            many = [client.chat.completions.create(model="m", messages=HELLO) for _ in range(16)]
            return await asyncio.gather(*many)

    assert {one.choices[0].message.content for one in asyncio.run(several())} == {"你好！"}
    assert not any("authorization" in one.headers for one in upstream.heard)  # a client's key goes nowhere


def python_with(package: str) -> str:
    """An interpreter that has a package; skips where none is named and this one has it not."""
    named = os.environ.get(f"NACRE_CLIENT_PYTHON_{package.upper()}")
    python = named or sys.executable
    found = subprocess.run([python, "-c", f"import {package}"], capture_output=True, text=True, timeout=120)
    if found.returncode != 0 and not named:
        pytest.skip(f"{package} is not installed here, and NACRE_CLIENT_PYTHON_{package.upper()} names no interpreter")
    assert found.returncode == 0, f"{named}: {found.stderr[-500:]}"
    return python


LITELLM = """
    import json, os, litellm
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    common = dict(api_base=os.environ["URL"], api_key=os.environ["KEY"], num_retries=0)
    hello = [{"role": "user", "content": "hi"}]
    out = {"whole": litellm.completion(model="openai/m", messages=hello, **common).choices[0].message.content}
    pieces = litellm.completion(model="openai/m", messages=hello, stream=True, **common)
    out["stream"] = "".join(one.choices[0].delta.content or "" for one in pieces)
    tools = json.loads(os.environ["TOOLS"])
    called = litellm.completion(model="openai/m", messages=hello, tools=tools, **common)
    out["tool"] = called.choices[0].message.tool_calls[0].function.name
    vectors = litellm.embedding(model="openai/m", input=["a", "b"], encoding_format="float", **common)
    out["vector"] = vectors.data[1]["embedding"]
    def refused(**changes):
        try:
            litellm.completion(**(dict(model="openai/m", messages=hello) | common | changes))
        except Exception as error:
            return [type(error).__name__, str(error)]
    out["key"] = refused(api_key="nacre-nobody")
    out["model"] = refused(model="openai/mm")
    out["their 429"] = refused(messages=[{"role": "user", "content": "429"}])
    out["their 500"] = refused(messages=[{"role": "user", "content": "500"}])
    print(json.dumps(out))
"""


@pytest.mark.slow
def test_litellms_sdk_works_unchanged(place: Place) -> None:
    url, secrets, _ = place
    python = python_with("litellm")
    environment = {
        "URL": url,
        "KEY": secrets["all"],
        "TOOLS": json.dumps(TOOLS),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [python, "-c", textwrap.dedent(LITELLM)]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr[-2000:]
    out = json.loads(ended.stdout.strip().splitlines()[-1])
    assert (out["whole"], out["stream"], out["tool"], out["vector"]) == ("你好！", "你好！", "weather", [0.5, 1.0])
    for what, kind, words in (
        ("key", "AuthenticationError", "not known here"),
        ("model", "NotFoundError", "did you mean 'm'"),
        ("their 429", "RateLimitError", "theirs"),
        ("their 500", "InternalServerError", "theirs"),
    ):
        assert out[what][0] == kind, out[what]
        assert words in out[what][1]


@pytest.mark.slow
def test_the_llm_command_works_unchanged(place: Place, tmp_path: Path) -> None:
    """With the file that its documentation tells users to write: extra-openai-models.yaml."""
    url, secrets, _ = place
    python = python_with("llm")
    known = [{"model_id": name, "model_name": name, "api_base": url, "api_key_name": "nacre"} for name in ("m", "mm")]
    (tmp_path / "extra-openai-models.yaml").write_text(yaml.safe_dump(known))
    (tmp_path / "keys.json").write_text(json.dumps({"nacre": secrets["all"]}))

    def llm(*words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}
        command = [python, "-m", "llm", *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )

    assert llm("-m", "m", "hi").stdout.strip() == "你好！"
    assert llm("-m", "m", "--no-stream", "hi").stdout.strip() == "你好！"
    refused = llm("-m", "mm", "hi")
    assert refused.returncode != 0
    assert "did you mean 'm'" in refused.stderr
    refused = llm("-m", "m", "--key", "nacre-nobody", "hi")
    assert refused.returncode != 0
    assert "not known here" in refused.stderr
    assert "theirs" in llm("-m", "m", "500").stderr
