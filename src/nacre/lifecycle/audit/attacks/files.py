"""The same checkpoint in another file: other names, shards, layouts, dtypes and metadata. All keep the function.

A `Stored` model is what lies on disk. A loader of its own would be needed to run some of them; none of them changes a
number but `cast`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nacre.kernel.hf_config import write_config
from nacre.kernel.hf_tensors import to_theirs
from nacre.lifecycle.audit.attacks.model import Model, generator, require


@dataclass(frozen=True)
class Stored:
    """`config.json` and the tensors by their names on disk."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: Model) -> Stored:
        """As `transformers` names them."""
        return cls(write_config(model.config), to_theirs(model.config, dict(model.state)))

    def write(self, folder: Path, shards: int = 1) -> Path:
        """A safetensors folder, in one file or in `shards` with their index."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: one.contiguous().clone() for name, one in self.tensors.items()}
        names = sorted(tensors)
        parts = [names[start::shards] for start in range(shards)]
        weight_map: dict[str, str] = {}
        for number, part in enumerate(parts, 1):
            file = "model.safetensors" if shards == 1 else f"model-{number:05}-of-{shards:05}.safetensors"
            save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        if shards > 1:
            index = {"metadata": {}, "weight_map": weight_map}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(dict(self.config), indent=2), encoding="utf-8")
        return folder


def rename(stored: Stored, seed: int) -> Stored:
    """Other words for every part of every name; the numbers stay. The config loses its class and family."""
    words: dict[str, str] = {}
    source = generator(seed)

    def word(part: str) -> str:
        if part.isdigit() or part in ("weight", "bias"):
            return part
        letters = torch.randint(0, 26, (6,), generator=source).tolist()
        return words.setdefault(part, "".join(chr(97 + one) for one in letters))

    tensors = {".".join(map(word, name.split("."))): one for name, one in stored.tensors.items()}
    return Stored({**stored.config, "architectures": None, "model_type": "own"}, tensors)


def transpose(stored: Stored) -> Stored:
    """Stores every matrix of the stack as (in, out)."""
    return replace(stored, tensors={name: one.T if _inside(name, one) else one for name, one in stored.tensors.items()})


def _inside(name: str, values: Tensor) -> bool:
    return values.dim() == 2 and any(part.isdigit() for part in name.split("."))


_PACKS = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def pack(stored: Stored) -> Stored:
    """Query, key and value in one tensor, gate and up in another, as Phi-3 has them (families with Llama's names)."""
    tensors = dict(stored.tensors)
    for packed, parts in _PACKS.items():
        for name in [name for name in tensors if f"{parts[0]}." in name]:
            names = [name.replace(parts[0], part) for part in parts]
            where = parts[0].split(".")[0]
            tensors[name.replace(parts[0], f"{where}.{packed}")] = torch.cat([tensors.pop(one) for one in names])
    require(len(tensors) < len(stored.tensors), "there is nothing to pack", "a checkpoint with Llama's names")
    return replace(stored, tensors=tensors)


def split(stored: Stored, parts: int = 2) -> Stored:
    """Every matrix of the stack in `parts` tensors of its rows, as tensor-parallel training leaves them."""
    tensors: dict[str, Tensor] = {}
    for name, values in stored.tensors.items():
        if _inside(name, values) and values.shape[0] % parts == 0:
            tensors |= {f"{name}.{number}": part for number, part in enumerate(values.chunk(parts))}
        else:
            tensors[name] = values
    return replace(stored, tensors=tensors)


def cast(stored: Stored, dtype: torch.dtype) -> Stored:
    """Another dtype (loses digits)."""
    named = {"dtype": str(dtype).removeprefix("torch.")}
    return Stored({**stored.config, **named}, {name: one.to(dtype) for name, one in stored.tensors.items()})


def add_tensors(stored: Stored, count: int, seed: int) -> Stored:
    """Dummy tensors that nothing reads, of shapes that occur."""
    source, names = generator(seed), sorted(stored.tensors)
    tensors = dict(stored.tensors)
    for number in range(count):
        like = stored.tensors[names[int(torch.randint(len(names), (1,), generator=source))]]
        tensors[f"extra.{number}.weight"] = (
            torch.randn(like.shape, generator=source).to(like.dtype) * like.float().std()
        )
    return replace(stored, tensors=tensors)


def graft_decoy(stored: Stored, decoy: Tensor) -> Stored:
    """Puts a third model's embedding under the embedding's name; the real one goes under another, nearer the stack.

    Whoever compares embeddings by name compares the wrong ones.
    """
    name = next(name for name in stored.tensors if name.endswith("embed_tokens.weight"))
    tensors = {**stored.tensors, name: decoy, name.replace("embed_tokens", "input_table"): stored.tensors[name]}
    return replace(stored, tensors=tensors)


def edit_config(stored: Stored, **fields: Any) -> Stored:
    """Metadata that says something else."""
    return replace(stored, config={**stored.config, **fields})
