"""Every recipe, whole, at pico size on the CPU: it plans, runs, is cached, and its product can be traced and used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from nacre.cli.main import main
from nacre.data import catalogue, models
from nacre.lineage import record
from nacre.recipe.recipe import load
from nacre.recipe.references import open_store
from nacre.recipe.run import StepResult, run

RECIPES = Path(__file__).parents[2] / "recipes"


def _each(steps: str, settings: str) -> str:
    """The same settings for several steps."""
    return " ".join(f"{step}.{setting}" for step in steps.split() for setting in settings.split())


_SMALL = "initialise.choices.hidden_size=32 initialise.choices.layers=1 initialise.choices.heads=2"
_DECODER = f"{_SMALL} initialise.choices.ffn_size=48 pretrain.train.max_steps=4 pretrain.train.eval_every=4"
_BRIEF = "evaluate.intervals.resamples=100"
_SAMPLES = f"evaluate.samples=4 evaluate.max_new_tokens=12 {_BRIEF}"
_FEW = "limit.train=60 limit.valid=20 limit.test=40"
# The sets that a recipe needs (None: what every machine has), and what makes it small enough for a test.
PICO: dict[str, tuple[str | None, str]] = {
    "intents": (None, f"{_SMALL} tokenizer.vocab_size=2000 pretrain.train.epochs=1 tune.train.epochs=1 {_BRIEF}"),
    "banking77": (
        "banking77",
        f"""{_SMALL} utterances.limit.train=400 utterances.limit.test=100 tokenizer.vocab_size=600
        tune.train.epochs=1 {_BRIEF}""",
    ),
    "reviews": (
        "hotel-reviews",
        f"""{_SMALL} reviews.limit.train=200 reviews.limit.test=60 tokenizer.vocab_size=2500
        pretrain.train.epochs=1 tune.train.epochs=1 {_BRIEF}""",
    ),
    "entities": (
        "weibo-ner",
        f"""{_SMALL} posts.limit.train=120 posts.limit.test=40 prose.limit.train=4 tokenizer.vocab_size=2500
        pretrain.train.max_steps=3 tune.train.epochs=1 {_BRIEF}""",
    ),
    "poet": (
        "poetry",
        f"""{_DECODER} poems.limit.train=150 poems.limit.valid=10 poems.limit.test=10 tokenizer.vocab_size=600
        {_SAMPLES}""",
    ),
    "python": (
        None,
        f"""{_DECODER} initialise.choices.kv_heads=1 initialise.choices.head_dim=16 library.max_characters=2500
        tokenizer.vocab_size=500 language.limit=2 {_SAMPLES}""",
    ),
    "translate": (
        "tatoeba",
        f"""{_SMALL} initialise.choices.head_dim=16 initialise.choices.ffn_size=48 pairs.limit.train=150
        pairs.limit.valid=20 pairs.limit.test=20 tokenizer.vocab_size=1500 tune.train.epochs=1
        evaluate.max_new_tokens=6 {_BRIEF}""",
    ),
    "robust": (
        "hotel-reviews",
        f"""{_SMALL} {_each("reviews", _FEW)} tokenizer.vocab_size=2500 {_each("plain fgm pgd", "train.epochs=1")}
        {_each("on_clean on_noisy", "intervals.resamples=100")}""",
    ),
    "continual": (
        "hotel-reviews trec agnews",
        f"""{_SMALL} {_each("reviews questions news", _FEW)} tokenizer.vocab_size=2500 first.train.epochs=1
        {_each("none_second replay_second alone_second ewc_second", "train.epochs=1 anchor_rows=8")}
        {_each("none_third replay_third alone_third ewc_third", "train.epochs=1 anchor_rows=8")}
        {_each("forgetting_none forgetting_replay forgetting_alone forgetting_ewc", "intervals.resamples=100")}""",
    ),
    "distil": (
        "banking77 model:minilm",
        f"""utterances.limit.train=160 utterances.limit.test=80 {_each("teacher student alone", "train.epochs=0.2")}
        {_each("evaluate_teacher evaluate_alone evaluate", "intervals.resamples=100")}""",
    ),
    "imitate": (
        "tatoeba",
        f"""{_SMALL} initialise.choices.kv_heads=1 initialise.choices.head_dim=16 initialise.choices.ffn_size=64
        shown.limit.train=300 shown.limit.valid=80 shown.limit.test=20 tokenizer.vocab_size=800 cloned.train.epochs=3
        {_each("pairs new_pairs", "max_tokens=16")} new_pairs.limit=80 reward.train.epochs=4 reward.train.lr=2e-3
        improved.rollouts.prompts=8 improved.rollouts.samples=4 improved.rollouts.max_new_tokens=16
        improved.update.batch_size=16 improved.update.lr=2e-3 improved.loop.iterations=12 improved.loop.eval_limit=16
        {_each("held_out evaluate", "intervals.resamples=100")}""",
    ),
    "digits": (None, f"{_SMALL} tune.train.epochs=1 {_BRIEF}"),
    "assistant": (
        "identity toolcall-demo medical-qa gsm8k hh-harmless tinystories-sample",
        f"""{_DECODER} initialise.choices.kv_heads=1 initialise.choices.head_dim=16 tokenizer.vocab_size=600
        tools.limit.train=10 tools.limit.valid=4 tools.limit.test=4 medical.limit.train=40 medical.limit.valid=5
        sums.limit.train=40 sums.limit.valid=5 pairs.limit.train=30 pairs.limit.valid=20 stories.limit.train=100
        talk.train.epochs=1 reinforce.rollouts.prompts=2 reinforce.rollouts.samples=2
        reinforce.rollouts.max_new_tokens=8 reinforce.rewards.length.limit=8 reinforce.rewards.length.margin=4
        reinforce.loop.iterations=2 reinforce.loop.eval_limit=4
        reinforce.update.batch_size=4 language.limit=5 held_out.intervals.resamples=100 {_BRIEF}""",
    ),
}


def run_pico(name: str) -> list[StepResult]:
    needs, overrides = PICO[name]
    for one in (needs or "").split():
        if one.startswith("model:"):
            if models.place(one.removeprefix("model:")) is None:
                pytest.skip(f"{one} is not in this machine's cache")
        elif one not in catalogue.found() and catalogue.describe(one).name not in catalogue.found():
            pytest.skip(f"the data set {one} is not on this machine")
    return run(load(RECIPES / f"{name}.yaml", overrides.split()), open_store())


@pytest.mark.slow
@pytest.mark.parametrize("name", PICO)
def test_recipe_runs_is_cached_and_traced(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_pico(name)
    assert {one.state for one in results} == {"done"}
    assert {one.state for one in run_pico(name)} == {"cached"}
    last = results[-1]
    assert (last.path / "report.html").is_file()
    assert main(["trace", last.ref, "--verify", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert "witnessed" in json.dumps(tree)


def _walked(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for parent in node["parents"]:
        yield from _walked(parent)


def _traced(ref: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    capsys.readouterr()
    assert main(["trace", ref, "--verify", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    return tree, list(_walked(tree))


@pytest.mark.slow
def test_an_assistant_is_traced_to_raw_data_and_to_what_it_was_aligned_with(capsys: pytest.CaptureFixture[str]) -> None:
    results = {one.step: one.ref for one in run_pico("assistant")}
    tree, nodes = _traced(results["reinforce"], capsys)
    edges = {(one["relation"], one["ref"].partition("@")[0]) for one in nodes}
    assert edges >= {
        ("finetuned_from", "assistant/prefer"),
        ("finetuned_from", "assistant/talk"),
        ("finetuned_from", "assistant/pretrain"),
        ("aligned_with", "assistant/talk"),
        ("trained_on", "assistant/sums"),
        ("trained_on", "assistant/pairs"),
        ("trained_on", "assistant/talks"),
        ("tokenized_by", "assistant/tokenizer"),
    }
    raw = {one["ref"] for one in nodes if one["kind"] == "dataset" and one["basis"] == "declared"}
    needs, _ = PICO["assistant"]
    assert needs is not None
    assert raw == {f"data:{one}" for one in needs.split()}
    assert all(one["licence"] for one in nodes if one["ref"] in raw)
    assert not tree["warnings"]
    _, nodes = _traced(results["judge"], capsys)
    assert {("finetuned_from", "assistant/talk"), ("trained_on", "assistant/pairs")} <= {
        (one["relation"], one["ref"].partition("@")[0]) for one in nodes
    }


@pytest.mark.slow
def test_an_assistant_taught_on_noncommercial_rows_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if "sft-zh-alpaca" not in catalogue.found():
        pytest.skip("the data set sft-zh-alpaca is not on this machine")
    text = (RECIPES / "assistant.yaml").read_text(encoding="utf-8")
    swapped = text.replace("data:medical-qa", "data:sft-zh-alpaca").partition("  judge:")[0]
    (tmp_path / "assistant.yaml").write_text(swapped, encoding="utf-8")
    _, overrides = PICO["assistant"]
    steps = ("judge", "prefer", "reinforce", "language", "held_out", "evaluate", "pairs")
    kept = [one for one in overrides.split() if one.partition(".")[0] not in steps]
    talk = next(one for one in run(load(tmp_path / "assistant.yaml", kept), open_store()) if one.step == "talk")
    tree, _ = _traced(talk.ref, capsys)
    assert "CC BY-NC 4.0" in tree["licence"]
    assert any("CC BY-NC" in json.dumps(one) for one in tree["warnings"])


@pytest.mark.slow
def test_a_reward_learnt_of_demonstrations_is_climbed(capsys: pytest.CaptureFixture[str]) -> None:
    def figures(results: list[StepResult], step: str) -> dict[str, Any]:
        path = next(one.path for one in results if one.step == step)
        found: dict[str, Any] = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        return found

    done = run_pico("imitate")
    before, after = figures(done, "held_out"), figures(done, "evaluate")
    assert before["accuracy_wilson"]["low"] > 0.7, "demonstrations rank above samples on rows nobody was trained on"
    assert after["reward_chosen"] == pytest.approx(before["reward_chosen"], abs=1e-5), "the same demonstrations"
    gap = before["reward_chosen"] - before["reward_rejected"]
    assert after["reward_rejected"] > before["reward_rejected"] + 0.3 * gap, "samples earn more than before"

    overrides = [*PICO["imitate"][1].split(), "improved.update.lr=1e-9"]
    idle = run(load(RECIPES / "imitate.yaml", overrides), open_store())
    assert {one.step: one.state for one in idle}["reward"] == "cached"
    still = figures(idle, "evaluate")["reward_rejected"]
    assert still == pytest.approx(before["reward_rejected"], abs=0.1 * gap), "without learning they earn the same"

    _, nodes = _traced(next(one.ref for one in done if one.step == "improved"), capsys)
    assert {(one["relation"], one["ref"].partition("@")[0]) for one in nodes} >= {
        ("finetuned_from", "imitate/cloned"),
        ("aligned_with", "imitate/reward"),
        ("trained_on", "imitate/pairs"),
        ("trained_on", "imitate/shown"),
        ("calls", "imitate/cloned"),
    }
    raw = [one for one in nodes if one["kind"] == "dataset" and one["basis"] == "declared"]
    assert {one["ref"] for one in raw} <= {"data:tatoeba", "data:mt-en-zh-tatoeba"}
    assert raw
    assert all(one["licence"] for one in raw)


def test_every_recipe_is_tested() -> None:
    untested = {path.stem for path in RECIPES.glob("*.yaml")} - set(PICO) - {"minilm"}
    assert not untested


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_plans_or_says_what_data_it_misses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", str(path)])
    told = capsys.readouterr()
    absent = "not on this machine" in told.err or "is not in" in told.err
    assert code == 0 or (absent and "remedy" in told.err), told.err


@pytest.mark.slow
def test_the_law_of_resuming_holds_for_a_trained_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two stores, the same recipe, the same digests: of every step, bytes and all."""
    digests = []
    for folder in ("one", "two"):
        monkeypatch.setenv("NACRE_HOME", str(tmp_path / folder))
        digests.append([one.record.digest for one in run_pico("digits")])
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_predict_and_chat_use_what_a_recipe_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    run_pico("intents")
    capsys.readouterr()
    assert main(["predict", "intents/tune", "where is my parcel?", "忘记密码了怎么办", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    assert [len(one["top"]) for one in answers] == [3, 3]
    monkeypatch.setattr("sys.stdin", io.StringIO("我要退货\n"))
    assert main(["chat", "intents/tune"]) == 0
    assert len(capsys.readouterr().out.split()) == 6


def test_lineage_reaches_raw_data() -> None:
    results = run_pico("digits")
    tune = next(one for one in results if one.step == "tune")
    assert record.read(tune.path).basis == "witnessed"
