"""tune.preference, tune.reward and evaluate.preference: what is written, compared, refused and measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_kit import template, tokenizer, user
from objective_kit import kernel as kit_kernel
from objective_kit import tokenizer as kit_tokenizer

from nacre.errors import CheckpointError, ConfigError, DataError, TrainingError
from nacre.kernel import hf
from nacre.kernel.adapters.adapted import attach
from nacre.kernel.adapters.config import AdapterConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.evaluate.preferring import PreferenceEvalConfig
from nacre.lifecycle.evaluate.stages import Resampling
from nacre.progress import Silent
from nacre.recipe.catalogue import find
from nacre.recipe.config import build
from nacre.recipe.stage import Work
from nacre.tiers.fitting import keep_tokenizer, save_trained
from nacre.tiers.tune.preferring import (
    TunePreferenceConfig,
    TuneRewardConfig,
    check_preference,
    check_reward,
)
from nacre.train.config import TrainConfig
from nacre.train.objectives.config_align import PreferenceConfig, RewardConfig

PAIRS = [
    {"messages": [user("hello")], "chosen": "Hello there.", "rejected": "What?"},
    {"messages": [user("你好")], "chosen": "你好，我在。", "rejected": "走开"},
    {"messages": [user("what is your name?")], "chosen": "Nacre.", "rejected": "None of your business!"},
    {"messages": [user("thanks")], "chosen": "Bye.", "rejected": "Bye bye bye bye."},
]


def base(folder: Path, *, templated: bool = True, seed: int = 0, extra: int = 0) -> Path:
    vocabulary = template("chatml").tokenizer if templated else tokenizer()
    sizes = {"hidden_size": 48, "heads": 4, "layers": 2, "max_positions": 96, "vocab_size": len(vocabulary) + extra}
    ids = {"bos_id": vocabulary.bos_id, "eos_id": vocabulary.eos_id, "pad_id": vocabulary.pad_id}
    hf.save(Kernel(preset("llama2", **sizes | ids, head="lm"), torch.Generator().manual_seed(seed)), folder)
    vocabulary.save(folder)
    if templated:
        (folder / "chat_template.jinja").write_text(template("chatml").source, encoding="utf-8")
    return folder


def data(folder: Path, rows: list[dict[str, Any]] = PAIRS) -> Path:
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


class Notes(Silent):
    def __init__(self) -> None:
        self.said: dict[str, Any] = {}

    def note(self, message: str, **values: Any) -> None:
        self.said[message] = values


def tuned(
    place: Path, inputs: Mapping[str, Path], config: Any, stage: str = "tune.preference"
) -> tuple[Path, Work, Any]:
    out = place / "out"
    out.mkdir(parents=True, exist_ok=True)
    check = check_preference if stage == "tune.preference" else check_reward
    check(config, inputs)
    work = Work(dict(inputs), out, place / "scratch", progress=Notes())
    return out, work, dict(find(stage)(config, work))


def quick(steps: int = 20, lr: float = 3e-3, **objective: Any) -> dict[str, Any]:
    how = TrainConfig(max_steps=steps, batch_size=4, lr=lr, warmup=0, eval_every=5, log_every=5)
    return {"train": how, "objective": PreferenceConfig(**{"context": 64} | objective)}


def test_dpo_writes_a_model_that_prefers_the_chosen_answers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    out, _, metrics = tuned(tmp_path / "run", {"model": model, "data": rows}, TunePreferenceConfig(**quick()))
    assert metrics["accuracy"] == 1
    assert metrics["margin"] > 0
    history = json.loads((out / "training.json").read_text(encoding="utf-8"))["history"]
    assert history[-1]["valid_margin"] > history[0]["margin"]
    kernel, ids = hf.load(out), torch.tensor([[3, 5, 8, 13]])
    assert isinstance(kernel.config.eos_id, tuple)
    assert set(template("chatml").ends) <= set(kernel.config.eos_id)
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.inference_mode():
        assert torch.allclose(kernel.lm_logits(kernel(ids).hidden), theirs(ids).logits, atol=1e-4)
    assert AutoTokenizer.from_pretrained(out).chat_template == template("chatml").source
    scored = tmp_path / "report"
    scored.mkdir()
    config = PreferenceEvalConfig(intervals=Resampling(100), context=64)
    with_reference = find("evaluate.preference")(
        config, Work({"model": out, "data": rows, "reference": model}, scored, tmp_path / "s")
    )
    assert with_reference["accuracy"] == 1
    assert with_reference["reward"] == "implicit_reward"
    assert with_reference["margin"] == pytest.approx(metrics["margin"], rel=1e-3)
    assert with_reference["margin_low"] <= with_reference["margin"] <= with_reference["margin_high"]
    assert "implicit" in (scored / "report.html").read_text(encoding="utf-8")
    alone = find("evaluate.preference")(config, Work({"model": out, "data": rows}, scored, tmp_path / "s"))
    assert alone["reward"] == "per_token_reward"


def test_the_same_bytes_again_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    inputs, config = {"model": model, "data": rows}, TunePreferenceConfig(**quick(10))
    once = tuned(tmp_path / "a", inputs, config)[0]
    from nacre.train.objectives.preference import Preference

    def killed(self: Preference, step: int) -> None:
        if step == 7:
            raise TrainingError("killed", remedy="again")

    with monkeypatch.context() as patched:
        patched.setattr(Preference, "watch", killed)
        with pytest.raises(TrainingError, match="killed"):
            tuned(tmp_path / "b", inputs, config)
    again = tuned(tmp_path / "b", inputs, config)[0]
    assert {path.name for path in once.iterdir()} == {path.name for path in again.iterdir()}
    for path in sorted(once.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_trap_39_adapters_start_at_ln_2_from_the_model_without_them(tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    given = build(TunePreferenceConfig, {"lora": {"rank": 4}}, "tune.preference")
    config = TunePreferenceConfig(**quick(15, lr=1e-2), lora=given.lora)
    out, _, metrics = tuned(tmp_path / "run", {"model": model, "data": rows}, config)
    history = json.loads((out / "training.json").read_text(encoding="utf-8"))["history"]
    assert history[0]["loss"] < 0.6932
    assert metrics["margin"] > 0
    assert (out / "adapter" / "adapter_config.json").is_file()
    one_step = TunePreferenceConfig(**quick(1, lr=1e-12), lora=given.lora)
    start, _, _ = tuned(tmp_path / "start", {"model": model, "data": rows}, one_step)
    first = json.loads((start / "training.json").read_text(encoding="utf-8"))["history"][0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize("named", [True, False], ids=["given", "the model itself"])
def test_the_reference_keeps_the_adapter_it_was_saved_with(tmp_path: Path, named: bool) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    kernel, draws = hf.load(model).float(), torch.Generator().manual_seed(1)
    attach(kernel, AdapterConfig("prefix"), draws)
    with torch.no_grad():
        for parameter in kernel.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draws))
    talker = tmp_path / "talker"
    talker.mkdir()
    save_trained(kernel, talker)  # a prefix has no place in the weights: it lies beside them
    keep_tokenizer(template("chatml").tokenizer, talker, None)
    inputs = {"model": talker, "data": rows} | ({"reference": talker} if named else {})
    _, _, metrics = tuned(tmp_path / "run", inputs, TunePreferenceConfig(**quick(1, lr=1e-9), template="chatml"))
    assert metrics["train_loss"] == round(math.log(2), 4)
    assert metrics["margin"] == pytest.approx(0, abs=1e-5)


def test_a_reference_of_its_own_moves_the_start(tmp_path: Path) -> None:
    model, rows, other = base(tmp_path / "base"), data(tmp_path / "data"), base(tmp_path / "other", seed=5)
    config = TunePreferenceConfig(**quick(1, lr=1e-12))
    out, _, _ = tuned(tmp_path / "run", {"model": model, "data": rows, "reference": other}, config)
    first = json.loads((out / "training.json").read_text(encoding="utf-8"))["history"][0]
    assert abs(first["loss"] - 0.693147) > 1e-4
    relations = {name: given.relation for name, given in find("tune.preference").inputs.items()}
    assert relations == {
        "model": "finetuned_from", "tokenizer": "tokenized_by", "data": "trained_on", "reference": "aligned_with",
    }  # fmt: skip


def test_references_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model, rows = base(tmp_path / "base"), data(tmp_path / "data")
    larger = base(tmp_path / "larger", extra=8)
    with pytest.raises(CheckpointError, match="vocab_size"):
        tuned(tmp_path / "run", {"model": model, "data": rows, "reference": larger}, TunePreferenceConfig(**quick()))
    foreign = base(tmp_path / "foreign")
    swapped = (foreign / "tokenizer.json").read_text(encoding="utf-8").replace("<|im_end|>", "<|other|>")
    (foreign / "tokenizer.json").write_text(swapped, encoding="utf-8")
    with pytest.raises(CheckpointError, match="another vocabulary"):
        tuned(tmp_path / "run", {"model": model, "data": rows, "reference": foreign}, TunePreferenceConfig(**quick()))


def test_chosen_answers_that_become_less_likely_are_told(tmp_path: Path) -> None:
    alike = [
        {"messages": [user(str(n))], "chosen": f"yes {n} " * 5, "rejected": f"yes {n} " * 5 + "!"} for n in range(6)
    ]
    model, rows = base(tmp_path / "base"), data(tmp_path / "data", alike)
    config = TunePreferenceConfig(**quick(40, lr=1e-2, beta=2.0, max_fall=50.0, kind="simpo", gamma=6.0))
    _, work, metrics = tuned(tmp_path / "run", {"model": model, "data": rows}, config)
    fell = metrics["chosen_change_nats"] < 0
    assert fell == any("less likely" in note for note in work.notes)
    assert fell == ("the chosen answers became less likely" in work.progress.said)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["kto", "orpo"])
def test_plain_prompts_and_judged_answers(kind: Any, tmp_path: Path) -> None:
    judged = [
        {"messages": row["messages"], "answer": row[side], "good": side == "chosen"}
        for row in PAIRS
        for side in ("chosen", "rejected")
    ]
    model = base(tmp_path / "base", templated=False)
    rows = data(tmp_path / "data", judged if kind == "kto" else PAIRS)
    config = TunePreferenceConfig(**quick(10, kind=kind))
    out, _, metrics = tuned(tmp_path / "run", {"model": model, "data": rows}, config)
    assert not (out / "chat_template.jinja").exists()
    assert "chosen_change_nats" in metrics


def test_an_encoder_decoder_learns_preferences(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    words = kit_tokenizer("t5")
    hf.save(kit_kernel("t5", decoder_start_id=words.pad_id, eos_id=words.eos_id), folder)
    words.save(folder)
    config = TunePreferenceConfig(**quick(15, target_context=32))
    out, _, metrics = tuned(tmp_path / "run", {"model": folder, "data": data(tmp_path / "data")}, config)
    assert metrics["margin"] > 0
    assert hf.load(out).config.dropout == kit_kernel("t5").config.dropout


@pytest.mark.parametrize("style", ["decoder", "encoder"])
def test_reward_models_are_written_for_transformers_and_measured(style: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "base"
    if style == "decoder":
        base(folder)
    else:
        hf.save(kit_kernel("bert"), folder)
        kit_tokenizer("bert").save(folder)
    rows = data(tmp_path / "data")
    train = TrainConfig(max_steps=25, batch_size=4, lr=5e-3, warmup=0, log_every=5)
    config = TuneRewardConfig(RewardConfig(64), train)
    out, _, metrics = tuned(tmp_path / "run", {"model": folder, "data": rows}, config, "tune.reward")
    assert metrics["stopped"] == "done"
    theirs = AutoModelForSequenceClassification.from_pretrained(out)
    assert theirs.num_labels == 1
    if style == "decoder":
        assert theirs.config.pad_token_id == tokenizer().pad_id
    report = tmp_path / "report"
    report.mkdir()
    found = find("evaluate.preference")(
        PreferenceEvalConfig(language="zh", intervals=Resampling(100)),
        Work({"model": out, "data": rows}, report, tmp_path / "s"),
    )
    assert found["reward"] == "reward_model"
    assert found["accuracy"] == 1
    lines = (report / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"id", "reward_chosen", "reward_rejected", "margin"}] * 4
    assert "奖励模型" in (report / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_learnt_is_told_before(tmp_path: Path) -> None:
    model, talks = base(tmp_path / "base"), data(tmp_path / "talks", [{"question": "a", "answer": "b"}])
    for check, config in ((check_preference, TunePreferenceConfig()), (check_reward, TuneRewardConfig())):
        with pytest.raises(DataError, match=r"train\.jsonl: these rows are conversations"):
            check(config, {"model": model, "data": talks})  # type: ignore[operator]
    strange = data(tmp_path / "strange", [{"prompt": "a", "chosen": "b"}])
    with pytest.raises(DataError, match="without 'rejected'"):
        check_preference(TunePreferenceConfig(), {"data": strange})
    hf.save(kit_kernel("bert"), tmp_path / "bert")
    kit_tokenizer("bert").save(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="cannot write text"):
        check_preference(TunePreferenceConfig(), {"model": tmp_path / "bert"})
    hf.save(kit_kernel("t5"), tmp_path / "t5")
    with pytest.raises(CheckpointError, match="encoder-decoder"):
        check_reward(TuneRewardConfig(), {"model": tmp_path / "t5"})
    with pytest.raises(ConfigError):
        TunePreferenceConfig(template="chatmll")
    wrong = Work({"model": tmp_path / "bert", "data": data(tmp_path / "data")}, tmp_path, tmp_path)
    with pytest.raises(CheckpointError, match="gives answers no reward"):
        find("evaluate.preference")(PreferenceEvalConfig(), wrong)
