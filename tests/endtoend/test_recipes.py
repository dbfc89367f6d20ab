"""Every recipe, whole, at pico size on the CPU: it plans, runs, is cached, and its product can be traced and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from nacre.cli.main import main
from nacre.data import catalogue
from nacre.lineage import record
from nacre.recipe.recipe import load
from nacre.recipe.references import open_store
from nacre.recipe.run import StepResult, run

RECIPES = Path(__file__).parents[2] / "recipes"

_SMALL = "initialise.choices.hidden_size=32 initialise.choices.layers=1 initialise.choices.heads=2"
_DECODER = f"{_SMALL} initialise.choices.ffn_size=48 pretrain.train.max_steps=4 pretrain.train.eval_every=4"
_BRIEF = "evaluate.intervals.resamples=100"
_SAMPLES = f"evaluate.samples=4 evaluate.max_new_tokens=12 {_BRIEF}"
# The set that a recipe needs (None: what every machine has), and what makes it small enough for a test.
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
    "digits": (None, f"{_SMALL} tune.train.epochs=1 {_BRIEF}"),
}


def run_pico(name: str) -> list[StepResult]:
    needs, overrides = PICO[name]
    if needs is not None and needs not in catalogue.found() and catalogue.describe(needs).name not in catalogue.found():
        pytest.skip(f"the data set {needs} is not on this machine")
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
