"""Adapters in the tuning stages: every method is trained, written, loaded again, and answers as it was judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tune_tasks import base_model, desk_rows, make_task

from nacre.data.tokenizer import Tokenizer
from nacre.data.write import write_json
from nacre.errors import CheckpointError, ConfigError
from nacre.kernel import hf
from nacre.kernel.adapters import adapted, peft
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.recipe import catalogue
from nacre.recipe.config import build
from nacre.recipe.stage import Work
from nacre.tiers.tune import distilling_worker, worker
from nacre.tiers.tune.continuing import ContinualConfig
from nacre.tiers.tune.distilling import LessonConfig, TuneDistilConfig, check_distil
from nacre.tiers.tune.folding import CrossvalidateConfig, check_crossvalidate
from nacre.tiers.tune.stages import (
    SolveConfig,
    TuneClassifyConfig,
    TuneImagesConfig,
    TuneSeq2SeqConfig,
    check_images,
    check_tuned,
)
from nacre.train.config import TrainConfig
from nacre.train.objectives.config import ClassifyConfig, ImageConfig
from nacre.train.objectives.config_align import DistilConfig, LayerMatch

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


# ---- images, students, folds


def _written(work: Work, beside: bool, base: Kernel) -> tuple[Kernel, Kernel]:
    """The model as it is loaded, and its base with the adapter put on it; the record and the log name the share."""
    said = json.loads((work.out / "training.json").read_text())["adapter"]
    assert 0 < said["share"] < 0.6
    assert f"{said['trained']:,} parameters trained" in work.notes[0]
    loaded = hf.load(work.out)
    assert bool(adapted.attached(loaded)) == beside
    peft.load(base, work.out / "adapter")
    return loaded, base


@pytest.mark.parametrize(
    ("method", "settings"),
    [("lora", {"rank": 2}), ("bias", {}), ("bottleneck", {"width": 4}), ("prefix", {"tokens": 2})],
    ids=lambda one: str(one),
)
def test_images_are_sorted_with_an_adapter(method: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    sizes = {"image_size": 4, "patch_size": 2, "channels": 1, "hidden_size": 16, "layers": 2, "heads": 2}
    base = Kernel(preset("vit", **sizes), torch.Generator().manual_seed(0))
    hf.save(base, tmp_path / "base")
    rng = np.random.default_rng(0)
    shades = [(0.6 * (n % 2) + 0.2 * rng.random((1, 4, 4))).round(3).tolist() for n in range(12)]
    rows = [{"pixels": one, "label": "ab"[n % 2]} for n, one in enumerate(shades)]
    data = make_task(tmp_path / "data", "classify", rows, rows)
    write_json(data / "labels.json", ["a", "b"])
    work = work_in(tmp_path / "work", model=tmp_path / "base", data=data)
    config = TuneImagesConfig(
        ImageConfig(size=4), TrainConfig(epochs=4, lr=2e-2, batch_size=4), adapter=AdapterConfig(method, **settings)
    )
    catalogue.find("tune.images")(config, work)
    headed = hf.load(tmp_path / "base").with_head("classify", labels=("a", "b"), pooling="cls")
    loaded, other = _written(work, method in ("bottleneck", "prefix"), headed)
    image = torch.randn(2, 1, 4, 4)
    logits = [one.class_logits(one(image).hidden) for one in (loaded, other)]
    assert torch.allclose(*logits, atol=1e-5)
    with adapted.disabled(other):
        assert not torch.allclose(other.class_logits(other(image).hidden), logits[0], atol=1e-3)
    base_state, kept = hf.load(tmp_path / "base").state_dict(), loaded.state_dict()
    same = all(torch.equal(one, kept[name]) for name, one in base_state.items())
    assert same == (method in ("bottleneck", "prefix"))


def test_a_prompt_has_no_place_before_images() -> None:
    with pytest.raises(ConfigError, match="a prompt stands before a text"):
        check_images(TuneImagesConfig(adapter=AdapterConfig("prompt")), {})
    with pytest.raises(ConfigError, match="both lora and adapter"):
        check_images(TuneImagesConfig(lora=LoraConfig(), adapter=AdapterConfig("bias")), {})


def _distilled(place: Path, desk: tuple[Path, Path], teacher: Path, adapter: AdapterConfig, **distil: Any) -> Work:
    work = work_in(place, student=desk[0], teacher=teacher, data=desk[1])
    config = TuneDistilConfig(
        LessonConfig(classify=ClassifyConfig(context=40)), DistilConfig(**distil),
        TrainConfig(max_steps=6, lr=2e-2, batch_size=4), adapter=adapter,
    )  # fmt: skip
    check_distil(config, work.inputs)
    catalogue.find("tune.distil")(config, work)
    return work


@pytest.fixture(scope="module")
def teacher(desk: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned model of other widths than the student's, over the same tokenizer."""
    place = tmp_path_factory.mktemp("teacher")
    texts = [json.loads(line)["text"] for line in (desk[1] / "train.jsonl").read_text().splitlines()]
    wide = base_model(place / "base", "bert", texts, hidden_size=48)
    return tuned(place / "work", wide, desk[1], None)[0].out


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "bottleneck"])
def test_a_student_learns_beside_its_body(
    method: Any, desk: tuple[Path, Path], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a projection of its states, which is trained with the adapter and is no part of either."""
    inner = distilling_worker.fit

    def trained(kernel: Kernel, *given: Any, **more: Any) -> Any:
        drawn = [one.detach().clone() for one in kernel.projections.parameters()]
        after = more.pop("after")

        def moved(kernel: Kernel) -> None:
            assert not any(torch.equal(*pair) for pair in zip(drawn, kernel.projections.parameters(), strict=True))
            after(kernel)

        return inner(kernel, *given, after=moved, **more)

    monkeypatch.setattr(distilling_worker, "fit", trained)
    adapter = AdapterConfig(method, **METHODS[method] | ({"dora": False} if method == "lora" else {}))
    work = _distilled(tmp_path / "work", desk, teacher, adapter, hidden=LayerMatch(layers="even"))
    kept = method != "lora"
    labels = hf.load_config(work.out).labels
    loaded, other = _written(work, kept, hf.load(desk[0]).with_head("classify", labels=labels, pooling="mean"))
    assert not any("projections" in name for name in loaded.state_dict())
    ids = torch.tensor([Tokenizer.load(work.out).encode("where is it")])
    logits = [one.class_logits(one(ids).hidden) for one in (loaded, other)]
    assert torch.allclose(*logits, atol=1e-5)
    base = hf.load(desk[0]).state_dict()
    same = [torch.equal(base[name], one) for name, one in loaded.state_dict().items() if name in base]
    assert all(same) == kept


@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_folds_are_tuned_with_an_adapter(method: Any, desk: tuple[Path, Path], tmp_path: Path) -> None:
    adapter = AdapterConfig(method, **({"rank": 2} if method == "lora" else {"tokens": 3}))
    train = TrainConfig(max_steps=4, lr=1e-2, batch_size=4)
    found = []
    for name, one in (("plain", None), ("with", adapter)):
        config = CrossvalidateConfig(folds=2, tune=TuneClassifyConfig(ClassifyConfig(context=40), train, adapter=one))
        work = work_in(tmp_path / name, model=desk[0], data=desk[1])
        figures = catalogue.find("tune.crossvalidate")(config, work)
        assert figures["folds"] == 2
        found.append((work.out / "predictions.jsonl").read_text())
    assert found[0] != found[1]
    both = TuneClassifyConfig(lora=LoraConfig(), adapter=adapter)
    with pytest.raises(ConfigError, match="both lora and adapter"):
        check_crossvalidate(CrossvalidateConfig(tune=both), {})


def test_the_short_form_is_known_wherever_the_long_one_is() -> None:
    """Every tuning stage that trains takes both, or, as cross-validation, the config of one that does."""
    without = {"tune.average", "tune.crossvalidate", "tune.solve"}
    for name in sorted(one for one in catalogue.STAGES if one.startswith("tune.") and one not in without):
        known = catalogue.find(name).config_type.__dataclass_fields__
        assert {"lora", "adapter"} <= set(known), name
    with pytest.raises(ConfigError, match="nothing to hold"):
        ContinualConfig(lora=LoraConfig(), ewc=1.0)


def test_what_could_not_be_written_is_refused_before_it_is_trained(
    desk: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "fit", lambda *given, **more: pytest.fail("trained"))
    work = work_in(tmp_path / "first", model=desk[0], data=desk[1])
    config = TuneClassifyConfig(ClassifyConfig(context=40), pooling="cls", adapter=AdapterConfig("prompt", tokens=2))
    with pytest.raises(CheckpointError, match="PEFT classifies by the first position"):
        catalogue.find("tune.classify")(config, work)
    pairs = [{"source": "where is it", "target": "there"}] * 4
    data = make_task(tmp_path / "data", "generate", pairs, pairs)
    base = base_model(tmp_path / "base", "t5", ["where is it", "there"], head="lm")
    work = work_in(tmp_path / "second", model=base, data=data)
    with pytest.raises(CheckpointError, match="PEFT has one prefix for several layers"):
        catalogue.find("tune.seq2seq")(TuneSeq2SeqConfig(adapter=AdapterConfig("prefix", tokens=2)), work)
