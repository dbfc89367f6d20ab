"""`nacre audit MODEL --against ROWS` of a model that a recipe trained: the order on record tells its own rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from nacre.cli.main import main

RECIPE = """
name: witness
seed: 3
steps:
  rows: {stage: data.prepare, inputs: {source: rows.jsonl}, config: {task: text, splits: ratio,
         split: {ratios: {train: 0.95, valid: 0.05}}}}
  tokenizer: {stage: tokenizer.train, inputs: {data: rows}, config: {algorithm: bpe, style: gpt, vocab_size: 300}}
  initialise: {stage: kernel.initialise, inputs: {tokenizer: tokenizer},
               config: {preset: llama2, choices: {hidden_size: 64, heads: 2, layers: 1, max_positions: 32}}}
  pretrain: {stage: pretrain.causal, inputs: {model: initialise, data: rows}, config: {
             objective: {context: 24, packing: none},
             train: {epochs: 1, batch_size: 2, lr: 1.0e-2, schedule: constant, warmup: 0.0, weight_decay: 0.0}}}
"""


def _write(file: Path, rows: list[dict[str, str]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _rows(seed: int, count: int) -> list[dict[str, str]]:
    """Sentences of words that were drawn: no row foretells another."""
    rng = random.Random(seed)
    return [{"text": " ".join("".join(rng.choices("abcdefgh", k=3)) for _ in range(5))} for _ in range(count)]


def _audited(capsys: pytest.CaptureFixture[str], *references: object) -> dict[str, Any]:
    against = [word for one in references for word in ("--against", str(one))]
    assert main(["audit", "witness/pretrain@1", *against, "--stages", "data", "--no-record", "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    stage: dict[str, Any] = told["stages"]["data"]
    return stage


def _logged(stage: dict[str, Any]) -> dict[str, Any]:
    [found] = [one for one in stage["evidence"] if one["test"] == "training order"]
    return dict(found)


@pytest.mark.slow
def test_a_recipes_model_beside_its_data_another_set_and_its_data_in_another_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "rows.jsonl", _rows(0, 420))
    (tmp_path / "witness.yaml").write_text(RECIPE, encoding="utf-8")
    assert main(["run", str(tmp_path / "witness.yaml"), "--quiet"]) == 0
    capsys.readouterr()
    own = _audited(capsys, "witness/rows@1")
    assert (own["verdict"], own["kind"], own["tier"]) == ("DERIVED", "trained-on", "exact")
    assert own["p_value"] <= 0.01
    assert "seed 3, batches of 2" in own["text"]

    trained = [json.loads(line) for line in _train_file().read_text(encoding="utf-8").splitlines()]
    copy = _audited(capsys, _write(tmp_path / "copy.jsonl", trained))  # the same rows under another name
    assert _logged(copy)["p_value"] == _logged(own)["p_value"]

    other = _audited(capsys, _write(tmp_path / "other.jsonl", _rows(1, len(trained))))
    assert other["verdict"] == "NO_EVIDENCE"
    assert _logged(other)["p_value"] > 0.01

    random.Random(2).shuffle(trained)
    turned = _audited(capsys, _write(tmp_path / "turned.jsonl", trained))
    # The order is logged by place in the file, so it says nothing of a file in another order. The verdict says so.
    assert turned["verdict"] == "NO_EVIDENCE"
    assert any("in another order" in one for one in turned["not_tested"])


def _train_file() -> Path:
    from nacre.recipe.references import open_store

    return open_store().resolve("witness/rows@1").path / "train.jsonl"
