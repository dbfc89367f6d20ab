"""tune.grpo and tune.ppo: they learn, resume to the same bytes, and stop with the reason where nothing is learnt."""

from __future__ import annotations

import json
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crash import FileSystemFaults, die, in_child
from reinforce_kit import SAYS_HIGH, history, model, prompts, rollouts, run

from nacre.data.tokenizer import Tokenizer
from nacre.errors import CheckpointError, ConfigError, DataError, TrainingError
from nacre.kernel import hf
from nacre.kernel.adapters.adapted import attach
from nacre.kernel.adapters.config import AdapterConfig
from nacre.lineage.digest import digest_folder
from nacre.progress import Silent
from nacre.tiers.fitting import keep_tokenizer, save_trained
from nacre.tiers.tune.reinforce.health import Health
from nacre.tiers.tune.reinforce.prompts import PromptReader
from nacre.train.checkpoint import Checkpoints

HIGH = tuple("56789")


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    return {"model": model(tmp_path / "model"), "data": prompts(tmp_path / "data", valid=True)}


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_rewards_rise_and_everything_is_told(tmp_path: Path, given: dict[str, Path], method: str) -> None:
    rewards = SAYS_HIGH | {"length": {"limit": 4, "margin": 2, "weight": 0.1}}
    metrics = run(tmp_path / "a", given, method, rewards=rewards, loop={"iterations": 12}, rollouts={"prompts": 12})
    assert metrics["stopped"] == "done"
    rows = [row for row in history(tmp_path / "a") if "reward" in row]
    assert len(rows) == 12
    early, late = (np.mean([row["reward_format"] for row in part]) for part in (rows[:3], rows[-3:]))
    assert late > early + 0.1
    told = {
        "reward",
        "reward_std",
        "reward_format",
        "reward_length",
        "kl",
        "entropy",
        "clipped",
        "answer_tokens",
        "cut",
    }
    assert told | {"groups_without_signal", "kl_coefficient", "mismatch_largest", "mismatch_outside"} <= rows[0].keys()
    assert rows[0]["kl"] == 0, "the policy begins as the reference"
    assert rows[-1]["kl"] > 0.01
    assert max(row["mismatch_largest"] for row in rows) < 1e-4
    looks = [row for row in history(tmp_path / "a") if "valid_reward" in row]
    assert [row["iteration"] for row in looks] == [0, 2, 4, 6, 8, 10, 12]
    assert metrics["valid_format"] >= metrics["valid_format_first"]


def test_every_rollout_is_a_line(tmp_path: Path, given: dict[str, Path]) -> None:
    run(tmp_path / "a", given, loop={"iterations": 3})
    lines = rollouts(tmp_path / "a")
    assert Counter(line["iteration"] for line in lines) == {1: 24, 2: 24, 3: 24}
    for line in lines:
        assert line["prompt"][0]["role"] == "user"
        assert line["reward"] == line["parts"]["format"] == float(line["answer"][:1] in HIGH and not line["cut"])
    first = [line["advantage"] for line in lines[:4]]
    assert sum(first) == pytest.approx(0, abs=1e-5)
    run(tmp_path / "b", given, loop={"iterations": 3, "rollouts_kept": 5})
    assert [line["answer"] for line in rollouts(tmp_path / "b")] == [
        line["answer"] for n in (1, 2, 3) for line in [one for one in lines if one["iteration"] == n][:5]
    ]


def test_the_artifact_is_a_model_without_the_value_head(tmp_path: Path, given: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    run(tmp_path / "a", given, "ppo", loop={"iterations": 1})
    out = tmp_path / "a" / "out"
    theirs, kernel = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval(), hf.load(out)
    ids = torch.tensor([[1, 20, 21, 22]])
    with torch.inference_mode():
        assert torch.allclose(kernel.lm_logits(kernel(ids).hidden), theirs(ids).logits, atol=1e-4)
    assert not torch.equal(kernel.embed.tokens.weight, hf.load(given["model"]).embed.tokens.weight)  # type: ignore[union-attr]


def test_the_reference_keeps_the_adapter_that_the_model_was_saved_with(tmp_path: Path, given: dict[str, Path]) -> None:
    kernel, draws = hf.load(given["model"]).float(), torch.Generator().manual_seed(1)
    attach(kernel, AdapterConfig("prefix"), draws)
    with torch.no_grad():
        for parameter in kernel.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draws))
    talker = tmp_path / "talker"
    talker.mkdir()
    save_trained(kernel, talker)
    keep_tokenizer(Tokenizer.load(given["model"]), talker, given["model"])
    run(tmp_path / "a", given | {"model": talker}, loop={"iterations": 1})
    assert next(row["kl"] for row in history(tmp_path / "a") if "kl" in row) == pytest.approx(0, abs=1e-6)


# --- resume


def _critic(place: Path) -> dict[str, list[float]]:
    """The value head in the newest checkpoint of a run."""
    state = Checkpoints(place / "scratch").latest(Silent())
    assert state is not None
    weights = state["learner"]["weights"].items()
    return {name: weight.flatten().tolist() for name, weight in weights if "value_head" in name}


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_killed_anywhere_it_is_resumed_to_the_same_bytes(tmp_path: Path, given: dict[str, Path], method: str) -> None:
    changes: dict[str, Any] = {"kl": {"coefficient": 0.1, "target": 0.05}, "loop": {"iterations": 4, "eval_every": 2}}
    run(tmp_path / "whole", given, method, **changes)
    wanted, critic = digest_folder(tmp_path / "whole" / "out"), _critic(tmp_path / "whole")
    assert any(any(values) for values in critic.values()) == (method == "ppo")
    kills = 0
    for fatal in (12, 45, 80):
        place = tmp_path / f"killed-{fatal}"

        def cut_short(place: Path = place, fatal: int = fatal) -> int:
            FileSystemFaults(place / "scratch", fatal, die)
            run(place, given, method, **changes)
            return 0

        kills += in_child(cut_short) == -signal.SIGKILL
        for file in (place / "out").glob("*"):  # the runner empties it
            file.unlink()
        run(place, given, method, **changes)
        assert _critic(place) == critic, "its weights as they were, bit for bit"
        assert digest_folder(place / "out") == wanted
    assert kills >= 2


def test_a_run_goes_on_only_with_its_own_settings(tmp_path: Path, given: dict[str, Path]) -> None:
    run(tmp_path / "a", given, loop={"iterations": 1})
    with pytest.raises(CheckpointError, match="of another run: update"):
        run(tmp_path / "a", given, update={"lr": 1e-4}, loop={"iterations": 1})


def test_another_seed_draws_other_answers(tmp_path: Path, given: dict[str, Path]) -> None:
    for seed in (0, 1):
        run(tmp_path / str(seed), given, loop={"iterations": 1}, seed=seed)
    one, other = ([line["answer"] for line in rollouts(tmp_path / str(seed))] for seed in (0, 1))
    assert one != other


# --- no signal, divergence


def test_trap_41_a_step_of_equal_rewards_leaves_the_weights_as_they_were(
    tmp_path: Path, given: dict[str, Path]
) -> None:
    equal = {"format": {"pattern": ".*"}}
    changes = {"kl": {"coefficient": 0.0}, "loop": {"iterations": 2}, "rollouts": {"max_new_tokens": 16}}
    run(tmp_path / "a", given, rewards=equal, **changes)
    before, after = hf.load(given["model"]), hf.load(tmp_path / "a" / "out")
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name]), name
    rows = [row for row in history(tmp_path / "a") if "reward" in row]
    assert rows[0]["groups_without_signal"] == 1
    assert all(np.isfinite(list(row.values())).all() for row in rows)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_reward_that_never_varies_stops_the_run(tmp_path: Path, given: dict[str, Path], method: str) -> None:
    with pytest.raises(TrainingError, match="in 3 iterations no answer earned more or less") as told:
        run(tmp_path / "a", given, method, rewards={"format": {"pattern": "x"}}, loop={"iterations": 9, "patience": 3})
    assert "easier part" in told.value.remedy
    assert "step-00000001" in told.value.remedy
    assert sorted(path.name for path in (tmp_path / "a" / "scratch").glob("step-*")) == [
        "step-00000001",
        "step-00000002",
    ]


def test_a_reward_that_ceases_to_vary_ends_the_run_with_what_was_learnt() -> None:
    health = Health(patience=2, max_kl=5)
    cut = np.zeros(4, dtype=bool)
    varied, solved = np.array([[0.0, 1.0], [1.0, 1.0]]), np.ones((2, 2))
    assert not health.see(1, varied, cut, 0.1)
    assert not health.see(2, solved, cut, 0.1)
    again = Health(patience=2, max_kl=5)
    again.load_state_dict(health.state_dict())
    assert again.see(3, solved, cut, 0.1)


def test_answers_that_are_all_cut_stop_the_run(tmp_path: Path, given: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="was cut at max_new_tokens") as told:
        run(
            tmp_path / "a", given, rewards={"length": {"limit": 1, "margin": 1}}, rollouts={"max_new_tokens": 1},
            loop={"iterations": 9, "patience": 2},
        )  # fmt: skip
    assert "raise rollouts.max_new_tokens" in told.value.remedy


def test_cut_answers_are_not_learnt_from_where_they_are_masked(tmp_path: Path, given: dict[str, Path]) -> None:
    run(tmp_path / "a", given, rollouts={"max_new_tokens": 2}, loop={"iterations": 1, "mask_cut": True})
    run(tmp_path / "b", given, rollouts={"max_new_tokens": 2}, loop={"iterations": 1})
    assert 0 < history(tmp_path / "b")[1]["cut"] < 1
    assert digest_folder(tmp_path / "a" / "out") != digest_folder(tmp_path / "b" / "out")


def test_a_divergence_that_explodes_stops_the_run_and_names_the_last_good_weights(
    tmp_path: Path, given: dict[str, Path]
) -> None:
    with pytest.raises(TrainingError, match="nats per token likelier than under the reference") as told:
        run(
            tmp_path / "a", given, update={"lr": 0.3, "epochs": 6},
            kl={"coefficient": 0.0, "max_per_token": 0.2}, loop={"iterations": 20, "patience": 20},
        )  # fmt: skip
    assert "raise kl.coefficient" in told.value.remedy
    iteration = int(told.value.message.split(":")[0].removeprefix("iteration "))
    if iteration > 2:
        assert f"step-{iteration - 2:08d}" in told.value.remedy, "the weights before those that drew these answers"
    assert (tmp_path / "a" / "scratch").is_dir()


def test_a_reward_that_is_no_number_is_told(tmp_path: Path, given: dict[str, Path], monkeypatch: Any) -> None:
    from nacre.tiers.tune.reinforce.rewards import matching

    monkeypatch.setattr(matching.FormatReward, "__call__", lambda self, answers: [float("nan")] * len(answers))
    with pytest.raises(TrainingError, match="the reward format says nan"):
        run(tmp_path / "a", given)


# --- the reference, adapters, layouts


def test_with_adapters_the_reference_is_the_model_with_adapters_off(tmp_path: Path, given: dict[str, Path]) -> None:
    run(tmp_path / "a", given, "grpo", lora={"rank": 2, "targets": ["q", "v"]}, update={"lr": 3e-2})
    rows = [row for row in history(tmp_path / "a") if "reward" in row]
    assert rows[0]["kl"] == 0
    assert rows[-1]["kl"] > 0
    assert (tmp_path / "a" / "out" / "adapter").is_dir()


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_stronger_pull_keeps_the_policy_nearer(tmp_path: Path, given: dict[str, Path], method: str) -> None:
    apart = []
    for name, coefficient in (("free", 0.0), ("held", 1.0)):
        changes: dict[str, Any] = {"loop": {"iterations": 12}, "rollouts": {"prompts": 12}}
        run(tmp_path / name, given, method, kl={"coefficient": coefficient}, **changes)
        apart.append(np.mean([row["kl"] for row in history(tmp_path / name) if "kl" in row][-4:]))
    assert apart[1] < apart[0] / 2


def test_the_adaptive_coefficient_follows_the_divergence(tmp_path: Path, given: dict[str, Path]) -> None:
    run(tmp_path / "a", given, kl={"coefficient": 0.1, "target": 1e-4}, loop={"iterations": 5})
    rows = [row for row in history(tmp_path / "a") if "kl" in row]
    for before, after in pairwise(rows):
        grew = after["kl_coefficient"] > before["kl_coefficient"]
        assert grew == (before["kl"] > 1e-4)


def test_an_encoder_decoder_is_reinforced_too(tmp_path: Path) -> None:
    inputs = {"model": model(tmp_path / "t5", "t5"), "data": prompts(tmp_path / "data")}
    run(tmp_path / "a", inputs, rewards={"format": {"pattern": ".*"}, "length": {"limit": 4, "margin": 4}})
    rows = [row for row in history(tmp_path / "a") if "reward" in row]
    assert rows[0]["mismatch_largest"] < 1e-4
    with pytest.raises(CheckpointError, match="encoder-decoder"):
        run(tmp_path / "b", inputs, "ppo")


# --- bad input, before long work


def test_what_cannot_work_is_refused_with_the_reason(tmp_path: Path, given: dict[str, Path]) -> None:
    def refused(kind: type[Exception], match: str, inputs: dict[str, Path] = given, **changes: Any) -> None:
        with pytest.raises(kind, match=match):
            run(tmp_path / "never", inputs, **changes)
        assert not (tmp_path / "never" / "scratch").exists()

    refused(ConfigError, "nothing is rewarded", rewards={})
    refused(ConfigError, "did you mean 'exact'|unknown key 'exactt'", rewards={"exactt": {}})
    refused(ConfigError, "answers to a prompt would all be the same", rollouts={"temperature": 0})
    refused(ConfigError, "one sample has no group", rollouts={"samples": 1})
    refused(ConfigError, "the gradient of k1 in a loss is 0", kl={"estimator": "k1"})
    refused(ConfigError, "the pattern", rewards={"format": {"pattern": "("}})
    refused(ConfigError, "the weight of exact is 0", rewards={"exact": {"weight": 0.0}})
    refused(ConfigError, "no reward model is given", rewards={"model": {}})
    refused(ConfigError, "length.limit 9 is above", rewards={"length": {"limit": 9, "margin": 2}})
    with pytest.raises(ConfigError, match="leaves no room for a prompt"):
        run(tmp_path / "full", given, rollouts={"max_new_tokens": 48})
    refused(DataError, "has no tests", rewards={"tests": {}})
    data = prompts(tmp_path / "texts", [{"text": "a"}])
    refused(DataError, "these rows are no prompts", given | {"data": data})
    classifier = model(tmp_path / "bert", "bert", head="mlm", max_positions=48)
    refused(CheckpointError, "layout 'encoder'", given | {"model": classifier})


def test_prompts_are_dropped_and_counted_never_cut(tmp_path: Path, given: dict[str, Path]) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "1+1="}], "expected": "2"},
        {"messages": [{"role": "user", "content": "2+1="}, {"role": "assistant", "content": "3"}]},
        {"messages": [{"role": "user", "content": "9" * 60}], "expected": "2"},
        {"messages": [{"role": "assistant", "content": "3"}], "expected": "2"},
    ]
    given["data"] = prompts(tmp_path / "rows", rows)
    run(tmp_path / "a", given, rewards={"exact": {}, "format": {"pattern": ".*"}}, loop={"iterations": 1})
    told = json.loads((tmp_path / "a" / "out" / "training.json").read_text())["rows"]["dropped"]
    assert sum(told.values()) == 2
    assert told["prompts longer than 44 tokens"] == 1
    assert {line["prompt"][0]["content"] for line in rollouts(tmp_path / "a")} == {"1+1=", "2+1="}
    given["data"] = prompts(tmp_path / "lacking", [{"source": "1+1="}])
    with pytest.raises(DataError, match="row 1: the reward exact needs the field 'expected'"):
        run(tmp_path / "b", given, rewards={"exact": {}})


def test_an_answer_in_the_row_is_what_is_expected_unless_it_says_otherwise(given: dict[str, Path]) -> None:
    from reinforce_kit import tokenizer

    reader = PromptReader(tokenizer(), None, hf.load_config(given["model"]), 40)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows: list[dict[str, Any]] = [{"messages": talk}, {"messages": talk, "expected": "c"}]
    rows += [{"source": "a", "target": "d"}, {"question": "a", "answer": "#### 4"}]
    found = reader.read(rows, {"expected": "exact"}, "rows")
    assert [one.row["expected"] for one in found] == ["b", "c", "d", "#### 4"]
    assert len({one.ids for one in found}) == 1


def test_show_prints_answers_of_the_first_and_the_last_iteration(
    tmp_path: Path, given: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from nacre.cli.main import main

    run(tmp_path / "a", given, loop={"iterations": 3})
    lines = rollouts(tmp_path / "a")
    capsys.readouterr()
    assert main(["show", str(tmp_path / "a" / "out"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["rollouts"]
    assert shown == [*lines[:4], *lines[48:52]]
    assert main(["show", str(tmp_path / "a" / "out")]) == 0
    assert lines[50]["prompt"][0]["content"] in capsys.readouterr().out.partition("rollouts.jsonl holds all")[2]
