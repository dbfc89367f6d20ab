"""The ladder, whole, at pico size: four intents of the embedded desk, the echo engine upstream, a pico base to tune."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import yaml
from pico import pico

from nacre.cli.main import main
from nacre.data.tokenizer import train as train_tokenizer
from nacre.data.tokenizer_config import TokenizerConfig
from nacre.kernel import hf
from nacre.ladder.ladder import LadderOptions, climb
from nacre.ladder.result import LadderResult
from nacre.ladder.task_file import load
from nacre.lineage.store import Store
from nacre.recipe.references import open_store

DESK = Path(__file__).parents[2] / "src" / "nacre" / "data" / "desk" / "utterances.jsonl"
INTENTS = ("track_order", "refund_status", "reset_password", "warranty_repair")
CANARY = "zyzzyva-canary-紫水晶"
ROW_KEYS = {
    "tier", "name", "solver", "score", "ci_low", "ci_high", "latency_ms_p50", "latency_ms_p95", "cost_per_1k",
    "build_seconds", "peak_memory_mib", "trained_parameters", "owns", "lineage", "status",
}  # fmt: skip
TIERS = ["baseline", "relay", "prompt", "retrieval", "tune", "pretrain"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, an echo engine, a pico encoder with its tokenizer, and a task file."""
    folder = tmp_path_factory.mktemp("ladder")
    rows = [json.loads(line) for line in DESK.read_text(encoding="utf-8").splitlines()]
    train = [row for row in rows if row["label"] in INTENTS and row["split"] == "train"]
    test = [row for row in rows if row["label"] in INTENTS and row["split"] == "test"]
    test[0] = {**test[0], "text": f"{test[0]['text']} {CANARY}"}
    for name, part in (("train", train), ("test", test)):
        lines = [json.dumps({"text": row["text"], "label": row["label"]}, ensure_ascii=False) for row in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "echo").mkdir()
    (folder / "echo" / "engine.json").write_text(json.dumps({"engine": "echo", "pick_label": True}))
    base = folder / "base"
    words = TokenizerConfig("wordpiece", vocab_size=700, style="bert")
    tokens = train_tokenizer([row["text"] for row in train], words, base)
    hf.save(pico("bert", vocab_size=len(tokens), max_positions=64), base)
    task = {
        "name": "small",
        "kind": "classify",
        "about": "Which intent a customer's message has.",
        "languages": ["en", "zh"],
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "upstream": "echo",
        "base": "base",
        "prices": {"machine_hour": 0.1},
        "tiers": {"tune": {"effort": "quick"}, "pretrain": {"effort": "quick"}},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def store(place: Path) -> Store:
    return open_store(place / "store")


@pytest.fixture(scope="module")
def result(place: Path, store: Store) -> LadderResult:
    return climb(load(place / "task.yaml"), store, LadderOptions(device="cpu"))


@pytest.mark.slow
def test_every_tier_is_a_measured_row(result: LadderResult) -> None:
    assert [row.name for row in result.rows] == TIERS
    assert {row.name: (row.status, row.reason) for row in result.rows if not row.ok} == {}
    for row in result.rows:
        assert (row.ci_low or 0) <= (row.score or 0) <= (row.ci_high or 0)
        assert (row.ci_high or 0) > 0
        assert all((row.latency_ms_p50, row.cost_per_1k, row.build_seconds))
        assert row.examples == result.test_examples
    assert result.recommended.name in TIERS
    assert sum(row.vs_best is not None for row in result.rows) == len(TIERS) - 1


@pytest.mark.slow
def test_json_holds_the_contract(result: LadderResult) -> None:
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {"task", "metric", "machine", "rows", "recommended"} <= plain.keys()
    assert {"tier", "why"} <= plain["recommended"].keys()
    for row in plain["rows"]:
        assert row.keys() >= ROW_KEYS
        assert set(row["owns"]) == {"kernel", "weights", "data", "prompt", "index"}


@pytest.mark.slow
def test_ownership_says_whose_each_part_is(result: LadderResult) -> None:
    owns = {row.name: {part: one.state for part, one in row.owns.items()} for row in result.rows}
    assert owns["baseline"]["weights"] == "own"
    assert owns["relay"]["kernel"] == "called"
    assert owns["retrieval"]["index"] == "own"
    assert owns["tune"]["kernel"] == "borrowed"
    assert owns["pretrain"]["kernel"] == "own"
    assert owns["pretrain"]["weights"] == "own"


@pytest.mark.slow
def test_no_solver_can_see_a_test_row(result: LadderResult, store: Store) -> None:
    """The canary stands in one test row: nothing that a solver was given, or made, may hold it."""
    seen = []
    for tier in ("task", *TIERS):
        for file in (store.root / "store" / "ladder" / "small" / tier).rglob("*"):
            if file.is_file() and (CANARY.encode() in file.read_bytes()):
                seen.append(file)
    assert seen == []
    assert CANARY in (store.root / "store/ladder/small/test/1/test.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_second_climb_makes_and_sends_nothing(result: LadderResult, place: Path, store: Store) -> None:
    again = climb(load(place / "task.yaml"), store, LadderOptions(device="cpu"))
    assert again.spent["requests"] == 0
    assert again.report == result.report
    assert [row.lineage for row in again.rows] == [row.lineage for row in result.rows]
    assert [row.score for row in again.rows] == [row.score for row in result.rows]


@pytest.mark.slow
def test_rungs_answer_from_an_exported_folder(
    result: LadderResult, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = ["--store", str(place / "store")]
    for tier in TIERS:
        folder = place / "exported" / tier
        assert main(["ladder", str(place / "task.yaml"), "--export", tier, str(folder), *shop]) == 0
        capsys.readouterr()
        assert main(["predict", str(folder), "where is my parcel", "我的退款到了吗", "--json", *shop]) == 0
        answers = json.loads(capsys.readouterr().out)["answers"]
        assert len(answers) == 2
        assert all(one["label"] is not None or one["problem"] for one in answers)
    assert main(["ladder", str(place / "task.yaml"), "--export", "tune", str(place / "exported/tune"), *shop]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_opens_offline_and_names_every_tier(result: LadderResult) -> None:
    assert result.report is not None
    page = Path(result.report).read_text(encoding="utf-8")
    for tier in TIERS:
        assert tier in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_another_margin_is_another_report(place: Path, tmp_path: Path) -> None:
    """The page says what was recommended: it must not be that of an earlier question."""
    store, file = open_store(tmp_path / "store"), load(place / "task.yaml")
    strict, again, lax = (
        climb(file, store, LadderOptions(tiers=("baseline", "relay"), device="cpu", margin=margin)).report
        for margin in (0.0, 0.0, 0.9)
    )
    assert strict == again
    assert strict != lax


def test_a_tier_that_fails_is_a_row_and_the_others_go_on(place: Path, tmp_path: Path) -> None:
    (place / "broken").mkdir(exist_ok=True)
    (place / "broken" / "config.json").write_text("{")
    changes: dict[str, Any] = {"upstream": "nowhere", "base": "broken"}
    task = yaml.safe_load((place / "task.yaml").read_text(encoding="utf-8")) | changes
    (place / "bad.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    options = LadderOptions(tiers=("baseline", "relay", "tune"), device="cpu")
    rows = climb(load(place / "bad.yaml"), open_store(tmp_path / "store"), options).rows
    status = {row.name: row.status for row in rows}
    assert status["baseline"] == "ok"
    assert status["relay"] != "ok"
    assert status["tune"] != "ok"
    assert all(row.reason and row.remedy for row in rows if row.status != "ok")


def test_the_budget_ends_cleanly_and_a_larger_one_goes_on(place: Path, tmp_path: Path) -> None:
    from nacre.ladder.ladder import with_budget

    store = open_store(tmp_path / "store")
    options = LadderOptions(tiers=("baseline", "relay"), device="cpu")
    file = load(place / "task.yaml")
    first = climb(with_budget(file, requests=12), store, options)
    relay = first.row("relay")
    assert relay is not None
    assert first.spent["requests"] <= 12
    if relay.ok:
        assert relay.unmeasured == first.test_examples - relay.examples > 0
    else:
        assert "budget" in (relay.reason or "")
    whole = climb(file, store, options)
    relay = whole.row("relay")
    assert relay is not None
    assert relay.ok
    assert relay.unmeasured == 0
    assert whole.spent["requests"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tiers", "tuna"], "no tier 'tuna'"),
        (["--seeds", "0"], "--seeds 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--budget-requests", "0"], "budget of requests is 0"),
        (["--budget-money", "1"], "no price of a token is known"),
        (["--set", "tune.efort=quick"], "unknown key 'efort'"),
        (["--set", "tuna.effort=quick"], "no tier 'tuna'"),
        (["--set", "effort"], "not of the form"),
        (["--margin", "2"], "margin"),
        (["--report", "/nowhere/at/all.html"], "in no folder"),
        (["--export", "tune", "out"], "not in the store"),
        (["--export", "tuna", "out"], "no tier 'tuna'"),
    ],
)
def test_wrong_options_end_with_a_remedy(
    options: list[str], said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["ladder", str(place / "task.yaml"), "--store", str(tmp_path / "store"), *options])
    shown = capsys.readouterr().err
    assert code == 2
    assert said in shown
    assert "remedy:" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_answers(place: Path, tmp_path: Path) -> None:
    """kill -9 while a tier works: the next climb ends with the same predictions as one that was left alone."""
    command = [sys.executable, "-m", "nacre.cli.main", "ladder", str(place / "task.yaml"), "--tiers", "baseline,relay"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--store", str(whole), "--quiet"], env=environment, capture_output=True, check=True)
    process = subprocess.Popen(
        [*command, "--store", str(cut)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (cut / "store/ladder/small/baseline").is_dir():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command, "--store", str(cut), "--quiet"], env=environment, capture_output=True, check=True)
    for tier in ("baseline", "relay"):
        inside = f"store/ladder/small/{tier}-answers/1/predictions.jsonl"
        assert (cut / inside).read_bytes() == (whole / inside).read_bytes()
