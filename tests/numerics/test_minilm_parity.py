"""The real all-MiniLM-L6-v2: the same states and embeddings as `transformers` gives, and a round trip without loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nacre.data.models import find
from nacre.errors import ReferenceNotFound
from nacre.kernel import hf
from nacre.kernel.heads import pool

transformers = pytest.importorskip("transformers")

TEXTS = ["I lost my card", "Where is my money, and why has the transfer not arrived yet?", "你好"]


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of the model: below $NACRE_MODELS, else where the model catalogue keeps it."""
    for config in sorted(Path(os.environ.get("NACRE_MODELS", "/nonexistent")).glob("**/config.json")):
        if "minilm" in str(config).lower() and (config.parent / "model.safetensors").is_file():
            return config.parent
    try:
        return find("minilm", fetch=False)
    except ReferenceNotFound as error:
        pytest.skip(f"{error.message}; or set NACRE_MODELS to a folder that holds it")


@torch.no_grad()
def test_real_weights_give_the_same_embeddings(minilm: Path) -> None:
    kernel, theirs = hf.load(minilm), transformers.AutoModel.from_pretrained(minilm).eval()
    batch = transformers.AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    hidden = kernel(batch["input_ids"], mask=mask, token_types=batch["token_type_ids"]).hidden
    expected = theirs(**batch)
    assert (hidden - expected.last_hidden_state).abs().max() < 1e-4
    mean = pool(expected.last_hidden_state, mask, "mean")
    assert torch.allclose(pool(hidden, mask, "mean"), mean, atol=1e-4)
    assert kernel.pooler is not None
    assert torch.allclose(torch.tanh(kernel.pooler(hidden[:, 0])), expected.pooler_output, atol=1e-4)


def test_real_weights_survive_a_round_trip(minilm: Path, tmp_path: Path) -> None:
    kernel = hf.load(minilm)
    hf.save(kernel, tmp_path)
    _, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    again = hf.load(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in kernel.state_dict().items())
