"""Reward models: where the score is read, what is cut, what `transformers` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_kit import user
from objective_kit import kernel, rng, tokenizer

from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError, DataError, TrainingError
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objective import prepare
from nacre.train.objectives.config_align import RewardConfig
from nacre.train.objectives.reward import LABELS, Reward

ROWS = [
    {"prompt": "My card was refused.", "chosen": "I am sorry. Which shop was it?", "rejected": "Pay cash."},
    {"prompt": "包裹还没有到", "chosen": "请给我单号，我帮您查。", "rejected": "等着吧。"},
    {"prompt": "How do I change my address?", "chosen": "Open your account.", "rejected": "I moved last week!"},
]


def judge(style: str = "gpt", **changes: Any) -> Kernel:
    pooling = "cls" if style == "bert" else "last"
    made = kernel(style, "classify", labels=LABELS, pooling=pooling, **changes)
    made.config = made.config.replace(pad_id=tokenizer(style).pad_id)
    return made


def reward(style: str = "gpt", **choices: Any) -> Reward:
    config = RewardConfig(**{"context": 96} | choices)
    return Reward(tokenizer(style), None, config, layout="encoder" if style == "bert" else "decoder")


@pytest.mark.parametrize("style", ["gpt", "llama", "bert"])
@torch.no_grad()
def test_trap_40_score_is_read_at_the_last_real_token_whatever_the_padding(style: str) -> None:
    made, model = reward(style), judge(style)
    batch = made.collate(prepare(made, ROWS), rng())
    together = made.rewards(model, batch)
    for row in range(len(together)):
        n = int(batch.mask[row].sum())
        ids = batch.ids[row : row + 1, :n]
        types = None if batch.token_types is None else batch.token_types[row : row + 1, :n]
        hidden = model(ids, token_types=types).hidden
        alone = model.class_logits(hidden, torch.ones_like(ids, dtype=torch.bool))
        torch.testing.assert_close(together[row], alone[0, 0], rtol=1e-5, atol=1e-6)
        if style == "bert":
            continue
        by_hand = torch.nn.functional.linear(hidden[0, -1], model.classifier.weight)  # type: ignore[union-attr]
        torch.testing.assert_close(alone[0], by_hand)
        left = torch.nn.functional.pad(ids, (7, 0), value=tokenizer(style).pad_id or 0)
        mask = torch.arange(n + 7)[None] >= 7
        torch.testing.assert_close(model.class_logits(model(left, mask=mask).hidden, mask), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("style", ["gpt", "llama", "bert"])
@torch.no_grad()
def test_trap_40_transformers_gives_the_same_scores_in_batches(style: str, shared: bool, tmp_path: Path) -> None:
    """Also where the end of an answer has the id of padding (`shared`), which `transformers` skips."""
    from transformers import AutoModelForSequenceClassification

    made, model = reward(style), judge(style)
    if shared and style == "bert":
        pytest.skip("an encoder is read by its first token, whatever pads it")
    if shared:
        words = tokenizer(style)
        made = Reward(Tokenizer(words.raw, words.roles | {"pad": words.roles["eos"]}), None, RewardConfig(96))
        model.config = model.config.replace(pad_id=words.eos_id)
    hf.save(model, tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    batch = made.collate(prepare(made, ROWS), rng())
    given = {} if batch.token_types is None else {"token_type_ids": batch.token_types}
    expected = theirs(input_ids=batch.ids, attention_mask=batch.mask.long(), **given).logits[:, 0]
    torch.testing.assert_close(made.rewards(model, batch), expected, rtol=1e-4, atol=1e-5)
    assert made.noted["answers scored before their end, whose token is that of padding"] == (6 if shared else 0)
    again = hf.load(tmp_path)
    torch.testing.assert_close(made.rewards(again, batch), expected, rtol=1e-4, atol=1e-5)


def test_margins_and_centre_enter_the_loss() -> None:
    model, rows = judge(), [row | {"margin": 1.5} for row in ROWS]
    losses = {}
    for name, given, choices in (
        ("plain", ROWS, {}), ("margin", rows, {}), ("config", ROWS, {"margin": 1.5}), ("centre", ROWS, {"centre": 0.1}),
    ):  # fmt: skip
        made = reward(**choices)
        losses[name] = float(made.loss(model, made.collate(prepare(made, given), rng())).mean.detach())
    assert losses["margin"] == losses["config"] > losses["plain"]
    assert losses["centre"] > losses["plain"]
    with pytest.raises(DataError, match="margin"):
        prepare(reward(), [ROWS[0] | {"margin": "much"}])


@pytest.mark.parametrize("style", ["gpt", "bert"])
def test_prompts_are_cut_at_their_beginning(style: str) -> None:
    made = reward(style, context=24)
    long = {"prompt": "late " * 60 + "refund", "chosen": "yes of course", "rejected": "no"}
    example = made.encode(long)
    assert example is not None
    assert len(example.chosen.ids) <= 24
    text = tokenizer(style).decode(example.chosen.ids.tolist())
    assert text.replace(" ", "").endswith("refundyesofcourse")
    assert made.truncated == {"prompts cut at their beginning": 1}
    long["chosen"], long["rejected"] = "yes " * 90, "no " * 90
    example = made.encode(long)
    assert example is not None
    assert len(example.rejected.ids) == 24
    assert made.truncated["answers cut at the context, without their end"] == 2


@pytest.mark.parametrize("style", ["gpt", "bert"])
def test_it_learns_to_tell_answers_apart(style: str, tmp_path: Path) -> None:
    made, model = reward(style), judge(style)
    config = TrainConfig(max_steps=25, batch_size=3, lr=5e-3, warmup=0, log_every=5)
    result = train(model, made, prepare(made, ROWS), config, folder=tmp_path)
    assert result.history[-1]["accuracy"] == 1
    assert result.history[-1]["margin"] > 1
    better, worse = made.score(model, [user("My card was refused.")], ["I am sorry. Which shop was it?", "Pay cash."])  # type: ignore[misc]
    assert better > worse
    batch = made.collate(prepare(made, ROWS), rng())
    assert np.allclose(made.predict(model, batch)[0].tolist(), [better, worse], atol=1e-4)


def test_a_head_that_never_varies_stops_the_run(tmp_path: Path) -> None:
    made, model = reward(patience=4), judge()
    with torch.no_grad():
        model.classifier.weight.zero_()  # type: ignore[union-attr]
    config = TrainConfig(max_steps=20, batch_size=3, lr=1e-3, freeze=("classifier.*",))
    with pytest.raises(TrainingError, match="step 4: the margin has been 0 for every pair"):
        train(model, made, prepare(made, ROWS), config, folder=tmp_path)


def test_what_cannot_be_a_reward_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="classify"):
        reward().check(kernel("gpt"))
    with pytest.raises(ConfigError, match="classes"):
        reward().check(kernel("gpt", "classify", labels=("a", "b"), pooling="last"))
    with pytest.raises(ConfigError, match="head"):
        reward().check(kernel("t5"))
    for choices in ({"centre": -1.0}, {"patience": 0}, {"context": 2}):
        with pytest.raises(ConfigError):
            RewardConfig(**choices)  # type: ignore[arg-type]
