"""What PEFT calls the tensors of a model: those of the class of `transformers` that `hf.save` declares for a kernel.

Where that class keeps queries, keys and values in one matrix (GPT-2), several layers of a kernel are one of theirs.
A head that no class of `transformers` has stands beside the adapter in `head.safetensors`, as in `hf.save`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nacre.errors import CheckpointError
from nacre.kernel.config import KernelConfig
from nacre.kernel.families import FAMILIES
from nacre.kernel.hf_tensors import Entry, entries
from nacre.kernel.model import Kernel

_TASKS = {"classify": "SEQ_CLS", "tag": "TOKEN_CLS", "none": "FEATURE_EXTRACTION", "lm": "CAUSAL_LM"}
_FOREIGN_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "Model": "FEATURE_EXTRACTION",
}


class Place(NamedTuple):
    """A linear layer of theirs, and the layers of the model that it consists of, by name."""

    theirs: str
    ours: tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """The names of one model in PEFT's folder. `prefix` stands before the names of the body, and may be left out.

    `held`: whether the class of `transformers` has this model's head.
    """

    module: nn.Module
    prefix: str
    held: bool
    transposed: bool
    task: str | None
    shown: KernelConfig | None = None

    @classmethod
    def of(cls, module: nn.Module) -> Names:
        """The names of a kernel, or of a model of `transformers`, which are its own."""
        if not isinstance(module, Kernel):
            kind = type(module).__name__
            task = next((task for end, task in _FOREIGN_TASKS.items() if kind.endswith(end)), None)
            return cls(module, "", True, any(type(one).__name__ == "Conv1D" for one in module.modules()), task)
        config = module.config
        held = config.head_in_checkpoint
        shown = config if held else config.replace(head="none", labels=(), pooler=None)
        task = "SEQ_2_SEQ_LM" if shown.layout == "encoder-decoder" and shown.head == "lm" else _TASKS.get(shown.head)
        task = None if config.is_vision else task  # PEFT's tasks are those of texts
        family = FAMILIES[config.family]
        return cls(module, family.prefix, held, bool(family.transposed), task, shown)

    def places(self, layers: Sequence[str]) -> list[Place]:
        """Their layers that hold these layers of the model."""
        if self.shown is None:
            return [Place(name, (name,)) for name in layers]
        found = self._entries(self._with_joined(layers))
        return [Place(self.full(one), tuple(part.removesuffix(".weight") for part in one.canonical)) for one in found]

    def full(self, entry: Entry) -> str:
        """The name of a tensor of theirs, or of the layer whose weight it is, in the running class."""
        assert self.shown is not None
        before = self.prefix if entry.in_body and self.shown.head != "none" else ""
        return before + entry.theirs.removesuffix(".weight")

    def known(self) -> dict[str, Entry]:
        """Every tensor of the model by its name without `prefix`: in the running class, and on disk."""
        inside = [name for name in self.module.state_dict() if ".adapters." not in f".{name}" and not self.beside(name)]
        if self.shown is None:
            return {name: Entry(name, (name,), False, True) for name in inside}
        stored = {entry.theirs: entry for entry in entries(self.shown, inside)}
        return stored | {entry.theirs: entry for entry in self._entries(inside)}

    def beside(self, name: str) -> bool:
        """Whether this tensor is of a head that no class of `transformers` has."""
        return not self.held and name.partition(".")[0] == "classifier"

    def whole(self, full: Mapping[str, nn.Parameter], head: Iterable[str]) -> tuple[dict[str, Tensor], list[str]]:
        """Tensors that are trained in full by their name, and the modules that PEFT is to keep whole for them."""
        head = set(head)
        if self.shown is None:
            saved = {name.partition(".")[0] if name in head else name.rpartition(".")[0] for name in full}
            return dict(full), sorted(saved)
        tensors: dict[str, Tensor] = {}
        modules: set[str] = set()
        for entry in self._entries([name for name in full if not self.beside(name)]):
            if any(name not in full for name in entry.canonical):
                raise CheckpointError(
                    f"{entry.theirs} is one tensor in {self.shown.family}, and only a part of it is trained",
                    remedy="train all of it, or none",
                )
            value = torch.cat([full[name].detach() for name in entry.canonical])
            name = (self.prefix if entry.in_body and self.shown.head != "none" else "") + entry.theirs
            tensors[name] = value.T if entry.transposed else value
            part = entry.theirs.partition(".")[0] if entry.canonical[0] in head else entry.theirs.rpartition(".")[0]
            modules.add(part)
        for copy in self.tied(tensors):
            tensors[copy] = tensors[FAMILIES[self.shown.family].aliases[copy]]
            modules.add(copy.rpartition(".")[0])
        return tensors, sorted(modules)

    def tied(self, tensors: Iterable[str]) -> list[str]:
        """Output matrices that are tied to one of `tensors`: PEFT keeps a copy of what it trains, so both are given."""
        if self.shown is None or not self.shown.tied or self.shown.head not in ("lm", "mlm", "pretraining"):
            return []
        family = FAMILIES[self.shown.family]
        found = [copy for copy, source in family.aliases.items() if source in tensors and copy.endswith("weight")]
        if found and self.shown.family == "t5":
            raise CheckpointError(
                "T5 has one table for encoder, decoder and output, of which PEFT keeps a copy for one of them alone",
                remedy="leave embed.tokens out of train, or fold the adapters and save the whole model",
            )
        return found

    def _entries(self, names: Iterable[str]) -> list[Entry]:
        """Their tensors by their names in the running class."""
        assert self.shown is not None
        family = FAMILIES[self.shown.family]
        return [one._replace(theirs=family.in_class(one.theirs)) for one in entries(self.shown, names)]

    def _with_joined(self, layers: Sequence[str]) -> list[str]:
        """The weights of layers, and of those that are stored in one tensor with them."""
        assert self.shown is not None
        groups = {part: parts for parts in FAMILIES[self.shown.family].fused.values() for part in parts}
        wanted: list[str] = []
        for name in layers:
            number = re.search(r"\.layers\.(\d+)\.", name)
            template = re.sub(r"\.layers\.\d+\.", ".layers.{i}.", f"{name}.weight")
            for one in groups.get(template, (template,)):
                wanted.append(one.replace("{i}", number[1] if number else ""))
        return list(dict.fromkeys(wanted))


def parts(entry: Entry, value: Tensor, state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """A whole tensor of theirs under the model's names."""
    value = value.T if entry.transposed else value
    if len(entry.canonical) == 1:
        return [(entry.canonical[0], value)]
    sizes = [state[name].shape[0] for name in entry.canonical]
    if sum(sizes) != value.shape[0]:
        what = f"the adapter brings {entry.theirs} of the shape {tuple(value.shape)}; the kernel has {sum(sizes)} rows"
        raise CheckpointError(what, remedy="load the model that the adapter was made for")
    return list(zip(entry.canonical, torch.split(value, sizes), strict=True))
