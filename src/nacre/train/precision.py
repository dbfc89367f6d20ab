"""Number formats: what a run computes in, and the float32 weights that the optimiser sees."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from nacre.errors import ConfigError


def resolve_precision(precision: str, device: torch.device) -> tuple[str, str]:
    """The number format to use on `device`, and why. ConfigError where the format cannot work.

    `auto` takes bfloat16 autocast where the hardware multiplies in it, and float32 elsewhere: emulated bfloat16 is
    many times slower than float32.
    """
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"precision fp16 needs a CUDA device, and this run is on {device.type}",
            remedy="set precision to float32, or to auto",
        )
    if precision != "auto":
        return precision, "as configured"
    if multiplies_in_bfloat16(device):
        return "bf16_autocast", f"the {device.type} multiplies in bfloat16"
    return "float32", f"the {device.type} has no bfloat16 matrix product"


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes matrix products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return False


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass."""
    dtypes = {"bf16_autocast": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtypes[precision])


class Weights:
    """The weights of a kernel as the optimiser sees them: the kernel's own, or float32 masters of bfloat16 ones.

    With precision `bf16` every parameter of the kernel becomes bfloat16 (buffers stay as they are: rotary tables in
    bfloat16 are wrong) and `masters` hold float32 copies; gradients go up, values come down. What is saved is always
    the masters.
    """

    def __init__(self, kernel: nn.Module, precision: str) -> None:
        self.kernel = kernel
        self.parameters = dict(kernel.named_parameters())
        self.lowered = precision == "bf16"
        self.masters: dict[str, Tensor] = dict(self.parameters)
        if self.lowered:
            self.masters = {name: p.detach().clone() for name, p in self.parameters.items()}
            for name, parameter in self.parameters.items():
                self.masters[name].requires_grad_(parameter.requires_grad)
                parameter.data = parameter.data.bfloat16()
        names = [name for name, p in self.parameters.items() if p.requires_grad]
        self.trained = {name: self.masters[name] for name in names}
        self._computing: list[Tensor] = [self.parameters[name] for name in names]

    @torch.no_grad()
    def collect_gradients(self) -> None:
        """After a backward pass: adds bfloat16 gradients to the float32 ones, so that accumulation loses nothing."""
        if not self.lowered:
            return
        for master, parameter in zip(self.trained.values(), self._computing, strict=True):
            if parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.to(master.dtype)
            else:
                master.grad += parameter.grad
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """After the masters changed: the kernel computes with their values."""
        if self.lowered:
            torch._foreach_copy_(self._computing, list(self.trained.values()))

    def release(self) -> None:
        """Ends the run: the kernel holds the masters themselves, in their own format, and no gradients."""
        for name, parameter in self.parameters.items():
            parameter.data = self.masters[name].detach()
            parameter.grad = None
