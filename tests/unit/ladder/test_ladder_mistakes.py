"""Mistakes in a task file or an option of `nacre ladder`: told once, at once, by the user's own words for the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")

from nacre.cli.main import main
from nacre.errors import ConfigError
from nacre.ladder import task_file
from nacre.ladder.ladder import LadderOptions, climb, with_budget
from nacre.ladder.steps import chosen
from nacre.lineage.store import Store
from nacre.recipe.references import open_store

WORDS = {"refund": "money back", "parcel": "where is my parcel", "password": "forgot my password"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows in the folders `task` and `test` (names of the ladder's own steps), and an echo engine named `relay`."""
    for name, first, count in (("task", 0, 36), ("test", 100, 9)):
        (tmp_path / name).mkdir()
        rows = [{"text": f"{WORDS[label]} {first + n}", "label": label} for n in range(count // 3) for label in WORDS]
        (tmp_path / name / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "engine.json").write_text(json.dumps({"engine": "echo", "pick_label": True}))
    return tmp_path


def values(**changes: Any) -> dict[str, Any]:
    task = {
        "name": "mine",
        "kind": "classify",
        "about": "What is wanted.",
        "language": "en",
        "data": {"train": "task", "test": "test"},
        "upstream": "relay",
    }
    return task | changes


def parse(folder: Path, **changes: Any) -> task_file.TaskFile:
    return task_file.parse(values(**changes), folder, "task.yaml")


def written(folder: Path, **changes: Any) -> list[str]:
    (folder / "mine.yaml").write_text(json.dumps(values(**changes)), encoding="utf-8")
    return ["ladder", str(folder / "mine.yaml"), "--store", str(folder / "store"), "--quiet"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"upstream": 5}, "task.yaml.upstream: input should be a valid string or a mapping, not 5"),
        ({"descriptions": 5}, "task.yaml.descriptions: input should be a mapping or a valid string, not 5"),
        ({"descriptions": {"refund": 5}}, "task.yaml.descriptions.refund: input should be a valid string, not 5"),
        ({"tiers": {"tune": True}}, "task.yaml.tiers.tune: input should be a mapping or False, not true"),
        ({"language": ""}, "task.yaml.language: is empty"),
        ({"metric": ""}, "task.yaml.metric: is empty"),
        ({"base": ""}, "task.yaml.base: is empty"),
        ({"data": {"train": "", "test": "test"}}, "task.yaml.data.train: is empty"),
        ({"upstream": {"address": "http://h/v1", "model": "m", "zzz": 1}}, "task.yaml.upstream: unknown key 'zzz'"),
        ({"upstream": {"address": "http://h/v1", "model": "m", "offers": ["x"]}}, "offers 'x'"),
        ({"upstream": {"address": "ftp://h", "model": "m"}}, "task.yaml.upstream.address: 'ftp://h' is no base"),
        ({"upstream": {"address": "http://h/v1"}}, "task.yaml.upstream.model: required and not given"),
        ({"upstream": {"address": "http://me:secret@h/v1", "model": "m"}}, "holds a user or password"),
    ],
)
def test_a_mistake_in_a_task_file_is_one_mistake_at_its_place(changes: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(folder, **changes)
    assert said in caught.value.message
    assert "mistakes:" not in caught.value.message
    assert "secret" not in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tiers", ","], "--tiers ',' names no tier"),
        (["--tiers", ""], "--tiers '' names no tier"),
        (["--tiers", "baseline", "--set", "tune.efort=quick"], "tiers.tune: unknown key 'efort'"),
        (["--seed", "99999999999999999999"], "out of range"),
        (["--seeds", "5000000000"], "out of range"),
        (["--margin", "nan"], "the margin nan is no share"),
        (["--budget-seconds", "nan"], "the budget of seconds is nan"),
        (["--budget-money", "inf"], "the budget of money is inf"),
        (["--upstream", "nowhere"], "--upstream nowhere: "),
        (["--upstream", "http://127.0.0.1:9/v1"], "names no model"),
        (["--base", "nowhere"], "--base nowhere: "),
    ],
)
def test_a_wrong_option_is_told_before_any_work(
    options: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*written(folder), *options]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("error:") == shown.err.count("remedy:") == 1
    assert shown.out == ""
    assert not (folder / "store").exists()


def test_absent_rows_are_told_once_by_the_key_of_the_task_file(folder: Path) -> None:
    store = open_store(folder / "store")
    with pytest.raises(ConfigError, match=r"^data\.train: .*nowhere\.jsonl") as caught:
        climb(parse(folder, data={"train": "nowhere.jsonl", "test": "test"}), store)
    assert "steps." not in caught.value.message
    assert not (folder / "store").exists()


def test_folders_called_like_steps_of_the_ladder_are_folders(folder: Path) -> None:
    result = climb(parse(folder), open_store(folder / "store"), LadderOptions(("baseline", "relay"), device="cpu"))
    assert [row.name for row in result.rows if row.ok] == ["baseline", "relay"]


def test_a_tier_that_is_asked_for_is_not_left_out(folder: Path) -> None:
    file = parse(folder, tiers={"tune": False, "relay": {"way": "chat"}, "prompt": False})
    tiers = chosen(file, ("tune", "relay")).tiers
    assert tiers == {
        "baseline": None, "relay": {"way": "chat"}, "prompt": None, "retrieval": None, "tune": {}, "pretrain": None,
    }  # fmt: skip
    assert chosen(file, ()).tiers == file.tiers


def test_a_tier_that_cannot_run_is_told_at_once_and_by_its_key(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [one for one in written(folder, upstream="nowhere") if one != "--quiet"]
    assert main([*command, "--tiers", "baseline,relay", "--json"]) == 0
    shown = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(shown.out)["rows"]}
    assert (rows["baseline"]["status"], rows["relay"]["status"]) == ("ok", "skipped")
    assert rows["relay"]["reason"].startswith("upstream: 'nowhere' is neither in the store")
    assert "skipped relay: upstream: 'nowhere'" in shown.err
    assert "remedy: " in shown.err


def test_a_fault_in_a_tier_is_one_line_without_debug(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: Any) -> None:
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr("nacre.ladder.ladder.solve", fault)
    assert main([*written(folder), "--tiers", "baseline"]) == 1
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert "RuntimeError: a wheel came off" in shown.out


def test_a_report_that_cannot_be_written_ends_with_the_place_of_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nacre.lineage import durable

    whole = durable.write_atomic

    def refuse(path: Path, data: bytes) -> None:
        if path.name == "mine.html":
            raise PermissionError(13, "Permission denied", str(path))
        whole(path, data)

    monkeypatch.setattr(durable, "write_atomic", refuse)
    code = main([*written(folder), "--tiers", "baseline", "--report", str(folder / "mine.html")])
    shown = capsys.readouterr().err
    assert code == 2
    assert "cannot be written: Permission denied" in shown
    assert f"copy it from {Store(folder / 'store').root}" in shown


def test_budgets_are_finite(folder: Path) -> None:
    file = with_budget(parse(folder, prices={"input_per_million": 1.0}), money=float("nan"))
    with pytest.raises(ConfigError, match="the budget of money is nan"):
        climb(file, open_store(folder / "store"))


def test_counts_and_choices_are_told_in_chinese_too() -> None:
    from nacre.ladder.words import Words

    words = Words("zh")
    assert words("left_out") != Words("en")("left_out")
    assert "--tiers tune" in words("left_out_remedy", tier="tune")
    assert words.name("several_answers") == "同一文本有多个答案"


def test_an_axis_of_scores_ends_at_0_and_at_1() -> None:
    from nacre.ladder.report.charts import _share_axis

    ticks = _share_axis([0.0, 1.0], 100.0, 0.0).ticks
    assert (min(ticks), max(ticks)) == (0.0, 1.0)
