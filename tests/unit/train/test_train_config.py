"""A config that cannot work is refused when it is made, with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from nacre.errors import ConfigError
from nacre.train.config import NEUTRAL, SCHEDULES, TrainConfig
from nacre.train.objectives.config import (
    CausalConfig,
    ClassifyConfig,
    MaskedConfig,
    PairConfig,
    Seq2SeqConfig,
    SpanConfig,
    TagConfig,
)
from nacre.train.schedule import rate_factor, share_done


@pytest.mark.parametrize(
    ("options", "message", "remedy"),
    [
        ({}, "no end", "max_steps"),
        ({"max_steps": 0}, "max_steps = 0", "above 0"),
        ({"epochs": 1, "lr": -1.0}, "lr = -1.0", "above 0"),
        ({"epochs": 1, "lr": float("nan")}, "lr = nan", "above 0"),
        ({"epochs": 1, "lr": float("inf")}, "lr = inf", "not infinity"),
        ({"epochs": float("inf")}, "epochs = inf", "not infinity"),
        ({"epochs": 1, "optimizer": "adamV"}, "adamV", "did you mean 'adam"),
        ({"epochs": 1, "schedule": "cosin"}, "cosin", "did you mean 'cosine'"),
        ({"epochs": 1, "precision": "fp8"}, "fp8", "fp16"),
        ({"epochs": 1, "batch_size": 30, "micro_batch": 8}, "not a multiple", "set batch_size to 24"),
        ({"epochs": 1, "batch_size": 4, "micro_batch": 8}, "not a multiple", "set batch_size to 8"),
        ({"epochs": 1, "warmup": 0.9, "schedule": "wsd"}, "longer than the run", "at most 1"),
        ({"epochs": 1, "warmup": 100}, "warmup = 100", "share between 0 and 1"),
        ({"epochs": 1, "ema": 1.0}, "ema = 1.0", "not including, 1"),
        ({"epochs": 1, "layer_decay": 0.0}, "layer_decay = 0.0", "above 0"),
        ({"epochs": 1, "betas": (0.9,)}, "betas", "two numbers"),
        ({"epochs": 1, "lerning_rate": 1.0}, "unknown training option 'lerning_rate'", "known"),
        ({"epochs": 1, "batchsize": 1}, "unknown training option 'batchsize'", "did you mean 'batch_size'"),
        ({"epochs": 1, "lr": "2e-4"}, "lr = '2e-4'", "number"),
        ({"epochs": 1, "batch_size": 2.5}, "batch_size = 2.5", "whole number"),
        ({"epochs": 1, "freeze": "embed"}, "freeze = 'embed'", "list"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig.of(**options)
    assert message in error.value.message
    assert remedy in error.value.remedy


def test_lists_of_yaml_become_tuples() -> None:
    config = TrainConfig.of(epochs=1, betas=[0.9, 0.99], freeze=["embed"])
    assert (config.betas, config.freeze) == ((0.9, 0.99), ("embed",))
    assert hash(config)


def test_neutral_options_exist() -> None:
    assert all(hasattr(TrainConfig(max_steps=1), name) for name in NEUTRAL)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_rise_once_and_fall_to_the_final_rate(schedule: str) -> None:
    config = TrainConfig(max_steps=100, schedule=schedule, warmup=0.1, decay=0.3, final_lr=0.05)
    rates = [rate_factor(share_done(step, 100, 0.0, config), config) for step in range(100)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[0] < 0.1
    assert max(rates) <= 1
    assert rate_factor(1.0, config) == pytest.approx(1.0 if schedule == "constant" else 0.05)
    if schedule == "wsd":
        assert rates[10] == rates[69] == 1 > rates[75]


def test_a_schedule_follows_the_nearer_of_two_bounds() -> None:
    config = TrainConfig(max_steps=100, max_seconds=10.0)
    assert share_done(49, 100, 9.0, config) == 0.9
    assert share_done(94, 100, 1.0, config) == 0.945
    assert share_done(500, None, 50.0, config) == 1.0


@pytest.mark.parametrize("kind", [CausalConfig, MaskedConfig, PairConfig, SpanConfig, Seq2SeqConfig, ClassifyConfig])
@pytest.mark.parametrize("context", [-1, 0, 2])
def test_a_context_without_room_is_refused_with_the_recipe(kind: type[Any], context: int) -> None:
    with pytest.raises(ConfigError, match=f"context is {context}"):
        kind(context=context)


@pytest.mark.parametrize("overlap", [-1, 24, 32])
def test_windows_that_cannot_overlap_are_refused_with_the_recipe(overlap: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot overlap by {overlap}"):
        TagConfig(context=24, overlap=overlap)
