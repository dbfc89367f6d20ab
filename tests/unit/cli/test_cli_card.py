from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nacre.cli.main import main


def test_a_card_has_valid_front_matter_and_the_whole_chain(
    toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", str(toy_folder / "toy.yaml"), "--quiet"])
    path = tmp_path / "README.md"
    assert main(["card", "toy/train", "--out", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "unknown"
    assert "toy/clean@1" in body
    assert "raw.txt" in body
    assert "none stated" in body
    assert main(["card", "toy/train", "--out", str(path)]) == 2  # kept
    assert "exists" in capsys.readouterr().err


def test_a_folder_without_record_has_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(tmp_path)]) == 2
    assert "no lineage record" in capsys.readouterr().err
