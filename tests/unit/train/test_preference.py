"""Preferences: what is compared, cut, refused and watched; the reference that is asked once."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_kit import assistant, template, user
from objective_kit import kernel, rng, tokenizer

from nacre.errors import ConfigError, DataError, TrainingError
from nacre.kernel.adapters import adapted
from nacre.kernel.adapters.config import LoraConfig
from nacre.kernel.model import Kernel
from nacre.progress import Silent
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.answers import answer_logps
from nacre.train.objectives.config_align import WITH_REFERENCE, Kind, PreferenceConfig
from nacre.train.objectives.health import Health
from nacre.train.objectives.preference import Compared, Kto, Preference, _others
from nacre.train.objectives.reference import Reference

KINDS: tuple[Kind, ...] = ("dpo", "ipo", "kto", "orpo", "simpo")
ROWS = [
    {"prompt": "My card was refused.", "chosen": "I am sorry. Which shop was it?", "rejected": "Pay cash."},
    {"prompt": "包裹还没有到", "chosen": "请给我单号，我帮您查。", "rejected": "等着吧。"},
    {"prompt": "How do I change my address?", "chosen": "Open your account.", "rejected": "I moved last week!"},
    {"prompt": "Send the invoice again.", "chosen": "It is on its way.", "rejected": "发票的抬头写错了"},
]


def objective(reference: Any = None, rows_of: str = "gpt", **choices: Any) -> Preference:
    config = PreferenceConfig(**{"context": 64} | choices)
    made = Kto if config.kind == "kto" else Preference
    layout: Any = "encoder-decoder" if rows_of == "t5" else "decoder"
    if reference is None and config.kind in WITH_REFERENCE:
        reference = Reference(kernel(rows_of))
    return made(tokenizer(rows_of), None, config, layout=layout, reference=reference)


def lengthy(prompt: int, chosen: int, rejected: int) -> dict[str, Any]:
    return {"prompt": "late " * prompt, "chosen": "yes " * chosen, "rejected": "no " * rejected}


# --- trap 39


@pytest.mark.parametrize("style", ["gpt", "t5"])
def test_trap_39_dpo_starts_at_ln_2_with_no_reward_and_a_gradient(style: str) -> None:
    made, policy = objective(rows_of=style), kernel(style, dropout=0.1)
    policy.set_dropout(False)
    batch = made.collate(prepare(made, ROWS), rng())
    loss = made.loss(policy.train(), batch)
    assert float(loss.mean.detach()) == pytest.approx(math.log(2), abs=1e-6)
    for name in ("reward_chosen", "reward_rejected", "margin"):
        assert float(loss.metrics[name][0]) == pytest.approx(0, abs=1e-4)
    loss.mean.backward()
    assert float(torch.nn.utils.get_total_norm([one.grad for one in policy.parameters() if one.grad is not None])) > 0.1


def test_trap_39_truncation_takes_the_prompt_first_and_never_a_whole_answer() -> None:
    made = objective(context=31)
    (one,) = made.encode(lengthy(60, 5, 3)) or ()
    whole, other = (tokenizer("gpt").encode(text, add_special=False) for text in ("yes " * 5, "no " * 3))
    assert [len(side) for side in one.sides] == [32, 32 - len(whole) + len(other)]
    assert one.sides[0].target.tolist() == [*whole, tokenizer("gpt").eos_id]
    end = tokenizer("gpt").encode("late " * 60, add_special=False)
    kept = one.sides[0].source.tolist()
    bos = tokenizer("gpt").bos_id
    assert (kept[1:] if kept[0] == bos else kept) == end[-(len(kept) - (kept[0] == bos)) :]
    assert np.array_equal(one.sides[0].source, one.sides[1].source), "both answers have the same prompt"
    assert made.truncated == {"prompts cut at their beginning": 1}

    made = objective(context=31)
    (one,) = made.encode(lengthy(60, 90, 80)) or ()
    assert [len(side) for side in one.sides] == [32, 32]
    assert all(len(side.source) == 8 and len(side.target) == 24 for side in one.sides)
    assert made.truncated["answers cut at the context, without their end"] == 2


def test_trap_39_truncation_of_an_encoder_decoder_cuts_each_side_on_its_own() -> None:
    made = objective(rows_of="t5", context=16, target_context=12)
    (one,) = made.encode(lengthy(60, 90, 2)) or ()
    assert len(one.sides[0].source) == 16
    assert one.sides[0].source[-1] == tokenizer("t5").eos_id
    assert len(one.sides[0].target) == 12
    assert one.sides[1].target[-1] == tokenizer("t5").eos_id
    assert made.truncated == {
        "prompts cut at their beginning": 1,
        "answers cut at the context, without their end": 1,
    }


def test_trap_39_with_adapters_the_reference_is_the_model_without_them() -> None:
    policy = kernel("gpt")
    plain = copy.deepcopy(policy)
    adapted.attach(policy, LoraConfig(rank=2), rng())
    with torch.no_grad():
        for adapter in adapted.adapters(policy).values():
            adapter.get_parameter("b").normal_(generator=rng(1))
    sides = [side for one in prepare(objective(kind="orpo"), ROWS) for side in one.sides]
    collate = objective()._sides
    assert np.array_equal(Reference(policy).logps(sides, collate), Reference(plain).logps(sides, collate))
    with torch.no_grad():
        changed, _ = answer_logps(policy, collate(sides))
    assert np.abs(changed.numpy() - Reference(plain).logps(sides, collate)).max() > 1e-2
    assert adapted.active(policy) == {"default": 1.0}


def test_equal_sides_are_dropped_and_counted() -> None:
    made = objective(context=15)
    alike = {"prompt": "late", "chosen": "yes " * 60 + "one", "rejected": "yes " * 60 + "two"}
    same = {"prompt": "late", "chosen": "yes", "rejected": " yes "}
    prepare(made, [*ROWS, alike, same])
    assert made.dropped["equal sides"] == 1
    assert made.dropped["pairs whose answers are the same as far as the context reaches"] == 1
    with pytest.raises(DataError, match=r"none of 2 rows can be used \(2 equal sides"):
        prepare(objective(), [same, same])


# --- rows


def test_a_template_writes_the_prompt_and_only_the_answer_is_compared() -> None:
    chat = template("chatml", tokenizer("gpt"))
    config = PreferenceConfig("orpo", context=96)
    row = {"messages": [user("hello"), assistant("hi"), user("why?")], "chosen": "Because.", "rejected": "No."}
    made = Preference(chat.tokenizer, chat, config)
    (one,) = made.encode(row) or ()
    assert one.sides[0].source.tolist() == chat.prompt(row["messages"])
    said = [chat.tokenizer.decode(side.target.tolist(), skip_special=False) for side in one.sides]
    assert said == ["Because.<|im_end|>", "No.<|im_end|>"]
    plain = objective()
    assert plain.encode(row) is None
    assert plain.dropped == {"conversations of several turns or with tools, which need a template": 1}


def test_rows_of_another_kind_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="conversations"):
        prepare(objective(), [{"question": "a", "answer": "b"}])
    with pytest.raises(DataError, match="judged answers"):
        prepare(objective(), [{"messages": [user("a")], "answer": "b", "good": True}])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_raises_the_margin(kind: Kind, tmp_path: Path) -> None:
    made, policy = objective(kind=kind, beta=0.5), kernel("gpt")
    before = kernel("gpt")
    examples = prepare(made, ROWS)
    config = TrainConfig(max_steps=30, batch_size=4, lr=2e-3, warmup=0, schedule="constant")
    result = train(policy, made, examples, config, folder=tmp_path)
    judge = objective(kind="simpo", beta=1.0)
    batch = judge.collate(prepare(judge, ROWS), rng())
    gain = judge.predict(policy, batch) - judge.predict(before, batch)
    assert bool((gain[:, 0] - gain[:, 1] > 0).all())
    told = {"reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected"}
    assert told <= set(result.history[-1])
    assert result.history[-1]["reward_chosen"] > result.history[-1]["reward_rejected"]


def test_chunks_of_the_head_change_nothing() -> None:
    found = []
    for chunk in (0, 5):
        made, policy = objective(chunk=chunk), kernel("gpt").train()
        policy.set_dropout(False)
        loss = made.loss(policy, made.collate(prepare(made, ROWS), rng()))
        loss.sum.backward()
        assert policy.embed.tokens is not None
        found.append((loss.sum.detach(), policy.embed.tokens.weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


# --- KTO


def test_kto_crosses_answers_with_prompts_that_are_not_theirs() -> None:
    made = objective(kind="kto")
    examples = prepare(made, ROWS)
    assert [one.good for one in examples] == [True, False] * 4
    for one in examples:
        own, other = one.sides
        assert np.array_equal(own.source, other.source)
        same_prompt = [x.sides[0].target.tolist() for x in examples if np.array_equal(x.sides[0].source, own.source)]
        assert other.target.tolist() not in same_prompt
    judged = [{"messages": [user(text)], "answer": "Yes.", "good": text == "a"} for text in ("a", "b")]
    assert [one.good for one in prepare(objective(kind="kto"), judged)] == [True, False]


def test_kto_refuses_what_it_cannot_estimate() -> None:
    with pytest.raises(DataError, match="same prompt"):
        prepare(objective(kind="kto"), ROWS[:1])
    judged = [{"messages": [user(text)], "answer": "Yes.", "good": True} for text in ("a", "b")]
    with pytest.raises(DataError, match="all 2 answers are good"):
        prepare(objective(kind="kto"), judged)
    assert _others([example.sides[0] for example in prepare(objective(kind="kto"), ROWS)]) == [2, 2, 4, 4, 6, 6, 0, 0]


# --- the reference


class Counting(Silent):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def update(self, step: int, total: int | None = None, **values: Any) -> None:
        del total, values
        self.steps.append(step)


def many(n: int) -> list[Any]:
    rows = [{"prompt": f"late {i}", "chosen": "yes " * (i % 7 + 1), "rejected": "no"} for i in range(n)]
    return [side for one in prepare(objective(kind="orpo"), rows) for side in one.sides]


def test_reference_is_asked_once_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    sides, collate = many(20), objective()._sides
    whole = Reference(kernel("gpt"), batch=1).logps(sides, collate)
    sink = Counting()
    made = Reference(kernel("gpt"), batch=1, folder=tmp_path, progress=sink)
    assert np.array_equal(made.logps(sides, collate), whole)
    assert sink.steps == [16, 32, 40]
    assert np.array_equal(made.logps(sides, collate), whole)
    assert sink.steps == [16, 32, 40], "it was asked again"
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[: 4 * 25 + 3])  # killed inside the second part
    assert np.array_equal(made.logps(sides, collate), whole)
    assert sink.steps[3:] == [32, 40]
    other = Reference(kernel("gpt", hidden_size=16), batch=1, folder=tmp_path)
    assert not np.array_equal(other.logps(sides, collate), whole)
    assert len(list(tmp_path.iterdir())) == 2


def test_reference_computes_as_the_run_does() -> None:
    sides, collate = many(3), objective()._sides
    exact = Reference(kernel("gpt")).logps(sides, collate)
    lowered = Reference(kernel("gpt"), precision="bf16_autocast").logps(sides, collate)
    assert not np.array_equal(exact, lowered)
    assert np.allclose(exact, lowered, rtol=0.02)
    assert np.array_equal(Reference(kernel("gpt"), precision="bf16").logps(sides, collate), lowered)


def test_reference_that_finds_an_answer_impossible_is_refused() -> None:
    broken = kernel("gpt")
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        Reference(broken).logps(many(2), objective()._sides)
    made = Preference(tokenizer("gpt"), None, PreferenceConfig(context=64))
    with pytest.raises(ConfigError, match="dpo compares with a reference"):
        prepare(made, ROWS)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_trap_44_killed_and_resumed_is_the_same_run(kind: Kind, tmp_path: Path) -> None:
    config: dict[str, Any] = {"batch_size": 3, "micro_batch": 1 if kind == "dpo" else 3, "lr": 1e-2, "log_every": 3}

    def run(place: Path, steps: int | None) -> tuple[Kernel, Any]:
        made, policy = objective(kind=kind), kernel("gpt", dropout=0.1)
        examples = prepare(made, ROWS)
        if steps is not None:
            made.watch = lambda step: _stop(step, steps)  # type: ignore[method-assign]
        how = TrainConfig(max_steps=7, checkpoint_every=2, **config)
        return policy, train(policy, made, examples, how, folder=place)

    once, result = run(tmp_path / "a", None)
    with pytest.raises(TrainingError, match="killed"):
        run(tmp_path / "b", 5)
    again, resumed = run(tmp_path / "b", None)
    assert result.history == resumed.history
    for (name, one), other in zip(once.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def _stop(step: int, at: int) -> None:
    if step == at:
        raise TrainingError("killed", remedy="run it again")


# --- runs that go astray


def test_a_margin_that_never_varies_stops_the_run_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    made, policy = objective(patience=5), kernel("gpt")
    policy.set_dropout(False)
    examples = prepare(made, ROWS)
    frozen = tuple(name for name, _ in policy.named_parameters() if "norm.bias" not in name)
    config = TrainConfig(max_steps=40, batch_size=4, lr=1e-20, freeze=frozen, checkpoint_every=2)
    with pytest.raises(TrainingError, match=r"step 5: the margin has been .* in 5 steps: nothing is learnt") as caught:
        train(policy, made, examples, config, folder=tmp_path)
    assert "adapters" in caught.value.remedy
    # The weights of step 4 are those that the fault was seen with.
    assert caught.value.remedy.endswith(f"; the last good checkpoint is {tmp_path / 'step-00000002'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("kind", ["dpo", "simpo", "kto"])
def test_answers_that_become_impossible_stop_the_run(kind: Kind, tmp_path: Path) -> None:
    made, policy = objective(kind=kind, beta=5.0, max_fall=1.0), kernel("gpt")
    config = TrainConfig(max_steps=200, batch_size=4, lr=0.5, warmup=0, clip_norm=None, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"step \d+: the good answers are .* nats per token less likely|step \d+"):
        train(policy, made, prepare(made, ROWS), config, folder=tmp_path)


def test_health_waits_for_nothing_and_tells_noise_from_margins() -> None:
    watch = Health(patience=3, max_fall=2.0)
    for step in (1, 2):
        watch.see(torch.tensor([1e-6, -1e-6]), torch.tensor([100.0]), torch.tensor(0.0))
        watch.check(step)
    with pytest.raises(TrainingError, match="nothing is learnt"):
        watch.check(3)
    watch = Health(patience=3, max_fall=2.0)
    for step in range(1, 9):
        watch.see(torch.tensor([0.5, 0.4]), torch.tensor([1.0]), torch.tensor(0.1))
        watch.check(step)
    watch.see(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor(2.5))
    with pytest.raises(TrainingError, match=r"step 9: the good answers are 2.5 nats"):
        watch.check(9)


def test_settings_that_mean_nothing_are_refused() -> None:
    for choices in (
        {"beta": 0.0}, {"label_smoothing": 0.5}, {"kind": "kto", "label_smoothing": 0.1},
        {"kind": "simpo", "normalise": False}, {"context": 4}, {"patience": 0},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            PreferenceConfig(**choices)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Kto"):
        Preference(tokenizer("gpt"), None, PreferenceConfig("kto"))
    with pytest.raises(ConfigError, match="layout"):
        objective().check(kernel("t5"))


def test_dropout_is_switched_off_and_on_again() -> None:
    model = kernel("gpt", dropout=0.5, attention_dropout=0.5, embedding_dropout=0.5).train()
    ids = torch.arange(5, 25)[None]
    model.set_dropout(False)
    assert torch.equal(model(ids).hidden, model.eval()(ids).hidden)
    model.train().set_dropout(True)
    assert not torch.equal(model(ids).hidden, model(ids).hidden)
    assert model.config.dropout == 0.5


def test_compared_examples_carry_what_the_reference_said() -> None:
    made = objective()
    examples: list[Compared] = prepare(made, ROWS)
    assert all(one.reference[0] < 0 and one.reference[1] < 0 for one in examples)
    batch = made.collate(examples, rng())
    assert batch.reference.tolist() == [one.reference[place] for place in (0, 1) for one in examples]
