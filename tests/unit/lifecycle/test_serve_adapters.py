"""Adapters over one base behind the gateway: each answers as it would alone, and the base as if there were none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_folders import native_folder
from serve_calls import ALICE, all_events, call_of, chat, looped, text_of

from nacre.engine.native import Native
from nacre.engine.protocol import Message, Sampling
from nacre.errors import CheckpointError, ConfigError, NacreError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.model import Kernel
from nacre.lifecycle.serve.assemble import assemble
from nacre.lifecycle.serve.config import LocalAdapter, parse
from nacre.lifecycle.serve.contract import Caller, Refusal
from nacre.lifecycle.serve.local.model import LocalModel
from nacre.lifecycle.serve.local.opening import Openings
from nacre.lineage.store import Store

TEXTS = ["where is my parcel", "我的包裹在哪里？", "a longer question about refunds, cards and 发货", "x"]
LABELS = ("billing", "shipping", "退款")


def tuned(base: Path, folder: Path, config: AdapterConfig, seed: int) -> Kernel:
    """An adapter of `base` in `folder`, far from nothing; the kernel with it."""
    kernel = hf.load(base).eval()
    adapted.attach(kernel, config, torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in (one for one in kernel.parameters() if one.requires_grad):
            one.add_(torch.randn(one.shape, generator=draws) * 0.3)
    peft.save(kernel, folder)
    return kernel


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases `x`, their adapters `x.NAME`, and `x.NAME.merged`: a base with one written into it."""
    top = tmp_path_factory.mktemp("adapted")
    native_folder(top / "decoder", "decoder")
    native_folder(top / "other", "decoder", seed=7)
    native_folder(top / "classifier", "encoder", seed=1)
    hf.save(hf.load(top / "classifier").with_head("classify", labels=LABELS), top / "classifier")
    for seed, name in enumerate(("support", "formal"), 1):
        for base in ("decoder", "classifier"):
            (top / f"{base}.{name}").mkdir()
            native_folder(top / f"{base}.{name}.merged", base.replace("classifier", "encoder"))
            kernel = tuned(top / base, top / f"{base}.{name}" / "adapter", AdapterConfig("lora", rank=4), seed)
            adapted.fold(kernel)
            hf.save(kernel, top / f"{base}.{name}.merged")
    tuned(top / "decoder", top / "decoder.prefix", AdapterConfig("prefix", tokens=20), 3)
    tuned(top / "other", top / "strange", AdapterConfig("lora", rank=4), 3)
    return top


def served(top: Path, base: str, *names: str, **settings: Any) -> dict[str, LocalModel]:
    """The base as `m`, its adapters as `m:NAME`, not started."""
    adapters = {name: str(top / f"{base}.{name}") for name in names}
    local = {"ref": str(top / base), "device": "cpu", "adapters": adapters, **settings}
    text = json.dumps({"models": {"m": {"local": local}}})
    openings = Openings(Store(top / "store"))
    return {name: openings(name, one.local) for name, one in parse(text, "t").models.items() if one.local}


async def started(models: dict[str, LocalModel]) -> dict[str, LocalModel]:
    for one in models.values():
        await one.start()
    return models


async def ended(models: dict[str, LocalModel]) -> None:
    for one in reversed(models.values()):
        await one.close()


def body_of(reply: Any) -> Any:
    assert reply.body is not None
    return json.loads(reply.body)


@looped
async def test_each_writes_as_if_merged_and_the_base_as_if_alone(top: Path) -> None:
    models = await started(served(top, "decoder", "support", "formal", "prefix", batch=3))
    folders = {"m": "decoder", "m:support": "decoder.support.merged", "m:formal": "decoder.formal.merged"}
    engines = {name: Native(top / folder) for name, folder in folders.items()}
    engines["m:prefix"] = Native(top / "decoder")
    peft.load(engines["m:prefix"].kernel, top / "decoder.prefix")
    engines["m:prefix"].kernel.eval()
    kernels = {id(model.engine.kernel) for model in models.values()}  # type: ignore[attr-defined]
    assert len(kernels) == 1

    async def one(name: str, text: str, most: int, stream: bool) -> str:
        asked = chat(text, max_tokens=most, stream=stream) | {"model": name}
        reply = await models[name].answer(call_of("chat", asked))
        said = text_of(await all_events(reply)) if stream else body_of(reply)["choices"][0]["message"]["content"]
        assert said == engines[name].generate([(Message("user", text),)], Sampling(most))[0].text, (name, text)
        return str(said)

    asked = [(name, text, 4 + at, bool(at % 2)) for at, text in enumerate(TEXTS) for name in models]
    said = await asyncio.gather(*(one(*each) for each in asked))
    assert len(set(said[:4])) == 4  # the adapters do change what is written
    for name, model in models.items():
        for text in TEXTS:  # alone, as what is embedded together is the same to rounding only
            body = body_of(await model.answer(call_of("embeddings", {"model": name, "input": text})))
            found, alone = np.array(body["data"][0]["embedding"], np.float32), engines[name].embed([text]).vectors[0]
            assert np.array_equal(found, alone) if name == "m" else np.allclose(found, alone, atol=1e-4)
    assert len({model.identity for model in models.values()}) == 4
    await ended(models)


@looped
async def test_classifiers_switch_their_heads_too(top: Path) -> None:
    models = await started(served(top, "classifier", "support", "formal"))
    names = {"m": "classifier", "m:support": "classifier.support.merged", "m:formal": "classifier.formal.merged"}
    openings = Openings(Store(top / "store"))
    alone = {}
    for name, folder in names.items():
        text = f"models: {{m: {{local: {{ref: '{top / folder}', device: cpu}}}}}}"
        local = parse(text, "t").models["m"].local
        assert local is not None
        alone[name] = openings(name, local)
    await started(alone)
    asked = {"input": TEXTS, "top_k": 3}

    async def scores(model: LocalModel) -> Any:
        data = body_of(await model.answer(call_of("classify", asked | {"model": model.name})))["data"]
        return [{one["label"]: one["score"] for one in each["scores"]} for each in data]

    for _ in range(2):
        found = dict(zip(models, await asyncio.gather(*map(scores, models.values())), strict=True))
        for name in models:
            for mine, theirs in zip(found[name], await scores(alone[name]), strict=True):
                assert mine == (theirs if name == "m" else pytest.approx(theirs, abs=1e-5))
    assert found["m"] != found["m:support"] != found["m:formal"]
    await ended(models)
    await ended(alone)


@looped
async def test_turns_are_fair_and_a_client_that_leaves_holds_nobody(top: Path) -> None:
    models = await started(served(top, "decoder", "support", "formal", batch=1))
    order: list[str] = []

    async def one(name: str, most: int) -> None:
        await models[name].answer(call_of("completions", {"model": name, "prompt": "where", "max_tokens": most}))
        order.append(name)

    crowd = [asyncio.create_task(one("m", 40)) for _ in range(6)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(one(name, 2)) for name in ("m:support", "m:formal")]
    reply = await models["m:support"].answer(call_of("chat", chat("x", max_tokens=60, stream=True)))
    events = reply.events
    assert events is not None
    await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    await asyncio.gather(*others)
    assert order.count("m") <= 2  # two tokens of an adapter do not wait for six long texts of the base
    await asyncio.gather(*crowd)
    await one("m:support", 2)
    await ended(models)


@looped
async def test_what_cannot_stand_over_a_base_is_refused_at_the_start(top: Path) -> None:
    models = served(top, "decoder", "support")
    openings = Openings(Store(top / "store"))

    def base_with(folder: Path, base: str = "decoder") -> LocalModel:
        adapters = {"a": str(folder)}
        text = json.dumps({"models": {"m": {"local": {"ref": str(top / base), "device": "cpu", "adapters": adapters}}}})
        local = parse(text, "t").models["m"].local
        assert local is not None
        return openings("m", local)

    for folder, what in ((top / "strange", "other weights"), (top / "classifier.support", "belongs to nothing")):
        model = base_with(folder)
        with pytest.raises(CheckpointError, match=f"the adapter 'a' of m .*{what}") as found:
            await model.start()
        assert found.value.remedy
        await model.close()
    with pytest.raises(CheckpointError, match="holds no adapter_config"):
        base_with(top / "other")
    with pytest.raises(NacreError, match="nowhere"):
        base_with(top / "nowhere")
    await ended(models)


def test_adapters_are_models_of_their_own_in_the_config() -> None:
    text = """
models:
  desk:
    local: {ref: base/model, batch: 3, adapters: {support: ./adapters/support, formal: talk/tune}}
    price: {input_per_million: 2}
routes: {smart: ["desk:support", desk]}
"""
    config = parse(text, "t")
    assert config.names == ("desk", "desk:support", "desk:formal", "smart")
    own = config.models["desk:formal"]
    assert isinstance(own.local, LocalAdapter)
    assert (own.local.base, own.local.adapter, own.local.batch) == ("desk", "formal", 3)
    assert own.price == config.models["desk"].price
    with pytest.raises(ConfigError, match=r"line 4.*cannot name an adapter"):
        parse(text.replace("{support:", "{'a:b':").replace("desk:support", "desk:formal"), "t")
    with pytest.raises(ConfigError, match="a model is called desk:formal too"):
        parse(text.replace("routes:", "  'desk:formal': {local: {ref: x}}\nroutes:"), "t")


@looped
async def test_the_gateway_lists_them_and_knows_the_closest_name(top: Path) -> None:
    local = {"ref": str(top / "decoder"), "device": "cpu", "adapters": {"support": str(top / "decoder.support")}}
    config = parse(json.dumps({"models": {"m": {"local": local}}}), "t")
    gateway = await assemble(config, store=str(top / "store"))
    await gateway.start()
    assert gateway.table.visible(ALICE) == ["m", "m:support"]
    assert gateway.table.visible(Caller("c", "C", models=("m:*",))) == ["m:support"]
    assert gateway.table.find(ALICE, "m:support")[0].abilities == gateway.table.find(ALICE, "m")[0].abilities
    with pytest.raises(Refusal, match="m:support") as found:
        gateway.table.find(ALICE, "m:suport")
    assert found.value.status == 404
    await gateway.close()
