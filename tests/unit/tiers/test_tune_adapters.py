"""Adapters in the tuning stages: every method is trained, written, loaded again, and answers as it was judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tune_tasks import base_model, desk_rows, make_task

from nacre.data.tokenizer import Tokenizer
from nacre.data.write import write_json
from nacre.errors import ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig
from nacre.kernel.model import Kernel
from nacre.recipe import catalogue
from nacre.recipe.config import build
from nacre.recipe.stage import Work
from nacre.tiers.tune.stages import SolveConfig, TuneClassifyConfig, check_tuned
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import ClassifyConfig

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "dora": True},
    "bottleneck": {"width": 4},
    "prefix": {"tokens": 3},
    "prompt": {"tokens": 3},
    "bias": {},
}


def work_in(place: Path, **inputs: Path) -> Work:
    out, scratch = place / "out", place / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    return Work(inputs, out, scratch, seed=3)


def tuned(place: Path, base: Path, data: Path, adapter: AdapterConfig | None) -> tuple[Work, dict[str, Any]]:
    config = TuneClassifyConfig(
        objective=ClassifyConfig(context=48), train=TrainConfig(epochs=4, lr=2e-2), adapter=adapter
    )
    work = work_in(place, model=base, data=data)
    return work, dict(catalogue.find("tune.classify")(config, work))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("desk")
    rows, _ = desk_rows(intents=3, per_intent=8)
    data = make_task(place / "data", "classify", rows, rows)
    write_json(data / "labels.json", sorted({row["label"] for row in rows}))
    return base_model(place / "base", "bert", [row["text"] for row in rows]), data


@pytest.mark.parametrize("method", METHODS)
def test_trap_50_what_was_trained_is_what_is_loaded(method: Any, desk: tuple[Path, Path], tmp_path: Path) -> None:
    adapter = AdapterConfig(method, **METHODS[method])
    work, metrics = tuned(tmp_path / "work", *desk, adapter)
    again, _ = tuned(tmp_path / "again", *desk, adapter)
    files = ("adapter/" + peft.WEIGHTS, "model.safetensors")
    for _ in range(3):  # nothing is written in an order that changes
        peft.save(_loaded(work.out, desk[0]), tmp_path / "more")
        assert (tmp_path / "more" / peft.WEIGHTS).read_bytes() == (work.out / "adapter" / peft.WEIGHTS).read_bytes()
    assert all((work.out / one).read_bytes() == (again.out / one).read_bytes() for one in files)
    loaded = hf.load(work.out)
    kept = method in ("bottleneck", "prefix", "prompt")
    assert [one.method for one in adapted.attached(loaded).values()] == ([method] if kept else [])
    other = _loaded(work.out, desk[0])
    ids = torch.tensor([Tokenizer.load(work.out).encode("where is it")])
    logits = [one.class_logits(one(ids).hidden) for one in (loaded, other)]
    assert torch.allclose(*logits, atol=1e-5)
    with adapted.disabled(other):
        assert not torch.allclose(other.class_logits(other(ids).hidden), logits[0], atol=1e-3)
    assert metrics["steps"] > 0


def _loaded(out: Path, base: Path) -> Kernel:
    kernel = hf.load(base).with_head("classify", labels=hf.load_config(out).labels, pooling="mean")
    peft.load(kernel, out / "adapter")
    return kernel


def test_the_short_form_is_the_long_one(desk: tuple[Path, Path], tmp_path: Path) -> None:
    config = build(TuneClassifyConfig, {"lora": {"rank": 4}, "adapter": {"method": "bias"}}, "tune")
    with pytest.raises(ConfigError, match="both lora and adapter"):
        check_tuned(config, {})
    with pytest.raises(ConfigError, match="unknown key 'ranks'"):
        build(TuneClassifyConfig, {"adapter": {"method": "lora", "ranks": 4}}, "tune")
    with pytest.raises(ConfigError, match="rank is no setting"):
        build(TuneClassifyConfig, {"adapter": {"method": "bias", "rank": 4}}, "tune")
    how: dict[str, Any] = {"objective": ClassifyConfig(context=48), "train": TrainConfig(max_steps=2)}
    short = TuneClassifyConfig(**how, lora=LoraConfig(2, 4.0))
    long = TuneClassifyConfig(**how, adapter=AdapterConfig("lora", rank=2, alpha=4.0))
    found = []
    for name, one in (("short", short), ("long", long)):
        work = work_in(tmp_path / name, model=desk[0], data=desk[1])
        catalogue.find("tune.classify")(one, work)
        found.append((work.out / "model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["bias", "bottleneck"])
def test_the_ladder_offers_more_methods_when_it_is_asked(method: Any, tmp_path: Path) -> None:
    rows, _ = desk_rows(intents=2, per_intent=6)
    base = base_model(tmp_path / "base", "bert", [row["text"] for row in rows])
    task = make_task(tmp_path / "task", "classify", rows, rows)
    work = work_in(tmp_path / "work", task=task, base=base)
    config = SolveConfig(methods=(method,), epochs=3, lora_rates=(2e-2,), batch_size=4)
    figures = dict(catalogue.find("tune.solve")(config, work))
    assert figures["method"] == method
    loaded = hf.load(work.out / "model")
    assert bool(adapted.attached(loaded)) == (method == "bottleneck")
    assert (work.out / "adapter" / peft.CONFIG).is_file()
