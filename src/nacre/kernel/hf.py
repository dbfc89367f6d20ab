"""Checkpoints in the format of `transformers`, in and out, strict in both directions.

A head that no class of `transformers` has (a classifier over the mean of all tokens, say) is kept beside the body: the
body is saved as the base class, which `transformers` loads as such, the head in `head.safetensors`, and the key
`nacre` of `config.json` says what it is. Nobody gets other logits in silence; `load` puts both together again. A base
class that wants a pooler where the kernel has none gets zeros for it, so that its pooled output is 0 and not noise.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nacre.errors import CheckpointError
from nacre.kernel.adapters import peft
from nacre.kernel.adapters.adapted import is_adapter
from nacre.kernel.adapters.site import sites
from nacre.kernel.config import KernelConfig
from nacre.kernel.families import FAMILIES
from nacre.kernel.hf_config import read_config, write_config
from nacre.kernel.hf_files import CONFIG, HEAD, read_json, read_safetensors, read_weights, write_folder
from nacre.kernel.hf_tensors import to_canonical, to_theirs
from nacre.kernel.model import Kernel

_log = logging.getLogger(__name__)
_HEAD_PARTS = ("classifier.", "nsp.", "mlm.", "lm_head.")


def load_config(folder: str | Path) -> KernelConfig:
    """The config of a checkpoint, without reading its weights; raises CheckpointError like `load`."""
    return read_config(read_json(Path(folder) / CONFIG))


def load(folder: str | Path, device: str | torch.device = "cpu") -> Kernel:
    """The kernel in a checkpoint folder, in evaluation mode, with the stored dtype.

    Reads `model.safetensors`, single or sharded, or `pytorch_model.bin` through torch's safe loader. T5 in float16
    becomes float32, and says so: its feed-forward leaves float16's range. An adapter that was saved beside the weights,
    because they have no place for it, is attached. Raises CheckpointError saying what and why:
    a family, rope type or other choice that no kernel has, quantised weights, a damaged file, and any tensor that is
    missing, left over, of another shape, or tied and yet different.
    """
    folder = Path(folder)
    given = read_json(folder / CONFIG)
    config = read_config(given)
    stored = read_weights(folder)
    config = _settled(config, given.get("nacre", {}), stored)
    kernel = _bare(config)
    state = _canonical(kernel, folder, stored, bool(given.get("nacre", {}).get("pooler") == "placeholder"))
    if config.overflows_float16 and any(tensor.dtype == torch.float16 for tensor in state.values()):
        _log.warning("T5 in float16 overflows in its feed-forward: loaded as float32")
        state = {name: tensor.float() for name, tensor in state.items()}
    kernel.load_state_dict(state, strict=True, assign=True)
    kernel.requires_grad_(True)
    adapter = given.get("nacre", {}).get("adapter")
    if adapter is not None:
        peft.load(kernel, folder / adapter)
    return kernel.to(device).eval()


def save(kernel: Kernel, folder: str | Path, *, adapter: str | None = None) -> None:
    """Writes `config.json` and `model.safetensors`, which `transformers` loads with the same logits.

    The stored dtype is the parameters'. A crash leaves no `config.json`, so nothing half-written looks complete.
    Raises CheckpointError, before anything is written, for a config that the family's format cannot express, and for a
    kernel with adapters, which the format has no place for. `adapter`: the folder inside where `peft.save` wrote them;
    the weights are then those of the base, and `load` puts the adapter back (`transformers` does not: use PEFT).
    """
    adapted = sites(kernel)
    if adapted and adapter is None:
        raise CheckpointError(
            f"the kernel has adapters beside {len(adapted)} modules, which a checkpoint cannot hold",
            remedy="fold them into the weights first: nacre.kernel.adapters.adapted.fold(kernel)",
        )
    config, held = kernel.config, kernel.config.head_in_checkpoint
    described = write_config(config)
    if adapter is not None:
        described.setdefault("nacre", {})["adapter"] = adapter
    state = {name: tensor.detach().cpu() for name, tensor in kernel.state_dict().items() if not is_adapter(name)}
    described["dtype"] = str(next(iter(state.values())).dtype).removeprefix("torch.")
    head = {} if held else {name: t.contiguous() for name, t in state.items() if name.startswith(_HEAD_PARTS)}
    body = {name: tensor for name, tensor in state.items() if name not in head}
    if described.get("nacre", {}).get("pooler") == "placeholder":
        like, size = next(iter(state.values())), config.hidden_size
        body |= {"pooler.weight": like.new_zeros(size, size), "pooler.bias": like.new_zeros(size)}
    stored_as = config if held else config.replace(head="none", labels=(), pooler=None)
    write_folder(Path(folder), described, to_theirs(stored_as, body), head)


def check_savable(config: KernelConfig) -> None:
    """Raises CheckpointError, as `save` would, for a config that the family's format cannot express.

    Cheap: for use before a long training run.
    """
    write_config(config)
    kernel = _bare(config)
    body = {
        name: t
        for name, t in kernel.state_dict().items()
        if config.head_in_checkpoint or not name.startswith(_HEAD_PARTS)
    }
    to_theirs(config if config.head_in_checkpoint else config.replace(head="none", labels=(), pooler=None), body)


class _Uninitialised(TorchFunctionMode):
    """Leaves parameters as they are allocated: draws on the meta device would import torch's compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def _bare(config: KernelConfig) -> Kernel:
    """A kernel without storage, to be filled from a checkpoint."""
    with torch.device("meta"), _Uninitialised():
        return Kernel(config)


def _settled(config: KernelConfig, extra: dict[str, object], stored: dict[str, Tensor]) -> KernelConfig:
    """What only the tensors tell: whether T5's output matrix is its own, and BERT's second pretraining head."""
    family = FAMILIES[config.family]
    if config.family == "t5" and config.head == "lm":
        own = stored.get("lm_head.weight")
        tied = own is None or ("shared.weight" in stored and torch.equal(own, stored["shared.weight"]))
        return config.replace(tied=tied)
    if config.head == "mlm" and "pretraining" in family.classes and "cls.seq_relationship.weight" in stored:
        _log.warning("the checkpoint holds a next-sentence head as well: loaded with the head 'pretraining'")
        return config.replace(head="pretraining", pooler=None)
    if config.head == "none" and "head" not in extra and config.pooler and family.pooler:
        bare = not any(name.endswith("pooler.dense.weight") for name in stored)
        if bare:
            _log.warning("the checkpoint has no pooler: the kernel has none either")
            return config.replace(pooler=False)
    return config


def _canonical(kernel: Kernel, folder: Path, stored: dict[str, Tensor], placeholder: bool) -> dict[str, Tensor]:
    config, shapes = kernel.config, {name: tensor.shape for name, tensor in kernel.state_dict().items()}
    if placeholder:
        stored = {
            name: t for name, t in stored.items() if not name.endswith(("pooler.dense.weight", "pooler.dense.bias"))
        }
    if config.head_in_checkpoint:
        return to_canonical(config, stored, shapes)
    head = read_safetensors(folder / HEAD)
    wanted = {name: shape for name, shape in shapes.items() if name.startswith(_HEAD_PARTS)}
    if {name: tensor.shape for name, tensor in head.items()} != wanted:
        what = f"{folder / HEAD} does not hold the head that config.json describes: {', '.join(wanted)}"
        raise CheckpointError(what, remedy="write the checkpoint again")
    body = {name: shape for name, shape in shapes.items() if name not in wanted}
    bare = config.replace(head="none", labels=(), pooler=config.pooler)
    return to_canonical(bare, stored, body) | head
