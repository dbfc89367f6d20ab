"""How a fresh kernel begins: each scheme as its paper or reference code has it, drawn in parameter order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nacre.kernel.config import KernelConfig


@torch.no_grad()
def initialise(module: nn.Module, config: KernelConfig, generator: torch.Generator | None = None) -> None:
    """Fills every parameter of `module`, a kernel or a part of one; the same generator state gives the same values.

    `normal`: N(0, init_std), biases 0, norms 1 (BERT, Llama). `gpt2`: as `normal`, with the projections that end a
    residual branch divided by sqrt(2 * layers) (GPT-2, section 2.3). `t5`: scaled by the fan-in of each matrix,
    embeddings N(0, 1) (Mesh TensorFlow), but an untied output matrix N(0, 1 / D), so that the first loss is near ln V.
    """
    std = _t5_std if config.init == "t5" else _normal_std
    for name, parameter in module.named_parameters():
        if parameter.is_meta:
            continue
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        elif name.endswith("bias") or name.endswith("norm.bias"):
            parameter.zero_()
        else:
            _normal(parameter, std(name, config), generator)


def _normal(parameter: Tensor, std: float, generator: torch.Generator | None) -> None:
    if generator is None or generator.device == parameter.device:
        parameter.normal_(0.0, std, generator=generator)
    else:
        parameter.copy_(torch.empty(parameter.shape, dtype=torch.float32).normal_(0.0, std, generator=generator))


def _ends_branch(name: str) -> bool:
    return name.endswith(("attention.o.weight", "ffn.down.weight", "cross.o.weight"))


def _normal_std(name: str, config: KernelConfig) -> float:
    if config.init == "gpt2" and _ends_branch(name):
        return float(config.init_std / (2 * config.layers) ** 0.5)
    return config.init_std


def _t5_std(name: str, config: KernelConfig) -> float:
    size, inner = config.hidden_size, config.heads * config.head_width
    if name.endswith("tokens.weight"):
        fan = 1
    elif name.endswith(".q.weight"):
        fan = size * config.head_width
    elif name.endswith((".attention.o.weight", ".cross.o.weight")):
        fan = inner
    elif name.endswith(".down.weight"):
        fan = config.ffn_width
    else:
        fan = size
    return float(config.init_std * fan**-0.5)
