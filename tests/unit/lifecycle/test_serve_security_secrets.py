"""What must not get out: keys by timing, other keys' answers by the cache, prompts by logs and metrics, the inside of
the network by addresses, this machine by templates."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from gateway_kit import Running, config_for, gateway_at, upstream_model
from raw_upstream import RawUpstream, Step, answers, bytes_only, raw_upstream, whole

from nacre.data.chat.rendering import Template
from nacre.errors import CheckpointError, DataError
from nacre.lifecycle.serve.addresses import GuardedResolver, RefusedAddress, check_upstream
from nacre.lifecycle.serve.contract import Refusal
from nacre.lifecycle.serve.line import CannotConnect, Line, Origin
from nacre.lifecycle.serve.state import keys as keys_module
from nacre.lifecycle.serve.state.keys import KeyStore

Check = Callable[[Running, RawUpstream], Awaitable[None]]
CHAT_AT = "/v1/chat/completions"
WORD = "marmalade-4711"


def through(folder: Path, check: Check, steps: list[Step] | None = None, **changes: Any) -> None:
    """Runs `check` against a gateway with the model `m` behind a scripted upstream."""

    async def run() -> None:
        async with raw_upstream(steps or [answers()]) as upstream:
            config = replace(config_for(m=upstream_model(upstream.url)), **changes)
            async with gateway_at(folder, config) as running:
                await check(running, upstream)

    asyncio.run(run())


# --- keys


def lines_of(store: KeyStore, secret: str) -> list[tuple[str, int]]:
    """The lines that run when a secret is looked up, in their order."""
    seen: list[tuple[str, int]] = []

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            seen.append((frame.f_code.co_filename, frame.f_lineno))
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: local)
    try:
        assert store.find(secret) is None
    finally:
        sys.settrace(before)
    return seen


def test_an_unknown_key_takes_one_way_however_near_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of a secret is compared with anything: one hash, one look-up, the same lines for every guess."""
    store = KeyStore(tmp_path / "gateway.db")
    good = [store.create(f"k{number}").secret for number in range(20)]
    near = [one[:-1] + ("0" if one[-1] != "0" else "1") for one in good]
    far = ["", "x", "nacre-", "nacre-" + "0" * 43, good[0] + "0", good[0][1:], good[0].upper(), "é" * 40, "x" * 100_000]
    hashed: list[str] = []
    plain = keys_module.digest_of

    def counted(secret: str) -> str:
        hashed.append(secret)
        return plain(secret)

    monkeypatch.setattr(keys_module, "digest_of", counted)
    monkeypatch.setattr(keys_module, "_TICK_NS", -1)  # a file written just now is as good as an old one
    lines_of(store, "warm")  # what runs once has run
    hashed.clear()
    ways = {tuple(lines_of(store, guess)) for guess in [*near, *far]}
    assert len(ways) == 1
    assert hashed == [*near, *far]
    known = set(store._by_digest)
    assert not known & {*good, *near}
    assert all(len(one) == 64 for one in known)
    store.close()


# --- the cache


def test_the_cache_tells_no_key_what_another_asked(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "gateway.db")
    alice, bob = store.create("alice").secret, store.create("bob").secret
    store.close()

    async def check(running: Running, upstream: RawUpstream) -> None:
        async def asks(secret: str, **more: Any) -> tuple[str | None, int]:
            body = {"model": "m", "messages": [{"role": "user", "content": "the plan"}], "temperature": 0, **more}
            headers = {"Authorization": f"Bearer {secret}"}
            async with running.session.post(running.url + CHAT_AT, json=body, headers=headers) as response:
                await response.read()
                return response.headers.get("x-nacre-cache"), len(upstream.heard)

        for more in ({}, {"stream": True}):
            already = len(upstream.heard)
            assert await asks(alice, **more) == (None, already + 1)
            assert await asks(alice, **more) == ("hit", already + 1)
            for trick in ({}, {"user": "alice"}, {"metadata": {"user": "alice"}}, {"nacre": "alice"}):
                assert (await asks(bob, **more, **trick))[0] in ((None,) if not trick else (None, "hit"))
            assert len(upstream.heard) >= already + 2  # Bob's first was asked anew
        assert [one.cached for one in running.entries].count(True) >= 2
        hits = {entry.key for entry in running.entries if entry.cached and entry.money}
        assert not hits

    through(tmp_path, check)


# --- prompts


def test_no_text_of_a_client_is_in_a_log_a_metric_or_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In whatever field it stands, and however the request fails, at every level of every logger."""
    said = [{"role": "user", "content": WORD}]
    bodies: list[Any] = [
        {"model": WORD}, {"messages": WORD}, {"messages": [WORD]}, {"stream": WORD}, {"stream_options": WORD},
        {"tools": [{"type": WORD}]}, {"response_format": {"type": WORD}}, {"max_tokens": WORD}, {"n": WORD},
        {"user": WORD}, {WORD: 1}, {"temperature": 0, "seed": 1}, {"stream": True},
    ]  # fmt: skip

    async def check(running: Running, upstream: RawUpstream) -> None:
        got = ""
        for body in bodies:
            _, headers, text = await running.post(**{"messages": said} | body)
            got += str(headers) + text.decode()
        for data in (f'{{"{WORD}'.encode(), f'["{WORD}"]'.encode(), WORD.encode() * 3, b"\xff" + WORD.encode()):
            async with running.session.post(f"{running.url}{CHAT_AT}?q={WORD}", data=data) as response:
                got += str(response.headers) + await response.text()
        async with running.session.get(f"{running.url}/v1/models/{WORD}") as response:
            got += await response.text()
        async with running.session.get(f"{running.url}/metrics") as response:
            got += await response.text()
        assert WORD not in got
        assert WORD not in str(running.entries)
        await running.gateway.parts.ledger.flush()

    with caplog.at_level(logging.DEBUG):
        through(tmp_path, check, [bytes_only(b"garbage"), bytes_only(), answers()])
    assert WORD not in caplog.text
    assert WORD.encode() not in b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())


# --- addresses


INSIDE = [
    "169.254.169.254", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "0xa9fea9fe", "2852039166",
    "0251.0376.0251.0376",
    "169.254.43518", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "100.100.100.200", "192.168.0.1",
    "10.1", "[::a9fe:a9fe]", "[2001:0:a9fe:a9fe::]", "[64:ff9b:1::a9fe:a9fe]", "[fec0::1]",
    "１６９.254.169.254", "169。254。169。254", "①⑥⑨.254.169.254",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_no_spelling_of_an_inner_address_is_called(host: str) -> None:
    """It is refused when the config is read, or else at the connection: metadata services, private networks."""
    address = f"http://{host}/v1"
    if list(check_upstream(address, False, "x")):
        return

    async def run() -> None:
        line = Line({})
        try:
            await line.ask(Origin.of(address), b"GET / HTTP/1.1\r\n\r\n", connect_s=2.0, answer_s=2.0)
        finally:
            await line.close()

    with pytest.raises(CannotConnect) as raised:
        asyncio.run(run())
    assert isinstance(raised.value.why, RefusedAddress), repr(raised.value.why)


def test_a_literal_is_guarded_like_a_name() -> None:
    async def run(host: str) -> None:
        await GuardedResolver({}).resolve(host, 80)

    for host in ("10.0.0.1", "169.254.169.254"):
        with pytest.raises(RefusedAddress):
            asyncio.run(run(host))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
def test_no_redirect_is_followed(tmp_path: Path, status: int, stream: bool) -> None:
    async def check(running: Running, upstream: RawUpstream) -> None:
        got, headers, body = await running.post(stream=stream)
        assert (got, json.loads(body)["error"]["code"]) == (502, "upstream_redirect")
        assert "location" not in headers
        assert b"/elsewhere" not in body
        assert len(upstream.heard) == 1

    def to_itself(heard: Any, line: Any) -> Any:
        return bytes_only(whole(status, b"", location="/elsewhere"))(heard, line)

    through(tmp_path, check, [to_itself])


# --- templates


PLAIN = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
ATTEMPTS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__.__base__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ lipsum.__globals__['os'] }}",
    "{{ raise_exception.__globals__ }}", "{{ strftime_now.__self__.__class__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ ''|attr('__class__') }}", "{{ '{0.__class__}'.format(messages) }}", "{{ '%s'|format(messages.__class__) }}",
    "{% set x = messages.append(1) %}", "{% include '/etc/passwd' %}", "{% import 'os' as os %}{{ os }}",
    "{{ messages[0].update({'content': 'x'}) }}", "{{ namespace.__init__.__globals__ }}",
    "{{ ''|map(attribute='__class__')|list }}{{ messages|map(attribute='__class__')|list }}",
]  # fmt: skip


@pytest.mark.parametrize("text", [*ATTEMPTS, "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "${7*7}", "<%= 7*7 %>", "{{", "%}"])
def test_what_a_prompt_says_is_text(text: str) -> None:
    assert Template(PLAIN, {}).render([{"role": "user", "content": text}]).text == f"<user>{text}"
    assert Template(PLAIN, {}).render([{"role": text, "content": "a"}]).text == f"<{text}>a"


@pytest.mark.parametrize("source", ATTEMPTS)
def test_the_template_of_a_checkpoint_gets_nowhere(source: str) -> None:
    """It comes with the weights, from whoever made them: it is refused, or says nothing of this process."""
    messages = [{"role": "user", "content": "hi"}]
    try:
        text = Template(source, {}).render(messages).text
    except (DataError, CheckpointError, Refusal):
        text = ""
    assert not any(word in text for word in ("class", "module", "function", "root:", "uid=", "Reference", "<")), text
    assert messages == [{"role": "user", "content": "hi"}]
