from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden import matches
from nacre.cli.main import main
from nacre.lineage.record import Record, from_dict, verify_record
from nacre.lineage.store import Store
from nacre.recipe.recipe import load
from nacre.recipe.run import run

EXPECTED = Path(__file__).parent / "expected"


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def output(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    main(list(words))
    return capsys.readouterr().out.replace(str(folder), "FOLDER")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert matches("help.txt", output(capsys, Path("/nowhere"), "--help"))


def test_plan_before_and_after(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(toy_folder / "toy.yaml")
    text = output(capsys, toy_folder, "plan", recipe)
    main(["run", recipe, "--quiet"])
    capsys.readouterr()
    text += output(capsys, toy_folder, "plan", recipe, "--set", "train.steps=7", "--config")
    assert matches("plan.txt", text)


def test_plan_json(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert matches("plan.json", output(capsys, toy_folder, "plan", str(toy_folder / "toy.yaml"), "--json"))


def test_trace(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    capsys.readouterr()
    assert matches("trace.txt", output(capsys, toy_folder, "trace", "toy/train"))


def test_record(toy_folder: Path) -> None:
    """Digest and fingerprint are in it: a change of how either is computed shows here."""
    store = Store()
    run(load(toy_folder / "toy.yaml"), store)
    plain = json.loads((store.folder("toy/train", 1) / "lineage.json").read_text(encoding="utf-8"))
    plain["cost"] |= {"seconds": 0.0, "peak_memory_mib": 0.0}
    plain |= {"versions": {}, "machine": {}, "created": ""}
    assert matches("record.json", json.dumps(plain, ensure_ascii=False, indent=1) + "\n")


def test_a_record_of_an_older_version_still_loads() -> None:
    record = from_dict(json.loads((EXPECTED / "record.json").read_text(encoding="utf-8")))
    verify_record(record)
    assert isinstance(record, Record)


@pytest.mark.parametrize("verb", ["run", "plan", "show", "trace", "doctor"])
def test_verb_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    text = capsys.readouterr().out
    description = text[
        text.index("\n\n") : text.index("\npositional") if "\npositional" in text else text.index("\noptions")
    ]
    assert matches(f"help-{verb}.txt", description)
