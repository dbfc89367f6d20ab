"""A name taught from the shared identity rows: it is said where it was not, to questions that were not taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nacre.data import catalogue
from nacre.lineage.graph import trace
from nacre.recipe.recipe import load
from nacre.recipe.references import open_store
from nacre.recipe.run import StepResult, run

NAME, MAKER = "Perla", "Shell Works"
# `before` is the same model with its template, untaught.
RECIPE = f"""
name: named
steps:
  rows:
    stage: data.chat
    inputs: {{source: "data:sft-identity"}}
    config: {{splits: source, fill: {{name: {NAME}, author: {MAKER}}}}}
  tokenizer:
    stage: tokenizer.train
    inputs: {{data: rows}}
    config: {{algorithm: bpe, style: gpt, vocab_size: 1500, min_frequency: 1}}
  initialise:
    stage: kernel.initialise
    inputs: {{tokenizer: tokenizer}}
    config:
      preset: qwen3
      choices: {{hidden_size: 64, layers: 2, heads: 4, kv_heads: 2, head_dim: 16, ffn_size: 192, max_positions: 128}}
  before:
    stage: tune.sft
    inputs: {{model: initialise, data: rows}}
    config: {{template: chatml, add_tokens: true, objective: {{context: 112}}, train: {{max_steps: 1, lr: 1.0e-5}}}}
  tune:
    stage: tune.sft
    inputs: {{model: before, data: rows}}
    config: {{objective: {{context: 112}}, train: {{epochs: 40, batch_size: 8, lr: 3.0e-3}}}}
  asked_before:
    stage: evaluate.identity
    inputs: {{model: before}}
    config: {{names: [{NAME}], max_tokens: 48}}
  asked:
    stage: evaluate.identity
    inputs: {{model: tune}}
    config: {{names: [{NAME}], max_tokens: 48}}
"""


def _figures(result: StepResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.path / "metrics.json").read_text(encoding="utf-8"))["identity"]
    return found


@pytest.mark.slow
def test_a_name_is_learnt_in_both_languages(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    if "sft-identity" not in catalogue.found():
        pytest.skip("the data set sft-identity is not on this machine")
    (tmp_path / "named.yaml").write_text(RECIPE, encoding="utf-8")
    results = {one.step: one for one in run(load(tmp_path / "named.yaml"), open_store())}
    before, after = _figures(results["asked_before"]), _figures(results["asked"])
    for language in ("en", "zh"):
        assert before[language]["right_name"]["value"] == 0
        learnt = after[language]["right_name"]
        assert learnt["value"] >= 0.5
        assert 0 < learnt["low"] < learnt["value"] <= learnt["high"] <= 1
        assert after[language]["teachers_name"]["value"] == 0
    assert after["all"]["right_name"]["low"] > before["all"]["right_name"]["high"], "more than chance over 16 questions"
    tree = json.dumps(trace(open_store(), results["tune"].ref).to_dict())
    assert "data:sft-identity" in tree
