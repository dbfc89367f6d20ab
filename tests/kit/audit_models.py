"""Models for tests of the audit's weights: tiny gated decoders trained for seconds, and sides built by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nacre.data.tokenizer import Tokenizer, TokenizerConfig
from nacre.data.tokenizer import train as train_tokenizer
from nacre.kernel.model import Kernel
from nacre.kernel.presets import preset
from nacre.lifecycle.audit.canonical import Canonical, Key, Sizes, View
from nacre.lifecycle.audit.tensors import Floats, TensorInfo
from nacre.lifecycle.audit.weights.side import Side
from nacre.train.config import TrainConfig
from nacre.train.loop import train
from nacre.train.objectives.causal import Causal
from nacre.train.objectives.config import CausalConfig

Arrays = dict[Key, Floats]
DESK = Path(__file__).parents[2] / "src" / "nacre" / "data" / "desk" / "kb"
_ROLES = {
    "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down",
    "input_layernorm": "norm1", "post_attention_layernorm": "norm2",
}  # fmt: skip
_OUTSIDE = {"model.embed_tokens.weight": "embedding", "model.norm.weight": "final_norm", "lm_head.weight": "head"}


class ArraySource:
    """Tensors that lie in memory, by name."""

    def __init__(self, arrays: Mapping[str, Floats]) -> None:
        self.arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in arrays.items()}
        self.infos = {
            name: TensorInfo(name, "F32", values.shape, values.nbytes, "memory") for name, values in self.arrays.items()
        }

    def read(self, name: str, rows: slice | None = None) -> Floats:
        return self.arrays[name] if rows is None else self.arrays[name][rows]

    def blocks(self, name: str) -> Iterator[memoryview]:
        yield memoryview(self.arrays[name]).cast("B")


def side_of(arrays: Arrays, tokens: np.ndarray | None = None, **choices: Any) -> Side:
    """A side over arrays by (layer, role); every token is shared unless `tokens` says which are."""
    named = {f"{layer}/{role}": values for (layer, role), values in arrays.items()}
    views = {key: View(f"{key[0]}/{key[1]}", values.shape) for key, values in arrays.items()}
    vocabulary, hidden = arrays[None, "embedding"].shape
    layers = 1 + max((layer for layer, _ in arrays if layer is not None), default=-1)
    sizes = Sizes(layers=layers, hidden=hidden, vocabulary=vocabulary, heads=choices.pop("heads", 4))
    gated = (0, "gate") in arrays or (0, "gate.0") in arrays
    canonical = Canonical(
        choices.pop("layout", "decoder"), sizes, choices.pop("design", "design"), "shape", (), is_gated=gated,
        views=views, **choices,
    )  # fmt: skip
    return Side(canonical, ArraySource(named), np.arange(vocabulary) if tokens is None else tokens)


def canonical_arrays(kernel: Kernel) -> Arrays:
    """The weights of a Llama- or Qwen2-like kernel by (layer, role)."""
    from nacre.kernel.hf_tensors import to_theirs

    out: Arrays = {}
    for name, tensor in to_theirs(kernel.config, dict(kernel.state_dict())).items():
        values = tensor.detach().to(torch.float32).numpy().copy()
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.(weight|bias)", name)
        if match:
            role = _ROLES[match.group(2)] + (".bias" if match.group(3) == "bias" else "")
            out[int(match.group(1)), role] = values
        else:
            out[None, _OUTSIDE[name]] = values
    return out


def texts(part: int | None = None, parts: int = 2) -> list[str]:
    """The desk's pages, or every `parts`-th of them."""
    pages = [path.read_text(encoding="utf-8") for path in sorted(DESK.rglob("*.md"))]
    return pages if part is None else pages[part::parts]


class Trainer:
    """Trains decoders of one design on the desk's pages; all from one tokenizer."""

    def __init__(self, folder: Path, width: int = 64, layers: int = 4, name: str = "llama2", **choices: Any) -> None:
        self.folder, self.count = folder, 0
        config = TokenizerConfig(vocab_size=512)
        self.tokenizer: Tokenizer = train_tokenizer(texts(), config, folder / "tokenizer")
        self.config = preset(
            name,
            vocab_size=len(self.tokenizer),
            hidden_size=width,
            heads=4,
            layers=layers,
            max_positions=128,
            **choices,
        )

    def fresh(self, seed: int) -> Kernel:
        return Kernel(self.config, torch.Generator().manual_seed(seed))

    def tuned(self, kernel: Kernel, steps: int, seed: int = 0, lr: float = 3e-3, part: int | None = None) -> Kernel:
        """A copy of `kernel`, trained on."""
        import copy

        self.count += 1
        kernel = copy.deepcopy(kernel)
        objective = Causal(self.tokenizer, CausalConfig(context=64))
        examples = objective.arrange([one for text in texts(part) if (one := objective.encode({"text": text}))])
        config = TrainConfig(max_steps=steps, batch_size=16, lr=lr, seed=seed, log_every=10**6, checkpoint_seconds=1e6)
        train(kernel, objective, examples, config, folder=self.folder / f"run{self.count}")
        return kernel.eval()
