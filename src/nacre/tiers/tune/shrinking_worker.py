"""The work behind `kernel.shrink`. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nacre.data.tokenizer_trim import trimmed
from nacre.kernel import hf
from nacre.kernel.model import Kernel
from nacre.kernel.shrink import chosen, shrunk
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.fitting import keep_tokenizer, load_kernel, load_tokenizer, rows_of
from nacre.tiers.tune.shrinking import ShrinkConfig
from nacre.train.objective import text_field


def shrink_kernel(config: ShrinkConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes the smaller model with its tokenizer; says what is left of the parameters."""
    kernel, tokenizer = load_kernel(work.inputs["model"], work), load_tokenizer(work)
    layers = chosen(config.layers, min(kernel.config.stack_layers.values()), config.take)
    source: Path | None = work.inputs.get("tokenizer", work.inputs["model"])
    tokens: list[int] | None = None
    if config.vocabulary == "rows":
        texts = (text_field(row, config.field) for row in rows_of(work.inputs["data"]).train)
        tokenizer, tokens = trimmed(tokenizer, texts)
        source = None
    small = shrunk(kernel, layers, tokens)
    hf.save(small, work.out)
    keep_tokenizer(tokenizer, work.out, source)
    work.progress.note("kept", layers=list(layers), tokens=small.config.vocab_size)
    before, after = _size(kernel), _size(small)
    return {"parameters": after, "share": round(after / before, 4), "tokens": small.config.vocab_size}


def _size(kernel: Kernel) -> int:
    return sum(one.numel() for one in kernel.parameters())
