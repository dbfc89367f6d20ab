"""Task files: what they say, and every way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nacre.data.read import read
from nacre.errors import ConfigError
from nacre.ladder import task_file
from nacre.ladder.stages import TaskConfig, prepare
from nacre.metrics.entities import split_tag
from nacre.recipe import catalogue
from nacre.recipe.config import build
from nacre.recipe.references import open_store

TASKS = sorted((Path(__file__).parents[3] / "tasks").glob("*.yaml"))
LEAST: dict[str, Any] = {
    "name": "mine",
    "kind": "classify",
    "about": "Whether it is good.",
    "language": "en",
    "data": {"train": "a.jsonl", "test": "b.jsonl"},
}


def parse(folder: Path = Path(), **changes: Any) -> task_file.TaskFile:
    values = {key: value for key, value in (LEAST | changes).items() if value != "absent"}
    return task_file.parse(values, folder, "task.yaml")


def test_the_least_task_has_the_defaults_of_its_kind() -> None:
    task = parse()
    assert (task.name, task.kind, task.task.metric, task.task.languages) == ("mine", "classify", "accuracy", ("en",))
    assert task.data == {"train": "a.jsonl", "test": "b.jsonl"}
    assert (task.upstream, task.base, task.seeds, task.tiers) == ("model:minilm", "model:minilm", 1, {})
    assert task.prices.machine_hour is None
    assert task.budget.money is None


@pytest.mark.parametrize(("kind", "metric"), [("tag", "entity_f1"), ("generate", "chrf"), ("rank", "ndcg@10")])
def test_each_kind_has_its_metric(kind: str, metric: str) -> None:
    data = {"train": "a", "test": "b"} | ({"corpus": "c"} if kind == "rank" else {})
    assert parse(kind=kind, data=data).task.metric == metric


def test_the_config_of_the_stages_survives_as_plain_values() -> None:
    task = parse(fields={"text": "review"}, limit={"train": 5}, duplicates={"near": "exclude"})
    assert build(TaskConfig, task.config, "config") == task.task
    assert catalogue.find("task.prepare") is prepare


def test_a_tier_may_be_left_out_by_choice_and_a_bare_key_means_its_defaults() -> None:
    task = parse(tiers={"tune": {"effort": "quick"}, "pretrain": False, "relay": None}, budget=None)
    assert task.tiers == {"tune": {"effort": "quick"}, "pretrain": None, "relay": {}}


def test_an_upstream_may_be_an_address() -> None:
    task = parse(upstream={"address": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "MY_KEY"})
    assert task.upstream == {"address": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "MY_KEY"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"train": "a"}}, "no test rows"),
        ({"data": {"test": "a"}}, "no training rows"),
        ({"data": {"all": "a", "test": "b"}}, "both all and single splits"),
        ({"kind": "rank"}, "nothing to rank"),
        ({"data": {"train": "a", "test": "b", "corpus": "c"}}, "ranks nothing"),
        ({"splits": {"test": 0.2}}, "cuts data: {all: REF} only"),
        ({"splits": {"valid": 0.0}}, "the share valid is 0.0"),
        ({"splits": {"valid": 0.6, "test": 0.4}}, "leave nothing to train on"),
        ({"language": "absent"}, "no language"),
        ({"language": "en", "languages": ["zh"]}, "not among languages"),
        ({"target_language": "zh"}, "writes nothing"),
        ({"metric": "bleu"}, "is not judged by 'bleu'"),
        ({"fields": {"txt": "review"}}, "did you mean 'text'"),
        ({"tiers": {"tuen": {}}}, "did you mean 'tune'"),
        ({"tiers": {"tune": True}}, "tiers.tune"),
        ({"seeds": 0}, "is 0"),
        ({"name": "a b"}, "cannot name an artifact"),
        ({"about": " "}, "is empty"),
        ({"prices": {"machine_hour": -1.0}}, "machine_hour is -1"),
        ({"budget": {"mony": 1.0}}, "did you mean 'money'"),
        ({"limit": {"train": 0}}, "limit of train: 0"),
        ({"duplicates": {"threshold": 0.1}}, "out of range"),
        ({"upstream": {"model": "m"}}, "upstream.address"),
        ({"upstream": {"address": "http://h/v1", "model": "m", "api_key": "sk-1"}}, "holds a key"),
        ({"kind": "clasify"}, "did you mean 'classify'"),
        ({"descriptions": "none.json"}, "No such file"),
    ],
)
def test_mistakes_are_named_with_a_remedy(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**changes)
    assert said in str(caught.value)
    assert "task.yaml" in caught.value.message
    assert caught.value.remedy


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data={"train": "a"}, seeds=0, tiers={"x": {}}, metric="bleu")
    assert caught.value.message.startswith("4 mistakes")


def test_a_key_that_was_pasted_into_the_file_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(upstream={"address": "http://h/v1", "model": "m", "api_key": "sk-secret"})
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "languages", "expected"),
    [
        ({"a": "one"}, ["en"], {"a": "one"}),
        ({"a": {"en": "one", "zh": "一"}}, ["en", "zh"], {"a": "one / 一"}),
        ([{"label": "a", "en": "one", "zh": "一"}], ["zh"], {"a": "一"}),
    ],
)
def test_descriptions_may_lie_in_a_file(
    content: Any, languages: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(content), encoding="utf-8")
    task = parse(tmp_path, language="absent", languages=languages, descriptions="labels.json")
    assert task.task.descriptions == expected


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": {"fr": "un"}}', '"text"'])
def test_a_file_of_descriptions_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="no table of descriptions"):
        parse(tmp_path, descriptions="labels.json")


def test_the_embedded_desk_speaks_both_languages() -> None:
    task = task_file.load("desk")
    assert task_file.names() == ["desk"]
    assert task.task.languages == ("en", "zh")
    assert len(task.task.descriptions) == 30
    assert all(" / " in text for text in task.task.descriptions.values())


def test_a_name_that_is_none_names_the_closest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'desk'"):
        task_file.load("dsk")
    with pytest.raises(ConfigError, match="does not exist"):
        task_file.load("no/such.yaml")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match=r"give tasks/mine\.yaml"):
        task_file.load("mine")


def test_paths_start_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "task.yaml"
    file.parent.mkdir()
    file.write_text(json.dumps(LEAST), encoding="utf-8")
    assert task_file.load(file).folder == file.parent
    assert task_file.load(str(file)).task.about == "Whether it is good."


@pytest.mark.parametrize("path", TASKS, ids=[path.stem for path in TASKS])
def test_every_task_of_the_repository_is_right_in_form(path: Path) -> None:
    task = task_file.load(path)
    assert task.name == path.stem
    assert task.prices.machine_hour == 0.10
    assert (task.kind in ("classify", "tag")) == bool(task.task.descriptions)


@pytest.mark.shared_data
@pytest.mark.parametrize("path", TASKS, ids=[path.stem for path in TASKS])
def test_every_label_of_a_task_is_described_and_no_other(path: Path, shared_data: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NACRE_DATA", str(shared_data))
    task = task_file.load(path)
    paths = {name: open_store().resolve(ref, task.folder).path for name, ref in task.data.items()}
    if task.kind not in ("classify", "tag"):
        return
    rows = list(read(paths["train"]))
    labels = {row["label"] for row in rows} if task.kind == "classify" else {tag for row in rows for tag in row["tags"]}
    names = {split_tag(tag)[1] for tag in labels} - {""} if task.kind == "tag" else labels
    assert set(task.task.descriptions) == names
