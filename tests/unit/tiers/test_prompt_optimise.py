"""The search for a prompt: the right candidate wins, within its requests, from training and validation rows alone."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asking_stub import WrittenEngine, blamed, classify_task, generate_task, rank_task, tag_task, write_task
from prompt_stub import LABELS, TEXTS, echo, rows_of, task_folder, work_of

from nacre.engine.protocol import BudgetReached, EngineError, Unsupported
from nacre.engine.room import Budget, EngineRoom
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.progress import Silent
from nacre.recipe import catalogue
from nacre.tiers.asking.wording import Demonstration, Instruction, messages
from nacre.tiers.prompt import candidates
from nacre.tiers.prompt.file import load
from nacre.tiers.prompt.instruction import from_prompt, to_prompt
from nacre.tiers.prompt.optimising import affordable, optimise_words, round_sizes
from nacre.tiers.prompt.stages import PromptConfig, optimise, solve
from nacre.tiers.prompt.ways import way_for
from nacre.tiers.rung import open_rung, read_manifest
from nacre.tiers.task import Task
from nacre.tiers.task import load as load_task

NEVER = re.compile("(?!)")


def truth(prompt: str) -> str:
    """The right label of the row that stands last in a prompt."""
    text = prompt.rpartition("<text>")[2]
    return next(label for label, kinds in TEXTS.items() if any(one.replace(" {}", "") in text for one in kinds))


def wrong(prompt: str) -> str:
    return LABELS[(LABELS.index(truth(prompt)) + 1) % 3]


def engine_that_needs(condition: re.Pattern[str], proposal: str = "") -> WrittenEngine:
    """Right where the prompt matches, wrong elsewhere; proposes `proposal` when it is asked to improve."""

    def reply(prompt: str) -> str:
        if "You improve instructions" in prompt:
            return json.dumps({"diagnosis": "a rule is missing", "instruction": proposal})
        return truth(prompt) if condition.search(prompt) else wrong(prompt)

    return WrittenEngine(reply=reply)


def search(tmp_path: Path, engine: WrittenEngine, **settings: Any) -> Any:
    task = load_task(task_folder(tmp_path / "task"))
    return optimise_words(engine, task, PromptConfig(**settings), 0, Silent())


def test_the_proposed_instruction_that_helps_wins_over_the_others(tmp_path: Path) -> None:
    engine = engine_that_needs(re.compile("ask for money first"), proposal="Sort. Ask: do they ask for money first?")
    found = search(tmp_path, engine, budget_requests=200)
    assert found.winner == "proposed 1"
    assert found.prompt.render(question="x")[0].content.startswith("Sort. Ask: do they ask for money first?")
    assert (found.score, found.default) == (1.0, 0.0)
    assert found.log["proposing"]["misjudged"] == found.log["proposing"]["rows"] == 24
    assert found.log["proposing"]["diagnoses"] == ["a rule is missing"] * 3
    assert len([one for one in found.log["candidates"] if one["name"].startswith("proposed")]) >= 1


def test_demonstrations_win_where_they_help_and_come_from_train(tmp_path: Path) -> None:
    engine = engine_that_needs(re.compile(r"train \d+"))
    found = search(tmp_path, engine, budget_requests=200, proposals=0)
    assert found.n_demonstrations == 4
    assert found.score == 1.0
    turns = found.prompt.render(question="x")[1:-1]
    assert [one.role for one in turns] == ["user", "assistant"] * 4
    assert all("train" in one.content for one in turns[::2])
    assert {one.content for one in turns[1::2]} == set(LABELS)


def test_of_equals_the_shorter_prompt_wins(tmp_path: Path) -> None:
    found = search(tmp_path, engine_that_needs(re.compile("")), budget_requests=200)
    assert found.winner == "default"
    assert found.log["proposing"]["misjudged"] == 0
    assert found.log["proposing"]["proposed"] == 0


@pytest.mark.parametrize("budget", [8, 17, 60, 133, 400])
def test_the_budget_is_kept_to_the_request(tmp_path: Path, budget: int) -> None:
    engine = engine_that_needs(NEVER, proposal="Try this.")
    found = search(tmp_path, engine, budget_requests=budget)
    asked = found.log["requests"]["asked"]
    assert len(engine.prompts) == asked <= budget
    judged = sum(one["requests"] for one in found.log["rounds"])
    assert asked == found.log["requests"]["proposing"] + judged
    assert found.log["candidates"][0]["rows"] >= min(8, budget)
    tried = [one["name"] for one in found.log["candidates"]] + found.log["not_tried"]
    assert len(tried) == len(set(tried)) >= 7
    if budget <= 17:
        assert found.log["proposing"] == {"why_not": "no proposals are wanted, or too few requests for them"}


def test_rows_that_are_asked_again_end_the_search_and_not_the_budget(tmp_path: Path) -> None:
    def reply(prompt: str) -> Any:
        return blamed() if "valid 7" in prompt.rpartition("<text>")[2] else truth(prompt)

    engine = WrittenEngine(reply=reply)
    found = search(tmp_path, engine, budget_requests=100, proposals=0, reflect_rows=0)
    assert found.log["requests"]["asked"] <= 100
    assert found.log["candidates"][0]["rows"] > 0
    assert found.winner == "default"


def test_prompts_that_are_too_long_for_the_engine_leave_and_the_search_goes_on(tmp_path: Path) -> None:
    def reply(prompt: str) -> Any:
        return blamed() if prompt.count("<text>") > 3 else truth(prompt)

    found = search(tmp_path, WrittenEngine(reply=reply), budget_requests=300)
    assert found.winner == "default"
    refused = [one for one in found.log["candidates"] if one["refused"]]
    assert refused
    assert all(one["demonstrations"] and one["score"] is None for one in refused)
    with pytest.raises(EngineError, match="not accepted"):
        search(tmp_path, WrittenEngine(reply=lambda prompt: blamed()), budget_requests=300)
    with pytest.raises(EngineError, match="refused every prompt"):
        search(tmp_path, WrittenEngine(reply=lambda prompt: blamed()), budget_requests=300, proposals=0, reflect_rows=0)


def test_an_engine_that_fails_for_good_ends_the_search(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not accepted"):
        search(tmp_path, WrittenEngine(reply=lambda prompt: blamed(401)), proposals=0, reflect_rows=0)


def test_test_rows_are_never_read(tmp_path: Path) -> None:
    engine = engine_that_needs(NEVER, proposal="Try this.")
    found = search(tmp_path, engine, budget_requests=300)
    assert not any("SECRET" in str(prompt) for prompt in engine.prompts)
    assert "SECRET" not in json.dumps(found.log)
    shown = "".join(str(one) for one in engine.prompts if "You improve" in str(one))
    assert "train" in shown
    assert "valid" not in shown


def test_proposals_that_cannot_be_read_are_counted_with_their_reason(tmp_path: Path) -> None:
    replies = iter(["no JSON", '{"instruction": ""}', json.dumps({"instruction": "x" * 3000})])

    def reply(prompt: str) -> str:
        return next(replies) if "You improve instructions" in prompt else wrong(prompt)

    log = search(tmp_path, WrittenEngine(reply=reply), budget_requests=200).log
    assert log["proposing"]["problems"] == [
        "not the JSON that was asked for",
        "an empty instruction",
        "an instruction of 3,000 characters, more than 2,000",
    ]
    assert log["proposing"]["proposed"] == 0


def test_trap_50_a_score_that_is_no_number_never_wins() -> None:
    from nacre.tiers.prompt.outcome import order

    assert sorted([(float("nan"), 1), (0.1, 9), (0.5, 9), (0.5, 3)], key=lambda one: order(*one)) == [
        (0.5, 3),
        (0.5, 9),
        (0.1, 9),
        (pytest.approx(float("nan"), nan_ok=True), 1),
    ]


def test_rounds_halve_down_to_two_and_candidates_fit_the_requests() -> None:
    assert round_sizes(12, 0.5) == [12, 6, 3, 2]
    assert round_sizes(1, 0.5) == [1]
    assert round_sizes(3, 0.99) == [3, 2]
    config = PromptConfig(first_rows=8)
    for requests in (8, 50, 200, 400):
        n = affordable(24, requests, config)
        assert n == 1 or n * 8 * len(round_sizes(n, 0.5)) <= requests


def test_the_same_search_gives_the_same_bytes_and_costs_nothing_again(tmp_path: Path) -> None:
    task = task_folder(tmp_path / "task")
    engine = echo(tmp_path / "engine", pick_label=True)
    outs = []
    for number in (1, 2):
        room = EngineRoom(cache=tmp_path / "cache", through_http=False)
        metrics = solve(PromptConfig(budget_requests=150), work_of(tmp_path / str(number), task, engine, room))
        outs.append(
            {one.name: one.read_bytes() for one in (tmp_path / str(number) / "rung").iterdir() if one.is_file()}
        )
        paid = room.spent.requests
        assert metrics["requests_paid"] == paid
    assert outs[0] == outs[1]
    assert paid == 0


def test_a_search_that_the_rooms_budget_ends_goes_on_from_the_cache(tmp_path: Path) -> None:
    task = task_folder(tmp_path / "task")
    engine = echo(tmp_path / "engine", pick_label=True)
    poor = EngineRoom(cache=tmp_path / "cache", budget=Budget(requests=40), through_http=False)
    with pytest.raises(BudgetReached):
        solve(PromptConfig(budget_requests=150), work_of(tmp_path / "poor", task, engine, poor))
    rich = EngineRoom(cache=tmp_path / "cache", through_http=False)
    solve(PromptConfig(budget_requests=150), work_of(tmp_path / "rich", task, engine, rich))
    whole = EngineRoom(cache=tmp_path / "other", through_http=False)
    solve(PromptConfig(budget_requests=150), work_of(tmp_path / "whole", task, engine, whole))
    assert poor.spent.requests + rich.spent.requests == whole.spent.requests


def test_the_rung_needs_nothing_but_its_folder_and_asks_as_the_search_did(tmp_path: Path) -> None:
    task, engine = task_folder(tmp_path / "task"), echo(tmp_path / "engine", pick_label=True)
    work = work_of(tmp_path, task, engine)
    metrics = solve(PromptConfig(budget_requests=150), work)
    assert metrics["way"] == "words"
    manifest = read_manifest(work.out)
    assert (manifest.tier, manifest.owns["prompt"], manifest.owns["weights"]) == ("prompt", "own", "called")
    choices = json.loads((work.out / "choices.json").read_text(encoding="utf-8"))
    shown = next(one for one in choices["candidates"] if one["name"] == choices["winner"])["demonstrations"]
    assert manifest.owns["data"] == ("own" if shown else "none")
    moved = tmp_path / "elsewhere"
    shutil.move(work.out, moved)
    shutil.rmtree(task)
    shutil.rmtree(engine)
    with closing(open_rung(moved, EngineRoom(through_http=False))) as rung:
        answers = rung.answer([{"text": "my card is bent"}, {"text": "refund please"}])
        assert [one.value for one in answers] == ["card", "refund"]
        with pytest.raises(DataError):
            rung.answer([{"words": "no text"}])


def test_an_edited_prompt_asks_differently_and_a_broken_one_is_told(tmp_path: Path) -> None:
    work = work_of(tmp_path, task_folder(tmp_path / "task"), echo(tmp_path / "engine", pick_label=True))
    solve(PromptConfig(budget_requests=150), work)
    file = work.out / "prompt.md"
    plain = file.read_text(encoding="utf-8")
    file.write_text(plain.replace("# user\n{{ question }}", "# user\nQ: {{ question }}"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not .* alone"):
        open_rung(work.out, EngineRoom(through_http=False))
    manifest = json.loads((work.out / "rung.json").read_text(encoding="utf-8"))
    (work.out / "rung.json").write_text(json.dumps({**manifest, "how": {"task": manifest["how"]["task"]}}))
    with pytest.raises(CheckpointError, match="does not say how to ask"):
        open_rung(work.out, EngineRoom(through_http=False))


def test_optimise_makes_a_prompt_artifact(tmp_path: Path) -> None:
    work = work_of(tmp_path, task_folder(tmp_path / "task"), echo(tmp_path / "engine", pick_label=True))
    optimise(PromptConfig(budget_requests=100), work)
    assert sorted(one.name for one in work.out.iterdir()) == ["choices.json", "prompt.md"]
    assert catalogue.find("prompt.optimise").produces == "prompt"
    assert load(work.out / "prompt.md").head.tags == ("classify", "optimised")


@pytest.mark.parametrize("task", [classify_task(), tag_task(), generate_task(), classify_task(language="zh")])
def test_an_instruction_survives_its_file(task: Task) -> None:
    nasty = 'Sort {{ it }} {% raw %} {# no #} {{{x}}} \r "quoted"\n# user\n```\nopen fence\n# Assistant\n  ~~~ {'
    shown = (Demonstration(f"<text>\n{nasty}\n</text>", "refund {{"), Demonstration("# system", '{"a": [1, {}]}'))
    instruction = Instruction(nasty, shown)
    row = {"text": "t {{ x }}\n# system", "tokens": ["a"], "source": "s"}
    file = to_prompt(task, instruction)
    again = from_prompt(file)
    assert messages(task, row, again) == messages(task, row, instruction)


def test_what_has_no_way_is_told_before_any_call(tmp_path: Path) -> None:
    check = catalogue.find("prompt.solve").check
    assert check is not None
    empty = write_task(tmp_path / "empty", classify_task())
    with pytest.raises(DataError, match="no train rows"):
        check(PromptConfig(), {"task": empty})
    tags = write_task(tmp_path / "tags", tag_task(), rows=[{"tokens": ["a"], "tags": ["O"]}])
    with pytest.raises(ConfigError, match="cannot be solved by similarity"):
        check(PromptConfig(way="similarity"), {"task": tags})
    with pytest.raises(Unsupported, match="cannot write"):
        way_for("auto", tag_task(), WrittenEngine(can=("embed",)))
    with pytest.raises(Unsupported, match="cannot write"):
        way_for("auto", generate_task(), WrittenEngine(can=("embed",)))
    with pytest.raises(Unsupported, match="cannot embed"):
        way_for("auto", rank_task(), WrittenEngine(can=("chat",)))
    assert way_for("auto", classify_task(), WrittenEngine(can=("complete", "embed"))) == "similarity"
    assert way_for("auto", classify_task(), WrittenEngine(can=("complete",))) == "words"


@pytest.mark.parametrize(
    "wrong_values",
    [
        {"budget_requests": 3},
        {"keep": 1.0},
        {"label_examples": ()},
        {"draws": 0},
        {"temperature": 0},
        {"proposals": -1},
    ],
)
def test_wrong_settings_are_told(wrong_values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PromptConfig(**wrong_values)


# --- candidates


def test_balanced_takes_every_label_before_one_twice() -> None:
    rows = [{"text": str(index), "label": "ab"[index == 9]} for index in range(10)]
    assert [row["label"] for row in candidates.balanced(rows, "classify", 3)] == ["a", "b", "a"]


def test_balanced_tags_cover_the_types() -> None:
    rows = [
        {"tokens": ["x"], "tags": ["O"]},
        {"tokens": ["y"], "tags": ["B-PER"]},
        {"tokens": ["z"], "tags": ["B-LOC"]},
    ]
    assert {row["tags"][0] for row in candidates.balanced(rows, "tag", 3)} == {"O", "B-PER", "B-LOC"}


def test_confused_takes_the_labels_that_are_mixed_up_most() -> None:
    rows = rows_of(12, "train")
    pairs = [("card", "card_arrival"), ("card", "card_arrival"), ("refund", "card")]
    assert [row["label"] for row in candidates.confused(rows, pairs, 2)] == ["card", "card_arrival"]
    assert candidates.confused(rows, [], 2) == []


def test_diverse_avoids_what_is_alike() -> None:
    rows = [{"text": text} for text in ("abcd", "abcd", "abce", "wxyz")]
    assert [row["text"] for row in candidates.diverse(rows, "classify", 2)] == ["abcd", "wxyz"]


def test_demonstrations_depend_on_the_seed_alone() -> None:
    rows = rows_of(30, "train")
    one, same, other = (candidates.selections(classify_task(), rows, 4, [], seed) for seed in (0, 0, 1))
    assert one == same != other


def test_long_rows_are_not_shown(tmp_path: Path) -> None:
    rows = [*rows_of(6, "train"), {"text": "x" * 2000, "label": "card"}]
    assert len(candidates.short_enough(classify_task(), rows, 1500)) == 6
