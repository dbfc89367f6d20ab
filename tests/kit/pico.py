"""The pico model family: every preset at a size that a test builds in milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from nacre.kernel.config import KernelConfig
from nacre.kernel.model import Kernel
from nacre.kernel.presets import PRESETS, preset

TEXT_PRESETS = tuple(name for name in PRESETS if name != "vit")
DECODER_PRESETS = ("gpt2", "llama2", "llama3", "mistral", "qwen2", "qwen3")
ENCODER_PRESETS = ("bert", "roberta", "ernie")
_NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0, "ffn_dropout": 0.0}


def pico_config(name: str, **choices: Any) -> KernelConfig:
    """`preset(name)` with 2 layers, 4 heads, width 32, 97 tokens and no dropout."""
    sizes: dict[str, Any] = {"hidden_size": 32, "heads": 4, "layers": 2} | _NO_DROPOUT
    if name == "vit":
        sizes |= {"image_size": 12, "patch_size": 4, "channels": 2}
    else:
        sizes |= {"vocab_size": 97, "max_positions": 64}
    if name == "mistral":
        sizes["sliding_window"] = 5
    return preset(name, **sizes | choices)


def pico(name: str, seed: int = 0, std: float = 0.3, **choices: Any) -> Kernel:
    """A kernel of that config in evaluation mode, with weights large enough for differences to show."""
    config = pico_config(name, **choices)
    torch.manual_seed(seed)
    kernel = Kernel(config).eval()
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.add_(torch.randn_like(parameter) * std)
    return kernel


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token ids (rows, length), none of them special."""
    return torch.randint(5, 97, (rows, length), generator=torch.Generator().manual_seed(seed))
