"""The page inside a real gateway on loopback: chat, usage and keys, and who is kept out."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_kit import Running, config_for, gateway_at, upstream_model
from raw_upstream import RawUpstream, Step, answers, raw_upstream, streams
from serve_calls import looped, text_of

from nacre.engine.prices import Prices
from nacre.lifecycle.serve.contract import Allowance
from nacre.lifecycle.serve.state.keys import Issued, KeyStore
from nacre.web.opening import open_page
from nacre.web.sessions import COOKIE

HELLO = {"messages": [{"role": "user", "content": "你好"}]}
PRICE = Prices(input_per_million=1.0, output_per_million=10.0)


@dataclass
class Browser:
    """A browser on the page: it says where it is, keeps cookies, and follows no redirect by itself."""

    running: Running
    upstream: RawUpstream
    session: aiohttp.ClientSession
    headers: dict[str, str]

    @property
    def page(self) -> str:
        return f"{self.running.url}/page"

    async def get(self, path: str, **headers: str) -> tuple[int, Any, str]:
        async with self.session.get(self.page + path, headers=headers, allow_redirects=False) as response:
            return response.status, response.headers, await response.text()

    async def post(self, path: str, form: dict[str, str] | None = None, **options: Any) -> tuple[int, Any, str]:
        sent: dict[str, Any] = {"headers": self.headers, "allow_redirects": False} | options
        async with self.session.post(self.page + path, data=form, **sent) as response:
            return response.status, response.headers, await response.text()

    async def ask(self, model: str = "m", route: str = "chat", **body: Any) -> tuple[int, Any, str]:
        return await self.post(f"/chat/send/{route}", json={"model": model, **HELLO, **body})

    async def sign_in(self, issued: Issued, back: str = "/chat") -> Any:
        status, headers, _ = await self.post("/sign-in", {"key": issued.secret, "back": back})
        assert status == 303
        return headers

    async def made(self, **options: Any) -> Issued:
        return await asyncio.to_thread(lambda: self.keys.create(options.pop("name", "Ada"), **options))

    @property
    def keys(self) -> KeyStore:
        keys = self.running.gateway.parts.keys
        assert isinstance(keys, KeyStore)
        return keys


@asynccontextmanager
async def browser(folder: Path, *steps: Step, **changes: Any) -> AsyncIterator[Browser]:
    """A browser on the page of a gateway with the models `m` (priced) and `n` (not) at a scripted upstream."""
    async with raw_upstream(steps) as upstream:
        models = {"m": replace(upstream_model(upstream.url), price=PRICE), "n": upstream_model(upstream.url)}
        config = replace(config_for(**(models | changes.pop("models", {}))), **changes)
        async with gateway_at(folder, config) as running:
            running.application.mounts.update(open_page(running.gateway, running.application, str(folder)))
            headers = {"origin": running.url, "sec-fetch-site": "same-origin"}
            jar = aiohttp.CookieJar(unsafe=True)
            async with aiohttp.ClientSession(cookie_jar=jar) as session:
                yield Browser(running, upstream, session, headers)


def token_in(html: str) -> str:
    found = re.search(r'name="token" value="([\w-]+)"', html)
    assert found is not None
    return found[1]


@looped
async def test_an_answer_streams_through_the_page_and_the_ledger_tells_what_it_took(tmp_path: Path) -> None:
    async with browser(tmp_path, answers("你好！<b>", model="raw")) as one:
        status, headers, text = await one.ask(stream=True, stream_options={"include_usage": True})
        assert status == 200
        assert headers["content-type"].startswith("text/event-stream")
        assert text_of(text.encode()) == "你好！<b>"
        assert text.endswith("data: [DONE]\n\n")
        assert headers["x-nacre-model"] == "m"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers.getall("content-type").__len__() == 1
        status, _, told = await one.get(f"/chat/entry/{headers['x-nacre-id']}")
        entry = json.loads(told)
        assert status == 200
        assert (entry["served"], entry["outcome"], entry["counted_by"]) == ("m", "ok", "upstream")
        assert (entry["prompt_tokens"], entry["completion_tokens"]) == (7, 3)
        assert entry["money"] == pytest.approx(37e-6)
        assert "key" not in entry
        _, headers, text = await one.ask("n")
        assert json.loads(text)["choices"][0]["message"]["content"] == "你好！<b>"
        _, _, told = await one.get(f"/chat/entry/{headers['x-nacre-id']}")
        assert json.loads(told)["money"] is None, "an unknown price is unknown"


@looped
async def test_what_is_masked_for_an_api_client_is_masked_for_the_page(tmp_path: Path) -> None:
    async with browser(tmp_path, answers("ok"), masking={"default": "mask"}) as one:
        question = [{"role": "user", "content": "write to jane.doe@example.com"}]
        _, headers, _ = await one.ask(messages=question)
        assert "jane.doe" not in json.dumps(one.upstream.heard[0].body)
        _, _, told = await one.get(f"/chat/entry/{headers['x-nacre-id']}")
        assert json.loads(told)["masked"] == 1


@looped
async def test_a_key_sees_its_models_and_its_own_usage_only(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        admin = await one.made(is_admin=True)
        other = await one.made(name="Bob", models=("n",))
        assert (await one.get("/chat"))[0] == 303, "nobody is signed in"
        assert (await one.ask())[0] == 303
        await one.sign_in(admin)
        _, headers, _ = await one.ask("m")
        of_admin = headers["x-nacre-id"]
        await one.sign_in(other)
        _, _, text = await one.get("/chat")
        assert 'value="n"' in text
        assert 'value="m"' not in text
        status, _, text = await one.ask("m")
        assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
        assert (await one.ask("n"))[0] == 200
        assert (await one.get(f"/chat/entry/{of_admin}"))[0] == 404
        for path in ("/keys", "/keys/new", f"/keys/{other.key.caller.id}"):
            assert (await one.get(path))[0] == 403, path
        assert (await one.post("/keys/new", {"name": "x", "models": "*", "token": "t"}))[0] == 403
        entries = [entry for entry in one.running.entries if entry.key == other.key.caller.id]
        assert [entry.outcome for entry in entries] == ["refused", "ok"]
        await one.running.gateway.parts.ledger.flush()
        for path in ("/usage", f"/usage?key={admin.key.caller.id}"):
            _, _, text = await one.get(path)
            assert of_admin not in text
            assert entries[1].id in text
        _, _, rows = await one.get(f"/usage/rows.csv?key={admin.key.caller.id}")
        assert [line.split(",")[0] for line in rows.splitlines()] == ["model", "", "n"], (
            "who may not ask for m is not told of it"
        )
        assert [line.split(",")[2] for line in rows.splitlines()[1:]] == ["1", "1"]


@looped
async def test_a_revoked_key_and_a_rotated_one_are_out_at_once(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        await one.made(is_admin=True)
        for end in (one.keys.revoke, one.keys.rotate):
            issued = await one.made(name="Bob")
            await one.sign_in(issued)
            assert (await one.ask())[0] == 200
            await asyncio.to_thread(end, issued.key.caller.id)
            assert (await one.get("/usage"))[0] == 303
            status, headers, _ = await one.ask()
            assert status == 303
            assert headers["location"].startswith("/page/sign-in")
        assert len(one.upstream.heard) == 2
        status, _, text = await one.post("/sign-in", {"key": issued.secret})
        assert status == 401
        assert 'role="alert"' in text


@looped
async def test_a_budget_and_a_rate_that_are_used_up_are_said(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        await one.sign_in(await one.made(allowance=Allowance(tokens=40)))
        assert (await one.ask(max_tokens=5))[0] == 200
        status, _, text = await one.ask(max_tokens=500)
        assert (status, json.loads(text)["error"]["code"]) == (402, "budget_tokens")
        await one.sign_in(await one.made(name="Bob", allowance=Allowance(requests_per_minute=1)))
        assert (await one.ask())[0] == 200
        status, headers, text = await one.ask()
        assert (status, json.loads(text)["error"]["code"]) == (429, "requests_per_minute")
        assert int(headers["retry-after"]) >= 1


@looped
async def test_a_reader_who_leaves_ends_the_work_upstream(tmp_path: Path) -> None:
    said = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    async with browser(tmp_path, streams(said, end="never")) as one:
        body = {"model": "m", "stream": True, **HELLO}
        response = await one.session.post(f"{one.page}/chat/send/chat", json=body, headers=one.headers)
        assert await response.content.readany() == said
        response.close()
        entry = await one.running.entry()
        assert entry.outcome == "client_left"
        async with asyncio.timeout(10):
            while one.upstream.open:
                await asyncio.sleep(0.01)


@looped
async def test_an_upstream_that_fails_is_told_with_its_words(tmp_path: Path) -> None:
    async with browser(tmp_path, answers("no room here", status=503)) as one:
        status, _, text = await one.ask()
        assert status == 503
        assert "no room here" in json.loads(text)["error"]["message"]


@looped
async def test_other_pages_can_send_nothing(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        foreign: list[dict[str, str]] = [
            {},
            {"origin": "https://evil.example"},
            {"origin": one.running.url, "sec-fetch-site": "cross-site"},
            {"origin": "null"},
            {"sec-fetch-site": "same-site"},
        ]
        form = {"name": "x", "models": "*", "admin": "on", "token": "t"}
        for headers in foreign:
            assert (await one.post("/chat/send/chat", json={"model": "m", **HELLO}, headers=headers))[0] == 403
            assert (await one.post("/keys/new", form, headers=headers))[0] == 403
        assert (await one.get("/chat", host="evil.example"))[0] == 403, "a name that was made to lead here"
        assert not one.keys
        assert not one.upstream.heard
        await one.sign_in(await one.made(is_admin=True))
        for headers in foreign:
            assert (await one.post("/keys/new", form, headers=headers))[0] == 403
        assert len(one.keys.list()) == 1


@looped
async def test_the_cookie_cannot_be_read_sent_elsewhere_forged_or_kept(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        headers = await one.sign_in(await one.made(is_admin=True))
        cookie = headers["set-cookie"]
        for flag in ("HttpOnly", "SameSite=strict", "Path=/page"):
            assert flag.lower() in cookie.lower()
        value = cookie.split("=", 1)[1].split(";")[0]
        caller, mark, ends, signature = value.split(".")
        forged = [
            f"{caller}.{mark}.{int(ends) + 9999}.{signature}",
            f"key_other.{mark}.{ends}.{signature}",
            f"{caller}.{mark}.{ends}.",
            "....",
            "",
            "x" * 3000,
        ]
        one.session.cookie_jar.clear()
        assert (await one.get("/keys", cookie=f"{COOKIE}={value}"))[0] == 200
        for bad in forged:
            assert (await one.get("/keys", cookie=f"{COOKIE}={bad}"))[0] == 303, bad
        sessions = _sessions(one)
        sessions._clock = lambda: float(ends) + 1
        assert (await one.get("/keys", cookie=f"{COOKIE}={value}"))[0] == 303, "it is over"


def _sessions(one: Browser) -> Any:
    mounted: Any = one.running.application.mounts["/page"]
    return mounted.begin().result().state.page.sessions  # it was opened by a request before


@looped
async def test_signing_in_leads_nowhere_else(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        issued = await one.made(is_admin=True)
        for back in ("//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil", "/x\r\nset-cookie: a=b"):
            headers = await one.sign_in(issued, back)
            assert headers["location"] == "/page/", back
        assert (await one.sign_in(issued, "/usage?span=7"))["location"] == "/page/usage?span=7"


@looped
async def test_the_first_key_is_an_administrators_and_signs_its_maker_in(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        _, _, text = await one.get("/keys")
        assert "closes the door" in text
        _, _, text = await one.get("/keys/new")
        form = {"name": "Ada <b>", "models": "*", "tokens": "x", "token": token_in(text)}
        status, _, text = await one.post("/keys/new", form)
        assert status == 400
        assert 'value="Ada &lt;b&gt;"' in text
        assert "no whole number" in text
        one.running.gateway.config = replace(
            one.running.gateway.config, listen=replace(one.running.gateway.config.listen, workers=4)
        )
        status, _, text = await one.post("/keys/new", form | {"tokens": "5", "admin": "on"})
        assert status == 400
        assert "4 workers do not share limits" in text
        status, _, text = await one.post("/keys/new", form | {"tokens": ""})
        assert status == 400
        assert "administrator" in text
        assert not one.keys
        token = token_in(text)
        status, headers, text = await one.post("/keys/new", form | {"tokens": "", "admin": "on", "token": token})
        assert status == 200
        assert headers["cache-control"] == "no-store"
        secret = re.search(r"nacre-\w{43}", text)
        assert secret is not None
        assert one.keys.find(secret[0]) is not None
        status, _, text = await one.get("/keys")
        assert status == 200, "its maker is signed in"
        assert secret[0] not in text
        status, _, text = await one.post("/keys/new", form | {"tokens": "", "admin": "on", "token": token})
        assert status == 409, "reloading the page makes no second key"
        assert "nacre-" not in text
        assert len(one.keys.list()) == 1
        async with one.session.get(f"{one.running.url}/v1/models") as response:
            assert response.status == 401, "the door is closed"


@looped
async def test_a_key_is_made_renewed_and_revoked_on_the_page(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        own = await one.made(is_admin=True)
        await one.sign_in(own)
        _, _, text = await one.get("/keys/new")
        limits = {"money": "2.5", "per": "month", "requests_per_minute": "60", "expires": "2099-01-31"}
        form = {"name": "团队", "models": "m, smart*", "token": token_in(text), **limits}
        assert (await one.post("/keys/new", form))[0] == 200
        made = one.keys.list()[-1].caller
        assert made.models == ("m", "smart*")
        assert made.allowance == Allowance(requests_per_minute=60, money=2.5, per="month")
        assert made.expires_at == 4073587200.0, "the day counts"
        assert not made.is_admin
        for bad in ({"expires": "2001-01-01"}, {"expires": "soon"}, {"money": "-1"}, {"per": "week"}, {"models": ","}):
            status, _, text = await one.post("/keys/new", form | {"token": "t1"} | bad)
            assert status == 400, bad
            assert 'role="alert"' in text
        _, _, text = await one.get(f"/keys/{made.id}")
        status, _, text = await one.post(f"/keys/{made.id}/rotate", {"token": token_in(text), "grace": "0"})
        assert status == 200
        assert one.keys.find(re.search(r"nacre-\w{43}", text)[0]) is not None  # type: ignore[index]
        _, _, text = await one.get(f"/keys/{own.key.caller.id}/revoke")
        assert "last administrator" in text
        assert (await one.post(f"/keys/{made.id}/revoke"))[0] == 303
        assert one.keys.list()[-1].revoked_at is not None
        assert (await one.get(f"/keys/{made.id}"))[0] == 200
        assert (await one.get("/keys/key_none"))[0] == 404
        _, _, text = await one.get(f"/keys/{own.key.caller.id}")
        await one.post(f"/keys/{own.key.caller.id}/rotate", {"token": token_in(text), "grace": "0"})
        assert (await one.get("/keys"))[0] == 200, "who renews its own key stays signed in"


@looped
async def test_no_name_in_the_csv_of_usage_is_a_formula(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        names = [
            "=1+1",
            "+1",
            "-1",
            "@SUM(1)",
            " =1",
            "＝1+1",
            '=HYPERLINK("http://x","y")',
            "a=1",
        ]
        await one.ask("m")
        ledger = one.running.gateway.parts.ledger
        for number, name in enumerate(names):
            ledger.enter(replace(one.running.entries[0], id=f"req-{number}", asked=name, served=None))
        await ledger.flush()
        _, _, text = await one.get("/usage/rows.csv?span=all")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert {row["model"] for row in rows} == {*(f"'{name}" for name in names[:-1]), "a=1", "m"}


@looped
async def test_usage_is_what_the_ledger_says(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        for model, body in (("m", {}), ("m", {"stream": True}), ("n", {})):
            await one.ask(model, **body)
        ledger = one.running.gateway.parts.ledger
        ledger.enter(replace(one.running.entries[0], id="req-hostile", asked="<script>alert(1)</script>", served=None))
        await ledger.flush()
        status, _, text = await one.get("/usage?span=all")
        assert status == 200
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text
        assert "1 without a known price" in text or "2 without a known price" in text
        assert text.count("<rect") >= 3
        assert "style=" not in text
        _, headers, rows = await one.get("/usage/rows.csv?span=all")
        assert "attachment" in headers["content-disposition"]
        sums = ledger.usage(("key", "model", "day"))
        assert len(rows.splitlines()) == 1 + len(sums)
        _, _, rows = await one.get("/usage/rows.csv?span=all&model=m")
        (row,) = [line.split(",") for line in rows.splitlines()[1:]]
        assert row[:2] == ["anyone", "m"]
        assert row[3] == "2"
        for query in ("?from=2001-01-01&to=2001-01-02", "?key=key_none", "?model=none"):
            status, _, text = await one.get(f"/usage{query}")
            assert status == 200
            assert "no requests" in text
        assert (await one.get("/usage?from=never"))[0] == 400


@looped
async def test_rungs_are_asked_by_their_own_routes_and_what_is_not_there_is_said(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        for route in ("classify", "search"):
            status, _, text = await one.post(f"/chat/send/{route}", json={"model": "m", "input": "x", "query": "x"})
            assert (status, json.loads(text)["error"]["code"]) == (400, "unsupported"), route
        assert (await one.post("/chat/send/embeddings", json={"model": "m", "input": "x"}))[0] == 404
        assert (await one.post("/chat/send/nothing", json={}))[0] == 404
        assert (await one.get("/chat/entry/req-none"))[0] == 404
        _, _, text = await one.get("/chat?model=m&beside=gone")
        assert "gone" in text
        assert re.search(r'value="m"[^>]* selected', text)


@looped
async def test_a_page_without_models_is_ready_and_says_what_to_do(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        one.running.gateway.table.backends.clear()
        async with one.session.get(f"{one.running.url}/readyz") as response:
            assert response.status == 200
        _, _, text = await one.get("/chat")
        assert "nacre run" in text


@looped
async def test_a_browser_at_the_root_is_sent_to_the_page_and_a_client_is_told_as_before(tmp_path: Path) -> None:
    async with browser(tmp_path) as one:
        url = f"{one.running.url}/"
        html = {"accept": "text/html,application/xhtml+xml"}
        async with one.session.get(url, headers=html, allow_redirects=False) as response:
            assert response.status == 307
            assert response.headers["location"] == "/page/"
        async with one.session.get(url, headers={"accept": "*/*"}) as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "no_such_path"
        async with one.session.get(f"{url}v1/nothing", headers=html) as response:
            assert response.status == 404
