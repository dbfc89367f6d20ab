"""The gateway's OpenAPI document held against the gateway: made-up requests, good and bad, by schemathesis.

The gateway checks what it reads itself and leaves the rest to the model; the model here is an upstream that answers
what the document allows, and refuses everything else.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import EVERYTHING, config_for, gateway_at, upstream_model
from raw_upstream import Heard, Line, Step, answers, raw_upstream, whole

from nacre.lifecycle.serve.config import ServeConfig
from nacre.lifecycle.serve.openapi import document
from nacre.lifecycle.serve.state.keys import KeyStore

jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="jsonschema_rs comes with schemathesis")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'nacre[dev]'")
ABILITIES = (*EVERYTHING, "classify", "search")
ACCEPTED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/classify", "/v1/search")


@contextmanager
def gateway_beside(folder: Path, steps: list[Step]) -> Iterator[str]:
    """A gateway with the model `m`, in a thread of its own: schemathesis blocks. Gives its address."""
    ready, stop, held = threading.Event(), threading.Event(), []

    async def run() -> None:
        async with raw_upstream(steps) as upstream:
            config: ServeConfig = config_for(m=upstream_model(upstream.url, abilities=ABILITIES))
            async with gateway_at(folder, config) as running:
                held.append(running.url)
                ready.set()
                await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield held[0]
    finally:
        stop.set()
        thread.join(20)


async def strict(heard: Heard, line: Line) -> None:
    """Answers what the document allows."""
    path = heard.path
    schema = document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    if not jsonschema_rs.is_valid(schema, heard.body):
        await line.send(whole(400, b'{"error": {"message": "this is not as documented"}}'))
    elif path in ("/v1/classify", "/v1/search"):
        await line.send(whole(200, b'{"object": "list", "data": []}'))
    else:
        await answers()(Heard(heard.path, heard.headers, {**heard.body, "tools": None}), line)


def described(url: str, secret: str) -> Any:
    """The served document, in which a model's name can only be one that there is."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:
        served = json.load(answer)
    assert served == document()
    narrowed = copy.deepcopy(served)
    for path in ACCEPTED:
        body = narrowed["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body["properties"]["model"]["enum"] = ["m"]
    narrowed["paths"]["/v1/models/{model}"]["get"]["parameters"][0]["schema"]["enum"] = ["m"]
    schema = schemathesis.openapi.from_dict(narrowed)
    schema.config.update(base_url=url, headers={"Authorization": f"Bearer {secret}"})
    schema.config.generation.update(max_examples=12, deterministic=True)
    return schema


@pytest.mark.slow
def test_the_document_is_what_the_gateway_does(tmp_path: Path) -> None:
    """No 500, no undocumented status or content type, answers as declared, good requests taken and bad ones refused."""
    from schemathesis.engine import events, from_schema

    store = KeyStore(tmp_path / "gateway.db")
    secret = store.create("admin", is_admin=True).secret
    store.close()
    said: Counter[tuple[str, int]] = Counter()
    wrong: list[str] = []
    with gateway_beside(tmp_path, [strict]) as url:
        for event in from_schema(described(url, secret)).execute():
            if isinstance(event, events.NonFatalError | events.FatalError):
                wrong.append(repr(event))
            if isinstance(event, events.ScenarioFinished):
                label = event.label or ""
                said.update(
                    (label, one.response.status_code) for one in event.recorder.interactions.values() if one.response
                )
                wrong += failures(label, event.recorder)
    assert not wrong, "\n".join(wrong)
    for path in ACCEPTED:  # else it says nothing
        assert said[(f"POST {path}", 200)] >= 5, said
        assert said[(f"POST {path}", 400)] >= 5, said
    assert said[("GET /v1/models/{model}", 200)], said
    assert not [one for one in said if one[1] >= 500], said


def failures(label: str, recorder: Any) -> Iterator[str]:
    """What the checks of a scenario found, in words."""
    for name, checks in recorder.checks.items():
        for one in checks:
            if one.failure_info is not None:
                failure, case = one.failure_info.failure, recorder.cases[name].value
                yield f"{label}: {one.name}: {failure.title}: {failure.message[:300]} ({case.body!r:.300} {case.query})"
